package jobs

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// podState is a Pod with what decisions need beyond the API object.
type podState struct {
	// pod is shared with readers: it is replaced, never modified.
	pod *corev1.Pod
	// finishedAt is when the Pod was seen to have ended, or did end by what was recorded; zero before.
	finishedAt time.Time
	// counted tells that the Job's counters account for the Pod already.
	counted bool
	// excluded tells that the Pod was stopped because the Job wants fewer (suspension, parallelism): it never counts.
	excluded bool
	// shell belongs to the part that carries decisions out; decide does not look at it.
	shell podShell
}

func (p *podState) ended() bool { return hasEnded(p.pod) }

func (p *podState) active() bool { return !p.ended() && p.pod.DeletionTimestamp == nil }

func (p *podState) terminating() bool { return !p.ended() && p.pod.DeletionTimestamp != nil }

// podShell is what carrying out decisions needs to know of a Pod.
type podShell struct {
	// started tells that the Pod runner has the Pod.
	started bool
	// stopping tells that the Pod runner has been asked to stop it.
	stopping bool
	// processes are the last that were started, by container.
	processes map[string]process.Recorded
	// changed tells that readers see an older state, unsaved that the disk must have the new one before they do: a
	// running Pod's state is worth nothing after a crash, its processes and its outcome are.
	changed, unsaved bool
}

// setStatus gives the Pod a new status, which must not be changed afterwards; now is when it came about.
func (p *podState) setStatus(status *corev1.PodStatus, now time.Time) {
	pod := *p.pod
	pod.Status = *status
	p.shell.changed = true
	p.shell.unsaved = p.shell.unsaved || status.Phase != p.pod.Status.Phase
	p.pod = &pod
	if p.ended() {
		p.finishedAt = now
		p.shell.processes = nil
	}
}

// fail ends a Pod that has no processes, with more conditions.
func (p *podState) fail(reason, message string, now time.Time, conditions ...corev1.PodCondition) {
	status := p.pod.Status.DeepCopy()
	status.Phase, status.Reason, status.Message = corev1.PodFailed, reason, message
	for _, statuses := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		for i := range statuses {
			endContainer(&statuses[i], reason, message, now)
		}
	}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
			c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionFalse, "PodFailed", metav1.NewTime(now)
		}
	}
	status.Conditions = append(status.Conditions, conditions...)
	p.setStatus(status, now)
}

// exitCodeKilled is the exit code of a process that SIGKILL ended.
const exitCodeKilled = 137

func endContainer(s *corev1.ContainerStatus, reason, message string, now time.Time) {
	if s.State.Running == nil {
		return
	}
	s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: exitCodeKilled, Reason: reason, Message: message,
		StartedAt: s.State.Running.StartedAt, FinishedAt: metav1.NewTime(now), ContainerID: s.ContainerID,
	}}
	s.Ready, s.Started = false, ptr.To(false)
}

// markStopped notes that the Pod is to end.
func (p *podState) markStopped(now time.Time) {
	pod := *p.pod
	grace := gracePeriod(&pod)
	pod.DeletionTimestamp = ptr.To(metav1.NewTime(now.Add(grace)))
	pod.DeletionGracePeriodSeconds = ptr.To(int64(grace / time.Second))
	p.pod = &pod
	p.shell.unsaved = true
	if !p.shell.started {
		p.fail("Stopped", "The Pod was stopped before its processes were started", now)
	}
}

// settled tells that nothing depends on the Pod any more.
func (p *podState) settled() bool { return p.ended() && (p.counted || p.excluded) }

func (p *podState) entry() podEntry {
	return podEntry{
		UID: p.pod.UID, Name: p.pod.Name, Created: p.pod.CreationTimestamp, Deleted: p.pod.DeletionTimestamp,
		Status: &p.pod.Status, FinishedAt: p.finishedAt, Counted: p.counted, Excluded: p.excluded,
		Processes: p.shell.processes,
	}
}

// hasEnded tells whether the Pod has ended.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
