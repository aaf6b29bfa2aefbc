package scaledjob

import (
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// minimumPatience keeps a burst of very quick runners from making the estimate nervous (RFC 6298 has the same bound).
const minimumPatience = time.Second

// takeup estimates how many unfinished Jobs have yet to take the work that they were started for.
//
// With delivery by pop the runner takes its item itself, some time after its Job was created, and nothing tells which
// Job took which item. Until then the item still waits in the measurement, and a decision that counted it again would
// start a second Job for it. So each new Job owes what it was started for; a measurement that falls shows that work was
// taken, and pays the oldest debt of a running Job. A push and a pop between two measurements hide each other: such a
// debt is never paid. It is therefore written off after a time that is learnt from the paid ones, as TCP learns its
// retransmission timeout (RFC 6298: smoothed time plus four times its variation), at most the polling interval: then
// KEDA would have counted the work again too.
//
// A Job that ends owes nothing more, except where nothing at all was taken while it lived: then its runner is probably
// broken, and an immediate successor would be as well. Such a barren Job's debt is held for a pause that doubles with
// each failure in a row up to the polling interval, at which KEDA would try again; a fall ends all pauses.
type takeup struct {
	debts []debt
	// known holds the unfinished Jobs, and whether they ran when last looked at.
	known map[types.UID]bool

	lastValue float64
	measured  bool
	// falls counts the measurements that fell; barren how often in a row Jobs ended that saw none.
	falls  int
	barren int

	sampled          bool
	smoothed, spread time.Duration
}

// debt is work that a Job was started for and has not been seen to take.
type debt struct {
	job types.UID
	// work is in the measurement's unit.
	work float64
	// since is when the Job was first seen running; zero while it is pending, when it cannot take anything.
	since time.Time
	// falls is takeup's count when the Job was started.
	falls int
	// until is the end of a barren Job's pause; zero for others.
	until time.Time
}

// newTakeup returns an estimate that knows nothing.
func newTakeup() *takeup { return &takeup{known: map[types.UID]bool{}} }

// created records that a Job was started for an amount of work: 0 when it was started for none, as minReplicaCount
// asks.
func (t *takeup) created(job types.UID, work float64) {
	t.known[job] = false
	if work > 0 {
		t.debts = append(t.debts, debt{job: job, work: work, falls: t.falls})
	}
}

// deleted records that a Job was deleted on purpose: its work waits for another one, and it did not end without taking
// it.
func (t *takeup) deleted(job types.UID) {
	t.known[job] = false // it may be listed once more
	t.debts = slices.DeleteFunc(t.debts, func(d debt) bool { return d.job == job })
}

// measure records a new measurement: what it fell by was taken by Jobs.
func (t *takeup) measure(value float64, now time.Time) {
	fell := t.lastValue - value
	known := t.measured
	t.lastValue, t.measured = value, true
	if !known || fell <= 0 {
		return
	}
	t.falls++
	t.barren = 0
	// A Job that took its work and ended since the last measurement looks barren until now: it comes first. One that the
	// list still shows as pending may have begun to run since: it comes last.
	fell = t.pay(fell, now, debt.held)
	fell = t.pay(fell, now, func(d debt) bool { return !d.since.IsZero() })
	t.pay(fell, now, func(d debt) bool { return d.since.IsZero() })
	// What is still held either took its work behind a push that hid the fall, or took none; others' success sets it free.
	t.debts = slices.DeleteFunc(t.debts, debt.held)
}

// held tells whether it is that of a barren Job.
func (d debt) held() bool { return !d.until.IsZero() }

// pay books an amount on the oldest debts that are eligible and returns what is left of it.
func (t *takeup) pay(amount float64, now time.Time, eligible func(debt) bool) float64 {
	kept := t.debts[:0]
	for _, d := range t.debts {
		if amount > 0 && eligible(d) {
			paid := math.Min(amount, d.work)
			amount -= paid
			d.work -= paid
			if d.work <= 0 {
				var took time.Duration // none that was seen, for one that was not even seen running
				if !d.since.IsZero() {
					took = now.Sub(d.since)
				}
				t.sample(took)
				continue
			}
		}
		kept = append(kept, d)
	}
	t.debts = kept
	return amount
}

// interrupted forgets the last measurement: the next one will be of something else.
func (t *takeup) interrupted() { t.measured = false }

// unfinished is what takeup needs to know of a Job.
type unfinished struct {
	uid types.UID
	// since is when the Job began to run, zero while it is pending.
	since time.Time
}

// observe takes the unfinished Jobs as they are now. Jobs that are new to takeup, after a restart for example, owe one
// target's worth of work since they began to run; and so do Jobs that ran and are pending again, since the Pod that
// follows a failed one takes work anew. limit bounds the patience.
func (t *takeup) observe(jobs []unfinished, target float64, now time.Time, limit time.Duration) {
	alive := make(map[types.UID]time.Time, len(jobs))
	for _, job := range jobs {
		alive[job.uid] = job.since
		ran, known := t.known[job.uid]
		if !known || ran && job.since.IsZero() {
			t.debts = append(t.debts, debt{job: job.uid, work: target, since: job.since, falls: t.falls})
		}
		t.known[job.uid] = !job.since.IsZero()
	}
	patience, barren := t.patience(limit), t.barren
	kept := t.debts[:0]
	for _, d := range t.debts {
		since, unfinished := alive[d.job]
		if d.since.IsZero() && (!unfinished || !since.IsZero()) {
			d.since = now
		}
		if !unfinished && !d.held() && d.falls == t.falls {
			d.until = now.Add(t.pause(limit))
			barren = t.barren + 1
		}
		if d.since.IsZero() || d.held() && now.Before(d.until) || !d.held() && now.Sub(d.since) < patience {
			kept = append(kept, d)
		}
	}
	t.debts, t.barren = kept, barren
	for uid := range t.known {
		if _, unfinished := alive[uid]; !unfinished {
			delete(t.known, uid)
		}
	}
}

// untaken returns for how many Jobs the work still waits: those of the unfinished, of which some are pending, that have
// yet to take it, and the barren ones. A Job that has ended owes nothing, but the fall that it caused may have been
// booked on another one: only the number of debts counts, not whose they are.
func (t *takeup) untaken(unfinished, pending int) int64 {
	held := 0
	for _, d := range t.debts {
		if d.held() {
			held++
		}
	}
	return int64(held + max(pending, min(len(t.debts)-held, unfinished)))
}

// next returns how long until the oldest debt is written off; zero when there is none.
func (t *takeup) next(now time.Time, limit time.Duration) time.Duration {
	var soonest time.Duration
	patience := t.patience(limit)
	for _, d := range t.debts {
		if d.since.IsZero() {
			continue
		}
		left := patience - now.Sub(d.since)
		if d.held() {
			left = d.until.Sub(now)
		}
		if left = max(time.Millisecond, left); soonest == 0 || left < soonest {
			soonest = left
		}
	}
	return soonest
}

// patience is the time after which a running Job is taken to have its work.
func (t *takeup) patience(limit time.Duration) time.Duration {
	if !t.sampled {
		return limit
	}
	return min(limit, max(minimumPatience, t.smoothed+4*t.spread))
}

// pause is how long a barren Job keeps others from being started for its work.
func (t *takeup) pause(limit time.Duration) time.Duration {
	const most = 10 // doublings: more than any polling interval needs
	if !t.sampled {
		return limit
	}
	return min(limit, minimumPatience<<min(t.barren, most))
}

// sample learns from a Job that took its work the given time after it began to run.
func (t *takeup) sample(took time.Duration) {
	if !t.sampled {
		t.sampled, t.smoothed, t.spread = true, took, took/2
		return
	}
	t.spread += ((t.smoothed - took).Abs() - t.spread) / 4
	t.smoothed += (took - t.smoothed) / 8
}

// owed is the work that has yet to be taken, in the measurement's unit.
func (t *takeup) owed() float64 {
	var sum float64
	for _, d := range t.debts {
		sum += d.work
	}
	return sum
}
