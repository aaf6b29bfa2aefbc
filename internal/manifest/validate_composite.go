package manifest

import (
	"errors"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/composite"
)

// fallback checks what holds while triggers cannot be measured; highest is the most Jobs that there may be.
func (c *checker) fallback(at *field.Path, spec *v1alpha1.ScaledJobSpec, highest int32) {
	fallback := spec.Fallback
	atLeast(c, at.Child("failureThreshold"), &fallback.FailureThreshold, 0)
	atLeast(c, at.Child("replicas"), &fallback.Replicas, 0)
	c.oneOf(at.Child("behavior"), fallback.Behavior, v1alpha1.FallbackStatic, v1alpha1.FallbackCurrentReplicas,
		v1alpha1.FallbackCurrentReplicasIfHigher, v1alpha1.FallbackCurrentReplicasIfLower, v1alpha1.FallbackScalingModifiers)
	if fallback.Replicas > highest && highest > 0 {
		c.warn(at.Child("replicas"), fallback.Replicas, "replicas %d is above maxReplicaCount %d, which wins",
			fallback.Replicas, highest)
	}
	if fallback.Behavior == v1alpha1.FallbackScalingModifiers &&
		(spec.Advanced == nil || spec.Advanced.ScalingModifiers == nil) {
		c.fail(at.Child("behavior"), fallback.Behavior, "behavior scalingModifiers hands nil to the formula, but there is "+
			"none: give advanced.scalingModifiers.formula, or another behavior")
	}
}

// scalingModifiers checks the formula over several triggers.
func (c *checker) scalingModifiers(spec *field.Path, scaledJob *v1alpha1.ScaledJobSpec) {
	at, modifiers := spec.Child("advanced", "scalingModifiers"), scaledJob.Advanced.ScalingModifiers
	c.oneOf(at.Child("metricType"), modifiers.MetricType, v1alpha1.MetricTypeAverageValue)
	given := c.required(at.Child("formula"), modifiers.Formula)
	if !c.required(at.Child("target"), modifiers.Target) || !given {
		return
	}
	var names []string
	for _, t := range scaledJob.Triggers {
		if t.Name != "" {
			names = append(names, t.Name)
		}
	}
	rule, err := composite.NewRule(scaledJob.Fallback, scaledJob.Advanced, names)
	var wrong composite.FieldError
	if errors.As(err, &wrong) {
		values := map[string]string{
			"formula": modifiers.Formula, "target": modifiers.Target, "activationTarget": modifiers.ActivationTarget,
		}
		c.fail(at.Child(wrong.Field), values[wrong.Field], "%s", wrong.Err)
		return
	}
	for i, t := range scaledJob.Triggers {
		trigger := spec.Child("triggers").Index(i)
		switch {
		case t.Name == "":
			c.fail(trigger.Child("name"), nil, "missing: the formula knows triggers by their names")
		case !rule.Formula().Uses(t.Name):
			c.warn(trigger.Child("name"), t.Name, "the formula does not use trigger %s, which has no effect so", t.Name)
		}
	}
	if how := scaledJob.ScalingStrategy.MultipleScalersCalculation; how != "" {
		c.warn(spec.Child("scalingStrategy", "multipleScalersCalculation"), how, "it has no effect beside a formula")
	}
}
