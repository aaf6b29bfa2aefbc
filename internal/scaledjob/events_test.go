package scaledjob

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// wantEvents waits until each reason has been told that often, and fails when one was told more often or with another
// type.
func (w *world) wantEvents(eventType string, want map[string]int) {
	w.t.Helper()
	for reason, times := range want {
		w.eventually("told "+reason, func() bool { return w.told(reason) >= times })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for reason, times := range want {
		if n := w.told(reason); n != times || n > 0 && w.eventTypes[reason] != eventType {
			w.t.Errorf("%s was told %d times as %s, want %d times as %s; events %q",
				reason, n, w.eventTypes[reason], times, eventType, w.events)
		}
	}
}

// TestWatchIsTold follows a ScaledJob from its first look to its end. Nothing is told for a look alone.
func TestWatchIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Annotations = map[string]string{} })
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	for range 5 {
		w.again()
	}
	w.wantEvents("Normal", map[string]int{"KEDAScalersStarted": 1, "KEDAScalersStopped": 0, "ScaledJobReady": 1})
	w.edit(func() { w.scaledJob.Generation++ })
	w.eventually("another version watched", func() bool { return w.told("KEDAScalersStarted") == 2 })
	w.edit(func() { w.scaledJob.Annotations[v1alpha1.AnnotationPaused] = "true" })
	w.eventually("paused", func() bool { return w.told("KEDAScalersStopped") == 1 })
	w.edit(func() { delete(w.scaledJob.Annotations, v1alpha1.AnnotationPaused) })
	w.eventually("watched again", func() bool { return w.told("KEDAScalersStarted") == 3 })
	w.wantEvents("Normal", map[string]int{"KEDAScalersStopped": 1, "ScaledJobPaused": 1, "ScaledJobUnpaused": 1})

	// In its deletion it may be seen twice: while it waits for somebody's finalizer, and gone.
	w.edit(func() { w.scaledJob.DeletionTimestamp = &metav1.Time{} })
	w.eventually("deleted", func() bool { return w.told("ScaledJobDeleted") == 1 })
	w.edit(func() { w.scaledJob = nil })
	w.stop()
	w.wantEvents("Normal", map[string]int{"KEDAScalersStopped": 2})
	w.wantEvents("Warning", map[string]int{"ScaledJobDeleted": 1, "KEDAScalerFailed": 0, "ScaledJobUpdateFailed": 0})
}

// TestEndIsTold deletes a ScaledJob that nobody holds back.
func TestEndIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	w.edit(func() { w.scaledJob = nil })
	w.eventually("deleted", func() bool { return w.told("ScaledJobDeleted") == 1 })
	w.wantEvents("Normal", map[string]int{"KEDAScalersStopped": 1})
	w.wantEvents("Warning", map[string]int{"ScaledJobDeleted": 1})
}

// TestCheckFails names a Secret that is not there.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.JobTargetRef.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "redis"}},
		}}
		sj.Spec.Triggers[0].AuthenticationRef = &v1alpha1.AuthenticationRef{Name: "password"}
	})
	w.edit(func() { w.auth = &v1alpha1.TriggerAuthentication{} })
	w.eventually("told", func() bool {
		ready, active := w.ready(), w.condition(v1alpha1.ConditionActive)
		return ready.Status == metav1.ConditionFalse && ready.Reason == "ScaledJobCheckFailed" &&
			strings.Contains(ready.Message, "redis") &&
			active.Status == metav1.ConditionUnknown && active.Reason == "UnknownState"
	})
	for range 3 {
		w.controller.Changed(theKey)
	}
	w.wantEvents("Warning", map[string]int{"ScaledJobCheckFailed": 1, "KEDAScalerFailed": 1})
	w.edit(func() { w.secret = &corev1.Secret{} })
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	w.wantEvents("Normal", map[string]int{"KEDAScalersStarted": 1, "ScaledJobReady": 1})
	w.wantEvents("Warning", map[string]int{"ScaledJobCheckFailed": 1, "KEDAScalerFailed": 1})
}

// TestStatusCannotBeWritten is told once, however often it is tried.
func TestStatusCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	w.edit(func() { w.statusErr = errors.New("the status does not fit the schema"); w.queue = 1 })
	w.eventually("told", func() bool { return w.told("ScaledJobUpdateFailed") == 1 })
	for range 3 {
		w.again()
	}
	w.wantEvents("Warning", map[string]int{"ScaledJobUpdateFailed": 1})
	w.wantEvents("Normal", map[string]int{"ScaledJobActive": 0})
	w.edit(func() { w.statusErr = nil })
	w.eventually("written", func() bool { return w.told("ScaledJobActive") == 1 })
	for range 3 {
		w.again()
	}
	w.wantEvents("Normal", map[string]int{"ScaledJobActive": 1})
}

// TestAnotherFailureIsTold has a failure follow on another one without a success between them. Numbers make no other
// failure, and words that never are the same no storm.
func TestAnotherFailureIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.eventually("ready", func() bool { return w.ready().Status == metav1.ConditionTrue })
	fail := func(message string) {
		w.t.Helper()
		w.edit(func() { w.createErr = errors.New(message); w.queue = 1 })
		w.eventually("status", func() bool { return strings.Contains(w.ready().Message, message) })
	}
	fail("exceeded quota: used 5, limited 5 after 1.5s")
	fail("exceeded quota: used 25, limited 30 after 12s")
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": 1})
	fail("every Job needs a ttl")
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": 2})
	fail("exceeded quota: used 5, limited 5 after 2s")
	fail("every Job needs a ttl")
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": 2})
	for _, random := range []string{"bcdfg", "hjklm", "npqrs", "tvwxz", "zzzzz", "xxxxx"} {
		fail("request " + random + " failed")
	}
	w.wantEvents("Warning", map[string]int{"KEDAJobCreateFailed": maxWordings})
	w.edit(func() { w.createErr = nil })
	w.eventually("created", func() bool { return w.created == 1 && w.ready().Status == metav1.ConditionTrue })
	w.edit(func() { w.queueErr = errors.New("no route to 10.0.0.1:6379") })
	w.eventually("failing", func() bool { return w.told("KEDAScalerFailed") == 1 })
	w.edit(func() { w.queueErr = errors.New("WRONGPASS") })
	w.eventually("failing otherwise", func() bool { return w.told("KEDAScalerFailed") == 2 })
}

// TestRolloutIsTold replaces Jobs by those of a new version, which the cluster does not let be deleted at first.
func TestRolloutIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.Rollout.Strategy = v1alpha1.RolloutImmediate })
	w.edit(func() { w.queue = 3 })
	w.eventually("started", func() bool { return w.created == 3 })
	w.wantEvents("Normal", map[string]int{
		"ScaledJobActive": 1, "ScaledJobRolloutCleanupStarted": 0, "ScaledJobRolloutCleanupCompleted": 0,
	})
	w.edit(func() { w.scaledJob.Generation, w.deleteErr = 2, errors.New("no right to delete") })
	w.eventually("tried again", func() bool { return w.told("ScaledJobRolloutCleanupFailed") == 1 && w.deletions > 6 })
	w.edit(func() { w.deleteErr = nil })
	w.eventually("replaced", func() bool {
		return w.created == 6 && len(w.jobs) == 3 && w.told("ScaledJobRolloutCleanupCompleted") == 1
	})
	w.wantEvents("Warning", map[string]int{"ScaledJobRolloutCleanupFailed": 1})
	w.wantEvents("Normal", map[string]int{"ScaledJobRolloutCleanupStarted": 1})
}
