package process

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

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

// waiter waits for the end of a child without reaping it. It holds a kernel queue, since waitid of this system also
// returns for a child that is only stopped.
type waiter struct{ queue int }

func fork(path string, args []string, attr *syscall.ProcAttr) (int, waiter, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return 0, waiter{}, err
	}
	unix.CloseOnExec(queue)
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		_ = unix.Close(queue)
	}
	return pid, waiter{queue}, err
}

func (w waiter) wait(pid int) {
	defer unix.Close(w.queue)
	var change unix.Kevent_t
	unix.SetKevent(&change, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	change.Fflags = unix.NOTE_EXIT
	changes, events := []unix.Kevent_t{change}, make([]unix.Kevent_t, 1)
	for {
		switch _, err := unix.Kevent(w.queue, changes, events, nil); {
		case err == nil || errors.Is(err, unix.ESRCH): // the latter says that it has ended already
			return
		case !errors.Is(err, unix.EINTR):
			time.Sleep(100 * time.Millisecond) // short of memory
		}
	}
}

// hasEnded would tell whether a child has ended that was not reaped yet; this system does not say.
func hasEnded(int) bool { return false }

// endWithParent does nothing here: Keeper ends the containers of a keeper that was killed.
func endWithParent(*syscall.SysProcAttr) {}

func thisProgram() (string, error) { return os.Executable() }

// startID is the time at which the process started, in milliseconds since 1970.
func startID(pid int) string {
	created, err := (&process.Process{Pid: int32(pid)}).CreateTime()
	if err != nil {
		return ""
	}
	return strconv.FormatInt(created, 10)
}
