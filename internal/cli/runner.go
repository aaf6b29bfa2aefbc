package cli

import (
	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/runner"
)

// runnerCommand is for help, completion and unusual calls: main runs `offboard runner -- COMMAND` without the tree of
// commands, because it happens once per item.
func (a *app) runnerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runner -- COMMAND [ARG...]",
		Short: "Take one item from a Redis list and run a command with it",
		Long: `Take one item from the head of a Redis list and run COMMAND with it. This is what runs inside a Job;
COMMAND may be written in any language and need not know of Redis.

COMMAND finds the item on its standard input, byte for byte, and in the variable OFFBOARD_ITEM. An item that holds NUL
or has more than 96 KiB is on standard input only. When the list is empty, the runner says "nothing to do" and succeeds
without running anything.

An item is taken only when COMMAND exists. If COMMAND cannot be started all the same, the item is given back to the
head of the list. Signals are passed on to COMMAND.

The list is named by variables of the environment:
  REDIS_HOST      host that Redis runs on; required
  REDIS_LIST      name of the list; required
  REDIS_PORT      port, default 6379
  REDIS_USER      user, where the server has users
  REDIS_PASSWORD  password, where the server asks for one
  REDIS_DB        number of the database, default 0
  REDIS_TLS       true for a connection over TLS; SSL_CERT_FILE names the file of a private authority's certificate
If Redis cannot be reached, the runner tries again for 5 seconds.

Exit codes:
  those of COMMAND once it has started, or 128 and the number of the signal that ended it; otherwise
  0    nothing to do
  1    Redis cannot be used
  2    wrong usage, or a variable is missing or wrong
  126  COMMAND cannot be started
  127  COMMAND does not exist
  128+n  signal n came before COMMAND was started`,
		Example: `  REDIS_HOST=127.0.0.1 REDIS_LIST=usertask offboard runner -- ./process-user
  offboard runner -- sh -c 'curl --fail --data-binary @- https://example.com/hook'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			o := runner.Options{Command: args, Environ: a.Environ, Stdout: a.Out, Stderr: a.Err}
			if code := runner.Run(o); code != exitOK {
				return exitCode(code)
			}
			return nil
		},
	}
	// What follows the command belongs to it, also without "--".
	cmd.Flags().SetInterspersed(false)
	return cmd
}
