package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// sparePrefix begins the names of folders that are no Job's, or not yet. No Job's name can begin with it.
const sparePrefix = "_spare-"

// maxSpares is how many folders of removed Jobs are kept for new ones, and maxSpareSize and maxSpareExits the sizes in
// bytes that their state files and their files of exits may have.
const (
	maxSpares     = 256
	maxSpareSize  = 64 << 10
	maxSpareExits = 4 << 10
)

// folders makes and removes the Jobs' folders below root, <namespace>/<job>.
//
// A folder gets its name when its state file is complete, and loses it before anything in it is deleted: each is one
// rename, so that a crash leaves either a whole Job or none.
//
// Folders of removed Jobs are used again, together with their state files, because file systems are slow to give out
// what was just deleted: for each new inode ext4 looks through all that were freed in the last seconds, which makes a
// Job three times as expensive where thousands come and go.
type folders struct {
	root string

	mu     sync.Mutex
	count  int
	spares map[string][]string // by namespace
	kept   int
}

// create makes the folder of a Job with its state and, if there is one, the file of its item, and returns its journal.
// Where that fails nothing is left behind.
func (f *folders) create(namespace, job string, e *entry, item *scaledjob.ItemFile) (*journal, error) {
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	if err := e.encode(buf); err != nil {
		return nil, fmt.Errorf("encode the state of a Job: %w", err)
	}
	spare, isNew := f.take(namespace)
	dir := filepath.Join(f.root, namespace, job)
	err := f.fill(spare, isNew, buf.Bytes())
	if err == nil && item != nil {
		err = writeItem(filepath.Join(spare, itemFile), item.Content)
	}
	if err == nil {
		err = rename(spare, dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the folder of a Job: %w", err), os.RemoveAll(spare))
	}
	return &journal{dir: dir, size: int64(buf.Len()), compacted: int64(buf.Len())}, nil
}

// fill writes the state file of a folder that nobody looks at yet.
func (f *folders) fill(dir string, isNew bool, state []byte) error {
	if isNew {
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.MkdirAll(dir, 0o700) // the first Job of its namespace
		}
		if err != nil {
			return err
		}
	}
	file, err := os.OpenFile(filepath.Join(dir, stateFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(state)
	if err == nil && !isNew {
		// Only now: ext4 flushes a file that was truncated to nothing and written again.
		err = file.Truncate(int64(len(state)))
	}
	return errors.Join(err, file.Close())
}

// writeItem writes the file of an item and waits until the disk has it: after a loss of power, a file that is empty
// could not be told from an empty item.
func writeItem(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// remove deletes the folder of a Job with all that is in it. An error tells that the Job is still there.
func (f *folders) remove(namespace string, j *journal) error {
	spare := f.newSpare(namespace)
	if err := rename(j.dir, spare); err != nil {
		return err
	}
	if j.size > maxSpareSize || emptySpare(spare) != nil || !f.keep(namespace, spare) {
		_ = os.RemoveAll(spare) // what is left is removed at the next start
	}
	return nil
}

// take returns a folder for a new Job.
func (f *folders) take(namespace string) (dir string, isNew bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	spares := f.spares[namespace]
	if len(spares) == 0 {
		return f.nextSpare(namespace), true
	}
	last := len(spares) - 1
	dir, f.spares[namespace] = spares[last], spares[:last]
	f.kept--
	return dir, false
}

// keep puts a folder by for a new Job, unless there are enough.
func (f *folders) keep(namespace, spare string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept >= maxSpares {
		return false
	}
	if f.spares == nil {
		f.spares = map[string][]string{}
	}
	f.spares[namespace] = append(f.spares[namespace], spare)
	f.kept++
	return true
}

// clear deletes the folders that were put by, with what removed Jobs have left in them.
func (f *folders) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, spares := range f.spares {
		for _, spare := range spares {
			_ = os.RemoveAll(spare) // what is left is removed at the next start
		}
	}
	f.spares, f.kept = nil, 0
}

func (f *folders) newSpare(namespace string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nextSpare(namespace)
}

// nextSpare returns a path that was never used before by this process; mu is held.
func (f *folders) nextSpare(namespace string) string {
	f.count++
	return filepath.Join(f.root, namespace, sparePrefix+strconv.Itoa(f.count))
}

// rename moves a folder to a path where none with anything in it is. It saves os.Rename's look at the new path.
func rename(from, to string) error {
	if err := syscall.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// emptySpare deletes what is in the folder of a removed Job but its state file, and the file of exits while that is
// small: it names the Pods, so that what it says of those of former Jobs does no harm.
func emptySpare(dir string) error {
	files, err := os.ReadDir(dir)
	errs := []error{err}
	for _, file := range files {
		kept := file.Name() == stateFile
		if file.Name() == exitsFile {
			info, err := file.Info()
			kept = err == nil && info.Size() <= maxSpareExits
		}
		if !kept {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, file.Name())))
		}
	}
	return errors.Join(errs...)
}

func isSpare(name string) bool { return strings.HasPrefix(name, sparePrefix) }
