package kube

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// ballast is in everything of a fat object that nobody reads.
const ballast = "ballast"

var when = metav1.NewTime(time.Unix(1_700_000_000, 0))

// fatMeta is the metadata of an object as others write it.
func fatMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, GenerateName: ballast, UID: "uid", ResourceVersion: "7", Generation: 3,
		CreationTimestamp: when, DeletionTimestamp: &when, DeletionGracePeriodSeconds: ptr.To[int64](30),
		Labels:      map[string]string{v1alpha1.LabelScaledJob: "usertask", "team": ballast},
		Annotations: map[string]string{v1alpha1.AnnotationGeneration: "2", "note": ballast},
		Finalizers:  []string{ballast},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: ballast, FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:` + ballast + `":{}}`)},
		}},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "batch/v1", Kind: "Job", Name: "owner", UID: "job", Controller: ptr.To(true),
		}},
	}
}

// thinMeta is what is kept of it.
func thinMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: "uid", ResourceVersion: "7", CreationTimestamp: when, DeletionTimestamp: &when,
	}
}

// fatSpec is a Pod's, with large values.
func fatSpec() corev1.PodSpec {
	return corev1.PodSpec{
		NodeName: ballast,
		Containers: []corev1.Container{{
			Name: "main", Image: ballast, Args: slices.Repeat([]string{ballast}, 1000),
			Env: []corev1.EnvVar{{Name: "PASSWORD", Value: ballast}},
		}},
	}
}

// TestTrim holds what the caches keep of fat objects against what is read.
func TestTrim(t *testing.T) {
	t.Parallel()
	job := &batchv1.Job{
		ObjectMeta: fatMeta("job"),
		Spec: batchv1.JobSpec{
			Suspend: ptr.To(true), Parallelism: ptr.To[int32](1), BackoffLimit: ptr.To[int32](5),
			Template: corev1.PodTemplateSpec{Spec: fatSpec()},
		},
		Status: batchv1.JobStatus{
			StartTime: &when, CompletionTime: &when, Active: 1, Succeeded: 2, Failed: 3, CompletedIndexes: ballast,
			Conditions: []batchv1.JobCondition{{
				Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: when, LastProbeTime: when,
				Reason: ballast, Message: ballast,
			}},
		},
	}
	thinJob := &batchv1.Job{
		ObjectMeta: thinMeta("job"), Spec: batchv1.JobSpec{Suspend: ptr.To(true)},
		Status: batchv1.JobStatus{
			StartTime: &when, CompletionTime: &when, Active: 1, Succeeded: 2, Failed: 3,
			Conditions: []batchv1.JobCondition{{
				Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: when,
			}},
		},
	}
	thinJob.Labels = map[string]string{v1alpha1.LabelScaledJob: "usertask"}
	thinJob.Annotations = map[string]string{v1alpha1.AnnotationGeneration: "2"}

	pod := &corev1.Pod{
		ObjectMeta: fatMeta("pod"), Spec: fatSpec(),
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &when, Message: ballast, HostIP: ballast,
			Conditions: []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: when, Message: ballast,
			}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ImageID: ballast}},
		},
	}
	thinPod := &corev1.Pod{
		ObjectMeta: thinMeta("pod"),
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &when,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	thinPod.OwnerReferences = pod.OwnerReferences

	event := &corev1.Event{
		ObjectMeta: fatMeta("event"), Reason: podsRefused, Message: "exceeded quota", Count: 1000, LastTimestamp: when,
		InvolvedObject: corev1.ObjectReference{
			Kind: "Job", Namespace: "shop", Name: "job", UID: "job", FieldPath: ballast,
		},
		Source:              corev1.EventSource{Component: ballast},
		ReportingController: ballast,
	}
	thinEvent := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "shop", Name: "event", UID: "uid", ResourceVersion: "7"},
		InvolvedObject: corev1.ObjectReference{Name: "job", UID: "job"}, Message: "exceeded quota",
	}

	for _, test := range []struct{ fat, want client.Object }{{job, thinJob}, {pod, thinPod}, {event, thinEvent}} {
		how := cached(t, caches(nil, labels.Everything()), test.fat)
		got, err := how.Transform(test.fat)
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(got, test.want) {
			t.Errorf("%T: kept %s,\nwant %s", test.fat, text(t, got), text(t, test.want))
		}
		if text := text(t, got); strings.Contains(text, ballast) || len(text) > 1000 {
			t.Errorf("%T: %d bytes are kept: %s", test.fat, len(text), text)
		}
		if again, err := how.Transform(got); err != nil || !equality.Semantic.DeepEqual(again, test.want) {
			t.Errorf("%T: trimmed again %s, %v", test.fat, text(t, again), err)
		}
		if _, err := how.Transform(&corev1.Secret{}); err == nil {
			t.Errorf("the cache of %T takes a Secret", test.fat)
		}
	}
}

func text(t *testing.T, object any) string {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// cached returns how objects of the kind are cached.
func cached(t *testing.T, options cache.Options, kind client.Object) cache.ByObject {
	t.Helper()
	for object, how := range options.ByObject {
		if reflect.TypeOf(object) == reflect.TypeOf(kind) {
			return how
		}
	}
	t.Fatalf("%T is not cached", kind)
	return cache.ByObject{}
}

// TestCaches asks the selectors what they let through: nothing that is of no ScaledJob, and no Secret at all.
func TestCaches(t *testing.T) {
	t.Parallel()
	selector := labels.SelectorFromSet(labels.Set{"tier": "background"})
	options := caches([]string{"shop", "billing"}, selector)
	if len(options.ByObject) != 4 {
		t.Errorf("%d kinds are cached with a selector, want 4", len(options.ByObject))
	}
	if names := slices.Sorted(maps.Keys(options.DefaultNamespaces)); !slices.Equal(names, []string{"billing", "shop"}) {
		t.Errorf("namespaces %q", names)
	}
	if all := caches(nil, nil); all.DefaultNamespaces != nil {
		t.Errorf("namespaces %v, want all", all.DefaultNamespaces)
	}
	ofScaledJob := labels.Set{v1alpha1.LabelScaledJob: "usertask", batchv1.JobNameLabel: "usertask-abcde"}
	ofJob := labels.Set{batchv1.JobNameLabel: "backup-28000000", "job-name": "backup-28000000"}
	for _, kind := range []client.Object{&batchv1.Job{}, &corev1.Pod{}} {
		how := cached(t, options, kind)
		if !how.Label.Matches(ofScaledJob) || how.Label.Matches(ofJob) || how.Label.Matches(labels.Set{}) {
			t.Errorf("%T: the label selector is %s", kind, how.Label)
		}
	}
	pods := cached(t, options, &corev1.Pod{})
	for phase, want := range map[corev1.PodPhase]bool{
		corev1.PodPending: true, corev1.PodRunning: true, corev1.PodSucceeded: true, corev1.PodFailed: false,
	} {
		if got := pods.Field.Matches(fields.Set{"status.phase": string(phase)}); got != want {
			t.Errorf("Pods that are %s: cached %v, want %v", phase, got, want)
		}
	}
	events := cached(t, options, &corev1.Event{})
	for _, test := range []struct {
		kind, reason string
		want         bool
	}{{"Job", "FailedCreate", true}, {"Job", "SuccessfulCreate", false}, {"ReplicaSet", "FailedCreate", false}} {
		of := fields.Set{"involvedObject.kind": test.kind, "reason": test.reason}
		if got := events.Field.Matches(of); got != test.want {
			t.Errorf("events %s of a %s: cached %v, want %v", test.reason, test.kind, got, test.want)
		}
	}
	scaledJobs := cached(t, options, rawScaledJob())
	if !scaledJobs.Label.Matches(labels.Set{"tier": "background"}) || scaledJobs.Label.Matches(labels.Set{"tier": "web"}) {
		t.Errorf("ScaledJobs: the label selector is %s", scaledJobs.Label)
	}
}
