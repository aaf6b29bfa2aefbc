package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// KillLeftovers ends, with SIGKILL, the processes that a previous run of this program has left behind, and returns when
// they are gone. They are those of this user whose environment carries one of the labels, and the sessions of the
// recorded main processes that still live. A process that merely has a recorded pid is not touched.
//
// It must not be called while containers with these labels run. The error says which processes are still there when ctx
// ends.
func KillLeftovers(ctx context.Context, labels []string, recorded []Recorded) error {
	wanted := make(map[string]bool, len(labels))
	for _, label := range labels {
		wanted[label] = true
	}
	for _, r := range recorded {
		if r.matches() {
			_ = unix.Kill(-r.PID, unix.SIGKILL)
		}
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := killLabelled(wanted)
		for _, r := range recorded {
			if r.matches() && !isZombie(r.PID) {
				left = append(left, r.PID)
			}
		}
		// Orphans of the previous run may be ours by now, if a subreaper above us made them so.
		sweep(&children, 0)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of a previous run do not end: %w", left, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// killLabelled kills the processes with one of the labels and returns their pids. A process that has ended has no
// environment any more and is not among them.
func killLabelled(wanted map[string]bool) (killed []int) {
	if len(wanted) == 0 {
		return nil
	}
	self := os.Getpid()
	for _, pid := range allPIDs() {
		if pid == self || !carries(pid, wanted) {
			continue
		}
		if killSafely(pid, func() bool { return carries(pid, wanted) }) {
			killed = append(killed, pid)
		}
	}
	return killed
}

func carries(pid int, wanted map[string]bool) bool {
	label, ok := environValue(pid, LabelVar)
	return ok && wanted[label]
}

// killSafely kills the process that has the pid if it is the right one, and waits a little for its end. The descriptor
// holds on to that process, so that the pid cannot become another's between the look and the signal.
func killSafely(pid int, right func() bool) bool {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		return right() && unix.Kill(pid, unix.SIGKILL) == nil
	}
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	if !right() || unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) != nil {
		return false
	}
	// An ending process gives up its environment, by which it is known, before its files and locks.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 100)
	return true
}

func isZombie(pid int) bool {
	fields := statFields(pid)
	return len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X")
}
