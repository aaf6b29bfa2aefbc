package jobs

import (
	"cmp"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Messages of Job conditions, as the Kubernetes API shows them.
const (
	messageCompletionsReached   = "Reached expected number of succeeded pods"
	messageBackoffLimitExceeded = "Job has reached the specified backoff limit"
	messageDeadlineExceeded     = "Job was active longer than specified deadline"
)

// observed is what is known of a Job at one moment.
type observed struct {
	job   *batchv1.Job
	pods  []*podState
	retry retryState
	// hold tells that no Pods may be started, because the program is about to end.
	hold bool
}

// decision is what is to be done for a Job.
type decision struct {
	// status is the Job's new status; statusChanged tells whether it differs from the old one.
	status        batchv1.JobStatus
	statusChanged bool
	retry         retryState
	// count lists the Pods that the status accounts for from now on.
	count []*podState
	// stop lists the Pods to stop; with exclude set they do not count when they have ended.
	stop    []*podState
	exclude bool
	// create is how many Pods to create now.
	create int
	// remove tells that the Job has outlived its ttlSecondsAfterFinished.
	remove bool
	// requeue is when to decide again though nothing has happened; 0 for never.
	requeue time.Duration
}

// acts tells whether the decision changes anything.
func (d *decision) acts() bool {
	return d.statusChanged || len(d.count) > 0 || len(d.stop) > 0 || d.create > 0 || d.remove
}

// tally is the Pods of a Job, sorted by what they mean for it.
type tally struct {
	active, terminating []*podState
	// succeeded and failed are those that the counters do not hold yet.
	succeeded, failed []*podState
}

// decide says what to do for a Job, after the rules of Kubernetes' Job controller. It is pure: applying its answer and
// asking again without news gives no more to do. Elapsed times are differences to now and therefore monotonic as long
// as the times were taken by this process.
func decide(in observed, now time.Time) decision {
	d := decision{status: in.job.Status, retry: in.retry}
	if finished := Finished(in.job); finished != nil {
		d.expire(in.job, finished, now)
		return d
	}
	job := in.job
	t := sortPods(job, in.pods)
	d.retry = in.retry.after(t.succeeded, t.failed)
	succeeded := job.Status.Succeeded + int32(len(t.succeeded))
	failed := job.Status.Failed + countFailures(job, t.failed)
	suspended := ptr.Deref(job.Spec.Suspend, false)
	if job.Status.StartTime == nil && !suspended {
		d.status.StartTime = ptr.To(metav1.NewTime(now))
	}

	outcome := interimOutcome(job)
	if outcome == nil {
		outcome = d.failure(in, t, failed, suspended, now)
	}
	switch {
	case outcome != nil:
		d.stop = t.active
		if outcome.Type == batchv1.JobFailureTarget {
			// From here on every Pod that has not succeeded is a failed one.
			t.failed = append(t.failed, t.active...)
			for _, p := range t.terminating {
				if !p.counted && !p.excluded && !isFailed(job, p) {
					t.failed = append(t.failed, p)
				}
			}
			failed = job.Status.Failed + countFailures(job, t.failed)
		}
	case job.DeletionTimestamp != nil:
		d.stop = t.active
	default:
		d.manage(in, t, succeeded, suspended, now)
	}

	active := len(t.active) - len(d.stop) + d.create
	terminating := len(t.terminating) + len(d.stop)
	if outcome == nil && active == 0 && completed(job, succeeded) {
		outcome = newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached,
			messageCompletionsReached, now)
	}
	d.count = slices.Concat(t.succeeded, t.failed)
	d.status.Succeeded, d.status.Failed = succeeded, failed
	d.status.Active = int32(active)
	d.status.Ready = ptr.To(countReady(t.active) - countReady(d.stop))
	d.status.Terminating = ptr.To(int32(terminating))
	d.conclude(outcome, terminating, suspended, now)
	d.statusChanged = !sameStatus(&job.Status, &d.status)
	return d
}

// expire looks after a finished Job's ttlSecondsAfterFinished.
func (d *decision) expire(job *batchv1.Job, finished *batchv1.JobCondition, now time.Time) {
	if job.Spec.TTLSecondsAfterFinished == nil || job.DeletionTimestamp != nil {
		return
	}
	ttl := time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second
	if left := ttl - elapsed(finished.LastTransitionTime.Time, now); left > 0 {
		d.requeueIn(left)
	} else {
		d.remove = true
	}
}

// failure returns the condition that ends the Job as failed, nil when nothing does; it notes when the deadline passes.
func (d *decision) failure(
	in observed, t tally, failed int32, suspended bool, now time.Time,
) *batchv1.JobCondition {
	job := in.job
	for _, p := range in.pods {
		if p.excluded || !isFailed(job, p) {
			continue
		}
		if action, message := matchFailurePolicy(job.Spec.PodFailurePolicy, p.pod); action ==
			batchv1.PodFailurePolicyActionFailJob {
			return newCondition(batchv1.JobFailureTarget, batchv1.JobReasonPodFailurePolicy, message, now)
		}
	}
	if failed > *job.Spec.BackoffLimit || tooManyRestarts(job, in.pods) {
		return newCondition(batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded,
			messageBackoffLimitExceeded, now)
	}
	if job.Spec.ActiveDeadlineSeconds == nil || suspended {
		return nil
	}
	deadline := time.Duration(*job.Spec.ActiveDeadlineSeconds) * time.Second
	left := deadline - elapsed(d.status.StartTime.Time, now)
	if left <= 0 {
		if completedBy(job, t, d.status.StartTime.Add(deadline)) {
			return nil
		}
		return newCondition(batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, messageDeadlineExceeded, now)
	}
	d.requeueIn(left)
	return nil
}

// manage brings the number of active Pods to what the Job wants.
func (d *decision) manage(in observed, t tally, succeeded int32, suspended bool, now time.Time) {
	job, active := in.job, int32(len(t.active))
	if suspended {
		d.stop, d.exclude = t.active, true
		return
	}
	want := *job.Spec.Parallelism
	if job.Spec.Completions != nil {
		want = max(0, min(want, *job.Spec.Completions-succeeded))
	} else if succeeded > 0 {
		want = active
	}
	if active > want {
		d.stop, d.exclude = leastAdvanced(t.active, int(active-want)), true
		return
	}
	missing := want - active
	if replacesOnlyFailed(job) {
		missing -= int32(len(t.terminating))
	}
	if missing <= 0 || in.hold {
		return
	}
	if wait := d.retry.wait(now); wait > 0 {
		d.requeueIn(wait)
		return
	}
	d.create = int(missing)
}

// conclude writes the conditions: first the one that the outcome is certain, then, when all Pods have ended, the final.
func (d *decision) conclude(outcome *batchv1.JobCondition, terminating int, suspended bool, now time.Time) {
	if outcome == nil {
		d.noteSuspension(suspended, now)
		return
	}
	if findCondition(d.status.Conditions, outcome.Type) == nil {
		d.status.Conditions = append(slices.Clip(d.status.Conditions), *outcome)
	}
	if terminating > 0 {
		return
	}
	final := batchv1.JobFailed
	if outcome.Type == batchv1.JobSuccessCriteriaMet {
		final = batchv1.JobComplete
		d.status.CompletionTime = ptr.To(metav1.NewTime(now))
	}
	d.status.Conditions = append(slices.Clip(d.status.Conditions),
		*newCondition(final, outcome.Reason, outcome.Message, now))
	d.requeue = 0
}

// noteSuspension keeps the condition Suspended and the start time, from which the deadline counts.
func (d *decision) noteSuspension(suspended bool, now time.Time) {
	old := findCondition(d.status.Conditions, batchv1.JobSuspended)
	var next *batchv1.JobCondition
	switch {
	case suspended && (old == nil || old.Status != corev1.ConditionTrue):
		next = newCondition(batchv1.JobSuspended, "JobSuspended", "Job suspended", now)
	case !suspended && old != nil && old.Status == corev1.ConditionTrue:
		next = newCondition(batchv1.JobSuspended, "JobResumed", "Job resumed", now)
		next.Status = corev1.ConditionFalse
	}
	if suspended {
		d.status.StartTime = nil
	}
	if next == nil {
		return
	}
	d.status.Conditions = slices.DeleteFunc(slices.Clone(d.status.Conditions), func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobSuspended
	})
	d.status.Conditions = append(d.status.Conditions, *next)
}

func (d *decision) requeueIn(after time.Duration) {
	if d.requeue == 0 || after < d.requeue {
		d.requeue = after
	}
}

func sortPods(job *batchv1.Job, pods []*podState) tally {
	var t tally
	for _, p := range pods {
		switch {
		case p.active():
			t.active = append(t.active, p)
		case p.terminating():
			t.terminating = append(t.terminating, p)
		}
		if p.counted || p.excluded {
			continue
		}
		if p.pod.Status.Phase == corev1.PodSucceeded {
			t.succeeded = append(t.succeeded, p)
		} else if isFailed(job, p) {
			t.failed = append(t.failed, p)
		}
	}
	return t
}

// completed tells whether enough Pods have succeeded; with completions unset one is enough.
func completed(job *batchv1.Job, succeeded int32) bool {
	if job.Spec.Completions == nil {
		return succeeded > 0
	}
	return succeeded >= *job.Spec.Completions
}

// completedBy tells whether enough Pods had succeeded by then, and no other runs, although that is seen only now: this
// program was dead.
func completedBy(job *batchv1.Job, t tally, at time.Time) bool {
	inTime := job.Status.Succeeded
	for _, p := range t.succeeded {
		if !p.finishedAt.After(at) {
			inTime++
		}
	}
	return len(t.active) == 0 && completed(job, inTime)
}

// isFailed tells whether a Pod is a failed one: it has ended so, or it is being stopped and need not be waited for.
func isFailed(job *batchv1.Job, p *podState) bool {
	if p.pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return p.terminating() && !replacesOnlyFailed(job)
}

// replacesOnlyFailed tells whether a Pod is replaced only when it has ended, not as soon as it is being stopped.
func replacesOnlyFailed(job *batchv1.Job) bool {
	return job.Spec.PodFailurePolicy != nil ||
		ptr.Deref(job.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed
}

// tooManyRestarts compares the restarts of containers that run on with the backoffLimit.
func tooManyRestarts(job *batchv1.Job, pods []*podState) bool {
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var restarts int32
	for _, p := range pods {
		if p.ended() {
			continue
		}
		for i := range p.pod.Status.InitContainerStatuses {
			restarts += p.pod.Status.InitContainerStatuses[i].RestartCount
		}
		for i := range p.pod.Status.ContainerStatuses {
			restarts += p.pod.Status.ContainerStatuses[i].RestartCount
		}
	}
	return restarts > 0 && restarts >= *job.Spec.BackoffLimit
}

// leastAdvanced returns the n Pods that lose the least when they are stopped: those that do not run yet, then the
// youngest.
func leastAdvanced(pods []*podState, n int) []*podState {
	sorted := slices.Clone(pods)
	rank := func(p *podState) int {
		switch {
		case p.pod.Status.Phase != corev1.PodRunning:
			return 0
		case !podReady(p.pod):
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(sorted, func(a, b *podState) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)),
			b.pod.CreationTimestamp.Compare(a.pod.CreationTimestamp.Time))
	})
	return sorted[:n]
}

func countReady(pods []*podState) int32 {
	var n int32
	for _, p := range pods {
		if podReady(p.pod) {
			n++
		}
	}
	return n
}

func podReady(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
