package kube

import (
	"context"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// kedaFinalizer is what KEDA's operator puts on the objects that it looks after, and takes off when they are deleted.
// Of objects that were KEDA's before, nobody else would take it off, and their deletion would hang for ever.
const kedaFinalizer = "finalizer.keda.sh"

// finalizers takes finalizers that nobody else would take off objects that are being deleted.
type finalizers struct {
	chores[finalizerRef]
	// client reads from the server itself: what the watch has shown is shared and must not be changed.
	client client.Client
	// may returns an error unless this process may write about the object now.
	may func(client.ObjectKey) error
	// releaseAll takes v1alpha1.FinalizerSettle also off objects that are not being deleted.
	releaseAll bool
}

// finalizerRef names one finalizer of one object.
type finalizerRef struct {
	kind, finalizer string
	client.ObjectKey
}

func newFinalizers(c client.Client, may func(client.ObjectKey) error, log *slog.Logger) *finalizers {
	f := &finalizers{client: c, may: may}
	f.mine = func(ref finalizerRef) bool { return may(ref.ObjectKey) == nil }
	f.do = f.release
	f.failed = func(ref finalizerRef, err error) {
		log.Warn("a finalizer cannot be taken off yet",
			"finalizer", ref.finalizer, "kind", ref.kind, "object", ref.String(), "error", err)
	}
	return f
}

// look takes note of an object as it is now: nothing is to be done unless it exists, leaves and has the finalizer.
func (f *finalizers) look(kind, finalizer string, object client.Object, exists bool) {
	f.note(finalizerRef{kind, finalizer, client.ObjectKeyFromObject(object)},
		exists && f.leaves(finalizer, object) && controllerutil.ContainsFinalizer(object, finalizer))
}

// leaves tells whether the object's finalizer is to be taken off: it is being deleted or released.
func (f *finalizers) leaves(finalizer string, object client.Object) bool {
	return object.GetDeletionTimestamp() != nil || f.releaseAll && finalizer == v1alpha1.FinalizerSettle
}

func (f *finalizers) release(ctx context.Context, ref finalizerRef) (again time.Duration, err error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(ref.kind))
	if err := f.client.Get(ctx, ref.ObjectKey, object); err != nil {
		return 0, client.IgnoreNotFound(err)
	}
	before := object.DeepCopy()
	if !f.leaves(ref.finalizer, object) || !controllerutil.RemoveFinalizer(object, ref.finalizer) {
		return 0, nil
	}
	// The list of finalizers is replaced as a whole: only if nobody has changed it meanwhile.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := f.may(ref.ObjectKey); err != nil {
		return 0, err
	}
	return 0, client.IgnoreNotFound(f.client.Patch(ctx, object, patch))
}
