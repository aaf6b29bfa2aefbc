package scaledjob

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// reconcile brings one ScaledJob to where it should be: measure, decide, act, settle. It returns when to look again at
// the latest, also with an error; 0 when only a change is a reason. Status is written once, at the end, when it has
// changed.
func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (again time.Duration, err error) {
	sj, err := c.Objects.ScaledJob(ctx, key)
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read ScaledJob %s: %w", key, err)
	}
	if sj.DeletionTimestamp != nil {
		c.forget(key)
		return 0, nil
	}
	r := c.record(sj)
	report := c.newReport(sj, r)
	defer func() {
		if ctx.Err() != nil {
			return // what fails because this program ends is no state of the ScaledJob
		}
		if writeErr := report.write(ctx); err == nil {
			err = writeErr
		}
	}()

	again = sj.Polling()
	jobs, err := c.Jobs.List(ctx, key)
	if err != nil {
		// What runs is unknown, and from ignorance nothing may be created.
		report.jobsUnknown(ctx, err)
		return again, err
	}
	if err := c.rollOut(ctx, sj, r, jobs, report); err != nil {
		return again, err
	}
	if sj.PausedByAnnotation() {
		report.paused(true)
		c.closeTriggers(r)
		return 0, c.trimHistory(ctx, sj, jobs)
	}
	report.paused(false)

	triggers, err := c.triggers(ctx, sj, r)
	if err != nil {
		report.checkFailed(ctx, err)
		c.closeTriggers(r)
		return again, err
	}
	m := c.measure(ctx, sj, r, triggers)
	report.measured(m)

	state := c.state(sj, r, jobs, m)
	decision := r.decide(scaling.RuleOf(sj), state, sj.Polling())
	r.see(m, decision)

	createErr := c.create(ctx, sj, r, decision, m, report)
	if err := c.trimHistory(ctx, sj, jobs); err != nil {
		return again, err
	}
	if createErr != nil {
		return again, createErr
	}
	if len(m.errors) > 0 {
		return again, fmt.Errorf("measure %s: %w", key, m.errors[0])
	}
	if soon := r.takeup.next(time.Now(), again); soon > 0 && state.Untaken > 0 {
		again = min(again, soon)
	}
	return again, nil
}

// decide decides, but for one thing: Jobs that minReplicaCount asks for are replaced once a polling interval. Where
// there is nothing to do, they end at once, and so would their successors.
func (r *record) decide(rule scaling.Rule, state scaling.State, polling time.Duration) scaling.Decision {
	decision := scaling.Decide(rule, state)
	if !decision.Floor {
		return decision
	}
	if time.Since(r.floorAt) < polling {
		rule.Min = nil // the work that waits still gets its Jobs
		return scaling.Decide(rule, state)
	}
	r.floorAt = time.Now()
	return decision
}

// state turns Jobs and measurements into what the decision needs.
func (c *Controller) state(sj *v1alpha1.ScaledJob, r *record, jobs []Job, m measured) scaling.State {
	now := time.Now()
	conditions := sj.Spec.ScalingStrategy.PendingPodConditions
	state := scaling.State{Readings: m.readings}
	var alive []unfinished
	for _, job := range jobs {
		if how, _ := Finished(job.Job); how != "" {
			continue
		}
		state.Running++
		var since time.Time
		if Pending(job, conditions) {
			state.Pending++
		} else {
			since = startedAt(job, now)
		}
		alive = append(alive, unfinished{job.UID, since})
	}
	r.takeup.observe(alive, m.target(), now, sj.Polling())
	if len(m.errors) == 0 {
		r.takeup.measure(m.queue(), now)
	}
	state.Untaken = r.takeup.untaken(int(state.Running), int(state.Pending))
	return state
}

// see keeps what View tells.
func (r *record) see(m measured, decision scaling.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.Queue = nil
	if len(m.readings) > 0 && len(m.errors) == 0 {
		queue := m.queue()
		r.view.Queue = &queue
	}
	r.view.Decision, r.view.At = decision, time.Now()
}
