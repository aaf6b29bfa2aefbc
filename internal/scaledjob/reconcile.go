package scaledjob

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/decider"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// reconcile brings one ScaledJob to where it should be: measure, decide, act, settle. It returns when to look again at
// the latest, also with an error; 0 when only a change is a reason. Status is written once, at the end, when it has
// changed.
func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (again time.Duration, err error) {
	sj, err := c.Objects.ScaledJob(ctx, key)
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return 0, c.countLeft(ctx, key)
	}
	if err != nil {
		c.withdraw(key)
		return 0, fmt.Errorf("read ScaledJob %s: %w", key, err)
	}
	if sj.DeletionTimestamp != nil || c.ReleaseAll {
		again, err = c.leave(ctx, sj)
		return again, cmp.Or(err, c.countLeft(ctx, key))
	}
	r := c.record(sj)
	if r.tracked != sj.Generation {
		r.tracked = sj.Generation
		c.Metrics.Tracked(sj)
	}
	c.Metrics.Reconciled(key, r.late(time.Now()), sj.PausedByAnnotation())
	report := c.newReport(sj, r)
	defer func() {
		c.leaveLimits(r, err != nil)
		if ctx.Err() != nil {
			return // what fails because this program ends is no state of the ScaledJob
		}
		later := report.limited()
		wait, writeErr := report.write(ctx)
		err = cmp.Or(err, writeErr)
		for _, due := range []time.Duration{later, wait} {
			if due > 0 && (again == 0 || due < again) {
				again = due
			}
		}
	}()

	again = sj.Polling()
	jobs, err := c.Jobs.List(ctx, key)
	if err != nil {
		// What runs is unknown, and from ignorance nothing may be created.
		report.jobsUnknown(ctx, err)
		return again, err
	}
	c.works(r, listingJobs)
	c.count(key, jobs)
	r.jobs.Store(int64(len(jobs)))
	podless, why := withoutPods(jobs)
	c.Metrics.WithoutPods(key, podless)
	paused, concerned := sj.PausedByAnnotation(), r.concerned(sj, jobs)
	if paused {
		report.paused()
	} else {
		report.notPaused()
		err = c.rollOut(ctx, sj, r, jobs, report)
	}
	if err != nil {
		return again, err
	}
	if paused && !concerned {
		c.stopTriggers(r)
		return 0, c.trimHistory(ctx, sj, r, jobs)
	}

	triggers, err := c.triggers(ctx, sj, r)
	if err != nil {
		report.checkFailed(ctx, err)
		c.closeTriggers(r)
		return again, err
	}
	var w work
	if concerned {
		if w, err = c.settleItems(ctx, sj, r, triggers, jobs, report); err != nil {
			if c.renewed(ctx, sj, r, triggers) {
				return c.anew(key)
			}
			report.claimFailed(ctx, err)
			return again, err
		}
	}
	if paused {
		return again, c.trimHistory(ctx, sj, r, jobs)
	}
	noticed := r.takeNotice()
	m := c.measure(ctx, triggers)
	if len(m.errors) > 0 && c.renewed(ctx, sj, r, triggers) {
		return c.anew(key)
	}
	if len(m.errors) == 0 {
		r.failed = false
		r.items.see(m.wake, time.Now())
		returned, err := c.sweep(ctx, sj, r, triggers)
		if err != nil {
			report.claimFailed(ctx, err)
			return again, err
		}
		if returned {
			m = c.measure(ctx, triggers)
		}
	}
	c.combine(sj, r, triggers, &m, time.Now())
	c.tell(ctx, sj, r, triggers, m)
	report.measured(m)
	report.fallback(m)
	report.podsRefused(ctx, why)

	if sj.ClaimsItems() {
		err = c.deliver(ctx, sj, r, w, m, noticed, report)
	} else {
		again, err = c.scale(ctx, sj, r, triggers, jobs, m, noticed, report)
	}
	if err := c.trimHistory(ctx, sj, r, jobs); err != nil {
		return again, err
	}
	if err != nil {
		return again, err
	}
	if len(m.errors) > 0 {
		return again, fmt.Errorf("measure %s: %w", key, m.errors[0])
	}
	if again == sj.Polling() && quiet(sj, jobs, m) {
		again = max(again, m.holds)
	}
	if sj.ClaimsItems() {
		again = min(again, time.Until(r.items.compared.Add(compareEvery))+time.Millisecond)
	}
	return r.spread(triggers.left(min(again, r.items.left()))), nil
}

// quiet tells that there is nothing to do, and will not be before a trigger tells of a change.
func quiet(sj *v1alpha1.ScaledJob, jobs []Job, m measured) bool {
	return m.queue() <= 0 && !m.active() && ptr.Deref(sj.Spec.MinReplicaCount, 0) == 0 &&
		!slices.ContainsFunc(jobs, func(job Job) bool { how, _ := Finished(job.Job); return how == "" })
}

// renewed is for triggers that do not work: a password may have been changed, and nobody tells of Secrets on a cluster.
// So what they are made from is read again in the next reconcile. When they have worked until now, that is done at
// once: true tells that they have been replaced, and that there is nothing to tell yet.
func (c *Controller) renewed(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers) bool {
	defer r.doubt()
	if r.failed {
		return false
	}
	r.failed = true
	r.doubt()
	fresh, err := c.triggers(ctx, sj, r)
	return err == nil && fresh != live
}

// anew begins the reconcile once more, before anything is said or done about triggers that have been replaced.
func (c *Controller) anew(key types.NamespacedName) (again time.Duration, err error) {
	c.queue.Add(key)
	return 0, nil
}

// scale decides how many Jobs the work that waits is to have, and creates them: delivery by pop. It returns when to
// look again.
func (c *Controller) scale(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers, jobs []Job, m measured, noticed time.Time,
	report *report,
) (again time.Duration, err error) {
	again = sj.Polling()
	state := c.state(sj, r, jobs, m)
	state.Fallback = r.fallbackJobs(sj, live.rule, m, state.Running)
	decision := r.decider.Decide(scaling.RuleOf(sj), state, time.Now(), again)
	wanted := decision.Create
	if decision = c.limit(ctx, sj, r, decision); decision.Floor && decision.Create == wanted {
		r.decider.Floored(time.Now())
	}
	r.see(m, decision)
	if len(m.errors) == 0 {
		waiting := m.queue()
		c.Metrics.Queue(r.key, waiting, r.age.see(waiting, time.Now()), state.Running-state.Pending, state.Pending)
	}
	if err := c.create(ctx, sj, r, decision, m, noticed, report); err != nil {
		c.giveBackSlots(ctx, r, decision.Create, 0, err)
		return again, err
	}
	return r.decider.Next(state, time.Now(), again), nil
}

// state turns Jobs and measurements into what the decision needs.
func (c *Controller) state(sj *v1alpha1.ScaledJob, r *record, jobs []Job, m measured) scaling.State {
	now := time.Now()
	conditions := sj.Spec.ScalingStrategy.PendingPodConditions
	state := scaling.State{Readings: m.readings}
	var alive []decider.Job
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
		alive = append(alive, decider.Job{UID: job.UID, Since: since})
	}
	if surplus := r.decider.Observe(alive, m.target(), now, sj.Polling()); surplus > 0 {
		c.Metrics.Surplus(r.key, surplus)
	}
	if len(m.errors) == 0 {
		r.decider.Measured(m.queue(), now)
	}
	state.Untaken = r.decider.Untaken(state.Running, state.Pending)
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
