package runner

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// handedEnv is the environment in a Job that was handed its item.
func handedEnv(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "OFFBOARD_ITEM_ID=019a", "OFFBOARD_ATTEMPT=2"}, more...)
}

func TestItemThatWasHanded(t *testing.T) {
	t.Parallel()
	item := "quotes \"'` $(HOME)\n\xff"
	dir := t.TempDir()
	got := runHere(t, handedEnv("OFFBOARD_ITEM="+item, "DIR="+dir, "OFFBOARD_REPORT="+dir+"/report"),
		"sh", "-c", `cat >"$DIR/stdin"; env -0 >"$DIR/env"`)
	if got.code != 0 || got.stderr != "" ||
		!regexp.MustCompile(`^offboard runner: item 019a attempt 2: done in [0-9.]+m?s\n$`).MatchString(got.stdout) {
		t.Errorf("got %+v", got)
	}
	if stdin := read(t, dir, "stdin"); string(stdin) != item {
		t.Errorf("standard input is %q", stdin)
	}
	env := "\x00" + string(read(t, dir, "env"))
	for _, want := range []string{"OFFBOARD_ITEM=" + item, "OFFBOARD_ITEM_ID=019a", "OFFBOARD_ATTEMPT=2"} {
		if !strings.Contains(env, "\x00"+want+"\x00") {
			t.Errorf("the environment is without %q: %q", want, env)
		}
	}
	if strings.Contains(env, "OFFBOARD_REPORT") {
		t.Error("the command was given OFFBOARD_REPORT")
	}
	if report := read(t, dir, "report"); string(report) != item {
		t.Errorf("the report is %q", report)
	}
}

func TestItemThatWasHandedAsAFile(t *testing.T) {
	t.Parallel()
	item := make([]byte, 5<<20)
	if _, err := rand.Read(item); err != nil {
		t.Fatal(err)
	}
	for name, item := range map[string][]byte{"large": item, "empty": {}, "NUL": []byte("a\x00b")} {
		dir := t.TempDir()
		path := filepath.Join(dir, "item")
		if err := os.WriteFile(path, item, 0o600); err != nil {
			t.Fatal(err)
		}
		got := runHere(t, handedEnv("OFFBOARD_ITEM_FILE="+path, "OFFBOARD_ITEM=other", "DIR="+dir, "OFFBOARD_REPORT="+dir+"/report"),
			"sh", "-c", `cat >"$DIR/stdin"; echo "file $OFFBOARD_ITEM_FILE, $OFFBOARD_ITEM"`)
		if got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "file "+path+", other\n") {
			t.Errorf("%s: got %+v", name, got)
		}
		if stdin := read(t, dir, "stdin"); !bytes.Equal(stdin, item) {
			t.Errorf("%s: standard input has %d bytes, and differs", name, len(stdin))
		}
		if report := read(t, dir, "report"); !bytes.Equal(report, item[:min(len(item), MaxReport)]) {
			t.Errorf("%s: the report has %d bytes", name, len(report))
		}
	}
}

func TestOutcomesOfWhatWasHanded(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("\x00\x01"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		env     []string
		command []string
		code    int
		output  string
	}{
		"empty item":      {[]string{"OFFBOARD_ITEM="}, []string{"cat"}, 0, ": done in "},
		"fails":           {[]string{"OFFBOARD_ITEM=a"}, []string{"sh", "-c", "exit 3"}, 3, "attempt 2: failed with exit code 3 after "},
		"data error":      {[]string{"OFFBOARD_ITEM=a"}, []string{"sh", "-c", "exit 65"}, 65, "failed with exit code 65 after "},
		"killed":          {[]string{"OFFBOARD_ITEM=a"}, []string{"sh", "-c", "kill -9 $$"}, 137, "ended by SIGKILL after "},
		"no item":         {nil, []string{"true"}, ExitUsage, "but neither OFFBOARD_ITEM nor OFFBOARD_ITEM_FILE is set"},
		"no file":         {[]string{"OFFBOARD_ITEM_FILE=/no/such"}, []string{"true"}, ExitUsage, "the file that OFFBOARD_ITEM_FILE names: open /no/such"},
		"folder":          {[]string{"OFFBOARD_ITEM_FILE=/"}, []string{"true"}, ExitUsage, "is a directory"},
		"no command":      {[]string{"OFFBOARD_ITEM=a"}, nil, ExitUsage, Usage},
		"unknown command": {[]string{"OFFBOARD_ITEM=a"}, []string{"no-such-command"}, ExitNotFound, "the command cannot be run"},
		"no program":      {[]string{"OFFBOARD_ITEM=a"}, []string{garbage}, ExitCannotStart, "start the command"},
		"not handed":      {[]string{"OFFBOARD_ITEM=a", "OFFBOARD_ITEM_ID="}, []string{"true"}, ExitUsage, "REDIS_HOST is not set"},
	} {
		got := runHere(t, handedEnv(test.env...), test.command...)
		if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.output) {
			t.Errorf("%s: got %+v, want %d and %q", name, got, test.code, test.output)
		}
	}
	signals := catch()
	defer signals.release()
	signals.end(endSignal(syscall.SIGTERM))
	code, err := (&run{newOptions(t, handedEnv("OFFBOARD_ITEM=a"), "true")}).run(signals)
	if code != 143 || err == nil || err.Error() != "stopped by SIGTERM: the command was not started" {
		t.Errorf("got %d, %v", code, err)
	}
	r := startRunner(t, handedEnv("OFFBOARD_ITEM=a"), nil, sleeps)
	_ = r.Process.Signal(syscall.SIGTERM)
	if got := r.wait(); got.code != 143 || !strings.Contains(got.stdout, "ended by SIGTERM") {
		t.Errorf("got %+v", got)
	}
}
