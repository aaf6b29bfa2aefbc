package jobs

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestSetDefaults(t *testing.T) {
	t.Parallel()
	job := newJob("a", func(j *batchv1.Job) { j.Labels = nil })
	SetDefaults(job)
	s := job.Spec
	if *s.Completions != 1 || *s.Parallelism != 1 || *s.BackoffLimit != 6 || *s.Suspend ||
		*s.CompletionMode != batchv1.NonIndexedCompletion || *s.PodReplacementPolicy != batchv1.TerminatingOrFailed ||
		*s.Template.Spec.TerminationGracePeriodSeconds != 30 {
		t.Errorf("spec = %+v", s)
	}
	if job.Labels["app"] != "test" || job.Kind != "Job" || job.APIVersion != "batch/v1" {
		t.Errorf("job = %+v, want the template's labels and its kind", job)
	}
	queue := newJob("a", func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](3) })
	SetDefaults(queue)
	if queue.Spec.Completions != nil {
		t.Errorf("completions = %d, want none for a work queue", *queue.Spec.Completions)
	}
	policy := newJob("a", func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget}},
		}}}
	})
	SetDefaults(policy)
	if *policy.Spec.PodReplacementPolicy != batchv1.Failed ||
		policy.Spec.PodFailurePolicy.Rules[0].OnPodConditions[0].Status != corev1.ConditionTrue {
		t.Errorf("spec = %+v", policy.Spec)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*batchv1.Job)
		// want lists the fields with an error.
		want []string
	}{
		{"a good Job", func(*batchv1.Job) {}, nil},
		{"no name", func(j *batchv1.Job) { j.Name = "" }, []string{"metadata.name"}},
		{"a bad prefix", func(j *batchv1.Job) { j.Name, j.GenerateName = "", "A" }, []string{"metadata.generateName"}},
		{"a bad label", func(j *batchv1.Job) { j.Labels["x"] = "a b" }, []string{"metadata.labels"}},
		{"a bad finalizer", func(j *batchv1.Job) { j.Finalizers = []string{"a b"} }, []string{"metadata.finalizers[0]"}},
		{"no restart policy", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "" },
			[]string{"spec.template.spec.restartPolicy"}},
		{"restart always", func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways },
			[]string{"spec.template.spec.restartPolicy"}},
		{"negative numbers", func(j *batchv1.Job) {
			j.Spec.Parallelism, j.Spec.Completions, j.Spec.BackoffLimit = ptr.To[int32](-1), ptr.To[int32](-1), ptr.To[int32](-1)
			j.Spec.TTLSecondsAfterFinished, j.Spec.ActiveDeadlineSeconds = ptr.To[int32](-1), ptr.To[int64](0)
			j.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-1)
		}, []string{"spec.parallelism", "spec.completions", "spec.backoffLimit", "spec.ttlSecondsAfterFinished",
			"spec.activeDeadlineSeconds", "spec.template.spec.terminationGracePeriodSeconds"}},
		{"indexed", func(j *batchv1.Job) {
			j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
			j.Spec.BackoffLimitPerIndex, j.Spec.MaxFailedIndexes = ptr.To[int32](1), ptr.To[int32](1)
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{}
		}, []string{"spec.completionMode", "spec.backoffLimitPerIndex", "spec.maxFailedIndexes", "spec.successPolicy"}},
		{"managed by another", func(j *batchv1.Job) {
			j.Spec.ManagedBy, j.Spec.ManualSelector = ptr.To("example.com/x"), ptr.To(true)
		}, []string{"spec.manualSelector", "spec.managedBy"}},
		{"no containers", func(j *batchv1.Job) { j.Spec.Template.Spec.Containers = nil },
			[]string{"spec.template.spec.containers"}},
		{"bad container names", func(j *batchv1.Job) {
			j.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "main"}}
			j.Spec.Template.Spec.Containers = append(j.Spec.Template.Spec.Containers, corev1.Container{Name: "../x"})
		}, []string{"spec.template.spec.containers[0].name", "spec.template.spec.containers[1].name"}},
		{"a bad replacement policy", func(j *batchv1.Job) {
			j.Spec.PodReplacementPolicy = ptr.To[batchv1.PodReplacementPolicy]("x")
		}, []string{"spec.podReplacementPolicy"}},
		{"a failure policy with OnFailure", func(j *batchv1.Job) {
			onFailure(j)
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{}
			j.Spec.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
		}, []string{"spec.template.spec.restartPolicy", "spec.podReplacementPolicy"}},
		{"bad rules", failurePolicy(
			onExit("x", "y"),
			onExit(batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyOnExitCodesOpIn, 0),
			batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionFailIndex},
		), []string{"spec.podFailurePolicy.rules[0].action", "spec.podFailurePolicy.rules[0].onExitCodes.operator",
			"spec.podFailurePolicy.rules[0].onExitCodes.values", "spec.podFailurePolicy.rules[1].onExitCodes.values[0]",
			"spec.podFailurePolicy.rules[2].action", "spec.podFailurePolicy.rules[2]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := newJob("a")
			tt.change(job)
			SetDefaults(job)
			var fields []string
			for _, err := range Validate(job) {
				fields = append(fields, err.Field)
			}
			if got, want := strings.Join(fields, "\n"), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("errors at\n%s\nwant\n%s", got, want)
			}
		})
	}
}
