package jobs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

func TestMain(m *testing.M) {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	if dir := os.Getenv(claimDirVar); dir != "" {
		runClaimsUntilKilled(dir)
	}
	if dir := os.Getenv(claimLoopVar); dir != "" {
		runShortClaimsUntilKilled(dir)
	}
	if dir := os.Getenv(crashDirVar); dir != "" {
		createUntilKilled(dir)
	}
	if dir := os.Getenv(fullDirVar); dir != "" {
		createOnFullDisk(dir)
	}
	if dir := os.Getenv(sleepDirVar); dir != "" {
		sleepUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// scriptedRunner is a PodRunner whose Pods end when the test says so.
type scriptedRunner struct {
	mu      sync.Mutex
	started []*corev1.Pod // in the order of Start
	watch   map[types.UID]func(corev1.PodStatus)
	stopped map[types.UID]pods.Stop
	record  func(pod *corev1.Pod, container string, pid int, startID string)
	// onStart, if set, is called with each Pod that is started.
	onStart func(s *scriptedRunner, pod *corev1.Pod)
	// ignoreStop keeps Pods running when they are stopped.
	ignoreStop bool
}

func newScriptedRunner() *scriptedRunner {
	s := &scriptedRunner{watch: map[types.UID]func(corev1.PodStatus){}, stopped: map[types.UID]pods.Stop{}}
	return s
}

func (s *scriptedRunner) Start(pod *corev1.Pod, update func(corev1.PodStatus)) error {
	s.mu.Lock()
	s.started = append(s.started, pod)
	s.watch[pod.UID] = update
	s.mu.Unlock()
	if pod.Spec.Containers[0].Name == "unrunnable" {
		return errors.New("cannot be run")
	}
	s.record(pod, "main", 4711, string(pod.UID))
	update(runningStatus(0))
	if s.onStart != nil {
		s.onStart(s, pod)
	}
	return nil
}

func (s *scriptedRunner) Stop(uid types.UID, stop pods.Stop) bool {
	s.mu.Lock()
	s.stopped[uid] = stop
	ignore := s.ignoreStop
	s.mu.Unlock()
	if !ignore {
		status := endedStatus(143)
		status.Reason, status.Message = stop.Reason, stop.Message
		if stop.Disruption {
			status.Conditions = append(status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: stop.Reason, Message: stop.Message,
			})
		}
		s.status(uid, status)
	}
	return true
}

// end ends a Pod with an exit code.
func (s *scriptedRunner) end(uid types.UID, exitCode int32) { s.status(uid, endedStatus(exitCode)) }

func (s *scriptedRunner) status(uid types.UID, status corev1.PodStatus) {
	s.mu.Lock()
	update := s.watch[uid]
	s.mu.Unlock()
	update(status)
}

func (s *scriptedRunner) startedPods() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.started)
}

func (s *scriptedRunner) stopOf(uid types.UID) (pods.Stop, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop, ok := s.stopped[uid]
	return stop, ok
}

func runningStatus(restarts int32) corev1.PodStatus {
	return corev1.PodStatus{
		Phase:      corev1.PodRunning,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Ready: true, RestartCount: restarts,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}},
	}
}

func endedStatus(exitCode int32) corev1.PodStatus {
	phase := corev1.PodSucceeded
	if exitCode != 0 {
		phase = corev1.PodFailed
	}
	return corev1.PodStatus{
		Phase:      phase,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "main",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: exitCode}}}},
	}
}

// env is a Controller under test with what it needs.
type env struct {
	*Controller
	t      *testing.T
	dir    string
	runner *scriptedRunner
	clock  *testclock.FakeClock
	log    *logBuffer

	mu      sync.Mutex
	changes map[types.NamespacedName]int
	removed []string
	killed  []string
}

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// open starts a Controller on a new folder that is drained at the end of the test.
func open(t *testing.T, runner *scriptedRunner) *env {
	t.Helper()
	return reopen(t, t.TempDir(), runner, testStart)
}

func reopen(t *testing.T, dir string, runner *scriptedRunner, now time.Time) *env {
	t.Helper()
	e := &env{t: t, dir: dir, runner: runner, clock: testclock.NewFakeClock(now), log: &logBuffer{},
		changes: map[types.NamespacedName]int{}}
	c, err := Open(t.Context(), Config{
		Dir: dir, Clock: e.clock,
		Log: slog.New(slog.NewTextHandler(e.log, nil)),
		OnChange: func(key types.NamespacedName) {
			e.mu.Lock()
			e.changes[key]++
			e.mu.Unlock()
		},
		OnRemove: func(job *batchv1.Job) {
			e.mu.Lock()
			e.removed = append(e.removed, job.Name)
			e.mu.Unlock()
		},
		KillLeftovers: func(_ context.Context, labels []string, _ []process.Recorded) error {
			e.killed = append(e.killed, labels...)
			return nil
		},
	})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	e.Controller = c
	runner.record = c.RecordStart
	c.Start(runner)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		runner.mu.Lock()
		runner.ignoreStop = false
		var running []types.UID
		for uid := range runner.stopped {
			running = append(running, uid)
		}
		runner.mu.Unlock()
		for _, uid := range running {
			runner.end(uid, 143)
		}
		_ = c.Drain(ctx)
	})
	return e
}

// crash ends the Controller as kill -9 does: from now on it writes and starts nothing.
func (e *env) crash() {
	e.draining.Store(true)
	for _, r := range e.index.all() {
		r.mu.Lock()
		r.removed, r.gone = true, true
		for range r.pods {
			if r.timer != nil {
				r.timer.Stop()
			}
		}
		running := 0
		for _, p := range r.pods {
			if p.shell.started && !p.ended() {
				running++
			}
		}
		r.pods = nil
		r.mu.Unlock()
		e.pods.Add(-running)
	}
	e.queue.close()
	e.workers.Wait()
	close(e.drained)
}

func (e *env) create(job *batchv1.Job) *batchv1.Job {
	e.t.Helper()
	created, err := e.Create(e.t.Context(), job, nil)
	if err != nil {
		e.t.Fatalf("Create: %v", err)
	}
	return created
}

// wait polls until the Job is as it should be.
func (e *env) wait(name, what string, ok func(scaledjob.Job) bool) scaledjob.Job {
	e.t.Helper()
	var job scaledjob.Job
	eventually(e.t, what, func() bool {
		var err error
		job, err = e.Get("default", name)
		return err == nil && ok(job)
	})
	return job
}

func (e *env) waitStarted(n int) []*corev1.Pod {
	e.t.Helper()
	eventually(e.t, "Pods started", func() bool { return len(e.runner.startedPods()) >= n })
	return e.runner.startedPods()
}

func (e *env) waitRunning(name string, n int32) scaledjob.Job {
	e.t.Helper()
	return e.wait(name, "Pods running", func(j scaledjob.Job) bool { return ptr.Deref(j.Status.Ready, 0) == n })
}

// waitTimer waits until the Controller has set a timer, so that stepping the clock is seen.
func (e *env) waitTimer() {
	e.t.Helper()
	eventually(e.t, "a timer", e.clock.HasWaiters)
}

// stepUntil lets time pass in steps until something has happened.
func (e *env) stepUntil(step time.Duration, what string, ok func() bool) {
	e.t.Helper()
	eventually(e.t, what, func() bool {
		e.clock.Step(step)
		return ok()
	})
}

func (e *env) waitCondition(name string, kind batchv1.JobConditionType) scaledjob.Job {
	e.t.Helper()
	return e.wait(name, string(kind), func(j scaledjob.Job) bool { return hasCondition(j, kind) })
}

func hasCondition(j scaledjob.Job, kind batchv1.JobConditionType) bool {
	c := findCondition(j.Status.Conditions, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// newJob is a Job of one container, changed as the test needs it.
func newJob(name string, change ...func(*batchv1.Job)) *batchv1.Job {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name,
			Labels: map[string]string{v1alpha1.LabelScaledJob: "sj"},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "test"}},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "main", Command: []string{"true"}}},
			},
		}},
	}
	for _, c := range change {
		c(job)
	}
	return job
}

var sjKey = types.NamespacedName{Namespace: "default", Name: "sj"}

// logBuffer collects what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
