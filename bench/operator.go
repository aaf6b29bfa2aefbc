package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// plane is a control plane without a node, so that Jobs get Pods, and the Pods stay pending.
type plane struct {
	*controlplane.Cluster
	scaledJobs client.WithWatch
}

func startPlane(ctx context.Context) (*plane, error) {
	cluster, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return nil, err
	}
	p := &plane{Cluster: cluster}
	scheme := runtime.NewScheme()
	if err = v1alpha1.AddToScheme(scheme); err == nil {
		_, err = crds.Install(ctx, cluster.Config())
	}
	if err == nil {
		p.scaledJobs, err = client.NewWithWatch(cluster.Config(), client.Options{Scheme: scheme})
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *plane) stop() { _ = p.Stop() } // its data is not kept

// place is a namespace of the control plane, with the ScaledJob to whom its Jobs belong.
type place struct {
	*plane
	namespace string
	pods      pods
	scaledJob *v1alpha1.ScaledJob
}

// pods says whether Jobs get Pods.
type pods string

const (
	with    pods = "with"
	without pods = "without"
)

// nobody is who makes Pods for Jobs that are to have none.
const nobody = "bench.example/nobody"

// claims is delivery by claim in which an item whose Job is deleted is done with.
var claims = &v1alpha1.Delivery{Mode: v1alpha1.DeliveryClaim, DeadLetter: ptr.To(false)}

// place makes a namespace with a ScaledJob for that many Jobs at once.
func (p *plane) place(
	ctx context.Context, redis *server, atOnce int, pods pods, delivery *v1alpha1.Delivery,
) (*place, error) {
	at, err := p.emptyPlace(ctx, redis, atOnce, pods, delivery)
	if err != nil {
		return nil, err
	}
	return at, p.scaledJobs.Create(ctx, at.scaledJob)
}

// emptyPlace makes a namespace for such a ScaledJob.
func (p *plane) emptyPlace(
	ctx context.Context, redis *server, atOnce int, pods pods, delivery *v1alpha1.Delivery,
) (*place, error) {
	namespace, err := p.Client().CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	at := &place{plane: p, namespace: namespace.Name, pods: pods}
	// Without it the namespace's Pods are refused.
	err = eventually(ctx, "the namespace's service account", func() error {
		_, err := p.Client().CoreV1().ServiceAccounts(at.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	at.scaledJob = &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: at.namespace, Name: "bench"},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{
				BackoffLimit: ptr.To[int32](0),
				Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever,
					Containers: []corev1.Container{{
						Name: "main", Image: "registry.example/work:1", Command: []string{"offboard", "runner", "--", "true"},
						Env: []corev1.EnvVar{
							{Name: "REDIS_HOST", Value: "127.0.0.1"}, {Name: "REDIS_PORT", Value: redis.port},
							{Name: "REDIS_LIST", Value: list},
						},
					}},
				}},
			},
			MaxReplicaCount: ptr.To(int32(atOnce)),
			ScalingStrategy: v1alpha1.ScalingStrategy{Strategy: v1alpha1.StrategyAccurate},
			Delivery:        delivery,
			Triggers: []v1alpha1.ScaleTriggers{{Type: "redis", Metadata: map[string]string{
				"hostFromEnv": "REDIS_HOST", "portFromEnv": "REDIS_PORT", "listName": list, "listLength": "1",
			}}},
		},
	}
	if pods == without {
		at.scaledJob.Spec.JobTargetRef.ManagedBy = ptr.To(nobody)
	}
	return at, nil
}

// plainJob is a Job as the operator makes it: the same labels, the same owner, the same template.
func (at *place) plainJob() *batchv1.Job {
	owner := metav1.NewControllerRef(at.scaledJob, v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
	spec := *at.scaledJob.Spec.JobTargetRef.DeepCopy()
	spec.Template.Labels = map[string]string{v1alpha1.LabelScaledJob: at.scaledJob.Name}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: at.scaledJob.Name + "-",
			Labels: map[string]string{
				"app.kubernetes.io/name": at.scaledJob.Name, "app.kubernetes.io/version": "plain",
				"app.kubernetes.io/part-of": at.scaledJob.Name, "app.kubernetes.io/managed-by": "keda-operator",
				v1alpha1.LabelScaledJob: at.scaledJob.Name,
			},
			Annotations:     map[string]string{v1alpha1.AnnotationGeneration: "1"},
			OwnerReferences: []metav1.OwnerReference{*owner},
		},
		Spec: spec,
	}
}

// create makes one Job, as a plain writer does.
func (at *place) create(ctx context.Context) error {
	_, err := at.Client().BatchV1().Jobs(at.namespace).Create(ctx, at.plainJob(), metav1.CreateOptions{})
	return err
}

// sightings are what a watch shows of a namespace's Jobs.
type sightings struct {
	at      *place
	watch   watch.Interface
	version string // of the last that was seen
}

func (at *place) watch(ctx context.Context) (*sightings, error) {
	existing, err := at.Client().BatchV1().Jobs(at.namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	s := &sightings{at: at, version: existing.ResourceVersion}
	return s, s.resume(ctx)
}

// resume watches from the last that was seen on.
func (s *sightings) resume(ctx context.Context) (err error) {
	s.watch, err = s.at.Client().BatchV1().Jobs(s.at.namespace).Watch(ctx,
		metav1.ListOptions{ResourceVersion: s.version})
	return err
}

func (s *sightings) stop() { s.watch.Stop() }

// next waits until the watch has shown that many more Jobs, and returns when that was and the last one's name.
func (s *sightings) next(ctx context.Context, n int) (seen time.Time, name string, err error) {
	for found := 0; ; {
		select {
		case <-ctx.Done():
			return seen, name, fmt.Errorf("saw %d of %d Jobs: %w", found, n, context.Cause(ctx))
		case event, open := <-s.watch.ResultChan():
			if !open {
				// The server ends a watch that a burst has left behind; every client must go on where it was.
				if err := s.resume(ctx); err != nil {
					return seen, name, err
				}
				continue
			}
			job, ok := event.Object.(*batchv1.Job)
			if !ok {
				return seen, name, fmt.Errorf("watch Jobs: %w", apierrors.FromObject(event.Object))
			}
			s.version = job.ResourceVersion
			if event.Type == watch.Added {
				found++
			}
			if found == n {
				return time.Now(), job.Name, nil
			}
		}
	}
}

// settled waits until the namespace has that many Jobs, each with its Pod if it gets one, and until the ScaledJob's
// condition Active is as it should be.
func (at *place) settled(ctx context.Context, n int, active metav1.ConditionStatus) error {
	batch, core := at.Client().BatchV1().Jobs(at.namespace), at.Client().CoreV1().Pods(at.namespace)
	options := metav1.ListOptions{Limit: 1}
	wantPods := n
	if at.pods == without {
		wantPods = 0
	}
	return eventually(ctx, fmt.Sprintf("%d Jobs %s Pods", n, at.pods), func() error {
		jobs, err := batch.List(ctx, options)
		if err != nil {
			return err
		}
		pods, err := core.List(ctx, options)
		if err != nil {
			return err
		}
		haveJobs := len(jobs.Items) + int(ptr.Deref(jobs.RemainingItemCount, 0))
		havePods := len(pods.Items) + int(ptr.Deref(pods.RemainingItemCount, 0))
		if haveJobs != n || havePods != wantPods {
			return fmt.Errorf("there are %d Jobs and %d Pods", haveJobs, havePods)
		}
		return at.condition(ctx, v1alpha1.ConditionActive, active)
	})
}

// condition returns an error unless the ScaledJob has the condition. All are unknown where no operator looks.
func (at *place) condition(ctx context.Context, kind v1alpha1.ConditionType, status metav1.ConditionStatus) error {
	sj := &v1alpha1.ScaledJob{}
	if err := at.scaledJobs.Get(ctx, client.ObjectKeyFromObject(at.scaledJob), sj); err != nil {
		return err
	}
	if have := sj.Status.Conditions.Get(kind); have.Status != status {
		return fmt.Errorf("the ScaledJob's condition is %+v", have)
	}
	return nil
}

// clear deletes all Jobs and waits until they and their Pods are gone.
func (at *place) clear(ctx context.Context, active metav1.ConditionStatus) error {
	err := at.Client().BatchV1().Jobs(at.namespace).DeleteCollection(ctx,
		metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return at.settled(ctx, 0, active)
}

// operator is a running `offboard operator` that looks after one place.
type operator struct {
	process
	log output
}

// output is what a process says.
type output struct {
	mu  sync.Mutex
	all strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// operate makes a place and starts an operator for it, which the caller stops.
func (o options) operate(
	ctx context.Context, p *plane, redis *server, pods pods, delivery *v1alpha1.Delivery,
) (*place, *operator, error) {
	at, err := p.place(ctx, redis, o.jobs, pods, delivery)
	if err != nil {
		return nil, nil, err
	}
	op, err := o.operator(ctx, at)
	return at, op, err
}

// operator starts one, and waits until it has looked at the ScaledJob.
func (o options) operator(ctx context.Context, at *place) (*operator, error) {
	op, err := o.startOperator(ctx, at.plane, at.namespace, "--leader-elect=false")
	if err != nil {
		return nil, err
	}
	err = eventually(ctx, "a ScaledJob that is ready", func() error {
		return at.condition(ctx, v1alpha1.ConditionReady, metav1.ConditionTrue)
	})
	if err != nil {
		op.stop()
		return nil, fmt.Errorf("%w\n%s", err, op.log.String())
	}
	return op, nil
}

// startOperator starts one that looks after a namespace.
func (o options) startOperator(ctx context.Context, p *plane, namespace string, flags ...string) (*operator, error) {
	op := &operator{}
	op.cmd = exec.CommandContext(ctx, o.offboard, append([]string{"operator", "--kubeconfig", p.KubeconfigFile(),
		"--namespaces", namespace, "--webhook=false",
		"--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "127.0.0.1:0"}, flags...)...)
	op.cmd.Stdout, op.cmd.Stderr = &op.log, &op.log
	if err := op.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.offboard, err)
	}
	return op, nil
}
