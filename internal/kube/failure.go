package kube

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const (
	// failureWithin is how long it is tried to find out why a Job failed.
	failureWithin = 5 * time.Second
	// failureLines is how many of the last lines of a log are read. A container runtime's line has 16 KiB at the most.
	failureLines = 256
	failureBytes = failureLines * 16 << 10
	// reasonDeleted is the reason of a Job that was deleted before it had ended.
	reasonDeleted = "JobDeleted"
)

// Failure implements scaledjob.Jobs. Pods that have failed are not watched, so they are read here; without the right to
// list them nothing more is found out later.
func (j *jobs) Failure(ctx context.Context, job scaledjob.Job) (queue.Failure, error) {
	failure := queue.Failure{Reason: reasonDeleted, Job: job.Name, At: time.Now()}
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			failure.Reason, failure.Message, failure.At = cmp.Or(c.Reason, string(c.Type)), c.Message, c.LastTransitionTime.Time
		}
	}
	ctx, cancel := context.WithTimeout(ctx, failureWithin)
	defer cancel()
	var pods corev1.PodList
	err := j.reader.List(ctx, &pods, client.InNamespace(job.Namespace),
		client.MatchingLabels{batchv1.JobNameLabel: job.Name})
	if err != nil && !apierrors.IsForbidden(err) {
		return failure, fmt.Errorf("list its Pods: %w", err)
	}
	ofJob := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return jobOf(&pod) != job.UID })
	if failed := lastFailed(ofJob); failed != nil {
		failed.tell(&failure)
		failure.Log = j.logEnd(ctx, failed)
	}
	return failure.Cut(), nil
}

// failedContainer is a container that has ended with an error, or a Pod that has failed without one.
type failedContainer struct {
	pod   *corev1.Pod
	name  string
	ended *corev1.ContainerStateTerminated // nil when no container has failed
	// previous tells that the container was started again since.
	previous bool
}

// lastFailed returns the container that has failed last, of the newest Pod that has one; nil when there is none.
func lastFailed(pods []corev1.Pod) *failedContainer {
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), endOf(&b).Compare(endOf(&a)))
	})
	for i := range pods {
		pod := &pods[i]
		if last := lastFailedOf(pod); last != nil {
			return last
		}
		if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
			return &failedContainer{pod: pod}
		}
	}
	return nil
}

func lastFailedOf(pod *corev1.Pod) (last *failedContainer) {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		for _, state := range []corev1.ContainerState{status.LastTerminationState, status.State} {
			ended := state.Terminated
			if ended == nil || ended.ExitCode == 0 || last != nil && ended.FinishedAt.Time.Before(last.ended.FinishedAt.Time) {
				continue
			}
			last = &failedContainer{pod: pod, name: status.Name, ended: ended, previous: status.State.Terminated == nil}
		}
	}
	return last
}

// endOf is when the last container of the Pod has ended; Pods of one second are told apart by it.
func endOf(pod *corev1.Pod) time.Time {
	var end time.Time
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if ended := status.State.Terminated; ended != nil && ended.FinishedAt.After(end) {
			end = ended.FinishedAt.Time
		}
	}
	return end
}

// tell adds what is known of the container to the failure.
func (f *failedContainer) tell(failure *queue.Failure) {
	add := func(what, reason, message string) {
		words := what + ": " + reason
		if message = strings.TrimSpace(message); message != "" {
			words += ": " + message
		}
		failure.Message = strings.TrimPrefix(failure.Message+"; "+words, "; ")
	}
	if f.ended == nil {
		add("Pod "+f.pod.Name, f.pod.Status.Reason, f.pod.Status.Message)
		return
	}
	failure.ExitCode = ptr.To(int(f.ended.ExitCode))
	signal := f.ended.Signal
	if signal == 0 && f.ended.ExitCode > 128 {
		signal = f.ended.ExitCode - 128
	}
	failure.Signal = unix.SignalName(syscall.Signal(signal))
	// Error is every other exit code; its message is the program's own.
	if reason := f.ended.Reason; reason != "" && reason != "Error" {
		add("container "+f.name, reason, f.ended.Message)
	}
}

// logEnd returns the end of what the container has printed; empty when that cannot be read.
func (j *jobs) logEnd(ctx context.Context, f *failedContainer) string {
	if f.ended == nil || j.pods == nil {
		return ""
	}
	log, err := j.pods.Pods(f.pod.Namespace).GetLogs(f.pod.Name, &corev1.PodLogOptions{
		Container: f.name, Previous: f.previous,
		TailLines: ptr.To[int64](failureLines), LimitBytes: ptr.To[int64](failureBytes),
	}).Stream(ctx)
	if err != nil {
		return ""
	}
	defer func() { _ = log.Close() }()
	var end tail
	_, _ = io.Copy(&end, log) // what was read until an error is better than nothing
	for len(end) > 0 && !utf8.RuneStart(end[0]) {
		end = end[1:]
	}
	return string(end)
}

// tail keeps the end of what is written to it, as much as a failure holds.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-queue.MaxFailureText):]
	return len(p), nil
}
