package scaledjob

import (
	"time"

	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/composite"
)

// combine makes of what the triggers answered one by one what they tell together, where the ScaledJob has a formula or
// a fallback. A formula that cannot be computed is an error like one of a trigger.
func (c *Controller) combine(sj *v1alpha1.ScaledJob, r *record, live *liveTriggers, m *measured, now time.Time) {
	if sj.ClaimsItems() || sj.Spec.Fallback == nil && live.rule.Formula() == nil {
		return
	}
	failing := map[string]time.Time{}
	answers := make([]composite.Answer, len(m.answers))
	for i, a := range m.answers {
		t := live.triggers[i]
		answers[i] = composite.Answer{Name: t.ref.Name, Reading: a.reading}
		if a.err == nil {
			continue
		}
		since, before := r.failingSince[t.metric]
		if !before {
			since = now
		}
		failing[t.metric] = since
		// What is tried again sooner, because it failed or something else changed, is the same failure.
		answers[i].Failures = 1 + int64(now.Sub(since)/sj.Polling())
	}
	r.failingSince = failing
	result := live.rule.Combine(answers)
	m.readings, m.fallback, m.fallen = result.Readings, result.Fallback, nil
	for _, i := range result.Fallen {
		m.fallen = append(m.fallen, live.triggers[i].label)
	}
	if result.Err != nil {
		m.errors = append(m.errors, result.Err)
	}
}

// fallbackJobs returns how many Jobs there are to be while the ScaledJob's fallback holds; nil when it does not.
// running is how many are unfinished now.
func (r *record) fallbackJobs(sj *v1alpha1.ScaledJob, rule composite.Rule, m measured, running int64) *int64 {
	if sj.Spec.Fallback == nil {
		return nil
	}
	if len(m.errors) == 0 || r.measuredWith == nil {
		r.measuredWith = &running
	}
	if !m.fallback {
		return nil
	}
	return ptr.To(rule.Jobs(*r.measuredWith))
}
