package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// outcome says what becomes of the claim of a Job that has ended. After an error that is not known yet: it depends on
// the exit code.
func (c *Controller) outcome(ctx context.Context, sj *v1alpha1.ScaledJob, s *settling) error {
	s.ID, s.Attempt = s.claim.ID, s.claim.Attempt
	how, _ := Finished(s.job.Job)
	if how == batchv1.JobComplete || how == "" && succeeded(s.job) {
		s.Verb = queue.Ack
		return nil
	}
	if s.job.DeletionTimestamp != nil && (!ofGeneration(s.job, sj.Generation) || older(s.job, sj)) {
		s.Verb = queue.PutOff // its Job gave way, or its ScaledJob did; that is no failure of the item
		return nil
	}
	failure, err := c.Jobs.Failure(ctx, s.job)
	if err != nil {
		return fmt.Errorf("find out why Job %s/%s failed: %w", s.job.Namespace, s.job.Name, err)
	}
	delivery := sj.Spec.Delivery
	failures := s.claim.Failures + 1
	code := 0
	if failure.ExitCode != nil {
		code = *failure.ExitCode
	}
	switch {
	case code == exitTemporarily:
		s.Verb, s.Wait = queue.PutOff, delivery.Wait(failures, rand.Float64())
		return nil
	case code != exitDataError && failures < delivery.AttemptLimit():
		s.Verb, s.Wait = queue.PutOff, delivery.Wait(failures, rand.Float64())
	default:
		s.Verb = giveUp(delivery)
	}
	s.Failure = &failure
	return nil
}

// giveUp is what becomes of an item after its last attempt.
func giveUp(delivery *v1alpha1.Delivery) queue.Verb {
	if delivery.KeepsDead() {
		return queue.Bury
	}
	return queue.Drop
}

// older tells whether the Job was made by a former ScaledJob of the name.
func older(job Job, sj *v1alpha1.ScaledJob) bool {
	return job.CreationTimestamp.Before(&sj.CreationTimestamp)
}

// succeeded tells whether a Job that is deleted had done its work before it was said so.
func succeeded(job Job) bool {
	if job.Status.Succeeded > 0 {
		return true
	}
	for _, pod := range job.Pods {
		if pod.Status.Phase == corev1.PodSucceeded {
			return true
		}
	}
	return false
}

// settle tells the queue what has become of the items whose Jobs have ended, and lets the Jobs go. Where that cannot be
// found out for one of them, it waits, and the others do not.
func (c *Controller) settle(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, w work, report *report,
) error {
	unknown := c.parallel(len(w.settle), func(i int) error { return c.outcome(ctx, sj, &w.settle[i]) })
	w.settle = slices.DeleteFunc(slices.Clone(w.settle), func(s settling) bool { return s.Verb == "" })
	settlements := make([]queue.Settlement, len(w.settle))
	for i := range w.settle {
		settlements[i] = w.settle[i].Settlement
	}
	if err := r.tell(ctx, w.queue, settlements); err != nil {
		return err
	}
	for i := range w.settle {
		s := &w.settle[i]
		if s.Verb == queue.PutOff {
			r.items.wake(time.Now().Add(s.Wait))
		}
		w.free = append(w.free, s.job)
	}
	report.settled(w.settle)
	return errors.Join(append(unknown, c.letGo(ctx, w.free))...)
}

// tell settles claims with the queue that they are held on; nothing is asked of it when there are none.
func (r *record) tell(ctx context.Context, q queue.Queue, settlements []queue.Settlement) error {
	if len(settlements) == 0 {
		return nil
	}
	if _, err := q.Settle(ctx, settlements); err != nil {
		r.items.known = false // it may have taken effect all the same
		return fmt.Errorf("settle %d items of %q: %w", len(settlements), q.Name(), err)
	}
	for _, s := range settlements {
		delete(r.items.held, s.ID)
	}
	return nil
}

// settleElsewhere settles the items of queues that were the ScaledJob's before it was changed.
func (c *Controller) settleElsewhere(
	ctx context.Context, sj *v1alpha1.ScaledJob, source trigger.Claimer, w *work, report *report,
) error {
	for _, job := range w.elsewhere {
		id, attempt := claimOf(job.Job)
		q := c.itemsOf(source, queueOf(job.Job))
		var record queue.Record
		var err error
		c.aside(func() { record, err = q.Get(ctx, id) })
		if err != nil && !errors.Is(err, queue.ErrNotFound) {
			return fmt.Errorf("read item %s of %q: %w", id, q.Name(), err)
		}
		if err == nil && record.State == queue.Claimed && record.Attempt == attempt {
			s := []settling{{job: job, claim: record.Claim}}
			if err := c.outcome(ctx, sj, &s[0]); err != nil {
				return err
			}
			if _, err := q.Settle(ctx, []queue.Settlement{s[0].Settlement}); err != nil {
				return fmt.Errorf("settle item %s of %q: %w", id, q.Name(), err)
			}
			report.settled(s)
		}
		w.free = append(w.free, job)
	}
	return nil
}

// letGo takes the finalizer off Jobs.
func (c *Controller) letGo(ctx context.Context, jobs []Job) error {
	var settled []Job
	for _, job := range jobs {
		if unsettled(job.Job) {
			settled = append(settled, job)
		}
	}
	failures := c.parallel(len(settled), func(i int) error {
		if err := c.Jobs.Settled(ctx, settled[i]); err != nil {
			return fmt.Errorf("let Job %s/%s go, whose item is settled: %w", settled[i].Namespace, settled[i].Name, err)
		}
		return nil
	})
	return errors.Join(failures...)
}

// endPods ends the Pods of Jobs that are being deleted.
func (c *Controller) endPods(ctx context.Context, jobs []Job) error {
	failures := c.parallel(len(jobs), func(i int) error {
		if err := c.Jobs.EndPods(ctx, jobs[i]); err != nil {
			return fmt.Errorf("end the Pods of Job %s/%s, which is deleted: %w", jobs[i].Namespace, jobs[i].Name, err)
		}
		return nil
	})
	return errors.Join(failures...)
}

// stopClaiming gives back what was claimed and has no Job, while the ScaledJob is paused or does not claim any more.
func (c *Controller) stopClaiming(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, w work,
) error {
	if err := r.giveBack(ctx, w.queue, w.missing); err != nil {
		return err
	}
	held := len(r.items.held) > 0 || w.running > 0
	if sj.ClaimsItems() || held || !slices.Contains(sj.Finalizers, v1alpha1.FinalizerSettle) {
		return nil
	}
	return c.Objects.SetFinalizer(ctx, sj, false)
}

// giveBack gives claims back to the head of the queue.
func (r *record) giveBack(ctx context.Context, q queue.Queue, claims []queue.Claim) error {
	settlements := make([]queue.Settlement, len(claims))
	for i, claim := range claims {
		settlements[i] = queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: queue.GiveBack}
	}
	return r.tell(ctx, q, settlements)
}
