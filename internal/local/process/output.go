package process

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// drainTime bounds how long the rest of a dead container's output is read, in case that a process which could not be
// killed goes on writing.
const drainTime = time.Second

// readBuffers are as large as a pipe by default is. They are held only while there is something to read, so that
// silent containers cost no memory.
var readBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// output carries what a container writes from its pipe to its log.
type output struct {
	pipe *os.File
	// reader is the descriptor of pipe.
	reader int
	log    *logs.Writer
	done   chan struct{}
}

// newOutput returns the output and the descriptor of the end that the container writes to.
func newOutput(spec Spec) (*output, int, error) {
	read, write, err := pipe()
	if err != nil {
		return nil, 0, err
	}
	// Only our end must not block: programs expect blocking standard streams.
	if err := syscall.SetNonblock(read, true); err != nil {
		_, _ = syscall.Close(read), syscall.Close(write)
		return nil, 0, err
	}
	return &output{
		pipe:   os.NewFile(uintptr(read), "output of "+spec.Label),
		reader: read,
		log:    logs.NewWriter(spec.LogPath, spec.LogLimits, spec.OnDrop),
		done:   make(chan struct{}),
	}, write, nil
}

// discard releases an output whose container did not start.
func (o *output) discard() { _ = o.pipe.Close() }

// pump reads until every writer has closed the pipe, or finish has been called and the pipe is empty.
func (o *output) pump() {
	defer close(o.done)
	raw, err := o.pipe.SyscallConn()
	if err != nil {
		return
	}
	more := true
	read := func(fd uintptr) (done bool) {
		var wait bool
		more, wait = o.copyOnce(int(fd))
		return !wait
	}
	for more && err == nil {
		err = raw.Read(read)
	}
	if !more {
		return
	}
	// finish has set the deadline, which keeps Read from reading at all.
	until := time.Now().Add(drainTime)
	_ = raw.Control(func(fd uintptr) {
		for wait := false; more && !wait && time.Now().Before(until); {
			more, wait = o.copyOnce(int(fd))
		}
	})
}

// copyOnce copies what one read gives. It tells whether more may come, and whether that must be waited for.
func (o *output) copyOnce(fd int) (more, wait bool) {
	buffer := readBuffers.Get().(*[64 << 10]byte)
	defer readBuffers.Put(buffer)
	for {
		n, err := syscall.Read(fd, buffer[:])
		switch {
		case n > 0:
			_, _ = o.log.Write(buffer[:n]) // never fails
			return true, false
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true, true
		default:
			return false, false
		}
	}
}

// finish is called when the container is dead: it waits until what the pipe still holds is in the log, and returns how
// much was dropped.
func (o *output) finish() (dropped int64, err error) {
	_ = o.pipe.SetReadDeadline(time.Unix(1, 0)) // in the past; fails only if closed
	<-o.done
	_ = o.pipe.Close()
	dropped, err = o.log.Dropped()
	if closeErr := o.log.Close(); err == nil {
		err = closeErr
	}
	return dropped, err
}
