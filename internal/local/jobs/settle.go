package jobs

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// settles tells whether the outcome of the Job's item is to be settled.
func settles(job *batchv1.Job) bool { return slices.Contains(job.Finalizers, v1alpha1.FinalizerSettle) }

// EndPods has nothing to do: a Job that is being deleted has its Pods ended by its own turn, whatever keeps it.
func (c *Controller) EndPods(context.Context, scaledjob.Job) error { return nil }

// Settled removes the file of the Job's item and takes v1alpha1.FinalizerSettle off; a deleted Job that nothing else
// keeps is removed by that. A Job that is gone, or settled already, is no error. After an error the Job is not settled.
func (c *Controller) Settled(ctx context.Context, job scaledjob.Job) error {
	return c.settle(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Name}, job.UID)
}

func (c *Controller) settle(ctx context.Context, name types.NamespacedName, uid types.UID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return unavailable()
	}
	r := c.index.get(name)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.removed || (uid != "" && uid != r.uid) {
		return nil
	}
	if r.item {
		// First, so that after a crash in between the Job is settled once more.
		if err := removeIfThere(filepath.Join(r.journal.dir, itemFile)); err != nil {
			return fmt.Errorf("remove the item of Job %s: %w", r.key, err)
		}
	}
	at := slices.Index(r.job.Finalizers, v1alpha1.FinalizerSettle)
	if at < 0 {
		return nil
	}
	old, unsaved := r.job, r.unsavedSpec
	updated := *r.job
	updated.Finalizers = slices.Delete(slices.Clone(r.job.Finalizers), at, at+1)
	r.job, r.unsavedSpec = &updated, true
	if err := c.settleOperation(r); err != nil {
		r.job, r.unsavedSpec = old, unsaved
		return err
	}
	return nil
}

// Abandon deletes a Job of a ScaledJob that is gone, in the background. Nobody is left to settle the outcome of its
// item, so v1alpha1.FinalizerSettle does not keep it.
func (c *Controller) Abandon(ctx context.Context, job *batchv1.Job) error {
	name := types.NamespacedName{Namespace: job.Namespace, Name: job.Name}
	if settles(job) {
		c.cfg.Log.Warn("A Job is deleted whose outcome nobody can settle any more; its item stays claimed in the queue",
			"namespace", job.Namespace, "job", job.Name, "queue", job.Annotations[v1alpha1.AnnotationQueue],
			"item", job.Annotations[v1alpha1.AnnotationItemID])
	}
	if err := c.Delete(ctx, name.Namespace, name.Name, job.UID, metav1.DeletePropagationBackground); err != nil {
		return err
	}
	return c.settle(ctx, name, job.UID)
}
