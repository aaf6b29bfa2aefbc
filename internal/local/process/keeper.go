package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// endPatience is how long the keeper of a previous run may take to end its containers and to record how they ended.
const endPatience = 5 * time.Second

// errNoKeeper tells that a container was not started because its exit status could not be kept.
var errNoKeeper = errors.New("the process that keeps exit statuses does not run")

// Keeper starts containers whose exit status outlives this program. The kernel tells the exit status of a process to
// its parent only, so their parent is a process of its own, the keeper, one for all. It records each exit in a file
// before this program hears of it. When this program dies, by SIGKILL too, the containers go on, the keeper stores
// their output and records how they end; the next OpenKeeper ends what still runs then. When the keeper is killed, its
// containers are ended.
//
// The keeper is started with the first container, so that it costs nothing where none needs it.
type Keeper struct {
	path string

	mu   sync.Mutex
	lock *os.File   // held by this program until the keeper has it
	run  *keeperRun // nil while none was started
}

// Kept says that the exit status of a container is to outlive this program.
type Kept struct {
	Keeper *Keeper
	// ExitPath is the file that gets a RecordedExit, in which Container and Restarts tell the run from others that have
	// the same Spec.Label. Its folder must exist.
	ExitPath  string
	Container string
	Restarts  int32
}

// OpenKeeper takes the file at path, which tells of the keeper, for this program. If the keeper of a previous run still
// lives, its containers are ended with SIGKILL; when OpenKeeper returns, all of them have ended and their exits are
// recorded. The program must call Keep when IsKeeper says so. The caller calls Close.
func OpenKeeper(ctx context.Context, path string) (*Keeper, error) {
	k := &Keeper{path: path}
	var err error
	k.lock, err = k.acquire(ctx)
	return k, err
}

// acquire takes the lock, which a keeper holds as long as it lives.
func (k *Keeper) acquire(ctx context.Context) (*os.File, error) {
	lock, err := os.OpenFile(k.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of the keeper: %w", err)
	}
	begin := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		waited := time.Since(begin)
		if err = k.endPrevious(lock, waited); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(pause):
			continue
		}
		break
	}
	err = fmt.Errorf("lock %s, which the keeper of a previous run may hold: %w", k.path, err)
	return nil, errors.Join(err, lock.Close())
}

// endPrevious has the keeper that holds the lock end its containers, and ends that itself if it takes too long.
func (k *Keeper) endPrevious(lock *os.File, waited time.Duration) error {
	text, err := io.ReadAll(io.NewSectionReader(lock, 0, 1<<10))
	if err != nil {
		return err
	}
	var holder Recorded
	if json.Unmarshal(text, &holder) != nil || !holder.matches() {
		holder.PID = 0 // it has just been started, or has just ended
	}
	switch {
	case waited > 2*endPatience:
		return fmt.Errorf("it does not end within %s", waited.Round(time.Second))
	case holder.PID == 0:
	case waited > endPatience:
		_ = syscall.Kill(holder.PID, syscall.SIGKILL)
	default:
		_ = syscall.Kill(holder.PID, endSignal)
	}
	return nil
}

// Close ends the keeper. No container of it may run any more.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if k.run != nil {
		_ = k.run.conn.Close()
		<-k.run.gone
		k.run = nil
	}
	if k.lock != nil {
		err = k.lock.Close()
		k.lock = nil
	}
	return err
}

// startRequest is what a keeper needs to know to start a container.
type startRequest struct {
	path, dir, label    string
	exitPath, container string
	restarts            int32
	logPath             string
	logLimits           logs.Limits
	args, env           []string
}

func (s *startRequest) fields() []string {
	fields := []string{
		s.path, s.dir, s.label, s.exitPath, s.container, strconv.Itoa(int(s.restarts)), s.logPath,
		strconv.FormatInt(s.logLimits.MaxBytes, 10), strconv.Itoa(s.logLimits.MaxFiles), strconv.Itoa(len(s.args)),
	}
	return append(append(fields, s.args...), s.env...)
}

func (s *startRequest) parse(fields []string) error {
	const fixed = 10
	if len(fields) < fixed {
		return errFrame
	}
	s.path, s.dir, s.label, s.exitPath, s.container = fields[0], fields[1], fields[2], fields[3], fields[4]
	s.logPath = fields[6]
	restarts, err1 := strconv.ParseInt(fields[5], 10, 32)
	maxBytes, err2 := strconv.ParseInt(fields[7], 10, 64)
	maxFiles, err3 := strconv.Atoi(fields[8])
	args, err4 := strconv.Atoi(fields[9])
	if err := errors.Join(err1, err2, err3, err4); err != nil || args < 0 || fixed+args > len(fields) {
		return errFrame
	}
	s.restarts, s.logLimits = int32(restarts), logs.Limits{MaxBytes: maxBytes, MaxFiles: maxFiles}
	s.args, s.env = fields[fixed:fixed+args], fields[fixed+args:]
	return nil
}

// keeperRun is a keeper that was started.
type keeperRun struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
	// gone is closed when the keeper has ended and its containers are accounted for.
	gone chan struct{}

	sending sync.Mutex // one frame after the other

	mu       sync.Mutex
	children map[string]*keptChild // by id
	lost     bool
}

// keptChild is the main process of a container that a keeper has started.
type keptChild struct {
	run     *keeperRun
	id      string
	request *startRequest
	pid     int
	startID string
	// started gets the keeper's answer, nil or the system's error.
	started chan error
	// ended is closed when status is how it ended.
	ended  chan struct{}
	status syscall.WaitStatus
}

// start starts a container. The error is one of the system, or wraps errNoKeeper.
func (k *Keeper) start(id string, request *startRequest, stdout, reader int) (*keptChild, error) {
	run, err := k.running()
	if err != nil {
		return nil, err
	}
	frame, err := encodeFrame(append([]string{frameStart, id}, request.fields()...)...)
	if err != nil {
		return nil, syscall.E2BIG
	}
	c := &keptChild{run: run, id: id, request: request, started: make(chan error, 1), ended: make(chan struct{})}
	run.mu.Lock()
	lost := run.lost
	if !lost {
		run.children[id] = c
	}
	run.mu.Unlock()
	if lost {
		return nil, errNoKeeper
	}
	run.send(frame, unix.UnixRights(stdout, reader))
	return c, <-c.started
}

// running returns the keeper, which is started if none runs.
func (k *Keeper) running() (*keeperRun, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.run != nil {
		select {
		case <-k.run.gone:
		default:
			return k.run, nil
		}
	}
	if k.lock == nil {
		ctx, cancel := context.WithTimeout(context.Background(), endPatience)
		defer cancel()
		lock, err := k.acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoKeeper, err)
		}
		k.lock = lock
	}
	run, err := startKeeper(k.lock)
	if err != nil {
		return nil, fmt.Errorf("%w: start it: %w", errNoKeeper, err)
	}
	k.run = run
	_ = k.lock.Close() // the keeper has it
	k.lock = nil
	return run, nil
}

func startKeeper(lock *os.File) (*keeperRun, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close())
	if err != nil {
		return nil, err
	}
	program, err := thisProgram()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	run := &keeperRun{
		conn: conn.(*net.UnixConn), gone: make(chan struct{}), children: map[string]*keptChild{},
		// Its standard streams are the null device: whoever waits for the end of ours must not wait for it.
		cmd: &exec.Cmd{
			Path: program, Args: []string{os.Args[0], KeeperArg}, Env: []string{}, ExtraFiles: []*os.File{theirs, lock},
			// A group of its own, so that signals of a terminal pass it by, and our session: see sweep.
			SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		},
	}
	if err := run.cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go run.listen()
	return run, nil
}

// socketPair returns two ends that no other process inherits.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "keeper"), nil
}

// send sends a frame. If that fails, the keeper is gone, which listen deals with.
func (r *keeperRun) send(frame, rights []byte) {
	r.sending.Lock()
	defer r.sending.Unlock()
	n, _, err := r.conn.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = r.conn.Write(frame[n:])
	}
	if err != nil {
		_ = r.conn.Close() // a part of a frame must not be followed by another
	}
}

// listen passes on what the keeper says, until it is gone.
func (r *keeperRun) listen() {
	defer close(r.gone)
	from := bufio.NewReader(r.conn)
	for {
		var header [frameHeader]byte
		_, err := io.ReadFull(from, header[:])
		var fields []string
		if err == nil {
			fields, err = readFrame(header, from)
		}
		if err != nil {
			break
		}
		r.heard(fields)
	}
	_ = r.conn.Close()
	// It has ended, or nothing runs any more, or what it says cannot be understood.
	_ = r.cmd.Process.Kill()
	// Only when its end was seen are its children those of another process.
	_ = r.cmd.Wait() // how it ended makes no difference
	r.mu.Lock()
	r.lost = true
	children := r.children
	r.children = nil
	r.mu.Unlock()
	for _, c := range children {
		c.orphaned()
	}
}

func (r *keeperRun) heard(fields []string) {
	r.mu.Lock()
	c := r.children[fields[1]]
	r.mu.Unlock()
	switch {
	case c == nil:
	case fields[0] == frameStarted && len(fields) == 5:
		c.pid, _ = strconv.Atoi(fields[2])
		c.startID = fields[3]
		if number, err := strconv.Atoi(fields[4]); err != nil || number != 0 {
			r.forget(c)
			c.started <- syscall.Errno(number)
			return
		}
		c.started <- nil
	case fields[0] == frameEnded && len(fields) == 3:
		c.status = statusUnknown
		if status, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			c.status = syscall.WaitStatus(status)
		}
		r.forget(c)
		close(c.ended)
	}
}

func (r *keeperRun) forget(c *keptChild) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.children, c.id)
}

// orphaned is called when the keeper was killed: nobody could record how the container ends, so it is ended. How it did
// end is known where its parent is this program now.
func (c *keptChild) orphaned() {
	if c.pid == 0 {
		c.started <- errNoKeeper
		return
	}
	c.status = statusUnknown
	if (Recorded{PID: c.pid, StartID: c.startID}).matches() {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
		if isSubreaper() {
			c.status = waitFor(c.pid)
		}
	}
	if c.status == statusUnknown {
		c.status = c.recorded()
	}
	close(c.ended)
}

// recorded returns what the keeper had recorded before it could tell.
func (c *keptChild) recorded() syscall.WaitStatus {
	exits, _ := ReadExits(c.request.exitPath) // what cannot be read is unknown
	for _, e := range exits {
		if e.Label == c.request.label && e.Container == c.request.container && e.Restarts == c.request.restarts {
			if e.Signal != 0 {
				return syscall.WaitStatus(e.Signal)
			}
			return syscall.WaitStatus(e.Code << 8)
		}
	}
	return statusUnknown
}

func (c *keptChild) wait() { <-c.ended }

func (c *keptChild) signal(s syscall.Signal, group bool) {
	whom := mainProcess
	if group {
		whom = wholeGroup
	}
	if frame, err := encodeFrame(frameSignal, c.id, strconv.Itoa(int(s)), whom); err == nil {
		c.run.send(frame, nil)
	}
}

// reap returns how it ended. The keeper has ended what was left of its group.
func (c *keptChild) reap() syscall.WaitStatus { return c.status }
