package pods_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
)

func TestMain(m *testing.M) {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	if err := process.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The first container opens what stays open.
	first, err := process.Start(process.Spec{Args: []string{"true"}, LogPath: os.DevNull})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first.Wait()
	before := openDescriptors()
	code := m.Run()
	if after := openDescriptors(); code == 0 && len(after) != len(before) {
		fmt.Fprintf(os.Stderr, "file descriptors leak: %v before the tests, %v after\n", before, after)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func openDescriptors() []string {
	entries, _ := filepath.Glob("/dev/fd/*")
	return entries
}

// env is a Runner with a folder, whose containers run command and args as they are.
type env struct {
	*pods.Runner
	t   *testing.T
	dir string
}

func newEnv(t *testing.T, change func(*pods.Config)) *env {
	t.Helper()
	e := &env{t: t, dir: t.TempDir()}
	cfg := pods.Config{
		Command: func(_ context.Context, _ *corev1.Pod, c *corev1.Container) (pods.Command, error) {
			return pods.Command{
				Args: append(append([]string{}, c.Command...), c.Args...), Env: []string{"PATH=/usr/bin:/bin"}, Dir: e.dir,
			}, nil
		},
		LogPath: func(pod *corev1.Pod, container string, restarts int32) string {
			return filepath.Join(e.dir, "logs", string(pod.UID), fmt.Sprintf("%s-%d", container, restarts))
		},
	}
	if change != nil {
		change(&cfg)
	}
	runner, err := pods.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Runner = runner
	t.Cleanup(func() {
		for _, uid := range runner.Running() {
			runner.Stop(uid, pods.Stop{Grace: new(time.Duration)})
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := runner.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
	return e
}

// pod returns a Pod with one container per script.
func (e *env) pod(policy corev1.RestartPolicy, scripts ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod", UID: types.UID(e.t.Name())},
		Spec:       corev1.PodSpec{RestartPolicy: policy, Containers: shells("c", scripts)},
	}
}

func shells(prefix string, scripts []string) (containers []corev1.Container) {
	for i, script := range scripts {
		containers = append(containers, corev1.Container{
			Name: fmt.Sprintf("%s%d", prefix, i), Command: []string{"sh", "-c", script},
		})
	}
	return containers
}

// run is the statuses of a Pod that was started.
type run struct {
	t        *testing.T
	mu       sync.Mutex
	statuses []corev1.PodStatus
	busy     bool
	changed  chan struct{}
}

func (e *env) start(pod *corev1.Pod) *run {
	e.t.Helper()
	r := &run{t: e.t, changed: make(chan struct{}, 1)}
	if err := e.Start(pod, r.update); err != nil {
		e.t.Fatal(err)
	}
	return r
}

func (r *run) update(status corev1.PodStatus) {
	r.mu.Lock()
	if r.busy {
		r.t.Error("two updates at once")
	}
	r.busy = true
	r.mu.Unlock()
	time.Sleep(100 * time.Microsecond) // for another update to come, if one would
	r.mu.Lock()
	r.busy = false
	if n := len(r.statuses); n > 0 && finished(r.statuses[n-1]) {
		r.t.Error("an update after the last")
	}
	r.statuses = append(r.statuses, status)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func finished(s corev1.PodStatus) bool {
	return s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
}

func (r *run) all() []corev1.PodStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]corev1.PodStatus{}, r.statuses...)
}

// until waits for a status that the condition is true for.
func (r *run) until(what string, condition func(corev1.PodStatus) bool) corev1.PodStatus {
	r.t.Helper()
	timeout := time.After(time.Minute)
	for {
		all := r.all()
		if len(all) > 0 && condition(all[len(all)-1]) {
			return all[len(all)-1]
		}
		select {
		case <-r.changed:
		case <-timeout:
			r.t.Fatalf("not within a minute: %s; the status is %s", what, describe(all))
		}
	}
}

func (r *run) end() corev1.PodStatus {
	r.t.Helper()
	return r.until("the end", finished)
}

// describe writes statuses shortly, for example "Running c0=running; Failed c0=exit 3 Error".
func describe(statuses []corev1.PodStatus) string {
	var parts []string
	for _, s := range statuses {
		part := string(s.Phase)
		for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
			for _, c := range list {
				part += " " + c.Name + "=" + describeState(c.State)
				if c.RestartCount > 0 {
					part += fmt.Sprintf(" (%d restarts)", c.RestartCount)
				}
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func describeState(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return fmt.Sprintf("%s %d", s.Terminated.Reason, s.Terminated.ExitCode)
	default:
		return s.Waiting.Reason
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
