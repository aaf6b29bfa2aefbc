package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Exit codes of the runner itself. Once the command has started, its own exit code is the runner's, or 128 and the
// number of the signal that ended it, as shells do.
const (
	ExitOK          = 0   // also when the list is empty
	ExitFailure     = 1   // Redis cannot be used, or the item was lost to somebody else while the command ran
	ExitUsage       = 2   // the call or a variable is wrong
	ExitCannotStart = 126 // the command exists and cannot be started
	ExitNotFound    = 127 // the command does not exist
	exitSignal      = 128
)

// Exit codes by which the command says what is to become of its item, as in sysexits.h; see [Help].
const (
	ExitDataError   = 65 // EX_DATAERR: the item can never be done
	ExitTempFailure = 75 // EX_TEMPFAIL: later
)

const (
	// ItemVariable is the variable of the command's environment that holds the item.
	ItemVariable = "OFFBOARD_ITEM"
	// IDVariable holds the item's id. When it is in the runner's own environment, the Job was handed its item.
	IDVariable = "OFFBOARD_ITEM_ID"
	// AttemptVariable holds the number of the item's attempt, from 1.
	AttemptVariable = "OFFBOARD_ATTEMPT"
	// FileVariable holds the path of a file with the item, in a Job that was handed its item as a file.
	FileVariable = "OFFBOARD_ITEM_FILE"
	// ReportVariable is the variable of the runner's own environment that names the file to which it reports the item.
	// Without it, the runner reports in the termination message of its container, see ReportedItem.
	ReportVariable = "OFFBOARD_REPORT"
	// MaxItemVariable is the size in bytes up to which an item is put into a variable. Linux takes 128 KiB for a
	// variable with its name, and the others need some room too.
	MaxItemVariable = 96 << 10
	// MaxReport is how many bytes of the item are reported.
	MaxReport = 4 << 10

	connectPatience = 5 * time.Second
)

// Options are what Run works with. Flags sets the defaults of those that are flags.
type Options struct {
	// Command is the command and its arguments.
	Command []string
	// Environ is the environment, as of os.Environ, for the runner and for the command.
	Environ []string
	// Stdout and Stderr are the command's and the runner's own. With an *os.File the command writes to it directly.
	Stdout, Stderr io.Writer

	// Pop takes the item with LPOP, without a claim. The others are without effect then, and must have their defaults.
	Pop bool
	// Lease is how long the claim of an item lasts when the runner cannot renew it, a second or more.
	Lease time.Duration
	// Attempts is how many attempts of an item may fail before it is buried, 1 or more.
	Attempts int
	// Backoff is how long an item waits after its first failure; 0 puts it back to the head of the list at once.
	Backoff time.Duration
	// Wait is how long to wait for an item that is held by others or put off, when there is no other.
	Wait time.Duration

	// patience replaces the time for which Redis may be unreachable at first; zero means the usual.
	patience time.Duration
	// settleMore replaces for how long a settlement is tried after the end of the lease; zero means the usual.
	settleMore time.Duration
	// terminationLog replaces the file of that name; empty means the usual.
	terminationLog string
}

// Run takes one item, runs the command with it and returns the exit code for the process. It catches the signals of the
// process meanwhile. It prints what it does to Stdout and what goes wrong to Stderr.
func Run(o Options) int {
	r := &run{Options: o}
	signals := catch()
	defer signals.release()
	code, err := r.run(signals)
	if err != nil {
		r.complain(err)
		if code == ExitUsage && len(o.Command) == 0 {
			_, _ = fmt.Fprintln(o.Stderr, Usage)
		}
	}
	return code
}

type run struct{ Options }

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.Stdout, "offboard runner: "+format+"\n", args...)
}

func (r *run) complain(err error) {
	for line := range strings.Lines(err.Error()) {
		_, _ = fmt.Fprintf(r.Stderr, "offboard runner: %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// lookup returns a variable of the environment, and whether it is set.
func (r *run) lookup(name string) (value string, set bool) {
	// The last one counts, as in os/exec.
	for i := len(r.Environ) - 1; i >= 0; i-- {
		if value, found := strings.CutPrefix(r.Environ[i], name+"="); found {
			return value, true
		}
	}
	return "", false
}

func (r *run) getenv(name string) string {
	value, _ := r.lookup(name)
	return value
}

func (r *run) run(signals *signals) (int, error) {
	if len(r.Command) == 0 {
		return ExitUsage, errors.New("the command to run is missing")
	}
	if err := r.validate(); err != nil {
		return ExitUsage, err
	}
	handed := r.getenv(IDVariable) != ""
	var c config
	if !handed {
		var err error
		if c, err = newConfig(r.getenv); err != nil {
			return ExitUsage, err
		}
	}
	// Before an item is taken, everything is checked that can be, so that there is seldom one to give back.
	path, err := exec.LookPath(r.Command[0])
	switch {
	case err != nil && handed:
		return startCode(err), fmt.Errorf("the command cannot be run: %w", err)
	case err != nil:
		return startCode(err), fmt.Errorf("no item was taken, because the command cannot be run: %w", err)
	case handed:
		return r.handed(path, signals)
	}
	if r.patience == 0 {
		r.patience = connectPatience
	}
	r.say("trying to get a single job from the list %q at %s", c.list, c.address())
	if r.Pop {
		return r.pop(path, c, signals)
	}
	return r.claim(path, c, signals)
}

// stopped tells whether a signal asked for the end before there was a command to take it.
func stopped(ctx context.Context) (end endSignal, is bool) {
	is = errors.As(context.Cause(ctx), &end)
	return end, is
}

// noteUnusedPassword says that a password is not needed, when one was given.
func (r *run) noteUnusedPassword(l *link) {
	if l.passwordUnused {
		r.complain(fmt.Errorf("redis at %s needs no password: REDIS_PASSWORD is not used", l.config.address()))
	}
}
