package jobs

import (
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// reasonInterrupted is the reason of a Pod, its containers and its DisruptionTarget condition.
const (
	reasonInterrupted  = "Interrupted"
	messageInterrupted = "offboard ended without warning while the Pod ran; the next start ended what was left of it"
)

// interrupt ends the Pods that were running when the previous run ended, of which nothing runs any more. One whose
// containers have all ended by themselves has the outcome that was recorded; any other has failed.
func (c *Controller) interrupt(r *record, now time.Time) {
	var exits recordedExits
	for _, p := range r.pods {
		if p.ended() {
			continue
		}
		if exits == nil && r.settles {
			exits = c.readExits(r)
		}
		if !p.conclude(exits[string(p.pod.UID)], now) {
			p.fail(reasonInterrupted, messageInterrupted, now, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
				Reason: reasonInterrupted, Message: messageInterrupted,
			})
		}
	}
	c.save(r) // if that fails, the Job's first turn tries again
}

// recordedExits are the last recorded runs of containers, by the UID of the Pod and the container's name.
type recordedExits map[string]map[string]*process.RecordedExit

func (c *Controller) readExits(r *record) recordedExits {
	list, err := process.ReadExits(filepath.Join(r.journal.dir, exitsFile))
	if err != nil {
		c.cfg.Log.Error("How the containers of a Job ended cannot be read; they count as failed",
			"namespace", r.key.Namespace, "job", r.key.Name, "error", err)
	}
	exits := recordedExits{}
	for i := range list {
		e := &list[i]
		if exits[e.Label] == nil {
			exits[e.Label] = map[string]*process.RecordedExit{}
		}
		if last := exits[e.Label][e.Container]; last == nil || e.Restarts >= last.Restarts {
			exits[e.Label][e.Container] = e
		}
	}
	return exits
}

// conclude gives a Pod without processes the outcome that follows from how its containers have ended. It tells whether
// there is one: not when a container has not run to its end by itself, but what is recorded is noted then, too.
func (p *podState) conclude(exits map[string]*process.RecordedExit, now time.Time) bool {
	if len(exits) == 0 {
		return false
	}
	pod := *p.pod
	pod.Status = *p.pod.Status.DeepCopy()
	spec, status := &pod.Spec, &pod.Status
	status.InitContainerStatuses = withExits(spec.InitContainers, status.InitContainerStatuses, exits)
	status.ContainerStatuses = withExits(spec.Containers, status.ContainerStatuses, exits)
	p.pod = &pod

	outcome, ok := outcomeOf(status, exits)
	if !ok {
		return false
	}
	status.Phase = outcome
	finishConditions(status, now)
	at := lastExit(exits)
	if at.After(now) {
		at = now // the wall clock was set back
	}
	p.setStatus(status, at)
	return true
}

// outcomeOf returns the phase that follows from containers which have ended, as on a Pod that runs; it is not ok when
// that is not known.
func outcomeOf(status *corev1.PodStatus, exits map[string]*process.RecordedExit) (outcome corev1.PodPhase, ok bool) {
	byItself := func(s *corev1.ContainerStatus) bool {
		e := exits[s.Name]
		return s.State.Terminated != nil && (e == nil || !e.Stopped)
	}
	for i := range status.InitContainerStatuses {
		s := &status.InitContainerStatuses[i]
		if !byItself(s) {
			return "", false
		}
		if s.State.Terminated.ExitCode != 0 {
			return corev1.PodFailed, true // nothing that comes after it was started
		}
	}
	outcome = corev1.PodSucceeded
	for i := range status.ContainerStatuses {
		s := &status.ContainerStatuses[i]
		if !byItself(s) {
			return "", false
		}
		if s.State.Terminated.ExitCode != 0 {
			outcome = corev1.PodFailed
		}
	}
	return outcome, true
}

// withExits returns the statuses of all containers, with how they have ended where that is recorded.
func withExits(
	containers []corev1.Container, old []corev1.ContainerStatus, exits map[string]*process.RecordedExit,
) []corev1.ContainerStatus {
	statuses := make([]corev1.ContainerStatus, len(containers))
	for i := range containers {
		s := &statuses[i]
		*s = corev1.ContainerStatus{Name: containers[i].Name, Image: containers[i].Image}
		if known := slices.IndexFunc(old, func(s corev1.ContainerStatus) bool {
			return s.Name == containers[i].Name
		}); known >= 0 {
			*s = old[known]
		}
		if e := exits[s.Name]; e != nil && e.Restarts >= s.RestartCount {
			exit := e.Exit()
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: int32(exit.Code), Signal: int32(exit.Signal), Reason: exit.Reason(),
				StartedAt: metav1.NewTime(exit.StartedAt), FinishedAt: metav1.NewTime(exit.FinishedAt),
				ContainerID: s.ContainerID,
			}}
			if e.Stopped {
				s.State.Terminated.Reason, s.State.Terminated.Message = reasonInterrupted, messageInterrupted
			}
			s.RestartCount, s.Ready, s.Started = e.Restarts, false, ptr.To(false)
		}
	}
	return statuses
}

func lastExit(exits map[string]*process.RecordedExit) time.Time {
	var last time.Time
	for _, e := range exits {
		if e.FinishedAt.After(last) {
			last = e.FinishedAt
		}
	}
	return last
}

// finishConditions brings the conditions in line with a Pod that has ended by itself.
func finishConditions(status *corev1.PodStatus, now time.Time) {
	reason := "PodCompleted"
	if status.Phase == corev1.PodFailed {
		reason = "PodFailed"
	}
	for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		at := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		if at < 0 {
			at = len(status.Conditions)
			status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind})
		}
		c := &status.Conditions[at]
		c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionFalse, reason, "", metav1.NewTime(now)
	}
}
