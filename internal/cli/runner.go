package cli

import (
	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/runner"
)

// runnerCommand is for help, completion and unusual calls: main runs `offboard runner [flags] -- COMMAND` without the
// tree of commands, because it happens once per item.
func (a *app) runnerCommand() *cobra.Command {
	o := runner.Options{Environ: a.Environ, Stdout: a.Out, Stderr: a.Err}
	cmd := &cobra.Command{
		Use:     "runner [flags] -- COMMAND [ARG...]",
		Short:   "Take one item from a Redis list and run a command with it",
		Long:    runner.Help,
		Example: runner.Examples,
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			o.Command = args
			if code := runner.Run(o); code != exitOK {
				return exitCode(code)
			}
			return nil
		},
	}
	cmd.Flags().AddGoFlagSet(o.Flags())
	// What follows the command belongs to it, also without "--".
	cmd.Flags().SetInterspersed(false)
	return cmd
}
