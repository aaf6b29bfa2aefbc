// Package scaling decides how many Jobs to create. It is pure: no I/O, no clock, no logger, and it imports nothing of
// this project but the API types.
//
// The formulas are KEDA's (default, custom, accurate, eager, combined by max, min, avg or sum), so that a ScaledJob
// behaves here as there, but for three corrections that keep promises which the formulas alone break:
//
//   - never above the limit: unfinished Jobs plus new ones do not exceed maxReplicaCount;
//   - never stranded: where work waits and no Job is unfinished, at least one is created;
//   - never twice for one item: Jobs that were started for waiting work and have not taken it yet (State.Untaken) are
//     not started again, however soon the next decision is made. KEDA decides every 30 seconds and so rarely meets
//     that case; Offboard decides within milliseconds of a push.
package scaling

import (
	"fmt"
	"math"
	"strconv"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// Rule is the part of a ScaledJob that the decision depends on. Its JSON form uses the manifest's names.
type Rule struct {
	// Strategy is default, custom, accurate or eager; anything else behaves as default.
	Strategy string `json:"strategy,omitempty"`
	// Deduction is what custom subtracts from the queue length; nil means 0.
	Deduction *int64 `json:"customScalingQueueLengthDeduction,omitempty"`
	// RunningPercentage is the share of running Jobs that custom subtracts, a decimal number. Absent or unparsable, it
	// makes custom behave as default.
	RunningPercentage string `json:"customScalingRunningJobPercentage,omitempty"`
	// Calculation combines several triggers: max, min, avg or sum; anything else means max.
	Calculation string `json:"multipleScalersCalculation,omitempty"`
	// Min is how many Jobs always run; nil means 0.
	Min *int64 `json:"minReplicaCount,omitempty"`
	// Max is how many Jobs may be unfinished at once; nil means 100.
	Max *int64 `json:"maxReplicaCount,omitempty"`
	// Unexplained leaves reasons out, to whose words most of the time of a decision goes.
	Unexplained bool `json:"-"`
}

// State is what was measured.
type State struct {
	// Running is the number of unfinished Jobs, Pending how many of those have no running Pod yet.
	Running int64 `json:"running"`
	Pending int64 `json:"pending,omitempty"`
	// Untaken is how many Jobs have not taken the work that they were started for, as far as known: unfinished ones that
	// have yet to, and such as ended without it and are not to be followed by others at once.
	Untaken int64 `json:"untaken,omitempty"`
	// Readings are the triggers' measurements. A trigger that could not be measured is left out.
	Readings []Reading `json:"triggers"`
	// Fallback is how many unfinished Jobs there are to be because triggers cannot be measured; nil when nothing was said
	// of that or all can be.
	Fallback *int64 `json:"-"`
}

// Reading is one trigger's measurement.
type Reading struct {
	// Value says how much work waits.
	Value float64 `json:"value"`
	// Target is how much of it one Job takes.
	Target float64 `json:"target"`
	// Active tells whether Value is above the activation threshold.
	Active bool `json:"active"`
}

// Decision is how many Jobs to create, and why not more or fewer.
type Decision struct {
	Create int64  `json:"create"`
	Reason string `json:"reason"`
	// Floor tells that minReplicaCount or a fallback asks for the Jobs, not the work that waits.
	Floor bool `json:"-"`
}

// RuleOf returns the rule of a ScaledJob.
func RuleOf(sj *v1alpha1.ScaledJob) Rule {
	strategy := sj.Spec.ScalingStrategy
	return Rule{
		Strategy:          strategy.Strategy,
		Deduction:         widen(strategy.CustomScalingQueueLengthDeduction),
		RunningPercentage: strategy.CustomScalingRunningJobPercentage,
		Calculation:       strategy.MultipleScalersCalculation,
		Min:               widen(sj.Spec.MinReplicaCount),
		Max:               widen(sj.Spec.MaxReplicaCount),
	}
}

func widen(v *int32) *int64 {
	if v == nil {
		return nil
	}
	wide := int64(*v)
	return &wide
}

// Free returns for how many items Jobs may be created with delivery by claim, where there is nothing to guess: the
// slots that unfinished Jobs, and claims that are about to have one, leave free.
func (r Rule) Free(unfinished int64) int64 { return max(0, r.Limit()-unfinished) }

// Limit is the promised upper bound of unfinished Jobs.
func (r Rule) Limit() int64 {
	if r.Max == nil {
		return v1alpha1.DefaultMaxReplicaCount
	}
	return *r.Max
}

// Floor is the number of Jobs that always run: minReplicaCount, capped by a maxReplicaCount that is set.
func (r Rule) Floor() int64 {
	if r.Min == nil {
		return 0
	}
	if r.Max != nil && *r.Min > *r.Max {
		return *r.Max
	}
	return *r.Min
}

// span is the bound that the formulas know: the limit without the floor. As in KEDA, a default limit is not reduced by
// the floor, and a floor above the limit leaves the limit as it is.
func (r Rule) span() int64 {
	if r.Max == nil || r.Min != nil && *r.Min > *r.Max {
		return r.Limit()
	}
	return *r.Max - r.Floor()
}

// Decide says how many Jobs to create now.
func Decide(rule Rule, state State) Decision {
	decision := fallback(rule, state, formula(rule, state))
	if room := max(0, rule.Limit()-state.Running); decision.Create > room {
		decision.Create = room
		decision.Reason += rule.explain("; maxReplicaCount %d leaves room for %d", rule.Limit(), room)
	}
	return decision
}

// fallback is the decision, or what keeps as many Jobs as there are to be while triggers cannot be measured: those that
// can be may ask for more of them, never for fewer.
func fallback(rule Rule, state State, decision Decision) Decision {
	if state.Fallback == nil {
		return decision
	}
	jobs := max(*state.Fallback, rule.Floor())
	missing := max(0, jobs-state.Running)
	if missing > decision.Create || len(state.Readings) == 0 {
		reason := rule.explain("fallback: %d while triggers cannot be measured - %d unfinished", jobs, state.Running)
		return Decision{Create: missing, Reason: reason, Floor: missing > 0}
	}
	return decision
}

// formula is KEDA's answer with the corrections but the last, the limit.
func formula(rule Rule, state State) Decision {
	work := combine(rule, state.Readings)
	if len(state.Readings) == 0 {
		return Decision{Reason: "no trigger could be measured"} // not even for the floor: what is unknown creates nothing
	}
	if state.Running < rule.Floor() {
		// KEDA tops up to the floor first and looks at the triggers once it is reached.
		missing := rule.Floor() - state.Running
		reason := rule.explain("minReplicaCount %d wants %d more", rule.Floor(), missing)
		return Decision{Create: missing, Reason: reason, Floor: true}
	}
	if !work.active && rule.Floor() == 0 {
		return Decision{Reason: inactiveReason(state.Readings)}
	}
	create, reason := strategy(rule, state, work)
	create = max(0, create)
	if create == 0 && state.Running == 0 && work.active && work.value > 0 {
		create = 1
		reason += rule.explain("; work waits and nothing runs, so one is started")
	}
	if unserved := max(0, work.jobs-state.Untaken); state.Untaken > 0 && create > unserved {
		create = unserved
		reason += rule.explain("; %d Jobs have yet to take their work, or ended without taking any", state.Untaken)
	}
	return Decision{Create: create, Reason: reason}
}

// strategy applies the formula that the user chose. The answer may be negative.
func strategy(rule Rule, state State, work work) (int64, string) {
	running := state.Running - rule.Floor()
	span := rule.span()
	var create int64
	var reason string
	ask := work.value // as in KEDA, never more Jobs than work, even when a target below 1 would allow it
	switch rule.Strategy {
	case v1alpha1.StrategyAccurate:
		if work.scale+running-state.Pending > span {
			create = span - running
			reason = rule.explain("accurate: room for %d beside %d unfinished", create, state.Running)
		} else {
			create = work.scale - state.Pending
			reason = rule.explain("accurate: %d for the work waiting - %d pending", work.scale, state.Pending)
		}
	case v1alpha1.StrategyEager:
		create, ask = min(span-running-state.Pending, work.scale), span
		reason = rule.explain("eager: %d for the work waiting, room for %d", work.scale, span-running-state.Pending)
	case v1alpha1.StrategyCustom:
		if share, err := strconv.ParseFloat(rule.RunningPercentage, 64); err == nil {
			var deduction int64
			if rule.Deduction != nil {
				deduction = *rule.Deduction
			}
			part := toInt(math.Trunc(float64(running) * share))
			create = min(subtract(subtract(work.scale, deduction), part), span)
			reason = rule.explain("custom: %d for the work waiting - %d deducted - %d for %d unfinished × %s",
				work.scale, deduction, part, running, rule.RunningPercentage)
			break
		}
		create = work.scale - running
		reason = rule.explain("custom without a customScalingRunningJobPercentage is default: "+
			"%d for the work waiting - %d unfinished", work.scale, running)
	default:
		create = work.scale - running
		reason = rule.explain("default: %d for the work waiting - %d unfinished", work.scale, running)
	}
	return min(create, ask), reason
}

func inactiveReason(readings []Reading) string {
	for _, r := range readings {
		if r.Value > 0 {
			return fmt.Sprintf("no trigger is active: %s waits, which is not above the activation threshold",
				strconv.FormatFloat(r.Value, 'g', -1, 64))
		}
	}
	return "nothing waits"
}

// explain is fmt.Sprintf for reasons.
func (r Rule) explain(format string, args ...any) string {
	if r.Unexplained {
		return ""
	}
	return fmt.Sprintf(format, args...)
}
