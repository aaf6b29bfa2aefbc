package redisserver

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// syncPeriod is how much of what was pushed a power failure may cost.
const syncPeriod = time.Second

// syncer brings what the server has appended to its files to the disk; see arguments for why it is not left to the
// server.
type syncer struct {
	folder  string
	log     *slog.Logger
	sizes   map[string]int64
	failing bool
}

func newSyncer(folder string, log *slog.Logger) *syncer {
	return &syncer{folder: folder, log: log, sizes: map[string]int64{}}
}

// until works until the server has ended or ctx ends.
func (s *syncer) until(ctx context.Context, exited <-chan struct{}) {
	ticker := time.NewTicker(syncPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-exited:
			return
		case <-ticker.C:
			s.sync()
		}
	}
}

// sync forces the files that have grown.
func (s *syncer) sync() {
	sizes := map[string]int64{}
	var failure error
	for _, path := range appendOnlyFiles(s.folder) {
		info, err := os.Stat(path)
		if err != nil {
			continue // the server has just replaced it, and forces what it replaces it by
		}
		if known, found := s.sizes[path]; found && known == info.Size() {
			sizes[path] = known
			continue
		}
		if err := force(path); err != nil && !os.IsNotExist(err) {
			failure = err
			continue
		}
		sizes[path] = info.Size()
	}
	s.sizes = sizes
	if failure != nil && !s.failing {
		s.log.Error("The queues cannot be forced to the disk; a power failure may lose items", "error", failure)
	}
	s.failing = failure != nil
}

func force(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return file.Sync()
}

// appendOnlyFiles returns the files that the server appends to: in a folder since Redis 7, a single one before.
func appendOnlyFiles(folder string) []string {
	var files []string
	entries, _ := os.ReadDir(filepath.Join(folder, "appendonlydir")) // absent before the first start
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".incr.aof") {
			files = append(files, filepath.Join(folder, "appendonlydir", entry.Name()))
		}
	}
	if single := filepath.Join(folder, "appendonly.aof"); exists(single) {
		files = append(files, single)
	}
	return files
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
