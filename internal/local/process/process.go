// Package process runs one container as a session of operating-system processes: it starts the command, keeps its
// output, ends it with everything it has started, and says how it ended. It also finds and ends what a previous run of
// this program has left behind after a crash, and can have exit statuses outlive such a crash (Keeper).
//
// It knows of containers only what is in Spec, and nothing of Pods, Jobs or restarts. It works on Linux and macOS.
//
// A container gets a session of its own, not only a process group: it then has no controlling terminal that it could
// wait for, its main process can never leave the group that is signalled, and whatever it starts can be told from this
// program's other children. For that reason a program that calls BecomeSubreaper must not start children in sessions of
// their own in any other way than through this package.
package process

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// Environment variables that every container gets. Processes are recognised by them: do not set them yourself.
const (
	// LabelVar holds Spec.Label. KillLeftovers looks for it.
	LabelVar = "OFFBOARD_POD_UID"
	// IDVar holds the ID of the Process.
	IDVar = "OFFBOARD_CONTAINER_ID"
)

// Spec says what to run.
type Spec struct {
	// Args is the command with its arguments, expanded already. A command without a slash is looked up in Env's PATH;
	// a relative path is relative to Dir.
	Args []string
	// Dir is the working directory; empty means that of this program.
	Dir string
	// Env is the whole environment, as "name=value"; nothing is inherited from this program.
	Env []string
	// Label marks the processes, so that KillLeftovers finds them after a crash: the UID of the Pod.
	Label string
	// LogPath is where standard output and standard error go, in the order in which they are written.
	LogPath string
	// LogLimits bound the disk space of the output; zero values mean logs.DefaultLimits.
	LogLimits logs.Limits
	// OnDrop, if not nil, is called once if output must be dropped because the log cannot be written.
	OnDrop func(error)
	// Kept, if not nil, has the container's exit status outlive this program.
	Kept *Kept
}

// Process is a container that has been started. Its methods may be called from several goroutines.
type Process struct {
	id, startID string
	pid         int
	startedAt   time.Time
	child       child
	output      *output

	mu     sync.Mutex
	reaped bool // the pid may belong to a stranger from now on
	killAt time.Time
	timer  *time.Timer

	exit Exit
	done chan struct{}
}

// child is the main process of a container: this program's own child, or that of a Keeper.
type child interface {
	// wait returns when it has ended.
	wait()
	// signal signals it, or its whole group. It is not called once reap is.
	signal(s syscall.Signal, group bool)
	// reap is called when it has ended: it ends what is left of the group, releases its number and returns how it ended.
	reap() syscall.WaitStatus
}

var (
	idPrefix  = sync.OnceValue(newIDPrefix)
	idCounter atomic.Uint64
)

// newIDPrefix makes the IDs of different runs of this program differ.
func newIDPrefix() string {
	var random [12]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

func newID() string {
	count := strconv.FormatUint(idCounter.Add(1), 16)
	return idPrefix() + "00000000"[:max(0, 8-len(count))] + count
}

// devNull is every container's standard input. All share one descriptor, since it has no position. What this program
// has inherited itself, from a shell for example, is kept from containers before the first of them starts.
var devNull = sync.OnceValues(func() (*os.File, error) {
	if err := closeInheritedOnExec(); err != nil {
		return nil, fmt.Errorf("keep inherited files from containers: %w", err)
	}
	return os.Open(os.DevNull)
})

// Start starts the container. The error is a *StartError.
//
// The container ends by itself or by Terminate; the caller owns it until Done is closed.
func Start(spec Spec) (*Process, error) {
	path, err := lookUp(spec.Args, spec.Dir, spec.Env)
	if err != nil {
		return nil, err
	}
	stdin, err := devNull()
	if err != nil {
		return nil, startError(spec, path, err)
	}
	p := &Process{id: newID(), done: make(chan struct{})}
	out, stdout, err := newOutput(spec)
	if err != nil {
		return nil, startError(spec, path, err)
	}
	env := environment(spec, p.id)
	err = children.start(p, func() error {
		p.startedAt = time.Now()
		if spec.Kept != nil {
			return p.startKept(spec, path, env, stdout, out.reader)
		}
		return p.startOwn(spec, path, containerAttr(spec.Dir, env, stdin, stdout))
	})
	_ = syscall.Close(stdout) // a pipe: nothing is lost by an error
	if err != nil {
		out.discard()
		return nil, startError(spec, path, err)
	}
	p.output = out
	go out.pump()
	go p.watch()
	return p, nil
}

func (p *Process) startOwn(spec Spec, path string, attr *syscall.ProcAttr) error {
	pid, waiter, err := fork(path, spec.Args, attr)
	if err != nil {
		return err
	}
	p.pid, p.startID, p.child = pid, startID(pid), ownChild{pid, waiter}
	return nil
}

func (p *Process) startKept(spec Spec, path string, env []string, stdout, reader int) error {
	c, err := spec.Kept.Keeper.start(p.id, &startRequest{
		path: path, dir: spec.Dir, label: spec.Label, args: spec.Args, env: env,
		exitPath: spec.Kept.ExitPath, container: spec.Kept.Container, restarts: spec.Kept.Restarts,
		logPath: spec.LogPath, logLimits: spec.LogLimits,
	}, stdout, reader)
	if err != nil {
		return err
	}
	p.pid, p.startID, p.child = c.pid, c.startID, c
	return nil
}

// containerAttr are the attributes of a container's main process.
func containerAttr(dir string, env []string, stdin *os.File, stdout int) *syscall.ProcAttr {
	return &syscall.ProcAttr{
		Dir:   dir,
		Env:   env,
		Files: []uintptr{stdin.Fd(), uintptr(stdout), uintptr(stdout)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
}

// environment is the container's environment with our marks, which come last because programs that show a title in
// the process list write it over their arguments and the beginning of the environment.
func environment(spec Spec, id string) []string {
	env := make([]string, 0, len(spec.Env)+2)
	for _, entry := range spec.Env {
		if name, _, _ := strings.Cut(entry, "="); name != LabelVar && name != IDVar {
			env = append(env, entry)
		}
	}
	return append(env, LabelVar+"="+spec.Label, IDVar+"="+id)
}

// ID is unique among all containers of all runs of this program.
func (p *Process) ID() string { return p.id }

// PID is the process id of the main process, and the id of its process group and session.
func (p *Process) PID() int { return p.pid }

// StartID tells the main process from any other that had or will have the same PID. It is only to be compared. It is
// empty if the system does not tell.
func (p *Process) StartID() string { return p.startID }

// StartedAt is when the process was started.
func (p *Process) StartedAt() time.Time { return p.startedAt }

// Done is closed when the main process has ended, everything it has started is gone, and the log is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for Done and returns how the container ended.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// Terminate sends SIGTERM to the container's main process, as container runtimes do, and SIGKILL to its whole group
// when it has not ended after grace; without grace SIGKILL at once. A main process that passes signals on would
// otherwise give its children a second SIGTERM, which many programs take for "do not even tidy up". It does not wait.
// Called again, it can only bring SIGKILL forward.
func (p *Process) Terminate(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if grace <= 0 {
		p.child.signal(syscall.SIGKILL, true)
		return
	}
	killAt := time.Now().Add(grace)
	if p.timer == nil {
		p.killAt = killAt
		p.timer = time.AfterFunc(grace, func() { p.Terminate(0) })
		p.child.signal(syscall.SIGTERM, false)
	} else if killAt.Before(p.killAt) {
		p.killAt = killAt
		p.timer.Reset(grace)
	}
}

// watch owns the process from its start to its end.
func (p *Process) watch() {
	p.child.wait()
	finished := time.Now()
	status := p.reap()
	children.finish(p)
	dropped, err := p.output.finish()
	p.exit = newExit(status, p.startedAt, finished)
	p.exit.DroppedBytes, p.exit.DropError = dropped, err
	close(p.done)
}

// reap lets no signal be sent any more, then releases the number of the dead main process.
func (p *Process) reap() syscall.WaitStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.reaped = true
	return p.child.reap()
}

// ownChild is a main process that is this program's child. Until it is reaped, its number is certain not to be somebody
// else's.
type ownChild struct {
	pid    int
	waiter waiter
}

func (c ownChild) wait() { c.waiter.wait(c.pid) }

// signal ignores an error, which says that nobody is there to be signalled.
func (c ownChild) signal(s syscall.Signal, group bool) {
	whom := c.pid
	if group {
		whom = -c.pid
	}
	_ = syscall.Kill(whom, s)
}

// reap kills what is left of the group while the dead main process still holds its number.
func (c ownChild) reap() syscall.WaitStatus {
	c.signal(syscall.SIGKILL, true)
	return waitFor(c.pid)
}

// statusUnknown is exit code 255: an outcome that nobody knows must not count as a success.
const statusUnknown = syscall.WaitStatus(255 << 8)

// waitFor takes the exit status of a child that has ended.
func waitFor(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		switch _, err := syscall.Wait4(pid, &status, 0, nil); {
		case err == nil:
			return status
		case !errors.Is(err, syscall.EINTR):
			return statusUnknown
		}
	}
}
