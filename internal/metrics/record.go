package metrics

import (
	"maps"
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// record is what is known of one ScaledJob. Its labels are made for a scrape and shared by its series: a vector of
// client_golang would keep a copy for each of them, which is most of what thousands of ScaledJobs would cost.
type record struct {
	key       types.NamespacedName
	namespace *namespace

	mu sync.Mutex
	// manifest is the triggers as declared; shared with the ScaledJob and never modified.
	manifest []v1alpha1.ScaleTriggers
	// triggers are by their place in the manifest; nil until measured.
	triggers []*triggerRecord

	errors, created, refused, surplus float64

	// settled counts items by their outcome; nil until there is one.
	settled map[string]float64

	// reconciled tells that late and paused are known.
	reconciled, paused bool
	late               float64 // seconds

	// jobsKnown tells that withoutPods is.
	jobsKnown   bool
	withoutPods float64 // Jobs

	// limited tells that there are limits, and waitingJobs is known.
	limited     bool
	waitingJobs float64

	// queueKnown tells that the following are.
	queueKnown       bool
	waiting          float64 // items
	age              float64 // seconds
	running, pending float64 // Jobs
}

// triggerRecord is what is known of one trigger.
type triggerRecord struct {
	metric  string
	latency float64 // seconds
	errors  float64
	// read tells that value and active are known.
	read, active bool
	value        float64
}

func newRecord(key types.NamespacedName, shared *namespace, triggers []v1alpha1.ScaleTriggers) *record {
	return &record{
		key:       key,
		namespace: shared,
		manifest:  triggers,
		triggers:  make([]*triggerRecord, len(triggers)),
	}
}

// retrigger drops the series of triggers that are not those of the manifest any more.
func (r *record) retrigger(triggers []v1alpha1.ScaleTriggers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !equality.Semantic.DeepEqual(r.manifest, triggers) {
		r.triggers = make([]*triggerRecord, len(triggers))
	}
	r.manifest = triggers
}

// trigger returns the record of a trigger, or nil when the manifest has no such trigger any more. The caller holds mu.
func (r *record) trigger(ref scaledjob.TriggerRef) *triggerRecord {
	if ref.Index < 0 || ref.Index >= len(r.manifest) {
		return nil
	}
	if declared := &r.manifest[ref.Index]; declared.Type != ref.Type || declared.Name != ref.Name {
		return nil
	}
	t := r.triggers[ref.Index]
	if t == nil || t.metric != ref.Metric {
		t = &triggerRecord{metric: ref.Metric}
		r.triggers[ref.Index] = t
	}
	return t
}

// samples appends the record's to out.
func (r *record) samples(out []sample) []sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, t := range r.triggers {
		if t == nil {
			continue
		}
		ref := scaledjob.TriggerRef{Type: r.manifest[i].Type, Name: r.manifest[i].Name, Metric: t.metric}
		labels := scalerActive.labels(
			t.metric, r.key.Namespace, r.key.Name, scalerName(ref), strconv.Itoa(i), resourceType)
		out = append(out, scalerLatency.sample(labels, t.latency), scalerErrors.sample(labels, t.errors))
		if t.read {
			out = append(out, scalerValue.sample(labels, t.value), scalerActive.sample(labels, truth(t.active)))
		}
	}
	labels := jobsCreated.labels(r.key.Namespace, r.key.Name)
	out = append(out,
		scaledJobErrors.sample(scaledJobErrors.labels(r.key.Namespace, r.key.Name), r.errors),
		jobsCreated.sample(labels, r.created),
		jobsRefused.sample(labels, r.refused),
		jobsSurplus.sample(labels, r.surplus))
	for _, outcome := range slices.Sorted(maps.Keys(r.settled)) {
		out = append(out,
			itemsSettled.sample(itemsSettled.labels(r.key.Namespace, outcome, r.key.Name), r.settled[outcome]))
	}
	if r.reconciled {
		out = append(out,
			scaleLoopLatency.sample(scaleLoopLatency.labels(r.key.Namespace, r.key.Name, resourceType), r.late),
			scaledJobPaused.sample(labels, truth(r.paused)))
	}
	if r.jobsKnown {
		out = append(out, jobsWithoutPods.sample(labels, r.withoutPods))
	}
	if r.limited {
		out = append(out, jobsWaiting.sample(labels, r.waitingJobs))
	}
	if r.queueKnown {
		out = append(out,
			queueLength.sample(labels, r.waiting),
			queueAge.sample(labels, r.age),
			jobsRunning.sample(labels, r.running),
			jobsPending.sample(labels, r.pending))
	}
	return out
}

// countTriggers adds the record's triggers to the count by type.
func (r *record) countTriggers(byType map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.manifest {
		byType[r.manifest[i].Type]++
	}
}

// truth is how Prometheus writes a yes or no.
func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
