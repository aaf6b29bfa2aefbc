// Package logs keeps the output of one run of a container in files on disk, bounded in size, and reads it back: whole,
// its last lines, or as it grows.
//
// The bytes are stored exactly as they were written. The newest are in the file at the given path; when that is full it
// is renamed to <path>.1, the next to <path>.2 and so on, and the oldest is removed. Numbers only ever grow, so that a
// reader in another process can tell which file follows the one it has just read to its end.
//
// The package must not know what writes the output or when that ends: its users say so.
package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Limits bound the disk space that the output of one run of a container takes.
type Limits struct {
	// MaxBytes is the largest size of one file in bytes; 0 means DefaultLimits.MaxBytes.
	MaxBytes int64
	// MaxFiles is the largest number of files, the one being written included; 0 means DefaultLimits.MaxFiles.
	MaxFiles int
}

// DefaultLimits are those of the kubelet (containerLogMaxSize and containerLogMaxFiles).
var DefaultLimits = Limits{MaxBytes: 10 << 20, MaxFiles: 5}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultLimits.MaxBytes
	}
	if l.MaxFiles <= 0 {
		l.MaxFiles = DefaultLimits.MaxFiles
	}
	return l
}

// retryAfter is how long a Writer that could not write drops output before it tries again, so that a full disk costs a
// busy container no system calls.
const retryAfter = time.Second

// Writer appends output to a log. It is for one goroutine.
type Writer struct {
	path    string
	limits  Limits
	onError func(error)

	file    *os.File
	size    int64
	rotated int // number of the newest rotated file; -1: not known yet

	dropped int64
	err     error
	retryAt time.Time
}

// NewWriter returns a Writer for the log at path. The file, and its folder if that is missing, are created by the first
// byte: a run without output leaves no file, which readers take as an empty log. onError, which may be nil, is called
// once, with the first error that made output be dropped.
func NewWriter(path string, limits Limits, onError func(error)) *Writer {
	return &Writer{path: path, limits: limits.withDefaults(), onError: onError, rotated: -1}
}

// Write stores p. It never fails, because the end of the disk space must not be the end of the program that writes:
// what cannot be stored is dropped and counted.
func (w *Writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, err := w.write(rest)
		rest = rest[n:]
		if err != nil {
			w.drop(len(rest), err)
			break
		}
	}
	return len(p), nil
}

// errPaused says that the Writer does not try again yet.
var errPaused = errors.New("not tried again yet")

// write stores at least one byte of p or returns an error.
func (w *Writer) write(p []byte) (int, error) {
	if w.err != nil && time.Now().Before(w.retryAt) {
		return 0, errPaused
	}
	if w.file != nil && w.size >= w.limits.MaxBytes {
		if err := w.rotate(); err != nil {
			return 0, err
		}
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
		if w.size >= w.limits.MaxBytes {
			return w.write(p)
		}
	}
	n, err := w.file.Write(p[:min(int64(len(p)), w.limits.MaxBytes-w.size)])
	w.size += int64(n)
	return n, err
}

func (w *Writer) open() error {
	const flags, mode = os.O_WRONLY | os.O_APPEND | os.O_CREATE, 0o600
	file, err := os.OpenFile(w.path, flags, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(w.path), 0o700); err != nil {
			return err
		}
		file, err = os.OpenFile(w.path, flags, mode)
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	w.file, w.size = file, info.Size()
	return nil
}

func (w *Writer) rotate() error {
	if w.rotated < 0 {
		numbers, err := rotatedNumbers(w.path)
		if err != nil {
			return err
		}
		w.rotated = 0
		if len(numbers) > 0 {
			w.rotated = numbers[len(numbers)-1]
		}
	}
	if err := os.Rename(w.path, rotatedPath(w.path, w.rotated+1)); err != nil {
		return err
	}
	w.rotated++
	err := w.file.Close()
	w.file = nil
	if oldest := w.rotated - (w.limits.MaxFiles - 1); oldest > 0 {
		if removeErr := os.Remove(rotatedPath(w.path, oldest)); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

func (w *Writer) drop(n int, err error) {
	w.dropped += int64(n)
	if errors.Is(err, errPaused) {
		return
	}
	w.retryAt = time.Now().Add(retryAfter)
	if w.err == nil {
		w.err = fmt.Errorf("output is dropped until the log can be written again: %w", err)
		if w.onError != nil {
			w.onError(w.err)
		}
	}
}

// Dropped returns how many bytes were dropped, and the first error that made it so.
func (w *Writer) Dropped() (int64, error) { return w.dropped, w.err }

// Close closes the file. Write must not be called afterwards.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
