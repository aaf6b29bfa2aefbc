package manifest

import (
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/trigger"
)

func (c *checker) scaledJob(scaledJob *v1alpha1.ScaledJob) {
	path := field.NewPath("spec")
	spec := &scaledJob.Spec
	// The name is the value of a label of every Job and Pod, which is shorter than a name may be.
	if len(scaledJob.Name) > validation.LabelValueMaxLength {
		c.fail(field.NewPath("metadata", "name"), scaledJob.Name, "the name is %d characters, want %d or less: it is the "+
			"value of the label %s of its Jobs", len(scaledJob.Name), validation.LabelValueMaxLength, v1alpha1.LabelScaledJob)
	}
	c.knownAnnotations(scaledJob)

	atLeast(c, path.Child("pollingInterval"), spec.PollingInterval, 1)
	atLeast(c, path.Child("successfulJobsHistoryLimit"), spec.SuccessfulJobsHistoryLimit, 0)
	atLeast(c, path.Child("failedJobsHistoryLimit"), spec.FailedJobsHistoryLimit, 0)
	atLeast(c, path.Child("minReplicaCount"), spec.MinReplicaCount, 0)
	atLeast(c, path.Child("maxReplicaCount"), spec.MaxReplicaCount, 1)
	highest := int32(v1alpha1.DefaultMaxReplicaCount)
	if spec.MaxReplicaCount != nil {
		highest = *spec.MaxReplicaCount
	}
	if least := spec.MinReplicaCount; least != nil && *least > highest && highest > 0 && !scaledJob.ClaimsItems() {
		c.warn(path.Child("minReplicaCount"), *least, "minReplicaCount %d is above maxReplicaCount %d, which wins: %d Jobs "+
			"always run", *least, highest, highest)
	}

	rollouts := []string{v1alpha1.RolloutGradual, v1alpha1.RolloutImmediate}
	c.oneOf(path.Child("rolloutStrategy"), spec.RolloutStrategy, rollouts...)
	c.oneOf(path.Child("rollout", "strategy"), spec.Rollout.Strategy, rollouts...)
	c.oneOf(path.Child("rollout", "propagationPolicy"), spec.Rollout.PropagationPolicy,
		v1alpha1.PropagationForeground, v1alpha1.PropagationBackground)
	if slices.Contains(rollouts, spec.RolloutStrategy) {
		c.warn(path.Child("rolloutStrategy"), spec.RolloutStrategy, "rolloutStrategy is deprecated: write rollout.strategy, "+
			"over which it wins")
	}
	c.scalingStrategy(path.Child("scalingStrategy"), &spec.ScalingStrategy)
	if !scaledJob.ClaimsItems() {
		c.strategyEffects(path.Child("scalingStrategy"), &spec.ScalingStrategy)
	}

	if spec.JobTargetRef == nil {
		c.fail(path.Child("jobTargetRef"), nil, "missing: it is the specification of the Jobs, with a Pod template")
	} else {
		c.jobSpec(path.Child("jobTargetRef"), spec.JobTargetRef)
		if suspend := spec.JobTargetRef.Suspend; suspend != nil && *suspend && !scaledJob.ClaimsItems() {
			c.warn(path.Child("jobTargetRef", "suspend"), true, "every Job is created suspended and does nothing until "+
				"something resumes it")
		}
		c.envSource(path.Child("envSourceContainerName"), spec.EnvSourceContainerName,
			spec.JobTargetRef.Template.Spec.Containers)
	}
	c.triggers(path.Child("triggers"), spec.Triggers)
	if spec.Fallback != nil {
		c.fallback(path.Child("fallback"), spec, highest)
	}
	if spec.Advanced != nil && spec.Advanced.ScalingModifiers != nil {
		c.scalingModifiers(path, spec)
	}
	if spec.Delivery != nil {
		c.delivery(path, spec)
	}
}

func (c *checker) knownAnnotations(scaledJob *v1alpha1.ScaledJob) {
	annotations := scaledJob.Annotations
	path := field.NewPath("metadata", "annotations")
	if paused, found := annotations[v1alpha1.AnnotationPaused]; found {
		if _, err := strconv.ParseBool(paused); err != nil {
			c.warn(path.Key(v1alpha1.AnnotationPaused), paused, "%q is no boolean, and pauses as \"true\" does", paused)
		}
	}
	if _, err := scaledJob.Priority(); err != nil {
		priority := annotations[v1alpha1.AnnotationPriority]
		c.fail(path.Key(v1alpha1.AnnotationPriority), priority, "got %q, want a number above 0 such as \"10\": it is the "+
			"ScaledJob's weight where limits over all ScaledJobs bind", shorten(priority))
	}
	for label := range strings.SplitSeq(annotations[v1alpha1.AnnotationExcludedLabels], ",") {
		if label = strings.TrimSpace(label); label != "" {
			c.invalid(path.Key(v1alpha1.AnnotationExcludedLabels), label, validation.IsQualifiedName(label))
		}
	}
}

func (c *checker) scalingStrategy(path *field.Path, strategy *v1alpha1.ScalingStrategy) {
	c.oneOf(path.Child("strategy"), strategy.Strategy, v1alpha1.StrategyDefault, v1alpha1.StrategyCustom,
		v1alpha1.StrategyAccurate, v1alpha1.StrategyEager)
	c.oneOf(path.Child("multipleScalersCalculation"), strategy.MultipleScalersCalculation, v1alpha1.CalculationMin,
		v1alpha1.CalculationAvg, v1alpha1.CalculationSum, v1alpha1.CalculationMax)
	atLeast(c, path.Child("customScalingQueueLengthDeduction"), strategy.CustomScalingQueueLengthDeduction, 0)

	percentage := path.Child("customScalingRunningJobPercentage")
	text := strategy.CustomScalingRunningJobPercentage
	share, err := strconv.ParseFloat(text, 64)
	switch {
	case text == "":
	case err != nil || math.IsNaN(share) || math.IsInf(share, 0):
		c.fail(percentage, text, "got %q, want a decimal number such as \"0.5\", the share of the running Jobs to subtract",
			shorten(text))
	case share < 0:
		c.fail(percentage, text, "got %q, want 0 or more", shorten(text))
	}
	for i, condition := range strategy.PendingPodConditions {
		c.invalid(path.Child("pendingPodConditions").Index(i), condition, validation.IsQualifiedName(condition))
	}
}

// strategyEffects warns of fields that the chosen strategy does not use or lacks.
func (c *checker) strategyEffects(path *field.Path, strategy *v1alpha1.ScalingStrategy) {
	text := strategy.CustomScalingRunningJobPercentage
	switch strategy.Strategy {
	case v1alpha1.StrategyCustom:
		if text == "" {
			c.warn(path.Child("strategy"), strategy.Strategy, "strategy custom without customScalingRunningJobPercentage "+
				"behaves as default: give a share of running Jobs such as \"0.5\"")
		}
	case "", v1alpha1.StrategyDefault, v1alpha1.StrategyAccurate, v1alpha1.StrategyEager:
		const noEffect = "it has an effect with strategy custom only"
		if text != "" {
			c.warn(path.Child("customScalingRunningJobPercentage"), text, noEffect)
		}
		if deduction := strategy.CustomScalingQueueLengthDeduction; deduction != nil {
			c.warn(path.Child("customScalingQueueLengthDeduction"), *deduction, noEffect)
		}
	}
}

func (c *checker) envSource(path *field.Path, name string, containers []corev1.Container) {
	if name == "" {
		return
	}
	var names []string
	for _, container := range containers {
		names = append(names, container.Name)
	}
	if !slices.Contains(names, name) {
		c.fail(path, name, "no container is named %q: want one of %s", shorten(name), list(names))
	}
}

func (c *checker) triggers(path *field.Path, triggers []v1alpha1.ScaleTriggers) {
	if len(triggers) == 0 {
		c.fail(path, nil, "missing: at least one trigger must say how much work waits")
	}
	names := map[string]int{}
	for i := range triggers {
		scale, at := &triggers[i], path.Index(i)
		if first, found := names[scale.Name]; found && scale.Name != "" {
			c.fail(at.Child("name"), scale.Name, "%q is the name of %s too: names of triggers must differ", scale.Name,
				path.Index(first))
		} else {
			names[scale.Name] = i
		}
		if scale.MetricType != "" {
			c.fail(at.Child("metricType"), scale.MetricType, "metricType cannot be set in a ScaledJob: remove it")
		}
		if scale.UseCachedMetrics {
			c.cachedMetrics(at.Child("useCachedMetrics"), scale.Type)
		}
		if ref := scale.AuthenticationRef; ref != nil {
			if c.required(at.Child("authenticationRef", "name"), ref.Name) {
				c.invalid(at.Child("authenticationRef", "name"), ref.Name, validation.IsDNS1123Subdomain(ref.Name))
			}
			c.oneOf(at.Child("authenticationRef", "kind"), ref.Kind, v1alpha1.KindTriggerAuthentication,
				v1alpha1.KindClusterTriggerAuthentication)
		}
		c.triggerType(at, scale)
	}
}

// cachedMetrics follows KEDA, which refuses the property for the types that have no metric to cache.
func (c *checker) cachedMetrics(path *field.Path, triggerType string) {
	if slices.Contains([]string{"cpu", "memory", "cron"}, triggerType) {
		c.fail(path, true, "useCachedMetrics is not supported for trigger type %s: remove it", triggerType)
		return
	}
	c.warn(path, true, "useCachedMetrics has no effect in a ScaledJob")
}

func (c *checker) triggerType(path *field.Path, scale *v1alpha1.ScaleTriggers) {
	if !c.required(path.Child("type"), scale.Type) {
		return
	}
	known, found := trigger.Find(c.types, scale.Type)
	if !found {
		c.fail(path.Child("type"), scale.Type, "%s", trigger.UnknownType(c.types, scale.Type))
		return
	}
	c.metadata(path.Child("metadata"), known.Validate(scale.Metadata, scale.AuthenticationRef != nil))
}

// metadata reports what a trigger type finds in a trigger's metadata.
func (c *checker) metadata(metadata *field.Path, findings []trigger.ParamError) {
	for _, finding := range findings {
		severity := Error
		if finding.Warning {
			severity = Warning
		}
		var value any
		message := finding.Message
		if finding.Value != "" {
			value = finding.Value
			message = strconv.Quote(shorten(finding.Value)) + ": " + message
		}
		at := metadata
		if finding.Key != "" {
			at = at.Key(finding.Key)
		}
		c.add(severity, at, value, message)
	}
}
