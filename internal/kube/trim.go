package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// The caches hold only what is read, so that their size is a few hundred bytes for each Job and Pod there is, whatever
// the templates are.

// settleFinalizers are those of a trimmed Job that has the one that counts.
var settleFinalizers = []string{v1alpha1.FinalizerSettle}

// trimJob keeps what a decision needs of a Job.
func trimJob(job *batchv1.Job) *batchv1.Job {
	trimmed := &batchv1.Job{
		ObjectMeta: trimMeta(&job.ObjectMeta),
		Spec:       batchv1.JobSpec{Suspend: job.Spec.Suspend},
		Status: batchv1.JobStatus{
			StartTime: job.Status.StartTime, CompletionTime: job.Status.CompletionTime,
			Active: job.Status.Active, Succeeded: job.Status.Succeeded, Failed: job.Status.Failed,
		},
	}
	trimmed.Labels = pick(job.Labels, v1alpha1.LabelScaledJob)
	trimmed.Annotations = pick(job.Annotations, v1alpha1.AnnotationGeneration, v1alpha1.AnnotationItemID,
		v1alpha1.AnnotationAttempt, v1alpha1.AnnotationQueue, annotationItemSecrets,
		annotationCreator)
	if controllerutil.ContainsFinalizer(job, v1alpha1.FinalizerSettle) {
		trimmed.Finalizers = settleFinalizers
	}
	for _, c := range job.Status.Conditions {
		condition := batchv1.JobCondition{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime}
		if c.Type == batchv1.JobFailed {
			condition.Reason, condition.Message = c.Reason, c.Message
		}
		trimmed.Status.Conditions = append(trimmed.Status.Conditions, condition)
	}
	return trimmed
}

// trimPod keeps what tells whether a Pod runs.
func trimPod(pod *corev1.Pod) *corev1.Pod {
	trimmed := &corev1.Pod{
		ObjectMeta: trimMeta(&pod.ObjectMeta),
		Status:     corev1.PodStatus{Phase: pod.Status.Phase, StartTime: pod.Status.StartTime},
	}
	trimmed.OwnerReferences = pod.OwnerReferences
	for _, c := range pod.Status.Conditions {
		trimmed.Status.Conditions = append(trimmed.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
	}
	return trimmed
}

// trimEvent keeps what the Job controller said about which Job.
func trimEvent(event *corev1.Event) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: event.Namespace, Name: event.Name, UID: event.UID, ResourceVersion: event.ResourceVersion,
		},
		InvolvedObject: corev1.ObjectReference{UID: event.InvolvedObject.UID, Name: event.InvolvedObject.Name},
		Message:        event.Message,
	}
}

// trimMeta keeps what identifies an object and tells whether it is being deleted.
func trimMeta(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
		CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp,
	}
}

func pick(from map[string]string, keys ...string) map[string]string {
	var picked map[string]string
	for _, key := range keys {
		if value, found := from[key]; found {
			if picked == nil {
				picked = map[string]string{}
			}
			picked[key] = value
		}
	}
	return picked
}

// sameJob tells whether two versions of a trimmed Job differ in nothing but their version.
func sameJob(a, b *batchv1.Job) bool {
	return (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec) && equality.Semantic.DeepEqual(a.Status, b.Status) &&
		maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Finalizers, b.Finalizers)
}

// samePod tells whether two versions of a trimmed Pod differ in nothing but their version.
func samePod(a, b *corev1.Pod) bool {
	return a.Status.Phase == b.Status.Phase && a.Status.StartTime.Equal(b.Status.StartTime) &&
		slices.Equal(a.Status.Conditions, b.Status.Conditions)
}

// strip makes a transform for a cache out of a function that trims one type. managedFields and kubectl's own record of
// the manifest are read by nobody here.
func strip[T any](trim func(T) T) func(any) (any, error) {
	return func(object any) (any, error) {
		typed, ok := object.(T)
		if !ok {
			return nil, fmt.Errorf("the cache of %T was given a %T", typed, object)
		}
		return trim(typed), nil
	}
}

// rawScaledJob is a ScaledJob as the server sends it. They are watched so because a list that is read as the Go type
// fails as a whole when one of them does not fit, and some definitions let pass what does not: larger numbers, for
// example.
func rawScaledJob() *unstructured.Unstructured {
	raw := &unstructured.Unstructured{}
	raw.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
	return raw
}

// readScaledJob makes a trimmed ScaledJob of one as the server sends it. One that does not fit stays as it is.
func readScaledJob(object any) (any, error) {
	if raw, ok := object.(*unstructured.Unstructured); ok {
		raw.SetManagedFields(nil) // half of the text
		if sj, err := toScaledJob(raw); err == nil {
			return trimScaledJob(sj), nil
		}
	}
	return object, nil
}

func toScaledJob(raw any) (*v1alpha1.ScaledJob, error) {
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	sj := &v1alpha1.ScaledJob{}
	return sj, json.Unmarshal(text, sj)
}

// trimScaledJob drops what is only a record of how the object was written.
func trimScaledJob(sj *v1alpha1.ScaledJob) *v1alpha1.ScaledJob {
	sj.ManagedFields = nil
	delete(sj.Annotations, corev1.LastAppliedConfigAnnotation)
	return sj
}

// nameless replaces the random name of one object in a server's words by what it was generated from, so that the same
// refusal of another object reads the same.
func nameless(words, name, generatedFrom string) string {
	if name == "" {
		return words
	}
	return strings.ReplaceAll(words, name, generatedFrom)
}

// quoted returns the first name in quotes that begins with the prefix; empty when there is none.
func quoted(words, prefix string) string {
	_, rest, found := strings.Cut(words, `"`+prefix)
	if !found {
		return ""
	}
	suffix, _, found := strings.Cut(rest, `"`)
	if !found {
		return ""
	}
	return prefix + suffix
}
