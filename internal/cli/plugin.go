package cli

import (
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"
)

// The names by which kubectl calls its plugins.
const (
	pluginName     = "kubectl-offboard"
	completionName = "kubectl_complete-offboard"
)

const pluginHelp = `The program is a plugin of kubectl where it is found as kubectl-offboard, for example by a link:
  ln -s "$(command -v offboard)" /usr/local/bin/kubectl-offboard
A second link of the name kubectl_complete-offboard lets the shell complete "kubectl offboard".`

// program returns the file name by which the program was called.
func (a *app) program() string { return filepath.Base(a.Program) }

// plugin tells whether kubectl has called the program, or completes a call of it.
func (a *app) plugin() bool { return a.program() == pluginName || a.program() == completionName }

// name returns what a user writes to call the program.
func (a *app) name() string {
	if a.plugin() {
		return "kubectl offboard"
	}
	return "offboard"
}

// call finds calls of the program in examples: at the begin of a line, and behind a pipe or a parenthesis.
var call = regexp.MustCompile(`(?m)(^ *|\| |\()offboard `)

// asPlugin makes the help of all commands speak of the plugin.
func (a *app) asPlugin(root *cobra.Command) {
	if !a.plugin() {
		return
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: a.name()}
	var rewrite func(cmd *cobra.Command)
	rewrite = func(cmd *cobra.Command) {
		cmd.Example = call.ReplaceAllString(cmd.Example, "${1}"+a.name()+" ")
		for _, sub := range cmd.Commands() {
			rewrite(sub)
		}
	}
	rewrite(root)
}
