package local

import (
	"context"
	"errors"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/jobs"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// ownedJobs keeps a Job from outliving its ScaledJob when it is created while that one is being removed. A removal
// takes the ScaledJob away first and then deletes its Jobs; so a Job that finds its ScaledJob once it has been created
// is there to be deleted with the others.
type ownedJobs struct {
	*jobs.Controller
	store *objects.Store
}

// Create implements scaledjob.Jobs.
func (o ownedJobs) Create(
	ctx context.Context, in *batchv1.Job, file *scaledjob.ItemFile,
) (*batchv1.Job, error) {
	job, err := o.Controller.Create(ctx, in, file)
	if err != nil {
		return nil, err
	}
	sj, err := o.store.ScaledJob(ctx, scaledJobOf(job))
	if err == nil && metav1.IsControlledBy(job, sj) {
		return job, nil
	}
	err = o.Abandon(context.WithoutCancel(ctx), job)
	return nil, errors.Join(fmt.Errorf("ScaledJob %s is gone", scaledJobOf(job)), err)
}

// deleteUnowned deletes the Jobs of ScaledJobs that are gone for good, which were left when this program was killed
// before it had deleted them. A ScaledJob that is just not among the manifests has a record still, and keeps its Jobs.
func (e *Engine) deleteUnowned(ctx context.Context) error {
	for _, job := range e.jobs.ListAll("") {
		key := scaledJobOf(job.Job)
		known, err := e.store.Known(key)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		e.opts.Log.Info("The ScaledJob of a Job is gone; the Job is deleted", "scaledjob", key.String(), "job", job.Name)
		if err := e.jobs.Abandon(ctx, job.Job); err != nil {
			return fmt.Errorf("delete a Job of ScaledJob %s, which is gone: %w", key, err)
		}
	}
	return nil
}

func scaledJobOf(job *batchv1.Job) types.NamespacedName {
	return types.NamespacedName{Namespace: job.Namespace, Name: job.Labels[v1alpha1.LabelScaledJob]}
}
