package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// abandonedAgain is after which time it is asked again whether a ScaledJob exists that is not looked after here.
const abandonedAgain = time.Minute

// abandoned lets Jobs go whose items nobody can settle: they are being deleted, have v1alpha1.FinalizerSettle, and
// there is no ScaledJob any more whose controller would take it off, for example because their namespace was deleted
// while no operator was there. What is claimed in the queue stays so, until the next ScaledJob of that name takes it
// over.
//
// The server itself must say that there is no such ScaledJob: one that this process does not know may be another
// operator's. A Job that is not being deleted hinders nobody, and is left to a ScaledJob that may yet come.
//
// When everything is released, Jobs that are not being deleted are let go as well, and so are those of a ScaledJob that
// is this operator's by its labels and that it cannot read.
type abandoned struct {
	chores[jobRef]
	jobs       *jobs
	objects    *objects
	log        *slog.Logger
	releaseAll bool
	selector   labels.Selector
}

// jobRef names one Job and its ScaledJob.
type jobRef struct {
	owner types.NamespacedName
	name  string
	uid   types.UID
}

func newAbandoned(j *jobs, o *objects, log *slog.Logger) *abandoned {
	a := &abandoned{jobs: j, objects: o, log: log}
	a.mine = func(ref jobRef) bool { return j.may(ref.owner) == nil }
	a.do = a.release
	a.failed = func(ref jobRef, err error) {
		log.Warn("a Job without a ScaledJob cannot be let go yet",
			"job", ref.owner.Namespace+"/"+ref.name, "scaledjob", ref.owner.String(), "error", err)
	}
	return a
}

// look takes note of a Job as it is now.
func (a *abandoned) look(job *batchv1.Job, exists bool) {
	a.note(jobRef{ownerOf(job), job.Name, job.UID}, exists && a.unsettled(job))
}

// lookAt takes note of the Jobs of a ScaledJob that has gone.
func (a *abandoned) lookAt(owner types.NamespacedName) {
	list, _ := a.jobs.store.list(owner, time.Now())
	for _, job := range list {
		a.look(job.Job, true)
	}
}

// unsettled tells whether a finalizer of this program is what keeps the Job.
func (a *abandoned) unsettled(job *batchv1.Job) bool {
	leaves := job.DeletionTimestamp != nil || a.releaseAll
	return leaves && controllerutil.ContainsFinalizer(job, v1alpha1.FinalizerSettle)
}

func (a *abandoned) release(ctx context.Context, ref jobRef) (again time.Duration, err error) {
	if _, err := a.objects.ScaledJob(ctx, ref.owner); err == nil {
		return 0, nil // its controller's; lookAt comes back to it
	}
	job := a.jobs.store.job(ref.owner, ref.name, ref.uid)
	if job == nil || !a.unsettled(job) {
		return 0, nil
	}
	scaledJob := &metav1.PartialObjectMetadata{}
	scaledJob.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
	err = a.objects.reader.Get(ctx, ref.owner, scaledJob)
	if err == nil && !(a.releaseAll && selects(a.selector, scaledJob)) {
		return abandonedAgain, nil
	}
	if client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
		return 0, fmt.Errorf("ask whether the ScaledJob exists: %w", err)
	}
	if err := a.jobs.Settled(ctx, scaledjob.Job{Job: job}); err != nil {
		return 0, err
	}
	a.log.Warn("a Job was let go whose item nobody settles: its ScaledJob is gone or cannot be read",
		"job", job.Namespace+"/"+job.Name, "scaledjob", ref.owner.String(),
		"queue", job.Annotations[v1alpha1.AnnotationQueue], "item", job.Annotations[v1alpha1.AnnotationItemID])
	return 0, nil
}
