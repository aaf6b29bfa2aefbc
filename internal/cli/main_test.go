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
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/queue"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestMain is also the program when kubectl calls it as its plugin.
func TestMain(m *testing.M) {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	if name := filepath.Base(os.Args[0]); name == pluginName || name == completionName {
		os.Exit(Execute(context.Background(), Options{
			Program: os.Args[0], Args: os.Args[1:], Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		}))
	}
	code := shared.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

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
	to      control.Queue // of the last push
	pushErr error

	stats   queue.Stats
	records map[queue.State][]queue.Record
	// options are those of the last push that had some, changed the ids of items by the operation.
	options queue.PushOptions
	heldBy  string
	changed map[control.Operation][]string
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

func (u *fakeUp) Job(ctx context.Context, namespace, name string) (control.JobInfo, error) {
	infos, err := u.Jobs(ctx, namespace, "")
	for _, info := range infos {
		if info.Job.Name == name {
			return info, err
		}
	}
	return control.JobInfo{}, control.Errorf(control.NotFound, "Job %s does not exist", name)
}

func (u *fakeUp) SetPaused(_ context.Context, namespace, name string, paused bool) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, info := range u.scaledJobs {
		if sj := info.Object; sj.Namespace == namespace && sj.Name == name {
			changed := sj.PausedByAnnotation() != paused
			sj.Annotations = map[string]string{v1alpha1.AnnotationPaused: strconv.FormatBool(paused)}
			return changed, nil
		}
	}
	return false, control.Errorf(control.NotFound, "ScaledJob %s does not exist", name)
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

func (u *fakeUp) Push(_ context.Context, to control.Queue, items [][]byte) (control.PushResult, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	queue := to.Name
	u.to = to
	if u.pushErr != nil {
		return control.PushResult{}, u.pushErr
	}
	for _, item := range items {
		u.pushed[queue] = append(u.pushed[queue], string(item))
	}
	return control.PushResult{Length: int64(len(u.pushed[queue]))}, nil
}

func (u *fakeUp) PushWith(
	_ context.Context, to control.Queue, options queue.PushOptions, items [][]byte,
) (queue.Pushed, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.to, u.options = to, options
	if u.pushErr != nil || u.heldBy != "" {
		return queue.Pushed{HeldBy: u.heldBy}, u.pushErr
	}
	pushed := queue.Pushed{Length: 7}
	for _, item := range items {
		u.pushed[to.Name] = append(u.pushed[to.Name], string(item))
		pushed.IDs = append(pushed.IDs, fmt.Sprintf("id%d", len(u.pushed[to.Name])))
	}
	return pushed, nil
}

func (u *fakeUp) Stats(_ context.Context, of control.Queue) (queue.Stats, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.to = of; of.Name != "q" {
		return queue.Stats{}, control.NoQueue(of, []string{"q"}, nil)
	}
	return u.stats, nil
}

func (u *fakeUp) Items(_ context.Context, of control.Queue, s control.Selection) ([]queue.Record, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.to = of; of.Name != "q" {
		return nil, control.NoQueue(of, []string{"q"}, nil)
	}
	if s.ID == "" {
		all := u.records[s.State][min(s.Skip, len(u.records[s.State])):]
		records := slices.Clone(all[:min(s.Limit, len(all))])
		for i, record := range records {
			records[i].Parts = nil
			for _, part := range record.Parts {
				records[i].Parts = append(records[i].Parts, part[:min(len(part), 4096)])
			}
		}
		return records, nil
	}
	for _, records := range u.records {
		for _, record := range records {
			if record.ID == s.ID {
				return []queue.Record{record}, nil
			}
		}
	}
	return nil, control.Errorf(control.NotFound, "no item %s", s.ID)
}

func (u *fakeUp) Change(
	_ context.Context, of control.Queue, operation control.Operation, items []control.ItemRef,
) ([]string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	state := queue.Dead
	if operation == control.GiveBack {
		state = queue.Claimed
	}
	u.to = of
	var done []string
	for _, item := range items {
		if slices.ContainsFunc(u.records[state], func(r queue.Record) bool {
			return r.ID == item.ID && (item.Attempt == 0 || item.Attempt == r.Attempt)
		}) {
			done = append(done, item.ID)
		}
	}
	if u.changed == nil {
		u.changed = map[control.Operation][]string{}
	}
	u.changed[operation] = append(slices.Clone(done), u.changed[operation]...)
	return done, nil
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
		In: in, Out: out, Err: err, now: func() time.Time { return today }, completing: time.Minute,
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
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
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
