package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// settledWithin is how long after a lost answer a request may still take effect. The server ends what it does for a
// connection when that is gone; this leaves it time for what it had begun.
const settledWithin = 5 * time.Second

// jobs implements scaledjob.Jobs on a cluster.
type jobs struct {
	store *store
	// writer changes the cluster; reader reads from the server itself, not from a cache.
	writer client.Writer
	reader client.Reader
	// pods reads the logs of failed Pods.
	pods typedcorev1.PodsGetter
	// itemImage is an image with this program, see Options.ItemImage.
	itemImage string
	// may returns an error unless this process may write about the ScaledJob now.
	may func(scaledJob types.NamespacedName) error
	// creator is what the Jobs name as their creator; nil where nobody needs to know.
	creator func() string
}

var _ scaledjob.Jobs = (*jobs)(nil)

// ownerOf returns the ScaledJob whose Job it is, by its label.
func ownerOf(job metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: job.GetNamespace(), Name: job.GetLabels()[v1alpha1.LabelScaledJob]}
}

// List implements scaledjob.Jobs.
func (j *jobs) List(ctx context.Context, scaledJob types.NamespacedName) ([]scaledjob.Job, error) {
	now := time.Now()
	list, doubtful := j.store.list(scaledJob, now)
	if len(doubtful) == 0 {
		return list, nil
	}
	for _, name := range doubtful {
		if _, err := j.ask(ctx, scaledJob, name, now); err != nil {
			return nil, err
		}
	}
	list, doubtful = j.store.list(scaledJob, now)
	if len(doubtful) > 0 {
		return nil, fmt.Errorf("it is not known yet whether Job %s/%s was created: the server's answer was lost",
			scaledJob.Namespace, doubtful[0])
	}
	return list, nil
}

// ask asks the server for a Job, and returns it; nil when there is none.
func (j *jobs) ask(
	ctx context.Context, owner types.NamespacedName, name string, now time.Time,
) (*batchv1.Job, error) {
	job := &batchv1.Job{}
	err := j.reader.Get(ctx, types.NamespacedName{Namespace: owner.Namespace, Name: name}, job)
	switch {
	case err == nil:
		j.store.found(owner, job, now)
		return job, nil
	case apierrors.IsNotFound(err):
		j.store.absent(owner, name, now)
		return nil, nil
	}
	return nil, fmt.Errorf("ask whether Job %s/%s exists: %w", owner.Namespace, name, err)
}

// Delete implements scaledjob.Jobs.
func (j *jobs) Delete(
	ctx context.Context, namespace, name string, uid types.UID, propagation metav1.DeletionPropagation,
) error {
	owner, known := j.store.owner(uid)
	if !known {
		return nil // the watch has shown its end
	}
	undo := j.store.deleting(name, uid)
	err := retry(ctx, func(ctx context.Context) error {
		if err := j.may(owner); err != nil {
			return err
		}
		return j.writer.Delete(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
			client.Preconditions{UID: ptr.To(uid)}, client.PropagationPolicy(propagation))
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or another one has its name
	}
	if err != nil {
		undo()
	}
	return err
}

// catchUp makes the store know every Job that there is on the server now. A process that takes ScaledJobs over needs
// it: the watch may not have shown yet what the one before has just created.
func (j *jobs) catchUp(ctx context.Context, namespaces []string) error {
	list := batchv1.SchemeGroupVersion.WithKind("JobList")
	return eachOf(ctx, j.reader, namespaces, list, ofScaledJobs(), func(job *metav1.PartialObjectMetadata) error {
		return j.learn(ctx, job)
	})
}

// eachOf reads the objects of a kind (that of their list) from the server, page by page. No namespaces means all.
func eachOf(
	ctx context.Context, reader client.Reader, namespaces []string, kind schema.GroupVersionKind, selector labels.Selector,
	do func(*metav1.PartialObjectMetadata) error,
) error {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind)
		options := client.ListOptions{Namespace: namespace, LabelSelector: selector, Limit: 500}
		for {
			if err := reader.List(ctx, list, &options); err != nil {
				return fmt.Errorf("list the %ss that exist: %w", strings.TrimSuffix(kind.Kind, "List"), err)
			}
			for i := range list.Items {
				if err := do(&list.Items[i]); err != nil {
					return err
				}
			}
			if options.Continue = list.Continue; options.Continue == "" {
				break
			}
		}
	}
	return nil
}

// learn makes the store know one Job.
func (j *jobs) learn(ctx context.Context, job *metav1.PartialObjectMetadata) error {
	owner := ownerOf(job)
	if j.store.job(owner, job.Name, job.UID) != nil {
		return nil
	}
	j.store.creating(owner, job.Name)
	j.store.unknown(owner, job.Name, time.Time{})
	_, err := j.ask(ctx, owner, job.Name, time.Now())
	return err
}
