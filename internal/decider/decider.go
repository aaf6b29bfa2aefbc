// Package decider decides for one ScaledJob with delivery by pop, again and again. Each decision is that of package
// scaling; what it needs from the time before is kept here: which Jobs have yet to take the work that they were started
// for, and when minReplicaCount was last asked for Jobs. It is pure: no I/O, and the clock is the caller's. The
// controller drives it with the real one, a simulation with a virtual one.
package decider

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/scaling"
)

// Job is what a Decider needs to know of an unfinished Job.
type Job struct {
	UID types.UID
	// Since is when the Job began to run, zero while it is pending.
	Since time.Time
}

// Waiting is the work that all triggers of a ScaledJob together have measured, in their unit.
type Waiting struct {
	Amount float64
	// Target is how much of it one Job takes.
	Target float64
}

// Decider remembers one ScaledJob. It is not safe for concurrent use.
type Decider struct {
	takeup  *takeup
	floorAt time.Time // when Jobs were last created because minReplicaCount asked for them
}

// New returns a Decider that knows nothing.
func New() *Decider { return &Decider{takeup: newTakeup()} }

// Observe takes the unfinished Jobs as they are now: all of them. A target is how much work a Job owes that is new to
// the Decider; polling is the ScaledJob's polling interval. It returns how many Jobs have ended since the last time
// while nothing at all was taken.
func (d *Decider) Observe(jobs []Job, target float64, now time.Time, polling time.Duration) (surplus int) {
	return d.takeup.observe(jobs, target, now, polling)
}

// Began tells that a Job, one of those that Created has told of, runs now. Began, Ended and Elapsed together are
// Observe for those who are told of each change.
func (d *Decider) Began(job types.UID, now time.Time) {
	d.takeup.see(Job{UID: job, Since: now}, 0, now)
}

// Ended tells that a Job is unfinished no more.
func (d *Decider) Ended(job types.UID, now time.Time) { d.takeup.ended(job, now) }

// Elapsed tells the time, once Began and Ended have told what happened until then. It returns what Observe does.
func (d *Decider) Elapsed(now time.Time, polling time.Duration) (surplus int) {
	return d.takeup.expire(now, polling)
}

// Measured takes a measurement of all triggers: what it fell by was taken by Jobs. It follows Observe.
func (d *Decider) Measured(amount float64, now time.Time) { d.takeup.measure(amount, now) }

// Interrupted forgets the last measurement: the next one will be of something else.
func (d *Decider) Interrupted() { d.takeup.interrupted() }

// Untaken returns for how many Jobs the work still waits, when that many are unfinished, of which some are pending.
func (d *Decider) Untaken(unfinished, pending int64) int64 {
	return d.takeup.untaken(int(unfinished), int(pending))
}

// Decide decides as scaling.Decide does, but for one thing: Jobs that minReplicaCount or a fallback asks for are
// replaced once a polling interval after Floored. Where there is nothing to do, they end at once, and so would their
// successors.
func (d *Decider) Decide(
	rule scaling.Rule, state scaling.State, now time.Time, polling time.Duration,
) scaling.Decision {
	decision := scaling.Decide(rule, state)
	if !decision.Floor {
		return decision
	}
	if now.Sub(d.floorAt) < polling {
		fallsBack := state.Fallback != nil
		rule.Min, state.Fallback = nil, nil // the work that waits still gets its Jobs
		without := scaling.Decide(rule, state)
		if fallsBack && without.Create == 0 && !rule.Unexplained {
			without.Reason = decision.Reason + "; such Jobs are replaced once a polling interval"
		}
		return without
	}
	return decision
}

// Floored tells that all Jobs were allowed which minReplicaCount or a fallback asks for, as a decision's Floor says.
func (d *Decider) Floored(now time.Time) { d.floorAt = now }

// Created tells of Jobs that were created for the work that waits.
func (d *Decider) Created(waiting Waiting, jobs ...types.UID) {
	if len(jobs) == 0 {
		return
	}
	unowed := waiting.Amount - d.takeup.owed()
	for _, job := range jobs {
		work := min(waiting.Target, unowed)
		d.takeup.created(job, work)
		unowed -= max(0, work)
	}
}

// Deleted tells of a Job that was deleted on purpose: its work waits for another one.
func (d *Decider) Deleted(job types.UID) { d.takeup.deleted(job) }

// Next returns how long until the decision may be another one although nothing has changed: at most the polling
// interval.
func (d *Decider) Next(state scaling.State, now time.Time, polling time.Duration) time.Duration {
	if soon := d.takeup.next(now, polling); soon > 0 && state.Untaken > 0 {
		return min(polling, soon)
	}
	return polling
}
