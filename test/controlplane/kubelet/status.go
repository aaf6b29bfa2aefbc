package kubelet

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Reasons in the words of Kubernetes.
const (
	reasonImagePull = "ErrImagePull"
	reasonLost      = "ContainerStatusUnknown"
)

// started tells whether a kubelet has already started something of the Pod.
func started(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses),
		func(s corev1.ContainerStatus) bool { return s.ContainerID != "" })
}

// withoutCommand returns the name of a container that has no command, and nor has its image, or nothing.
func (k *Kubelet) withoutCommand(pod *corev1.Pod) string {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if len(container.Command) == 0 && len(k.options.Entrypoints[container.Image]) == 0 {
			return container.Name
		}
	}
	return ""
}

// lost is the status of a Pod whose containers a kubelet before this one has started. They are gone, and nobody can
// tell how they ended.
func lost(pod *corev1.Pod) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.Phase = corev1.PodFailed
	now := metav1.Now()
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		for i := range list {
			if list[i].State.Terminated != nil {
				continue
			}
			list[i].Ready = false
			list[i].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: reasonLost, FinishedAt: now, ContainerID: list[i].ContainerID,
				Message: "The container could not be located when the kubelet was started again",
			}}
		}
	}
	notReady(&status, "PodFailed")
	return status
}

// unstarted is the status of a Pod of which nothing was started. The containers wait with the reason; none if it is
// empty.
func unstarted(pod *corev1.Pod, phase corev1.PodPhase, reason, message string) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	now := metav1.Now()
	status.Phase, status.StartTime = phase, &now
	if reason != "" {
		state := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
		for _, container := range pod.Spec.Containers {
			status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
				Name: container.Name, Image: container.Image, State: state, Started: new(bool),
			})
		}
	}
	notReady(&status, "ContainersNotReady")
	return status
}

// ended is the last status of a Pod that was deleted. It succeeded if all its containers did, although it was told to
// stop: that is for its own exit codes to say.
func ended(status corev1.PodStatus) corev1.PodStatus {
	if status.Phase != corev1.PodFailed || status.Reason != "" || len(status.ContainerStatuses) == 0 {
		return status
	}
	for _, s := range slices.Concat(status.InitContainerStatuses, status.ContainerStatuses) {
		if s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
			return status
		}
	}
	status = *status.DeepCopy()
	status.Phase = corev1.PodSucceeded
	notReady(&status, "PodCompleted")
	return status
}

// notReady sets the conditions of a Pod that is not ready.
func notReady(status *corev1.PodStatus, reason string) {
	now := metav1.Now()
	for _, kind := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		condition := corev1.PodCondition{
			Type: kind, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: now,
		}
		i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		if i < 0 {
			status.Conditions = append(status.Conditions, condition)
			continue
		}
		if status.Conditions[i].Status == corev1.ConditionFalse {
			condition.LastTransitionTime = status.Conditions[i].LastTransitionTime
		}
		status.Conditions[i] = condition
	}
}

// patch returns the strategic merge patch that makes the status of the Pod this one. Conditions of other types stay:
// they are others' to report, as PodScheduled is the scheduler's.
func patch(uid types.UID, status corev1.PodStatus) ([]byte, error) {
	conditions := make([]map[string]any, 0, len(status.Conditions))
	for _, c := range status.Conditions {
		if c.Type == corev1.PodScheduled {
			continue
		}
		// What is left out would stay as it was.
		conditions = append(conditions, map[string]any{
			"type": c.Type, "status": c.Status, "lastTransitionTime": c.LastTransitionTime,
			"reason": orNull(c.Reason), "message": orNull(c.Message),
		})
	}
	status.Conditions = nil
	encoded, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return nil, fmt.Errorf("encode the status: %w", err)
	}
	fields["conditions"] = conditions
	// A patch for a Pod of the same name that came later is refused.
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": fields})
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
