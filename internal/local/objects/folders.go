package objects

import (
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// folderInterval is how often it is checked that a folder is still the one that is watched.
const folderInterval = 2 * time.Second

// watchedFolders watches what stands at some paths, also when that is replaced: the system watches a folder, not a
// path, and says nothing when a symbolic link on the way to it is changed or a folder above it is moved.
type watchedFolders struct {
	watcher *fsnotify.Watcher
	// seen is what stands at each path and is watched; nil when nothing is.
	seen map[string]os.FileInfo
}

func (w *watchedFolders) add(path string) error {
	w.seen[path] = nil
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := w.watcher.Add(path); err != nil {
		return err
	}
	w.seen[path] = info
	return nil
}

// refresh watches what stands at the paths now, and tells whether that is something else than before.
func (w *watchedFolders) refresh() (replaced bool) {
	watched := w.watcher.WatchList()
	for path, before := range w.seen {
		info, err := os.Stat(path)
		switch {
		case err != nil && before == nil:
			continue
		// A new folder may have the number of the one that was removed: then only the watch that ended tells.
		case err == nil && before != nil && os.SameFile(before, info) && slices.Contains(watched, path):
			continue
		}
		_ = w.watcher.Remove(path) // an error says that it is not watched any more
		replaced = w.add(path) == nil || before != nil || replaced
	}
	return replaced
}
