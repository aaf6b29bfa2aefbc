package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// world is a queue, Jobs and objects in memory, with failures at will: what no real adapter can be made to do exactly
// when a test wants it.
type world struct {
	t          *testing.T
	controller *Controller
	stop       func() // ends the controller and waits for it

	mu        sync.Mutex
	scaledJob *v1alpha1.ScaledJob
	jobs      []*batchv1.Job
	phase     map[types.UID]corev1.PodPhase
	queue     float64
	built     int
	measured  int
	created   int
	most      int
	writes    int
	events    []string
	listErr   error
	createErr error
	queueErr  error
	silent    bool // the queue does not answer
	changed   func()
}

var theKey = types.NamespacedName{Namespace: "default", Name: "usertask"}

func newWorld(t *testing.T, edit func(*v1alpha1.ScaledJob)) *world {
	t.Helper()
	most := int32(25)
	sj := &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: theKey.Namespace, Name: theKey.Name, UID: "sj", Generation: 1},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
			}},
			MaxReplicaCount: &most,
			ScalingStrategy: v1alpha1.ScalingStrategy{Strategy: "accurate"},
			Triggers:        []v1alpha1.ScaleTriggers{{Type: "memory"}},
		},
	}
	if edit != nil {
		edit(sj)
	}
	w := &world{t: t, scaledJob: sj, phase: map[types.UID]corev1.PodPhase{}, changed: func() {}}
	w.controller = New(Config{
		Jobs: w, Objects: w, Events: w, Version: "test", Log: slog.New(slog.DiscardHandler),
		TriggerTypes: []trigger.Type{{
			Name: "memory",
			Build: func(context.Context, trigger.Config, trigger.Values) (trigger.Trigger, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.built++
				return memoryTrigger{w}, nil
			},
		}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.controller.Run(ctx) })
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	w.controller.Changed(theKey)
	return w
}

// eventually waits until the condition holds, which it checks with the world locked.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		w.mu.Lock()
		ok := condition()
		state := fmt.Sprintf("queue %v, %d created, %d Jobs, events %q, conditions %v",
			w.queue, w.created, len(w.jobs), w.events, w.scaledJob.Status.Conditions)
		w.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not %s: %s", what, state)
		}
		time.Sleep(time.Millisecond)
	}
}

// edit changes the world and tells the controller.
func (w *world) edit(change func()) {
	w.mu.Lock()
	change()
	tell := w.changed
	w.mu.Unlock()
	tell()
	w.controller.Changed(theKey)
}

func (w *world) ready() v1alpha1.Condition {
	return w.scaledJob.Status.Conditions.Get(v1alpha1.ConditionReady)
}

// unfinished counts the Jobs that have not ended.
func (w *world) unfinished() (n int) {
	for _, job := range w.jobs {
		if how, _ := Finished(job); how == "" {
			n++
		}
	}
	return n
}

// run makes the oldest pending Job's Pod run, and take an item when there is one.
func (w *world) run() {
	w.edit(func() {
		for _, job := range w.jobs {
			if w.phase[job.UID] == corev1.PodPending {
				w.phase[job.UID] = corev1.PodRunning
				w.queue = max(0, w.queue-1)
				return
			}
		}
		w.t.Error("no Job is pending")
	})
}

// finish ends the oldest running Job.
func (w *world) finish(how batchv1.JobConditionType, at time.Time) {
	w.edit(func() {
		for i, job := range w.jobs {
			if already, _ := Finished(job); w.phase[job.UID] == corev1.PodRunning && already == "" {
				w.jobs[i] = ended(job, how, at)
				return
			}
		}
		w.t.Error("no Job is running")
	})
}

// ended returns the Job as one that has ended.
func ended(job *batchv1.Job, how batchv1.JobConditionType, at time.Time) *batchv1.Job {
	job = job.DeepCopy()
	job.Status.Conditions = []batchv1.JobCondition{{
		Type: how, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at),
	}}
	return job
}

type memoryTrigger struct{ w *world }

func (m memoryTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	m.w.mu.Lock()
	m.w.measured++
	if m.w.silent {
		m.w.mu.Unlock()
		<-ctx.Done()
		return trigger.Measurement{}, ctx.Err()
	}
	defer m.w.mu.Unlock()
	return trigger.Measurement{Value: m.w.queue, Target: 1, Active: m.w.queue > 0}, m.w.queueErr
}

func (m memoryTrigger) Watch(ctx context.Context, changed func()) {
	m.w.mu.Lock()
	m.w.changed = changed
	m.w.mu.Unlock()
	<-ctx.Done()
	m.w.mu.Lock()
	m.w.changed = func() {}
	m.w.mu.Unlock()
}

func (m memoryTrigger) Close() {}

func (w *world) List(context.Context, types.NamespacedName) ([]Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listErr != nil {
		return nil, w.listErr
	}
	var list []Job
	for _, job := range w.jobs {
		pod := &corev1.Pod{Status: corev1.PodStatus{Phase: w.phase[job.UID]}}
		list = append(list, Job{job, []*corev1.Pod{pod}})
	}
	return list, nil
}

func (w *world) Create(_ context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.createErr != nil {
		return nil, w.createErr
	}
	w.created++
	job = job.DeepCopy()
	job.Name = fmt.Sprintf("%s%05d", job.GenerateName, w.created)
	job.UID = types.UID(job.Name)
	w.jobs = append(w.jobs, job)
	w.phase[job.UID] = corev1.PodPending
	w.most = max(w.most, w.unfinished())
	return job, nil
}

func (w *world) Delete(_ context.Context, _, name string, uid types.UID, _ metav1.DeletionPropagation) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.jobs)
	w.jobs = slices.DeleteFunc(w.jobs, func(job *batchv1.Job) bool { return job.Name == name && job.UID == uid })
	if len(w.jobs) == before {
		return errors.New("deleted a Job that is not there")
	}
	w.controller.Changed(theKey)
	return nil
}

func (w *world) ScaledJob(_ context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scaledJob == nil || key != theKey {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "scaledjobs"}, key.Name)
	}
	return w.scaledJob.DeepCopy(), nil
}

func (w *world) UpdateStatus(_ context.Context, sj *v1alpha1.ScaledJob) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	w.scaledJob.Status = *sj.Status.DeepCopy()
	return nil
}

func (w *world) Event(_ *v1alpha1.ScaledJob, _, reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, reason+": "+message)
}

func notFound(resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

func (w *world) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	return nil, notFound("secrets", key.Name)
}

func (w *world) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return nil, notFound("configmaps", key.Name)
}

func (w *world) TriggerAuthentication(
	_ context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	return nil, notFound("triggerauthentications", key.Name)
}

func (w *world) ClusterTriggerAuthentication(
	_ context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return nil, notFound("clustertriggerauthentications", name)
}
