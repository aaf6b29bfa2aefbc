// Package scaledjob is the controller: for each ScaledJob it measures the triggers, decides how many Jobs to create,
// acts, and settles what has finished. It is the same code on one machine and on a cluster; what differs is behind the
// ports in this file.
package scaledjob

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// Job is a Job together with its Pods as the port last saw them. Both are shared with the port: never modify them.
type Job struct {
	*batchv1.Job
	Pods []*corev1.Pod
	// PodsRefused is why the Job's Pods cannot be made, in the words of who refuses them; empty while they can.
	PodsRefused string
}

// Jobs is the port to where Jobs run. An adapter reads its own writes: a Job that Create has returned is in every
// later List until Delete.
type Jobs interface {
	// List returns the Jobs that carry the ScaledJob's label in its namespace, also those that are being deleted, for as
	// long as they are. An error means that they are unknown, never that there are none.
	List(ctx context.Context, scaledJob types.NamespacedName) ([]Job, error)
	// Create makes the Job and returns it as stored. generateName is honoured. With a name, the Job may exist already: if
	// it is the same ScaledJob's, it is returned as it is. After an error there is no such Job; where that is not
	// certain, because the answer was lost, List fails until it is. With a file, every container has it, and the variable
	// v1alpha1.ItemVariableFile names it; it is kept until Settled. An ItemError says that it is because of the item.
	Create(ctx context.Context, job *batchv1.Job, file *ItemFile) (*batchv1.Job, error)
	// Delete ends a Job's Pods and removes it. A Job that is gone already is no error. The UID guards against deleting
	// a newer Job of that name.
	Delete(ctx context.Context, namespace, name string, uid types.UID, propagation metav1.DeletionPropagation) error
	// EndPods asks for the end of the Pods of a Job that is being deleted and is kept by v1alpha1.FinalizerSettle. It does
	// not wait for it: List shows the Pods until they have ended.
	EndPods(ctx context.Context, job Job) error
	// Settled takes the file of its item and v1alpha1.FinalizerSettle off a Job whose outcome is settled. A Job that is
	// gone already is no error.
	Settled(ctx context.Context, job Job) error
	// Failure tells why a Job did not succeed, as far as can be found out: the reason, the exit code or signal of its last
	// container that failed, and the end of what that printed. After an error more may be found out later.
	Failure(ctx context.Context, job Job) (queue.Failure, error)
}

// ItemError is why no Job can be created for an item, now or later, while others can.
type ItemError struct{ Err error }

func (e ItemError) Error() string { return e.Err.Error() }
func (e ItemError) Unwrap() error { return e.Err }

// ItemFile is an item that a Job's containers get as a file.
type ItemFile struct {
	// Path is where, as an absolute path; empty where nobody has asked for a certain one.
	Path    string
	Content []byte
}

// Objects is the port to what users declare. Objects that do not exist give an error for which
// k8s.io/apimachinery/pkg/api/errors.IsNotFound is true. What is returned is shared: never modify it.
type Objects interface {
	ScaledJob(ctx context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error)
	// UpdateStatus stores the status of the ScaledJob.
	UpdateStatus(ctx context.Context, scaledJob *v1alpha1.ScaledJob) error
	// SetFinalizer puts v1alpha1.FinalizerSettle on the ScaledJob or takes it off. When it returns without an error, the
	// ScaledJob is stored so. With the finalizer, a ScaledJob that is deleted stays, with a deletion timestamp, until it
	// is taken off. One that is gone already is no error.
	SetFinalizer(ctx context.Context, scaledJob *v1alpha1.ScaledJob, present bool) error
	Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error)
	TriggerAuthentication(ctx context.Context, key types.NamespacedName) (*v1alpha1.TriggerAuthentication, error)
	ClusterTriggerAuthentication(ctx context.Context, name string) (*v1alpha1.ClusterTriggerAuthentication, error)
	// ServiceAccountToken asks for a new token of the service account that is valid for about as long as life.
	ServiceAccountToken(
		ctx context.Context, key types.NamespacedName, life time.Duration,
	) (*authenticationv1.TokenRequestStatus, error)
}

// Events is the port that tells users what happened to a ScaledJob.
type Events interface {
	// Event records one. eventType is Normal or Warning, reason one CamelCase word.
	Event(scaledJob *v1alpha1.ScaledJob, eventType, reason, message string)
}

// TriggerRef names one trigger of a ScaledJob.
type TriggerRef struct {
	ScaledJob types.NamespacedName
	// Type is the trigger type, as in the manifest.
	Type string
	// Name is the trigger's name in the manifest; it may be empty.
	Name string
	// Index is the trigger's place in the manifest, from 0.
	Index int
	// Metric is the name under which KEDA publishes the value.
	Metric string
}

// Metrics is the port that counts and times what the controller does. Its methods are called from several goroutines
// and never block.
type Metrics interface {
	// Tracked tells of a ScaledJob as it is now, whenever it is new or its generation has changed.
	Tracked(scaledJob *v1alpha1.ScaledJob)
	// Forgotten tells that a ScaledJob is gone or no longer this process's: nothing of it is to be published any more.
	Forgotten(scaledJob types.NamespacedName)
	// Measured tells of one measurement of one trigger: how long it took, and the reading or the error.
	Measured(trigger TriggerRef, reading scaling.Reading, took time.Duration, err error)
	// Reconciled tells that a reconcile began this much later than it was due (0 when a change was its reason), and
	// whether the ScaledJob is paused.
	Reconciled(scaledJob types.NamespacedName, late time.Duration, paused bool)
	// Failed counts a reconcile that failed.
	Failed(scaledJob types.NamespacedName)
	// Created counts Jobs. reaction is the time from the notice that the queue had changed to the last of them; 0 when
	// there was no notice.
	Created(scaledJob types.NamespacedName, jobs int, reaction time.Duration)
	// Refused counts Jobs that the cluster did not let be created. One that could not be asked has refused nothing.
	Refused(scaledJob types.NamespacedName, jobs int)
	// WithoutPods tells how many unfinished Jobs there are whose Pods cannot be made.
	WithoutPods(scaledJob types.NamespacedName, jobs int)
	// Surplus counts Jobs that ended while nothing at all was taken from the queue.
	Surplus(scaledJob types.NamespacedName, jobs int)
	// Alive tells how many Jobs count against the limits, over all ScaledJobs; Limited, how many of a ScaledJob wait
	// because of one. They are told only where there are limits.
	Alive(jobs int)
	Limited(scaledJob types.NamespacedName, waiting int)
	// Settled counts items by what became of them: done, retry, dead or dropped.
	Settled(scaledJob types.NamespacedName, outcome string, items int)
	// Queue tells how much work waits, how long the oldest of it has been seen waiting (an estimate that assumes first
	// in, first out), and how many Jobs run and are pending.
	Queue(scaledJob types.NamespacedName, waiting float64, age time.Duration, running, pending int64)
}
