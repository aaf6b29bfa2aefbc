package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// world is a queue, Jobs and objects in memory, with failures at will: what no real adapter can be made to do exactly
// when a test wants it.
type world struct {
	t          *testing.T
	controller *Controller
	stop       func() // ends the controller and waits for it

	mu          sync.Mutex
	scaledJob   *v1alpha1.ScaledJob
	jobs        []*batchv1.Job
	phase       map[types.UID]corev1.PodPhase
	queue       float64
	other       float64 // what waits at the other trigger
	built       int
	measured    int
	created     int
	most        int
	writes      int
	creating    int                   // requests under way
	mostAtOnce  int                   // of them
	gate        chan struct{}         // requests wait until it is closed; nil for no wait
	conditions  []corev1.PodCondition // of all Pods
	running     int64                 // Jobs, as Metrics was told last
	pending     int64                 // the same
	refused     int                   // as Metrics was told
	withoutPods int                   // as Metrics was told last
	events      []string
	eventTypes  map[string]string // the type of the last event, by reason
	listErr     error
	deletions   int // asked for
	createErr   error
	deleteErr   error
	queueErr    error
	otherErr    error
	statusErr   error
	silent      bool   // the queue does not answer
	password    string // that the queue wants; empty for none
	podsRefused string // JOB stands for the name of the Job
	secret      *corev1.Secret
	tokens      int // of service accounts that were asked for
	tokenLife   time.Duration
	noTokens    bool // no service account is there
	auth        *v1alpha1.TriggerAuthentication
	changed     func()
}

var theKey = types.NamespacedName{Namespace: "default", Name: "usertask"}

func newWorld(t *testing.T, edit func(*v1alpha1.ScaledJob)) *world {
	t.Helper()
	return newWorldWith(t, Config{}, edit)
}

// newWorldWith takes from the Config what the world does not bring itself.
func newWorldWith(t *testing.T, config Config, edit func(*v1alpha1.ScaledJob)) *world {
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
	w := &world{
		t: t, scaledJob: sj, phase: map[types.UID]corev1.PodPhase{}, eventTypes: map[string]string{}, changed: func() {},
	}
	config.Jobs, config.Objects, config.Events, config.Metrics = w, w, w, counting{w: w}
	config.Version, config.Log = "test", slog.New(slog.DiscardHandler)
	config.TriggerTypes = []trigger.Type{{
		Name: "memory",
		Build: func(_ context.Context, config trigger.Config, _ trigger.Values) (trigger.Trigger, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.built++
			return memoryTrigger{w, config.Env["PASSWORD"]}, nil
		},
	}, {
		Name: "holding",
		Build: func(context.Context, trigger.Config, trigger.Values) (trigger.Trigger, error) {
			return holding{memoryTrigger{w: w}}, nil
		},
	}, {
		Name: "other",
		Build: func(context.Context, trigger.Config, trigger.Values) (trigger.Trigger, error) {
			return otherTrigger{w}, nil
		},
	}}
	w.controller = New(config)
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
	deadline := time.Now().Add(time.Minute)
	for {
		w.mu.Lock()
		ok := condition()
		var conditions v1alpha1.Conditions
		if w.scaledJob != nil {
			conditions = w.scaledJob.Status.Conditions
		}
		state := fmt.Sprintf("queue %v, %d created, %d Jobs, events %q, conditions %v",
			w.queue, w.created, len(w.jobs), w.events, conditions)
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

// look lets the test see the world while the controller runs.
func (w *world) look(see func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	see()
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
	return w.condition(v1alpha1.ConditionReady)
}

func (w *world) condition(kind v1alpha1.ConditionType) v1alpha1.Condition {
	return w.scaledJob.Status.Conditions.Get(kind)
}

// told counts the events with that reason.
func (w *world) told(reason string) (n int) {
	for _, event := range w.events {
		if strings.HasPrefix(event, reason+":") {
			n++
		}
	}
	return n
}

// again waits until the controller has looked another time from the beginning to the end.
func (w *world) again() {
	w.t.Helper()
	for range 2 { // the one under way may have begun before what the test has just changed
		seen := w.controller.View(theKey).At
		w.controller.Changed(theKey)
		w.eventually("reconciled", func() bool { return w.controller.View(theKey).At.After(seen) })
	}
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

type memoryTrigger struct {
	w        *world
	password string
}

func (m memoryTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	m.w.mu.Lock()
	m.w.measured++
	if m.w.silent {
		m.w.mu.Unlock()
		<-ctx.Done()
		return trigger.Measurement{}, ctx.Err()
	}
	defer m.w.mu.Unlock()
	if m.password != m.w.password && m.w.password != "" {
		return trigger.Measurement{}, errors.New("WRONGPASS")
	}
	return trigger.Measurement{Value: m.w.queue, Target: 1, Active: m.w.queue > 0}, m.w.queueErr
}

func (m memoryTrigger) Watch(changed func()) (stop func()) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.changed = changed
	return func() {
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		m.w.changed = func() {}
	}
}

func (m memoryTrigger) Close() {}

// otherTrigger tells of no changes.
type otherTrigger struct{ w *world }

func (o otherTrigger) Measure(context.Context) (trigger.Measurement, error) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	return trigger.Measurement{Value: o.w.other, Target: 1, Active: o.w.other > 0}, o.w.otherErr
}

func (o otherTrigger) Close() {}

func (w *world) List(context.Context, types.NamespacedName) ([]Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listErr != nil {
		return nil, w.listErr
	}
	var list []Job
	for _, job := range w.jobs {
		pod := &corev1.Pod{Status: corev1.PodStatus{Phase: w.phase[job.UID], Conditions: w.conditions}}
		list = append(list, Job{Job: job, Pods: []*corev1.Pod{pod}, PodsRefused: strings.ReplaceAll(w.podsRefused, "JOB", job.Name)})
	}
	return list, nil
}

func (w *world) Create(_ context.Context, job *batchv1.Job, _ *ItemFile) (*batchv1.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.creating++
	w.mostAtOnce = max(w.mostAtOnce, w.creating)
	if gate := w.gate; gate != nil {
		w.mu.Unlock()
		<-gate
		w.mu.Lock()
	}
	w.creating--
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
	w.deletions++
	if w.deleteErr != nil {
		return w.deleteErr
	}
	before := len(w.jobs)
	w.jobs = slices.DeleteFunc(w.jobs, func(job *batchv1.Job) bool { return job.Name == name && job.UID == uid })
	if len(w.jobs) == before {
		return errors.New("deleted a Job that is not there")
	}
	w.controller.Changed(theKey)
	return nil
}

// What follows is for delivery by claim, which has a world of its own.

func (w *world) EndPods(context.Context, Job) error { return errors.ErrUnsupported }

func (w *world) Settled(context.Context, Job) error { return errors.ErrUnsupported }

func (w *world) Failure(context.Context, Job) (queue.Failure, error) { return queue.Failure{}, nil }

func (w *world) SetFinalizer(context.Context, *v1alpha1.ScaledJob, bool) error {
	return errors.ErrUnsupported
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
	if w.statusErr != nil {
		return w.statusErr
	}
	w.writes++
	w.scaledJob.Status = *sj.Status.DeepCopy()
	return nil
}

func (w *world) Event(sj *v1alpha1.ScaledJob, eventType, reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sj.Key() != theKey || sj.UID == "" {
		w.t.Errorf("an event of %s with UID %q", sj.Key(), sj.UID)
	}
	w.events = append(w.events, reason+": "+message)
	w.eventTypes[reason] = eventType
}

// counting keeps what the world wants to know of the metrics.
type counting struct {
	noMetrics
	w *world
}

func (c counting) Refused(_ types.NamespacedName, jobs int) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.refused += jobs
}

func (c counting) WithoutPods(_ types.NamespacedName, jobs int) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.withoutPods = jobs
}

func (c counting) Queue(_ types.NamespacedName, _ float64, _ time.Duration, running, pending int64) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.running, c.w.pending = running, pending
}

func notFound(resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

func (w *world) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.secret == nil {
		return nil, notFound("secrets", key.Name)
	}
	return w.secret, nil
}

func (w *world) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return nil, notFound("configmaps", key.Name)
}

func (w *world) TriggerAuthentication(
	_ context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.auth == nil {
		return nil, notFound("triggerauthentications", key.Name)
	}
	return w.auth, nil
}

func (w *world) ClusterTriggerAuthentication(
	_ context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return nil, notFound("clustertriggerauthentications", name)
}

func (w *world) ServiceAccountToken(
	_ context.Context, key types.NamespacedName, _ time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens++
	if w.noTokens {
		return nil, notFound("serviceaccounts", key.Name)
	}
	return &authenticationv1.TokenRequestStatus{
		Token:               fmt.Sprintf("token %d of %s", w.tokens, key),
		ExpirationTimestamp: metav1.NewTime(time.Now().Add(w.tokenLife)),
	}, nil
}
