package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse tells that another `offboard up` works on the data folder.
var ErrInUse = errors.New("in use")

// lockDir makes this process the only one that works on the data folder, until the file is closed or the process ends.
// The kernel drops the lock with the process, so none is left behind by a crash.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
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
