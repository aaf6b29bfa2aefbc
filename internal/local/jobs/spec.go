package jobs

import (
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// maxJobNameLength is the longest name of a Job, which becomes the value of a label on its Pods.
const maxJobNameLength = validation.LabelValueMaxLength

// SetDefaults fills in what the Kubernetes API fills in when a Job is created.
func SetDefaults(job *batchv1.Job) {
	job.TypeMeta = metav1.TypeMeta{APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job"}
	spec := &job.Spec
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = ptr.To[int32](1)
	}
	setDefault(&spec.Parallelism, 1)
	setDefault(&spec.BackoffLimit, 6)
	setDefault(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	setDefault(&spec.Suspend, false)
	if spec.PodFailurePolicy != nil {
		setDefault(&spec.PodReplacementPolicy, batchv1.Failed)
		for i := range spec.PodFailurePolicy.Rules {
			conditions := spec.PodFailurePolicy.Rules[i].OnPodConditions
			for j := range conditions {
				if conditions[j].Status == "" {
					conditions[j].Status = corev1.ConditionTrue
				}
			}
		}
	}
	setDefault(&spec.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	setDefault(&spec.Template.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	if len(job.Labels) == 0 && len(spec.Template.Labels) > 0 {
		job.Labels = make(map[string]string, len(spec.Template.Labels))
		for k, v := range spec.Template.Labels {
			job.Labels[k] = v
		}
	}
}

func setDefault[T any](to **T, value T) {
	if *to == nil {
		*to = &value
	}
}

// Validate checks a Job whose defaults are set: what the Kubernetes API would refuse, and what this controller cannot
// do. What a container asks for is the Pod runner's to check.
func Validate(job *batchv1.Job) field.ErrorList {
	errs := validateMeta(&job.ObjectMeta)
	path := field.NewPath("spec")
	spec := &job.Spec
	for _, n := range []struct {
		name  string
		value *int32
	}{
		{"parallelism", spec.Parallelism}, {"completions", spec.Completions}, {"backoffLimit", spec.BackoffLimit},
		{"ttlSecondsAfterFinished", spec.TTLSecondsAfterFinished},
	} {
		if n.value != nil && *n.value < 0 {
			errs = append(errs, field.Invalid(path.Child(n.name), *n.value, "must be 0 or greater"))
		}
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && *s < 1 {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *s, "must be 1 or greater"))
	}
	errs = append(errs, validateUnsupported(spec, path)...)
	errs = append(errs, validateTemplate(&spec.Template, path.Child("template"))...)
	if p := *spec.PodReplacementPolicy; p != batchv1.Failed && p != batchv1.TerminatingOrFailed {
		errs = append(errs, field.NotSupported(path.Child("podReplacementPolicy"), p,
			[]batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}))
	}
	if spec.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(spec, path)...)
	}
	return errs
}

func validateMeta(meta *metav1.ObjectMeta) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata")
	for _, msg := range validation.IsDNS1123Label(meta.Namespace) {
		errs = append(errs, field.Invalid(path.Child("namespace"), meta.Namespace, msg))
	}
	switch {
	case meta.Name != "":
		errs = append(errs, validateName(path.Child("name"), meta.Name)...)
	case meta.GenerateName == "":
		errs = append(errs, field.Required(path.Child("name"), "name or generateName is required"))
	default:
		// What is generated ends in letters and digits, whatever the prefix ends in.
		if msgs := validation.IsDNS1123Subdomain(generatedBase(meta.GenerateName) + "x"); len(msgs) > 0 {
			errs = append(errs, field.Invalid(path.Child("generateName"), meta.GenerateName, strings.Join(msgs, "; ")))
		}
	}
	errs = append(errs, metav1validation.ValidateLabels(meta.Labels, path.Child("labels"))...)
	for i, f := range meta.Finalizers {
		for _, msg := range validation.IsQualifiedName(f) {
			errs = append(errs, field.Invalid(path.Child("finalizers").Index(i), f, msg))
		}
	}
	return errs
}

func validateName(path *field.Path, name string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	if len(name) > maxJobNameLength {
		errs = append(errs, field.TooLong(path, name, maxJobNameLength))
	}
	return errs
}

// validateUnsupported refuses what would silently mean something else here than on a cluster.
func validateUnsupported(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(name string, set bool, why string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), why))
		}
	}
	const indexed = "is for Indexed Jobs, which this controller does not run; remove it"
	if mode := *spec.CompletionMode; mode != batchv1.NonIndexedCompletion {
		errs = append(errs, field.NotSupported(path.Child("completionMode"), mode,
			[]batchv1.CompletionMode{batchv1.NonIndexedCompletion}))
	}
	refuse("backoffLimitPerIndex", spec.BackoffLimitPerIndex != nil, indexed)
	refuse("maxFailedIndexes", spec.MaxFailedIndexes != nil, indexed)
	refuse("successPolicy", spec.SuccessPolicy != nil, indexed)
	refuse("selector", spec.Selector != nil, "is set by the controller; remove it")
	refuse("manualSelector", ptr.Deref(spec.ManualSelector, false), "Pods are never shared by Jobs here; remove it")
	refuse("managedBy", spec.ManagedBy != nil && *spec.ManagedBy != batchv1.JobControllerName,
		"no other Job controller exists here; remove it")
	return errs
}

func validateTemplate(template *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabels(template.Labels, path.Child("metadata", "labels"))
	policies := []corev1.RestartPolicy{corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure}
	restart := path.Child("spec", "restartPolicy")
	switch template.Spec.RestartPolicy {
	case corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure:
	case "":
		errs = append(errs, field.Required(restart, "must be Never or OnFailure"))
	default:
		errs = append(errs, field.NotSupported(restart, template.Spec.RestartPolicy, policies))
	}
	if grace := *template.Spec.TerminationGracePeriodSeconds; grace < 0 {
		errs = append(errs, field.Invalid(path.Child("spec", "terminationGracePeriodSeconds"), grace,
			"must be 0 or greater"))
	}
	names := map[string]bool{}
	check := func(path *field.Path, name string) {
		for _, msg := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(path.Child("name"), name, msg))
		}
		if names[name] {
			errs = append(errs, field.Duplicate(path.Child("name"), name))
		}
		names[name] = true
	}
	for i := range template.Spec.InitContainers {
		check(path.Child("spec", "initContainers").Index(i), template.Spec.InitContainers[i].Name)
	}
	for i := range template.Spec.Containers {
		check(path.Child("spec", "containers").Index(i), template.Spec.Containers[i].Name)
	}
	if len(template.Spec.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("spec", "containers"), "at least one container is needed"))
	}
	return errs
}

func validateFailurePolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		errs = append(errs, field.Invalid(path.Child("template", "spec", "restartPolicy"),
			spec.Template.Spec.RestartPolicy, "must be Never when podFailurePolicy is used"))
	}
	if *spec.PodReplacementPolicy != batchv1.Failed {
		errs = append(errs, field.NotSupported(path.Child("podReplacementPolicy"), *spec.PodReplacementPolicy,
			[]batchv1.PodReplacementPolicy{batchv1.Failed}))
	}
	actions := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionFailJob,
		batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyActionCount}
	for i := range spec.PodFailurePolicy.Rules {
		rule := &spec.PodFailurePolicy.Rules[i]
		at := path.Child("podFailurePolicy", "rules").Index(i)
		switch rule.Action {
		case batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
			batchv1.PodFailurePolicyActionCount:
		default:
			errs = append(errs, field.NotSupported(at.Child("action"), rule.Action, actions))
		}
		if (rule.OnExitCodes != nil) == (len(rule.OnPodConditions) > 0) {
			errs = append(errs, field.Invalid(at, fmt.Sprintf("rule %d", i),
				"must have exactly one of onExitCodes and onPodConditions"))
		}
		if rule.OnExitCodes != nil {
			errs = append(errs, validateExitCodes(rule.OnExitCodes, at.Child("onExitCodes"))...)
		}
	}
	return errs
}

func validateExitCodes(rule *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	in, notIn := batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
	if rule.Operator != in && rule.Operator != notIn {
		errs = append(errs, field.NotSupported(path.Child("operator"), rule.Operator,
			[]batchv1.PodFailurePolicyOnExitCodesOperator{in, notIn}))
	}
	if len(rule.Values) == 0 {
		errs = append(errs, field.Required(path.Child("values"), "at least one exit code is needed"))
	}
	for i, v := range rule.Values {
		if rule.Operator == in && v == 0 {
			errs = append(errs, field.Invalid(path.Child("values").Index(i), v, "must not be 0 for the operator In"))
		}
	}
	return errs
}

// validateUpdate refuses changes of what the Kubernetes API holds immutable.
func validateUpdate(old, updated *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	label := v1alpha1.LabelScaledJob
	if old.Labels[label] != updated.Labels[label] {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "labels").Key(label), updated.Labels[label],
			"field is immutable"))
	}
	if old.DeletionTimestamp != nil {
		for i, f := range updated.Finalizers {
			if !slices.Contains(old.Finalizers, f) {
				errs = append(errs, field.Forbidden(field.NewPath("metadata", "finalizers").Index(i),
					"no finalizer can be added to a Job that is being deleted"))
			}
		}
	}
	for _, f := range []struct {
		name     string
		was, now any
	}{
		{"completions", old.Spec.Completions, updated.Spec.Completions},
		{"completionMode", old.Spec.CompletionMode, updated.Spec.CompletionMode},
		{"selector", old.Spec.Selector, updated.Spec.Selector},
		{"template", &old.Spec.Template, &updated.Spec.Template},
		{"podFailurePolicy", old.Spec.PodFailurePolicy, updated.Spec.PodFailurePolicy},
		{"podReplacementPolicy", old.Spec.PodReplacementPolicy, updated.Spec.PodReplacementPolicy},
	} {
		if !apiequality.Semantic.DeepEqual(f.was, f.now) {
			errs = append(errs, field.Invalid(path.Child(f.name), "changed", "field is immutable"))
		}
	}
	return errs
}
