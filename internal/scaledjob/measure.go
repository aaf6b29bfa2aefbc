package scaledjob

import (
	"context"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// measureTimeout bounds one measurement, so that a server that does not answer holds a worker for no longer than that.
const measureTimeout = 10 * time.Second

// measured is what the triggers of one ScaledJob answered.
type measured struct {
	// answers are all, in the order of the triggers.
	answers []answer
	// readings are those of the triggers that answered, or the one of the ScaledJob's formula.
	readings []scaling.Reading
	// activity tells by metric name whether a trigger is active; those that did not answer are not.
	activity map[string]bool
	errors   []error
	// fallback tells that the ScaledJob's fallback says how many Jobs there are to be.
	fallback bool
	// fallen are the labels of the triggers that have failed too often in a row.
	fallen []string
	// holds is for how long all of it holds unless a trigger tells of a change; 0 when one does not tell.
	holds time.Duration
	// wake is what the trigger that hands out items says of when they come back by themselves; nil when it does not tell.
	wake *string
}

// answer is what one trigger answered.
type answer struct {
	reading scaling.Reading
	wake    *string
	holds   time.Duration
	took    time.Duration
	err     error
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
func (c *Controller) measure(ctx context.Context, live *liveTriggers) measured {
	m := measured{answers: make([]answer, len(live.triggers)), activity: map[string]bool{}, holds: never}
	ask := func(i int) {
		ctx, cancel := context.WithTimeout(ctx, measureTimeout)
		defer cancel()
		began := time.Now()
		got, err := live.triggers[i].Measure(ctx)
		reading := scaling.Reading{Value: got.Value, Target: got.Target, Active: got.Active}
		m.answers[i] = answer{reading, got.Wake, got.Holds, time.Since(began), err}
	}
	c.aside(func() {
		if len(live.triggers) == 1 {
			ask(0)
			return
		}
		var asking sync.WaitGroup
		for i := range live.triggers {
			asking.Go(func() { ask(i) })
		}
		asking.Wait()
	})
	handsOut := false
	for i, a := range m.answers {
		t := live.triggers[i]
		m.activity[t.metric] = a.err == nil && a.reading.Active
		m.holds = min(m.holds, a.holds)
		if a.err != nil {
			m.errors = append(m.errors, a.err)
			continue
		}
		m.readings = append(m.readings, a.reading)
		if _, claims := t.Trigger.(trigger.Claimer); claims && !handsOut {
			m.wake, handsOut = a.wake, true
		}
	}
	return m
}

// tell counts the measurements, and tells of triggers that do not work or work again.
func (c *Controller) tell(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers, m measured) {
	for i, a := range m.answers {
		t := live.triggers[i]
		if ctx.Err() == nil {
			c.Metrics.Measured(t.ref, a.reading, a.took, a.err)
		}
		if what := "trigger " + t.label; a.err != nil {
			c.fails(ctx, sj, r, what, a.err)
		} else {
			c.works(r, what)
		}
	}
}
