package jobs

import (
	"context"
	"errors"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// nameAttempts is how many generated names are tried before Create gives up.
const nameAttempts = 8

// Create stores the Job and starts to work on it. generateName is honoured. A name may be that of a Job which the same
// owner controls: that one is returned as it is. With a file, its content is at ItemPath from before the first process
// starts until Settled; processes of one machine share its files, so that the path that the file asks for is nobody's
// to give. It returns the Job as stored, which is shared. Errors are API errors (Invalid, AlreadyExists,
// ServiceUnavailable after Drain) and those of the disk; then there is no Job.
func (c *Controller) Create(
	ctx context.Context, in *batchv1.Job, file *scaledjob.ItemFile,
) (*batchv1.Job, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.draining.Load() {
		return nil, unavailable()
	}
	job := in.DeepCopy()
	SetDefaults(job)
	if errs := Validate(job); len(errs) > 0 {
		return nil, apierrors.NewInvalid(jobKind, job.Name, errs)
	}
	now := c.cfg.Clock.Now()
	job.UID, job.Generation, job.CreationTimestamp = newUID(), 1, metav1.NewTime(now)
	job.DeletionTimestamp, job.DeletionGracePeriodSeconds, job.ResourceVersion = nil, nil, ""
	job.Status = batchv1.JobStatus{}

	r := &record{uid: job.UID, sequence: c.sequence.Add(1), item: file != nil, settles: settles(job)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if existing, err := c.reserveName(r, job); existing != nil || err != nil {
		return existing, err
	}
	labelPods(job)
	r.job = job
	c.advance(r, now) // the first Pods are written together with the Job
	revision, text := c.nextRevision()
	journal, err := c.folders.create(r.key.Namespace, r.key.Name, r.whole(revision), file)
	if err != nil {
		r.removed = true
		c.index.remove(r, job)
		return nil, fmt.Errorf("job %s is not created: %w", r.key, err)
	}
	r.journal = journal
	r.publish(text)
	c.queue.add(r)
	return r.view.Load().Job, nil
}

// reserveName gives the Job its name, which nobody else can have from then on. If the Job exists already, it returns
// that one.
func (c *Controller) reserveName(r *record, job *batchv1.Job) (existing *batchv1.Job, err error) {
	generate := job.Name == ""
	for attempt := 1; ; attempt++ {
		if generate {
			job.Name = generateName(job.GenerateName)
		}
		r.key = types.NamespacedName{Namespace: job.Namespace, Name: job.Name}
		if c.index.insert(r, job) {
			return nil, nil
		}
		free := generate && attempt < nameAttempts
		if !generate {
			existing, free = c.existing(r.key, metav1.GetControllerOf(job))
		}
		switch {
		case existing != nil:
			return existing, nil
		case !free:
			return nil, apierrors.NewAlreadyExists(jobResource, job.Name)
		}
	}
}

// existing returns the Job of that name if the owner controls it, or else tells whether the name is free by now: the
// Job may just be being created, which can fail, or removed.
func (c *Controller) existing(name types.NamespacedName, owner *metav1.OwnerReference) (job *batchv1.Job, free bool) {
	r := c.index.get(name)
	if r == nil {
		return nil, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.removed {
		return nil, true
	}
	job = r.view.Load().Job
	if has := metav1.GetControllerOf(job); owner == nil || has == nil || has.UID != owner.UID {
		return nil, false
	}
	return job, false
}

// Delete ends a Job's Pods and removes it: at once with background propagation, which is the default, and when its Pods
// have ended with foreground propagation. A Job with finalizers stays, with a deletion timestamp and without active
// Pods, until Update removes them. No error is a Job that is gone already, also if there is now one of that name with
// another UID; an empty uid means any.
func (c *Controller) Delete(
	ctx context.Context, namespace, name string, uid types.UID, propagation metav1.DeletionPropagation,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if propagation == metav1.DeletePropagationOrphan {
		return apierrors.NewBadRequest("propagationPolicy Orphan would leave processes that nothing ends; " +
			"use Background or Foreground")
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return unavailable()
	}
	r := c.index.get(types.NamespacedName{Namespace: namespace, Name: name})
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.removed || (uid != "" && uid != r.uid) {
		return nil
	}
	old, unsaved := r.job, r.unsavedSpec
	if propagation == metav1.DeletePropagationForeground && r.running() {
		r.markDeleted(c.cfg.Clock.Now(), metav1.FinalizerDeleteDependents)
	} else {
		r.markDeleted(c.cfg.Clock.Now())
	}
	if err := c.settleOperation(r); err != nil {
		r.job, r.unsavedSpec = old, unsaved
		return err
	}
	return nil
}

// settleOperation makes what an operation changed durable, and lets a worker do the rest.
func (c *Controller) settleOperation(r *record) error {
	defer c.queue.add(r)
	if r.leaves() {
		return c.remove(r)
	}
	if !c.save(r) {
		return r.saveError
	}
	return nil
}

// Update changes a Job's labels, annotations, finalizers and the fields of its spec that Kubernetes lets change; its
// status is left alone. A resource version that is set must be the newest. Removing the last finalizer of a deleted Job
// removes it. Errors are API errors (NotFound, Conflict, Invalid, ServiceUnavailable after Drain) and those of the
// disk; then the Job is unchanged.
func (c *Controller) Update(ctx context.Context, in *batchv1.Job) (*batchv1.Job, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed {
		return nil, unavailable()
	}
	r := c.index.get(types.NamespacedName{Namespace: in.Namespace, Name: in.Name})
	if r == nil {
		return nil, notFound(in.Name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.removed || (in.UID != "" && in.UID != r.uid) {
		return nil, notFound(in.Name)
	}
	if in.ResourceVersion != "" && in.ResourceVersion != r.job.ResourceVersion {
		return nil, apierrors.NewConflict(jobResource, in.Name,
			fmt.Errorf("resource version is %s, not %s: read the Job again and apply the change to it",
				r.job.ResourceVersion, in.ResourceVersion))
	}
	updated, err := merged(r.job, in)
	if err != nil {
		return nil, err
	}
	old, unsaved := r.job, r.unsavedSpec
	r.job, r.unsavedSpec = updated, true
	if err := c.settleOperation(r); err != nil {
		r.job, r.unsavedSpec = old, unsaved
		return nil, err
	}
	return r.job, nil
}

// merged is the Job as it is with what may be changed taken from the update.
func merged(old, in *batchv1.Job) (*batchv1.Job, error) {
	updated := in.DeepCopy()
	SetDefaults(updated)
	errs := validateUpdate(old, updated)
	withoutSelector := *updated
	withoutSelector.Spec.Selector = nil // it is the controller's own and was found unchanged
	errs = append(errs, Validate(&withoutSelector)...)
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(jobKind, in.Name, errs)
	}
	job := *old
	job.Labels, job.Annotations = updated.Labels, updated.Annotations
	job.Finalizers, job.OwnerReferences = updated.Finalizers, updated.OwnerReferences
	job.Spec = updated.Spec
	job.Spec.Template = old.Spec.Template // equal, and shared with the Pods
	if !apiequality.Semantic.DeepEqual(&old.Spec, &job.Spec) {
		job.Generation++
	}
	return &job, nil
}

// DeleteOwned deletes every Job that has the owner, which is gone, as Abandon does.
func (c *Controller) DeleteOwned(ctx context.Context, owner types.UID) error {
	var errs []error
	for _, r := range c.index.all() {
		view := r.view.Load()
		if view == nil {
			continue
		}
		for _, ref := range view.OwnerReferences {
			if ref.UID == owner {
				errs = append(errs, c.Abandon(ctx, view.Job))
				break
			}
		}
	}
	return errors.Join(errs...)
}
