package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

var subreaper atomic.Bool

func isSubreaper() bool { return subreaper.Load() }

// BecomeSubreaper makes processes whose parents have ended children of this program instead of init's, so that those
// which have left their container's session are found and ended with it. The program calls it once, before any Start.
// Elsewhere than on Linux it does nothing.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the subreaper of orphaned processes: %w", err)
	}
	subreaper.Store(true)
	return nil
}

// sweep reaps orphans that have ended, and kills those that live although their container does not: those in the
// session finished (a pid, or 0) and those with the mark of a container that is not known. It tells whether it found
// none to kill; else it is to be called again, since each may have had children of its own.
//
// An orphan that has left its container's session and also cleared its environment cannot be told from a stranger, and
// is left alone.
func sweep(r *registry, finished int) bool {
	if !isSubreaper() {
		return true
	}
	own, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	var unknown []int
	for _, pid := range listChildren() {
		if r.liveSession(pid) {
			continue
		}
		// Those in our own session were started by other parts of this program: hands off. Containers and all that
		// descends from them have other sessions, and cannot come back.
		if session, err := unix.Getsid(pid); err == nil && session != own {
			unknown = append(unknown, pid)
		}
	}
	if len(unknown) == 0 {
		return true
	}
	// A child may be unknown because its Start is not there yet.
	r.forks.Lock()
	defer r.forks.Unlock()
	clean := true
	for _, pid := range unknown {
		if !r.liveSession(pid) && !reaped(pid) && abandoned(r, pid, finished) {
			// It is our child and not reaped, so that the pid is certain. What has other rights stays.
			if unix.Kill(pid, unix.SIGKILL) == nil {
				clean = false
			}
		}
	}
	return clean
}

// reaped takes the status of a child that has ended, and tells whether it had.
func reaped(pid int) bool {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	return got == pid || errors.Is(err, syscall.ECHILD)
}

// abandoned tells whether the container of an orphan that lives has ended.
func abandoned(r *registry, pid, finished int) bool {
	session, err := unix.Getsid(pid)
	if err != nil || r.liveSession(session) {
		return false
	}
	if finished != 0 && session == finished {
		return true
	}
	id, ok := environValue(pid, IDVar)
	return ok && !r.liveID(id)
}

// environValue returns the value of a variable in the environment that the process was started with.
func environValue(pid int, name string) (string, bool) {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return "", false
	}
	prefix := []byte(name + "=")
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, prefix); ok {
			return string(value), true
		}
	}
	return "", false
}

// listChildren returns the pids of children, orphans that have come to us included. Those live with the main thread,
// which the Go runtime never ends; children that were started by other threads are missing, and need not be known.
func listChildren() []int {
	self := strconv.Itoa(os.Getpid())
	list, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if errors.Is(err, fs.ErrNotExist) {
		return listChildrenSlowly()
	}
	var pids []int
	for field := range bytes.FieldsSeq(list) {
		if pid, err := strconv.Atoi(string(field)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listChildrenSlowly is for kernels without CONFIG_PROC_CHILDREN.
func listChildrenSlowly() []int {
	self := strconv.Itoa(os.Getpid())
	var pids []int
	for _, pid := range allPIDs() {
		if fields := statFields(pid); len(fields) > statParent && fields[statParent] == self {
			pids = append(pids, pid)
		}
	}
	return pids
}

// allPIDs returns the pids of all processes; none if /proc cannot be read.
func allPIDs() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close() //nolint:errcheck // only read
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Indexes into statFields, see proc_pid_stat(5), whose numbers count from 1 and the two fields that are cut off.
const (
	statParent    = 4 - 3
	statStartTime = 22 - 3
)

// statFields returns the fields of /proc/PID/stat that follow the program's name, which may hold anything.
func statFields(pid int) []string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	result := make([]string, len(fields))
	for i, field := range fields {
		result[i] = string(field)
	}
	return result
}
