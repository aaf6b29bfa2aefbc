package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// The file holds the id of the process that runs the control plane, and is locked by it. The lock is what counts: the
// system removes it with the process, and ids are used again.
func lockFile(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "pid"), os.O_CREATE|os.O_RDWR, 0o600)
}

// acquire takes the folder for this process until the file is closed.
func acquire(dir string) (*os.File, error) {
	file, err := lockFile(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w; another control plane runs there", file.Name(), err), file.Close())
	}
	err = errors.Join(file.Truncate(0), write(file, strconv.Itoa(os.Getpid())))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", file.Name(), err), file.Close())
	}
	return file, nil
}

func write(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// holder returns the id of the process that has taken the folder; 0 if there is none.
func holder(dir string) (pid int, err error) {
	file, err := lockFile(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return 0, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		return 0, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	content, err := os.ReadFile(file.Name())
	if err != nil {
		return 0, err
	}
	if pid, err = strconv.Atoi(string(bytes.TrimSpace(content))); err != nil {
		return 0, fmt.Errorf("read the process id in %s: %w", file.Name(), err)
	}
	return pid, nil
}
