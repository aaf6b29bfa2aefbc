package decider

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
	// Debts, the oldest first: pending ones are of Jobs that have not begun to run, due ones of others, and held ones of
	// barren Jobs.
	pending, due, held []debt
	// known holds the unfinished Jobs as they were when last looked at.
	known map[types.UID]*known

	lastValue float64
	measured  bool
	// falls counts the measurements that fell; barren how often in a row Jobs ended that saw none.
	falls  int
	barren int

	sampled          bool
	smoothed, spread time.Duration
}

// known is what was seen of a Job.
type known struct{ runs, ended bool }

// debt is work that a Job was started for and has not been seen to take.
type debt struct {
	job *known
	// work is in the measurement's unit.
	work float64
	// since is when the Job was first seen running; zero while it is pending, when it cannot take anything.
	since time.Time
	// falls is takeup's count when the Job was started.
	falls int
	// until is the end of a barren Job's pause.
	until time.Time
}

// newTakeup returns an estimate that knows nothing.
func newTakeup() *takeup { return &takeup{known: map[types.UID]*known{}} }

// created records that a Job was started for an amount of work: 0 when it was started for none, as minReplicaCount
// asks.
func (t *takeup) created(job types.UID, work float64) {
	made := &known{}
	t.known[job] = made
	if work > 0 {
		t.pending = append(t.pending, debt{job: made, work: work, falls: t.falls})
	}
}

// deleted records that a Job was deleted on purpose: its work waits for another one, and it did not end without taking
// it.
func (t *takeup) deleted(job types.UID) {
	was := t.known[job]
	t.known[job] = &known{} // it may be listed once more
	for _, debts := range []*[]debt{&t.pending, &t.due, &t.held} {
		*debts = slices.DeleteFunc(*debts, func(d debt) bool { return d.job == was })
	}
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
	for _, debts := range []*[]debt{&t.held, &t.due, &t.pending} {
		fell = t.pay(debts, fell, now)
	}
	// What is still held either took its work behind a push that hid the fall, or took none; others' success sets it free.
	t.held = t.held[:0]
}

// pay books an amount on the oldest debts and returns what is left of it.
func (t *takeup) pay(debts *[]debt, amount float64, now time.Time) float64 {
	n := 0
	for ; n < len(*debts) && amount > 0; n++ {
		d := &(*debts)[n]
		paid := math.Min(amount, d.work)
		amount -= paid
		if d.work -= paid; d.work > 0 {
			break
		}
		var took time.Duration // none that was seen, for one that was not even seen running
		if !d.since.IsZero() {
			took = now.Sub(d.since)
		}
		t.sample(took)
	}
	*debts = slices.Delete(*debts, 0, n)
	return amount
}

// interrupted forgets the last measurement: the next one will be of something else.
func (t *takeup) interrupted() { t.measured = false }

// observe takes the unfinished Jobs as they are now: all of them. limit bounds the patience. It returns how many Jobs
// have proved barren.
func (t *takeup) observe(jobs []Job, target float64, now time.Time, limit time.Duration) (barren int) {
	listed := make(map[types.UID]bool, len(jobs))
	for _, job := range jobs {
		listed[job.UID] = true
		t.see(job, target, now)
	}
	for uid := range t.known {
		if !listed[uid] {
			t.ended(uid, now)
		}
	}
	return t.expire(now, limit)
}

// see takes an unfinished Job as it is now. Jobs that are new to takeup, after a restart for example, owe one target's
// worth of work since they began to run; and so do Jobs that ran and are pending again, since the Pod that follows a
// failed one takes work anew.
func (t *takeup) see(job Job, target float64, now time.Time) {
	runs := !job.Since.IsZero()
	was := t.known[job.UID]
	switch {
	case was == nil:
		was = &known{}
		t.known[job.UID] = was
		owes := debt{job: was, work: target, since: job.Since, falls: t.falls}
		if runs {
			t.due = append(t.due, owes)
		} else {
			t.pending = append(t.pending, owes)
		}
	case was.runs && !runs:
		t.pending = append(t.pending, debt{job: was, work: target, falls: t.falls})
	case !was.runs && runs:
		t.fallDue(was, now)
	}
	was.runs = runs
}

// ended records that a Job is unfinished no more.
func (t *takeup) ended(job types.UID, now time.Time) {
	if was := t.known[job]; was != nil {
		was.ended = true
		t.fallDue(was, now)
		delete(t.known, job)
	}
}

// fallDue lets the debt of a Job fall due that was pending.
func (t *takeup) fallDue(job *known, now time.Time) {
	i := slices.IndexFunc(t.pending, func(d debt) bool { return d.job == job })
	if i < 0 {
		return
	}
	d := t.pending[i]
	d.since = now
	t.due = append(t.due, d)
	if i == 0 { // as a rule, since Jobs begin to run in the order in which they were created
		t.pending = t.pending[1:]
		return
	}
	t.pending = slices.Delete(t.pending, i, i+1)
}

// expire holds the debts of barren Jobs, and writes off those whose time is over. It returns how many Jobs have proved
// barren since the last time.
func (t *takeup) expire(now time.Time, limit time.Duration) (barren int) {
	if len(t.held)+len(t.due) == 0 {
		return 0
	}
	t.held = slices.DeleteFunc(t.held, func(d debt) bool { return !now.Before(d.until) })
	patience, pause := t.patience(limit), t.pause(limit)
	t.due = slices.DeleteFunc(t.due, func(d debt) bool {
		if d.job.ended && d.falls == t.falls {
			d.until = now.Add(pause)
			t.held = append(t.held, d)
			barren++
			return true
		}
		return now.Sub(d.since) >= patience
	})
	if barren > 0 {
		t.barren++
	}
	return barren
}

// untaken returns for how many Jobs the work still waits: those of the unfinished, of which some are pending, that have
// yet to take it, and the barren ones. A Job that has ended owes nothing, but the fall that it caused may have been
// booked on another one: only the number of debts counts, not whose they are.
func (t *takeup) untaken(unfinished, pending int) int64 {
	return int64(len(t.held) + max(pending, min(len(t.pending)+len(t.due), unfinished)))
}

// next returns how long until the oldest debt is written off; zero when none will be without a change.
func (t *takeup) next(now time.Time, limit time.Duration) time.Duration {
	var soonest time.Duration
	sooner := func(left time.Duration) {
		if left = max(time.Millisecond, left); soonest == 0 || left < soonest {
			soonest = left
		}
	}
	for _, d := range t.due {
		sooner(t.patience(limit) - now.Sub(d.since))
	}
	for _, d := range t.held {
		sooner(d.until.Sub(now))
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
	for _, debts := range [][]debt{t.pending, t.due, t.held} {
		for i := range debts {
			sum += debts[i].work
		}
	}
	return sum
}
