package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// KeeperArg is the only argument of this program when it is to be a keeper. Who sees it calls Keep, before anything
// else, and exits with the code that it returns.
const KeeperArg = "keep-exits"

// IsKeeper tells whether a program with these arguments, its own name included, is to be a keeper.
func IsKeeper(args []string) bool { return len(args) == 2 && args[1] == KeeperArg }

// Descriptors that a keeper is started with.
const (
	keeperSocket = 3
	keeperLock   = 4
)

// endSignal tells a keeper whose program has died to end what still runs.
const endSignal = syscall.SIGUSR1

// keeperProcess is the keeper itself: the parent of containers, which outlives the program that it starts them for.
//
// Its main goroutine keeps to the main thread and alone forks, so that no fork meets a descriptor that has just come
// in, and because the kernel ends the containers of a keeper that was killed when the thread that forked them ends.
type keeperProcess struct {
	sending sync.Mutex // one frame after the other

	mu    sync.Mutex
	live  map[string]*keptRun // by id
	alone bool                // the program that the keeper works for is gone
	end   bool                // what runs is to be ended as soon as the keeper is alone
	runs  sync.WaitGroup
}

// keptRun is a container that runs. What is below the line is guarded by the keeper's mu.
type keptRun struct {
	id        string
	pid       int
	waiter    waiter
	request   startRequest
	startedAt time.Time
	reader    int // the end of the output's pipe that is read from

	output *output // set when the keeper stores the output itself
	// stopped tells that the main process was signalled while it ran, killed that it was sent SIGKILL.
	stopped, killed bool
}

// Keep is the life of a keeper. It starts containers as it is told to, tells of their ends, and ends itself when the
// program that has started it is gone and no container runs any more. It returns the exit code.
func Keep() int {
	runtime.LockOSThread()
	k := &keeperProcess{live: map[string]*keptRun{}}
	k.catchSignals()
	if _, err := devNull(); err != nil {
		return 1
	}
	lock := os.NewFile(keeperLock, "lock")
	defer lock.Close() // it says that the keeper lives
	if err := writeHolder(lock); err != nil {
		return 1
	}
	for {
		fields, descriptors, err := receive(keeperSocket)
		if err != nil {
			closeAll(descriptors)
			break
		}
		k.handle(fields, descriptors)
	}
	k.goOnAlone()
	k.runs.Wait()
	return 0
}

// catchSignals has the keeper survive what is meant for its program, or for all of a terminal or a service. Caught and
// not ignored, since containers would inherit that.
func (k *keeperProcess) catchSignals() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endSignal)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR2} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		for s := range signals {
			if s == endSignal {
				k.endAll()
			}
		}
	}()
}

// writeHolder tells the next program whom to signal.
func writeHolder(lock *os.File) error {
	text, err := json.Marshal(Recorded{PID: os.Getpid(), StartID: startID(os.Getpid())})
	if err != nil {
		return err
	}
	if err := lock.Truncate(0); err != nil {
		return err
	}
	_, err = lock.WriteAt(text, 0)
	return err
}

func (k *keeperProcess) handle(fields []string, descriptors []int) {
	switch {
	case fields[0] == frameStart && len(descriptors) == 2:
		k.start(fields[1], fields[2:], descriptors[0], descriptors[1])
		return
	case fields[0] == frameSignal && len(fields) == 4:
		if number, err := strconv.Atoi(fields[2]); err == nil {
			k.signal(fields[1], syscall.Signal(number), fields[3] == wholeGroup)
		}
	}
	closeAll(descriptors)
}

// start starts a container and answers. It owns the descriptors.
func (k *keeperProcess) start(id string, fields []string, stdout, reader int) {
	run := &keptRun{id: id, reader: reader}
	err := run.request.parse(fields)
	if err == nil {
		err = k.fork(run, stdout)
	}
	_ = syscall.Close(stdout)
	if err != nil {
		_ = syscall.Close(reader)
		number, ok := errors.AsType[syscall.Errno](err)
		if !ok {
			number = syscall.EIO
		}
		k.send(frameStarted, id, "0", "", strconv.Itoa(int(number)))
		return
	}
	k.mu.Lock()
	k.live[id] = run
	k.mu.Unlock()
	k.send(frameStarted, id, strconv.Itoa(run.pid), startID(run.pid), "0")
	k.runs.Go(func() { k.watch(run) })
}

func (k *keeperProcess) fork(run *keptRun, stdout int) (err error) {
	stdin, err := devNull()
	if err != nil {
		return err
	}
	attr := containerAttr(run.request.dir, run.request.env, stdin, stdout)
	endWithParent(attr.Sys)
	run.startedAt = time.Now()
	run.pid, run.waiter, err = fork(run.request.path, run.request.args, attr)
	return err
}

// watch owns a container from its start to its end.
func (k *keeperProcess) watch(run *keptRun) {
	run.waiter.wait(run.pid)
	finished := time.Now()
	k.mu.Lock()
	_ = syscall.Kill(-run.pid, syscall.SIGKILL) // what is left of the group
	status := waitFor(run.pid)
	delete(k.live, run.id)
	stored := run.output
	k.mu.Unlock()
	exit := newExit(status, run.startedAt, finished)
	record := RecordedExit{
		Label: run.request.label, Container: run.request.container, Restarts: run.request.restarts,
		Code: exit.Code, Signal: exit.Signal, StartedAt: run.startedAt, FinishedAt: finished,
		// Nothing survives SIGKILL to exit by itself, so that what did exit had done so before.
		Stopped: run.stopped || run.killed && exit.Signal == syscall.SIGKILL,
	}
	// Where the disk is full the outcome stays unknown, unless the program lives that is told now.
	_ = record.appendTo(run.request.exitPath)
	told := k.send(frameEnded, run.id, strconv.FormatUint(uint64(status), 10))
	switch {
	case stored != nil:
		_, _ = stored.finish()
	case told: // the program stores what is left
		_ = syscall.Close(run.reader)
	default:
		stored = run.store()
		_, _ = stored.finish()
	}
}

// store begins to store the container's output in the place of the program.
func (r *keptRun) store() *output {
	o := &output{
		pipe: os.NewFile(uintptr(r.reader), "output"),
		log:  logs.NewWriter(r.request.logPath, r.request.logLimits, nil),
		done: make(chan struct{}),
	}
	go o.pump()
	return o
}

// signal signals a container that has not been reaped, so that its number is certain to be its own.
func (k *keeperProcess) signal(id string, s syscall.Signal, group bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	run := k.live[id]
	if run == nil {
		return
	}
	if s == syscall.SIGKILL {
		run.killed = true
	} else if !hasEnded(run.pid) {
		run.stopped = true
	}
	if group {
		_ = syscall.Kill(-run.pid, s)
	} else {
		_ = syscall.Kill(run.pid, s)
	}
}

// goOnAlone is called when the program that the keeper works for is gone: its containers go on, and the keeper stores
// what they print.
func (k *keeperProcess) goOnAlone() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.alone = true
	for _, run := range k.live {
		run.output = run.store()
	}
	k.killIfDue()
}

func (k *keeperProcess) endAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end = true
	k.killIfDue()
}

// killIfDue is called with mu held.
func (k *keeperProcess) killIfDue() {
	if !k.alone || !k.end {
		return
	}
	for _, run := range k.live {
		run.killed = true
		_ = syscall.Kill(-run.pid, syscall.SIGKILL)
	}
}

// send sends a frame. It tells whether somebody is there to read it.
func (k *keeperProcess) send(fields ...string) bool {
	frame, err := encodeFrame(fields...)
	if err != nil {
		return false
	}
	k.sending.Lock()
	defer k.sending.Unlock()
	for len(frame) > 0 {
		n, err := syscall.Write(keeperSocket, frame)
		if err != nil && err != syscall.EINTR {
			return false
		}
		frame = frame[max(n, 0):]
	}
	return true
}

// receive waits for a frame, in the system call itself: nothing else needs the thread.
func receive(socket int) (fields []string, descriptors []int, err error) {
	var header [frameHeader]byte
	oob := make([]byte, unix.CmsgSpace(2*4))
	for got := 0; got < len(header); {
		n, oobn, _, _, err := unix.Recvmsg(socket, header[got:], oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil, descriptors, fmt.Errorf("the program is gone: %w", err)
		}
		descriptors = append(descriptors, rights(oob[:oobn])...)
		got += n
	}
	fields, err = readFrame(header, socketReader(socket))
	return fields, descriptors, err
}

// socketReader reads from a descriptor that blocks.
type socketReader int

func (s socketReader) Read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(s), p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errFrame
		default:
			return n, nil
		}
	}
}

// rights returns the descriptors that came with a message, which no container inherits.
func rights(oob []byte) (descriptors []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			descriptors = append(descriptors, fd)
		}
	}
	return descriptors
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = syscall.Close(fd)
	}
}
