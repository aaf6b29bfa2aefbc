package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Stdin is the name that problems and documents give to standard input.
const Stdin = "<stdin>"

// Set is what was read from one or more files.
type Set struct {
	// Documents are the objects in the order in which they were read, those of other kinds and broken ones included.
	Documents []*Document
	// Problems are what reading found. Validate finds more.
	Problems Problems

	files []string
}

// All returns the documents whose Object is a T, for example *v1alpha1.ScaledJob, with their objects.
func All[T runtime.Object](s *Set) iter.Seq2[*Document, T] {
	return func(yield func(*Document, T) bool) {
		for _, document := range s.Documents {
			if object, ok := document.Object.(T); ok && !yield(document, object) {
				return
			}
		}
	}
}

// Others returns the documents of kinds that are no concern of Offboard.
func (s *Set) Others() []*Document {
	var others []*Document
	for _, document := range s.Documents {
		if document.Object == nil {
			others = append(others, document)
		}
	}
	return others
}

// Merge returns one set of the sets in their order.
func Merge(sets ...*Set) *Set {
	merged := &Set{}
	for _, s := range sets {
		merged.Documents = append(merged.Documents, s.Documents...)
		merged.Problems = append(merged.Problems, s.Problems...)
		merged.files = append(merged.files, s.files...)
	}
	return merged
}

// Read reads files and folders. A folder stands for the files that Files lists, "-" for standard input. What cannot be
// read is among the problems, and the rest is read all the same.
func Read(stdin io.Reader, paths ...string) *Set {
	set := &Set{}
	seen := map[string]bool{}
	for _, path := range paths {
		if path == "-" {
			if !seen[path] {
				set = Merge(set, readFrom(Stdin, stdin))
			}
			seen[path] = true
			continue
		}
		files, err := Files(path)
		if err != nil {
			set = Merge(set, broken(path, err))
			continue
		}
		if len(files) == 0 {
			set = Merge(set, &Set{files: []string{path}, Problems: Problems{{Severity: Warning, File: path,
				Message: "the folder has no file that ends in .yaml, .yml or .json"}}})
		}
		for _, file := range files {
			absolute, err := filepath.Abs(file)
			if err != nil {
				absolute = file
			}
			if !seen[absolute] {
				set = Merge(set, ReadFile(file))
			}
			seen[absolute] = true
		}
	}
	return set
}

// Named tells whether a file of that name in a folder is a manifest: one that ends in .yaml, .yml or .json and is not
// hidden, as what editors leave behind is.
func Named(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// Files lists the manifest files that a path stands for: itself, or for a folder every file directly in it that is
// Named as one, sorted by name.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if !Named(entry.Name()) {
			continue
		}
		file := filepath.Join(path, entry.Name())
		if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
			continue // reading a pipe would wait for a writer
		}
		files = append(files, file)
	}
	return files, nil
}

// ReadFile reads one file.
func ReadFile(path string) *Set {
	info, err := os.Stat(path)
	if err != nil {
		return broken(path, err)
	}
	// A pipe is fine where it was asked for by name, as in a shell's <(command), but a device may never end and a
	// socket cannot be opened.
	if kind := info.Mode().Type(); kind != 0 && kind != fs.ModeNamedPipe {
		return broken(path, errors.New("it is neither a file nor a folder"))
	}
	file, err := os.Open(path)
	if err != nil {
		return broken(path, err)
	}
	defer file.Close()
	return readFrom(path, file)
}

func readFrom(name string, reader io.Reader) *Set {
	data, err := io.ReadAll(io.LimitReader(reader, MaxFileSize+1))
	if err != nil {
		return broken(name, err)
	}
	return Parse(name, data)
}

// broken is what a file gives that cannot be read.
func broken(name string, err error) *Set {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err // the path is the problem's File already
	}
	return &Set{files: []string{name}, Problems: Problems{{Severity: Error, File: name,
		Message: fmt.Sprintf("cannot be read: %v", err)}}}
}

// Parse reads the manifest data, which problems and documents say to be in the file name.
func Parse(name string, data []byte) *Set {
	set := &Set{files: []string{name}}
	if len(data) > MaxFileSize {
		set.Problems = Problems{{Severity: Error, File: name,
			Message: fmt.Sprintf("the file is larger than %d MiB, the most a manifest may have", MaxFileSize>>20)}}
		return set
	}
	documents, broken := splitDocuments(data)
	for _, err := range broken {
		set.Problems = append(set.Problems, Problem{Severity: Error, File: name, Line: err.line, Column: err.column,
			Message: err.message})
	}
	for _, document := range documents {
		set.read(name, document)
	}
	set.Problems = set.Problems.sorted(set.files)
	return set
}
