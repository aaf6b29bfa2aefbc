package scaledjob

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// lastApplied is kubectl's record of the ScaledJob's own manifest: of no use on a Job, and as large as the manifest.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// newJob makes the Job that the ScaledJob describes, with the labels, annotations and owner that KEDA gives it.
func newJob(sj *v1alpha1.ScaledJob, version string) *batchv1.Job {
	labels := map[string]string{
		"app.kubernetes.io/name":       sj.Name,
		"app.kubernetes.io/version":    labelValue(version),
		"app.kubernetes.io/part-of":    sj.Name,
		"app.kubernetes.io/managed-by": "keda-operator", // what selectors and dashboards of KEDA's users look for
	}
	excluded := sj.ExcludedLabels()
	for key, value := range sj.Labels {
		if !excluded[key] {
			labels[key] = value
		}
	}
	// Jobs are listed and told apart by these two, which a manifest that was copied from a cluster may hold as well.
	labels[v1alpha1.LabelScaledJob] = sj.Name
	annotations := map[string]string{}
	maps.Copy(annotations, sj.Annotations)
	delete(annotations, lastApplied)
	annotations[v1alpha1.AnnotationGeneration] = strconv.FormatInt(sj.Generation, 10)

	spec := *sj.Spec.JobTargetRef.DeepCopy()
	if spec.Template.Labels == nil {
		spec.Template.Labels = map[string]string{}
	}
	spec.Template.Labels[v1alpha1.LabelScaledJob] = sj.Name
	if spec.Template.Spec.RestartPolicy == "" {
		// A Job's Pods may not restart Always, which would be the API's default.
		spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	}
	return &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: sj.Name + "-",
			Namespace:    sj.Namespace,
			Labels:       labels,
			Annotations:  annotations,
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(sj, v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob)),
			},
		},
		Spec: spec,
	}
}

// labelValue makes a text that may be the value of a label: "1.2+dirty" becomes "1.2_dirty", "(devel)" becomes "devel".
func labelValue(text string) string {
	legal := strings.Map(func(r rune) rune {
		if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '_'
	}, text)
	return strings.Trim(legal[:min(len(legal), validation.LabelValueMaxLength)], "-_.")
}

// Finished returns how the Job ended (Complete or Failed) and when; an empty type while it is unfinished.
// A failed Job has no completionTime, so the time is that of the condition, for both.
func Finished(job *batchv1.Job) (batchv1.JobConditionType, time.Time) {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type, c.LastTransitionTime.Time
		}
	}
	return "", time.Time{}
}

// Pending tells whether an unfinished Job counts as pending: as in KEDA, while none of its Pods runs or has succeeded,
// or, with pendingPodConditions, while none of its Pods has all of those conditions. On a cluster failed Pods are not
// among them, whose conditions KEDA would look at.
func Pending(job Job, conditions []string) bool {
	return !slices.ContainsFunc(job.Pods, func(pod *corev1.Pod) bool {
		if len(conditions) == 0 {
			return pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodSucceeded
		}
		return !slices.ContainsFunc(conditions, func(wanted string) bool { return !podConditionTrue(pod, wanted) })
	})
}

// withoutPods counts the unfinished Jobs whose Pods cannot be made, and returns the words about the oldest of them, so
// that they stay the same while others come. They name the ScaledJob instead of the Job: of another Job, they are the
// same.
func withoutPods(jobs []Job) (n int, words string) {
	var oldest time.Time
	for _, job := range jobs {
		if how, _ := Finished(job.Job); how != "" || job.PodsRefused == "" {
			continue
		}
		n++
		if at := job.CreationTimestamp.Time; words == "" || at.Before(oldest) {
			words, oldest = strings.ReplaceAll(job.PodsRefused, job.Name, job.Labels[v1alpha1.LabelScaledJob]), at
		}
	}
	return n, words
}

func podConditionTrue(pod *corev1.Pod, conditionType string) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return string(c.Type) == conditionType && c.Status == corev1.ConditionTrue
	})
}

// startedAt is when the first Pod of a Job that is not pending began to run, as far as its Pods tell; else now.
func startedAt(job Job, now time.Time) time.Time {
	started := now
	for _, pod := range job.Pods {
		if at := pod.Status.StartTime; at != nil && at.Time.Before(started) {
			started = at.Time
		}
	}
	return started
}
