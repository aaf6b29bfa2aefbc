package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// write writes the texts to a new log, one call each, and returns its path.
func write(t testing.TB, limits logs.Limits, texts ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "log")
	w := logs.NewWriter(path, limits, func(err error) { t.Error(err) })
	for _, text := range texts {
		if n, err := io.WriteString(w, text); n != len(text) || err != nil {
			t.Fatalf("wrote %d bytes: %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string, opts logs.Options) string {
	t.Helper()
	r, err := logs.Open(context.Background(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func files(t testing.TB, path string) (names []string, size int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, entry.Name())
		size += info.Size()
	}
	return names, size
}

func TestRotation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limits      logs.Limits
		text, want  string
		wantedFiles string
	}{
		{logs.Limits{MaxBytes: 4, MaxFiles: 3}, "", "", ""},
		{logs.Limits{MaxBytes: 4, MaxFiles: 3}, "abcd", "abcd", "[log]"},
		{logs.Limits{MaxBytes: 4, MaxFiles: 3}, "abcde", "abcde", "[log log.1]"},
		{logs.Limits{MaxBytes: 4, MaxFiles: 3}, "abcdefghijkl", "abcdefghijkl", "[log log.1 log.2]"},
		{logs.Limits{MaxBytes: 4, MaxFiles: 3}, "abcdefghijklm", "efghijklm", "[log log.2 log.3]"},
		{logs.Limits{MaxBytes: 4, MaxFiles: 1}, "abcdefghi", "i", "[log]"},
	} {
		for _, chunk := range []int{1, 3, 100} {
			var parts []string
			for rest := test.text; rest != ""; {
				n := min(chunk, len(rest))
				parts, rest = append(parts, rest[:n]), rest[n:]
			}
			path := write(t, test.limits, parts...)
			if got := read(t, path, logs.Options{}); got != test.want {
				t.Errorf("%+v %q by %d: got %q, want %q", test.limits, test.text, chunk, got, test.want)
			}
			if test.text == "" {
				continue
			}
			names, size := files(t, path)
			if got := fmt.Sprint(names); got != test.wantedFiles || size > test.limits.MaxBytes*int64(test.limits.MaxFiles) {
				t.Errorf("%+v %q by %d: got files %s of %d bytes", test.limits, test.text, chunk, got, size)
			}
		}
	}
}

func TestWriterContinuesAnExistingLog(t *testing.T) {
	t.Parallel()
	limits := logs.Limits{MaxBytes: 4, MaxFiles: 10}
	path := write(t, limits, "abcdefghij")
	if err := os.WriteFile(path+".old", []byte("not a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := logs.NewWriter(path, limits, nil)
	_, _ = io.WriteString(w, "klmnopqrst")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, logs.Options{}); got != "abcdefghijklmnopqrst" {
		t.Errorf("got %q", got)
	}
	if err := logs.Remove(path); err != nil {
		t.Fatal(err)
	}
	if names, _ := files(t, path); fmt.Sprint(names) != "[log.old]" {
		t.Errorf("got files %v", names)
	}
	if err := logs.Remove(path); err != nil {
		t.Errorf("again: %v", err)
	}
}

// What is expected of the last lines, whole text in memory.
func tail(text string, lines int64) string {
	end := strings.TrimSuffix(text, "\n")
	for i := len(end) - 1; i >= 0 && lines > 0; i-- {
		if end[i] == '\n' {
			if lines--; lines == 0 {
				return text[i+1:]
			}
		}
	}
	if lines > 0 {
		return text
	}
	return ""
}

func TestTail(t *testing.T) {
	t.Parallel()
	texts := []string{"", "\n", "a", "a\n", "a\nb", "a\nb\n", "\n\n\n", "abcd\nefgh\nijkl\nmnop\n", "abc\nefg\n", "ab\n\ncd\n"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		text := make([]byte, random.IntN(40))
		for i := range text {
			text[i] = "ab\n"[random.IntN(3)]
		}
		texts = append(texts, string(text))
	}
	for _, text := range texts {
		for _, size := range []int64{1, 3, 4, 1000} {
			path := write(t, logs.Limits{MaxBytes: size, MaxFiles: 1000}, text)
			for lines := range int64(6) {
				if got, want := read(t, path, logs.Options{TailLines: &lines}), tail(text, lines); got != want {
					t.Errorf("%q in files of %d, last %d: got %q, want %q", text, size, lines, got, want)
				}
			}
		}
	}
}

func TestTailOfLongLinesAndManyBlocks(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200<<10)
	text := "first\n" + long + "\n" + strings.Repeat("line\n", 50<<10) + long
	path := write(t, logs.Limits{MaxBytes: 100 << 10, MaxFiles: 100}, text)
	for _, lines := range []int64{1, 2, 3, 50<<10 + 1, 50<<10 + 2, 50<<10 + 3, 1 << 40} {
		if got, want := read(t, path, logs.Options{TailLines: &lines}), tail(text, lines); got != want {
			t.Errorf("last %d: got %d bytes, want %d", lines, len(got), len(want))
		}
	}
}

// Without Follow, a reader ends where the log ended when it was opened, also if its files are rotated away meanwhile.
func TestReaderEndsWhereTheLogEnded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	w := logs.NewWriter(path, logs.Limits{MaxBytes: 8, MaxFiles: 3}, nil)
	_, _ = io.WriteString(w, "0123456789abcdefghij")
	r, err := logs.Open(context.Background(), path, logs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 3)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, strings.Repeat("later", 100))
	rest, err := io.ReadAll(r)
	if got := string(first) + string(rest); err != nil || got != "0123456789abcdefghij" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A following reader sees every byte in order while the writer rotates, and ends with the writer.
func TestFollow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	var running atomic.Bool
	running.Store(true)
	r, err := logs.Open(context.Background(), path, logs.Options{Follow: running.Load})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var want bytes.Buffer
	written := make(chan error, 1)
	go func() {
		w := logs.NewWriter(path, logs.Limits{MaxBytes: 1000, MaxFiles: 1000}, nil)
		for i := range 5000 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			_, _ = io.WriteString(w, line)
			if i%1000 == 0 {
				time.Sleep(time.Millisecond) // lets the reader reach the end
			}
		}
		running.Store(false)
		written <- w.Close()
	}()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("got %d bytes, want %d", len(got), want.Len())
	}
}

// A reader that is too slow for the limits goes on with what there still is.
func TestFollowSkipsWhatWasRotatedAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	w := logs.NewWriter(path, logs.Limits{MaxBytes: 4, MaxFiles: 2}, nil)
	_, _ = io.WriteString(w, "aaa\n")
	r, err := logs.Open(context.Background(), path, logs.Options{Follow: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _ = io.WriteString(w, "bbb\nccc\nddd\neee\n")
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "aaa\nddd\neee\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := write(t, logs.Limits{}, "text")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := logs.Open(ctx, path, logs.Options{Follow: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); string(got) != "text" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	time.AfterFunc(50*time.Millisecond, cancel) // while it waits for more
	if more, err := io.ReadAll(r); len(more) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q more, %v", more, err)
	}
}

// Output is stored again once there is room.
func TestDroppedOutputIsCounted(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "folder")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	notices := 0
	w := logs.NewWriter(filepath.Join(blocked, "log"), logs.Limits{}, func(error) { notices++ })
	for range 3 {
		if n, err := io.WriteString(w, "lost\n"); n != 5 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	if dropped, err := w.Dropped(); dropped != 15 || err == nil || notices != 1 {
		t.Errorf("got %d, %v, %d notices", dropped, err, notices)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_, _ = io.WriteString(w, "kept\n")
		if _, err := os.Stat(filepath.Join(blocked, "log")); err == nil {
			break
		}
	}
	if got := read(t, filepath.Join(blocked, "log"), logs.Options{}); got != "kept\n" {
		t.Errorf("got %q", got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDescriptorsAreClosed(t *testing.T) {
	path := write(t, logs.Limits{MaxBytes: 4, MaxFiles: 5}, "abcdefghijklmnopqrst")
	count := func() int {
		entries, err := filepath.Glob("/dev/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 20 {
		lines := int64(1)
		read(t, path, logs.Options{TailLines: &lines})
		read(t, path, logs.Options{Follow: func() bool { return false }})
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func FuzzTail(f *testing.F) {
	f.Add("a\nb\nc", int64(2), int64(1))
	f.Add("\n\n", int64(1), int64(3))
	f.Add("", int64(0), int64(0))
	f.Fuzz(func(t *testing.T, text string, size, lines int64) {
		if size <= 0 || lines < 0 || int64(len(text))/size > 200 {
			return
		}
		path := write(t, logs.Limits{MaxBytes: size, MaxFiles: 1000}, text)
		if got, want := read(t, path, logs.Options{TailLines: &lines}), tail(text, lines); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTailBytes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 4, ""},
		{"a\nb\n", 4, "a\nb\n"},
		{"a\nb\n", 3, "b\n"},
		{"a\nb\n", 2, "b\n"},
		{"aa\nbb", 3, "bb"},
		{"aa\nbb", 2, "bb"},
		{"aaaaaa", 3, "aaa"},
		{"aaaaa\n", 3, "aa\n"},
		{"aaaaaa\nbbb\ncc\n", 8, "bbb\ncc\n"},
		{"aaaaaa\nbbb\ncc\n", 0, ""},
	} {
		for _, size := range []int64{1, 4, 100} {
			path := write(t, logs.Limits{MaxBytes: size, MaxFiles: 100}, test.text)
			if got, err := logs.Tail(path, test.limit); string(got) != test.want || err != nil {
				t.Errorf("%d bytes of %q in files of %d: got %q, %v, want %q", test.limit, test.text, size, got, err, test.want)
			}
		}
	}
	if _, err := logs.Tail(t.TempDir(), 4); err == nil {
		t.Error("a folder is no log")
	}
}
