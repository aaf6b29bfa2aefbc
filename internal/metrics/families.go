package metrics

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Values that KEDA gives to labels named type.
const (
	resourceType = "scaledjob"
	crdType      = "scaled_job"
)

// What KEDA 2.20 publishes about ScaledJobs, with its label names (pkg/metricscollector/prommetrics.go). It calls the
// label with a ScaledJob's name scaledObject where the series is of a trigger.
var (
	triggerLabels = []string{"metric", "namespace", "scaledObject", "scaler", "triggerIndex", "type"}

	scalerActive = gauge("keda_scaler_active",
		"Whether the trigger's value is above its activation threshold (1) or not (0).", triggerLabels...)
	scalerValue = gauge("keda_scaler_metrics_value",
		"The trigger's value: how much work waits.", triggerLabels...)
	scalerLatency = gauge("keda_scaler_metrics_latency_seconds",
		"How long the last measurement of the trigger took.", triggerLabels...)
	scalerErrors = counter("keda_scaler_detail_errors_total",
		"Measurements of the trigger that failed.", triggerLabels...)
	scaledJobErrors = counter("keda_scaled_job_errors_total",
		"Reconciles of the ScaledJob that failed.", "namespace", "scaledJob")
	scaleLoopLatency = gauge("keda_internal_scale_loop_latency_seconds",
		"How much later than it was due the last reconcile of the ScaledJob began.", "namespace", "resource", "type")
	triggersRegistered = gauge("keda_trigger_registered_total",
		"Triggers of all ScaledJobs, by trigger type.", "type")
	triggerTotals = gauge("keda_trigger_totals",
		"The name of keda_trigger_registered_total before KEDA 2.17.", "type")
	resourcesRegistered = gauge("keda_resource_registered_total",
		"ScaledJobs, by namespace.", "namespace", "type")
	resourceTotals = gauge("keda_resource_totals",
		"The name of keda_resource_registered_total before KEDA 2.17.", "namespace", "type")
	buildInfo = gauge("keda_build_info",
		"Always 1; the labels tell what this program was built from.",
		"git_commit", "goarch", "goos", "goversion", "version")
)

// What KEDA does not publish.
var (
	scaledJobLabels = []string{"namespace", "scaledjob"}

	jobsCreated = counter("offboard_jobs_created_total",
		"Jobs created for the ScaledJob.", scaledJobLabels...)
	jobsRefused = counter("offboard_jobs_refused_total",
		"Jobs that the cluster did not let be created, because of a quota, an admission policy or an invalid template.",
		scaledJobLabels...)
	jobsWithoutPods = gauge("offboard_jobs_without_pods",
		"Unfinished Jobs of the ScaledJob whose Pods the cluster refuses.", scaledJobLabels...)
	jobsSurplus = counter("offboard_jobs_surplus_total",
		"Jobs that ended while nothing at all was taken from the queue.", scaledJobLabels...)
	itemsSettled = counter("offboard_items_settled_total",
		"Items delivered by claim, by what became of them: done, retry, dead or dropped.",
		"namespace", "outcome", "scaledjob")
	jobsAlive = gauge("offboard_jobs_alive",
		"Jobs that count against the limits over all ScaledJobs; published only where there are limits.")
	jobsLimit = gauge("offboard_jobs_limit",
		"How many Jobs may be alive over all ScaledJobs (--max-jobs).")
	jobsLimitPerNamespace = gauge("offboard_jobs_limit_per_namespace",
		"How many Jobs may be alive in each namespace (--max-jobs-per-namespace).")
	jobsLimitPerSecond = gauge("offboard_jobs_limit_per_second",
		"How many Jobs may be created in a second over all ScaledJobs (--max-jobs-per-second).")
	jobsWaiting = gauge("offboard_jobs_waiting",
		"Jobs of the ScaledJob that wait because of a limit over all ScaledJobs; published only where there are limits.",
		scaledJobLabels...)
	jobsRunning = gauge("offboard_jobs_running",
		"Jobs of the ScaledJob that run.", scaledJobLabels...)
	jobsPending = gauge("offboard_jobs_pending",
		"Jobs of the ScaledJob that are pending.", scaledJobLabels...)
	queueLength = gauge("offboard_queue_length",
		"How much work waits, over all triggers of the ScaledJob.", scaledJobLabels...)
	queueAge = gauge("offboard_queue_age_seconds",
		"How long the oldest waiting work has been seen waiting; an estimate that assumes first in, first out.",
		scaledJobLabels...)
	scaledJobPaused = gauge("offboard_scaledjob_paused",
		"Whether the ScaledJob is paused (1) or not (0).", scaledJobLabels...)
	leading = gauge("offboard_leader",
		"Whether this process acts on a share of the ScaledJobs (1) or stands by (0).")
	replicasSeen = gauge("offboard_replicas",
		"Replicas that share the ScaledJobs out, as this one sees them and itself included.")
	scaledJobsOwned = gauge("offboard_scaledjobs",
		"ScaledJobs that this process looks after.")
)

// families are all of the above.
var families = []*family{
	scalerActive, scalerValue, scalerLatency, scalerErrors, scaledJobErrors, scaleLoopLatency,
	triggersRegistered, triggerTotals, resourcesRegistered, resourceTotals, buildInfo,
	jobsCreated, jobsRefused, jobsWithoutPods, jobsSurplus, itemsSettled, jobsRunning, jobsPending,
	queueLength, queueAge, scaledJobPaused, leading, replicasSeen, scaledJobsOwned,
	jobsAlive, jobsLimit, jobsLimitPerNamespace, jobsLimitPerSecond, jobsWaiting,
}

// newReaction is by namespace and not by ScaledJob: each series of a histogram is twenty for Prometheus.
func newReaction() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "offboard_reaction_seconds",
		Help: "Time from the notice that a queue had changed to the last Job created because of it.",
		Buckets: []float64{
			.001, .0025, .005, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300,
		},
	}, []string{"namespace"})
}

// family is all series of one name.
type family struct {
	desc       *prometheus.Desc
	labelNames []string // sorted, as Prometheus wants them
	counts     bool     // a counter, else a gauge
}

func gauge(name, help string, labelNames ...string) *family {
	return &family{prometheus.NewDesc(name, help, labelNames, nil), labelNames, false}
}

func counter(name, help string, labelNames ...string) *family {
	return &family{prometheus.NewDesc(name, help, labelNames, nil), labelNames, true}
}

// labels gives values to the family's labels, in the order of their names. Prometheus refuses all that is published
// when one value is not UTF-8.
func (f *family) labels(values ...string) []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, len(values))
	for i, value := range values {
		value = strings.ToValidUTF8(value, "\uFFFD")
		pairs[i] = &dto.LabelPair{Name: &f.labelNames[i], Value: &value}
	}
	return pairs
}

func (f *family) sample(labels []*dto.LabelPair, value float64) sample {
	return sample{f, labels, value}
}

// sample is the value of one series at the time of a scrape.
type sample struct {
	family *family
	labels []*dto.LabelPair
	value  float64
}

// Desc implements [prometheus.Metric].
func (s *sample) Desc() *prometheus.Desc { return s.family.desc }

// Write implements [prometheus.Metric].
func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	if s.family.counts {
		out.Counter = &dto.Counter{Value: &s.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

func buildInfoSample(version string) sample {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = setting.Value
			}
		}
	}
	labels := buildInfo.labels(commit, runtime.GOARCH, runtime.GOOS, runtime.Version(), version)
	return buildInfo.sample(labels, 1)
}
