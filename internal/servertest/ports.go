package servertest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// reserved are the ports that tests of this process have. What other processes have is a lock on as many bytes of one
// file that all of them open: nothing else keeps two of them from choosing a port between the choice of the other one
// and its use, or while a server is down that is to be started again.
var reserved struct {
	mu    sync.Mutex
	file  *os.File
	ports map[int]bool
}

// FreeAddress returns a host:port on which nothing listens, for a program that is not started by this package. No other
// test is given it before this one has ended.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	return address(freePorts(tb, 1)[0])
}

// freePorts returns ports on which nothing listens, from below the range that systems take outgoing ports from. They
// are the test's until it ends.
func freePorts(tb testing.TB, count int) []int {
	tb.Helper()
	var ports []int
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		taken, err := reserve(port)
		if err != nil {
			tb.Fatalf("reserve a port: %v", err)
		}
		if !taken {
			continue
		}
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			release(port)
			continue
		}
		_ = listener.Close()
		tb.Cleanup(func() { release(port) })
		if ports = append(ports, port); len(ports) == count {
			return ports
		}
	}
	tb.Fatalf("no %d free ports on 127.0.0.1 found", count)
	return nil
}

// reserve takes a port, unless a test has it, of this process or of another one.
func reserve(port int) (taken bool, err error) {
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	if reserved.ports[port] {
		return false, nil
	}
	if reserved.file == nil {
		// It stays open, since the locks end when the process closes the file.
		path := filepath.Join(os.TempDir(), fmt.Sprintf("offboard-ports-%d", os.Getuid()))
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return false, err
		}
		reserved.file, reserved.ports = file, map[int]bool{}
	}
	err = lock(syscall.F_WRLCK, port)
	switch {
	case err == nil:
		reserved.ports[port] = true
		return true, nil
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES):
		return false, nil // another process has it
	}
	return false, err
}

// release gives a port back.
func release(port int) {
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	_ = lock(syscall.F_UNLCK, port) // which ends with the process at the latest
	delete(reserved.ports, port)
}

// lock changes the lock on a port's byte of the file.
func lock(kind int16, port int) error {
	for {
		err := syscall.FcntlFlock(reserved.file.Fd(), syscall.F_SETLK, &syscall.Flock_t{
			Type: kind, Whence: io.SeekStart, Start: int64(port), Len: 1,
		})
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
