// Package metrics publishes to Prometheus what the controller does: under KEDA's names where KEDA has them, so that
// dashboards and alerts which know KEDA go on working, and under names that begin with offboard_ otherwise.
// docs/metrics.md lists them.
//
// It serves nothing, reads no clock and decides nothing: it keeps one small record per ScaledJob, which the port's
// methods write and a scrape reads. Nothing is published of a ScaledJob that is not tracked.
package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/scaling"
)

var (
	_ scaledjob.Metrics    = (*Recorder)(nil)
	_ prometheus.Collector = (*Recorder)(nil)
)

// Recorder keeps what the controller tells and hands it to Prometheus when that asks. It is both the controller's port
// and a collector that a registry takes. Calls about a ScaledJob between Forgotten and the next Tracked are ignored, so
// that a measurement which ends late brings no series back.
type Recorder struct {
	build    sample
	reaction *prometheus.HistogramVec

	mu         sync.RWMutex
	leader     bool
	limited    limits.Limits
	alive      float64 // Jobs
	replicas   int
	records    map[types.NamespacedName]*record
	namespaces map[string]*namespace
}

// namespace is what all ScaledJobs of a namespace share.
type namespace struct {
	scaledJobs int
	reaction   prometheus.Observer
}

// New returns a Recorder that tracks no ScaledJob yet. The version is that of this program.
func New(version string) *Recorder {
	return &Recorder{
		build:      buildInfoSample(version),
		reaction:   newReaction(),
		records:    map[types.NamespacedName]*record{},
		namespaces: map[string]*namespace{},
	}
}

// SetReplicas tells how many replicas there are, this one included. There are none before the first call.
func (r *Recorder) SetReplicas(replicas int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replicas = replicas
}

// SetLeader tells whether this process acts on a share of the ScaledJobs. It does not before the first call.
func (r *Recorder) SetLeader(leader bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = leader
}

// SetLimits tells which limits there are over all ScaledJobs.
func (r *Recorder) SetLimits(l limits.Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limited = l
}

// Tracked implements [scaledjob.Metrics]. Series of triggers are dropped when the ScaledJob's triggers have changed.
func (r *Recorder) Tracked(scaledJob *v1alpha1.ScaledJob) {
	key := scaledJob.Key()
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.records[key]; known != nil {
		known.retrigger(scaledJob.Spec.Triggers)
		return
	}
	shared := r.namespaces[key.Namespace]
	if shared == nil {
		shared = &namespace{reaction: r.reaction.WithLabelValues(key.Namespace)}
		r.namespaces[key.Namespace] = shared
	}
	shared.scaledJobs++
	r.records[key] = newRecord(key, shared, scaledJob.Spec.Triggers)
}

// Forgotten implements [scaledjob.Metrics].
func (r *Recorder) Forgotten(scaledJob types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.records[scaledJob]
	if known == nil {
		return
	}
	delete(r.records, scaledJob)
	known.namespace.scaledJobs--
	if known.namespace.scaledJobs == 0 {
		delete(r.namespaces, scaledJob.Namespace)
		r.reaction.DeleteLabelValues(scaledJob.Namespace)
	}
}

// Measured implements [scaledjob.Metrics]. After an error the last value stays, as in KEDA.
func (r *Recorder) Measured(trigger scaledjob.TriggerRef, reading scaling.Reading, took time.Duration, err error) {
	known := r.record(trigger.ScaledJob)
	if known == nil {
		return
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	t := known.trigger(trigger)
	if t == nil {
		return
	}
	t.latency = took.Seconds()
	if err != nil {
		t.errors++
		return
	}
	t.read, t.value, t.active = true, reading.Value, reading.Active
}

// Reconciled implements [scaledjob.Metrics]. Of a paused ScaledJob the queue and the Jobs are unknown until the next
// Queue.
func (r *Recorder) Reconciled(scaledJob types.NamespacedName, late time.Duration, paused bool) {
	r.update(scaledJob, func(known *record) {
		known.reconciled, known.late, known.paused = true, late.Seconds(), paused
		known.queueKnown = known.queueKnown && !paused
	})
}

// Failed implements [scaledjob.Metrics].
func (r *Recorder) Failed(scaledJob types.NamespacedName) {
	r.update(scaledJob, func(known *record) { known.errors++ })
}

// Created implements [scaledjob.Metrics].
func (r *Recorder) Created(scaledJob types.NamespacedName, jobs int, reaction time.Duration) {
	r.update(scaledJob, func(known *record) {
		known.created += count(jobs)
		if jobs > 0 && reaction > 0 {
			known.namespace.reaction.Observe(reaction.Seconds())
		}
	})
}

// Refused implements [scaledjob.Metrics].
func (r *Recorder) Refused(scaledJob types.NamespacedName, jobs int) {
	r.update(scaledJob, func(known *record) { known.refused += count(jobs) })
}

// WithoutPods implements [scaledjob.Metrics].
func (r *Recorder) WithoutPods(scaledJob types.NamespacedName, jobs int) {
	r.update(scaledJob, func(known *record) { known.jobsKnown, known.withoutPods = true, count(jobs) })
}

// Surplus implements [scaledjob.Metrics].
func (r *Recorder) Surplus(scaledJob types.NamespacedName, jobs int) {
	r.update(scaledJob, func(known *record) { known.surplus += count(jobs) })
}

// Alive implements [scaledjob.Metrics].
func (r *Recorder) Alive(jobs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alive = count(jobs)
}

// Limited implements [scaledjob.Metrics].
func (r *Recorder) Limited(scaledJob types.NamespacedName, waiting int) {
	r.update(scaledJob, func(known *record) { known.limited, known.waitingJobs = true, count(waiting) })
}

// Settled implements [scaledjob.Metrics].
func (r *Recorder) Settled(scaledJob types.NamespacedName, outcome string, items int) {
	r.update(scaledJob, func(known *record) {
		if known.settled == nil {
			known.settled = map[string]float64{}
		}
		known.settled[outcome] += count(items)
	})
}

// Queue implements [scaledjob.Metrics].
func (r *Recorder) Queue(
	scaledJob types.NamespacedName, waiting float64, age time.Duration, running, pending int64,
) {
	r.update(scaledJob, func(known *record) {
		known.queueKnown = true
		known.waiting, known.age = waiting, age.Seconds()
		known.running, known.pending = float64(running), float64(pending)
	})
}

// count is what a counter grows by: never less than nothing.
func count(jobs int) float64 { return float64(max(jobs, 0)) }

func (r *Recorder) record(key types.NamespacedName) *record {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.records[key]
}

// update changes the ScaledJob's record, if there is one.
func (r *Recorder) update(key types.NamespacedName, change func(*record)) {
	known := r.record(key)
	if known == nil {
		return
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	change(known)
}
