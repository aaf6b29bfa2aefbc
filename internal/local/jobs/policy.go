package jobs

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// countFailures counts the failed Pods that the Job's podFailurePolicy does not ignore.
func countFailures(job *batchv1.Job, failed []*podState) int32 {
	var n int32
	for _, p := range failed {
		if action, _ := matchFailurePolicy(job.Spec.PodFailurePolicy, p.pod); action !=
			batchv1.PodFailurePolicyActionIgnore {
			n++
		}
	}
	return n
}

// matchFailurePolicy returns the action of the first rule that the Pod matches and, for FailJob, the message of the
// Job's condition. Without a match the failure counts.
func matchFailurePolicy(policy *batchv1.PodFailurePolicy, pod *corev1.Pod) (batchv1.PodFailurePolicyAction, string) {
	if policy == nil {
		return batchv1.PodFailurePolicyActionCount, ""
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		what := ""
		if rule.OnExitCodes != nil {
			if s := matchExitCodes(pod, rule.OnExitCodes); s != nil {
				what = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", s.Name, pod.Namespace, pod.Name,
					s.State.Terminated.ExitCode)
			}
		} else if c := matchPodConditions(pod, rule.OnPodConditions); c != nil {
			what = fmt.Sprintf("Pod %s/%s has condition %s", pod.Namespace, pod.Name, c.Type)
		}
		if what != "" {
			return rule.Action, fmt.Sprintf("%s matching %s rule at index %d", what, rule.Action, i)
		}
	}
	return batchv1.PodFailurePolicyActionCount, ""
}

// matchExitCodes returns the container whose exit code the rule means, nil when there is none. A container that has
// succeeded or still runs matches nothing.
func matchExitCodes(pod *corev1.Pod, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			s := &statuses[i]
			if s.State.Terminated == nil || s.State.Terminated.ExitCode == 0 ||
				(rule.ContainerName != nil && *rule.ContainerName != s.Name) {
				continue
			}
			listed := slices.Contains(rule.Values, s.State.Terminated.ExitCode)
			if listed == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return s
			}
		}
	}
	return nil
}

func matchPodConditions(pod *corev1.Pod, rules []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		for _, rule := range rules {
			if c.Type == rule.Type && c.Status == rule.Status {
				return c
			}
		}
	}
	return nil
}
