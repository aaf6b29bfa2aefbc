package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// claimed is how many items the claims benchmark has.
const claimed = 10_000

// claims takes the time in which the controller claims and settles items whose Jobs end as soon as they are made, on
// one core; the server has another.
func (o options) claims(ctx context.Context, _ string, redis *server) error {
	cores := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(cores)
	rates := make([]float64, 0, o.rounds)
	before, err := redis.client.commands(ctx)
	if err != nil {
		return err
	}
	for range o.rounds {
		items := make([]string, claimed)
		for i := range items {
			items[i] = strconv.Itoa(i)
		}
		if err := redis.client.push(ctx, items...); err != nil {
			return err
		}
		took, err := settleAll(ctx, redis)
		if err != nil {
			return err
		}
		rates = append(rates, claimed/took.Seconds())
	}
	after, err := redis.client.commands(ctx)
	if err != nil {
		return err
	}
	row(fmt.Sprintf("by claim: %d items, Jobs that do nothing, one core", claimed), perSecond(rates), atLeast(20_000))
	row("by claim: requests to Redis for each of them", figure{float64(after-before) / float64(claimed*o.rounds), "", 3},
		atMost(2))
	return nil
}

// settleAll runs a controller until it has settled all items, and returns how long that took.
func settleAll(ctx context.Context, redis *server) (time.Duration, error) {
	done := make(chan struct{})
	n := &nothing{
		jobs: map[string]*batchv1.Job{}, done: done,
		scaledJob: &v1alpha1.ScaledJob{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "bench", Name: "bench", UID: "bench", Generation: 1, Finalizers: []string{v1alpha1.FinalizerSettle},
			},
			Spec: v1alpha1.ScaledJobSpec{
				JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
					Containers: []corev1.Container{{Name: "main"}},
				}}},
				MaxReplicaCount: ptr.To[int32](1000),
				Delivery:        &v1alpha1.Delivery{Mode: v1alpha1.DeliveryClaim},
				Triggers: []v1alpha1.ScaleTriggers{{Type: "redis", Metadata: map[string]string{
					"address": "127.0.0.1:" + redis.port, "listName": list, "listLength": "1",
				}}},
			},
		},
	}
	n.controller = scaledjob.New(scaledjob.Config{
		Jobs: n, Objects: n, Events: n, TriggerTypes: all.Types(), Version: "bench", Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	began := time.Now()
	running.Go(func() { n.controller.Run(ctx) })
	n.controller.Changed(n.scaledJob.Key())
	select {
	case <-done:
		return time.Since(began), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("not all items were settled: %w", context.Cause(ctx))
	}
}

// nothing is where Jobs have nothing to do: each is complete when it is made.
type nothing struct {
	controller *scaledjob.Controller
	done       chan struct{}

	mu        sync.Mutex
	scaledJob *v1alpha1.ScaledJob
	jobs      map[string]*batchv1.Job
	settled   int
}

// List implements scaledjob.Jobs.
func (n *nothing) List(context.Context, types.NamespacedName) ([]scaledjob.Job, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]scaledjob.Job, 0, len(n.jobs))
	for _, job := range n.jobs {
		list = append(list, scaledjob.Job{Job: job})
	}
	return list, nil
}

// Create implements scaledjob.Jobs.
func (n *nothing) Create(_ context.Context, job *batchv1.Job, _ *scaledjob.ItemFile) (*batchv1.Job, error) {
	job.UID = types.UID(job.Name)
	job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	n.mu.Lock()
	n.jobs[job.Name] = job
	n.mu.Unlock()
	n.controller.Changed(n.scaledJob.Key())
	return job, nil
}

// Settled implements scaledjob.Jobs.
func (n *nothing) Settled(_ context.Context, job scaledjob.Job) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.jobs, job.Name)
	if n.settled++; n.settled == claimed {
		close(n.done)
	}
	return nil
}

// Delete implements scaledjob.Jobs.
func (*nothing) Delete(context.Context, string, string, types.UID, metav1.DeletionPropagation) error {
	return nil
}

// EndPods implements scaledjob.Jobs.
func (*nothing) EndPods(context.Context, scaledjob.Job) error { return nil }

// Failure implements scaledjob.Jobs.
func (*nothing) Failure(context.Context, scaledjob.Job) (queue.Failure, error) {
	return queue.Failure{}, nil
}

// ScaledJob implements scaledjob.Objects.
func (n *nothing) ScaledJob(context.Context, types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.scaledJob, nil
}

// UpdateStatus implements scaledjob.Objects.
func (n *nothing) UpdateStatus(_ context.Context, sj *v1alpha1.ScaledJob) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.scaledJob = sj
	return nil
}

// SetFinalizer implements scaledjob.Objects.
func (*nothing) SetFinalizer(context.Context, *v1alpha1.ScaledJob, bool) error { return nil }

var errNone = errors.New("the benchmark has none")

// Secret implements scaledjob.Objects.
func (*nothing) Secret(context.Context, types.NamespacedName) (*corev1.Secret, error) {
	return nil, errNone
}

// ConfigMap implements scaledjob.Objects.
func (*nothing) ConfigMap(context.Context, types.NamespacedName) (*corev1.ConfigMap, error) {
	return nil, errNone
}

// TriggerAuthentication implements scaledjob.Objects.
func (*nothing) TriggerAuthentication(
	context.Context, types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	return nil, errNone
}

// ClusterTriggerAuthentication implements scaledjob.Objects.
func (*nothing) ClusterTriggerAuthentication(
	context.Context, string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return nil, errNone
}

// ServiceAccountToken implements scaledjob.Objects.
func (*nothing) ServiceAccountToken(
	context.Context, types.NamespacedName, time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	return nil, errNone
}

// Event implements scaledjob.Events.
func (*nothing) Event(*v1alpha1.ScaledJob, string, string, string) {}
