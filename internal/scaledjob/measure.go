package scaledjob

import (
	"context"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// measureTimeout bounds one measurement, so that a server that does not answer holds a worker for no longer than that.
const measureTimeout = 10 * time.Second

// measured is what the triggers of one ScaledJob answered.
type measured struct {
	// readings are those of the triggers that answered.
	readings []scaling.Reading
	// activity tells by metric name whether a trigger is active; those that did not answer are not.
	activity map[string]bool
	errors   []error
}

// active tells whether any trigger is.
func (m measured) active() bool {
	for _, r := range m.readings {
		if r.Active {
			return true
		}
	}
	return false
}

// queue is the work that waits, over all triggers that answered.
func (m measured) queue() float64 {
	var sum float64
	for _, r := range m.readings {
		sum += r.Value
	}
	return sum
}

// target is how much of it one Job takes: the average of the triggers', 1 when there is none.
func (m measured) target() float64 {
	var sum float64
	for _, r := range m.readings {
		sum += r.Target
	}
	if sum <= 0 {
		return 1
	}
	return sum / float64(len(m.readings))
}

// measure asks all triggers at the same time. A trigger that fails is left out: its amount is unknown, not zero.
func (c *Controller) measure(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers) measured {
	type answer struct {
		reading scaling.Reading
		err     error
	}
	answers := make([]answer, len(live.triggers))
	ask := func(i int) {
		ctx, cancel := context.WithTimeout(ctx, measureTimeout)
		defer cancel()
		m, err := live.triggers[i].Measure(ctx)
		answers[i] = answer{scaling.Reading{Value: m.Value, Target: m.Target, Active: m.Active}, err}
	}
	if len(live.triggers) == 1 {
		ask(0)
	} else {
		var asking sync.WaitGroup
		for i := range live.triggers {
			asking.Go(func() { ask(i) })
		}
		asking.Wait()
	}
	m := measured{activity: map[string]bool{}}
	for i, a := range answers {
		t := live.triggers[i]
		m.activity[t.metric] = a.err == nil && a.reading.Active
		what := "trigger " + t.label
		if a.err != nil {
			m.errors = append(m.errors, a.err)
			c.fails(ctx, sj, r, what, a.err)
			continue
		}
		c.works(r, what)
		m.readings = append(m.readings, a.reading)
	}
	return m
}
