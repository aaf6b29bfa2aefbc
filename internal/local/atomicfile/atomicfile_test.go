package atomicfile

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestWriteIsWhole reads a file while it is replaced again and again: each reading is one of the contents.
func TestWriteIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	if err := Write(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, content := range contents {
		writers.Go(func() {
			for range 50 {
				if err := Write(path, content); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	writers.Wait()
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("files: %v", left)
	}
}

func TestWriteThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "no", "f"), nil); err == nil {
		t.Error("wrote into a folder that is not there")
	}
	taken := filepath.Join(dir, "taken") // by a folder, which no file can replace
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(taken, []byte("x")); err == nil {
		t.Error("replaced a folder")
	}
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("files: %v", left)
	}
}

func TestCleanUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.json", "a.json.1.tmp", "b.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CleanUp(dir); err != nil {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if err := CleanUp(filepath.Join(dir, "no")); err == nil {
		t.Error("cleaned a folder that is not there")
	}
}
