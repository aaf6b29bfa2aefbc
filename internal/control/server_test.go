package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// fakeBackend answers from fields and functions. The real one is a whole `offboard up`.
type fakeBackend struct {
	scaledJobs func(namespace string) ([]ScaledJobInfo, error)
	jobs       func(namespace, scaledJob string) ([]JobInfo, error)
	logs       func(ctx context.Context, namespace, job string, opts LogOptions) (io.ReadCloser, error)
	job        func(namespace, name string) (JobInfo, error)
	push       func(ctx context.Context, queue Queue, items [][]byte) (PushResult, error)
	pause      func(namespace, scaledJob string, paused bool) (bool, error)
	info       func(ctx context.Context) (Info, error)
	pushWith   func(to Queue, options queue.PushOptions, items [][]byte) (queue.Pushed, error)
	stats      func(of Queue) (queue.Stats, error)
	items      func(ctx context.Context, of Queue, selection Selection) ([]queue.Record, error)
	change     func(of Queue, operation Operation, items []ItemRef) ([]string, error)
}

func (b fakeBackend) ScaledJobs(_ context.Context, namespace string) ([]ScaledJobInfo, error) {
	return b.scaledJobs(namespace)
}

func (b fakeBackend) Jobs(_ context.Context, namespace, scaledJob string) ([]JobInfo, error) {
	return b.jobs(namespace, scaledJob)
}

func (b fakeBackend) Logs(ctx context.Context, namespace, job string, opts LogOptions) (io.ReadCloser, error) {
	return b.logs(ctx, namespace, job, opts)
}

func (b fakeBackend) Job(_ context.Context, namespace, name string) (JobInfo, error) {
	return b.job(namespace, name)
}

func (b fakeBackend) Push(ctx context.Context, queue Queue, items [][]byte) (PushResult, error) {
	return b.push(ctx, queue, items)
}

func (b fakeBackend) SetPaused(_ context.Context, namespace, scaledJob string, paused bool) (bool, error) {
	return b.pause(namespace, scaledJob, paused)
}

func (b fakeBackend) PushWith(
	_ context.Context, to Queue, options queue.PushOptions, items [][]byte,
) (queue.Pushed, error) {
	return b.pushWith(to, options, items)
}

func (b fakeBackend) Stats(_ context.Context, of Queue) (queue.Stats, error) { return b.stats(of) }

func (b fakeBackend) Items(ctx context.Context, of Queue, selection Selection) ([]queue.Record, error) {
	return b.items(ctx, of, selection)
}

func (b fakeBackend) Change(_ context.Context, of Queue, operation Operation, items []ItemRef) ([]string, error) {
	return b.change(of, operation, items)
}

func (b fakeBackend) Info(ctx context.Context) (Info, error) { return b.info(ctx) }

// serve starts a server and returns a client of it, the data folder, and what stops it.
func serve(t *testing.T, backend Up) (client *Client, dataDir string, stop func() error) {
	t.Helper()
	dataDir = shortDir(t)
	l, err := Listen(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		server := &Server{Backend: backend, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		done <- server.Serve(ctx, l)
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	client = NewClient(dataDir)
	t.Cleanup(func() {
		client.Close()
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return client, dataDir, stop
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	at := metav1.NewTime(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	info := Info{Version: "v1", PID: 7, DataDir: "/d", Redis: "127.0.0.1:6379", Manifests: []string{"a.yaml"}}
	scaledJob := ScaledJobInfo{
		Object: &v1alpha1.ScaledJob{
			ObjectMeta: metav1.ObjectMeta{Name: "usertask", Namespace: "n s"},
			Status: v1alpha1.ScaledJobStatus{Conditions: v1alpha1.Conditions{
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue},
			}},
		},
		Queue: ptr.To(6.0), Running: 1, Pending: 2, Succeeded: 3, Failed: 4, LastReason: "why",
		Events: []Event{{Type: "Normal", Reason: "Created", Message: "m", Count: 2, First: at, Last: at}},
	}
	job := JobInfo{
		Job:  &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}},
		Pods: []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p"}}}, Item: `{"user": 1}`,
	}
	var asked []string
	client, _, _ := serve(t, fakeBackend{
		info: func(context.Context) (Info, error) { return info, nil },
		scaledJobs: func(namespace string) ([]ScaledJobInfo, error) {
			asked = append(asked, namespace)
			return []ScaledJobInfo{scaledJob}, nil
		},
		jobs: func(namespace, scaledJob string) ([]JobInfo, error) {
			asked = append(asked, namespace, scaledJob)
			return []JobInfo{job}, nil
		},
	})
	gotInfo, err := client.Info(t.Context())
	if err != nil || fmt.Sprint(gotInfo) != fmt.Sprint(info) {
		t.Errorf("Info: got %v, %v", gotInfo, err)
	}
	scaledJobs, err := client.ScaledJobs(t.Context(), "n s")
	if err != nil || len(scaledJobs) != 1 {
		t.Fatalf("ScaledJobs: got %v, %v", scaledJobs, err)
	}
	got := scaledJobs[0]
	if got.Object.Name != "usertask" || *got.Queue != 6 || got.Failed != 4 || !got.Events[0].Last.Equal(&at) ||
		got.Object.Status.Conditions.Get(v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		t.Errorf("ScaledJobs: got %+v", got)
	}
	jobs, err := client.Jobs(t.Context(), "", "a&b=c")
	if err != nil || len(jobs) != 1 || jobs[0].Job.Name != "j" || jobs[0].Pods[0].Name != "p" || jobs[0].Item != job.Item {
		t.Errorf("Jobs: got %v, %v", jobs, err)
	}
	if want := []string{"n s", "", "a&b=c"}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestPauseAndJob(t *testing.T) {
	t.Parallel()
	paused := map[string]bool{}
	client, _, _ := serve(t, fakeBackend{
		pause: func(namespace, scaledJob string, pause bool) (bool, error) {
			key := namespace + "/" + scaledJob
			changed := paused[key] != pause
			paused[key] = pause
			return changed, nil
		},
		job: func(namespace, name string) (JobInfo, error) {
			if name != "j" {
				return JobInfo{}, apierrors.NewNotFound(schema.GroupResource{Resource: "jobs"}, name)
			}
			return JobInfo{Job: &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}}, nil
		},
	})
	for i, step := range []struct{ pause, changed bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		changed, err := client.SetPaused(t.Context(), "n s", "a&b", step.pause)
		if err != nil || changed != step.changed || paused["n s/a&b"] != step.pause {
			t.Errorf("step %d: got %t, %v; %v", i, changed, err, paused)
		}
	}
	if info, err := client.Job(t.Context(), "n s", "j"); err != nil || info.Job.Namespace != "n s" {
		t.Errorf("got %v, %v", info, err)
	}
	if _, err := client.Job(t.Context(), "n s", "other"); ReasonOf(err) != NotFound {
		t.Errorf("got %v", err)
	}
}

func TestErrorsKeepTheirReason(t *testing.T) {
	t.Parallel()
	missing := apierrors.NewNotFound(schema.GroupResource{Resource: "jobs"}, "j")
	for name, test := range map[string]struct {
		err     error
		reason  Reason
		message string
	}{
		"own":       {Errorf(Unavailable, "redis: %w", io.EOF), Unavailable, "redis: EOF"},
		"wrapped":   {fmt.Errorf("list: %w", Errorf(BadRequest, "bad")), BadRequest, "list: bad"},
		"api":       {missing, NotFound, missing.Error()},
		"deadline":  {context.DeadlineExceeded, Timeout, context.DeadlineExceeded.Error()},
		"other":     {errors.New("line 1\nline 2 \x00 ü"), Internal, "line 1\nline 2 \x00 ü"},
		"api error": {apierrors.NewServiceUnavailable("later"), Unavailable, "later"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, _, _ := serve(t, fakeBackend{
				info: func(context.Context) (Info, error) { return Info{}, test.err },
				logs: func(context.Context, string, string, LogOptions) (io.ReadCloser, error) {
					return io.NopCloser(io.MultiReader(strings.NewReader("some"), errorReader{test.err})), nil
				},
			})
			check := func(err error) {
				t.Helper()
				if ReasonOf(err) != test.reason || err.Error() != test.message {
					t.Errorf("got %v %q, want %v %q", ReasonOf(err), err, test.reason, test.message)
				}
			}
			_, err := client.Info(t.Context())
			check(err)
			// In the middle of a stream.
			log, err := client.Logs(t.Context(), "n", "j", LogOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = log.Close() }()
			text, err := io.ReadAll(log)
			if string(text) != "some" {
				t.Errorf("got output %q", text)
			}
			check(err)
		})
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestNaNIsAnErrorNotHalfAnAnswer(t *testing.T) {
	t.Parallel()
	nan := 0.0
	nan /= nan
	client, _, _ := serve(t, fakeBackend{
		scaledJobs: func(string) ([]ScaledJobInfo, error) { return []ScaledJobInfo{{Queue: &nan}}, nil },
	})
	_, err := client.ScaledJobs(t.Context(), "")
	if ReasonOf(err) != Internal || !strings.Contains(err.Error(), "encode the answer") {
		t.Errorf("got %v", err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	pushed := map[string][][]byte{}
	var to Queue
	client, _, _ := serve(t, fakeBackend{
		push: func(_ context.Context, queue Queue, items [][]byte) (PushResult, error) {
			mu.Lock()
			defer mu.Unlock()
			to = queue
			pushed[queue.Name] = append(pushed[queue.Name], items...)
			return PushResult{Length: int64(len(pushed[queue.Name]))}, nil
		},
	})
	large := bytes.Repeat([]byte{0, 0xff, '\n', ','}, 10<<18)
	queue := "a queue\n\x00\"'&=%ü\xff"
	full := Queue{Name: queue, Namespace: "n s", ScaledJob: "a&b"}
	result, err := client.Push(t.Context(), full, [][]byte{[]byte("a"), large, {}})
	if err != nil || result.Length != 3 || to != full {
		t.Fatalf("got %v, %v, pushed to %q", result, err, to)
	}
	if got := pushed[queue]; len(got) != 3 || !bytes.Equal(got[1], large) || len(got[2]) != 0 {
		t.Error("the items differ")
	}
	for name, push := range map[string]func() error{
		"no item":  func() error { _, err := client.Push(t.Context(), Queue{Name: "q"}, nil); return err },
		"no queue": func() error { _, err := client.Push(t.Context(), Queue{}, [][]byte{{}}); return err },
		"long name": func() error {
			_, err := client.Push(t.Context(), Queue{Name: strings.Repeat("q", MaxQueueName+1)}, [][]byte{{}})
			return err
		},
		"too many": func() error {
			_, err := client.Push(t.Context(), Queue{Name: "q"}, make([][]byte, MaxPushItems+1))
			return err
		},
		"too large": func() error {
			half := make([]byte, MaxPushBytes/2)
			_, err := client.Push(t.Context(), Queue{Name: "q"}, [][]byte{half, half})
			return err
		},
	} {
		if err := push(); ReasonOf(err) != BadRequest {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if len(pushed) != 1 {
		t.Errorf("refused pushes have reached the backend: %d queues", len(pushed))
	}
}

func TestServerRefuses(t *testing.T) {
	t.Parallel()
	client, _, _ := serve(t, fakeBackend{})
	for _, test := range []struct{ method, target, body, want string }{
		{"GET", "/v2/info", "", "does not know the request GET /v2/info"},
		{"DELETE", "/v1/info", "", "does not know the request DELETE /v1/info"},
		{"GET", "/v1/log?follow=maybe", "", `follow: must be true or false, not "maybe"`},
		{"GET", "/v1/log?tail=-1", "", `tail: must be a number of lines, 0 or more, not "-1"`},
		{"POST", "/v1/pause?paused=perhaps", "", "paused: must be true or false, not \"perhaps\""},
		{"POST", "/v1/push?queue=q", "3:abc", "read the items: item 1: its length of 3 bytes is more than the request holds"},
	} {
		target, body := "http://offboard"+test.target, strings.NewReader(test.body)
		request, err := http.NewRequestWithContext(t.Context(), test.method, target, body)
		if err != nil {
			t.Fatal(err)
		}
		err = client.do(request, nil)
		if ReasonOf(err) != BadRequest || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: got %v %v, want %s", test.method, test.target, ReasonOf(err), err, test.want)
		}
	}
}

// endless is output that goes on until the context of its opening ends.
type endless struct {
	*io.PipeReader
	w      *io.PipeWriter
	closed chan struct{}
}

func newEndless() *endless {
	r, w := io.Pipe()
	return &endless{PipeReader: r, w: w, closed: make(chan struct{})}
}

func (e *endless) open(ctx context.Context) io.ReadCloser {
	context.AfterFunc(ctx, func() { _ = e.w.CloseWithError(ctx.Err()) })
	return e
}

func (e *endless) Close() error {
	close(e.closed)
	return e.PipeReader.Close()
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	output := newEndless()
	var gotOpts LogOptions
	client, _, stop := serve(t, fakeBackend{
		logs: func(ctx context.Context, namespace, job string, opts LogOptions) (io.ReadCloser, error) {
			if namespace != "n" || job != "j" {
				return nil, Errorf(NotFound, "no Job %s/%s", namespace, job)
			}
			gotOpts = opts
			return output.open(ctx), nil
		},
	})
	opts := LogOptions{Pod: "p", Container: "c", Follow: true, Tail: ptr.To[int64](0), Previous: true}
	log, err := client.Logs(t.Context(), "n", "j", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if gotOpts.Pod != "p" || gotOpts.Container != "c" || !gotOpts.Follow || *gotOpts.Tail != 0 || !gotOpts.Previous {
		t.Errorf("got options %+v", gotOpts)
	}
	// Each piece arrives although the stream has not ended, and nothing is changed in it.
	for _, piece := range []string{"one\n", "half a line", "\x00\xff\x1b[31m"} {
		if _, err := output.w.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, len(piece))
		if _, err := io.ReadFull(log, buffer); err != nil || string(buffer) != piece {
			t.Fatalf("got %q, %v, want %q", buffer, err, piece)
		}
	}
	if _, err := client.Logs(t.Context(), "n", "other", opts); ReasonOf(err) != NotFound {
		t.Errorf("unknown Job: got %v", err)
	}
	// The server's end is the stream's end, and said: a stream that held up the server would be cut off without a word.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(log); ReasonOf(err) != Unavailable || err.Error() != "offboard up is stopping" {
		t.Errorf("got %v", err)
	}
	<-output.closed
}

func TestLogsEndWithTheClient(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(log io.Closer, cancel func()){
		"close":  func(log io.Closer, _ func()) { _ = log.Close() },
		"cancel": func(_ io.Closer, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output := newEndless()
			client, _, _ := serve(t, fakeBackend{
				logs: func(ctx context.Context, _, _ string, _ LogOptions) (io.ReadCloser, error) {
					return output.open(ctx), nil
				},
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			log, err := client.Logs(ctx, "n", "j", LogOptions{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			leave(log, cancel)
			select {
			case <-output.closed:
			case <-time.After(time.Minute):
				t.Fatal("the output was not closed")
			}
			if _, err := log.Read(make([]byte, 1)); err == nil {
				t.Error("a read after the end gives no error")
			}
			_ = log.Close()
		})
	}
}

func TestPushSurvivesTheServersStop(t *testing.T) {
	t.Parallel()
	arrived, proceed := make(chan struct{}), make(chan struct{})
	client, _, stop := serve(t, fakeBackend{
		push: func(ctx context.Context, _ Queue, items [][]byte) (PushResult, error) {
			close(arrived)
			<-proceed
			return PushResult{Length: int64(len(items))}, ctx.Err()
		},
	})
	result := make(chan error, 1)
	go func() {
		_, err := client.Push(context.Background(), Queue{Name: "q"}, [][]byte{[]byte("a")})
		result <- err
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(proceed)
	if err := <-result; err != nil {
		t.Errorf("the push was cut off: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	_, err := client.Push(context.Background(), Queue{Name: "q"}, [][]byte{[]byte("a")})
	if ReasonOf(err) == Unavailable { // it had not noticed yet that its connection is closed
		_, err = client.Push(context.Background(), Queue{Name: "q"}, [][]byte{[]byte("a")})
	}
	if ReasonOf(err) != NotRunning {
		t.Errorf("after the stop: got %v", err)
	}
}

func TestServerThatDoesNotSpeakHTTP(t *testing.T) {
	t.Parallel()
	dataDir := shortDir(t)
	l, err := Listen(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0\r\n"))
			_ = conn.Close()
		}
	}()
	client := NewClient(dataDir)
	defer client.Close()
	if _, err := client.Info(t.Context()); ReasonOf(err) != Unavailable || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v", err)
	}
	_ = l.Close()
	<-done
}
