package jobs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

func TestJobSucceeds(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	created := e.create(newJob("", func(j *batchv1.Job) { j.GenerateName = "sj-" }))
	if len(created.Name) != len("sj-")+suffixLength || !strings.HasPrefix(created.Name, "sj-") {
		t.Errorf("name %q is not sj- and five characters", created.Name)
	}
	if created.UID == "" || created.Generation != 1 || created.ResourceVersion == "" || created.CreationTimestamp.IsZero() {
		t.Errorf("metadata is not filled in: %+v", created.ObjectMeta)
	}
	jobs, err := e.List(t.Context(), sjKey)
	if err != nil || len(jobs) != 1 || len(jobs[0].Pods) != 1 || jobs[0].Status.Active != 1 {
		t.Fatalf("List right after Create = %+v, %v; want the Job with an active Pod", jobs, err)
	}
	pod := e.waitStarted(1)[0]
	if !strings.HasPrefix(pod.Name, created.Name+"-") || len(pod.Name) != len(created.Name)+1+suffixLength {
		t.Errorf("Pod's name %q does not follow from the Job's %q", pod.Name, created.Name)
	}
	for key, want := range map[string]string{
		"app": "test", "job-name": created.Name, batchv1.JobNameLabel: created.Name,
		"controller-uid": string(created.UID), batchv1.ControllerUidLabel: string(created.UID),
	} {
		if pod.Labels[key] != want {
			t.Errorf("Pod's label %s = %q, want %q", key, pod.Labels[key], want)
		}
	}
	if owner := metav1.GetControllerOf(pod); owner == nil || owner.UID != created.UID || owner.Kind != "Job" {
		t.Errorf("Pod's controller = %+v, want the Job", owner)
	}
	e.waitRunning(created.Name, 1)
	e.clock.Step(3 * time.Second)
	e.runner.end(pod.UID, 0)
	done := e.waitCondition(created.Name, batchv1.JobComplete)
	if !hasCondition(done, batchv1.JobSuccessCriteriaMet) || done.Status.Succeeded != 1 || done.Status.Active != 0 ||
		done.Status.Failed != 0 || ptr.Deref(done.Status.Terminating, -1) != 0 || ptr.Deref(done.Status.Ready, -1) != 0 {
		t.Errorf("status = %+v", done.Status)
	}
	if got := done.Status.CompletionTime.Sub(done.Status.StartTime.Time); got != 3*time.Second {
		t.Errorf("ran for %v, want 3s", got)
	}
	if done.Status.Conditions[1].Reason != batchv1.JobReasonCompletionsReached {
		t.Errorf("conditions = %+v", done.Status.Conditions)
	}
	if done.ResourceVersion == created.ResourceVersion || created.Status.Succeeded != 0 {
		t.Error("the Job that Create returned has changed")
	}
	eventually(t, "OnChange", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.changes[sjKey] >= 2
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	long := strings.Repeat("a", 80)
	created := e.create(newJob("", func(j *batchv1.Job) { j.GenerateName = long }))
	if len(created.Name) != 63 {
		t.Errorf("generated name has %d characters, want 63", len(created.Name))
	}
	if pod := e.waitStarted(1)[0]; len(pod.Name) != 63 {
		t.Errorf("Pod's name has %d characters, want 63", len(pod.Name))
	}
	_, err := e.Create(t.Context(), newJob(created.Name), nil)
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("Create of a name that exists: %v, want AlreadyExists", err)
	}
	// Those of delivery by claim: the ScaledJob's, shortened, then the item's and the attempt's.
	for i, name := range []string{
		"work-00000000000000af-1", "a.b-00000000000000af-1", strings.Repeat("a.", 22) + "00000000000000af-10",
		strings.Repeat("a", 39) + "-00000000000000af-100000",
	} {
		created := e.create(newJob(name, claimed("u")))
		pod := e.waitStarted(i + 2)[i+1]
		if created.Name != name || !strings.HasPrefix(pod.Name, generatedBase(name+"-")) ||
			len(validateName(nil, pod.Name)) > 0 {
			t.Errorf("%q became %q with the Pod %q", name, created.Name, pod.Name)
		}
	}
	for _, name := range []string{"../x", "UP", "a/b", ".", strings.Repeat("a", 64), "a\x00b"} {
		if _, err := e.Create(t.Context(), newJob(name), nil); !apierrors.IsInvalid(err) {
			t.Errorf("Create of %q: %v, want Invalid", name, err)
		}
	}
	if _, err := e.Create(t.Context(), newJob("x", func(j *batchv1.Job) { j.Namespace = ".." }), nil); !apierrors.IsInvalid(err) {
		t.Errorf("Create in namespace ..: %v, want Invalid", err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](3) }))
	for i, delay := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		pod := e.waitStarted(i + 1)[i]
		e.waitRunning("a", 1)
		e.runner.end(pod.UID, 1)
		e.wait("a", "the failure counted", func(j scaledjob.Job) bool { return int(j.Status.Failed) == i+1 })
		e.waitTimer()
		e.clock.Step(delay - time.Millisecond)
		e.waitTimer()
		if n := len(e.runner.startedPods()); n != i+1 {
			t.Fatalf("%d Pods started before the delay of %v was over, want %d", n, delay, i+1)
		}
		e.clock.Step(time.Millisecond)
	}
	e.runner.end(e.waitStarted(4)[3].UID, 1)
	done := e.waitCondition("a", batchv1.JobFailed)
	c := findCondition(done.Status.Conditions, batchv1.JobFailed)
	if c.Reason != batchv1.JobReasonBackoffLimitExceeded || c.Message != messageBackoffLimitExceeded ||
		done.Status.Failed != 4 || done.Status.CompletionTime != nil {
		t.Errorf("status = %+v", done.Status)
	}
}

func TestDeadlineStopsPods(t *testing.T) {
	t.Parallel()
	runner := newScriptedRunner()
	runner.ignoreStop = true
	e := open(t, runner)
	e.create(newJob("a", func(j *batchv1.Job) {
		j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
	}))
	pod := e.waitStarted(1)[0]
	e.waitRunning("a", 1)
	e.stepUntil(time.Minute, "the Pod is stopped", func() bool { _, ok := runner.stopOf(pod.UID); return ok })
	target := e.waitCondition("a", batchv1.JobFailureTarget)
	if hasCondition(target, batchv1.JobFailed) || ptr.Deref(target.Status.Terminating, 0) != 1 {
		t.Errorf("the Job has failed before its Pod has ended: %+v", target.Status)
	}
	if stop, ok := e.runner.stopOf(pod.UID); !ok || stop.Reason != batchv1.JobReasonDeadlineExceeded || stop.Disruption {
		t.Errorf("stopped = %v with %+v", ok, stop)
	}
	e.runner.end(pod.UID, 143)
	done := e.waitCondition("a", batchv1.JobFailed)
	if c := findCondition(done.Status.Conditions, batchv1.JobFailed); c.Reason != batchv1.JobReasonDeadlineExceeded ||
		done.Status.Failed != 1 {
		t.Errorf("status = %+v", done.Status)
	}
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }))
	e.waitStarted(1)
	job := e.waitRunning("a", 1).Job
	suspend := func(on bool) {
		t.Helper()
		update := job.DeepCopy()
		update.Spec.Suspend = &on
		var err error
		if job, err = e.Update(t.Context(), update); err != nil {
			t.Fatalf("Update: %v", err)
		}
	}
	suspend(true)
	if job.Generation != 2 {
		t.Errorf("generation = %d, want 2", job.Generation)
	}
	suspended := e.wait("a", "suspended", func(j scaledjob.Job) bool {
		return hasCondition(j, batchv1.JobSuspended) && ptr.Deref(j.Status.Terminating, 1) == 0
	})
	if suspended.Status.StartTime != nil || suspended.Status.Failed != 0 || suspended.Status.Active != 0 {
		t.Errorf("status = %+v", suspended.Status)
	}
	e.clock.Step(time.Hour) // the deadline does not count
	job = suspended.Job
	suspend(false)
	pod := e.waitStarted(2)[1]
	resumed := e.waitRunning("a", 1)
	if c := findCondition(resumed.Status.Conditions, batchv1.JobSuspended); c.Status != corev1.ConditionFalse ||
		!resumed.Status.StartTime.Time.Equal(e.clock.Now()) {
		t.Errorf("status = %+v", resumed.Status)
	}
	e.runner.end(pod.UID, 0)
	if done := e.waitCondition("a", batchv1.JobComplete); done.Status.Failed != 0 {
		t.Errorf("status = %+v", done.Status)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	for _, propagation := range []metav1.DeletionPropagation{
		metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, "",
	} {
		t.Run("propagation "+string(propagation), func(t *testing.T) {
			t.Parallel()
			runner := newScriptedRunner()
			runner.ignoreStop = true
			e := open(t, runner)
			job := e.create(newJob("a"))
			pod := e.waitStarted(1)[0]
			if err := e.Delete(t.Context(), "default", "a", "other", propagation); err != nil {
				t.Errorf("Delete of another UID: %v", err)
			}
			e.waitRunning("a", 1)
			if err := e.Delete(t.Context(), "default", "a", job.UID, propagation); err != nil {
				t.Fatalf("Delete: %v", err)
			}
			eventually(t, "the Pod is stopped", func() bool { _, ok := runner.stopOf(pod.UID); return ok })
			if len(e.Active()) != 1 {
				t.Error("a deleted Job whose Pod still runs is not active")
			}
			left, err := e.Get("default", "a")
			if foreground := propagation == metav1.DeletePropagationForeground; foreground != (err == nil) {
				t.Fatalf("Get while the Pod ends = %v, %v", left.Job, err)
			} else if !foreground {
				e.create(newJob("a")) // the name is free at once
				e.waitStarted(2)
			}
			runner.end(pod.UID, 143)
			eventually(t, "the old Job's folder is removed", func() bool {
				left, err := os.ReadDir(filepath.Join(e.dir, removedDir))
				return (err != nil || len(left) == 0) && len(e.Active()) <= 1
			})
			if propagation == metav1.DeletePropagationForeground {
				eventually(t, "the Job is gone", func() bool {
					_, err := e.Get("default", "a")
					return apierrors.IsNotFound(err)
				})
				if _, err := os.Stat(filepath.Join(e.dir, jobsDir, "default", "a")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the Job's folder: %v", err)
				}
			}
			if err := e.Delete(t.Context(), "default", "nobody", "", propagation); err != nil {
				t.Errorf("Delete of no Job: %v", err)
			}
		})
	}
}

func TestFinalizerKeepsJob(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	job := e.create(newJob("a", func(j *batchv1.Job) { j.Finalizers = []string{"offboard.dev/settle"} }))
	e.waitStarted(1)
	e.waitRunning("a", 1)
	if err := e.Delete(t.Context(), "default", "a", job.UID, metav1.DeletePropagationBackground); err != nil {
		t.Fatal(err)
	}
	left := e.wait("a", "the Pod is stopped", func(j scaledjob.Job) bool {
		return j.DeletionTimestamp != nil && j.Status.Failed == 1
	})
	e.clock.Step(time.Hour)
	if n := len(e.runner.startedPods()); n != 1 {
		t.Errorf("%d Pods started, want none after the deletion", n-1)
	}
	update := left.DeepCopy()
	update.Finalizers = append(update.Finalizers, "offboard.dev/another")
	if _, err := e.Update(t.Context(), update); !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
		t.Errorf("adding a finalizer to a deleted Job: %v", err)
	}
	eventually(t, "the finalizer is removed", func() bool {
		current, err := e.Get("default", "a")
		if err != nil {
			t.Fatal(err)
		}
		update := current.DeepCopy()
		update.Finalizers = nil
		_, err = e.Update(t.Context(), update)
		return err == nil
	})
	if _, err := e.Get("default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("Get after the last finalizer is gone: %v", err)
	}
}

func TestUpdateRefuses(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a"))
	e.waitStarted(1)
	job := e.waitRunning("a", 1)
	template := job.DeepCopy()
	template.Spec.Template.Spec.Containers[0].Command = []string{"false"}
	if _, err := e.Update(t.Context(), template); !apierrors.IsInvalid(err) {
		t.Errorf("changed template: %v, want Invalid", err)
	}
	old := job.DeepCopy()
	old.ResourceVersion = "1x"
	if _, err := e.Update(t.Context(), old); !apierrors.IsConflict(err) {
		t.Errorf("old resource version: %v, want Conflict", err)
	}
	if _, err := e.Update(t.Context(), newJob("b")); !apierrors.IsNotFound(err) {
		t.Errorf("no Job: %v, want NotFound", err)
	}
}

func TestTTL(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To[int32](30) }))
	e.runner.end(e.waitStarted(1)[0].UID, 0)
	e.waitCondition("a", batchv1.JobComplete)
	e.waitTimer()
	e.clock.Step(29 * time.Second)
	if _, err := e.Get("default", "a"); err != nil {
		t.Errorf("Get before its time: %v", err)
	}
	e.waitTimer()
	e.clock.Step(time.Second)
	eventually(t, "removed", func() bool { _, err := e.Get("default", "a"); return err != nil })
	eventually(t, "OnRemove", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return slices.Equal(e.removed, []string{"a"})
	})
}

func TestDeleteOwned(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	owned := func(j *batchv1.Job) {
		j.OwnerReferences = []metav1.OwnerReference{{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledJob", Name: "sj", UID: "u1"}}
	}
	e.create(newJob("a", owned))
	e.create(newJob("b", owned))
	e.create(newJob("c"))
	e.waitStarted(3)
	if err := e.DeleteOwned(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if left := e.ListAll(""); len(left) != 1 || left[0].Name != "c" {
		t.Errorf("left = %+v, want c", left)
	}
	if left := e.ListAll("other"); len(left) != 0 {
		t.Errorf("in another namespace: %+v", left)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	runner := newScriptedRunner()
	e := open(t, runner)
	e.create(newJob("a"))
	e.create(newJob("b", func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](2) }))
	pods := e.waitStarted(2)
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error)
	go func() { drained <- e.Drain(ctx) }()
	eventually(t, "Create is refused", func() bool {
		_, err := e.Create(t.Context(), newJob("late"+generateName("")), nil)
		return apierrors.IsServiceUnavailable(err)
	})
	if len(e.Active()) < 2 {
		t.Errorf("active = %+v, want both", e.Active())
	}
	byJob := map[string]*corev1.Pod{}
	for _, p := range pods {
		byJob[p.Labels["job-name"]] = p
	}
	runner.end(byJob["a"].UID, 0)
	e.waitCondition("a", batchv1.JobComplete)
	cancel()
	if err := <-drained; err != nil {
		t.Fatalf("Drain: %v", err)
	}
	if len(e.Active()) != 0 {
		t.Errorf("active after Drain = %+v", e.Active())
	}
	b, err := e.Get("default", "b")
	if err != nil || Finished(b.Job) != nil || b.Status.Failed != 1 || len(b.Pods) != 1 {
		t.Fatalf("stopped Job = %+v, %v", b, err)
	}
	if _, ok := podCondition(b.Pods[0], corev1.DisruptionTarget); !ok {
		t.Errorf("conditions = %+v, want DisruptionTarget", b.Pods[0].Status.Conditions)
	}

	next := newScriptedRunner()
	next.onStart = func(s *scriptedRunner, pod *corev1.Pod) { go s.end(pod.UID, 0) }
	e2 := reopen(t, e.dir, next, e.clock.Now().Add(time.Minute))
	e2.waitCondition("b", batchv1.JobComplete)
}

func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) (corev1.PodCondition, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c, true
		}
	}
	return corev1.PodCondition{}, false
}

func TestManyPodsAreDropped(t *testing.T) {
	t.Parallel()
	var e *env
	runner := newScriptedRunner()
	runner.onStart = func(s *scriptedRunner, pod *corev1.Pod) {
		if err := os.WriteFile(e.LogPath(pod, "main", 0), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		go s.end(pod.UID, 0)
	}
	e = open(t, runner)
	const n = 4 * keptPods
	e.create(newJob("a", func(j *batchv1.Job) {
		j.Spec.Completions, j.Spec.Parallelism = ptr.To[int32](n), ptr.To[int32](1)
	}))
	done := e.waitCondition("a", batchv1.JobComplete)
	if done.Status.Succeeded != n || len(done.Pods) > keptPods+1 {
		t.Errorf("succeeded = %d with %d Pods kept", done.Status.Succeeded, len(done.Pods))
	}
	eventually(t, "the files of dropped Pods are removed", func() bool {
		files, err := os.ReadDir(filepath.Join(e.dir, jobsDir, "default", "a"))
		return err == nil && len(files) == len(done.Pods)+1
	})
	info, err := os.Stat(filepath.Join(e.dir, jobsDir, "default", "a", stateFile))
	if err != nil || info.Size() > 2*compactAbove {
		t.Errorf("state file: %v, %v", info.Size(), err)
	}
	e.crash()
	again := reopen(t, e.dir, newScriptedRunner(), testStart)
	if got, err := again.Get("default", "a"); err != nil || len(got.Pods) != len(done.Pods) ||
		got.Status.Succeeded != n {
		t.Errorf("after loading: %d Pods, %v", len(got.Pods), err)
	}
}
