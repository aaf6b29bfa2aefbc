package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestJoin puts a file together from its parts, also over one of an earlier attempt, and leaves nothing half done.
func TestJoin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"0": "a\x00", "1": "", "2": "\xffb\n"} {
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got := execute(t, "", "", "join", path("0"), path("1"), path("2"), path("item")); got.code != exitOK || got.out+got.err != "" {
			t.Fatalf("got %+v", got)
		}
		info, err := os.Stat(path("item"))
		if err != nil || info.Mode() != 0o444 {
			t.Errorf("the file is %v, %v", info, err)
		}
		if got := read(t, path("item")); got != "a\x00\xffb\n" {
			t.Errorf("got %q", got)
		}
	}
	if got := execute(t, "", "", "join", path("0"), path("none"), path("other")); got.code != exitFailure {
		t.Errorf("without a part: %+v", got)
	}
	if left, err := filepath.Glob(path("other*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if got := execute(t, "", "", "join", path("0")); got.code != exitUsage {
		t.Errorf("without a target: %+v", got)
	}
}
