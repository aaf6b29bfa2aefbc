package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/control"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// today is the time at which the commands of tests run.
var today = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// fakeUp stands for a running `offboard up`: it answers from fields that a test may change.
type fakeUp struct {
	mu         sync.Mutex
	scaledJobs []control.ScaledJobInfo
	jobs       []control.JobInfo
	// outputs are the outputs of runs by POD/CONTAINER, POD/CONTAINER/previous for the one before.
	outputs map[string]string
	asked   []control.LogOptions
	pushed  map[string][]string
	pushErr error
}

func (u *fakeUp) change(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

func (u *fakeUp) ScaledJobs(_ context.Context, namespace string) ([]control.ScaledJobInfo, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var infos []control.ScaledJobInfo
	for _, info := range u.scaledJobs {
		if namespace == "" || info.Object.Namespace == namespace {
			info.Object = info.Object.DeepCopy()
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (u *fakeUp) Jobs(_ context.Context, namespace, scaledJob string) ([]control.JobInfo, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var infos []control.JobInfo
	for _, info := range u.jobs {
		if (namespace == "" || info.Job.Namespace == namespace) &&
			(scaledJob == "" || info.Job.Labels["scaledjob.keda.sh/name"] == scaledJob) {
			info.Job = info.Job.DeepCopy()
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (u *fakeUp) Logs(_ context.Context, _, _ string, opts control.LogOptions) (io.ReadCloser, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, opts)
	key := opts.Pod + "/" + opts.Container
	if opts.Previous {
		key += "/previous"
	}
	text, found := u.outputs[key]
	if !found {
		return nil, control.Errorf(control.NotFound, "no output of %s", key)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func (u *fakeUp) Push(_ context.Context, queue string, items [][]byte) (control.PushResult, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pushErr != nil {
		return control.PushResult{}, u.pushErr
	}
	for _, item := range items {
		u.pushed[queue] = append(u.pushed[queue], string(item))
	}
	return control.PushResult{Length: int64(len(u.pushed[queue]))}, nil
}

func (u *fakeUp) Info(context.Context) (control.Info, error) {
	return control.Info{
		Version: "v9", PID: 42, DataDir: "/data", Redis: "127.0.0.1:6379", Manifests: []string{"a.yaml", "b/"},
	}, nil
}

// start serves it on a socket and returns the data folder and what stops it.
func (u *fakeUp) start(t *testing.T) (dataDir string, stop func()) {
	t.Helper()
	u.pushed = map[string][]string{}
	// The path of a socket is short, and t.TempDir holds the test's name.
	dataDir, err := os.MkdirTemp("", "oc")
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		server := control.Server{Backend: u, Log: slog.New(slog.DiscardHandler)}
		done <- server.Serve(ctx, l)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dataDir)
	})
	t.Cleanup(stop)
	return dataDir, stop
}

// result is what a command has left.
type result struct {
	code     int
	out, err string
}

// execute runs a command with the data folder.
func execute(t *testing.T, dataDir, stdin string, args ...string) result {
	t.Helper()
	return executeContext(t.Context(), dataDir, stdin, args...)
}

func executeContext(ctx context.Context, dataDir, stdin string, args ...string) result {
	var out, err syncBuffer
	code := Execute(ctx, options(dataDir, strings.NewReader(stdin), &out, &err, args...))
	return result{code, out.String(), err.String()}
}

func options(dataDir string, in io.Reader, out, err io.Writer, args ...string) Options {
	return Options{
		Version: "v1.2.3", Args: args, Environ: []string{"HOME=/nowhere", "OFFBOARD_DATA_DIR=" + dataDir},
		In: in, Out: out, Err: err, now: func() time.Time { return today },
	}
}

// syncBuffer is a buffer that may be read while a command writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// waitFor polls until the buffer holds the text.
func (s *syncBuffer) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %q in %q", text, s.String())
		}
	}
}

// golden compares the result with the file testdata/NAME.golden.
func golden(t *testing.T, name string, got result) {
	t.Helper()
	text := fmt.Sprintf("exit code %d\n--- standard output\n%s--- standard error\n%s", got.code, got.out, got.err)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got\n%s\nwant, from %s,\n%s", text, file, want)
	}
}
