package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// RecordedExit is how one run of a container ended, as a Keeper has recorded it.
type RecordedExit struct {
	// Label, Container and Restarts name the run: they are those of Spec and Kept.
	Label     string `json:"label"`
	Container string `json:"container"`
	Restarts  int32  `json:"restarts"`
	// Code and Signal are those of Exit.
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"`
	// StartedAt and FinishedAt are when the main process was started and when it ended.
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	// Stopped tells that the main process was signalled through Process.Terminate, or by the end of its Keeper, and may
	// have ended for that: then an exit code of 0 does not say that its work is done.
	Stopped bool `json:"stopped,omitempty"`
}

// Exit is the recorded end as that of a Process.
func (r *RecordedExit) Exit() Exit {
	return Exit{Code: r.Code, Signal: r.Signal, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt}
}

// appendTo adds the record to the file with one write. What an earlier write that was cut short has left there is
// separated from it, and is not read as a record.
func (r *RecordedExit) appendTo(path string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(append([]byte{'\n'}, line...), '\n'))
	return errors.Join(err, file.Close())
}

// ReadExits returns what was recorded in a file, oldest first. A file that does not exist holds nothing, and what is no
// whole record is left out: its outcome is unknown.
func ReadExits(path string) ([]RecordedExit, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read recorded exits: %w", err)
	}
	var exits []RecordedExit
	for line := range bytes.Lines(data) {
		var r RecordedExit
		whole := bytes.HasSuffix(line, []byte{'\n'}) && json.Unmarshal(line, &r) == nil
		if whole && r.Label != "" && r.Container != "" && !r.FinishedAt.IsZero() {
			exits = append(exits, r)
		}
	}
	return exits, nil
}
