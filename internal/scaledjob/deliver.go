package scaledjob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// reasonItemRefused is why an item is dead for which there can be no Job.
const reasonItemRefused = "ItemRefused"

// deliver claims items, as far as slots are free, and makes their Jobs.
func (c *Controller) deliver(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, w work, m measured, noticed time.Time, report *report,
) error {
	if n := len(sj.Spec.Triggers); n > 1 {
		// Where no webhook has refused it: the items of the others would wait for ever, and nobody would be told.
		err := fmt.Errorf("there are %d triggers, want one where delivery.mode is claim: write a ScaledJob for each of the "+
			"others", n)
		report.claimFailed(ctx, err)
		return err
	}
	if !slices.Contains(sj.Finalizers, v1alpha1.FinalizerSettle) {
		if err := c.Objects.SetFinalizer(ctx, sj, true); err != nil {
			report.claimFailed(ctx, err)
			return fmt.Errorf("keep ScaledJob %s until its items are settled: %w", r.key, err)
		}
	}
	decision, err := c.claim(ctx, sj, r, w, m, report)
	r.see(m, decision)
	report.jobsCreated(int(decision.Create), decision.Reason)
	if decision.Create > 0 {
		var reaction time.Duration
		if !noticed.IsZero() {
			reaction = time.Since(noticed)
		}
		c.Metrics.Created(r.key, int(decision.Create), reaction)
	}
	if len(m.errors) == 0 {
		waiting := m.queue()
		c.Metrics.Queue(r.key, waiting, r.age.see(waiting, time.Now()), w.running-w.pending, w.pending)
	}
	var refused createError
	switch {
	case errors.As(err, &refused):
		report.createFailed(ctx, refused)
		return fmt.Errorf("create Jobs of %s: %w", r.key, refused)
	case err != nil:
		report.claimFailed(ctx, err)
	default:
		report.createSucceeded()
	}
	return err
}

// claim claims as many items as there are free slots for and makes their Jobs, those first whose Jobs are missing.
func (c *Controller) claim(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, w work, m measured, report *report,
) (decision scaling.Decision, err error) {
	q, missing := w.queue, int64(len(w.missing))
	rule := scaling.RuleOf(sj)
	slots := rule.Free(w.running + missing)
	more := m.active() && len(m.errors) == 0 && slots > 0
	wanted := missing
	if more {
		wanted += c.expected(slots, m)
	}
	granted := c.slots(ctx, sj, r, wanted, missing)
	defer func() { c.giveBackSlots(ctx, r, granted, decision.Create, err) }()
	made, err := c.makeItemJobs(ctx, sj, r, q, oldest(w.missing, granted), report)
	decision.Create = int64(made)
	decision.Reason = fmt.Sprintf("claim: %d Jobs for items that were claimed before", made)
	if err != nil {
		return decision, err
	}
	free := max(0, granted-missing)
	for more && free > 0 {
		var claims []queue.Claim
		var claimErr error
		claims, more, claimErr = c.gather(ctx, sj, r, q, free, m.target())
		made, err := c.makeItemJobs(ctx, sj, r, q, claims, report)
		decision.Create += int64(made)
		free -= int64(len(claims))
		if err = cmp.Or(err, claimErr); err != nil {
			return decision, err
		}
	}
	if more && granted == wanted && wanted < missing+slots {
		c.queue.Add(r.key) // there is more than was measured, and asked for
	}
	decision.Reason = fmt.Sprintf("claim: %d Jobs for %s ready, %d of %d slots were free%s",
		decision.Create, plural(int64(m.queue()), "item"), slots, rule.Limit(), waits(wanted-granted))
	return decision, nil
}

// expected is for how many of the free slots there are items, as far as is known. Where there are no limits it is all
// of them, and the queue itself says.
func (c *Controller) expected(slots int64, m measured) int64 {
	if c.limiter == nil {
		return slots
	}
	return min(slots, int64(math.Ceil(m.queue()/max(1, m.target()))))
}

// oldest returns the first n of the claims, in the order of their items' ids.
func oldest(claims []queue.Claim, n int64) []queue.Claim {
	if n >= int64(len(claims)) {
		return claims
	}
	slices.SortFunc(claims, func(a, b queue.Claim) int { return strings.Compare(a.ID, b.ID) })
	return claims[:n]
}

// gather claims items for that many Jobs, in several requests where there are many: their Jobs are then made together.
// more tells that the queue has further ones.
func (c *Controller) gather(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, q queue.Queue, free int64, target float64,
) (claims []queue.Claim, more bool, err error) {
	size := 0
	for more = true; more && int64(len(claims)) < free && size < gatherBytes; {
		result, err := q.Claim(ctx, queue.ClaimOptions{
			Owner: ownerOf(sj), Most: int(min(free-int64(len(claims)), claimAtOnce)),
			Holds: int(scaling.RuleOf(sj).Limit()), Parts: int(max(1, target)), Bytes: claimBytes,
		})
		if err != nil {
			r.items.known = false // it may have claimed all the same
			return claims, false, fmt.Errorf("claim items of %q: %w", q.Name(), err)
		}
		r.items.sleep(result.Next, sj.Polling(), time.Now())
		for _, claim := range result.Claims {
			r.items.held[claim.ID] = claim
			for _, part := range claim.Parts {
				size += len(part)
			}
		}
		claims = append(claims, result.Claims...)
		more = result.Ready > 0 && len(result.Claims) > 0
	}
	return claims, more, nil
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// makeItemJobs makes the Jobs of claims and returns how many. A claim whose Job cannot be made stays held; its Job is
// made later.
func (c *Controller) makeItemJobs(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, q queue.Queue, claims []queue.Claim, report *report,
) (made int, err error) {
	var mu sync.Mutex
	var hopeless []settling
	failed := false
	failures := c.parallel(len(claims), func(i int) error {
		mu.Lock()
		skip := failed
		mu.Unlock()
		if skip {
			return nil // they are all alike, so this one would fail as well
		}
		claim := claims[i]
		err := c.makeItemJob(ctx, sj, q, claim)
		mu.Lock()
		defer mu.Unlock()
		var ofItem ItemError
		if errors.As(err, &ofItem) {
			failure := &queue.Failure{Reason: reasonItemRefused, Message: err.Error(), At: time.Now()}
			hopeless = append(hopeless, settling{claim: claim, Settlement: queue.Settlement{
				ID: claim.ID, Attempt: claim.Attempt, Verb: giveUp(sj.Spec.Delivery), Failure: failure,
			}})
			return nil
		}
		if err != nil {
			failed = true
			return err
		}
		made++
		claim.Parts = nil // it is with the Job, and in the queue
		r.items.held[claim.ID] = claim
		return nil
	})
	if err := c.giveUpOn(ctx, r, q, hopeless, report); err != nil {
		return made, err
	}
	if len(failures) > 0 {
		r.items.known = false // perhaps it is the queue that is not as it was
		return made, createError(failures)
	}
	return made, nil
}

// giveUpOn settles claims for which there can be no Job.
func (c *Controller) giveUpOn(
	ctx context.Context, r *record, q queue.Queue, hopeless []settling, report *report,
) error {
	settlements := make([]queue.Settlement, len(hopeless))
	for i := range hopeless {
		settlements[i] = hopeless[i].Settlement
	}
	if err := r.tell(ctx, q, settlements); err != nil {
		return err
	}
	report.settled(hopeless)
	return nil
}

// makeItemJob makes the Job of one claim.
func (c *Controller) makeItemJob(ctx context.Context, sj *v1alpha1.ScaledJob, q queue.Queue, claim queue.Claim) error {
	if len(claim.Parts) == 0 { // it was claimed by a former process, or its Job is gone
		record, err := q.Get(ctx, claim.ID)
		if err != nil {
			return fmt.Errorf("read item %s of %q: %w", claim.ID, q.Name(), err)
		}
		if record.State != queue.Claimed || record.Attempt != claim.Attempt {
			return fmt.Errorf("item %s of %q is not claimed any more: it is %s", claim.ID, q.Name(), record.State)
		}
		claim.Parts = record.Parts
	}
	job, file := newItemJob(sj, c.Version, q.Name(), claim)
	_, err := c.Jobs.Create(ctx, job, file)
	return err
}

// createError tells of Jobs that could not be created.
type createError []error

func (e createError) Error() string   { return e[0].Error() }
func (e createError) Unwrap() []error { return e }
