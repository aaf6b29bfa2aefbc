package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// command is the command while it runs.
type command struct {
	cmd *exec.Cmd
	// input takes the item; nil when the command reads it from a file.
	input io.WriteCloser
	item  []byte
	began time.Time
}

// start starts the command with the item on its standard input, and in its variable where that can hold it; more are
// variables that go with it.
func (r *run) start(path string, item []byte, more []string) (*command, error) {
	env := slices.Concat(r.environment(ItemVariable, IDVariable, AttemptVariable, FileVariable), more)
	switch {
	case bytes.IndexByte(item, 0) >= 0:
		r.say("took an item of %d bytes with NUL: it is on standard input only, not in %s", len(item), ItemVariable)
	case len(item) > MaxItemVariable:
		r.say("took a large item of %d bytes: it is on standard input only, not in %s", len(item), ItemVariable)
	default:
		r.say("took an item of %d bytes", len(item))
		env = append(env, ItemVariable+"="+string(item))
	}
	r.report(item)
	return r.launch(path, env, item)
}

// launch starts the command with that environment and input.
func (r *run) launch(path string, env []string, item []byte) (*command, error) {
	cmd := r.prepare(path, env)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &command{cmd, input, item, began}, nil
}

func (r *run) prepare(path string, env []string) *exec.Cmd {
	return &exec.Cmd{Path: path, Args: r.Command, Stdout: r.Stdout, Stderr: r.Stderr, Env: env}
}

// environment returns what the runner was given for the command: all but the variable that is meant for the runner
// itself, and without those of the names.
func (r *run) environment(without ...string) []string {
	env := make([]string, 0, len(r.Environ)+3)
	for _, entry := range r.Environ {
		if name, _, _ := strings.Cut(entry, "="); name != ReportVariable && !slices.Contains(without, name) {
			env = append(env, entry)
		}
	}
	return env
}

// finish feeds the command its input, passes signals on and waits for its end.
func (c *command) finish(signals *signals) (ending, error) {
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		if c.input == nil {
			return
		}
		// A command may close its input or end without reading it; that is its own affair.
		_, _ = c.input.Write(c.item)
		_ = c.input.Close()
	}()
	passing := signals.passTo(c.cmd.Process)
	// Wait closes the pipe, which ends the feeding even if a process that the command has left holds the other end.
	err := c.cmd.Wait()
	took := time.Since(c.began)
	passing.stop()
	signals.catchUp()
	<-fed
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ending{code: ExitFailure}, fmt.Errorf("wait for the command: %w", err)
	}
	ended := ending{code: c.cmd.ProcessState.ExitCode(), took: took, asked: signals.asked.Load()}
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		ended.signal = status.Signal()
		ended.code = exitSignal + int(ended.signal)
	}
	return ended, nil
}

// ending is how the command has ended.
type ending struct {
	// code is the exit code, which is the runner's too.
	code int
	// signal is the one that ended the command; 0 when it has exited.
	signal syscall.Signal
	took   time.Duration
	// asked tells that the runner, and so the command, was asked to end by a signal.
	asked bool
}

// String says it within a sentence.
func (e ending) String() string {
	unit := time.Millisecond
	if e.took >= time.Second {
		unit = 100 * time.Millisecond
	}
	took := e.took.Round(unit)
	switch {
	case e.signal != 0:
		return fmt.Sprintf("ended by %s after %s", e.signalName(), took)
	case e.code != 0:
		return fmt.Sprintf("failed with exit code %d after %s", e.code, took)
	}
	return fmt.Sprintf("done in %s", took)
}

// signalName returns the name of the signal, such as SIGKILL; empty when there was none.
func (e ending) signalName() string {
	if e.signal == 0 {
		return ""
	}
	if name := unix.SignalName(e.signal); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(e.signal))
}

// startCode returns the exit code for a command that cannot be started.
func startCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return ExitNotFound
	}
	return ExitCannotStart
}
