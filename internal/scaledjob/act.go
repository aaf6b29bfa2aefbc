package scaledjob

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// create makes the Jobs that were decided on, several at a time. One that fails does not keep the others from being
// made; what the server said is told once.
func (c *Controller) create(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, decision scaling.Decision, m measured, report *report,
) error {
	if decision.Create == 0 {
		return nil
	}
	var mu sync.Mutex
	var created []*batchv1.Job
	var failures []error
	var creating errgroup.Group
	creating.SetLimit(c.CreateParallel)
	for range decision.Create {
		creating.Go(func() error {
			job, err := c.Jobs.Create(ctx, newJob(sj, c.Version))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures = append(failures, err)
				return nil
			}
			created = append(created, job)
			return nil
		})
	}
	_ = creating.Wait() // failures are collected above: all of them, not the first

	unowed := m.queue() - r.takeup.owed()
	for _, job := range created {
		work := min(m.target(), unowed)
		r.takeup.created(job.UID, work)
		unowed -= max(0, work)
	}
	report.created(len(created), decision.Reason)
	if len(failures) == 0 {
		report.createSucceeded()
		return nil
	}
	report.createFailed(ctx, failures[0], len(failures))
	return fmt.Errorf("create Jobs of %s: %w", r.key, failures[0])
}

// rollOut deletes the unfinished Jobs of older generations when the ScaledJob asks for that, and in any case those that
// are suspended: nothing of theirs runs, and while they count as unfinished, no Job of the new version takes their
// work.
func (c *Controller) rollOut(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, jobs []Job, report *report,
) error {
	var old []Job
	for _, job := range jobs {
		how, _ := Finished(job.Job)
		replaced := sj.ReplacesRunningJobs() || ptr.Deref(job.Spec.Suspend, false) && job.Status.Active == 0
		if replaced && how == "" && job.DeletionTimestamp == nil && !ofGeneration(job, sj.Generation) {
			old = append(old, job)
		}
	}
	if len(old) == 0 {
		return nil
	}
	propagation := metav1.DeletePropagationBackground
	if sj.Spec.Rollout.PropagationPolicy == v1alpha1.PropagationForeground {
		propagation = metav1.DeletePropagationForeground
	}
	report.event(normal, reasonRolloutStarted, fmt.Sprintf("Deleting %d Jobs of an older version", len(old)))
	for _, job := range old {
		if err := c.Jobs.Delete(ctx, job.Namespace, job.Name, job.UID, propagation); err != nil {
			err = fmt.Errorf("delete Job %s/%s of an older version: %w", job.Namespace, job.Name, err)
			report.event(warning, reasonRolloutFailed, sentence(err.Error()))
			return err
		}
		r.takeup.deleted(job.UID)
	}
	report.event(normal, reasonRolloutCompleted, fmt.Sprintf("Deleted %d Jobs of an older version", len(old)))
	return nil
}
