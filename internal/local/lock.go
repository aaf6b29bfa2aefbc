package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse tells that another `offboard up` works on the data folder.
var ErrInUse = errors.New("in use")

// lockPatience is how long a lock is waited for. A process that was killed while it started another one leaves the lock
// to that one until it runs its own program, a moment later.
const lockPatience = time.Second

// lockDir makes this process the only one that works on the data folder, until the file is closed or the process ends.
// The kernel drops the lock with the process, so none is left behind by a crash.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 50) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(file, 32))
		err = errors.Join(file.Close(), fmt.Errorf(
			"data folder %s is %w by the `offboard up` with process id %s; stop that one, or give this one another --data-dir",
			dir, ErrInUse, strings.TrimSpace(string(holder))))
		return nil, err
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}
