package jobs

import (
	"context"
	"slices"
	"syscall"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	items "github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// A Job that was deleted before it had ended.
const (
	reasonDeleted  = "JobDeleted"
	messageDeleted = "the Job was deleted before it had ended"
)

// Failure tells why a Job did not succeed. What cannot be found out is left empty.
func (c *Controller) Failure(_ context.Context, job scaledjob.Job) (items.Failure, error) {
	failure := items.Failure{Job: job.Name, At: c.cfg.Clock.Now()}
	finished := Finished(job.Job)
	if finished != nil {
		failure.Reason, failure.Message = finished.Reason, finished.Message
		failure.At = finished.LastTransitionTime.Time
	}
	if deletedFirst(job, finished) {
		failure.Reason, failure.Message = reasonDeleted, messageDeleted
	}
	for _, pod := range slices.Backward(job.Pods) {
		if last := lastFailed(pod, failure.Reason); last != nil {
			c.describe(&failure, pod, last)
			return failure.Cut(), nil
		}
	}
	if len(job.Pods) > 0 {
		describeWaiting(&failure, job.Pods[len(job.Pods)-1])
	}
	return failure.Cut(), nil
}

// describe adds how the container ended, and what it printed last.
func (c *Controller) describe(failure *items.Failure, pod *corev1.Pod, run *failedRun) {
	failure.ExitCode = ptr.To(int(run.ended.ExitCode))
	failure.Signal = process.Exit{Signal: syscall.Signal(run.ended.Signal)}.SignalName()
	if run.ended.Message != "" { // for example that there is no such program
		failure.Message += "; container " + run.container + ": " + run.ended.Message
	}
	if tail, err := logs.Tail(c.LogPath(pod, run.container, run.restarts), items.MaxFailureText); err == nil {
		failure.Log = string(tail)
	}
}

// describeWaiting adds why containers of a Pod were never started.
func describeWaiting(failure *items.Failure, pod *corev1.Pod) {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Waiting != nil && s.State.Waiting.Message != "" {
			failure.Message += "; container " + s.Name + ": " + s.State.Waiting.Message
		}
	}
}

// deletedFirst tells whether the Job was being deleted when it ended: that its Pods were ended for it counts as their
// failure, and so can be the Job's.
func deletedFirst(job scaledjob.Job, finished *batchv1.JobCondition) bool {
	if job.DeletionTimestamp == nil || finished == nil {
		return job.DeletionTimestamp != nil
	}
	// The times are to the second once they have been on disk.
	return finished.LastTransitionTime.After(job.DeletionTimestamp.Time) ||
		slices.ContainsFunc(job.Pods, func(pod *corev1.Pod) bool {
			return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == reasonDeleted
		})
}

// failedRun is one run of a container that has failed.
type failedRun struct {
	container string
	restarts  int32
	ended     *corev1.ContainerStateTerminated
}

// lastFailed returns the run of a container of the Pod that failed last; nil when none has.
func lastFailed(pod *corev1.Pod, reason string) *failedRun {
	var last *failedRun
	var at time.Time
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for i := range statuses {
		run := failedRunOf(&statuses[i], pod, reason)
		if run != nil && (last == nil || run.ended.FinishedAt.After(at)) {
			last, at = run, run.ended.FinishedAt.Time
		}
	}
	return last
}

func failedRunOf(s *corev1.ContainerStatus, pod *corev1.Pod, reason string) *failedRun {
	ended, before := s.State.Terminated, s.LastTerminationState.Terminated
	// A container that was restarted too often had failed before, and was then only stopped.
	stopped := pod.DeletionTimestamp != nil && reason == batchv1.JobReasonBackoffLimitExceeded
	switch {
	case ended != nil && ended.ExitCode != 0 && !(stopped && failed(before)):
		return &failedRun{s.Name, s.RestartCount, ended}
	case !failed(before):
		return nil
	case s.State.Waiting != nil && s.State.Waiting.Reason == pods.ReasonCrashLoop: // not counted as restarted yet
		return &failedRun{s.Name, s.RestartCount, before}
	default:
		return &failedRun{s.Name, max(0, s.RestartCount-1), before}
	}
}

func failed(ended *corev1.ContainerStateTerminated) bool { return ended != nil && ended.ExitCode != 0 }
