// Package e2e runs the built program as a user does, against real servers and real processes.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
)

// program is the built program.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "offboard-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "offboard")
		build := exec.Command("go", "build", "-o", program, "../../cmd/offboard")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, output)
			return 1
		}
		return m.Run()
	}())
}

// patience is how long one step may take, on a machine that does much else at the same time. It is there so that a test
// which hangs ends: where it matters how long something takes, the test finds that out in another way.
const patience = 4 * time.Minute

// machine is a folder with manifests and a data folder, on which `offboard up` runs, or not.
type machine struct {
	t         *testing.T
	manifests string
	data      string
	client    *control.Client

	up  *exec.Cmd
	log *lockedBuffer
}

// lockedBuffer collects the output of a process.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// newMachine writes the files, by name, and starts nothing.
func newMachine(t *testing.T, files map[string]string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, manifests: filepath.Join(dir, "manifests"), data: filepath.Join(dir, "data")}
	if err := os.Mkdir(m.manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		m.write(name, content)
	}
	m.client = control.NewClient(m.data)
	t.Cleanup(func() {
		m.client.Close()
		if m.up != nil {
			_ = m.up.Process.Signal(syscall.SIGTERM)
			_ = m.up.Process.Signal(syscall.SIGTERM)
			m.wait(patience)
		}
		if t.Failed() && m.log != nil {
			t.Logf("offboard up said:\n%s", m.log)
		}
	})
	return m
}

// write writes a file among the manifests, in one step; scripts may be executed.
func (m *machine) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.manifests, name)
	if err := os.WriteFile(path+"~", []byte(content), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.manifests, name)); err != nil {
		m.t.Fatal(err)
	}
}

// read returns a file that a runner wrote among the manifests; nothing when there is none.
func (m *machine) read(name string) string {
	m.t.Helper()
	content, err := os.ReadFile(filepath.Join(m.manifests, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(content)
}

// lines returns the lines of such a file.
func (m *machine) lines(name string) []string { return strings.Fields(m.read(name)) }

// start starts `offboard up` and waits until it answers.
func (m *machine) start(flags ...string) {
	m.t.Helper()
	m.log = &lockedBuffer{}
	m.up = exec.Command(program, append([]string{"up", "-f", m.manifests, "--data-dir", m.data}, flags...)...)
	m.up.Stdout, m.up.Stderr = m.log, m.log
	m.up.WaitDelay = 5 * time.Second // should a process that is left behind hold its output
	if err := m.up.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("an answer of offboard up", func() (bool, string) {
		info, err := m.client.Info(m.t.Context())
		return err == nil && info.PID == m.up.Process.Pid, fmt.Sprint(err)
	})
}

// wait waits for the end of `offboard up` and returns its exit code.
func (m *machine) wait(limit time.Duration) int {
	m.t.Helper()
	up := m.up
	m.up = nil
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = up.Wait() // ProcessState tells how it ended
	}()
	select {
	case <-ended:
	case <-time.After(limit):
		_ = up.Process.Kill()
		<-ended
		m.t.Errorf("offboard up did not end within %v:\n%s", limit, m.log)
	}
	return up.ProcessState.ExitCode()
}

// stop ends `offboard up` with a signal and returns its exit code.
func (m *machine) stop(signal syscall.Signal) int {
	m.t.Helper()
	if err := m.up.Process.Signal(signal); err != nil {
		m.t.Fatal(err)
	}
	return m.wait(patience)
}

// run runs a command and returns what it printed and its exit code.
func (m *machine) run(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	return m.runIn("", args...)
}

func (m *machine) runIn(stdin string, args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	cmd.Env = append(os.Environ(), "OFFBOARD_DATA_DIR="+m.data)
	cmd.WaitDelay = 5 * time.Second
	var exit *exec.ExitError
	if failure := cmd.Run(); failure != nil && !errors.As(failure, &exit) {
		m.t.Fatal(failure)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that is to succeed.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	stdout, stderr, code := m.run(args...)
	if code != 0 {
		m.t.Fatalf("offboard %s: exit code %d: %s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// eventually asks until the answer is yes.
func (m *machine) eventually(what string, ask func() (ok bool, instead string)) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ok, instead := ask()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("waited in vain for %s; instead: %s", what, instead)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// until waits for a state of the only ScaledJob.
func (m *machine) until(what string, holds func(info control.ScaledJobInfo) bool) {
	m.t.Helper()
	m.eventually(what, func() (bool, string) {
		infos, err := m.client.ScaledJobs(m.t.Context(), "")
		if err != nil || len(infos) != 1 {
			return false, fmt.Sprintf("%d ScaledJobs, error %v", len(infos), err)
		}
		info := infos[0]
		queue := "unknown"
		if info.Queue != nil {
			queue = fmt.Sprint(*info.Queue)
		}
		return holds(info), fmt.Sprintf("queue %s, %d running, %d pending, %d succeeded, %d failed, conditions %v", queue,
			info.Running, info.Pending, info.Succeeded, info.Failed, info.Object.Status.Conditions)
	})
}

// untilDone waits until so many Jobs have ended and nothing is left.
func (m *machine) untilDone(succeeded, failed int) {
	m.t.Helper()
	m.until(fmt.Sprintf("%d Jobs that succeeded, %d that failed, and nothing left", succeeded, failed),
		func(info control.ScaledJobInfo) bool {
			return info.Succeeded == succeeded && info.Failed == failed && info.Running+info.Pending == 0 &&
				info.Queue != nil && *info.Queue == 0
		})
}

// push pushes items and fails the test when that does.
func (m *machine) push(queue string, items ...string) {
	m.t.Helper()
	raw := make([][]byte, len(items))
	for i, item := range items {
		raw[i] = []byte(item)
	}
	if _, err := m.client.Push(m.t.Context(), control.Queue{Name: queue}, raw); err != nil {
		m.t.Fatal(err)
	}
}

// scaledJob returns a manifest with one container that runs the shell script through the runner.
func scaledJob(spec, trigger, script string) string {
	return fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: work}
spec:
%s
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 1
        containers:
          - name: main
            command: [offboard, runner, --, sh, -c, %q]
            env: [{name: REDIS_LIST, value: work}]
  triggers:
    - type: redis
      metadata: {listName: work, listLength: "1"%s}
`, spec, strings.ReplaceAll(script, "$$", "$$$$"), trigger) // $$ in a command is Kubernetes' way to write $
}
