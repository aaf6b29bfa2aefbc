package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
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
// session finished (a pid, or 0) and those with the mark of a container that is not known. It tells whether all that it
// found may stay; else it is to be called again, because each orphan that ends may leave orphans itself, which are not
// among those that were looked at.
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
	clean := true
	var leaders []int
	for _, pid := range listChildren() {
		if r.liveSession(pid) {
			continue
		}
		switch session, err := unix.Getsid(pid); {
		case err != nil:
			clean = false
		case session == own:
			// Other parts of this program have started it: hands off. Containers and all that descends from them have
			// other sessions, and cannot come back.
		case session != pid:
			clean = r.settle(pid, finished) && clean
		case !r.markedAlive(pid):
			leaders = append(leaders, pid)
		}
	}
	if len(leaders) == 0 {
		return clean
	}
	// The leader of a session may be a container whose Start has not got so far that its pid is known.
	r.forks.Lock()
	defer r.forks.Unlock()
	for _, pid := range leaders {
		if !r.liveSession(pid) {
			clean = r.settle(pid, finished) && clean
		}
	}
	return clean
}

// settle reaps an orphan that has ended, and kills it if it lives although its container does not. It tells whether the
// orphan stays.
func (r *registry) settle(pid, finished int) bool {
	if reaped(pid) {
		return false
	}
	session, err := unix.Getsid(pid)
	if err != nil || r.liveSession(session) {
		return err == nil
	}
	// A process loses its environment early while it ends, so that the look for that comes second.
	id, marked := environValue(pid, IDVar)
	switch {
	case session == finished || marked && !r.liveID(id):
		// It is our child and not reaped, so that the pid is certain. What has other rights cannot be killed.
		return unix.Kill(pid, unix.SIGKILL) != nil
	case marked:
		return true
	default:
		return !ending(pid)
	}
}

// markedAlive tells whether a process lives and has the mark of a container that lives.
func (r *registry) markedAlive(pid int) bool {
	id, marked := environValue(pid, IDVar)
	return marked && r.liveID(id)
}

// reaped takes the status of a child that has ended, and tells whether it had.
func reaped(pid int) bool {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	return got == pid || errors.Is(err, syscall.ECHILD)
}

// ending tells whether a process is on its way out or gone.
func ending(pid int) bool {
	const exiting = 0x4 // PF_EXITING
	fields := statFields(pid)
	if len(fields) <= statFlags {
		return true
	}
	flags, err := strconv.ParseUint(fields[statFlags], 10, 64)
	return err == nil && flags&exiting != 0
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
//
// The kernel's list may leave one out if another that it has told of is reaped while it is being read: what comes after
// moves up. In a second reading that other one is missing, so two equal readings are complete.
func listChildren() []int {
	const most = 20
	name := "/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children"
	list, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return listChildrenSlowly()
	}
	defer syscall.Close(list)
	var last, text []byte
	for i := range most {
		if text, err = readFromStart(list, text[:0]); err != nil {
			break
		}
		if i > 0 && bytes.Equal(text, last) {
			return parsePIDs(text)
		}
		last, text = text, last
	}
	return listChildrenSlowly()
}

// readFromStart appends the whole content of a file of the kernel to buffer.
func readFromStart(fd int, buffer []byte) ([]byte, error) {
	for offset := int64(0); ; {
		buffer = slices.Grow(buffer, os.Getpagesize())
		n, err := syscall.Pread(fd, buffer[len(buffer):cap(buffer)], offset)
		switch {
		case err == syscall.EINTR:
		case err != nil || n <= 0:
			return buffer, err
		default:
			buffer = buffer[:len(buffer)+n]
			offset += int64(n)
		}
	}
}

func parsePIDs(text []byte) []int {
	var pids []int
	for field := range bytes.FieldsSeq(text) {
		if pid, err := strconv.Atoi(string(field)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listChildrenSlowly is for kernels without CONFIG_PROC_CHILDREN, and for when the quick list does not come to rest.
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
	defer dir.Close()
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
	statFlags     = 9 - 3
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
