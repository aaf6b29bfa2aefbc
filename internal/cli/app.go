// Package cli is the command line: one file a command. It reads flags, asks other packages, and prints what they say.
// What the commands do is not decided here.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Options are what the process gives to the command line.
type Options struct {
	// Version is the version of the program, as a release names it; empty in a plain `go build`.
	Version string
	// Program is the name by which the program was called, as of os.Args[0]; empty means offboard. Called
	// kubectl-offboard it is a plugin of kubectl, and called kubectl_complete-offboard it completes that.
	Program string
	// Args are the arguments after the program's name.
	Args []string
	// Environ is the environment, as of os.Environ.
	Environ []string
	// In, Out and Err are the standard streams. Colours are used only on an *os.File that is a terminal.
	In       io.Reader
	Out, Err io.Writer

	// now replaces the clock; nil means time.Now.
	now func() time.Time
	// completing replaces how long a Tab key may take; zero means completionTimeout.
	completing time.Duration
}

// Execute runs a command and returns the exit code for the process. Errors are printed to Err.
func Execute(ctx context.Context, o Options) int {
	a := &app{Options: o, log: new(slog.LevelVar)}
	if a.completing == 0 {
		a.completing = completionTimeout
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.program() == completionName {
		a.Args = append([]string{cobra.ShellCompRequestCmd}, a.Args...)
	}
	root := a.root()
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code): // the command has said what is wrong
		return int(code)
	}
	_, _ = fmt.Fprintf(o.Err, "%s: %s\n", a.name(), safeText(err.Error()))
	return codeOf(err)
}

// app is what the commands share.
type app struct {
	Options
	dataDirFlag string
	noColor     bool
	verbose     bool
	log         *slog.LevelVar
}

// getenv returns a variable of the environment; the last one counts, as in os/exec.
func (a *app) getenv(name string) string {
	for i := len(a.Environ) - 1; i >= 0; i-- {
		if entry := a.Environ[i]; len(entry) > len(name) && entry[len(name)] == '=' && entry[:len(name)] == name {
			return entry[len(name)+1:]
		}
	}
	return ""
}

// dataDir returns the folder that holds the state of `offboard up` and its socket. It need not exist.
func (a *app) dataDir() (string, error) {
	for _, dir := range []string{a.dataDirFlag, a.getenv("OFFBOARD_DATA_DIR")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	// The XDG specification has relative paths ignored.
	if state := a.getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "offboard"), nil
	}
	if home := a.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "offboard"), nil
	}
	return "", usageErrorf("there is no data folder, because HOME is not set: " +
		"name one with --data-dir or the variable OFFBOARD_DATA_DIR")
}

// isTerminal tells whether a stream is one.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// colours tells whether colours may be written to the stream. NO_COLOR is the convention of https://no-color.org.
func (a *app) colours(stream io.Writer) bool {
	return !a.noColor && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && isTerminal(stream)
}

// paint colours a text if told to.
func paint(coloured bool, text string, attributes ...color.Attribute) string {
	if !coloured || len(attributes) == 0 || text == "" {
		return text
	}
	c := color.New(attributes...)
	c.EnableColor()
	return c.Sprint(text)
}

// usageArgs makes an error of usage of what one of cobra's checks of the arguments finds.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageErrorf("%v; see: %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}
