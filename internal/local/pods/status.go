package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// computeStatus brings the status in line with the containers. The Pod's mu is held.
func (p *pod) computeStatus(now metav1.Time) {
	s := &p.status
	s.InitContainerStatuses = containerStatuses(p.init)
	s.ContainerStatuses = containerStatuses(p.main)
	s.Phase = p.phase()
	if p.finished && p.stop != nil {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, p.stop.Reason, p.stop.Message
	}
	p.setCondition(now, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	p.setCondition(now, p.initialized())
	ready := p.ready()
	ready.Type = corev1.ContainersReady
	p.setCondition(now, ready)
	ready.Type = corev1.PodReady
	p.setCondition(now, ready)
	if p.finished && p.stop != nil && p.stop.Disruption {
		p.setCondition(now, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: p.stop.Reason, Message: p.stop.Message,
		})
	}
}

func containerStatuses(containers []*container) []corev1.ContainerStatus {
	statuses := make([]corev1.ContainerStatus, 0, len(containers))
	for _, c := range containers {
		started := c.state.Running != nil
		statuses = append(statuses, corev1.ContainerStatus{
			Name:                 c.spec.Name,
			State:                c.state,
			LastTerminationState: c.last,
			// Without a probe, a container is ready while it runs, and an init container when it has succeeded.
			Ready:        started && !c.init || c.init && c.succeeded(),
			RestartCount: c.restarts,
			Image:        c.spec.Image,
			ContainerID:  c.id,
			Started:      &started,
		})
	}
	return statuses
}

func (c *container) succeeded() bool {
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// phase follows the kubelet: a Pod is Pending until every container has been started once, and has finished when none
// will be started again.
func (p *pod) phase() corev1.PodPhase {
	if p.finished {
		for _, list := range [][]*container{p.init, p.main} {
			for _, c := range list {
				if !c.succeeded() {
					return corev1.PodFailed
				}
			}
		}
		return corev1.PodSucceeded
	}
	for _, c := range p.main {
		if c.state.Waiting != nil && c.last.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

func (p *pod) initialized() corev1.PodCondition {
	condition := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var incomplete []string
	for _, c := range p.init {
		if !c.succeeded() {
			incomplete = append(incomplete, c.spec.Name)
		}
	}
	switch {
	case len(incomplete) > 0:
		condition.Status, condition.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		condition.Message = fmt.Sprintf("init containers that have not succeeded: %v", incomplete)
	case p.status.Phase == corev1.PodSucceeded:
		condition.Reason = "PodCompleted"
	}
	return condition
}

// ready is the condition of all containers, which without readiness gates is the Pod's too.
func (p *pod) ready() corev1.PodCondition {
	var unready []string
	for _, c := range p.main {
		if c.state.Running == nil {
			unready = append(unready, c.spec.Name)
		}
	}
	condition := corev1.PodCondition{Status: corev1.ConditionFalse}
	switch {
	case p.status.Phase == corev1.PodSucceeded:
		condition.Reason = "PodCompleted"
	case p.status.Phase == corev1.PodFailed:
		condition.Reason = "PodFailed"
	case len(unready) > 0:
		condition.Reason = "ContainersNotReady"
		condition.Message = fmt.Sprintf("containers that do not run: %v", unready)
	default:
		condition.Status = corev1.ConditionTrue
	}
	return condition
}

// setCondition replaces the condition of the type, and keeps its time unless its status changes.
func (p *pod) setCondition(now metav1.Time, condition corev1.PodCondition) {
	condition.LastTransitionTime = now
	for i, old := range p.status.Conditions {
		if old.Type == condition.Type {
			if old.Status == condition.Status {
				condition.LastTransitionTime = old.LastTransitionTime
			}
			p.status.Conditions[i] = condition
			return
		}
	}
	p.status.Conditions = append(p.status.Conditions, condition)
}
