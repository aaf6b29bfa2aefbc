package runner

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
)

// outcome is what a run has left.
type outcome struct {
	code           int
	stdout, stderr string
}

func newOptions(t *testing.T, env []string, command ...string) Options {
	t.Helper()
	file := func() *os.File {
		f, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Error(err)
		}
		return f
	}
	// A server that was started for the test is there, and answers sooner or later.
	o := Options{Command: command, Environ: env, Stdout: file(), Stderr: file(), patience: time.Minute}
	o.Flags()
	return o
}

func runOptions(t *testing.T, o Options) outcome {
	t.Helper()
	got := outcome{code: Run(o)}
	for file, text := range map[any]*string{o.Stdout: &got.stdout, o.Stderr: &got.stderr} {
		content, err := os.ReadFile(file.(*os.File).Name())
		if err != nil {
			t.Error(err)
		}
		*text = string(content)
		_ = file.(*os.File).Close()
	}
	return got
}

// runHere runs a runner in the test's process.
func runHere(t *testing.T, env []string, command ...string) outcome {
	t.Helper()
	return runOptions(t, newOptions(t, env, command...))
}

// runPop runs a runner in the test's process that pops its item.
func runPop(t *testing.T, env []string, command ...string) outcome {
	t.Helper()
	o := newOptions(t, env, command...)
	o.Pop = true
	return runOptions(t, o)
}

// modes are the two ways to take an item, for tests of what they have in common.
var modes = map[string]func(*testing.T, []string, ...string) outcome{"claim": runHere, "pop": runPop}

// process returns a runner that is a process of its own, not yet started.
func process(t *testing.T, env []string, command ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	return processWith(t, env, nil, command...)
}

func processWith(t *testing.T, env, flags []string, command ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, slices.Concat(flags, []string{"--"}, command)...)
	cmd.Env = append([]string{asRunner + "=1", patience + "=1m"}, env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

func runProcess(t *testing.T, env []string, command ...string) outcome {
	t.Helper()
	cmd, stdout, stderr := process(t, env, command...)
	_ = cmd.Run()
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestTakesOneItemFromTheHead(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "usertask", `{"user": 1}`, `{"user": 2}`, `{"user": 3}`)
	for i, mode := range []string{"claim", "pop"} {
		item := fmt.Sprintf(`{"user": %d}`, i+1)
		got := modes[mode](t, server.env("usertask"), "sh", "-c", `printf '%s|%s\n' "$(cat)" "$OFFBOARD_ITEM"`)
		want := "offboard runner: trying to get a single job from the list \"usertask\" at 127.0.0.1:" + server.port + "\n" +
			"offboard runner: took an item of 11 bytes\n" + item + "|" + item + "\n"
		stdout, result := got.stdout, ""
		if mode == "claim" {
			lines := strings.SplitAfter(got.stdout, "\n")
			stdout, result = strings.Join(lines[:max(0, len(lines)-2)], ""), lines[max(0, len(lines)-2)]
			if !regexp.MustCompile(`^offboard runner: item [0-9a-f]{16} attempt 1: done in [0-9.]+m?s\n$`).MatchString(result) {
				t.Errorf("the result is %q", result)
			}
		}
		if got.code != 0 || stdout != want || got.stderr != "" {
			t.Errorf("%s: got %+v, want the output %q", mode, got, want)
		}
		if left := server.text(t, "LLEN", "usertask"); left != strconv.Itoa(2-i) {
			t.Errorf("%s: %s items left, want %d", mode, left, 2-i)
		}
		if head, want := server.text(t, "LINDEX", "usertask", "0"), fmt.Sprintf(`{"user": %d}`, i+2); head != want {
			t.Errorf("%s: the head is %s, want %s", mode, head, want)
		}
	}
}

func TestEmptyList(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for mode, run := range modes {
		mark := filepath.Join(t.TempDir(), "mark")
		got := run(t, server.env("usertask"), "touch", mark)
		if got.code != 0 || !strings.HasSuffix(got.stdout, "nothing to do\n") || got.stderr != "" {
			t.Errorf("%s: got %+v", mode, got)
		}
		if _, err := os.Stat(mark); !os.IsNotExist(err) {
			t.Errorf("%s: the command was run", mode)
		}
	}
}

func TestItemsOfAnyBytes(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	large := make([]byte, 10<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		item  []byte
		inEnv bool
		said  string
	}{
		"empty":         {[]byte{}, true, "took an item of 0 bytes\n"},
		"invalid UTF-8": {[]byte("a\xff\xfe\r\n=b\x1b[0m"), true, ""},
		"NUL":           {[]byte("a\x00b"), false, "took an item of 3 bytes with NUL: it is on standard input only"},
		"10 MB":         {large, false, "bytes"},
		"largest":       {bytes.Repeat([]byte("x"), MaxItemVariable), true, ""},
		"too large":     {bytes.Repeat([]byte("x"), MaxItemVariable+1), false, "took a large item of 98305 bytes: "},
	} {
		for mode, run := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				name := name + mode
				server.Do("RPUSH", name, string(test.item))
				dir := t.TempDir()
				got := run(t, server.env(name, "OFFBOARD_ITEM=old", "OFFBOARD_ITEM_FILE=old", "OFFBOARD_ATTEMPT=9", "DIR="+dir, "OFFBOARD_REPORT="+dir+"/report"),
					"sh", "-c", `cat >"$DIR/stdin"; env -0 >"$DIR/env"`)
				if got.code != 0 || !strings.Contains(got.stdout, test.said) {
					t.Fatalf("got %+v", got)
				}
				if stdin := read(t, dir, "stdin"); !bytes.Equal(stdin, test.item) {
					t.Errorf("standard input differs: %d bytes, want %d", len(stdin), len(test.item))
				}
				env := "\x00" + string(read(t, dir, "env"))
				if strings.Contains(env, "\x00OFFBOARD_ITEM=") != test.inEnv {
					t.Errorf("OFFBOARD_ITEM is set: %v, want %v", !test.inEnv, test.inEnv)
				}
				if test.inEnv && !strings.Contains(env, "\x00OFFBOARD_ITEM="+string(test.item)+"\x00") {
					t.Error("OFFBOARD_ITEM differs")
				}
				if strings.Contains(env, "\x00OFFBOARD_REPORT=") || strings.Contains(env, "\x00OFFBOARD_ITEM_FILE=") {
					t.Error("the command was given what is not for it")
				}
				claimed := mode == "claim"
				if regexp.MustCompile("\x00OFFBOARD_ITEM_ID=[0-9a-f]{16}\x00").MatchString(env) != claimed ||
					strings.Contains(env, "\x00OFFBOARD_ATTEMPT=1\x00") != claimed || strings.Contains(env, "ATTEMPT=9") {
					t.Errorf("the variables of a claim are wrong: %.500q", env)
				}
				if report := read(t, dir, "report"); !bytes.Equal(report, test.item[:min(MaxReport, len(test.item))]) {
					t.Errorf("the report has %d bytes", len(report))
				}
			})
		}
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for script, want := range map[string]int{
		"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143,
	} {
		for mode, run := range modes {
			server.Do("RPUSH", "l", "a")
			if got := run(t, server.env("l"), "sh", "-c", script); got.code != want || got.stderr != "" {
				t.Errorf("%s: %s: got %+v, want exit code %d", mode, script, got, want)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	server := target{"1"}
	if got := runHere(t, server.env("l")); got.code != ExitUsage || !strings.Contains(got.stderr, Usage) {
		t.Errorf("no command: got %+v", got)
	}
	got := runHere(t, []string{"PATH=/bin:/usr/bin"}, "true")
	if got.code != ExitUsage || !strings.Contains(got.stderr, "offboard runner: the variable REDIS_HOST is not set") ||
		!strings.Contains(got.stderr, "offboard runner: the variable REDIS_LIST is not set") {
		t.Errorf("no variables: got %+v", got)
	}
}

func TestCommandThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		command string
		code    int
		stderr  string
	}{
		"unknown":        {"no-such-command-anywhere", ExitNotFound, "no item was taken, because the command cannot be run"},
		"no file":        {filepath.Join(dir, "none"), ExitNotFound, "no item was taken"},
		"folder":         {dir, ExitCannotStart, "no item was taken"},
		"not executable": {file("plain", "#!/bin/sh\n", 0o600), ExitCannotStart, "no item was taken"},
		"no program":     {file("garbage", "\x00\x01", 0o700), ExitCannotStart, "was given back to the head of the list"},
		"no interpreter": {file("lost", "#!/no/such/sh\n", 0o700), ExitNotFound, "was given back to the head of the list"},
	} {
		for mode, run := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				name := name + mode
				server.Do("RPUSH", name, "first", "second")
				report := filepath.Join(t.TempDir(), "report")
				got := run(t, server.env(name, "OFFBOARD_REPORT="+report), test.command)
				if got.code != test.code || !strings.Contains(got.stderr, test.stderr) {
					t.Errorf("got %+v, want exit code %d and %q", got, test.code, test.stderr)
				}
				if head, n := server.text(t, "LINDEX", name, "0"), server.text(t, "LLEN", name); head != "first" || n != "2" {
					t.Errorf("%s items with the head %s are left", n, head)
				}
				if _, err := os.Stat(report); !os.IsNotExist(err) {
					t.Error("an item is reported that was not run")
				}
			})
		}
	}
}

func TestItemThatCannotBeGivenBackIsShown(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("\x00\x01"), 0o700); err != nil {
		t.Fatal(err)
	}
	server, _ := answering(t, "$3\r\na\"b\r\n", "-OOM no memory\r\n")
	got := runPop(t, server.env("l"), garbage)
	if got.code != ExitCannotStart || !strings.Contains(got.stderr, `in this message only: "a\"b"`) ||
		!strings.Contains(got.stderr, "OOM no memory") {
		t.Errorf("got %+v", got)
	}
}

func TestWrongType(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("SET", "l", "text")
	for mode, run := range modes {
		got := run(t, server.env("l"), "true")
		if got.code != ExitFailure || !strings.Contains(got.stderr, `take an item from the list "l": `) ||
			!strings.Contains(got.stderr, "WRONGTYPE") || !strings.Contains(got.stderr, "(REDIS_LIST must name a list)") {
			t.Errorf("%s: got %+v", mode, got)
		}
	}
}

func TestCommandThatDoesNotReadItsInput(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	large := strings.Repeat("x", 1<<20) // more than a pipe holds
	dir := t.TempDir()
	for name, script := range map[string]string{
		"ends":               "exit 4",
		"closes and goes on": `exec <&-; sleep 0.2; exit 4`,
		// A process that outlives the command holds the other end of the pipe open.
		"leaves a process": `exec 3<&0; sleep 600 <&3 >/dev/null 2>&1 & echo $! >"$DIR/pid"; exit 4`,
	} {
		server.Do("RPUSH", "l", large)
		began := time.Now()
		if got := runHere(t, server.env("l", "DIR="+dir), "sh", "-c", script); got.code != 4 {
			t.Errorf("%s: got %+v", name, got)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%s: took %v", name, took)
		}
	}
	pid := strings.TrimSpace(string(read(t, dir, "pid")))
	if err := exec.Command("kill", pid).Run(); err != nil {
		t.Errorf("the process left behind: %v", err)
	}
}

// waitFor polls until the condition holds.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for _, sig := range []syscall.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	} {
		dir := t.TempDir()
		server.Do("RPUSH", "l", "a")
		// The shell waits for a background process so that its trap runs at once.
		script := `trap 'kill $!; exit 42' HUP INT QUIT TERM USR1 USR2; sleep 60 >/dev/null 2>&1 & : >"$DIR/ready"; wait`
		cmd, stdout, stderr := process(t, server.env("l", "DIR="+dir), "sh", "-c", script)
		// A group of its own, as in a Pod: Ctrl-C of the terminal that the test runs in must not matter.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the command", exists(filepath.Join(dir, "ready")))
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 42 {
			t.Errorf("%v: exit code %d, output %s%s", sig, code, stdout, stderr)
		}
	}
	// Without a trap the command dies of the signal, and the runner says so as a shell does.
	server.Do("RPUSH", "l", "a")
	dir := t.TempDir()
	cmd, _, _ := process(t, server.env("l", "DIR="+dir), "sh", "-c", `: >"$DIR/ready"; exec sleep 60`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the command", exists(filepath.Join(dir, "ready")))
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

func TestSignalBeforeAnItemIsTaken(t *testing.T) {
	t.Parallel()
	// Nobody listens, so the runner is busy trying until the signal comes.
	cmd, _, stderr := process(t, target{refusing(t)}.env("l", patience+"=10m"), "true")
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first words", func() bool {
		info, err := out.Stat()
		return err == nil && info.Size() > 0
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 ||
		!strings.Contains(stderr.String(), "stopped by SIGTERM: no item was taken") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestSignalWhileTheItemIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	signals := catch()
	defer signals.release()
	requests := make(chan string, 2)
	go func() {
		defer close(requests)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		buffer := make([]byte, 1000)
		for _, answer := range []string{"$1\r\na\r\n", ":1\r\n"} {
			n, _ := conn.Read(buffer)
			requests <- string(buffer[:n])
			signals.end(endSignal(syscall.SIGTERM))
			_, _ = conn.Write([]byte(answer))
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	o := newOptions(t, target{port}.env("l"), "true")
	o.patience, o.Pop = time.Second, true
	code, err := (&run{o}).run(signals)
	if want := "stopped by SIGTERM: the item was given back to the head of the list"; code != 143 || err.Error() != want {
		t.Errorf("got %d, %v, want 143, %s", code, err, want)
	}
	<-requests
	if got, want := <-requests, string(appendCommand(nil, "LPUSH", "l", "a")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range requests {
		t.Error("more requests")
	}
}

func TestClosedStandardOutput(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	mark := filepath.Join(t.TempDir(), "mark")
	cmd, _, _ := process(t, server.env("l"), "touch", mark)
	cmd.Stdout = w
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	_ = w.Close()
	if !exists(mark)() {
		t.Error("the item is lost: it was taken and the command has not run")
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// As nohup does it.
	cmd := exec.Command("sh", "-c", `trap '' HUP; exec "$0" -- sh -c 'kill -HUP $PPID; kill -HUP $$; exit 5'`, self)
	cmd.Env = server.env("l", asRunner+"=1")
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
}
