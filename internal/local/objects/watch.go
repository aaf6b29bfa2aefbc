package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/offboard-dev/offboard/internal/manifest"
)

// Files are read when they have been left alone for settleTime, since editors write in several steps; and at the latest
// longestSettle after a change, since Jobs may write into the folder all the time.
const (
	settleTime    = 150 * time.Millisecond
	longestSettle = time.Second
	// retryAfter is for a full disk, on which no new identity or generation can be kept.
	retryAfter = 5 * time.Second
)

// file is one manifest file.
type file struct {
	// good is what it held when it was last without errors; nil when it never was.
	good *manifest.Set
	// told are the problems that were last reported, so that they are not reported again.
	told string
}

// merged returns the objects in force of all files.
func (s *Store) merged(files map[string]*file) *manifest.Set {
	var sets []*manifest.Set
	for _, path := range sortedKeys(files) {
		if good := files[path].good; good != nil {
			sets = append(sets, good)
		}
	}
	return manifest.Merge(sets...)
}

func sortedKeys(files map[string]*file) []string {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// readFiles reads all files anew. One with errors, in itself or together with the others, keeps what it last held.
func (s *Store) readFiles(before map[string]*file) map[string]*file {
	files := map[string]*file{}
	seen := map[string]bool{} // a file may be given by itself and with its folder
	for _, path := range s.paths {
		found, err := manifest.Files(path)
		if err != nil {
			if !s.unreadable[path] {
				s.unreadable[path] = true
				s.log.Error("Manifests cannot be read; what they last held stays in force", "path", path, "error", err)
			}
			for known, f := range before {
				if known == path || filepath.Dir(known) == filepath.Clean(path) {
					files[known] = f
				}
			}
			continue
		}
		delete(s.unreadable, path)
		for _, name := range found {
			absolute, err := filepath.Abs(name)
			if err != nil {
				absolute = name
			}
			if !seen[absolute] {
				files[name] = readAnew(name, before[name])
			}
			seen[absolute] = true
		}
	}
	// Each round sets at least one file back, so there are at most as many rounds as files.
	reported := map[string]manifest.Problems{}
	for range len(files) + 1 {
		broken := map[string]manifest.Problems{}
		for _, p := range s.validate(s.merged(files)).Of(manifest.Error) {
			broken[p.File] = append(broken[p.File], p)
		}
		progress := false
		for name, problems := range broken {
			f := files[name]
			if f == nil || f.good == nil {
				continue
			}
			old := before[name]
			if old != nil && old.good != f.good {
				f.good = old.good
			} else {
				f.good = nil
			}
			reported[name] = append(reported[name], problems...)
			progress = true
		}
		if !progress {
			break
		}
	}
	for name, f := range files {
		s.tell(f, name, reported[name])
	}
	return files
}

// readAnew reads a file. One that held something and holds nothing is taken for one that is just being written: editors
// and copying programs begin with an empty file, and that must not end what the file declares.
func readAnew(name string, old *file) *file {
	fresh := &file{good: manifest.ReadFile(name)}
	if old == nil {
		return fresh
	}
	fresh.told = old.told
	empty := len(fresh.good.Documents) == 0 && len(fresh.good.Problems) == 0
	if empty && old.good != nil && len(old.good.Documents) > 0 {
		fresh.good = &manifest.Set{Problems: manifest.Problems{{Severity: manifest.Error, File: name,
			Message: "holds nothing any more; delete the file to end what it declared"}}}
	}
	return fresh
}

// tell reports a file's errors when they are news, and their end.
func (s *Store) tell(f *file, name string, problems manifest.Problems) {
	var now string
	if err := problems.Err(); err != nil {
		now = err.Error()
	}
	switch {
	case now == f.told:
	case now == "":
		s.log.Info("Manifest is good again", "file", name)
	case f.good != nil:
		s.log.Error("Manifest is broken; what it last held stays in force", "file", name, "problems", now)
	default:
		s.log.Error("Manifest is broken and not used", "file", name, "problems", now)
	}
	f.told = now
}

// Reload reads the manifests again.
func (s *Store) Reload() (Change, error) {
	change, _, err := s.reload(true)
	return change, err
}

// reload reads the manifests again. Where a file is missing that is not believed to be gone, it changes nothing and
// says so.
func (s *Store) reload(believe bool) (change Change, missing bool, err error) {
	s.mu.RLock()
	before := s.files
	s.mu.RUnlock()
	files := s.readFiles(before)
	for name := range before {
		if files[name] == nil && !believe {
			return Change{}, true, nil
		}
	}
	if change, err = s.use(s.merged(files)); err == nil {
		s.mu.Lock()
		s.files = files
		s.mu.Unlock()
	}
	return change, false, err
}

// Watch reloads when a file changes, and tells of what that led to, until ctx ends.
func (s *Store) Watch(ctx context.Context, changed func(Change)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the manifests: %w", err)
	}
	defer watcher.Close()
	folders := watchedFolders{watcher: watcher, seen: map[string]os.FileInfo{}}
	for _, path := range s.paths {
		// A file is watched through its folder, since editors replace it by another one.
		if s.files[path] != nil {
			path = filepath.Dir(path)
		}
		// What is away at this moment is looked for again and again.
		if err := folders.add(filepath.Clean(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("watch the manifests in %s: %w", path, err)
		}
	}
	look := time.NewTicker(folderInterval)
	defer look.Stop()
	settled := time.NewTimer(0) // what changed between Open and here is seen at once
	defer settled.Stop()
	var unsettled time.Time // since when a change has not been read; zero when all have been
	believe := false        // that a file which is missing now is gone, since it was missing before
	touch := func() {
		if unsettled.IsZero() {
			unsettled = time.Now()
		}
		if time.Since(unsettled) < longestSettle {
			settled.Reset(s.settle)
		}
	}
	tell := func(change Change, err error) {
		switch {
		case err != nil:
			s.log.Error("The manifests cannot be put in force; trying again", "error", err)
			settled.Reset(retryAfter)
		case len(change.Changed)+len(change.Removed) > 0 || change.References:
			changed(change)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watcher.Events:
			if ok && s.concerns(event) {
				touch()
			}
		case err, ok := <-watcher.Errors:
			if ok {
				s.log.Warn("A change of a manifest may have been missed; all are read again", "error", err)
				touch()
			}
		case <-look.C:
			if folders.refresh() {
				touch()
			}
		case <-settled.C:
			unsettled = time.Time{}
			change, missing, err := s.reload(believe)
			if believe = missing; missing {
				// Its Jobs would be killed: an editor that is about to write it again gets the time for that.
				settled.Reset(s.settle)
				continue
			}
			tell(change, err)
		case <-s.released:
			s.mu.RLock()
			files := s.files
			s.mu.RUnlock()
			tell(s.use(s.merged(files)))
		}
	}
}

// concerns tells whether an event may change what the manifests hold. What merely writes to another file does not: Jobs
// work in the folder of their manifest, and may write there all the time.
func (s *Store) concerns(event fsnotify.Event) bool {
	if event.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 {
		return true
	}
	return event.Op.Has(fsnotify.Write) && (manifest.Named(filepath.Base(event.Name)) || slices.ContainsFunc(s.paths,
		func(path string) bool { return filepath.Clean(path) == filepath.Clean(event.Name) }))
}
