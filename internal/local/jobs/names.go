package jobs

import (
	"crypto/rand"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

// suffixLength is the number of random characters at the end of a generated name.
const suffixLength = 5

// generatedBase is the part of a generated name before its random characters, shortened as the API server does it.
func generatedBase(prefix string) string {
	return prefix[:min(len(prefix), validation.LabelValueMaxLength-suffixLength)]
}

func generateName(prefix string) string { return generatedBase(prefix) + utilrand.String(suffixLength) }

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() types.UID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// labelPods sets the Job's selector and the labels by which its Pods are found.
func labelPods(job *batchv1.Job) {
	uid := string(job.UID)
	job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}
	labels := make(map[string]string, len(job.Spec.Template.Labels)+4)
	for k, v := range job.Spec.Template.Labels {
		labels[k] = v
	}
	labels[batchv1.JobNameLabel], labels["job-name"] = job.Name, job.Name
	labels[batchv1.ControllerUidLabel], labels["controller-uid"] = uid, uid
	job.Spec.Template.Labels = labels
}

// newPod makes the next Pod of a Job. It shares the template with the Job: neither is ever modified.
func newPod(job *batchv1.Job, name string, uid types.UID, now time.Time) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, Name: name, GenerateName: job.Name + "-", UID: uid,
			CreationTimestamp: metav1.NewTime(now),
			Labels:            job.Spec.Template.Labels, Annotations: job.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Name: job.Name, UID: job.UID,
				Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
			}},
		},
		Spec:   job.Spec.Template.Spec,
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
}

// gracePeriod is the time that the Pod has between SIGTERM and SIGKILL.
func gracePeriod(pod *corev1.Pod) time.Duration {
	seconds := ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	return time.Duration(seconds) * time.Second
}
