package process

import (
	"strconv"
	"syscall"

	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"
)

func isSubreaper() bool { return false }

// BecomeSubreaper does nothing here: the system cannot give orphans to anybody but init.
func BecomeSubreaper() error { return nil }

func sweep(*registry, int) bool { return true }

func pipe() (read, write int, err error) {
	// No child must be forked between these calls, or it would inherit the pipe.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		return 0, 0, err
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return fds[0], fds[1], nil
}

func closeInheritedOnExec() error { return closeEachOnExec("/dev/fd") }

// waiter waits for the end of a child without reaping it.
type waiter struct{}

func fork(path string, args []string, attr *syscall.ProcAttr) (int, waiter, error) {
	pid, err := syscall.ForkExec(path, args, attr)
	return pid, waiter{}, err
}

// wait asks kqueue, since waitid of this system also returns for a child that is only stopped. It returns early if that
// fails, so that the caller's wait is the one that blocks.
func (waiter) wait(pid int) {
	queue, err := unix.Kqueue()
	if err != nil {
		return
	}
	defer unix.Close(queue) //nolint:errcheck // nothing was written
	unix.CloseOnExec(queue)
	var change unix.Kevent_t
	unix.SetKevent(&change, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	change.Fflags = unix.NOTE_EXIT
	changes, events := []unix.Kevent_t{change}, make([]unix.Kevent_t, 1)
	for {
		// ESRCH says that the child has ended already.
		if _, err := unix.Kevent(queue, changes, events, nil); err != unix.EINTR {
			return
		}
	}
}

// startID is the time at which the process started, in milliseconds since 1970.
func startID(pid int) string {
	created, err := (&process.Process{Pid: int32(pid)}).CreateTime() //nolint:gosec // pids fit
	if err != nil {
		return ""
	}
	return strconv.FormatInt(created, 10)
}
