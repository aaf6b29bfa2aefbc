package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// objects implements scaledjob.Objects on a cluster. ScaledJobs come from the watch and from the answers to this
// program's own writes, whichever is newer; authentications from the cache; Secrets and ConfigMaps are read from the
// server one by one, when they are needed, so that no others are ever seen.
type objects struct {
	cached client.Reader
	reader client.Reader
	writer interface {
		client.Writer
		client.StatusClient
		client.SubResourceClientConstructor
	}
	// may returns an error unless this process may write about the ScaledJob now.
	may func(types.NamespacedName) error

	mu         sync.Mutex
	scaledJobs map[types.NamespacedName]*v1alpha1.ScaledJob
}

var _ scaledjob.Objects = (*objects)(nil)

// show takes a ScaledJob from the watch and tells whether it differs in more than its status from what was known.
func (o *objects) show(sj *v1alpha1.ScaledJob) (news bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.scaledJobs[sj.Key()]
	// Of one version the watch's copy is taken, which is there in any case.
	if before != nil && before.UID == sj.UID && before.ResourceVersion != sj.ResourceVersion && !newer(sj, before) {
		return false
	}
	o.scaledJobs[sj.Key()] = sj
	return before == nil || differ(before, sj)
}

// differ tells whether two versions of a ScaledJob, or two ScaledJobs of one name, differ in what a reconcile acts on.
func differ(a, b *v1alpha1.ScaledJob) bool {
	return a.UID != b.UID || a.Generation != b.Generation ||
		a.DeletionTimestamp.IsZero() != b.DeletionTimestamp.IsZero() || a.PausedByAnnotation() != b.PausedByAnnotation()
}

// hide takes the end of a ScaledJob from the watch.
func (o *objects) hide(sj client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := client.ObjectKeyFromObject(sj)
	if known := o.scaledJobs[key]; known != nil && known.UID == sj.GetUID() {
		delete(o.scaledJobs, key)
	}
}

// knows tells whether a version of the ScaledJob is in force.
func (o *objects) knows(sj client.Object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.scaledJobs[client.ObjectKeyFromObject(sj)]
	return known != nil && known.UID == sj.GetUID()
}

// all returns the keys of the ScaledJobs for which the condition holds.
func (o *objects) all(condition func(*v1alpha1.ScaledJob) bool) []types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	var keys []types.NamespacedName
	for key, sj := range o.scaledJobs {
		if condition(sj) {
			keys = append(keys, key)
		}
	}
	return keys
}

// ScaledJob implements scaledjob.Objects.
func (o *objects) ScaledJob(_ context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sj := o.scaledJobs[key]; sj != nil {
		return sj, nil
	}
	return nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("scaledjobs").GroupResource(), key.Name)
}

// UpdateStatus implements scaledjob.Objects: it sends what has changed, and nothing of the rest of the object.
func (o *objects) UpdateStatus(ctx context.Context, sj *v1alpha1.ScaledJob) error {
	before, err := o.ScaledJob(ctx, sj.Key())
	if err != nil || before.UID != sj.UID {
		return client.IgnoreNotFound(err) // it is gone, and its status with it
	}
	patch, err := statusPatch(before, sj)
	if err != nil {
		return err
	}
	// The answer is to be no more than metadata: a status is written often, and all else is known.
	answer := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: sj.Namespace, Name: sj.Name}}
	answer.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
	err = retry(ctx, func(ctx context.Context) error {
		if err := o.may(sj.Key()); err != nil {
			return err
		}
		return o.writer.Status().Patch(ctx, answer, patch)
	})
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	after := &v1alpha1.ScaledJob{
		TypeMeta: before.TypeMeta, ObjectMeta: answer.ObjectMeta, Spec: before.Spec, Status: *sj.Status.DeepCopy(),
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// An answer that holds more than what was written is left to the watch, so that its news is noticed.
	if known := o.scaledJobs[sj.Key()]; known != nil && !differ(known, after) && newer(after, known) {
		o.scaledJobs[sj.Key()] = trimScaledJob(after)
	}
	return nil
}

// statusPatch is what turns the status that is known into that of sj.
func statusPatch(known, sj *v1alpha1.ScaledJob) (client.Patch, error) {
	patch, err := client.MergeFrom(&v1alpha1.ScaledJob{Status: known.Status}).Data(&v1alpha1.ScaledJob{Status: sj.Status})
	if err != nil {
		return nil, fmt.Errorf("status of ScaledJob %s: %w", sj.Key(), err)
	}
	return client.RawPatch(types.MergePatchType, patch), nil
}

// SetFinalizer implements scaledjob.Objects. The list of finalizers is replaced as a whole, only if nobody has changed
// the object meanwhile. What is read and written is metadata: an object that the Go type cannot hold is no hindrance.
func (o *objects) SetFinalizer(ctx context.Context, sj *v1alpha1.ScaledJob, present bool) error {
	change := controllerutil.RemoveFinalizer
	if present {
		change = controllerutil.AddFinalizer
	}
	meta := func(from metav1.ObjectMeta) *metav1.PartialObjectMetadata {
		object := &metav1.PartialObjectMetadata{ObjectMeta: *from.DeepCopy()}
		object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
		return object
	}
	var before, after *metav1.PartialObjectMetadata
	if known, err := o.ScaledJob(ctx, sj.Key()); err == nil && known.UID == sj.UID {
		before = meta(known.ObjectMeta)
	}
	err := retry(ctx, func(ctx context.Context) error {
		if err := o.may(sj.Key()); err != nil {
			return err
		}
		if before != nil {
			after = before.DeepCopy()
		}
		if before == nil || !change(after, v1alpha1.FinalizerSettle) {
			// Only the server knows for certain.
			before = meta(metav1.ObjectMeta{})
			if err := o.reader.Get(ctx, sj.Key(), before); err != nil {
				return err
			}
			after = before.DeepCopy()
			if before.UID != sj.UID || !change(after, v1alpha1.FinalizerSettle) {
				return nil
			}
		}
		lock := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		err := o.writer.Patch(ctx, after, lock)
		if err != nil {
			before = nil
		}
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the finalizer %s of ScaledJob %s: %w", v1alpha1.FinalizerSettle, sj.Key(), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.scaledJobs[sj.Key()]; known != nil && known.UID == after.UID {
		written := *known
		written.Finalizers = after.Finalizers
		// A later version that has other news is left to the watch.
		if known.ResourceVersion == before.ResourceVersion {
			written.ResourceVersion = after.ResourceVersion
		}
		o.scaledJobs[sj.Key()] = &written
	}
	return nil
}

// leaves takes a ScaledJob that the Go type cannot hold and that is being deleted. Its last good version stays in force
// until its items are released; false when there is none, or when nothing has to be released.
func (o *objects) leaves(object client.Object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.scaledJobs[client.ObjectKeyFromObject(object)]
	if known == nil || known.UID != object.GetUID() ||
		!controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerSettle) {
		return false
	}
	leaving := *known
	leaving.DeletionTimestamp, leaving.Finalizers = object.GetDeletionTimestamp(), object.GetFinalizers()
	leaving.ResourceVersion = object.GetResourceVersion()
	o.scaledJobs[known.Key()] = &leaving
	return true
}

// Secret implements scaledjob.Objects.
func (o *objects) Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, read(o.reader.Get(ctx, key, secret), "Secret", key)
}

// ConfigMap implements scaledjob.Objects.
func (o *objects) ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	configMap := &corev1.ConfigMap{}
	return configMap, read(o.reader.Get(ctx, key, configMap), "ConfigMap", key)
}

// TriggerAuthentication implements scaledjob.Objects.
func (o *objects) TriggerAuthentication(
	ctx context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	authentication := &v1alpha1.TriggerAuthentication{}
	return authentication, read(o.cached.Get(ctx, key, authentication), v1alpha1.KindTriggerAuthentication, key)
}

// ClusterTriggerAuthentication implements scaledjob.Objects.
func (o *objects) ClusterTriggerAuthentication(
	ctx context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	authentication := &v1alpha1.ClusterTriggerAuthentication{}
	key := types.NamespacedName{Name: name}
	return authentication, read(o.cached.Get(ctx, key, authentication), v1alpha1.KindClusterTriggerAuthentication, key)
}

// ServiceAccountToken implements scaledjob.Objects.
func (o *objects) ServiceAccountToken(
	ctx context.Context, key types.NamespacedName, life time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(life.Seconds()))},
	}
	err := o.writer.SubResource("token").Create(ctx, account, request)
	return &request.Status, err
}

// read says what could not be read. That something does not exist, the caller says itself.
func read(err error, kind string, key types.NamespacedName) error {
	if err == nil || apierrors.IsNotFound(err) {
		return err
	}
	return fmt.Errorf("read %s %s: %w", kind, key, err)
}
