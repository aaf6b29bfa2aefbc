// Package composite says what the triggers of a ScaledJob tell together, where the ScaledJob says more about that than
// scalingStrategy.multipleScalersCalculation does: by a formula over their values (advanced.scalingModifiers), and by
// what holds while they cannot be measured (fallback). It is pure: no I/O, no clock, no logger.
//
// The fields and their meaning are those that KEDA has for ScaledObjects. Where a ScaledObject falls back to a number
// of replicas, a ScaledJob falls back to a number of unfinished Jobs.
package composite

import (
	"fmt"
	"math"
	"strconv"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// Rule is how the answers of triggers become what is decided on. The zero value leaves them as they are.
type Rule struct {
	fallback *v1alpha1.Fallback
	formula  *Formula
	// target and activation are the formula's.
	target, activation float64
}

// Answer is what came of measuring one trigger.
type Answer struct {
	// Name is the trigger's name in the manifest; it may be empty.
	Name string
	// Reading is what the trigger answered; it means nothing after a failure.
	Reading scaling.Reading
	// Failures is how many times in a row the trigger could not be measured, this time included; 0 when it could.
	Failures int64
}

// Result is what the triggers tell together.
type Result struct {
	// Readings are what the decision is made from; none when nothing is known.
	Readings []scaling.Reading
	// Fallback tells that there are to be as many Jobs as Rule.Jobs says.
	Fallback bool
	// Fallen are the indexes of the triggers that have failed too often in a row.
	Fallen []int
	// Err is why the formula gives no reading; nil when it does or when there is none.
	Err error
}

// RuleOf returns the rule of a ScaledJob. The error is a FieldError.
func RuleOf(sj *v1alpha1.ScaledJob) (Rule, error) {
	var names []string
	for _, t := range sj.Spec.Triggers {
		if t.Name != "" {
			names = append(names, t.Name)
		}
	}
	return NewRule(sj.Spec.Fallback, sj.Spec.Advanced, names)
}

// FieldError tells which field of advanced.scalingModifiers is wrong.
type FieldError struct {
	Field string // its name
	Err   error
}

// Error returns field and error.
func (e FieldError) Error() string {
	return "advanced.scalingModifiers." + e.Field + ": " + e.Err.Error()
}

// Unwrap returns the error without the field.
func (e FieldError) Unwrap() error { return e.Err }

// NewRule returns the rule for triggers of those names. The error is a FieldError.
func NewRule(fallback *v1alpha1.Fallback, advanced *v1alpha1.Advanced, names []string) (Rule, error) {
	rule := Rule{fallback: fallback}
	if advanced == nil || advanced.ScalingModifiers == nil {
		return rule, nil
	}
	modifiers := advanced.ScalingModifiers
	var err error
	if rule.formula, err = Compile(modifiers.Formula, names); err != nil {
		return Rule{}, FieldError{"formula", err}
	}
	if rule.target, err = number(modifiers.Target); err != nil {
		return Rule{}, FieldError{"target", err}
	}
	if rule.target <= 0 {
		return Rule{}, FieldError{"target", fmt.Errorf("got %q, want a number above 0", modifiers.Target)}
	}
	if modifiers.ActivationTarget != "" {
		if rule.activation, err = number(modifiers.ActivationTarget); err != nil {
			return Rule{}, FieldError{"activationTarget", err}
		}
	}
	return rule, nil
}

func number(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, fmt.Errorf("got %q, want a number such as \"5\"", text)
	}
	return value, nil
}

// Formula returns the rule's formula; nil when it has none.
func (r Rule) Formula() *Formula { return r.formula }

// Jobs returns how many unfinished Jobs there are to be while the fallback holds; before is how many there were when
// all triggers were last measured.
func (r Rule) Jobs(before int64) int64 {
	if r.fallback == nil {
		return 0
	}
	replicas := int64(r.fallback.Replicas)
	switch r.fallback.Behavior {
	case v1alpha1.FallbackCurrentReplicas:
		return before
	case v1alpha1.FallbackCurrentReplicasIfHigher:
		return max(before, replicas)
	case v1alpha1.FallbackCurrentReplicasIfLower:
		return min(before, replicas)
	}
	return replicas
}

// Combine returns what the answers, in the order of the triggers, tell together.
func (r Rule) Combine(answers []Answer) Result {
	var result Result
	counts := func(a Answer) bool { return r.formula == nil || r.formula.Uses(a.Name) }
	for i, a := range answers {
		if r.fallback != nil && a.Failures > int64(r.fallback.FailureThreshold) && counts(a) {
			result.Fallen = append(result.Fallen, i)
		}
	}
	if r.formula == nil {
		for _, a := range answers {
			if a.Failures == 0 {
				result.Readings = append(result.Readings, a.Reading)
			}
		}
		result.Fallback = len(result.Fallen) > 0
		return result
	}
	absent := r.fallback != nil && r.fallback.Behavior == v1alpha1.FallbackScalingModifiers
	if len(result.Fallen) > 0 && !absent {
		result.Fallback = true // a formula needs all of its triggers
		return result
	}
	values := map[string]float64{}
	fallen := map[int]bool{}
	for _, i := range result.Fallen {
		fallen[i] = true
	}
	for i, a := range answers {
		switch {
		case !counts(a) || fallen[i]:
		case a.Failures > 0:
			result.Err = FieldError{"formula", fmt.Errorf("needs trigger %s, which could not be measured", a.Name)}
			return result
		default:
			values[a.Name] = a.Reading.Value
		}
	}
	value, known, err := r.formula.Evaluate(values)
	switch {
	case err != nil:
		result.Err = FieldError{"formula", err}
	case known:
		reading := scaling.Reading{Value: value, Target: r.target, Active: value > r.activation}
		result.Readings = []scaling.Reading{reading}
	case len(result.Fallen) > 0:
		result.Fallback = true
	default:
		result.Err = FieldError{"formula", FormulaError{Message: "gives nil, want a number"}}
	}
	return result
}
