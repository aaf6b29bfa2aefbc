package scaledjob

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// leaving is what is known of a ScaledJob that is deleted or released.
type leaving struct {
	// looked is when that was first seen.
	looked time.Time
	// settled and back count items.
	settled, back int
}

// since returns from when on the queue is waited for. The clock of the one who deletes may be ahead.
func (l *leaving) since(sj *v1alpha1.ScaledJob) time.Time {
	if l.looked.IsZero() {
		l.looked = time.Now()
	}
	if deleted := sj.DeletionTimestamp; deleted != nil && deleted.Time.Before(l.looked) {
		return deleted.Time
	}
	return l.looked
}

// leave is the reconcile of a ScaledJob that is deleted or released.
func (c *Controller) leave(ctx context.Context, sj *v1alpha1.ScaledJob) (again time.Duration, err error) {
	kept := slices.Contains(sj.Finalizers, v1alpha1.FinalizerSettle)
	if !kept && sj.DeletionTimestamp == nil {
		jobs, err := c.Jobs.List(ctx, sj.Key())
		if err != nil {
			return time.Second, err
		}
		kept = slices.ContainsFunc(jobs, func(job Job) bool { return unsettled(job.Job) })
	}
	if kept {
		return c.retire(ctx, sj, c.record(sj))
	}
	c.forget(sj.Key())
	return 0, nil
}

// retire ends what a ScaledJob leaves: its Jobs are ended, what has succeeded is settled, and all other items go back
// to the head of the queue in their order. Then the ScaledJob is let go. It returns when to look again; 0 when all is
// done. Where the queue cannot be reached, the claims stay recorded, for the ScaledJob that comes next.
func (c *Controller) retire(ctx context.Context, sj *v1alpha1.ScaledJob, r *record) (time.Duration, error) {
	const soon = time.Second // what ends is told; this is for what is not
	since := r.leaving.since(sj)
	jobs, err := c.Jobs.List(ctx, r.key)
	if err != nil {
		return soon, err
	}
	if sj.DeletionTimestamp == nil {
		jobs = ofClaims(jobs)
	}
	report := c.newReport(sj, r)
	done, err := c.release(ctx, sj, r, jobs, report)
	if err != nil && time.Since(since) < releaseWithin {
		c.fails(ctx, sj, r, claiming, err)
		return soon, err
	}
	if err != nil {
		c.Log.Error("the items of a ScaledJob that goes stay claimed: the next ScaledJob of that name takes them over",
			"scaledjob", r.key.String(), "error", err)
		if err := c.letGo(ctx, jobs); err != nil {
			return soon, err
		}
	} else if !done {
		return soon, nil
	}
	if err := c.Objects.SetFinalizer(ctx, sj, false); err != nil {
		c.fails(ctx, sj, r, claiming, err)
		return soon, fmt.Errorf("let ScaledJob %s go: %w", r.key, err)
	}
	if c.ReleaseAll {
		c.Log.Info("a ScaledJob is released", "scaledjob", r.key.String(), "settled", r.leaving.settled,
			"given back", r.leaving.back)
	}
	c.forget(r.key)
	return 0, nil
}

// formerTriggers returns the triggers as they were last made; nil when there are none.
func (r *record) formerTriggers() *liveTriggers {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live
}

// ofClaims returns the Jobs that were made for claims.
func ofClaims(jobs []Job) []Job {
	var claimed []Job
	for _, job := range jobs {
		if id, _ := claimOf(job.Job); id != "" {
			claimed = append(claimed, job)
		}
	}
	return claimed
}

// release ends what runs, settles what has ended, and then gives the rest back. It returns whether nothing is left.
func (c *Controller) release(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, jobs []Job, report *report,
) (done bool, err error) {
	background := metav1.DeletePropagationBackground
	failures := c.parallel(len(jobs), func(i int) error {
		job := jobs[i]
		if how, _ := Finished(job.Job); how != "" || job.DeletionTimestamp != nil {
			return nil
		}
		return c.Jobs.Delete(ctx, job.Namespace, job.Name, job.UID, background)
	})
	if len(failures) > 0 {
		return false, failures[0]
	}
	live, err := c.triggers(ctx, sj, r)
	if former := r.formerTriggers(); err != nil && former != nil {
		live, err = former, nil // what they were made from may go before, for example with the namespace
	}
	if err != nil {
		return false, err
	}
	source, err := claimer(live)
	if err != nil {
		return false, err
	}
	q := c.itemsOf(source, "")
	if err := c.knowClaims(ctx, sj, r, source, q, time.Now()); err != nil {
		return false, err
	}
	w := r.look(sj, q.Name(), jobs)
	if err := c.endPods(ctx, w.ending); err != nil {
		return false, err
	}
	if err := c.settleElsewhere(ctx, sj, source, &w, report); err != nil {
		return false, err
	}
	// What was ended before it had succeeded goes back together with the rest, when nothing runs any more.
	ended := work{queue: q, free: w.free}
	for _, s := range w.settle {
		how, _ := Finished(s.job.Job)
		if how == batchv1.JobComplete || succeeded(s.job) || how != "" && s.job.DeletionTimestamp == nil {
			ended.settle = append(ended.settle, s)
		}
	}
	if err := c.settle(ctx, sj, r, ended, report); err != nil {
		return false, err
	}
	r.leaving.settled += len(ended.settle)
	if w.running > 0 {
		return false, nil
	}
	back := make([]queue.Claim, 0, len(r.items.held))
	for _, claim := range r.items.held {
		back = append(back, claim)
	}
	if err := r.giveBack(ctx, q, back); err != nil {
		return false, err
	}
	r.leaving.back += len(back)
	return true, c.letGo(ctx, jobs)
}
