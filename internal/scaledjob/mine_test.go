package scaledjob

import (
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// TestLetGo takes a ScaledJob away while a Job of it is being created, and gives it back.
func TestLetGo(t *testing.T) {
	t.Parallel()
	var mine, denied atomic.Bool
	mine.Store(true)
	w := newWorldWith(t, Config{Mine: func(types.NamespacedName) bool {
		is := mine.Load()
		denied.CompareAndSwap(false, !is)
		return is
	}}, nil)
	gate := make(chan struct{})
	w.edit(func() { w.queue, w.gate = 1, gate })
	w.eventually("a Job being created", func() bool { return w.creating == 1 })

	mine.Store(false)
	let := make(chan int)
	go func() { let <- w.controller.LetGo() }()
	w.eventually("asked whose it is", denied.Load)
	select {
	case <-let:
		t.Error("it has returned while a reconcile is under way")
	default:
	}
	close(gate)
	if n := <-let; n != 1 {
		t.Errorf("%d ScaledJobs were let go, want 1", n)
	}
	w.controller.mu.Lock()
	if n := len(w.controller.underWay); n > 0 {
		t.Errorf("%d reconciles are under way", n)
	}
	w.controller.mu.Unlock()
	if n := w.controller.LetGo(); n != 0 {
		t.Errorf("%d ScaledJobs were let go again", n)
	}
	w.mu.Lock()
	measured, created := w.measured, w.created
	if n := w.told(reasonDeleted) + w.told(reasonScalersStopped); n > 0 {
		t.Errorf("it was told that the ScaledJob is gone: %q", w.events)
	}
	w.mu.Unlock()
	w.edit(func() { w.queue, w.gate = 3, nil })
	w.eventually("looked at by nobody", func() bool { return w.controller.queue.Len() == 0 })
	w.mu.Lock()
	if w.measured != measured || w.created != created {
		t.Errorf("what is not this process's was measured %d times, and %d Jobs were created", w.measured-measured,
			w.created-created)
	}
	w.mu.Unlock()

	mine.Store(true)
	w.controller.Changed(theKey)
	w.eventually("Jobs for all that waits", func() bool { return w.created == 3 })
}
