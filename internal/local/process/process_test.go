package process_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/local/process"
)

var path = []string{"PATH=/usr/bin:/bin"}

// ways are how a container can be started: as this program's own child, or with its exit status kept.
type way bool

const (
	own  way = false
	kept way = true
)

// eachWay runs a test of what must not depend on the way.
func eachWay(t *testing.T, test func(t *testing.T, w way)) {
	t.Helper()
	t.Parallel()
	for name, w := range map[string]way{"own": own, "kept": kept} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// spec returns the Spec started in this way.
func (w way) spec(t *testing.T, spec process.Spec) process.Spec {
	t.Helper()
	if w == kept {
		spec.Kept = &process.Kept{Keeper: keeper, ExitPath: filepath.Join(t.TempDir(), "exits"), Container: "main"}
	}
	return spec
}

func (w way) script(t *testing.T, text string) process.Spec {
	t.Helper()
	return w.spec(t, script(t, text))
}

func script(t *testing.T, text string) process.Spec {
	t.Helper()
	dir := t.TempDir()
	return process.Spec{
		Args: []string{"sh", "-c", text}, Dir: dir, Env: path, Label: t.Name(), LogPath: filepath.Join(dir, "log"),
	}
}

func start(t *testing.T, spec process.Spec) *process.Process {
	t.Helper()
	p, err := process.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Terminate(0)
		p.Wait()
	})
	return p
}

// wait fails the test if the container does not end within a time that is long even on a busy machine.
func wait(t *testing.T, p *process.Process) process.Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Wait()
	case <-time.After(2 * time.Minute):
		t.Fatal("the container does not end")
		panic("not reached")
	}
}

func output(t *testing.T, spec process.Spec) string {
	t.Helper()
	r, err := logs.Open(context.Background(), spec.LogPath, logs.Options{})
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

// writeFile writes a file while nothing is forked: a child would hold it open for writing until its exec, and a file
// that is being written cannot be run.
func writeFile(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func pidsIn(t *testing.T, text string) (pids []int) {
	t.Helper()
	for _, field := range strings.Fields(text) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("%q is not a list of pids", text)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestExit(t *testing.T) { eachWay(t, testExit) }

func testExit(t *testing.T, w way) {
	for _, test := range []struct {
		script, reason, signal string
		code                   int
	}{
		{script: "exit 0", reason: "Completed"},
		{script: "exit 3", reason: "Error", code: 3},
		{script: "exit 137", reason: "Error", code: 137},
		{script: "kill -KILL $$", reason: "Error", code: 137, signal: "SIGKILL"},
		{script: "kill -TERM $$", reason: "Error", code: 143, signal: "SIGTERM"},
		{script: "kill -SEGV $$", reason: "Error", code: 139, signal: "SIGSEGV"},
	} {
		t.Run(test.script, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			spec := w.script(t, test.script)
			exit := wait(t, start(t, spec))
			if w == kept {
				checkRecorded(t, spec, exit)
			}
			if exit.Code != test.code || exit.Reason() != test.reason || exit.SignalName() != test.signal {
				t.Errorf("got %v, reason %s, signal %q", exit, exit.Reason(), exit.SignalName())
			}
			if exit.StartedAt.Before(begin) || exit.FinishedAt.Before(exit.StartedAt) || exit.FinishedAt.After(time.Now()) {
				t.Errorf("started %v, finished %v", exit.StartedAt, exit.FinishedAt)
			}
		})
	}
}

func TestOutputKeepsOrderAndBytes(t *testing.T) { eachWay(t, testOutputKeepsOrderAndBytes) }

func testOutputKeepsOrderAndBytes(t *testing.T, w way) {
	for text, want := range map[string]string{
		"true":                                   "",
		"echo a; echo b >&2; echo c; echo d >&2": "a\nb\nc\nd\n",
		"printf 'no newline'":                    "no newline",
		`printf 'x\000\377\r\n\376'`:             "x\x00\xff\r\n\xfe",
		"cat":                                    "", // standard input is empty
		"echo a; (until [ -e b ]; do sleep 0.01; done; echo late) & echo b; : >b; wait": "a\nb\nlate\n",
		"exec >&- 2>&-; sleep 0.05; echo lost; exit 0":                                  "",
		"test -t 0 || echo no tty; (: </dev/tty) 2>/dev/null":                           "no tty\n",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			spec := w.script(t, text)
			wait(t, start(t, spec))
			if got := output(t, spec); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestEnvironmentIsComplete(t *testing.T) { eachWay(t, testEnvironmentIsComplete) }

func testEnvironmentIsComplete(t *testing.T, w way) {
	spec := w.script(t, "")
	spec.Args = []string{"env"}
	spec.Env = append([]string{"A=1", process.LabelVar + "=forged"}, path...)
	spec.Label = "uid-1"
	p := start(t, spec)
	wait(t, p)
	want := "A=1\n" + path[0] + "\n" + process.LabelVar + "=uid-1\n" + process.IDVar + "=" + p.ID() + "\n"
	if got := output(t, spec); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOnlyStandardDescriptorsAreInherited(t *testing.T) {
	eachWay(t, testOnlyStandardDescriptorsAreInherited)
}

func testOnlyStandardDescriptorsAreInherited(t *testing.T, w way) {
	spec := w.script(t, "for fd in /dev/fd/*; do [ -e $fd ] && echo ${fd##*/}; done; true")
	wait(t, start(t, spec))
	if got := output(t, spec); got != "0\n1\n2\n" {
		t.Errorf("got descriptors %q", got)
	}
}

func TestStartErrors(t *testing.T) { eachWay(t, testStartErrors) }

func testStartErrors(t *testing.T, w way) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "plain"), "#!/bin/sh\n", 0o600)
	writeFile(t, filepath.Join(dir, "no-interpreter"), "#!/nowhere/sh\n", 0o700)
	writeFile(t, filepath.Join(dir, "no-format"), "\x00\x01\x02\x03", 0o700)
	for name, test := range map[string]struct {
		spec process.Spec
		code int
		say  string
	}{
		"no command":       {process.Spec{}, 127, "there is no command"},
		"empty command":    {process.Spec{Args: []string{""}}, 127, "there is no command"},
		"not in PATH":      {process.Spec{Args: []string{"nowhere-1"}, Env: []string{"PATH=/bin:/x"}}, 127, `PATH "/bin:/x"`},
		"no such path":     {process.Spec{Args: []string{"./nowhere"}, Dir: dir}, 127, "does not exist"},
		"not executable":   {process.Spec{Args: []string{"./plain"}, Dir: dir}, 126, "chmod +x"},
		"not exec in PATH": {process.Spec{Args: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, "chmod +x"},
		"a directory":      {process.Spec{Args: []string{"/"}}, 126, "is a directory"},
		"no interpreter":   {process.Spec{Args: []string{"./no-interpreter"}, Dir: dir}, 127, "interpreter"},
		"no format":        {process.Spec{Args: []string{"./no-format"}, Dir: dir}, 126, "neither a program"},
		"no directory":     {process.Spec{Args: []string{"true"}, Dir: dir + "/x"}, 126, "does not exist: create it"},
		"no directory 2":   {process.Spec{Args: []string{"./true"}, Dir: dir + "/x"}, 126, "does not exist: create it"},
		"file as dir":      {process.Spec{Args: []string{"true"}, Dir: dir + "/plain"}, 126, "not a directory"},
		"NUL":              {process.Spec{Args: []string{"true", "a\x00b"}}, 126, "NUL"},
		"too large": {
			process.Spec{Args: []string{"true"}, Env: []string{"A=" + strings.Repeat("x", 10<<20)}}, 126, "larger than",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := process.Start(w.spec(t, test.spec))
			var failed *process.StartError
			if !errors.As(err, &failed) {
				t.Fatalf("got %v, %v", p, err)
			}
			if failed.Code != test.code || !strings.Contains(failed.Message, test.say) || failed.Temporary {
				t.Errorf("got code %d, %q, temporary %v", failed.Code, failed.Message, failed.Temporary)
			}
		})
	}
}

func TestCommandIsLookedUpInTheContainersPATHAndDir(t *testing.T) {
	eachWay(t, testCommandIsLookedUpInTheContainersPATHAndDir)
}

func testCommandIsLookedUpInTheContainersPATHAndDir(t *testing.T, w way) {
	spec := w.script(t, "")
	for name, text := range map[string]string{"bin/tool": "#!/bin/sh\necho in PATH", "local": "#!/bin/sh\necho in dir"} {
		file := filepath.Join(spec.Dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, text, 0o700)
	}
	for command, env := range map[string]string{"tool": "PATH=/nowhere:bin", "./local": "PATH=", "local": "PATH=/x:"} {
		spec.Args, spec.Env = []string{command}, []string{env}
		wait(t, start(t, spec))
	}
	got := output(t, spec)
	if strings.Count(got, "in PATH\n") != 1 || strings.Count(got, "in dir\n") != 2 {
		t.Errorf("got %q", got)
	}
}

func TestTerminate(t *testing.T) { eachWay(t, testTerminate) }

func testTerminate(t *testing.T, w way) {
	ready := func(t *testing.T, text string) *process.Process {
		t.Helper()
		spec := w.script(t, text)
		p := start(t, spec)
		eventually(t, "ready", func() bool { return strings.Contains(output(t, spec), "ready") })
		return p
	}
	t.Run("SIGTERM", func(t *testing.T) {
		t.Parallel()
		p := ready(t, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
		p.Terminate(time.Minute)
		p.Terminate(time.Hour)
		if exit := wait(t, p); exit.Code != 7 {
			t.Errorf("got %v", exit)
		}
		p.Terminate(0)
	})
	t.Run("SIGKILL after grace", func(t *testing.T) {
		t.Parallel()
		p := ready(t, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
		begin := time.Now()
		p.Terminate(300 * time.Millisecond)
		exit := wait(t, p)
		if exit.Signal != syscall.SIGKILL || time.Since(begin) < 300*time.Millisecond {
			t.Errorf("got %v after %v", exit, time.Since(begin))
		}
	})
	t.Run("grace is shortened", func(t *testing.T) {
		t.Parallel()
		p := ready(t, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
		p.Terminate(time.Hour)
		p.Terminate(10 * time.Millisecond)
		if exit := wait(t, p); exit.Signal != syscall.SIGKILL {
			t.Errorf("got %v", exit)
		}
	})
	t.Run("the whole group", func(t *testing.T) {
		t.Parallel()
		p := ready(t, "sh -c 'trap \"exit 0\" TERM; echo ready; while :; do sleep 0.01; done'; exit 9")
		p.Terminate(time.Minute)
		// The shell is signalled as well, and dies of it.
		if exit := wait(t, p); exit.Signal != syscall.SIGTERM {
			t.Errorf("got %v", exit)
		}
	})
}

// Whatever a container has started is gone when it is done, and nothing keeps it from being done.
func TestNothingSurvives(t *testing.T) { eachWay(t, testNothingSurvives) }

func testNothingSurvives(t *testing.T, w way) {
	for name, text := range map[string]string{
		"fork and exit":          "sleep 1000 & echo $!",
		"ignores signals":        "(trap '' TERM HUP INT; while :; do sleep 1; done) & echo $!",
		"a group of its own":     `exec bash -c "set -m; sleep 1000 & echo \$!" 2>/dev/null`,
		"without an environment": "env -i sleep 1000 & echo $!",
		"stopped":                "sleep 1000 & kill -STOP $!; echo $!",
		"double fork":            "(sleep 1000 & echo $!)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := w.script(t, text)
			wait(t, start(t, spec))
			for _, pid := range pidsIn(t, output(t, spec)) {
				if err := syscall.Kill(pid, 0); err == nil {
					t.Errorf("process %d is still there", pid)
				}
			}
		})
	}
}

func TestGigabyteOfOutputIsBounded(t *testing.T) {
	t.Parallel()
	spec := script(t, "head -c 1073741824 /dev/zero; echo; echo end")
	spec.LogPath = filepath.Join(spec.Dir, "logs", "log")
	spec.LogLimits = logs.Limits{MaxBytes: 1 << 20, MaxFiles: 3}
	if exit := wait(t, start(t, spec)); exit.Code != 0 || exit.DroppedBytes != 0 {
		t.Errorf("got %+v", exit)
	}
	var size int64
	entries, err := os.ReadDir(filepath.Dir(spec.LogPath))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if len(entries) > 3 || size > 3<<20 {
		t.Errorf("%d files of %d bytes", len(entries), size)
	}
	if got := output(t, spec); !strings.HasSuffix(got, "\x00\nend\n") {
		t.Errorf("the end is missing: %q", got[max(0, len(got)-20):])
	}
}

func TestOutputThatCannotBeStoredIsDropped(t *testing.T) {
	eachWay(t, testOutputThatCannotBeStoredIsDropped)
}

func testOutputThatCannotBeStoredIsDropped(t *testing.T, w way) {
	spec := w.script(t, "head -c 300000 /dev/zero; exit 5")
	if err := os.WriteFile(spec.LogPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spec.LogPath = filepath.Join(spec.LogPath, "below-a-file")
	notices := make(chan error, 9)
	spec.OnDrop = func(err error) { notices <- err }
	exit := wait(t, start(t, spec))
	if exit.Code != 5 || exit.DroppedBytes != 300000 || exit.DropError == nil || len(notices) != 1 {
		t.Errorf("got %+v, %d notices", exit, len(notices))
	}
}
