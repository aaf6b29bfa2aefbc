package jobs

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// openReal starts a Controller whose Pods are processes.
func openReal(t *testing.T, dir string) *env {
	t.Helper()
	e := &env{t: t, dir: dir, log: &logBuffer{}}
	c, err := Open(t.Context(), Config{
		Dir: dir, Clock: clock.RealClock{}, KillLeftovers: process.KillLeftovers,
		Log: slog.New(slog.NewTextHandler(e.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	runner, err := pods.New(pods.Config{
		Command: func(_ context.Context, pod *corev1.Pod, container *corev1.Container) (pods.Command, error) {
			env := append(os.Environ(), v1alpha1.ItemVariableFile+"="+c.ItemPath(pod))
			return pods.Command{Args: container.Command, Dir: "/", Env: env}, nil
		},
		LogPath: c.LogPath, ReportPath: c.ReportPath, RecordStart: c.RecordStart,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(runner)
	e.Controller = c
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
	})
	return e
}

func shell(script string) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Command = []string{"/bin/sh", "-c", script} }
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	e := openReal(t, t.TempDir())
	e.create(newJob("good", shell("echo out; echo err >&2")))
	e.create(newJob("bad", shell("exit 3"), backoffLimit(0)))
	e.create(newJob("policy", shell("exit 42"),
		failurePolicy(onExit(batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyOnExitCodesOpIn, 42))))
	e.create(newJob("late", shell("trap 'echo stopped; exit 1' TERM; echo ready; while :; do sleep 0.01; done"),
		func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](8) })) // after the trap, on any machine
	e.create(newJob("restarting", onFailure, backoffLimit(1), shell("exit 5")))
	e.create(newJob("parallel", completions(6, 3)))

	good := e.waitCondition("good", batchv1.JobComplete)
	data, err := os.ReadFile(e.LogPath(good.Pods[0], "main", 0))
	if err != nil || !strings.Contains(string(data), "out\n") || !strings.Contains(string(data), "err\n") {
		t.Errorf("log = %q, %v", data, err)
	}
	for name, reason := range map[string]string{
		"bad": batchv1.JobReasonBackoffLimitExceeded, "policy": batchv1.JobReasonPodFailurePolicy,
		"late": batchv1.JobReasonDeadlineExceeded, "restarting": batchv1.JobReasonBackoffLimitExceeded,
	} {
		j := e.waitCondition(name, batchv1.JobFailed)
		if c := Finished(j.Job); c.Reason != reason || j.Status.Failed != 1 || j.Status.Active != 0 {
			t.Errorf("%s: %+v, want reason %s", name, j.Status, reason)
		}
	}
	late, err := e.Get("default", "late")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(e.LogPath(late.Pods[0], "main", 0)); err != nil ||
		!strings.Contains(string(data), "stopped") {
		t.Errorf("log of the Pod past its deadline = %q, %v; want its handler's output", data, err)
	}
	if late.Pods[0].Status.Reason != batchv1.JobReasonDeadlineExceeded {
		t.Errorf("status = %+v", late.Pods[0].Status)
	}
	if j := e.waitCondition("parallel", batchv1.JobComplete); j.Status.Succeeded != 6 || len(j.Pods) != 6 {
		t.Errorf("parallel: %+v", j.Status)
	}
}

func TestDrainStopsProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := openReal(t, dir)
	e.create(newJob("a", shell("sleep 1000")))
	e.wait("a", "it runs", func(j scaledjob.Job) bool { return len(j.Pods) == 1 && j.Pods[0].Status.Phase == corev1.PodRunning })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if err := e.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 25*time.Second { // less than the Pod's grace
		t.Errorf("Drain took %v", took)
	}
	again := openReal(t, dir)
	j, err := again.Get("default", "a")
	if err != nil || Finished(j.Job) != nil {
		t.Fatalf("after a restart: %+v, %v", j, err)
	}
	if _, ok := podCondition(j.Pods[0], corev1.DisruptionTarget); !ok || j.Pods[0].Status.Phase != corev1.PodFailed {
		t.Errorf("Pod's status = %+v", j.Pods[0].Status)
	}
}

// TestConcurrentUse creates, lists, updates and deletes from many goroutines.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	e := openReal(t, t.TempDir())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 15 {
				created, err := e.Create(t.Context(), newJob("", func(j *batchv1.Job) { j.GenerateName = "c-" }), nil)
				if err != nil {
					t.Error(err)
					return
				}
				jobs, _ := e.List(t.Context(), sjKey)
				found := false
				for _, j := range jobs {
					found = found || j.Name == created.Name
				}
				if !found {
					t.Errorf("%s is not in the list after Create", created.Name)
				}
				update := created.DeepCopy()
				update.ResourceVersion = ""
				update.Annotations = map[string]string{"k": "v"}
				if _, err := e.Update(t.Context(), update); err != nil {
					t.Error(err)
				}
				if err := e.Delete(t.Context(), "default", created.Name, created.UID, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := e.ListAll(""); len(left) != 0 {
		t.Errorf("%d Jobs are left", len(left))
	}
}

// TestStartTimeIsMonotonic checks that what deadlines count from does not follow the wall clock.
func TestStartTimeIsMonotonic(t *testing.T) {
	t.Parallel()
	e := openReal(t, t.TempDir())
	e.create(newJob("a"))
	j := e.waitCondition("a", batchv1.JobComplete)
	for what, at := range map[string]time.Time{
		"startTime": j.Status.StartTime.Time, "finish": Finished(j.Job).LastTransitionTime.Time,
	} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s %v has no monotonic reading", what, at)
		}
	}
}
