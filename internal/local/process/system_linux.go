package process

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func pipe() (read, write int, err error) {
	var fds [2]int
	err = syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
	return fds[0], fds[1], err
}

func closeInheritedOnExec() error {
	err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // before Linux 5.11
		return closeEachOnExec("/proc/self/fd")
	}
	return err
}

// waiter waits for the end of a child without reaping it. It holds a pidfd, for which the runtime waits together with
// all sockets and pipes; a wait system call would hold one thread per container. Nil, it falls back to that.
type waiter struct{ pidfd *os.File }

func fork(path string, args []string, attr *syscall.ProcAttr) (int, waiter, error) {
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil || pidfd < 0 {
		return pid, waiter{}, err
	}
	if syscall.SetNonblock(pidfd, true) != nil {
		_ = syscall.Close(pidfd)
		return pid, waiter{}, nil
	}
	return pid, waiter{os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

func (w waiter) wait(pid int) {
	if w.pidfd != nil {
		defer w.pidfd.Close()
		if raw, err := w.pidfd.SyscallConn(); err == nil {
			if raw.Read(func(uintptr) bool { return ended(pid, unix.WNOHANG) }) == nil {
				return
			}
		}
	}
	ended(pid, 0)
}

// ended tells whether a child has ended, and leaves it to be reaped.
func ended(pid, options int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if err != unix.EINTR {
			return err != nil || info.Signo != 0
		}
	}
}

// hasEnded tells whether a child has ended that was not reaped yet.
func hasEnded(pid int) bool { return ended(pid, unix.WNOHANG) }

// endWithParent has the kernel end a process when the thread that forks it ends.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// thisProgram is the program that runs here, also when its file was replaced meanwhile.
func thisProgram() (string, error) { return "/proc/self/exe", nil }

// bootID makes start times of different boots differ.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.ToValidUTF8(id, nil)))
})

// startID is the boot and the time since boot at which the process started, in clock ticks.
func startID(pid int) string {
	boot, fields := bootID(), statFields(pid)
	if boot == "" || len(fields) <= statStartTime {
		return ""
	}
	return boot + ":" + fields[statStartTime]
}
