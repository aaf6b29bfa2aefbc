package objects

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = time.Minute

// secret is a manifest with a Secret that holds the value.
func secret(value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: " + value + "}\n"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// watched returns a Store that reads the path and is watched until the test ends.
func watched(t *testing.T, path string) *Store {
	t.Helper()
	s, problems, err := Open(Options{
		Paths: []string{path}, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Validate: func(set *manifest.Set) manifest.Problems { return set.Problems },
	})
	if err != nil || s == nil {
		t.Fatal(problems, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Watch(ctx, func(Change) {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// expect waits until the Secret that is in force holds the value.
func expect(t *testing.T, s *Store, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		found, err := s.Secret(t.Context(), types.NamespacedName{Namespace: "default", Name: "s"})
		if err != nil {
			t.Fatal(err)
		}
		if got = found.StringData["key"] + string(found.Data["key"]); got == want {
			return
		}
	}
	t.Fatalf("the Secret holds %q, want %q", got, want)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	// Each change turns what the path stands for from "one" into "two"; then an edit turns it into "three".
	tests := []struct {
		name   string
		path   string
		change func(t *testing.T, dir string)
	}{
		{"a file is written anew", "m/s.yaml", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "m/s.yaml"), secret("two"))
		}},
		{"a file is replaced by an editor", "m/s.yaml", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "m/.s.yaml.swp"), secret("two"))
			rename(t, filepath.Join(dir, "m/.s.yaml.swp"), filepath.Join(dir, "m/s.yaml"))
		}},
		{"a folder is removed and made again", "m", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "m")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "m/s.yaml"), secret("two"))
		}},
		{"a folder is replaced by another one", "m/", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "new/s.yaml"), secret("two"))
			rename(t, filepath.Join(dir, "m"), filepath.Join(dir, "old"))
			rename(t, filepath.Join(dir, "new"), filepath.Join(dir, "m"))
		}},
		{"a link to a folder is changed", "current", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "new/s.yaml"), secret("two"))
			if err := os.Symlink("new", filepath.Join(dir, "next")); err != nil {
				t.Fatal(err)
			}
			rename(t, filepath.Join(dir, "next"), filepath.Join(dir, "current"))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "m/s.yaml"), secret("one"))
			if err := os.Symlink("m", filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
			path := dir + "/" + test.path
			s := watched(t, path)
			expect(t, s, "one")
			test.change(t, dir)
			expect(t, s, "two")
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				path += "/s.yaml"
			}
			write(t, path, secret("three"))
			expect(t, s, "three")
		})
	}
}

// A Job that writes into the folder of its manifest all the time does not keep an edit from being seen.
func TestWatchBesideAWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s.yaml"), secret("one"))
	s := watched(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = os.WriteFile(filepath.Join(dir, "output.log"), []byte("x"), 0o644)
			_ = os.Remove(filepath.Join(dir, "output.log"))
			time.Sleep(settleTime / 10)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	write(t, filepath.Join(dir, "s.yaml"), secret("two"))
	expect(t, s, "two")
}
