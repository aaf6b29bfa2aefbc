package redisserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	processes "github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"
)

// Names of the lock files in the folder. The system drops a lock when the last process that has the file open ends,
// however it ends, so a lock is never stale.
const (
	// ownerLock is held by the process that runs the server, and by it alone.
	ownerLock = "owner.lock"
	// dataLock is held by that process and by the server, which inherits it: whoever holds it may write the data.
	dataLock = "data.lock"
)

// How long it may take until another process has let go of the folder.
const (
	// ownerTimeout is for one that does not exist any more, orphanTimeout for a server that has to end in order.
	ownerTimeout  = 500 * time.Millisecond
	orphanTimeout = time.Minute
	// lockPeriod is how often a lock is tried.
	lockPeriod = 20 * time.Millisecond
)

// locks are the open lock files.
type locks struct{ owner, data *os.File }

// lock makes this process the only one to use the folder. A server that a killed process left behind is ended first, in
// order, rather than taken over: a child of ours can be watched, and ties of the system hold for children only. Nothing
// is lost by that, as the new server reads what the old one has written.
func lock(ctx context.Context, folder string, log *slog.Logger) (*locks, error) {
	owner, err := lockOwner(ctx, folder)
	if err != nil {
		return nil, err
	}
	held := &locks{owner: owner}
	if held.data, err = waitForData(ctx, folder, log); err != nil {
		held.release()
		return nil, err
	}
	return held, nil
}

// release drops the locks, once the server has ended. It unlocks rather than just closes: a program that another
// goroutine is about to start has the files open for a moment as well.
func (l *locks) release() {
	for _, file := range []*os.File{l.owner, l.data} {
		if file != nil {
			_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
			_ = file.Close()
		}
	}
}

// lockOwner takes the lock of the process that runs the server.
func lockOwner(ctx context.Context, folder string) (*os.File, error) {
	path := filepath.Join(folder, ownerLock)
	// A process that has just been killed while it started a program may leave the lock with that one for a moment.
	for deadline := time.Now().Add(ownerTimeout); ; {
		owner, err := tryLock(path)
		if owner != nil || err != nil {
			return owner, err
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, fmt.Errorf("embedded redis: another process uses the folder %s", folder)
		}
		time.Sleep(lockPeriod)
	}
}

// waitForData takes the lock on the data, ending the server that holds it.
func waitForData(ctx context.Context, folder string, log *slog.Logger) (*os.File, error) {
	path := filepath.Join(folder, dataLock)
	asked := map[int32]time.Time{}
	deadline := time.Now().Add(orphanTimeout)
	for {
		if data, err := tryLock(path); data != nil || err != nil {
			return data, err
		}
		orphans, err := serversIn(ctx, folder)
		if err != nil {
			return nil, err
		}
		for _, pid := range orphans {
			since, known := asked[pid]
			switch {
			case !known:
				asked[pid] = time.Now()
				log.Warn("A Redis that a killed process left behind is ended; its data is kept", "pid", pid, "folder", folder)
				_ = syscall.Kill(int(pid), syscall.SIGTERM) // fails when it has just ended
			case time.Since(since) > killAfter:
				_ = syscall.Kill(int(pid), syscall.SIGKILL)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("embedded redis: a process that an earlier run left behind uses the folder %s; "+
				"end the process that has the file %s open", folder, path)
		}
		select {
		case <-time.After(lockPeriod):
		case <-ctx.Done():
			return nil, fmt.Errorf("embedded redis: wait for the folder %s: %w", folder, ctx.Err())
		}
	}
}

// serversIn returns the ids of the server processes whose working folder is the given one. This is certain, also where
// the server is stuck or still loading: nobody else starts a Redis in this folder.
func serversIn(ctx context.Context, folder string) ([]int32, error) {
	all, err := processes.ProcessesWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("embedded redis: look for the process that uses the folder %s: %w", folder, err)
	}
	var found []int32
	for _, candidate := range all {
		// Processes end while one looks at them, and those of other users may not be looked at.
		name, err := candidate.NameWithContext(ctx)
		if err != nil || (!strings.Contains(name, "redis") && !strings.Contains(name, "valkey")) {
			continue
		}
		if working, err := candidate.CwdWithContext(ctx); err == nil && working == folder {
			found = append(found, candidate.Pid)
		}
	}
	return found, nil
}

// tryLock opens the file and locks it; nil without an error when another process holds the lock.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil //nolint:nilnil // that another holds the lock is an answer
		}
		return nil, fmt.Errorf("embedded redis: lock %s: %w", path, err)
	}
}
