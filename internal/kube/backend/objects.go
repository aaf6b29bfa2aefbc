package backend

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// objects reads what triggers refer to, one by one and with the rights of the user.
type objects struct{ b *Backend }

var _ scaledjob.Objects = objects{}

func (o objects) ScaledJob(ctx context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	return o.b.getScaledJob(ctx, key.Namespace, key.Name)
}

// UpdateStatus is the operator's alone.
func (o objects) UpdateStatus(context.Context, *v1alpha1.ScaledJob) error { return nil }

// SetFinalizer is the operator's alone.
func (o objects) SetFinalizer(context.Context, *v1alpha1.ScaledJob, bool) error { return nil }

func (o objects) Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	return o.b.core.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
}

func (o objects) ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return o.b.core.ConfigMaps(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
}

func (o objects) TriggerAuthentication(
	ctx context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	found := &v1alpha1.TriggerAuthentication{}
	err := o.b.keda.Get().Resource("triggerauthentications").Namespace(key.Namespace).Name(key.Name).Do(ctx).Into(found)
	return found, err
}

func (o objects) ClusterTriggerAuthentication(
	ctx context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	found := &v1alpha1.ClusterTriggerAuthentication{}
	err := o.b.keda.Get().Resource("clustertriggerauthentications").Name(name).Do(ctx).Into(found)
	return found, err
}

func (o objects) ServiceAccountToken(
	ctx context.Context, key types.NamespacedName, life time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	made, err := o.b.core.ServiceAccounts(key.Namespace).CreateToken(ctx, key.Name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(life.Seconds()))},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &made.Status, nil
}
