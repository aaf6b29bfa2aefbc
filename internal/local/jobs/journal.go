package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// The state of a Job is one file in the Job's folder, of lines of JSON. The first line holds the whole Job, each
// further one what has changed; a line counts when it is complete. Appending a line is one system call that either
// happened or did not when the program is killed, and costs a tenth of writing a new file and renaming it over the old
// one, for which ext4 flushes the data. Only a file that has grown large is replaced as a whole.
const (
	stateFile = "state.json"
	// tempStateFile becomes the state file when it is complete.
	tempStateFile = "state.json.tmp"
	// itemFile, in the same folder, is the item that the Job was handed as a file. No file of a Pod has such a name,
	// without a dot.
	itemFile = "item"
	// exitsFile, likewise, holds how containers of a Job with an item have ended; see process.Keeper.
	exitsFile = "exits"
	// stateVersion is the version of the format.
	stateVersion = 1
	// compactAbove is the size in bytes of a state file above which it is written anew once it has quadrupled.
	compactAbove = 256 << 10
)

// entry is one line of a state file. What is absent has not changed.
type entry struct {
	// Version is set on the first line.
	Version int `json:"version,omitempty"`
	// Sequence orders Jobs by their creation.
	Sequence uint64 `json:"sequence,omitempty"`
	// Item tells, on the first line, that the Job was created with the file of an item.
	Item bool `json:"item,omitempty"`
	// Revision is the Job's resource version.
	Revision uint64 `json:"revision"`
	// Job has an empty status.
	Job    *batchv1.Job       `json:"job,omitempty"`
	Status *batchv1.JobStatus `json:"status,omitempty"`
	Retry  *retryState        `json:"retry,omitempty"`
	// Pods are those that have changed, by UID.
	Pods []podEntry `json:"pods,omitempty"`
	// Dropped are Pods that are forgotten.
	Dropped []types.UID `json:"dropped,omitempty"`
}

// podEntry is a Pod without what follows from the Job's template.
type podEntry struct {
	UID        types.UID         `json:"uid"`
	Name       string            `json:"name"`
	Created    metav1.Time       `json:"created"`
	Deleted    *metav1.Time      `json:"deleted,omitempty"`
	Status     *corev1.PodStatus `json:"status"`
	FinishedAt time.Time         `json:"finishedAt,omitzero"`
	Counted    bool              `json:"counted,omitempty"`
	Excluded   bool              `json:"excluded,omitempty"`
	// Processes are the last that were started, by container, while the Pod runs.
	Processes map[string]process.Recorded `json:"processes,omitempty"`
}

// journal writes the state file of one Job.
type journal struct {
	dir string
	// size is the length of the file up to its last complete line.
	size int64
	// compacted is the size when the file was last written as a whole.
	compacted int64
	// torn tells that the file may hold a part of a line after size.
	torn bool
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// encode writes the entry as a line to buf.
func (e *entry) encode(buf *bytes.Buffer) error {
	buf.Reset()
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(e) // ends in a newline
}

// append adds a line. When that fails, for example because the disk is full, the file keeps what it had. With durable
// set the line outlives a loss of power.
func (j *journal) append(e *entry, durable bool) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	if err := e.encode(buf); err != nil {
		return fmt.Errorf("encode the state of a Job: %w", err)
	}
	file, err := os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open the state of a Job: %w", err)
	}
	if err := errors.Join(j.write(file, buf.Bytes(), durable), file.Close()); err != nil {
		return fmt.Errorf("write the state of a Job: %w", err)
	}
	j.size += int64(buf.Len())
	return nil
}

func (j *journal) write(file *os.File, line []byte, durable bool) error {
	if j.torn {
		if err := file.Truncate(j.size); err != nil {
			return err
		}
	}
	j.torn = true
	_, err := file.Write(line)
	if err == nil && durable {
		err = file.Sync()
	}
	if err != nil {
		// A part of the line may be there. If it cannot be cut off now, the next write does.
		j.torn = file.Truncate(j.size) != nil
		return err
	}
	j.torn = false
	return nil
}

// needsCompaction tells whether most of a large file is outdated.
func (j *journal) needsCompaction() bool { return j.size > compactAbove && j.size > 4*j.compacted }

// replace writes the whole state anew.
func (j *journal) replace(whole *entry) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	if err := whole.encode(buf); err != nil {
		return fmt.Errorf("encode the state of a Job: %w", err)
	}
	temp := filepath.Join(j.dir, tempStateFile)
	err := os.WriteFile(temp, buf.Bytes(), 0o600)
	if err == nil {
		err = os.Rename(temp, j.path())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the state of a Job: %w", err), removeIfThere(temp))
	}
	j.size, j.compacted, j.torn = int64(buf.Len()), int64(buf.Len()), false
	return nil
}

func (j *journal) path() string { return filepath.Join(j.dir, stateFile) }

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readState returns the state that the file's complete lines describe, as one entry, and the length of those lines.
// A rest without a newline is what a write left behind that was cut short; any other line must be valid.
func readState(path string) (*entry, int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	whole, size, err := parseState(data)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return whole, int64(size), nil
}

func parseState(data []byte) (whole *entry, size int, err error) {
	for line := 1; ; line++ {
		end := bytes.IndexByte(data[size:], '\n')
		if end < 0 {
			break
		}
		var e entry
		if err := json.Unmarshal(data[size:size+end], &e); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", line, err)
		}
		if whole == nil {
			if e.Version != stateVersion {
				return nil, 0, fmt.Errorf("line %d: format version is %d; this program reads %d", line, e.Version, stateVersion)
			}
			if e.Job == nil || e.Status == nil {
				return nil, 0, fmt.Errorf("line %d: holds no Job", line)
			}
			whole = &entry{Version: stateVersion, Sequence: e.Sequence, Item: e.Item}
		}
		whole.merge(&e)
		size += end + 1
	}
	if whole == nil {
		return nil, 0, errNoState
	}
	return whole, size, nil
}

// errNoState tells that a state file has no complete line.
var errNoState = errors.New("holds no complete line")

// merge applies a later line.
func (e *entry) merge(later *entry) {
	e.Revision = later.Revision
	if later.Job != nil {
		e.Job = later.Job
	}
	if later.Status != nil {
		e.Status = later.Status
	}
	if later.Retry != nil {
		e.Retry = later.Retry
	}
	for i := range later.Pods {
		e.mergePod(&later.Pods[i])
	}
	for _, uid := range later.Dropped {
		for i := range e.Pods {
			if e.Pods[i].UID == uid {
				e.Pods = append(e.Pods[:i], e.Pods[i+1:]...)
				break
			}
		}
	}
}

func (e *entry) mergePod(p *podEntry) {
	for i := range e.Pods {
		if e.Pods[i].UID == p.UID {
			e.Pods[i] = *p
			return
		}
	}
	e.Pods = append(e.Pods, *p)
}
