package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func rotatedPath(path string, number int) string { return path + "." + strconv.Itoa(number) }

// rotatedNumbers returns the numbers of the rotated files of the log at path, lowest and so oldest first.
func rotatedNumbers(path string) ([]int, error) {
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	prefix := filepath.Base(path) + "."
	var numbers []int
	for _, name := range names {
		suffix, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		// A name that does not come back from its number, such as x.01, is somebody else's file.
		if n, err := strconv.Atoi(suffix); err == nil && n > 0 && strconv.Itoa(n) == suffix {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// Remove deletes every file of the log at path. A log that does not exist is no error.
func Remove(path string) error {
	numbers, err := rotatedNumbers(path)
	errs := []error{err}
	for _, name := range append(rotatedPaths(path, numbers), path) {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func rotatedPaths(path string, numbers []int) []string {
	paths := make([]string, 0, len(numbers)+1)
	for _, n := range numbers {
		paths = append(paths, rotatedPath(path, n))
	}
	return paths
}

// segment is one open file of a log.
type segment struct {
	*os.File
	info os.FileInfo
}

func openSegment(path string) (*segment, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &segment{File: file, info: info}, nil
}

// openAll opens the files of the log at path, oldest first; none is no error. The writer may rotate meanwhile: the file
// that was the newest is opened first, and put where its number says if it turns up again under one.
func openAll(path string) (segments []*segment, err error) {
	defer func() {
		if err != nil {
			closeAll(segments)
			segments = nil
		}
	}()
	newest, err := openSegment(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	numbers, err := rotatedNumbers(path)
	if err != nil {
		if newest != nil {
			segments = append(segments, newest)
		}
		return segments, err
	}
	for _, name := range rotatedPaths(path, numbers) {
		s, err := openSegment(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			if newest != nil {
				segments = append(segments, newest)
			}
			return segments, err
		}
		segments = append(segments, s)
		if newest != nil && os.SameFile(newest.info, s.info) {
			closeAll([]*segment{newest})
			newest = nil
		}
	}
	if newest != nil {
		segments = append(segments, newest)
	}
	return segments, nil
}

// closeAll closes files that were only read, so that an error has nothing to tell.
func closeAll(segments []*segment) {
	for _, s := range segments {
		_ = s.Close()
	}
}
