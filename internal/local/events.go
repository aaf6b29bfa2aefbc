package local

import (
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

// maxEvents is how many different events of one ScaledJob are kept; the one that was last seen longest ago goes first.
const maxEvents = 50

// events keeps what happened to ScaledJobs lately, in memory.
type events struct {
	// exists tells whether there is a ScaledJob; what happens to one that is gone is not kept.
	exists func(types.NamespacedName) bool

	mu    sync.Mutex
	byKey map[types.NamespacedName][]control.Event
}

// Event records one; it implements the controller's port. An event that happened before is counted.
func (e *events) Event(sj *v1alpha1.ScaledJob, eventType, reason, message string) {
	key := sj.Key()
	if !e.exists(key) {
		return
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byKey == nil {
		e.byKey = map[types.NamespacedName][]control.Event{}
	}
	event := control.Event{Type: eventType, Reason: reason, Message: message, First: now}
	events := slices.DeleteFunc(e.byKey[key], func(old control.Event) bool {
		same := old.Type == eventType && old.Reason == reason && old.Message == message
		if same {
			event.Count, event.First = old.Count, old.First
		}
		return same
	})
	event.Count++
	event.Last = now
	if len(events) == maxEvents {
		events = events[1:]
	}
	e.byKey[key] = append(events, event)
}

// of returns the ScaledJob's events, the latest last.
func (e *events) of(key types.NamespacedName) []control.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.byKey[key])
}

// forget drops the events of a ScaledJob that no longer exists.
func (e *events) forget(key types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byKey, key)
}
