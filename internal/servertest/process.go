// Package servertest starts real servers for tests: on free ports of 127.0.0.1, in temporary folders, ended with the
// test. It has the certificates that they need for TLS, and a proxy that fails as a network does. It is imported by
// tests only.
package servertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Defaults and limits of a program.
const (
	// startTimeout is how long a server may take until it answers, unless its program says otherwise.
	startTimeout = 3 * time.Minute
	// stopTimeout is how long a server may take to end in order.
	stopTimeout = time.Minute
	// attempts is how often free ports are looked for: a program that is no test may take one between its choice and its
	// use.
	attempts = 50
)

// Program says how a server is started.
type Program struct {
	// Name is that of the executable file, on the PATH or in Debian's folders for servers (/usr/sbin), or a path.
	Name string
	// Ports is how many ports it listens on; at least 1.
	Ports int
	// Fixed is the port to listen on where Ports is 1; 0 means a free one.
	Fixed int
	// Args returns its arguments. It is called before each launch, and may write files into the process's folder.
	Args func(p *Process) ([]string, error)
	// Env are further variables of its environment, as os/exec takes them.
	Env func(p *Process) []string
	// Ready tells whether the server answers; it is asked until it returns nil. A connection to the first port alone
	// does not tell that it was this process that took it: what the process writes does, see Process.Log.
	Ready func(ctx context.Context, p *Process) error
	// Taken is what the process writes before it ends because of a port that is taken; empty means "ddress already in
	// use".
	Taken string
	// Timeout is how long it may take until it is ready; 0 means 3 minutes.
	Timeout time.Duration
	// Credential is the user and group that the process runs as; nil means the test's.
	Credential *syscall.Credential
}

// Process is a server that runs, or did. It keeps its ports and its folder over a restart.
type Process struct {
	tb      testing.TB
	program Program
	folder  string
	ports   []int
	running *exec.Cmd
	exited  chan struct{}
}

// Start starts a server in the folder and waits until it is ready; a temporary folder where it is empty. It fails the
// test when there is no such program.
func Start(tb testing.TB, folder string, program Program) *Process {
	tb.Helper()
	if folder == "" {
		folder = tb.TempDir()
	}
	p := &Process{tb: tb, program: program, folder: folder}
	tb.Cleanup(p.Kill)
	for range attempts {
		p.ports = []int{program.Fixed}
		if program.Fixed == 0 {
			p.ports = freePorts(tb, max(program.Ports, 1))
		}
		err := p.launch()
		if err == nil {
			return p
		}
		if program.Fixed != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			tb.Fatal(err)
		}
	}
	tb.Fatalf("no free port for %s found", program.Name)
	return nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// launch starts the process and waits until it answers. The error is EADDRINUSE when a port is taken.
func (p *Process) launch() error {
	binary, err := find(p.program.Name)
	if err != nil {
		return err
	}
	args, err := p.program.Args(p)
	if err != nil {
		return err
	}
	logFile, err := os.Create(p.logPath())
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	command := exec.Command(binary, args...)
	command.Dir = p.folder
	command.Stdout, command.Stderr = logFile, logFile
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.program.Credential}
	if p.program.Env != nil {
		command.Env = append(os.Environ(), p.program.Env(p)...)
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.program.Name, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = command.Wait()
	}()
	p.running, p.exited = command, exited
	return p.await()
}

// await waits until the process that was started answers.
func (p *Process) await() error {
	timeout := p.program.Timeout
	if timeout == 0 {
		timeout = startTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		err := p.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			p.Kill() // what it may have left
			taken := p.program.Taken
			if taken == "" {
				taken = "ddress already in use"
			}
			if strings.Contains(p.Log(), taken) {
				return fmt.Errorf("%s on ports %v: %w", p.program.Name, p.ports, syscall.EADDRINUSE)
			}
			return fmt.Errorf("%s ended at once:\n%s", p.program.Name, p.Log())
		case <-ctx.Done():
			p.Kill()
			return fmt.Errorf("%s does not answer within %v: %w\n%s", p.program.Name, timeout, err, p.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ready asks whether the process answers; one that has ended does not, whoever has its port now.
func (p *Process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := p.program.Ready(ctx, p)
	select {
	case <-p.exited:
		return errors.New("it has ended")
	default:
		return err
	}
}

// find returns the program's path.
func find(name string) (string, error) {
	if binary, err := exec.LookPath(name); err == nil {
		return binary, nil
	}
	if found, err := exec.LookPath(filepath.Join("/usr/sbin", name)); err == nil {
		return found, nil
	}
	return "", fmt.Errorf("there is no %s on the PATH: run `make test`, which installs it", name)
}

// Folder returns the working folder.
func (p *Process) Folder() string { return p.folder }

// Path returns the path of a file in the working folder.
func (p *Process) Path(name string) string { return filepath.Join(p.folder, name) }

// Write writes a file in the working folder that its user alone may read.
func (p *Process) Write(name, content string) error {
	path := p.Path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	if user := p.program.Credential; user != nil {
		return os.Chown(path, int(user.Uid), int(user.Gid))
	}
	return nil
}

// Port returns a port by its number, beginning with 0.
func (p *Process) Port(i int) int { return p.ports[i] }

// Addr returns host:port of a port by its number, beginning with 0.
func (p *Process) Addr(i int) string { return address(p.ports[i]) }

func (p *Process) logPath() string { return p.Path("output.log") }

// Log returns what the process has written since it was last started.
func (p *Process) Log() string {
	output, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(output)
}

// Restart starts a process that has ended, on the same ports and in the same folder.
func (p *Process) Restart() {
	p.tb.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		err := p.launch()
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			p.tb.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // whoever took the port may give it back
	}
}

// Stop ends the process in order.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the process and its children at once. It does nothing when it has ended.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Running tells whether the process was started and neither Stop nor Kill has ended it since.
func (p *Process) Running() bool { return p.running != nil }

// Freeze stops the process and its children, so that connections stay open and nothing is answered. It returns when the
// process has stopped, which it does some time after it was told to.
func (p *Process) Freeze() {
	p.tb.Helper()
	p.signal(syscall.SIGSTOP)
	for {
		switch _, err := syscall.Wait4(p.running.Process.Pid, nil, syscall.WUNTRACED, nil); {
		case err == nil:
			return
		case !errors.Is(err, syscall.EINTR):
			p.tb.Fatalf("wait until %s has stopped: %v", p.program.Name, err)
		}
	}
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(signal syscall.Signal) {
	p.tb.Helper()
	if err := syscall.Kill(-p.running.Process.Pid, signal); err != nil {
		p.tb.Fatalf("send %v to %s: %v", signal, p.program.Name, err)
	}
}

func (p *Process) end(signal syscall.Signal) {
	if p.running == nil {
		return
	}
	// The group outlives its leader as long as it has a member, so that its number is not another's.
	group := -p.running.Process.Pid
	if signal == syscall.SIGKILL {
		_ = syscall.Kill(group, signal) // fails when all have ended already
	} else {
		_ = p.running.Process.Signal(signal)
	}
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.exited
	p.running = nil
}
