package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Describe implements [prometheus.Collector].
func (r *Recorder) Describe(out chan<- *prometheus.Desc) {
	for _, f := range families {
		out <- f.desc
	}
	r.reaction.Describe(out)
}

// Collect implements [prometheus.Collector]. It holds no lock while it waits for the reader of the channel.
func (r *Recorder) Collect(out chan<- prometheus.Metric) {
	r.mu.RLock()
	records := slices.Collect(maps.Values(r.records))
	own := append([]sample{
		r.build, leading.sample(nil, truth(r.leader)), replicasSeen.sample(nil, float64(r.replicas)),
		scaledJobsOwned.sample(nil, float64(len(records))),
	}, r.limits()...)
	scaledJobs := make(map[string]int, len(r.namespaces))
	for name, shared := range r.namespaces {
		scaledJobs[name] = shared.scaledJobs
	}
	r.mu.RUnlock()
	// A registry sorts what it gets; it does so in half of the time when most of it is in order.
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(strings.Compare(a.key.Namespace, b.key.Namespace), strings.Compare(a.key.Name, b.key.Name))
	})

	send(out, own)
	triggers := map[string]int{}
	for _, known := range records {
		send(out, known.samples(make([]sample, 0, 15)))
		known.countTriggers(triggers)
	}
	for triggerType, n := range triggers {
		labels := triggersRegistered.labels(triggerType)
		send(out, []sample{
			triggersRegistered.sample(labels, float64(n)),
			triggerTotals.sample(labels, float64(n)),
		})
	}
	for name, n := range scaledJobs {
		labels := resourcesRegistered.labels(name, crdType)
		send(out, []sample{
			resourcesRegistered.sample(labels, float64(n)),
			resourceTotals.sample(labels, float64(n)),
		})
	}
	r.reaction.Collect(out)
}

// limits are the samples of the limits that there are. The caller holds mu.
func (r *Recorder) limits() (samples []sample) {
	if !r.limited.Any() {
		return nil
	}
	for _, limit := range []struct {
		family *family
		value  float64
	}{
		{jobsLimit, float64(r.limited.Jobs)},
		{jobsLimitPerNamespace, float64(r.limited.JobsPerNamespace)},
		{jobsLimitPerSecond, r.limited.JobsPerSecond},
	} {
		if limit.value > 0 {
			samples = append(samples, limit.family.sample(nil, limit.value))
		}
	}
	return append(samples, jobsAlive.sample(nil, r.alive))
}

// send hands over the samples, which the reader then owns.
func send(out chan<- prometheus.Metric, samples []sample) {
	for i := range samples {
		out <- &samples[i]
	}
}
