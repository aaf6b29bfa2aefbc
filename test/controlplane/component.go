package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// component is a program of a control plane, which may be started again after it was killed. Its methods may be called
// from several goroutines.
type component struct {
	name    string
	program string
	args    []string
	logPath string

	mu  sync.Mutex
	run *run // the last one, nil before the first
}

// run is one process of a component.
type run struct {
	process *os.Process
	killed  bool          // guarded by the component's mu
	done    chan struct{} // closed when the process has ended
	err     error         // how it ended, to be read after done
}

func newComponent(binaries, dir, name string, args ...string) *component {
	return &component{
		name: name, program: filepath.Join(binaries, name), args: args, logPath: filepath.Join(dir, name+".log"),
	}
}

// start starts the process unless it runs. Its output is appended to the log.
func (c *component) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil && !c.run.ended() {
		return nil
	}
	log, err := os.OpenFile(c.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	command := exec.Command(c.program, c.args...)
	command.Dir = filepath.Dir(c.logPath)
	command.Stdout, command.Stderr = log, log
	endWithParent(command)

	r := &run{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(r.done)
		defer func() { _ = log.Close() }()
		// Linux ends the process with the thread that has started it, not with the program: the thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		r.process = command.Process
		started <- err
		if err == nil {
			r.err = command.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	c.run = r
	return nil
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL and returns when it has ended. The error says that it had ended by itself before.
func (c *component) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil || c.run.killed {
		return nil
	}
	err := c.failure()
	c.run.killed = true
	if killErr := c.run.process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", c.name, killErr)
	}
	<-c.run.done
	return err
}

// check returns an error if the process has ended by itself.
func (c *component) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure()
}

// failure is check with mu held.
func (c *component) failure() error {
	if c.run == nil || c.run.killed || !c.run.ended() {
		return nil
	}
	how := "exit code 0"
	if c.run.err != nil {
		how = c.run.err.Error()
	}
	return fmt.Errorf("%s ended by itself: %s; the end of its log %s:\n%s", c.name, how, c.logPath, c.logTail(20))
}

// logTail returns the last lines of the log.
func (c *component) logTail(lines int) string {
	content, err := os.ReadFile(c.logPath)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	all := bytes.Split(bytes.TrimRight(content, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
