package redisserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errPortTaken tells that something else listens on the port.
var errPortTaken = errors.New("the port is taken")

// The server's output.
const (
	logName = "redis.log"
	// maxLogBytes is the size above which the log is put aside at the next start; one former log is kept.
	maxLogBytes = 4 << 20
)

const (
	pollPeriod = 5 * time.Millisecond
	// killAfter is how long a server may take to end in order when nobody says how long.
	killAfter = 20 * time.Second
)

// process is one run of a server program.
type process struct {
	process *os.Process
	version string
	exited  chan struct{}
	err     error // why it ended; readable once exited is closed
}

func logPath(folder string) string { return filepath.Join(folder, logName) }

// arguments configure the server by themselves: without a file it reads no configuration of the system's.
//
// The append-only file is written before a command is answered, so a killed server loses nothing. The server is told
// not to force it to the disk: with `everysec` it answers without having written while that takes long, so that a kill
// then loses what was answered; with `always` each push waits for the disk (milliseconds, and hundreds of them at
// times). syncer forces it once a second instead, so a power failure costs what a second brought, as with `everysec`.
func arguments(port int) []string {
	return []string{
		"--port", strconv.Itoa(port),
		"--bind", "127.0.0.1",
		"--protected-mode", "yes",
		"--daemonize", "no",
		"--logfile", "",
		"--save", "",
		"--appendonly", "yes",
		"--appendfsync", "no",
	}
}

// launch starts the program in the folder and waits until it answers with its data loaded. The process inherits the
// lock file, and so holds the lock for as long as it lives, whatever becomes of this one.
func launch(
	ctx context.Context, binary, folder string, port int, lock *os.File, attributes *syscall.SysProcAttr,
) (*process, error) {
	if listens(ctx, port) {
		return nil, errPortTaken
	}
	output, err := openLog(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }()
	begin, err := output.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	command := exec.Command(binary, arguments(port)...)
	command.Dir = folder
	command.Stdout, command.Stderr = output, output
	command.ExtraFiles = []*os.File{lock}
	command.SysProcAttr = attributes
	started, err := run(command)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	if err := started.ready(ctx, port); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), killAfter)
		defer cancel()
		_ = started.end(stopping)
		text := readFrom(logPath(folder), begin)
		if strings.Contains(text, "Address already in use") || (errors.Is(err, errEnded) && listens(ctx, port)) {
			return nil, errPortTaken
		}
		return nil, fmt.Errorf("%s: %w; the end of %s: %s", binary, err, logPath(folder), lastLines(text))
	}
	return started, nil
}

// run starts the command in a thread of its own, which lives as long as the command: where the system can tie a process
// to its parent, it ties it to the parent's thread.
func run(command *exec.Cmd) (*process, error) {
	started := &process{exited: make(chan struct{})}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		if err == nil {
			started.process = command.Process
		}
		result <- err
		if err == nil {
			started.err = command.Wait()
		}
		close(started.exited)
	}()
	if err := <-result; err != nil {
		<-started.exited
		return nil, err
	}
	return started, nil
}

// errEnded tells that the process ended before it was ready.
var errEnded = errors.New("ended at once")

// ready waits until this very process answers on the port and has loaded its data.
func (p *process) ready(ctx context.Context, port int) error {
	for {
		select {
		case <-p.exited:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("is not ready: %w", ctx.Err())
		case <-time.After(pollPeriod):
		}
		info, err := serverInfo(ctx, port)
		if err == nil && info.pid == p.process.Pid && !info.loading {
			p.version = info.version
			return nil
		}
	}
}

// end lets the process end in order and waits for it; when ctx ends first, it kills it.
func (p *process) end(ctx context.Context) error {
	_ = p.process.Signal(syscall.SIGTERM) // fails when it has ended already
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	}
	_ = p.process.Kill()
	<-p.exited
	return fmt.Errorf("embedded redis: process %d did not end in time and was killed: %w", p.process.Pid, ctx.Err())
}

// cause says why the process ended.
func (p *process) cause() string {
	if p.err == nil {
		return "it ended by itself"
	}
	return p.err.Error()
}

// listens tells whether something accepts connections on the port. It matters where a system lets a process listen on
// 127.0.0.1 beside another that listens on every address.
func listens(ctx context.Context, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address(port))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// openLog opens the log for appending.
func openLog(folder string) (*os.File, error) {
	path := logPath(folder)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// readFrom returns what a file holds from the offset on.
func readFrom(path string, offset int64) string {
	content, err := os.ReadFile(path)
	if err != nil || int64(len(content)) < offset {
		return ""
	}
	return string(content[offset:])
}

// lastLines returns the end of a text in one line.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
