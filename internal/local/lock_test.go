package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockOfAProcessThatIsGone has somebody hold the lock for longer than one is waited for whose holder lives, as a
// process does that the holder has been killed while starting.
func TestLockOfAProcessThatIsGone(t *testing.T) {
	t.Parallel()
	ended := exec.CommandContext(t.Context(), "true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pid  int
		free bool
	}{
		"gone":  {ended.Process.Pid, true},
		"alive": {os.Getpid(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "lock")
			if err := os.WriteFile(path, []byte(strconv.Itoa(test.pid)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			held, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			fd := int(held.Fd())
			if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
				t.Fatal(err)
			}
			if test.free {
				timer := time.AfterFunc(2*lockPatience, func() { _ = unix.Flock(fd, unix.LOCK_UN) })
				defer timer.Stop()
			}
			file, err := lockDir(dir)
			if test.free != (err == nil) || !test.free && !errors.Is(err, ErrInUse) {
				t.Errorf("got %v", err)
			}
			if err == nil {
				_ = file.Close()
			}
		})
	}
}
