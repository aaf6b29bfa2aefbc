package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Delivery by claim: each Job is made for one claim, and the claim is held until the outcome of the Job is settled. The
// queue and the Jobs are all the state there is; what is in memory only saves asking.
const (
	// compareEvery is how often the claims are read anew and compared with the Jobs.
	compareEvery = time.Minute
	// claimAtOnce bounds the claims of one request, during which the queue's server does nothing else.
	claimAtOnce = 256
	// claimBytes is after how many bytes of items a request claims no more, gatherBytes after how many the Jobs of what
	// is claimed are made before there are further requests.
	claimBytes  = 8 << 20
	gatherBytes = 32 << 20
	// releaseWithin is how long a deleted ScaledJob waits for a queue that cannot be reached.
	releaseWithin = 30 * time.Second
)

// Exit codes by which a command says what is to become of its item, as in <sysexits.h>.
const (
	exitDataError   = 65 // EX_DATAERR: never again
	exitTemporarily = 75 // EX_TEMPFAIL: later, and this attempt does not count
)

// items is what the controller knows of the claims of one ScaledJob.
type items struct {
	// known tells that held is what the queue says: it was read, and every request since then was answered.
	known    bool
	compared time.Time
	// held are the claims by the item's id. Once its Job exists, a claim's parts are dropped.
	held map[string]queue.Claim
	// sweepAt is when the queue may have items whose wait is over: at once while that is not known.
	sweepAt time.Time
	// woken is what the last measurement said of when items come back by themselves; nil when it said nothing.
	woken *string
}

// concerned tells whether there are claims, or Jobs made for claims, that have to be looked after.
func (r *record) concerned(sj *v1alpha1.ScaledJob, jobs []Job) bool {
	if sj.ClaimsItems() || len(r.items.held) > 0 || slices.Contains(sj.Finalizers, v1alpha1.FinalizerSettle) {
		return true
	}
	for _, job := range jobs {
		if id, _ := claimOf(job.Job); id != "" && unsettled(job.Job) {
			return true
		}
	}
	return false
}

// ownerOf is the name under which the ScaledJob claims. One that follows it under its name takes its claims over.
func ownerOf(sj *v1alpha1.ScaledJob) string { return sj.Key().String() }

// claimer returns the trigger that hands out items.
func claimer(live *liveTriggers) (trigger.Claimer, error) {
	for _, t := range live.all() {
		if c, ok := t.Trigger.(trigger.Claimer); ok {
			return c, nil
		}
	}
	return nil, errors.New("no trigger hands out items, which delivery by claim needs: use one that does, such as redis")
}

// knowClaims reads the claims from the queue when they are not known, or the time has come to compare. Where none is
// held, it is enough that the queue has none, which costs nothing to ask as long as nothing happens there.
func (c *Controller) knowClaims(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, source trigger.Claimer, q queue.Queue, now time.Time,
) error {
	if r.items.known && now.Sub(r.items.compared) < compareEvery {
		return nil
	}
	if r.items.known && len(r.items.held) == 0 {
		var claimed int64
		var err error
		c.aside(func() { claimed, err = source.Claimed(ctx) })
		if err == nil && claimed == 0 {
			r.items.compared = now
			return nil
		}
	}
	claims, err := q.Claims(ctx, ownerOf(sj))
	if err != nil {
		return fmt.Errorf("read the claims on %q: %w", q.Name(), err)
	}
	r.items.held = make(map[string]queue.Claim, len(claims))
	for _, claim := range claims {
		r.items.held[claim.ID] = claim
	}
	r.items.known, r.items.compared = true, now
	return nil
}

// work is what a look at the Jobs has found.
type work struct {
	// queue is the one that the ScaledJob claims from.
	queue queue.Queue
	// running counts Jobs that have not ended: those whose Pods may still work on an item.
	running int64
	pending int64
	// settle are the Jobs that have ended and whose claims are held, with what becomes of these.
	settle []settling
	// free are Jobs that are kept although nothing is left to settle.
	free []Job
	// ending are Jobs that are being deleted and have Pods that run.
	ending []Job
	// elsewhere are Jobs that have ended and whose items are from a queue that is not the ScaledJob's any more.
	elsewhere []Job
	// missing are claims that have no Job.
	missing []queue.Claim
}

// settling is a claim whose Job has ended.
type settling struct {
	job Job
	queue.Settlement
	claim queue.Claim
}

// look compares the Jobs with the claims.
func (r *record) look(sj *v1alpha1.ScaledJob, queueName string, jobs []Job) (w work) {
	conditions := sj.Spec.ScalingStrategy.PendingPodConditions
	made := make(map[string]bool, len(r.items.held))
	for _, job := range jobs {
		id, attempt := claimOf(job.Job)
		deleted := job.DeletionTimestamp != nil
		alive := Alive(job)
		if alive {
			w.running++
			if Pending(job, conditions) {
				w.pending++
			}
		}
		if id == "" {
			continue
		}
		claim, held := r.items.held[id]
		held = held && claim.Attempt == attempt
		if held {
			made[id] = true
		}
		switch {
		case alive && deleted:
			w.ending = append(w.ending, job)
		case alive:
		case unsettled(job.Job) && queueOf(job.Job) != queueName:
			w.elsewhere = append(w.elsewhere, job)
		case held:
			w.settle = append(w.settle, settling{job: job, claim: claim})
		case unsettled(job.Job):
			w.free = append(w.free, job)
		}
	}
	for id, claim := range r.items.held {
		if !made[id] {
			w.missing = append(w.missing, claim)
		}
	}
	return w
}

// Alive tells whether the Job has not ended: its Pods may still work. One that is suspended may be resumed at any time.
func Alive(job Job) bool {
	how, _ := Finished(job.Job)
	return how == "" && (job.DeletionTimestamp == nil || podsAlive(job))
}

// podsAlive tells whether a Pod of the Job may still run.
func podsAlive(job Job) bool {
	for _, pod := range job.Pods {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return true
		}
	}
	return false
}

// never is as good as never.
const never = 10 * 365 * 24 * time.Hour

// wake makes the queue be swept at that time at the latest.
func (i *items) wake(at time.Time) {
	if at.Before(i.sweepAt) {
		i.sweepAt = at
	}
}

// sleep notes what the queue has said of when it has something again; negative means that nothing waits. Where nobody
// tells when that changes, because others put items off or take some, it is asked again after the longest time.
func (i *items) sleep(next, longest time.Duration, now time.Time) {
	if i.woken != nil {
		longest = never
	}
	if next < 0 || next > longest {
		next = longest
	}
	i.sweepAt = now.Add(next)
}

// see takes from a measurement when items come back by themselves. When the times have changed, the queue is asked how
// long that is, by its own clock.
func (i *items) see(wake *string, now time.Time) {
	switch {
	case wake == nil:
	case *wake == "":
		i.sweepAt = now.Add(never)
	case i.woken == nil || *wake != *i.woken:
		i.sweepAt = now
	}
	i.woken = wake
}

// left returns how long until the queue is to be swept, at least a millisecond.
func (i *items) left() time.Duration { return max(time.Millisecond, time.Until(i.sweepAt)) }

// settleItems looks at the claims and at their Jobs, and settles what has ended. It returns what there is left.
func (c *Controller) settleItems(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers, jobs []Job, report *report,
) (w work, err error) {
	source, err := claimer(live)
	if err != nil {
		return w, err
	}
	q := c.itemsOf(source, "")
	if err := c.knowClaims(ctx, sj, r, source, q, time.Now()); err != nil {
		return w, err
	}
	w = r.look(sj, q.Name(), jobs)
	w.queue = q
	if err := c.endPods(ctx, w.ending); err != nil {
		return w, err
	}
	if err := c.settleElsewhere(ctx, sj, source, &w, report); err != nil {
		return w, err
	}
	if err := c.settle(ctx, sj, r, w, report); err != nil {
		return w, err
	}
	if sj.PausedByAnnotation() || !sj.ClaimsItems() {
		if err := c.stopClaiming(ctx, sj, r, w); err != nil {
			return w, err
		}
	}
	c.works(r, claiming)
	return w, nil
}

// sweep puts items whose wait is over, or whose runner is gone, back to the list, when there may be some, and returns
// whether there were. It does so with delivery by pop too, where no runner may be there to do it; if the queue does not
// let it, for example because the user may not run scripts, there are no such items from here.
func (c *Controller) sweep(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, live *liveTriggers,
) (returned bool, err error) {
	now := time.Now()
	if now.Before(r.items.sweepAt) {
		return false, nil
	}
	source, err := claimer(live)
	if err != nil {
		r.items.sweepAt = now.Add(never)
		return false, nil //nolint:nilerr // a source that hands out no items has none to put back
	}
	q := c.itemsOf(source, "")
	swept, err := q.Sweep(ctx)
	switch {
	case err == nil:
		r.items.sleep(swept.Next, sj.Polling(), now)
	case sj.ClaimsItems():
		return false, fmt.Errorf("look for items of %q whose wait is over: %w", q.Name(), err)
	default:
		r.items.sleep(-1, sj.Polling(), now)
		c.Log.Debug("items with leases are not looked for", "scaledjob", r.key.String(), "error", err)
	}
	return swept.Returned > 0, nil
}
