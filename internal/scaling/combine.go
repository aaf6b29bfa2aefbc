package scaling

import (
	"math"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// work is what the active triggers ask for together.
type work struct {
	active bool
	// value is the combined amount of work, rounded up.
	value int64
	// scale is the number of Jobs for it, rounded up and bounded by the rule's span.
	scale int64
	// jobs is the number of Jobs for it without that bound.
	jobs int64
}

// combine joins the readings of the active triggers as KEDA's IsScaledJobActive does.
func combine(rule Rule, readings []Reading) work {
	var sum joined
	count := 0
	for _, r := range readings {
		if !r.Active {
			continue
		}
		one := join(r, float64(rule.span()))
		switch rule.Calculation {
		case v1alpha1.CalculationMin:
			// An amount of 0 is taken for "none seen yet", as in KEDA.
			if sum.value == 0 || one.value < sum.value {
				sum = one
				count = 1
			}
		case v1alpha1.CalculationAvg, v1alpha1.CalculationSum:
			sum = joined{sum.value + one.value, sum.scale + one.scale, sum.jobs + one.jobs}
			count++
		default:
			if one.value > sum.value {
				sum = one
				count = 1
			}
		}
	}
	if count == 0 {
		return work{}
	}
	if rule.Calculation == v1alpha1.CalculationAvg {
		n := float64(count)
		sum = joined{sum.value / n, sum.scale / n, sum.jobs / n}
	}
	return work{
		active: true,
		value:  toInt(math.Ceil(sum.value)),
		scale:  toInt(math.Ceil(min(sum.scale, float64(rule.span())))),
		jobs:   toInt(math.Ceil(sum.jobs)),
	}
}

// joined is an amount of work, the number of Jobs for it, and that number bounded per trigger.
type joined struct{ value, scale, jobs float64 }

func join(r Reading, span float64) joined {
	if r.Target <= 0 || math.IsNaN(r.Target) || math.IsNaN(r.Value) {
		// KEDA makes no Job for a trigger without a target.
		return joined{value: r.Value}
	}
	jobs := r.Value / r.Target
	return joined{value: r.Value, scale: min(jobs, span), jobs: jobs}
}

// toInt converts without the undefined results that Go gives for numbers beyond int64. The bound leaves room for sums.
func toInt(f float64) int64 {
	const bound = 1 << 60
	switch {
	case math.IsNaN(f):
		return 0
	case f > bound:
		return bound
	case f < -bound:
		return -bound
	}
	return int64(f)
}

// subtract is a - b, saturating: hostile parameters must not wrap a negative answer into a large one.
func subtract(a, b int64) int64 {
	difference := a - b
	switch {
	case b > 0 && difference > a:
		return math.MinInt64
	case b < 0 && difference < a:
		return math.MaxInt64
	}
	return difference
}
