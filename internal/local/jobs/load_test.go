package jobs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

func TestFinishedJobsStay(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	created := e.create(newJob("a", func(j *batchv1.Job) {
		j.Annotations = map[string]string{"k": "v"}
		j.Finalizers = []string{"offboard.dev/settle"}
	}))
	pod := e.waitStarted(1)[0]
	if err := os.WriteFile(e.LogPath(pod, "main", 0), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.runner.end(pod.UID, 0)
	done := e.waitCondition("a", batchv1.JobComplete)
	e.crash()

	again := reopen(t, e.dir, newScriptedRunner(), testStart.Add(time.Hour))
	jobs, err := again.List(t.Context(), sjKey)
	if err != nil || len(jobs) != 1 {
		t.Fatalf("List = %+v, %v", jobs, err)
	}
	got := jobs[0]
	if got.UID != created.UID || got.Annotations["k"] != "v" || len(got.Finalizers) != 1 ||
		!sameStatus(&got.Status, &done.Status) || got.ResourceVersion != done.ResourceVersion ||
		got.Pods[0].Name != pod.Name || got.Pods[0].Status.Phase != corev1.PodSucceeded {
		t.Errorf("loaded %+v with %+v", got.Job, got.Pods)
	}
	if data, err := os.ReadFile(again.LogPath(got.Pods[0], "main", 0)); err != nil || string(data) != "hello" {
		t.Errorf("log = %q, %v", data, err)
	}
	if len(again.killed) != 0 {
		t.Errorf("killed %v though nothing ran", again.killed)
	}
	if next := again.create(newJob("b")); next.ResourceVersion == done.ResourceVersion {
		t.Errorf("resource version %s was given twice", next.ResourceVersion)
	}
}

func TestInterruptedPodsFailAndAreRetried(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](1) }))
	e.create(newJob("strict", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](0) }))
	e.create(newJob("forgiving", func(j *batchv1.Job) {
		j.Spec.BackoffLimit = ptr.To[int32](0)
		failurePolicy(onCondition(batchv1.PodFailurePolicyActionIgnore, corev1.DisruptionTarget))(j)
	}))
	pods := e.waitStarted(3)
	for _, name := range []string{"a", "strict", "forgiving"} {
		e.waitRunning(name, 1)
	}
	e.crash()

	runner := newScriptedRunner()
	again := reopen(t, e.dir, runner, testStart)
	for _, p := range pods {
		if !slices.Contains(again.killed, string(p.UID)) {
			t.Errorf("the leftovers of %s were not ended", p.Name)
		}
	}
	a := again.wait("a", "the failure counted", func(j scaledjob.Job) bool { return j.Status.Failed == 1 })
	pod := a.Pods[0]
	c, ok := podCondition(pod, corev1.DisruptionTarget)
	if !ok || c.Reason != reasonInterrupted || pod.Status.Reason != reasonInterrupted ||
		pod.Status.Phase != corev1.PodFailed || pod.Status.ContainerStatuses[0].State.Terminated == nil {
		t.Errorf("interrupted Pod's status = %+v", pod.Status)
	}
	strict := again.waitCondition("strict", batchv1.JobFailed)
	if strict.Status.Failed != 1 {
		t.Errorf("status = %+v", strict.Status)
	}
	again.stepUntil(10*time.Second, "the retries", func() bool { return len(runner.startedPods()) == 2 })
	for _, p := range again.waitStarted(2) {
		runner.end(p.UID, 0)
	}
	again.waitCondition("a", batchv1.JobComplete)
	if j := again.waitCondition("forgiving", batchv1.JobComplete); j.Status.Failed != 0 {
		t.Errorf("status = %+v", j.Status)
	}
}

func TestDeletedJobsDoNotComeBack(t *testing.T) {
	t.Parallel()
	runner := newScriptedRunner()
	runner.ignoreStop = true
	e := open(t, runner)
	e.create(newJob("a"))
	pod := e.waitStarted(1)[0]
	e.waitRunning("a", 1)
	if err := e.DeleteOwned(t.Context(), "nobody"); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(t.Context(), "default", "a", "", ""); err != nil {
		t.Fatal(err)
	}
	e.crash()
	e.departing.Clear()
	again := reopen(t, e.dir, newScriptedRunner(), testStart)
	if len(again.ListAll("")) != 0 || !slices.Equal(again.killed, []string{string(pod.UID)}) {
		t.Errorf("Jobs = %v, killed = %v", again.ListAll(""), again.killed)
	}
	if left, err := os.ReadDir(filepath.Join(e.dir, removedDir)); err != nil || len(left) != 0 {
		t.Errorf("left in %s: %v, %v", removedDir, left, err)
	}
}

func TestBrokenStateIsMovedAside(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	bad := map[string]func(path string) error{
		"garbage":   func(path string) error { return os.WriteFile(path, []byte("garbage\n"), 0o600) },
		"empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"missing":   os.Remove,
		"folder":    func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"version":   rewrite(`"version":1`, `"version":2`),
		"renamed":   rewrite(`"name":"renamed"`, `"name":"other"`),
		"traversal": rewrite(`"namespace":"default"`, `"namespace":"../.."`),
		"uid":       rewrite(`"uid":"`, `"uid":"../`),
		"container": rewrite(`"name":"main"`, `"name":"../../x"`),
		"pod":       rewrite(`"name":"pod-`, `"name":"../`),
		"types":     rewrite(`"parallelism":1`, `"parallelism":"1"`),
	}
	e.create(newJob("good"))
	e.create(newJob("torn"))
	for name := range bad {
		e.create(newJob(name))
	}
	e.waitStarted(len(bad) + 2)
	for _, j := range e.ListAll("") {
		e.waitRunning(j.Name, 1)
	}
	e.crash()
	for name, damage := range bad {
		if err := damage(filepath.Join(e.dir, jobsDir, "default", name, stateFile)); err != nil {
			t.Fatal(err)
		}
	}
	appendTo(t, filepath.Join(e.dir, jobsDir, "default", "torn", stateFile), `{"revision":9999,"sta`)
	for _, stray := range []string{"UPPER", "_spare-7", "a b"} {
		if err := os.MkdirAll(filepath.Join(e.dir, jobsDir, "default", stray), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	again := reopen(t, e.dir, newScriptedRunner(), testStart)
	var names []string
	for _, j := range again.ListAll("") {
		names = append(names, j.Name)
	}
	if !slices.Equal(names, []string{"good", "torn"}) {
		t.Errorf("loaded %v", names)
	}
	log := again.log.String()
	for name := range bad {
		if !strings.Contains(log, "job="+name+" ") {
			t.Errorf("no warning about %s", name)
		}
		if _, err := os.Stat(filepath.Join(e.dir, brokenDir, "default_"+name)); err != nil {
			t.Errorf("%s was not moved aside: %v", name, err)
		}
	}
	again.wait("torn", "the failure counted", func(j scaledjob.Job) bool { return j.Status.Failed == 1 })
	again.crash()
	// A second broken Job of a name does not replace the first.
	if err := os.Mkdir(filepath.Join(e.dir, jobsDir, "default", "garbage"), 0o700); err != nil {
		t.Fatal(err)
	}
	third := reopen(t, e.dir, newScriptedRunner(), testStart)
	if _, err := os.Stat(filepath.Join(e.dir, brokenDir, "default_garbage_1")); err != nil {
		t.Error(err)
	}
	if j, err := third.Get("default", "torn"); err != nil || j.Status.Failed != 1 {
		t.Errorf("after a write to a torn file: %+v, %v", j, err)
	}
}

func rewrite(old, with string) func(string) error {
	return func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(data), old) {
			return errors.New("the state file does not hold " + old)
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, with)), 0o600)
	}
}

// TestUnwritableState moves a Job's folder away, so that nothing can be written, and back.
func TestUnwritableState(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](0) }))
	pod := e.waitStarted(1)[0]
	running := e.waitRunning("a", 1)
	dir := filepath.Join(e.dir, jobsDir, "default", "a")
	if err := os.Rename(dir, dir+"_away"); err != nil {
		t.Fatal(err)
	}
	update := running.DeepCopy()
	update.Annotations = map[string]string{"k": "v"}
	if _, err := e.Update(t.Context(), update); err == nil {
		t.Error("Update has returned without an error")
	}
	e.runner.end(pod.UID, 0)
	eventually(t, "the failure is logged", func() bool { return strings.Contains(e.log.String(), "cannot be written") })
	e.waitTimer()
	e.clock.Step(longestSaveRetry)
	if j, err := e.Get("default", "a"); err != nil || Finished(j.Job) != nil || j.Annotations["k"] != "" {
		t.Errorf("shown before it is on disk: %+v, %v", j, err)
	}
	if err := os.Rename(dir+"_away", dir); err != nil {
		t.Fatal(err)
	}
	e.stepUntil(longestSaveRetry, "the outcome is shown", func() bool {
		j, err := e.Get("default", "a")
		return err == nil && Finished(j.Job) != nil
	})
	if strings.Count(e.log.String(), "cannot be written") != 1 {
		t.Errorf("log = %s", e.log)
	}
}

func TestCreateFailsWithoutDisk(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	blocked := filepath.Join(e.dir, jobsDir, "blocked")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inBlocked := func(j *batchv1.Job) { j.Namespace = "blocked" }
	if _, err := e.Create(t.Context(), newJob("a", inBlocked), nil); err == nil {
		t.Fatal("Create has returned without an error")
	}
	if len(e.ListAll("")) != 0 || len(e.runner.startedPods()) != 0 {
		t.Error("a Job that was not created is there")
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	e.create(newJob("a", inBlocked))
	e.waitStarted(1)
}
