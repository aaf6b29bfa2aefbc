package scaledjob

import (
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// plan notes when a reconcile is due because the time has come, so that its lateness can be told.
func (c *Controller) plan(key types.NamespacedName, after time.Duration) {
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = time.Now().Add(after)
}

// late returns by how much the reconcile that begins now is late: nothing when it comes before its time, because of a
// change.
func (r *record) late(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := r.due
	r.due = time.Time{}
	if due.IsZero() {
		return 0
	}
	return max(0, now.Sub(due))
}

// spread makes the first poll of a ScaledJob come early, by a random time, so that those that begin together are not
// polled together for ever.
func (r *record) spread(again time.Duration) time.Duration {
	if r.polls {
		return again
	}
	r.polls = true
	return rand.N(again) + 1
}

// notice notes that a trigger has told of a change.
func (r *record) notice() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.noticed.IsZero() {
		r.noticed = time.Now()
	}
}

// takeNotice returns when a trigger first told of a change since it was last asked; zero when none has.
func (r *record) takeNotice() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	noticed := r.noticed
	r.noticed = time.Time{}
	return noticed
}

// queueAge estimates how long the oldest item has waited, from measurements alone: what the queue grew by came when it
// was seen to grow, and what it shrank by were the oldest. A push and a pop between two measurements hide each other,
// so the estimate can be too high, but never for longer than the queue is not empty.
type queueAge struct {
	waiting  float64
	arrivals []arrival // oldest first
}

// arrival is work that came at one time.
type arrival struct {
	amount float64
	at     time.Time
}

// maxArrivals bounds the memory: beyond it, neighbours are taken to have come together, at the older one's time.
const maxArrivals = 64

// see takes a measurement and returns the age of the oldest work; zero when none waits.
func (q *queueAge) see(waiting float64, now time.Time) time.Duration {
	grown := waiting - q.waiting
	q.waiting = waiting
	switch {
	case waiting <= 0:
		q.arrivals = q.arrivals[:0]
	case grown > 0:
		q.arrivals = append(q.arrivals, arrival{grown, now})
		if len(q.arrivals) > maxArrivals {
			q.merge()
		}
	default:
		for taken := -grown; taken > 0 && len(q.arrivals) > 0; {
			part := min(taken, q.arrivals[0].amount)
			taken -= part
			q.arrivals[0].amount -= part
			if q.arrivals[0].amount <= 0 {
				q.arrivals = q.arrivals[1:]
			}
		}
	}
	if len(q.arrivals) == 0 {
		return 0
	}
	return now.Sub(q.arrivals[0].at)
}

// merge halves the number of arrivals.
func (q *queueAge) merge() {
	merged := make([]arrival, 0, maxArrivals)
	for i := 0; i+1 < len(q.arrivals); i += 2 {
		merged = append(merged, arrival{q.arrivals[i].amount + q.arrivals[i+1].amount, q.arrivals[i].at})
	}
	if len(q.arrivals)%2 == 1 {
		merged = append(merged, q.arrivals[len(q.arrivals)-1])
	}
	q.arrivals = merged
}

// noMetrics is for those who do not want to know.
type noMetrics struct{}

func (noMetrics) Tracked(*v1alpha1.ScaledJob)                                      {}
func (noMetrics) Forgotten(types.NamespacedName)                                   {}
func (noMetrics) Measured(TriggerRef, scaling.Reading, time.Duration, error)       {}
func (noMetrics) Reconciled(types.NamespacedName, time.Duration, bool)             {}
func (noMetrics) Failed(types.NamespacedName)                                      {}
func (noMetrics) Created(types.NamespacedName, int, time.Duration)                 {}
func (noMetrics) Refused(types.NamespacedName, int)                                {}
func (noMetrics) WithoutPods(types.NamespacedName, int)                            {}
func (noMetrics) Surplus(types.NamespacedName, int)                                {}
func (noMetrics) Alive(int)                                                        {}
func (noMetrics) Limited(types.NamespacedName, int)                                {}
func (noMetrics) Settled(types.NamespacedName, string, int)                        {}
func (noMetrics) Queue(types.NamespacedName, float64, time.Duration, int64, int64) {}
