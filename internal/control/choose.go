package control

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Choose returns the Pod and the container of the Job that the options mean, and that container's status, which is
// empty before the container was ever looked at. The error is NotFound.
func (o LogOptions) Choose(job JobInfo) (*corev1.Pod, corev1.ContainerStatus, error) {
	pod, err := o.choosePod(job)
	if err != nil {
		return nil, corev1.ContainerStatus{}, err
	}
	var names []string
	for i, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		names = append(names, container.Name)
		if o.Container != container.Name && (o.Container != "" || i > 0) {
			continue
		}
		for _, status := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
			if status.Name == container.Name {
				return pod, status, nil
			}
		}
		return pod, corev1.ContainerStatus{Name: container.Name}, nil
	}
	return nil, corev1.ContainerStatus{}, Errorf(NotFound,
		"Pod %s has no container %q; it has %s", pod.Name, o.Container, strings.Join(names, ", "))
}

func (o LogOptions) choosePod(job JobInfo) (*corev1.Pod, error) {
	for _, pod := range slices.Backward(job.Pods) {
		if o.Pod == "" || pod.Name == o.Pod {
			return pod, nil
		}
	}
	if o.Pod == "" {
		return nil, Errorf(NotFound, "Job %s has had no Pod yet", job.Job.Name)
	}
	return nil, Errorf(NotFound, "Job %s has no Pod %s", job.Job.Name, o.Pod)
}
