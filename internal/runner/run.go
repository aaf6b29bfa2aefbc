package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exit codes of the runner itself. Once the command has started, its own exit code is the runner's, or 128 and the
// number of the signal that ended it, as shells do.
const (
	ExitOK          = 0   // also when the list is empty
	ExitFailure     = 1   // Redis cannot be used
	ExitUsage       = 2   // the call or a variable is wrong
	ExitCannotStart = 126 // the command exists and cannot be started
	ExitNotFound    = 127 // the command does not exist
	exitSignal      = 128
)

const (
	// ItemVariable is the variable of the command's environment that holds the item.
	ItemVariable = "OFFBOARD_ITEM"
	// ReportVariable is the variable of the runner's own environment that names the file to which it reports the item.
	ReportVariable = "OFFBOARD_REPORT"
	// MaxItemVariable is the size in bytes up to which an item is put into a variable. Linux takes 128 KiB for a
	// variable with its name, and the others need some room too.
	MaxItemVariable = 96 << 10
	// MaxReport is how many bytes of the item are reported.
	MaxReport = 4 << 10

	connectPatience = 5 * time.Second
)

// Usage is the short help that goes with an error of usage.
const Usage = "usage: offboard runner -- COMMAND [ARG...]"

// Options are what Run works with.
type Options struct {
	// Command is the command and its arguments.
	Command []string
	// Environ is the environment, as of os.Environ, for the runner and for the command.
	Environ []string
	// Stdout and Stderr are the command's and the runner's own. With an *os.File the command writes to it directly.
	Stdout, Stderr io.Writer

	// patience replaces the time for which Redis may be unreachable at first; zero means the usual.
	patience time.Duration
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

func (r *run) getenv(name string) string {
	// The last one counts, as in os/exec.
	for i := len(r.Environ) - 1; i >= 0; i-- {
		if value, found := strings.CutPrefix(r.Environ[i], name+"="); found {
			return value
		}
	}
	return ""
}

func (r *run) run(signals *signals) (int, error) {
	if len(r.Command) == 0 {
		return ExitUsage, errors.New("the command to run is missing")
	}
	c, err := newConfig(r.getenv)
	if err != nil {
		return ExitUsage, err
	}
	// Before an item is taken, everything is checked that can be, so that there is seldom one to give back.
	path, err := exec.LookPath(r.Command[0])
	if err != nil {
		return startCode(err), fmt.Errorf("no item was taken, because the command cannot be run: %w", err)
	}
	if r.patience == 0 {
		r.patience = connectPatience
	}

	r.say("trying to get a single job from the list %q at %s", c.list, c.address())
	q, item, err := take(signals.untilEnd, c, r.patience)
	if end := (endSignal)(0); errors.As(err, &end) {
		return exitSignal + int(end), fmt.Errorf("%w: no item was taken", err)
	}
	if err != nil {
		return ExitFailure, err
	}
	defer q.close()
	if q.passwordUnused {
		r.complain(fmt.Errorf("redis at %s needs no password: REDIS_PASSWORD is not used", c.address()))
	}
	if item == nil {
		r.say("nothing to do")
		return ExitOK, nil
	}
	if end := (endSignal)(0); errors.As(context.Cause(signals.untilEnd), &end) {
		return exitSignal + int(end), r.giveBack(q, item, end)
	}
	signals.starting.Store(true)
	cmd, input, err := r.start(path, item)
	if err != nil {
		return startCode(err), r.giveBack(q, item, fmt.Errorf("start the command: %w", err))
	}
	q.close()
	return r.finish(cmd, input, item, signals)
}

// start starts the command with the item and returns the writing end of its standard input.
func (r *run) start(path string, item []byte) (*exec.Cmd, io.WriteCloser, error) {
	env := r.environment()
	switch {
	case bytes.IndexByte(item, 0) >= 0:
		r.say("took an item of %d bytes with NUL: it is on standard input only, not in %s", len(item), ItemVariable)
	case len(item) > MaxItemVariable:
		r.say("took a large item of %d bytes: it is on standard input only, not in %s", len(item), ItemVariable)
	default:
		r.say("took an item of %d bytes", len(item))
		env = append(env, ItemVariable+"="+string(item))
	}
	cmd := &exec.Cmd{Path: path, Args: r.Command, Stdout: r.Stdout, Stderr: r.Stderr, Env: env}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	r.report(item)
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return cmd, input, nil
}

// environment returns the command's environment without the item. Of what the runner was given it holds all but the
// variables that are meant for the runner itself.
func (r *run) environment() []string {
	env := make([]string, 0, len(r.Environ)+1)
	for _, entry := range r.Environ {
		if name, _, _ := strings.Cut(entry, "="); name != ItemVariable && name != ReportVariable {
			env = append(env, entry)
		}
	}
	return env
}

// report tells the owner of the Job which item it is. Nothing depends on it, so its failure is no error.
func (r *run) report(item []byte) {
	if file := r.getenv(ReportVariable); file != "" {
		_ = os.WriteFile(file, item[:min(len(item), MaxReport)], 0o600)
	}
}

// giveBack puts the item back to the head of the list because of reason, and returns the error to show.
func (r *run) giveBack(q *queue, item []byte, reason error) error {
	err := q.giveBack(item)
	if err != nil {
		// The connection may have broken in the meantime. An item twice is better than an item lost.
		again, connectErr := connect(context.Background(), q.config)
		if connectErr != nil {
			err = errors.Join(err, connectErr)
		} else {
			err = again.giveBack(item)
			again.close()
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n%w\nthe item could not be given back to the list and is in this message only: %q",
			reason, err, item)
	}
	if file := r.getenv(ReportVariable); file != "" {
		_ = os.Remove(file)
	}
	return fmt.Errorf("%w: the item was given back to the head of the list", reason)
}

// finish feeds the command its input, passes signals on, waits for its end and returns its exit code.
func (r *run) finish(cmd *exec.Cmd, input io.WriteCloser, item []byte, signals *signals) (int, error) {
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		// A command may close its input or end without reading it; that is its own affair.
		_, _ = input.Write(item)
		_ = input.Close()
	}()
	passing := signals.passTo(cmd.Process)
	// Wait closes the pipe, which ends the feeding even if a process that the command has left holds the other end.
	err := cmd.Wait()
	passing.stop()
	<-fed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ExitFailure, fmt.Errorf("wait for the command: %w", err)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// startCode returns the exit code for a command that cannot be started.
func startCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return ExitNotFound
	}
	return ExitCannotStart
}
