// Package scaledjob is the controller: for each ScaledJob it measures the triggers, decides how many Jobs to create,
// acts, and settles what has finished. It is the same code on one machine and on a cluster; what differs is behind the
// ports in this file.
package scaledjob

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// Job is a Job together with its Pods as the port last saw them. Both are shared with the port: never modify them.
type Job struct {
	*batchv1.Job
	Pods []*corev1.Pod
}

// Jobs is the port to where Jobs run. An adapter reads its own writes: a Job that Create has returned is in every
// later List until Delete.
type Jobs interface {
	// List returns the Jobs that carry the ScaledJob's label in its namespace. An error means that they are unknown,
	// never that there are none.
	List(ctx context.Context, scaledJob types.NamespacedName) ([]Job, error)
	// Create makes the Job; generateName is honoured. It returns the Job as stored.
	Create(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error)
	// Delete ends a Job's Pods and removes it. A Job that is gone already is no error. The UID guards against deleting
	// a newer Job of that name.
	Delete(ctx context.Context, namespace, name string, uid types.UID, propagation metav1.DeletionPropagation) error
}

// Objects is the port to what users declare. Objects that do not exist give an error for which
// k8s.io/apimachinery/pkg/api/errors.IsNotFound is true. What is returned is shared: never modify it.
type Objects interface {
	ScaledJob(ctx context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error)
	// UpdateStatus stores the status of the ScaledJob.
	UpdateStatus(ctx context.Context, scaledJob *v1alpha1.ScaledJob) error
	Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error)
	TriggerAuthentication(ctx context.Context, key types.NamespacedName) (*v1alpha1.TriggerAuthentication, error)
	ClusterTriggerAuthentication(ctx context.Context, name string) (*v1alpha1.ClusterTriggerAuthentication, error)
}

// Events is the port that tells users what happened to a ScaledJob.
type Events interface {
	// Event records one. eventType is Normal or Warning, reason one CamelCase word.
	Event(scaledJob *v1alpha1.ScaledJob, eventType, reason, message string)
}
