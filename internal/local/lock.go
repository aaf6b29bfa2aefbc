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

// How long a lock is waited for. A process that was killed while it started another one leaves the lock to that one
// until it runs its own program: a moment later, or later than that on a machine that does much else. Nobody else can
// have the lock of a process that is gone, so for that it is worth waiting.
const (
	lockPatience     = time.Second
	lockPatienceGone = 30 * time.Second
)

// lockDir makes this process the only one that works on the data folder, until the file is closed or the process ends.
// The kernel drops the lock with the process, so none is left behind by a crash.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	var holder string
	for began := time.Now(); ; time.Sleep(lockPatience / 50) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		patience := lockPatience
		if holder = lockHolder(file); gone(holder) {
			patience = lockPatienceGone
		}
		if time.Since(began) > patience {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.Join(file.Close(), fmt.Errorf(
			"data folder %s is %w by the `offboard up` with process id %s; stop that one, or give this one another --data-dir",
			dir, ErrInUse, holder))
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

// lockHolder returns the process id in a lock's file: that of who has taken the lock last.
func lockHolder(file *os.File) string {
	content, _ := io.ReadAll(io.NewSectionReader(file, 0, 32)) // what cannot be read is not told
	return strings.TrimSpace(string(content))
}

// gone tells whether there is no process of that id. Without an id, one has taken the lock and not noted its own yet.
func gone(pid string) bool {
	number, err := strconv.Atoi(pid)
	return err == nil && errors.Is(unix.Kill(number, 0), unix.ESRCH)
}
