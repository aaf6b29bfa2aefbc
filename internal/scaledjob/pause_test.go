package scaledjob

import (
	"errors"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func TestPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Annotations = map[string]string{v1alpha1.AnnotationPaused: "true"}
	})
	w.edit(func() { w.queue = 3 })
	w.eventually("paused", func() bool {
		c := w.condition(v1alpha1.ConditionPaused)
		return c.Status == metav1.ConditionTrue && c.Reason == "ScaledJobPaused"
	})
	w.mu.Lock()
	if c := w.ready(); c.Status != metav1.ConditionTrue || c.Reason != "ScaledJobReady" || c.Message == "" {
		t.Errorf("while paused from the beginning, Ready = %+v", c)
	}
	if w.created != 0 {
		t.Errorf("%d Jobs while paused", w.created)
	}
	w.mu.Unlock()
	w.edit(func() { w.scaledJob.Annotations[v1alpha1.AnnotationPaused] = "false" })
	w.eventually("unpaused", func() bool {
		c := w.condition(v1alpha1.ConditionPaused)
		return w.created == 3 && c.Status == metav1.ConditionFalse && c.Reason == "ScaledJobUnpaused"
	})
	w.wantEvents("Normal", map[string]int{"ScaledJobPaused": 1, "ScaledJobUnpaused": 1})
}

// TestPausedWhileFailing pauses a ScaledJob that does not work: nobody tries, so it is neither ready nor not because of
// what was. That it still does not work when it is resumed is news.
func TestPausedWhileFailing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Annotations = map[string]string{} })
	w.edit(func() { w.createErr = errors.New("refused by policy"); w.queue = 2 })
	w.eventually("refused", func() bool { return w.ready().Reason == reasonJobCreateFailed })
	w.edit(func() { w.scaledJob.Annotations[v1alpha1.AnnotationPaused] = "true" })
	w.eventually("paused and ready", func() bool {
		return w.condition(v1alpha1.ConditionPaused).Status == metav1.ConditionTrue &&
			w.ready().Status == metav1.ConditionTrue && w.ready().Reason == reasonReady
	})
	w.edit(func() { delete(w.scaledJob.Annotations, v1alpha1.AnnotationPaused) })
	w.eventually("refused again", func() bool { return w.ready().Reason == reasonJobCreateFailed })
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.told(reasonJobCreateFailed); n != 2 {
		t.Errorf("told %d times", n)
	}
}

// TestRolloutWaitsForResume edits a paused ScaledJob: nothing would replace the Jobs that an immediate rollout deletes.
func TestRolloutWaitsForResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.Rollout.Strategy, sj.Annotations = v1alpha1.RolloutImmediate, map[string]string{}
		sj.Spec.SuccessfulJobsHistoryLimit = new(int32)
	})
	w.edit(func() { w.queue = 5 })
	w.eventually("started", func() bool { return w.created == 5 })
	for range 5 {
		w.run()
	}
	w.edit(func() { w.scaledJob.Annotations[v1alpha1.AnnotationPaused] = "true" })
	w.eventually("paused", func() bool { return w.condition(v1alpha1.ConditionPaused).Status == metav1.ConditionTrue })
	w.edit(func() { w.scaledJob.Generation = 2 })
	// The end of a Job, whose history is trimmed also while paused, shows that the operator has looked at the new version.
	w.finish(batchv1.JobComplete, time.Now())
	w.eventually("trimmed", func() bool { return !slices.ContainsFunc(w.jobs, finished) })
	w.mu.Lock()
	if len(w.jobs) != 4 {
		t.Errorf("%d of 4 Jobs run on while paused", len(w.jobs))
	}
	w.mu.Unlock()
	w.edit(func() { delete(w.scaledJob.Annotations, v1alpha1.AnnotationPaused); w.queue = 1 })
	w.eventually("replaced", func() bool {
		return w.created == 6 && len(w.jobs) == 1 && w.told("ScaledJobRolloutCleanupCompleted") == 1
	})
}

func finished(job *batchv1.Job) bool {
	how, _ := Finished(job)
	return how != ""
}
