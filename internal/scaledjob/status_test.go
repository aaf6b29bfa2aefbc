package scaledjob

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// TestSeveralTriggers lets one of two triggers fail, then both, with the reasons that KEDA's users know.
func TestSeveralTriggers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.Triggers = []v1alpha1.ScaleTriggers{
			{Type: "memory", AuthenticationRef: &v1alpha1.AuthenticationRef{Name: "first"}},
			{Type: "other", AuthenticationRef: &v1alpha1.AuthenticationRef{Name: "second"}},
			{Type: "memory", AuthenticationRef: &v1alpha1.AuthenticationRef{Name: "first"}},
		}
	})
	// The names of types and authentications do not depend on whether anything works.
	w.eventually("not ready", func() bool { return w.ready().Reason == "ScaledJobCheckFailed" })
	w.mu.Lock()
	status := w.scaledJob.Status
	if status.TriggersTypes == nil || *status.TriggersTypes != "memory,other" ||
		status.AuthenticationsTypes == nil || *status.AuthenticationsTypes != "first,second" {
		t.Errorf("status = %+v", status)
	}
	w.mu.Unlock()

	conditions := func(ready metav1.ConditionStatus, why string, active metav1.ConditionStatus, whyActive string) {
		t.Helper()
		w.eventually("Ready "+why+", Active "+whyActive, func() bool {
			r, a := w.ready(), w.condition(v1alpha1.ConditionActive)
			return r.Status == ready && r.Reason == why && a.Status == active && a.Reason == whyActive
		})
	}
	w.edit(func() { w.auth = &v1alpha1.TriggerAuthentication{} })
	conditions("True", "ScaledJobReady", "False", "ScalerNotActive")
	w.edit(func() { w.other = 2 })
	conditions("True", "ScaledJobReady", "True", "ScalerActive")
	activity := map[string]v1alpha1.TriggerActivityStatus{
		"s0-memory": {}, "s1-other": {IsActive: true}, "s2-memory": {},
	}
	w.mu.Lock()
	status = w.scaledJob.Status
	if !maps.Equal(status.TriggersActivity, activity) || status.LastActiveTime == nil ||
		!slices.Equal(status.ExternalMetricNames, []string{"s0-memory", "s1-other", "s2-memory"}) {
		t.Errorf("status = %+v", status)
	}
	w.mu.Unlock()

	w.edit(func() { w.queueErr = errors.New("memory: no answer") })
	conditions("Unknown", "PartialTriggerError", "True", "ScalerActive")
	w.edit(func() { w.other = 0 })
	conditions("Unknown", "PartialTriggerError", "False", "ScalerNotActive")
	w.edit(func() { w.otherErr = errors.New("other: no answer") })
	conditions("False", "TriggerError", "Unknown", "UnknownState")
	w.mu.Lock()
	if message := w.ready().Message; !strings.Contains(message, "memory: no answer") ||
		!strings.Contains(message, "other: no answer") {
		t.Errorf("Ready says %q", message)
	}
	w.mu.Unlock()
	w.wantEvents("Warning", map[string]int{"KEDAScalerFailed": 4}) // the check, and each trigger once
	w.wantEvents("Normal", map[string]int{"ScaledJobActive": 1, "ScaledJobInactive": 1, "KEDAJobsCreated": 1})
}

// TestRefusalsAreCounted tells what the server does not want from what it could not be asked.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	for _, test := range []struct {
		err     error
		refusal bool
	}{
		{apierrors.NewForbidden(jobs, "a", errors.New("exceeded quota")), true},
		{apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, "a", nil), true},
		{apierrors.NewBadRequest(`admission webhook "x" denied the request`), true},
		{fmt.Errorf("create it: %w", apierrors.NewForbidden(jobs, "a", nil)), true},
		{apierrors.NewTooManyRequests("slow down", 1), false},
		{apierrors.NewConflict(jobs, "a", errors.New("the quota was changed")), false},
		{apierrors.NewAlreadyExists(jobs, "a"), false},
		{apierrors.NewTimeoutError("no answer from the storage", 1), false},
		{apierrors.NewServiceUnavailable("shutting down"), false},
		{apierrors.NewInternalError(errors.New("something")), false},
		{fmt.Errorf("post: %w", syscall.ECONNREFUSED), false},
		{errors.New("another replica may look after it by now"), false},
	} {
		w := newWorld(t, nil)
		w.edit(func() { w.createErr = test.err; w.queue = 1 })
		w.eventually("told", func() bool { return w.ready().Reason == reasonJobCreateFailed })
		w.mu.Lock()
		if counted := w.refused > 0; counted != test.refusal {
			t.Errorf("%v: counted as refused %v, want %v", test.err, counted, test.refusal)
		}
		w.mu.Unlock()
		w.stop()
	}
}
