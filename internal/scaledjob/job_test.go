package scaledjob

import (
	"sync"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func aPod(phase corev1.PodPhase, conditions ...corev1.PodCondition) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, Conditions: conditions}}
}

func podCondition(kind corev1.PodConditionType, status corev1.ConditionStatus) corev1.PodCondition {
	return corev1.PodCondition{Type: kind, Status: status}
}

// TestPending is KEDA's rule, with and without pendingPodConditions.
func TestPending(t *testing.T) {
	t.Parallel()
	scheduled, ready := podCondition("PodScheduled", "True"), podCondition("Ready", "True")
	notReady, unknown := podCondition("Ready", "False"), podCondition("Ready", "Unknown")
	for name, test := range map[string]struct {
		conditions []string
		pods       []*corev1.Pod
		pending    bool
	}{
		"no Pod":                        {nil, nil, true},
		"a Pod that waits":              {nil, []*corev1.Pod{aPod("Pending", scheduled)}, true},
		"a Pod that runs":               {nil, []*corev1.Pod{aPod("Running", notReady)}, false},
		"a Pod that has succeeded":      {nil, []*corev1.Pod{aPod("Succeeded")}, false},
		"a Pod that has failed":         {nil, []*corev1.Pod{aPod("Failed")}, true},
		"a Pod of which nobody knows":   {nil, []*corev1.Pod{aPod("Unknown")}, true},
		"one of two runs":               {nil, []*corev1.Pod{aPod("Pending"), aPod("Running")}, false},
		"conditions, no Pod":            {[]string{"Ready"}, nil, true},
		"conditions, none yet":          {[]string{"Ready"}, []*corev1.Pod{aPod("Running")}, true},
		"conditions, false":             {[]string{"Ready"}, []*corev1.Pod{aPod("Running", notReady)}, true},
		"conditions, unknown":           {[]string{"Ready"}, []*corev1.Pod{aPod("Running", unknown)}, true},
		"conditions, fulfilled":         {[]string{"Ready"}, []*corev1.Pod{aPod("Running", ready)}, false},
		"conditions, the phase is none": {[]string{"PodScheduled"}, []*corev1.Pod{aPod("Pending", scheduled)}, false},
		"conditions, one of two":        {[]string{"PodScheduled", "Ready"}, []*corev1.Pod{aPod("Running", scheduled)}, true},
		"conditions, both": {
			[]string{"PodScheduled", "Ready"}, []*corev1.Pod{aPod("Running", ready, scheduled)}, false,
		},
		"conditions, by two Pods together": {
			[]string{"PodScheduled", "Ready"}, []*corev1.Pod{aPod("Pending", scheduled), aPod("Running", ready)}, true,
		},
		"conditions, by one of two Pods": {
			[]string{"Ready"}, []*corev1.Pod{aPod("Pending", notReady), aPod("Running", ready)}, false,
		},
	} {
		if got := Pending(Job{Job: &batchv1.Job{}, Pods: test.pods}, test.conditions); got != test.pending {
			t.Errorf("%s: pending %v, want %v", name, got, test.pending)
		}
	}
}

// TestPendingPodConditions has Pods that run and are not ready: their Jobs are pending until they are.
func TestPendingPodConditions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.ScalingStrategy.PendingPodConditions = []string{"Ready", "PodScheduled"}
	})
	w.edit(func() { w.queue = 2 })
	w.eventually("created", func() bool { return w.created == 2 })
	w.edit(func() { w.conditions = []corev1.PodCondition{podCondition("PodScheduled", "True")} })
	w.run()
	w.run()
	w.again()
	w.eventually("pending although they run", func() bool { return w.running == 0 && w.pending == 2 })
	w.edit(func() { w.conditions = append(w.conditions, podCondition("Ready", "True")) })
	w.eventually("running", func() bool { return w.running == 2 && w.pending == 0 })
}

// TestCreateParallel holds requests back until as many are under way as may be.
func TestCreateParallel(t *testing.T) {
	t.Parallel()
	const most = 4
	w := newWorldWith(t, Config{CreateParallel: most}, nil)
	w.eventually("ready", func() bool { return w.ready().Status == "True" })
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	w.edit(func() { w.gate = gate; w.queue = 20 })
	w.eventually("as many requests as may be", func() bool { return w.creating == most })
	w.mu.Lock()
	w.gate = nil
	w.mu.Unlock()
	open()
	w.eventually("20 Jobs", func() bool { return w.created == 20 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mostAtOnce != most {
		t.Errorf("%d requests at once, want at most %d", w.mostAtOnce, most)
	}
}
