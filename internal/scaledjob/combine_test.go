package scaledjob

import (
	"errors"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// named gives a ScaledJob the triggers a and b.
func named(sj *v1alpha1.ScaledJob) {
	sj.Spec.Triggers = []v1alpha1.ScaleTriggers{{Type: "memory", Name: "a"}, {Type: "other", Name: "b"}}
}

func formula(text string) *v1alpha1.Advanced {
	return &v1alpha1.Advanced{ScalingModifiers: &v1alpha1.ScalingModifiers{Formula: text, Target: "2"}}
}

func TestFormula(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		named(sj)
		sj.Spec.Advanced = formula("a + b")
	})
	w.edit(func() { w.queue, w.other = 3, 4 })
	w.eventually("a Job for each 2 of 7", func() bool { return w.created == 4 && *w.controller.View(theKey).Queue == 7 })

	w.edit(func() { w.otherErr = errors.New("other: no answer"); w.queue = 20 })
	w.eventually("unknown", func() bool {
		return w.ready().Reason == reasonTriggerError && strings.Contains(w.ready().Message, "other: no answer") &&
			strings.Contains(w.ready().Message, "advanced.scalingModifiers.formula: needs trigger b, which could not be measured")
	})
	w.again()
	w.look(func() {
		if w.created != 4 {
			t.Errorf("%d Jobs, want 4: one trigger is unknown, and so is the sum", w.created)
		}
	})
	w.edit(func() { w.otherErr = nil })
	w.eventually("known again", func() bool { return w.created > 4 && w.ready().Status == metav1.ConditionTrue })
}

func TestWrongFormula(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		named(sj)
		sj.Spec.Advanced = formula("a + c")
	})
	w.edit(func() { w.queue = 3 })
	w.eventually("refused", func() bool {
		return w.ready().Reason == reasonCheckFailed && strings.Contains(w.ready().Message,
			"Spec.advanced.scalingModifiers.formula: column 5: unknown name c")
	})
	w.look(func() {
		if w.created != 0 {
			t.Errorf("%d Jobs, want none", w.created)
		}
	})
}

func TestFallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.PollingInterval = ptr.To[int32](1)
		sj.Spec.Fallback = &v1alpha1.Fallback{FailureThreshold: 1, Replicas: 3}
	})
	falls := func(status metav1.ConditionStatus, reason string) func() bool {
		return func() bool {
			c := w.condition(v1alpha1.ConditionFallback)
			return c.Status == status && c.Reason == reason
		}
	}
	w.eventually("not needed", falls(metav1.ConditionFalse, reasonNoFallback))
	w.edit(func() { w.queueErr = errors.New("memory: no answer") })
	w.eventually("kept", func() bool { return w.created == 3 && falls(metav1.ConditionTrue, reasonFallback)() })
	w.eventually("told why", func() bool {
		message := w.condition(v1alpha1.ConditionFallback).Message
		return strings.Contains(message, "More than 1 times in a row not measured: memory #0") &&
			w.ready().Reason == reasonTriggerError && w.told(reasonFallback) == 1 &&
			strings.HasSuffix(w.ready().Message, "; the fallback says how many Jobs there are")
	})
	w.again()
	if reason := w.controller.View(theKey).Decision.Reason; !strings.Contains(reason, "fallback: 3 while") {
		t.Errorf("the decision says %q, want that the fallback holds", reason)
	}
	w.run()
	w.finish(batchv1.JobComplete, time.Now())
	w.eventually("the one that ended is replaced", func() bool { return w.created == 4 && w.unfinished() == 3 })
	w.look(func() {
		if w.most != 3 {
			t.Errorf("%d Jobs at once, want 3", w.most)
		}
	})
	w.edit(func() { w.queueErr = nil })
	w.eventually("over", falls(metav1.ConditionFalse, reasonNoFallback))
	w.edit(func() { w.scaledJob.Spec.Fallback = nil; w.scaledJob.Generation++ })
	w.eventually("no condition without a fallback", falls(metav1.ConditionUnknown, ""))
}

// TestFallbackWaits looks often at a trigger that fails, which is one failure until a polling interval has passed.
func TestFallbackWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.PollingInterval = ptr.To[int32](3600)
		sj.Spec.Fallback = &v1alpha1.Fallback{FailureThreshold: 1, Replicas: 3}
	})
	w.edit(func() { w.queueErr = errors.New("memory: no answer") })
	w.eventually("failed", func() bool { return w.ready().Reason == reasonTriggerError })
	for range 5 {
		w.again()
	}
	w.look(func() {
		if w.created != 0 {
			t.Errorf("%d Jobs, want none after one failure of two", w.created)
		}
	})
}

// TestFallbackToBefore keeps as many Jobs as there were when the queue was last known.
func TestFallbackToBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.PollingInterval = ptr.To[int32](1)
		sj.Spec.Fallback = &v1alpha1.Fallback{Replicas: 1, Behavior: v1alpha1.FallbackCurrentReplicasIfHigher}
	})
	w.edit(func() { w.queue = 2 })
	w.eventually("two Jobs", func() bool { return w.created == 2 })
	w.run()
	w.run()
	w.again()
	w.edit(func() { w.queueErr = errors.New("memory: no answer") })
	w.eventually("failed", func() bool { return w.ready().Reason == reasonTriggerError })
	w.finish(batchv1.JobComplete, time.Now())
	w.eventually("replaced", func() bool { return w.created == 3 && w.unfinished() == 2 })
}

// TestFormulaWithoutWhatFailed routes around a trigger that fails.
func TestFormulaWithoutWhatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		named(sj)
		sj.Spec.Advanced = formula("a ?? b")
		sj.Spec.Fallback = &v1alpha1.Fallback{Replicas: 9, Behavior: v1alpha1.FallbackScalingModifiers}
	})
	w.edit(func() { w.queueErr = errors.New("memory: no answer"); w.other = 6 })
	w.eventually("Jobs for b", func() bool { return w.created == 3 && w.ready().Reason == reasonPartialError })
	w.edit(func() { w.otherErr = errors.New("other: no answer") })
	w.eventually("the fallback's Jobs", func() bool { return w.created == 9 && w.ready().Reason == reasonTriggerError })
}
