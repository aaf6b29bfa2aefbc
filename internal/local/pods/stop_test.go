package pods_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

// untilFile waits for a file that a container makes.
func (e *env) untilFile(name string) {
	e.t.Helper()
	eventually(e.t, "file "+name, func() bool {
		_, err := os.Stat(filepath.Join(e.dir, name))
		return err == nil
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	pod := e.pod("OnFailure",
		"trap 'exit 7' TERM; touch c0; while :; do sleep 0.01; done",
		"trap '' TERM; touch c1; while :; do sleep 0.01; done",
		"exit 0")
	r := e.start(pod)
	e.untilFile("c0")
	e.untilFile("c1")
	r.until("the third has ended", func(s corev1.PodStatus) bool { return s.ContainerStatuses[2].State.Terminated != nil })
	const grace = 5 * time.Second // within which the first one notices
	begin := time.Now()
	e.Stop(pod.UID, pods.Stop{
		Grace: ptr.To(grace), Reason: "Terminated", Message: "because", Disruption: true,
	})
	e.Stop(pod.UID, pods.Stop{Grace: ptr.To(time.Hour), Reason: "Other"})
	status := r.end()
	if got := describe([]corev1.PodStatus{status}); got != "Failed c0=Error 7 c1=Error 137 c2=Completed 0" {
		t.Errorf("got %s", got)
	}
	if took := time.Since(begin); took < grace {
		t.Errorf("took only %v", took)
	}
	if status.Reason != "Terminated" || status.Message != "because" {
		t.Errorf("got reason %q, message %q", status.Reason, status.Message)
	}
	last := status.Conditions[len(status.Conditions)-1]
	if last.Type != corev1.DisruptionTarget || last.Status != corev1.ConditionTrue || last.Reason != "Terminated" {
		t.Errorf("got %+v", last)
	}
}

func TestStopGraceIsThePods(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	pod := e.pod("Never", "trap '' TERM; touch c0; while :; do sleep 0.01; done")
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	r := e.start(pod)
	e.untilFile("c0")
	begin := time.Now()
	e.Stop(pod.UID, pods.Stop{})
	if status := r.end(); status.ContainerStatuses[0].State.Terminated.Signal != 9 || time.Since(begin) < time.Second {
		t.Errorf("got %s after %v", describe(r.all()), time.Since(begin))
	}
}

func TestStopDuringInit(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	pod := e.pod("OnFailure", "touch main")
	pod.Spec.InitContainers = shells("i", []string{"trap 'exit 0' TERM; touch init; while :; do sleep 0.01; done"})
	r := e.start(pod)
	e.untilFile("init")
	e.Stop(pod.UID, pods.Stop{Reason: "Why"})
	// The init container has succeeded, but the others must not be started any more.
	if got := describe([]corev1.PodStatus{r.end()}); got != "Failed i0=Completed 0 c0=PodInitializing" {
		t.Errorf("got %s", got)
	}
}

// A Pod that had done its work when it was stopped must not be done again.
func TestStopAfterTheEndChangesNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	pod := e.pod("Never", "true")
	r := &run{t: t, changed: make(chan struct{}, 1)}
	err := e.Start(pod, func(s corev1.PodStatus) {
		if s.ContainerStatuses[0].State.Terminated != nil {
			e.Stop(pod.UID, pods.Stop{Reason: "Late", Disruption: true})
		}
		r.update(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	if status := r.end(); status.Phase != corev1.PodSucceeded || status.Reason != "" || len(status.Conditions) != 4 {
		t.Errorf("got %+v", status)
	}
}

func TestStopAtAnyMoment(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for i := range 60 {
		pod := e.pod("OnFailure", "exit 1", "true")
		r := e.start(pod)
		time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		e.Stop(pod.UID, pods.Stop{Grace: new(time.Duration), Reason: "Why"})
		if status := r.end(); status.Phase != corev1.PodFailed || status.Reason != "Why" {
			t.Fatalf("got %s", describe(r.all()))
		}
		eventually(t, "it is forgotten", func() bool { return len(e.Running()) == 0 })
	}
}

func withClock(clk clock.WithDelayedExecution) func(*pods.Config) {
	return func(cfg *pods.Config) { cfg.Clock = clk }
}

func TestActiveDeadline(t *testing.T) {
	t.Parallel()
	clk := clocktesting.NewFakeClock(time.Now())
	e := newEnv(t, withClock(clk))
	pod := e.pod("Never", "sleep 1000")
	pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](600)
	r := e.start(pod)
	r.until("running", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodRunning })
	clk.Step(600*time.Second - 1)
	clk.Step(1)
	status := r.end()
	if status.Phase != corev1.PodFailed || status.Reason != "DeadlineExceeded" {
		t.Errorf("got %s, %s", status.Phase, status.Reason)
	}
	if ended := status.ContainerStatuses[0].State.Terminated; ended.ExitCode != 143 {
		t.Errorf("got %+v", ended)
	}
}

// The kubelet's sequence: at once, then after 10 s, 20 s, 40 s …
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	clk := clocktesting.NewFakeClock(time.Now())
	e := newEnv(t, withClock(clk))
	pod := e.pod("OnFailure", "echo >>runs; exit 3")
	r := e.start(pod)
	crashed := func(restarts int32) corev1.PodStatus {
		t.Helper()
		status := r.until("CrashLoopBackOff", func(s corev1.PodStatus) bool {
			c := s.ContainerStatuses[0]
			return c.RestartCount == restarts && c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff"
		})
		eventually(t, "the timer", clk.HasWaiters)
		return status
	}
	for i, delay := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		status := crashed(int32(i) + 1)
		if last := status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 3 {
			t.Errorf("got last state %+v", last)
		}
		if status.Phase != corev1.PodRunning || status.ContainerStatuses[0].Ready {
			t.Errorf("got phase %s", status.Phase)
		}
		clk.Step(delay*time.Second - 1)
		if runs, err := os.ReadFile(filepath.Join(e.dir, "runs")); err != nil || len(runs) != i+2 {
			t.Fatalf("after %d restarts: %d runs, %v", i+1, len(runs), err)
		}
		clk.Step(1)
	}
	crashed(8)
	e.Stop(pod.UID, pods.Stop{Reason: "Why"})
	// What shows in the end is how the container really ended.
	if got := describe([]corev1.PodStatus{r.end()}); got != "Failed c0=Error 3 (8 restarts)" {
		t.Errorf("got %s", got)
	}
	logs, err := os.ReadDir(filepath.Join(e.dir, "logs", string(pod.UID)))
	if err == nil && len(logs) > 2 {
		t.Errorf("logs of more than two runs are kept: %v", logs)
	}
}

func TestOldLogsAreRemoved(t *testing.T) {
	t.Parallel()
	clk := clocktesting.NewFakeClock(time.Now())
	e := newEnv(t, withClock(clk))
	pod := e.pod("OnFailure", "echo >>runs; echo out; [ $(wc -l <runs) -ge 5 ]")
	r := e.start(pod)
	for restarts := int32(1); restarts < 4; restarts++ {
		r.until("back-off", func(s corev1.PodStatus) bool {
			return s.ContainerStatuses[0].RestartCount == restarts && s.ContainerStatuses[0].State.Waiting != nil
		})
		eventually(t, "the timer", clk.HasWaiters)
		clk.Step(10 * time.Minute)
	}
	r.end()
	var names []string
	entries, err := os.ReadDir(filepath.Join(e.dir, "logs", t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if len(names) != 2 || names[0] != "c0-3" || names[1] != "c0-4" {
		t.Errorf("got %v", names)
	}
}
