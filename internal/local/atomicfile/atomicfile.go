// Package atomicfile replaces files so that a reader, or this program after a crash, finds the old content or the new
// one and never a mixture. It does not wait for the disk: what a power failure takes is the latest change at most.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// suffix ends the names of files that are being written.
const suffix = ".tmp"

// CleanUp removes from a folder what a crash has left of files that were being written. Nobody may write there
// meanwhile.
func CleanUp(dir string) error {
	files, err := os.ReadDir(dir)
	errs := []error{err}
	for _, file := range files {
		if file.Type().IsRegular() && strings.HasSuffix(file.Name(), suffix) {
			errs = append(errs, os.Remove(filepath.Join(dir, file.Name())))
		}
	}
	return errors.Join(errs...)
}

// Write replaces the file. On any error, a full disk for example, the old content stays. The folder must exist. What a
// crash may leave in it, CleanUp removes.
func Write(path string, data []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+suffix)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temporary.Name()))
		}
	}()
	_, err = temporary.Write(data)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	return err
}
