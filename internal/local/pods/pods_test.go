package pods_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

func TestStatuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy        corev1.RestartPolicy
		init, scripts []string
		want          string
	}{
		"success": {
			policy: "Never", scripts: []string{"true"},
			want: "Running c0=running; Running c0=Completed 0; Succeeded c0=Completed 0",
		},
		"failure": {
			policy: "Never", scripts: []string{"exit 3"},
			want: "Running c0=running; Running c0=Error 3; Failed c0=Error 3",
		},
		"signal": {
			policy: "Never", scripts: []string{"kill -KILL $$"},
			want: "Running c0=running; Running c0=Error 137; Failed c0=Error 137",
		},
		"exit code 137": {
			policy: "Never", scripts: []string{"exit 137"},
			want: "Running c0=running; Running c0=Error 137; Failed c0=Error 137",
		},
		"first restart at once": {
			policy: "OnFailure", scripts: []string{"[ -e again ] || { touch again; exit 3; }"},
			want: "Running c0=running; Running c0=Error 3; Running c0=running (1 restarts); " +
				"Running c0=Completed 0 (1 restarts); Succeeded c0=Completed 0 (1 restarts)",
		},
		"init containers in order": {
			policy: "Never", init: []string{"true", "true"}, scripts: []string{"true"},
			want: "Pending i0=running i1=PodInitializing c0=PodInitializing; " +
				"Pending i0=Completed 0 i1=PodInitializing c0=PodInitializing; " +
				"Pending i0=Completed 0 i1=running c0=PodInitializing; " +
				"Pending i0=Completed 0 i1=Completed 0 c0=PodInitializing; " +
				"Running i0=Completed 0 i1=Completed 0 c0=running; " +
				"Running i0=Completed 0 i1=Completed 0 c0=Completed 0; " +
				"Succeeded i0=Completed 0 i1=Completed 0 c0=Completed 0",
		},
		"init container fails": {
			policy: "Never", init: []string{"exit 4", "true"}, scripts: []string{"true"},
			want: "Pending i0=running i1=PodInitializing c0=PodInitializing; " +
				"Pending i0=Error 4 i1=PodInitializing c0=PodInitializing; " +
				"Failed i0=Error 4 i1=PodInitializing c0=PodInitializing",
		},
		"init container is retried": {
			policy: "OnFailure", init: []string{"[ -e again ] || { touch again; exit 4; }"}, scripts: []string{"true"},
			want: "Pending i0=running c0=PodInitializing; Pending i0=Error 4 c0=PodInitializing; " +
				"Pending i0=running (1 restarts) c0=PodInitializing; " +
				"Pending i0=Completed 0 (1 restarts) c0=PodInitializing; " +
				"Running i0=Completed 0 (1 restarts) c0=running; Running i0=Completed 0 (1 restarts) c0=Completed 0; " +
				"Succeeded i0=Completed 0 (1 restarts) c0=Completed 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, nil)
			pod := e.pod(test.policy, test.scripts...)
			pod.Spec.InitContainers = shells("i", test.init)
			r := e.start(pod)
			r.end()
			if got := describe(r.all()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestStatusIsComplete(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	e := newEnv(t, nil)
	r := e.start(e.pod("Never", "kill -TERM $$"))
	status := r.end()
	ended := status.ContainerStatuses[0].State.Terminated
	if ended.Signal != 15 || ended.ExitCode != 143 || ended.StartedAt.Time.Before(begin) ||
		ended.FinishedAt.Time.Before(ended.StartedAt.Time) || !strings.HasPrefix(ended.ContainerID, "process://") {
		t.Errorf("got %+v", ended)
	}
	if status.HostIP != "127.0.0.1" || status.PodIP != "127.0.0.1" || status.StartTime == nil {
		t.Errorf("got %+v", status)
	}
	conditions := func(s corev1.PodStatus) (text string) {
		for _, c := range s.Conditions {
			text += fmt.Sprintf("%s=%s %s,", c.Type, c.Status, c.Reason)
			if c.LastTransitionTime.IsZero() {
				t.Errorf("%s has no time", c.Type)
			}
		}
		return text
	}
	if got := conditions(r.all()[0]); got != "PodScheduled=True ,Initialized=True ,ContainersReady=True ,Ready=True ," {
		t.Errorf("running: got %s", got)
	}
	if got := conditions(status); got !=
		"PodScheduled=True ,Initialized=True ,ContainersReady=False PodFailed,Ready=False PodFailed," {
		t.Errorf("failed: got %s", got)
	}
}

func TestPodEndsWithItsLastContainer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	r := e.start(e.pod("Never", "exit 3", "until [ -e go ]; do sleep 0.01; done"))
	status := r.until("first ended, second running", func(s corev1.PodStatus) bool {
		return s.ContainerStatuses[0].State.Terminated != nil && s.ContainerStatuses[1].State.Running != nil
	})
	if status.Phase != corev1.PodRunning {
		t.Errorf("got phase %s", status.Phase)
	}
	if err := os.WriteFile(filepath.Join(e.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := describe([]corev1.PodStatus{r.end()}); got != "Failed c0=Error 3 c1=Completed 0" {
		t.Errorf("got %s", got)
	}
}

func TestStartErrorIsAnEnd(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	pod := e.pod("Never", "")
	pod.Spec.Containers[0].Command = []string{"nowhere-1"}
	status := e.start(pod).end()
	ended := status.ContainerStatuses[0].State.Terminated
	if ended.Reason != "StartError" || ended.ExitCode != 127 || !strings.Contains(ended.Message, "nowhere-1") {
		t.Errorf("got %+v", ended)
	}
}

func TestConfigErrorIsWaitedOut(t *testing.T) {
	t.Parallel()
	var there atomic.Bool
	e := newEnv(t, func(cfg *pods.Config) {
		command := cfg.Command
		cfg.Command = func(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (pods.Command, error) {
			if pod.Status.PodIP == "" || pod.Status.StartTime == nil {
				t.Errorf("the pod has no address or start time")
			}
			if !there.Load() {
				return pods.Command{}, errors.New("secret default/login does not exist")
			}
			return command(ctx, pod, c)
		}
	})
	r := e.start(e.pod("Never", "true"))
	status := r.until("waiting", func(s corev1.PodStatus) bool { return s.ContainerStatuses[0].State.Waiting != nil })
	waiting := status.ContainerStatuses[0].State.Waiting
	if status.Phase != corev1.PodPending || waiting.Reason != "CreateContainerConfigError" ||
		waiting.Message != "secret default/login does not exist" {
		t.Errorf("got %s, %+v", status.Phase, waiting)
	}
	there.Store(true)
	if status := r.end(); status.Phase != corev1.PodSucceeded {
		t.Errorf("got %s", describe(r.all()))
	}
}

func TestConfigErrorEndsWhenThePodIsStopped(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(cfg *pods.Config) {
		cfg.Command = func(ctx context.Context, _ *corev1.Pod, _ *corev1.Container) (pods.Command, error) {
			<-ctx.Done() // as a request that takes long
			return pods.Command{}, ctx.Err()
		}
	})
	pod := e.pod("Never", "true")
	r := e.start(pod)
	e.Stop(pod.UID, pods.Stop{Reason: "Why"})
	if status := r.end(); status.Phase != corev1.PodFailed || status.Reason != "Why" {
		t.Errorf("got %+v", status)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var e *env
	e = newEnv(t, func(cfg *pods.Config) {
		cfg.ReportPath = func(_ *corev1.Pod, container string) string { return filepath.Join(e.dir, container+".report") }
	})
	script := `[ -e again ] && exit 0; touch again; echo done >$OFFBOARD_REPORT; exit 3`
	status := e.start(e.pod("OnFailure", script)).end()
	report, err := os.ReadFile(filepath.Join(e.dir, "c0.report"))
	if err != nil || string(report) != "done\n" || status.ContainerStatuses[0].RestartCount != 1 {
		t.Errorf("got %q, %v, %d restarts", report, err, status.ContainerStatuses[0].RestartCount)
	}
}

func TestStartIsRecordedFirst(t *testing.T) {
	t.Parallel()
	var recorded atomic.Int32
	e := newEnv(t, func(cfg *pods.Config) {
		cfg.RecordStart = func(pod *corev1.Pod, container string, pid int, startID string) {
			if pod.UID == "" || container != "c0" || pid <= 1 || startID == "" {
				t.Errorf("got %s %s %d %q", pod.UID, container, pid, startID)
			}
			recorded.Store(int32(pid))
		}
	})
	r := &run{t: t, changed: make(chan struct{}, 1)}
	err := e.Start(e.pod("Never", "echo $$"), func(s corev1.PodStatus) {
		if recorded.Load() == 0 {
			t.Error("an update came first")
		}
		r.update(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.end()
}

func TestPodsThatCannotRunAreRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for want, change := range map[string]func(*corev1.Pod){
		"metadata.uid is empty":    func(p *corev1.Pod) { p.UID = "" },
		"spec.containers is empty": func(p *corev1.Pod) { p.Spec.Containers = nil },
		"spec.initContainers[0] (side)": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "side", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
			}
		},
	} {
		pod := e.pod("Never", "true")
		change(pod)
		err := e.Start(pod, func(corev1.PodStatus) { t.Error("an update") })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	pod := e.pod("Never", "sleep 1000")
	e.start(pod)
	if err := e.Start(pod, nil); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("got %v", err)
	}
	if _, err := pods.New(pods.Config{}); err == nil {
		t.Error("an empty Config is accepted")
	}
}

func TestWaitAndRunning(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	if err := e.Wait(context.Background()); err != nil {
		t.Errorf("nothing runs: %v", err)
	}
	pod := e.pod("Never", "sleep 1000")
	e.start(pod)
	if got := e.Running(); len(got) != 1 || got[0] != pod.UID {
		t.Errorf("got %v", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := e.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if !e.Stop(pod.UID, pods.Stop{}) || e.Stop("unknown", pods.Stop{}) {
		t.Error("Stop does not tell whether the pod runs")
	}
	if err := e.Wait(context.Background()); err != nil || len(e.Running()) != 0 {
		t.Errorf("got %v, %v", err, e.Running())
	}
}

// BenchmarkStart measures the time from Start until the process runs its program. Almost all of it is the system's
// fork and exec, which process.Start alone takes too.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	runner, err := pods.New(pods.Config{
		Command: func(context.Context, *corev1.Pod, *corev1.Container) (pods.Command, error) {
			return pods.Command{Args: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: dir}, nil
		},
		LogPath: func(*corev1.Pod, string, int32) string { return filepath.Join(dir, "log") },
	})
	if err != nil {
		b.Fatal(err)
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: "Never", Containers: []corev1.Container{{Name: "c"}}}}
	pod.UID = "bench"
	var before, running time.Duration
	for b.Loop() {
		begin := time.Now()
		first := true
		err := runner.Start(pod, func(s corev1.PodStatus) {
			if first {
				running += time.Since(begin)
				before += s.ContainerStatuses[0].State.Running.StartedAt.Sub(begin)
				first = false
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := runner.Wait(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(before.Microseconds())/float64(b.N), "µs-to-fork")
	b.ReportMetric(float64(running.Microseconds())/float64(b.N), "µs-to-running")
}
