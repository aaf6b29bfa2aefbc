package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

// fromFile takes all parameters from a file in place of all other sources.
func (r *resolver) fromFile(path string) error {
	if r.Files == "" {
		return errors.New("filePath: there is no folder from which files may be read: name it with " +
			"--filepath-auth-root-path where the Jobs are started")
	}
	text, err := readFile(r.Files, path)
	if err != nil {
		return fmt.Errorf("filePath: %w", err)
	}
	values, err := parseFile(text)
	if err != nil {
		return fmt.Errorf("filePath: %s: %w", filepath.Join(r.Files, path), err)
	}
	maps.Copy(r.params.Values, values)
	r.params.until(time.Now().Add(rereadEvery))
	return nil
}

// readFile reads a file within the folder, out of which neither the path nor a symbolic link leads.
func readFile(folder, path string) ([]byte, error) {
	file, err := os.OpenInRoot(folder, filepath.FromSlash(path))
	if err == nil {
		defer func() { _ = file.Close() }()
		return readAll(file, filepath.Join(folder, path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; make it, or correct the path: %w", filepath.Join(folder, path),
			fs.ErrNotExist)
	}
	return nil, fmt.Errorf("open %s in the folder %s: %w", path, folder, cause(err))
}

// readAll reads a regular file, which is not larger than maxFile.
func readAll(file *os.File, named string) ([]byte, error) {
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at %s: %w", named, cause(err))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", named)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", named, cause(err))
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d KiB", named, maxFile>>10)
	}
	return text, nil
}

// cause is the error without the path, which the caller gives.
func cause(err error) error {
	var withPath *fs.PathError
	if errors.As(err, &withPath) {
		return withPath.Err
	}
	return err
}

// parseFile reads a JSON object of strings. Its errors show nothing of the text.
func parseFile(text []byte) (map[string]string, error) {
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("no JSON after %d bytes; write an object of strings, for example "+
				`{"password": "..."}`, syntax.Offset)
		}
		return nil, errors.New(`no JSON object; write an object of strings, for example {"password": "..."}`)
	}
	values := make(map[string]string, len(fields))
	for name, field := range fields {
		value, isText := field.(string)
		if !isText {
			return nil, fmt.Errorf("the value of %q is no string; write it in quotes", name)
		}
		values[name] = value
	}
	return values, nil
}
