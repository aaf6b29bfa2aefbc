package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// EndPods implements scaledjob.Jobs. Each Pod has the grace period that it asks for.
func (j *jobs) EndPods(ctx context.Context, job scaledjob.Job) error {
	var failures []error
	for _, pod := range j.store.podsOf(job.UID) {
		if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		err := retry(ctx, func(ctx context.Context) error {
			if err := j.may(ownerOf(job)); err != nil {
				return err
			}
			return j.writer.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Namespace: pod.Namespace, Name: pod.Name,
			}}, client.Preconditions{UID: &pod.UID})
		})
		if err != nil && !gone(err) {
			failures = append(failures, fmt.Errorf("end Pod %s/%s: %w", pod.Namespace, pod.Name, err))
		}
	}
	return errors.Join(failures...)
}

// gone tells whether a request failed because there is no object of that UID any more. A patch that names another one
// is said to be invalid.
func gone(err error) bool {
	if status := apierrors.APIStatus(nil); apierrors.IsInvalid(err) && errors.As(err, &status) {
		details := status.Status().Details
		return details != nil && slices.ContainsFunc(details.Causes, func(cause metav1.StatusCause) bool {
			return cause.Field == "metadata.uid"
		})
	}
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) && !passing(err)
}

// Settled implements scaledjob.Jobs. The finalizer goes last, so that nothing is left behind when this is interrupted.
func (j *jobs) Settled(ctx context.Context, job scaledjob.Job) error {
	if err := j.deleteSecrets(ctx, job.Job); err != nil {
		return err
	}
	// This patch takes one element off the list, whatever else is in it, of the Job of this UID only.
	patch := client.RawPatch(types.StrategicMergePatchType, fmt.Appendf(nil,
		`{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, job.UID, v1alpha1.FinalizerSettle))
	err := retry(ctx, func(ctx context.Context) error {
		if err := j.may(ownerOf(job)); err != nil {
			return err
		}
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name}}
		object.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
		return j.writer.Patch(ctx, object, patch)
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("take the finalizer %s off Job %s/%s: %w", v1alpha1.FinalizerSettle, job.Namespace, job.Name, err)
	}
	j.store.settled(job.Name, job.UID)
	return nil
}
