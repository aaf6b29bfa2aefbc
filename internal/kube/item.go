package kube

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

const (
	// annotationItemSecrets on a Job is the number of Secrets with its item.
	annotationItemSecrets = "offboard.dev/item-secrets"
	// labelManagedBy is copied from a Job to its Secrets.
	labelManagedBy = "app.kubernetes.io/managed-by"
	// itemKey is the key of the item in its Secret, and the name of its file in the volume.
	itemKey = "item"
	// maxSecret is how much of an item is put into one Secret, in bytes. The server takes 1 MiB.
	maxSecret = 768 << 10
	// maxSecrets is how many Secrets one item may have.
	maxSecrets = 64
)

// secretNames are the names of the Secrets with the Job's item, by its annotation. The dot, which is not in the end of
// a Job's name, keeps the name of a part from being that of another Job.
func secretNames(job *batchv1.Job) []string {
	count, err := strconv.Atoi(job.Annotations[annotationItemSecrets])
	switch {
	case err != nil || count < 1 || count > maxSecrets:
		return nil
	case count == 1:
		return []string{job.Name}
	}
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s.%d", job.Name, i)
	}
	return names
}

// createSecrets keeps the item in the Job's Secrets.
func (j *jobs) createSecrets(ctx context.Context, job *batchv1.Job, content []byte) error {
	for _, name := range secretNames(job) {
		part := content[:min(len(content), maxSecret)]
		content = content[len(part):]
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: job.Namespace, Name: name, Labels: pick(job.Labels, v1alpha1.LabelScaledJob, labelManagedBy),
			},
			Type: corev1.SecretTypeOpaque, Immutable: ptr.To(true), Data: map[string][]byte{itemKey: part},
		}
		if owner := metav1.GetControllerOf(job); owner != nil {
			owner.BlockOwnerDeletion = nil
			secret.OwnerReferences = []metav1.OwnerReference{*owner}
		}
		if err := j.createSecret(ctx, secret); err != nil {
			return fmt.Errorf("keep the item of Job %s/%s in Secret %s: %w", job.Namespace, job.Name, name, err)
		}
	}
	return nil
}

func (j *jobs) createSecret(ctx context.Context, secret *corev1.Secret) error {
	return retry(ctx, func(ctx context.Context) error {
		if err := j.may(ownerOf(secret)); err != nil {
			return err
		}
		err := j.writer.Create(ctx, secret.DeepCopy())
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		found := &corev1.Secret{}
		if getErr := j.reader.Get(ctx, client.ObjectKeyFromObject(secret), found); getErr != nil {
			return getErr
		}
		switch {
		case !sameOwner(found, secret):
			return err
		case bytes.Equal(found.Data[itemKey], secret.Data[itemKey]):
			return nil
		}
		// It was left behind by an attempt that came to nothing.
		if err := j.writer.Delete(ctx, found, client.Preconditions{UID: &found.UID}); client.IgnoreNotFound(err) != nil {
			return err
		}
		return j.writer.Create(ctx, secret.DeepCopy())
	})
}

// deleteSecrets deletes the Secrets with the Job's item.
func (j *jobs) deleteSecrets(ctx context.Context, job *batchv1.Job) error {
	for _, name := range secretNames(job) {
		key := types.NamespacedName{Namespace: job.Namespace, Name: name}
		err := retry(ctx, func(ctx context.Context) error {
			if err := j.may(ownerOf(job)); err != nil {
				return err
			}
			secret := &metav1.PartialObjectMetadata{}
			secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
			if err := j.reader.Get(ctx, key, secret); err != nil {
				return err
			}
			// Who may make a Job may not have others' Secrets deleted by its name.
			if ownerOf(secret) != ownerOf(job) || !madeForScaledJob(secret) {
				return nil
			}
			return j.writer.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
		})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete Secret %s with the item of Job %s/%s: %w", name, job.Namespace, job.Name, err)
		}
	}
	return nil
}

// madeForScaledJob tells whether the object belongs to the ScaledJob of its label.
func madeForScaledJob(object metav1.Object) bool {
	owner := metav1.GetControllerOfNoCopy(object)
	return owner != nil && owner.Kind == v1alpha1.KindScaledJob && owner.Name == ownerOf(object).Name
}
