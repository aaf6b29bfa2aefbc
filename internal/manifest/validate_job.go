package manifest

import (
	"math"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of the API server on a Job.
const (
	maxFailureRules      = 20
	maxFailureCodes      = 255
	maxFailureConditions = 20
	maxIndexed           = 100_000 // parallelism of an Indexed Job
)

// jobSpec checks what the API server checks when a Job is created.
func (c *checker) jobSpec(path *field.Path, spec *batchv1.JobSpec) {
	atLeast(c, path.Child("parallelism"), spec.Parallelism, 0)
	atLeast(c, path.Child("completions"), spec.Completions, 0)
	atLeast(c, path.Child("backoffLimit"), spec.BackoffLimit, 0)
	atLeast(c, path.Child("activeDeadlineSeconds"), spec.ActiveDeadlineSeconds, 1)
	atLeast(c, path.Child("ttlSecondsAfterFinished"), spec.TTLSecondsAfterFinished, 0)
	atLeast(c, path.Child("backoffLimitPerIndex"), spec.BackoffLimitPerIndex, 0)
	atLeast(c, path.Child("maxFailedIndexes"), spec.MaxFailedIndexes, 0)

	if spec.Selector != nil {
		c.fail(path.Child("selector"), nil, "a Job's selector is made for it: remove it")
	}
	if spec.ManualSelector != nil && *spec.ManualSelector {
		c.fail(path.Child("manualSelector"), true, "Jobs of a ScaledJob cannot share a selector: remove it")
	}
	if spec.ManagedBy != nil {
		c.managedBy(path.Child("managedBy"), *spec.ManagedBy)
	}
	c.indexed(path, spec)

	template := path.Child("template")
	c.labels(template.Child("metadata", "labels"), spec.Template.Labels)
	c.annotations(template.Child("metadata", "annotations"), spec.Template.Annotations)
	c.podSpec(template.Child("spec"), &spec.Template.Spec)

	if spec.PodFailurePolicy != nil {
		c.podFailurePolicy(path.Child("podFailurePolicy"), spec)
		if policy := spec.PodReplacementPolicy; policy != nil && *policy != batchv1.Failed {
			c.fail(path.Child("podReplacementPolicy"), string(*policy), "got %q, want Failed where there is a podFailurePolicy",
				*policy)
		}
	}
}

func (c *checker) managedBy(path *field.Path, name string) {
	const longest = 63
	for _, err := range validation.IsDomainPrefixedPath(path, name) {
		c.fail(path, name, "%s", fieldMessage(err))
	}
	if len(name) > longest {
		c.fail(path, name, "the name is %d characters, want %d or less", len(name), longest)
	}
}

// indexed checks the fields that belong to completionMode Indexed.
func (c *checker) indexed(path *field.Path, spec *batchv1.JobSpec) {
	if spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion {
		if spec.Completions == nil {
			c.fail(path.Child("completions"), nil, "missing: completionMode Indexed needs it")
		}
		if spec.Parallelism != nil && *spec.Parallelism > maxIndexed {
			c.fail(path.Child("parallelism"), *spec.Parallelism, "got %d, want %d or less where completionMode is Indexed",
				*spec.Parallelism, maxIndexed)
		}
		return
	}
	const needs = "it needs completionMode Indexed: remove it"
	if spec.BackoffLimitPerIndex != nil {
		c.fail(path.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, needs)
	}
	if spec.MaxFailedIndexes != nil {
		c.fail(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, needs)
	}
	if spec.SuccessPolicy != nil {
		c.fail(path.Child("successPolicy"), nil, needs)
	}
}

func (c *checker) podFailurePolicy(path *field.Path, spec *batchv1.JobSpec) {
	pod := &spec.Template.Spec
	if pod.RestartPolicy != corev1.RestartPolicyNever {
		c.fail(path, nil, "podFailurePolicy needs restartPolicy: Never in the template: with OnFailure a container starts "+
			"again before the Job sees that it failed")
	}
	rules := spec.PodFailurePolicy.Rules
	if len(rules) > maxFailureRules {
		c.fail(path.Child("rules"), nil, "there are %d rules, want %d or less", len(rules), maxFailureRules)
	}
	for i, rule := range rules {
		at := path.Child("rules").Index(i)
		c.required(at.Child("action"), string(rule.Action))
		if rule.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
			c.fail(at.Child("action"), string(rule.Action), "action FailIndex needs backoffLimitPerIndex: use FailJob, Ignore "+
				"or Count")
		}
		switch {
		case rule.OnExitCodes != nil && len(rule.OnPodConditions) > 0:
			c.fail(at, nil, "a rule has either onExitCodes or onPodConditions: make it two rules")
		case rule.OnExitCodes != nil:
			c.onExitCodes(at.Child("onExitCodes"), rule.OnExitCodes, pod)
		case len(rule.OnPodConditions) > 0:
			c.onPodConditions(at.Child("onPodConditions"), rule.OnPodConditions)
		default:
			c.fail(at, nil, "missing: a rule needs onExitCodes or onPodConditions")
		}
	}
}

func (c *checker) onExitCodes(path *field.Path, rule *batchv1.PodFailurePolicyOnExitCodesRequirement,
	pod *corev1.PodSpec,
) {
	c.required(path.Child("operator"), string(rule.Operator))
	if rule.ContainerName != nil {
		var names []string
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			names = append(names, container.Name)
		}
		if !slices.Contains(names, *rule.ContainerName) {
			c.fail(path.Child("containerName"), *rule.ContainerName, "no container is named %q: want one of %s",
				shorten(*rule.ContainerName), list(names))
		}
	}
	values := path.Child("values")
	switch {
	case len(rule.Values) == 0:
		c.fail(values, nil, "missing: at least one exit code")
	case len(rule.Values) > maxFailureCodes:
		c.fail(values, nil, "there are %d exit codes, want %d or less", len(rule.Values), maxFailureCodes)
	}
	for i, code := range rule.Values {
		switch {
		case code == 0 && rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn:
			c.fail(values.Index(i), code, "exit code 0 is success and cannot be in a rule with operator In")
		case i > 0 && code == rule.Values[i-1]:
			c.fail(values.Index(i), code, "exit code %d is given twice", code)
		case i > 0 && code < rule.Values[i-1]:
			c.fail(values.Index(i), code, "exit codes must be in ascending order: put %d before %d", code, rule.Values[i-1])
		}
	}
}

func (c *checker) onPodConditions(path *field.Path, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) {
	if len(patterns) > maxFailureConditions {
		c.fail(path, nil, "there are %d conditions, want %d or less", len(patterns), maxFailureConditions)
	}
	for i, pattern := range patterns {
		if c.required(path.Index(i).Child("type"), string(pattern.Type)) {
			c.invalid(path.Index(i).Child("type"), string(pattern.Type), validation.IsQualifiedName(string(pattern.Type)))
		}
	}
}

// deadline checks a Pod's own activeDeadlineSeconds, for which the API server has other bounds than for a Job's.
func (c *checker) deadline(path *field.Path, seconds *int64) {
	if seconds != nil && (*seconds < 1 || *seconds > math.MaxInt32) {
		c.fail(path, *seconds, "got %d, want between 1 and %d", *seconds, math.MaxInt32)
	}
}
