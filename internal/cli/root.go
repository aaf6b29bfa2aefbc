package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// root returns the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "offboard",
		Short: "Turn items of a queue into Jobs that run to completion",
		Long: `Offboard moves long-running work out of an application: the application pushes an item onto a queue, and
Offboard starts one Job for it. The manifest is the ScaledJob of KEDA (keda.sh/v1alpha1).

"offboard up" does the work on this machine and runs until it is stopped, "offboard operator" does it on a cluster.
push, get, jobs, logs, queue, dead, release, pause and resume are the same for both.

` + whereHelp + `

On this machine, commands talk to "offboard up" through a socket in its data folder, which is the first of --data-dir,
$OFFBOARD_DATA_DIR, $XDG_STATE_HOME/offboard and ~/.local/state/offboard.

` + pluginHelp + `

` + exitHelp + `

"offboard runner" ends with the exit code of the command that it runs; see its help.`,
		Example: `  offboard up -f examples/usertask/
  offboard push usertask '{"user": 1}'
  offboard get
  offboard logs usertask-x7k2p -f
  offboard get --context production -n shop`,
		Version:       a.version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, sub := range cmd.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return usageErrorf("unknown command %q%s; see: %s --help", args[0], didYouMean(args[0], names), a.name())
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(a.Args)
	// Before cobra's own commands are made, which remember the output.
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetVersionTemplate("offboard {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%w; see: %s --help", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.dataDirFlag, "data-dir", "", "folder with the state and the socket of offboard up")
	flags.BoolVar(&a.noColor, "no-color", false, "print without colours, as with the variable NO_COLOR")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log more")
	complete(root, "data-dir", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
	add(root, "work", "Run Jobs on this machine:",
		a.upCommand(), a.demoCommand())
	add(root, "both", "See and steer what runs, on this machine or a cluster:",
		a.pushCommand(), a.getCommand(), a.jobsCommand(), a.logsCommand(), a.queueCommand(), a.deadCommand(),
		a.releaseCommand(), a.pauseCommand(), a.resumeCommand())
	add(root, "tools", "Write manifests and runners:",
		a.triggersCommand(), a.explainCommand(), a.validateCommand(), a.decideCommand(), a.simulateCommand(),
		a.runnerCommand())
	add(root, "operator", "Work on a cluster:", a.operatorCommand(), a.crdsCommand())
	add(root, "about", "About this program:", a.versionCommand())
	root.AddCommand(a.joinCommand())
	addCobrasOwn(root, "about")
	a.asPlugin(root)
	return root
}

// add adds commands under a title of the help.
func add(root *cobra.Command, group, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: group, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = group
	}
	root.AddCommand(commands...)
}

// addCobrasOwn adds the commands that cobra brings, and what they lack to be like the others.
func addCobrasOwn(root *cobra.Command, group string) {
	root.SetHelpCommandGroupID(group)
	root.SetCompletionCommandGroupID(group)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Example = "  offboard help push"
		case "completion":
			cmd.Example = "  source <(offboard completion bash)"
			cmd.Args = usageArgs(cobra.NoArgs)
			for _, shell := range cmd.Commands() {
				shell.Args = usageArgs(cobra.NoArgs)
				shell.Example = "  offboard completion " + shell.Name()
			}
		}
	}
}

// unknown makes an error of a name that is not among those that exist.
func unknown(kind, name, namespace string, names []string) error {
	return notFoundError(fmt.Sprintf("%s %q does not exist in namespace %s%s", kind, name, namespace,
		didYouMean(name, names)))
}
