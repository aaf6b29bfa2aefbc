package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"go.uber.org/goleak"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneJobPerItem pushes items one by one, as fast as the controller notices, before any runner takes one.
func TestOneJobPerItem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for i := range 6 {
		w.edit(func() { w.queue++ })
		w.eventually("a Job for each item", func() bool { return w.created == i+1 })
	}
	for range 6 {
		w.run()
	}
	for range 6 {
		w.finish(batchv1.JobComplete, time.Now())
	}
	w.eventually("inactive", func() bool {
		return w.scaledJob.Status.Conditions.Get(v1alpha1.ConditionActive).Status == metav1.ConditionFalse && w.unfinished() == 0
	})
	w.look(func() {
		if w.created != 6 {
			t.Errorf("%d Jobs for 6 items", w.created)
		}
	})
}

func TestNeverAboveTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { *sj.Spec.MaxReplicaCount = 3 })
	w.edit(func() { w.queue = 10 })
	for served := range 10 {
		w.eventually("started", func() bool { return w.created > served })
		w.run()
		w.finish(batchv1.JobComplete, time.Now())
	}
	w.eventually("done", func() bool { return w.unfinished() == 0 && w.queue == 0 })
	w.look(func() {
		if w.created != 10 || w.most != 3 {
			t.Errorf("%d Jobs, at most %d at once; want 10 and 3", w.created, w.most)
		}
	})
}

// TestIgnoranceCreatesNothing makes the Jobs, then the queue unknown, while work waits.
func TestIgnoranceCreatesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })

	w.edit(func() { w.listErr = errors.New("list: no answer"); w.queue = 5 })
	w.eventually("Jobs unknown", func() bool { return w.ready().Reason == reasonJobsUnknown })
	w.edit(func() { w.listErr = nil; w.queueErr = errors.New("queue: no answer") })
	w.eventually("queue unknown", func() bool {
		return w.ready().Reason == reasonTriggerError && strings.Contains(w.ready().Message, "queue: no answer")
	})
	if w.controller.View(theKey).Queue != nil {
		t.Error("View tells a queue length that is not known")
	}
	w.look(func() {
		if w.created != 0 {
			t.Errorf("%d Jobs created from ignorance", w.created)
		}
	})
	w.edit(func() { w.queueErr = nil })
	w.eventually("recovered", func() bool { return w.created == 5 && w.ready().Status == metav1.ConditionTrue })
	w.look(func() {
		if failures := w.told(reasonScalerFailed); failures != 1 {
			t.Errorf("the outage was told %d times: %q", failures, w.events)
		}
	})
}

// TestUnknownTrigger has a trigger that only KEDA knows.
func TestUnknownTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.Triggers[0].Type = "kafka" })
	w.eventually("told", func() bool {
		return strings.Contains(w.ready().Message, "KEDA has trigger type kafka, but Offboard does not yet: it has ")
	})
	w.look(func() {
		if w.ready().Status != metav1.ConditionFalse {
			t.Errorf("got %v", w.ready())
		}
	})
}

// TestBrokenRunner runs Jobs that end without having taken anything: their successors wait for the polling interval.
func TestBrokenRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		one := int32(1)
		sj.Spec.PollingInterval = &one
	})
	begin := time.Now()
	w.edit(func() { w.queue = 3 })
	for round := range 3 {
		w.eventually("a round of Jobs", func() bool { return w.created == 3*(round+1) })
		if least := time.Duration(round) * time.Second; time.Since(begin) < least {
			t.Errorf("round %d began after %v, want at least %v", round, time.Since(begin), least)
		}
		w.edit(func() {
			for i, job := range w.jobs {
				if how, _ := Finished(job); how == "" {
					w.jobs[i] = ended(job, batchv1.JobFailed, time.Now())
				}
			}
		})
	}
}

// TestMinReplicaCount keeps a Job running without work, and replaces one that ends at once no more often than KEDA.
func TestMinReplicaCount(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		one := int32(1)
		sj.Spec.PollingInterval, sj.Spec.MinReplicaCount = &one, &one
	})
	for round := range 3 {
		w.eventually("a Job", func() bool { return w.created == round+1 })
		if least := time.Duration(round) * time.Second; time.Since(begin) < least {
			t.Errorf("Job %d was created after %v, want at least %v", round, time.Since(begin), least)
		}
		w.run()
		w.finish(batchv1.JobComplete, time.Now())
	}
	w.edit(func() { w.queue = 2 })
	w.eventually("Jobs for the work that waits, at once", func() bool { return w.unfinished() >= 2 })
}

func TestRollout(t *testing.T) {
	t.Parallel()
	for strategy, survive := range map[string]int{"": 4, v1alpha1.RolloutGradual: 4, v1alpha1.RolloutImmediate: 0} {
		t.Run("strategy "+strategy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.Rollout.Strategy = strategy })
			w.edit(func() { w.queue = 4 })
			w.eventually("started", func() bool { return w.created == 4 })
			for range 4 {
				w.run()
			}
			w.edit(func() { w.scaledJob.Generation = 2; w.queue = 1 })
			w.eventually("a Job of the new version", func() bool {
				return slices.ContainsFunc(w.jobs, func(job *batchv1.Job) bool {
					return job.Annotations[v1alpha1.AnnotationGeneration] == "2"
				})
			})
			w.look(func() {
				if old := w.unfinished() - (w.created - 4); old != survive {
					t.Errorf("%d Jobs of the old version are left, want %d", old, survive)
				}
			})
		})
	}
}

// A suspended Job never ends by itself: it must not keep the work from the Jobs of a manifest that suspends no more.
func TestRolloutReplacesSuspendedJobs(t *testing.T) {
	t.Parallel()
	suspended := true
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.JobTargetRef.Suspend = &suspended })
	w.edit(func() { w.queue = 2 })
	w.eventually("suspended Jobs", func() bool { return w.created == 2 })
	w.edit(func() { w.scaledJob.Generation, w.scaledJob.Spec.JobTargetRef.Suspend = 2, nil })
	w.eventually("Jobs of the new version instead", func() bool {
		return w.created == 4 && !slices.ContainsFunc(w.jobs, func(job *batchv1.Job) bool {
			return job.Annotations[v1alpha1.AnnotationGeneration] != "2"
		})
	})
}

func TestHistoryLimits(t *testing.T) {
	t.Parallel()
	two, one := int32(2), int32(1)
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.SuccessfulJobsHistoryLimit, sj.Spec.FailedJobsHistoryLimit = &two, &one
	})
	w.edit(func() { w.queue = 7 })
	w.eventually("started", func() bool { return w.created == 7 })
	for range 7 {
		w.run()
	}
	// The order of finishing is not that of creation, and failed Jobs have no completion time.
	base := time.Now().Add(-time.Hour)
	for _, end := range []struct {
		how    batchv1.JobConditionType
		minute time.Duration
	}{{"Failed", 9}, {"Complete", 8}, {"Complete", 2}, {"Failed", 1}, {"Complete", 7}, {"Failed", 3}} {
		w.finish(end.how, base.Add(end.minute*time.Minute))
	}
	w.eventually("trimmed", func() bool { return len(w.jobs) == 4 })
	var kept []string
	w.look(func() {
		for _, job := range w.jobs {
			kept = append(kept, strings.TrimPrefix(job.Name, "usertask-"))
		}
	})
	if want := []string{"00001", "00002", "00005", "00007"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
}

func TestCreateFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.edit(func() { w.createErr = errors.New("exceeded quota: pods=5"); w.queue = 2 })
	w.eventually("told", func() bool {
		return w.ready().Reason == reasonJobCreateFailed && strings.Contains(w.ready().Message, "exceeded quota: pods=5")
	})
	w.edit(func() { w.createErr = nil })
	w.eventually("recovered", func() bool { return w.created == 2 && w.ready().Status == metav1.ConditionTrue })
}

func TestFailureIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	var writes int
	w.edit(func() { w.createErr = errors.New("refused by policy"); w.queue = 2 })
	w.eventually("refused", func() bool { writes = w.writes; return w.ready().Status == metav1.ConditionFalse })
	w.mu.Lock()
	before := w.measured
	w.mu.Unlock()
	w.eventually("tried again and again", func() bool { return w.measured >= before+2 })
	w.mu.Lock()
	if w.ready().Status != metav1.ConditionFalse || w.writes > writes+1 {
		t.Errorf("status written %d times more, now %v", w.writes-writes, w.ready())
	}
	w.mu.Unlock()
	// That there is nothing to create for a while is no sign that it would work.
	w.edit(func() { w.scaledJob.Spec.MaxReplicaCount = ptr.To[int32](0); w.scaledJob.Generation++ })
	w.eventually("nothing to create", func() bool {
		view := w.controller.View(theKey)
		return view.Decision.Create == 0 && view.Queue != nil && *view.Queue == 2
	})
	// The next reconcile begins when that one has written its status.
	w.mu.Lock()
	before = w.measured
	w.mu.Unlock()
	w.edit(func() {})
	w.eventually("another look", func() bool { return w.measured > before })
	w.mu.Lock()
	if w.ready().Status != metav1.ConditionFalse {
		t.Errorf("with nothing to create: %v", w.ready())
	}
	w.mu.Unlock()
	w.edit(func() {
		w.scaledJob.Spec.MaxReplicaCount = ptr.To[int32](25)
		w.scaledJob.Generation++
		w.createErr = nil
	})
	w.eventually("recovered", func() bool { return w.created == 2 && w.ready().Status == metav1.ConditionTrue })
	w.wantEvents("Normal", map[string]int{"ScaledJobReady": 2})
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": 1})
}

func TestPodsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.edit(func() { w.queue = 2 })
	w.eventually("created", func() bool { return w.created == 2 })
	w.edit(func() {
		w.podsRefused = `pods "JOB-" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=5, limited: pods=5`
	})
	w.eventually("told", func() bool {
		return w.ready().Status == metav1.ConditionFalse && strings.Contains(w.ready().Message, "limited: pods=5")
	})
	w.mu.Lock()
	if message := w.ready().Message; !strings.Contains(message, `pods "usertask-" is forbidden`) {
		t.Errorf("Ready says %q", message)
	}
	if w.withoutPods != 2 || w.refused != 0 {
		t.Errorf("%d Jobs are counted as without Pods and %d as refused, want 2 and 0", w.withoutPods, w.refused)
	}
	w.mu.Unlock()
	// Of two Jobs that were made within a second, either may come to be listed first.
	w.edit(func() { slices.Reverse(w.jobs) })
	w.again()
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": 1})
	w.edit(func() { w.podsRefused = "" })
	w.eventually("recovered", func() bool {
		return w.ready().Status == metav1.ConditionTrue && w.withoutPods == 0
	})

	// Jobs that never had a Pod make room for those of a template that is repaired.
	w.edit(func() { w.podsRefused = "no such priority class" })
	w.eventually("told again", func() bool { return w.ready().Status == metav1.ConditionFalse })
	w.edit(func() { w.scaledJob.Generation++ })
	w.eventually("replaced", func() bool {
		return w.created == 4 && !slices.ContainsFunc(w.jobs, func(job *batchv1.Job) bool {
			return job.Annotations[v1alpha1.AnnotationGeneration] != "2"
		})
	})
}

func TestSecretChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.JobTargetRef.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "redis"}},
		}}
	})
	secret := func(password string) *corev1.Secret {
		return &corev1.Secret{Data: map[string][]byte{"PASSWORD": []byte(password)}}
	}
	w.edit(func() { w.secret = secret("old") })
	w.eventually("measured", func() bool { return w.measured > 0 && w.ready().Status == metav1.ConditionTrue })
	w.edit(func() { w.queueErr = errors.New("WRONGPASS") })
	w.eventually("failing", func() bool { return w.ready().Status == metav1.ConditionFalse })
	w.mu.Lock()
	built, before := w.built, w.measured
	w.mu.Unlock()
	w.eventually("tried again", func() bool { return w.measured >= before+2 })
	w.mu.Lock()
	if w.built != built {
		t.Errorf("built anew %d times although nothing changed", w.built-built)
	}
	w.mu.Unlock()
	w.edit(func() { w.secret, w.queueErr = secret("new"), nil })
	w.eventually("built with the new Secret", func() bool { return w.built == built+1 })
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
}

func TestQueueAge(t *testing.T) {
	t.Parallel()
	var q queueAge
	start := time.Now()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	for _, step := range []struct {
		second  int
		waiting float64
		want    int
	}{
		{0, 0, 0}, {1, 2, 0}, {5, 2, 4}, {6, 3, 5}, {7, 1, 1}, {8, 1, 2}, {9, 0, 0}, {20, 1, 0}, {21, 1, 1},
	} {
		if age := q.see(step.waiting, at(step.second)); age != time.Duration(step.want)*time.Second {
			t.Errorf("after %d s, with %v waiting: %v, want %d s", step.second, step.waiting, age, step.want)
		}
	}
	for i := range 1000 {
		q.see(float64(i+2), at(30+i))
	}
	if age := q.see(1001, at(1100)); age != 1080*time.Second || len(q.arrivals) > maxArrivals {
		t.Errorf("after 1,000 arrivals: %v, %d kept", age, len(q.arrivals))
	}
}

func TestStatusIsWrittenWhenItChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	var before int
	w.look(func() { before = w.writes })
	seen := w.controller.View(theKey).At
	for range 20 {
		w.controller.Changed(theKey)
		w.eventually("reconciled", func() bool { return w.controller.View(theKey).At.After(seen) })
		seen = w.controller.View(theKey).At
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writes != before {
		t.Errorf("status was written %d times without a change", w.writes-before)
	}
	if names := w.scaledJob.Status.ExternalMetricNames; !slices.Equal(names, []string{"s0-memory"}) {
		t.Errorf("externalMetricNames = %q", names)
	}
}

func TestNewJob(t *testing.T) {
	t.Parallel()
	sj := &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "usertask", UID: "u", Generation: 3,
			Labels: map[string]string{"team": "a", "secret": "b", "hidden": "c", v1alpha1.LabelScaledJob: "copied"},
			Annotations: map[string]string{
				v1alpha1.AnnotationExcludedLabels: "secret, hidden", "note": "kept", lastApplied: "{}",
				v1alpha1.AnnotationGeneration: "1",
			},
		},
		Spec: v1alpha1.ScaledJobSpec{JobTargetRef: &batchv1.JobSpec{}},
	}
	job := newJob(sj, "(1.2.3+dirty)")
	for label, want := range map[string]string{
		"app.kubernetes.io/name": "usertask", "app.kubernetes.io/version": "1.2.3_dirty", "app.kubernetes.io/part-of": "usertask",
		"app.kubernetes.io/managed-by": "keda-operator", "scaledjob.keda.sh/name": "usertask", "team": "a",
	} {
		if job.Labels[label] != want {
			t.Errorf("label %s = %q, want %q", label, job.Labels[label], want)
		}
	}
	if len(job.Labels) != 6 {
		t.Errorf("labels = %v", job.Labels)
	}
	if job.Annotations["scaledjob.keda.sh/generation"] != "3" || job.Annotations["note"] != "kept" || job.Annotations[lastApplied] != "" {
		t.Errorf("annotations = %v", job.Annotations)
	}
	if job.GenerateName != "usertask-" || job.Namespace != "shop" || job.Spec.Template.Labels["scaledjob.keda.sh/name"] != "usertask" {
		t.Errorf("Job = %+v", job)
	}
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		t.Errorf("restartPolicy = %q", job.Spec.Template.Spec.RestartPolicy)
	}
	if owner := metav1.GetControllerOf(job); owner == nil || owner.Kind != "ScaledJob" || owner.UID != "u" || owner.APIVersion != "keda.sh/v1alpha1" {
		t.Errorf("owner = %v", owner)
	}
	if sj.Spec.JobTargetRef.Template.Labels != nil {
		t.Error("the ScaledJob was modified")
	}
}

// TestPollsWhileItFails lets a trigger fail so often that its retries are far apart. The poll stays, whatever the error.
func TestPollsWhileItFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.PollingInterval = ptr.To[int32](1) })
	for i := range 12 {
		w.edit(func() { w.queueErr = fmt.Errorf("another one gave up: %w", context.Canceled) })
		w.eventually("measured again", func() bool { return w.measured > i })
	}
	w.mu.Lock()
	w.queueErr, w.queue = nil, 1 // and nobody tells
	w.mu.Unlock()
	w.eventually("created", func() bool { return w.created == 1 })
}

// TestReplaced replaces the ScaledJob by another one of its name before the controller has seen that it was gone.
func TestReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.built == 1 && w.ready().Status == metav1.ConditionTrue })
	w.edit(func() {
		w.scaledJob = w.scaledJob.DeepCopy()
		w.scaledJob.UID = "another"
	})
	w.eventually("built anew", func() bool { return w.built == 2 })
}

// TestEndIsNoFailure ends the controller while it waits for a queue that does not answer.
func TestEndIsNoFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.told(reasonReady) == 1 })
	w.mu.Lock()
	measured, writes, events := w.measured, w.writes, len(w.events)
	w.mu.Unlock()
	w.edit(func() { w.silent = true })
	w.eventually("measured", func() bool { return w.measured > measured })
	w.stop()
	if w.writes != writes || len(w.events) != events {
		t.Errorf("told of the end as of a failure: conditions %v, events %q", w.scaledJob.Status.Conditions, w.events)
	}
}
