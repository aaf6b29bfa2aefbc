package scaledjob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// plant is where Jobs of claims run: in memory and with failures at will, on a queue in a real Redis. Controllers come
// and go; the plant stays.
type plant struct {
	t      *testing.T
	server *redistest.Server
	redis  rueidis.Client
	conn   redisqueue.Conn

	mu        sync.Mutex
	scaledJob *v1alpha1.ScaledJob
	jobs      map[string]*batchv1.Job
	pods      map[types.UID]corev1.PodPhase
	ends      map[string]queue.Failure // what Failure tells of a Job, by its name
	unknown   map[string]int           // how often it cannot tell first
	files     map[string][]byte
	made      map[string]int // how often a Job of that name was made
	most      int
	uids      int
	events    []string
	settled   map[string]int
	changed   map[*controllerLife]bool
	err       error       // of every request to make a Job
	down      atomic.Bool // the queue is away
	unmade    atomic.Bool // what triggers are made from is away
	hopeless  string      // an item for which there can be no Job
	limits    limits.Limits
}

const plantList = "work"

func newPlant(t *testing.T, edit func(*v1alpha1.ScaledJob)) *plant {
	t.Helper()
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	sj := &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: theKey.Namespace, Name: theKey.Name, UID: "sj", Generation: 1},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
			}},
			MaxReplicaCount: ptr.To(int32(5)),
			PollingInterval: ptr.To(int32(1)),
			Delivery: &v1alpha1.Delivery{
				Mode: v1alpha1.DeliveryClaim, Attempts: ptr.To(int32(3)),
				Backoff: &v1alpha1.Backoff{Initial: &metav1.Duration{Duration: time.Millisecond}},
			},
			Triggers: []v1alpha1.ScaleTriggers{{Type: "list", Metadata: map[string]string{"name": plantList}}},
		},
	}
	if edit != nil {
		edit(sj)
	}
	client := server.Client()
	return &plant{
		t: t, server: server, redis: client, conn: queuetest.Conn{Client: client}, scaledJob: sj, jobs: map[string]*batchv1.Job{},
		pods: map[types.UID]corev1.PodPhase{}, ends: map[string]queue.Failure{}, unknown: map[string]int{}, files: map[string][]byte{},
		made: map[string]int{}, settled: map[string]int{}, changed: map[*controllerLife]bool{},
	}
}

func (p *plant) queue() *redisqueue.Queue { return redisqueue.New(p.conn, plantList) }

func (p *plant) push(items ...string) {
	p.t.Helper()
	if err := p.redis.Do(context.Background(), p.redis.B().Rpush().Key(plantList).Element(items...).Build()).Error(); err != nil {
		p.t.Fatal(err)
	}
	p.tell()
}

func (p *plant) tell() {
	p.mu.Lock()
	lives := slices.Collect(maps.Keys(p.changed))
	p.mu.Unlock()
	for _, life := range lives {
		life.controller.Changed(theKey)
	}
}

// eventually waits until the condition holds, which it checks with the plant locked.
func (p *plant) eventually(what string, condition func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		ok := condition()
		var conditions v1alpha1.Conditions
		if p.scaledJob != nil {
			conditions = p.scaledJob.Status.Conditions
		}
		state := fmt.Sprintf("Jobs %v, made %v, settled %v, events %q, conditions %v", slices.Sorted(maps.Keys(p.jobs)), p.made,
			p.settled, p.events, conditions)
		p.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not %s: %s", what, state)
		}
	}
}

// stats are those of the queue.
func (p *plant) stats() queue.Stats {
	p.t.Helper()
	stats, err := p.queue().Stats(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return stats
}

// run makes the Jobs that wait run.
func (p *plant) run(names ...string) {
	p.mu.Lock()
	for _, name := range names {
		p.pods[p.jobs[name].UID] = corev1.PodRunning
	}
	p.mu.Unlock()
	p.tell()
}

// end ends a Job.
func (p *plant) end(name string, how batchv1.JobConditionType, failure queue.Failure) {
	p.mu.Lock()
	p.endLocked(name, how, failure)
	p.mu.Unlock()
	p.tell()
}

func (p *plant) endLocked(name string, how batchv1.JobConditionType, failure queue.Failure) {
	job := p.jobs[name]
	p.pods[job.UID] = corev1.PodSucceeded
	if how == batchv1.JobFailed {
		p.pods[job.UID] = corev1.PodFailed
	}
	p.ends[name] = failure
	p.jobs[name] = ended(job, how, time.Now())
}

// unfinished names the Jobs that have not ended, in the order of their names.
func (p *plant) unfinished() (names []string) {
	for name, job := range p.jobs {
		if how, _ := Finished(job); how == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// controllerLife is one process's life: from some request on, nothing that it asks for happens any more, or it happens
// and the answer is lost.
type controllerLife struct {
	*plant
	controller *Controller
	stop       func()
	// left is how many requests are answered before the process dies; negative means all.
	left       atomic.Int64
	releaseAll bool
	// fenced tells that another process leads, so that this one makes and changes no Jobs.
	fenced atomic.Bool
	// lossy makes some answers get lost.
	lossy *rand.Rand
	mu    sync.Mutex
}

var (
	errDead   = errors.New("the process is dead")
	errLost   = errors.New("the answer was lost")
	errFenced = errors.New("another process leads")
)

// start starts a controller, which is ended with the test.
func (p *plant) start() *controllerLife {
	life := &controllerLife{plant: p}
	life.left.Store(-1)
	life.begin()
	return life
}

func (l *controllerLife) begin() {
	l.make()
	l.run()
}

// release starts a controller that releases everything, and that has seen so for that long.
func (p *plant) release(since time.Duration) *controllerLife {
	life := &controllerLife{plant: p, releaseAll: true}
	life.left.Store(-1)
	life.make()
	p.mu.Lock()
	sj := p.scaledJob.DeepCopy()
	p.mu.Unlock()
	life.controller.record(sj).leaving.looked = time.Now().Add(-since)
	life.run()
	return life
}

func (l *controllerLife) make() {
	l.controller = New(Config{
		ReleaseAll: l.releaseAll, Limits: l.plant.limits,
		Jobs: l, Objects: l, Events: l, Metrics: plantMetrics{plant: l.plant}, Version: "test", Log: slog.New(slog.DiscardHandler),
		TriggerTypes: []trigger.Type{{
			Name: "list",
			Build: func(_ context.Context, config trigger.Config, _ trigger.Values) (trigger.Trigger, error) {
				if l.unmade.Load() {
					return nil, errors.New("the Secret is away")
				}
				return listTrigger{l, config.Metadata["name"]}, nil
			},
		}},
	})
}

func (l *controllerLife) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.controller.Run(ctx) })
	l.stop = sync.OnceFunc(func() {
		l.left.Store(0)
		cancel()
		running.Wait()
		l.plant.mu.Lock()
		delete(l.changed, l)
		l.plant.mu.Unlock()
	})
	l.t.Cleanup(l.stop)
	l.plant.mu.Lock()
	l.changed[l] = true
	l.plant.mu.Unlock()
	l.controller.Changed(theKey)
}

// request does something unless the process is dead. When it dies of this request, or when the answer is lost, it may
// have happened or not.
func (l *controllerLife) request(do func() error) error {
	left := l.left.Add(-1)
	switch {
	case left == -1:
		l.left.Store(0)
		return errDead
	case left < 0:
		l.left.Store(-1)
		if lost, after := l.loses(); lost {
			if after {
				_ = do()
			}
			return errLost
		}
		return do()
	case left == 0:
		if time.Now().UnixNano()%2 == 0 {
			_ = do()
		}
		return errDead
	}
	return do()
}

func (l *controllerLife) loses() (lost, after bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lossy == nil || l.lossy.IntN(30) > 0 {
		return false, false
	}
	return true, l.lossy.IntN(2) == 0
}

type listTrigger struct {
	life *controllerLife
	name string
}

func (t listTrigger) Measure(ctx context.Context) (m trigger.Measurement, err error) {
	if t.life.down.Load() {
		return m, errors.New("the queue is away")
	}
	n, err := t.life.redis.Do(ctx, t.life.redis.B().Llen().Key(t.name).Build()).AsInt64()
	return trigger.Measurement{Value: float64(n), Target: 1, Active: n > 0}, err
}

func (t listTrigger) Close() {}

func (t listTrigger) Items(name string) queue.Queue {
	if name == "" {
		name = t.name
	}
	return redisqueue.New(mortalConn(t), name)
}

func (t listTrigger) Claimed(ctx context.Context) (int64, error) {
	if t.life.down.Load() {
		return 0, errors.New("the queue is away")
	}
	return t.life.redis.Do(ctx, t.life.redis.B().Zcard().Key(redisqueue.ClaimedKey(t.name)).Build()).AsInt64()
}

type mortalConn listTrigger

func (c mortalConn) Eval(ctx context.Context, script redisqueue.Script, keys, args []string) (answer any, err error) {
	if c.life.down.Load() {
		return nil, errors.New("the queue is away")
	}
	err = c.life.request(func() error {
		var err error
		answer, err = c.life.conn.Eval(context.WithoutCancel(ctx), script, keys, args)
		return err
	})
	return answer, err
}

type plantMetrics struct {
	noMetrics
	plant *plant
}

func (m plantMetrics) Settled(_ types.NamespacedName, outcome string, items int) {
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	m.plant.settled[outcome] += items
}

func (l *controllerLife) List(context.Context, types.NamespacedName) (list []Job, err error) {
	l.plant.mu.Lock()
	defer l.plant.mu.Unlock()
	for _, job := range l.jobs {
		pod := &corev1.Pod{Status: corev1.PodStatus{Phase: l.pods[job.UID]}}
		list = append(list, Job{Job: job, Pods: []*corev1.Pod{pod}})
	}
	return list, nil
}

func (l *controllerLife) Create(_ context.Context, job *batchv1.Job, file *ItemFile) (stored *batchv1.Job, err error) {
	return stored, l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		if l.fenced.Load() {
			return errFenced
		}
		if l.err != nil {
			return l.err
		}
		if l.hopeless != "" && variable(job, "OFFBOARD_ITEM") == l.hopeless {
			return ItemError{errors.New("no room")}
		}
		if stored = l.jobs[job.Name]; stored != nil {
			return nil
		}
		stored = job.DeepCopy()
		l.uids++
		stored.UID = types.UID(strconv.Itoa(l.uids))
		stored.CreationTimestamp = metav1.Now()
		l.jobs[job.Name] = stored
		l.pods[stored.UID] = corev1.PodPending
		l.made[job.Name]++
		if file != nil {
			l.files[job.Name] = file.Content
		}
		l.most = max(l.most, len(l.unfinished()))
		return nil
	})
}

// deleteLocked does as an API server does.
func (p *plant) deleteLocked(name string) {
	job := p.jobs[name]
	if len(job.Finalizers) == 0 {
		delete(p.jobs, name)
		return
	}
	if job.DeletionTimestamp == nil {
		job = job.DeepCopy()
		job.DeletionTimestamp = ptr.To(metav1.Now())
		p.jobs[name] = job
	}
}

func (l *controllerLife) Delete(_ context.Context, _, name string, uid types.UID, _ metav1.DeletionPropagation) error {
	err := l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		if l.fenced.Load() {
			return errFenced
		}
		if job := l.jobs[name]; job != nil && job.UID == uid {
			l.deleteLocked(name)
		}
		return nil
	})
	l.tell()
	return err
}

func (l *controllerLife) EndPods(_ context.Context, job Job) error {
	err := l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		l.pods[job.UID] = corev1.PodFailed
		return nil
	})
	l.tell()
	return err
}

func (l *controllerLife) Settled(_ context.Context, job Job) error {
	return l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		if l.fenced.Load() {
			return errFenced
		}
		now := l.jobs[job.Name]
		if now == nil || now.UID != job.UID {
			return nil
		}
		delete(l.files, job.Name)
		if now.DeletionTimestamp != nil {
			delete(l.jobs, job.Name)
			return nil
		}
		now = now.DeepCopy()
		now.Finalizers = nil
		l.jobs[job.Name] = now
		return nil
	})
}

func (l *controllerLife) Failure(_ context.Context, job Job) (queue.Failure, error) {
	l.plant.mu.Lock()
	defer l.plant.mu.Unlock()
	if l.unknown[job.Name] > 0 {
		l.unknown[job.Name]--
		return queue.Failure{}, errors.New("the Pods cannot be listed")
	}
	failure := l.ends[job.Name]
	if failure.Reason == "" {
		failure.Reason = "JobDeleted"
	}
	failure.Job, failure.At = job.Name, time.Now()
	return failure, nil
}

func (l *controllerLife) ScaledJob(_ context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	l.plant.mu.Lock()
	defer l.plant.mu.Unlock()
	if l.scaledJob == nil || key != theKey {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "scaledjobs"}, key.Name)
	}
	return l.scaledJob.DeepCopy(), nil
}

func (l *controllerLife) UpdateStatus(_ context.Context, sj *v1alpha1.ScaledJob) error {
	return l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		if l.scaledJob != nil {
			l.scaledJob.Status = *sj.Status.DeepCopy()
		}
		return nil
	})
}

func (l *controllerLife) SetFinalizer(_ context.Context, _ *v1alpha1.ScaledJob, present bool) error {
	return l.request(func() error {
		l.plant.mu.Lock()
		defer l.plant.mu.Unlock()
		switch {
		case l.scaledJob == nil:
		case present:
			l.scaledJob.Finalizers = []string{v1alpha1.FinalizerSettle}
		default:
			l.scaledJob.Finalizers = nil
			if l.scaledJob.DeletionTimestamp != nil {
				l.scaledJob = nil
			}
		}
		return nil
	})
}

func (l *controllerLife) Event(_ *v1alpha1.ScaledJob, _, reason, message string) {
	l.plant.mu.Lock()
	defer l.plant.mu.Unlock()
	l.events = append(l.events, reason+": "+message)
}

func (l *controllerLife) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	return nil, notFound("secrets", key.Name)
}

func (l *controllerLife) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return nil, notFound("configmaps", key.Name)
}

func (l *controllerLife) TriggerAuthentication(
	_ context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	return nil, notFound("triggerauthentications", key.Name)
}

func (l *controllerLife) ClusterTriggerAuthentication(
	_ context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return nil, notFound("clustertriggerauthentications", name)
}

func (l *controllerLife) ServiceAccountToken(
	_ context.Context, key types.NamespacedName, _ time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	return nil, notFound("serviceaccounts", key.Name)
}

func variable(job *batchv1.Job, name string) string {
	for _, v := range job.Spec.Template.Spec.Containers[0].Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

func TestClaimOneJobPerItem(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.push("a", "b", "c", "d", "e", "f", "g")
	p.start()
	p.eventually("5 Jobs for 7 items", func() bool { return len(p.jobs) == 5 })
	p.mu.Lock()
	var got []string
	names := p.unfinished()
	for _, name := range names {
		job := p.jobs[name]
		got = append(got, variable(job, "OFFBOARD_ITEM"))
		id := job.Annotations[v1alpha1.AnnotationItemID]
		if name != "usertask-"+id+"-1" || variable(job, "OFFBOARD_ITEM_ID") != id || variable(job, "OFFBOARD_ATTEMPT") != "1" ||
			job.Annotations[v1alpha1.AnnotationItem] != variable(job, "OFFBOARD_ITEM") ||
			job.Spec.Template.Annotations[v1alpha1.AnnotationItemID] != id || !unsettled(job) {
			t.Errorf("the Job is %+v", job)
		}
	}
	finalizers := p.scaledJob.Finalizers
	p.mu.Unlock()
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("the items are %q, want %q: first in, first out", got, want)
	}
	if !slices.Equal(finalizers, []string{v1alpha1.FinalizerSettle}) {
		t.Errorf("the ScaledJob has the finalizers %q", finalizers)
	}
	p.run(names...)
	p.end(names[1], batchv1.JobComplete, queue.Failure{})
	p.eventually("a Job for the next item", func() bool { return len(p.made) == 6 && !unsettled(p.jobs[names[1]]) })
	if stats := p.stats(); stats.Ready != 1 || stats.Claimed != 5 || stats.Done != 1 {
		t.Errorf("got %+v", stats)
	}
}

// TestAttempts has an item that always fails, one whose command says never again, and one that says later.
func TestAttempts(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.start()
	p.push("fails")
	code := func(n int) queue.Failure { return queue.Failure{Reason: "BackoffLimitExceeded", ExitCode: &n} }
	fail := func(n, exit int) (job string) {
		t.Helper()
		p.eventually("attempt "+strconv.Itoa(n), func() bool { return len(p.unfinished()) == 1 && len(p.made) >= n })
		p.mu.Lock()
		name := p.unfinished()[0]
		p.mu.Unlock()
		p.end(name, batchv1.JobFailed, code(exit))
		return name
	}
	for attempt := range 3 {
		fail(attempt+1, 1)
	}
	p.eventually("dead", func() bool { return p.settled["dead"] == 1 })
	dead, err := p.queue().List(t.Context(), queue.Dead, 0, 10)
	if err != nil || len(dead) != 1 || dead[0].Attempt != 3 || dead[0].Total != 3 || *dead[0].LastFailure.ExitCode != 1 ||
		dead[0].FirstFailure.Job == dead[0].LastFailure.Job || dead[0].LastFailure.Reason != "BackoffLimitExceeded" {
		t.Errorf("got %+v, %v", dead, err)
	}
	p.mu.Lock()
	if !slices.ContainsFunc(p.events, func(e string) bool { return strings.HasPrefix(e, "ItemsBuried: Item ") }) {
		t.Errorf("the events are %q", p.events)
	}
	p.mu.Unlock()

	p.push("never again")
	fail(4, 65)
	p.eventually("dead", func() bool { return p.settled["dead"] == 2 })
	p.push("later")
	var first string
	for attempt := range 5 { // more than may fail
		name := fail(5+attempt, 75)
		first = cmp.Or(first, strings.TrimSuffix(name, "-1"))
		if want := fmt.Sprintf("%s-%d", first, attempt+1); name != want {
			t.Errorf("attempt %d of an item that was put off has the Job %s, want %s", attempt+1, name, want)
		}
	}
	fail(10, 1)
	fail(11, 1)
	fail(12, 1)
	p.eventually("dead", func() bool { return p.settled["dead"] == 3 })
	if _, err := p.queue().RetryDead(t.Context(), dead[0].ID); err != nil {
		t.Fatal(err)
	}
	p.tell()
	p.eventually("a Job for the item that was dead", func() bool { return len(p.unfinished()) == 1 })
	p.mu.Lock()
	name := p.unfinished()[0]
	p.mu.Unlock()
	if want := "usertask-" + dead[0].ID + "-4"; name != want {
		t.Errorf("the Job is %s, want %s", name, want)
	}
}

// TestUnknownFailure has an exit code that cannot be found out at first: nothing is said of the item until it is known that
// it is never to be tried again. Another one does not wait for that.
func TestUnknownFailure(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.start()
	p.push("bad")
	p.eventually("a Job", func() bool { return len(p.unfinished()) == 1 })
	p.mu.Lock()
	bad := p.unfinished()[0]
	p.unknown[bad] = 1000
	p.mu.Unlock()
	p.push("good")
	p.eventually("another Job", func() bool { return len(p.unfinished()) == 2 })
	p.mu.Lock()
	names := slices.DeleteFunc(p.unfinished(), func(name string) bool { return name == bad })
	p.mu.Unlock()
	code := 65
	p.end(bad, batchv1.JobFailed, queue.Failure{Reason: "BackoffLimitExceeded", ExitCode: &code})
	p.eventually("a question", func() bool { return p.unknown[bad] < 1000 })
	p.end(names[0], batchv1.JobComplete, queue.Failure{})
	p.eventually("the end of the other item", func() bool { return p.settled["done"] == 1 })
	if stats := p.stats(); stats.Claimed != 1 || stats.Done != 1 {
		t.Errorf("got %+v", stats)
	}
	p.mu.Lock()
	p.unknown[bad] = 0
	p.mu.Unlock()
	p.tell()
	p.eventually("dead", func() bool { return p.settled["dead"] == 1 })
	if stats := p.stats(); stats.Dead != 1 || stats.Claimed+stats.Retry+stats.Ready != 0 {
		t.Errorf("got %+v", stats)
	}
}

// TestNoDeadLetters drops an item after its last attempt, and tells.
func TestNoDeadLetters(t *testing.T) {
	t.Parallel()
	p := newPlant(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.Delivery.Attempts, sj.Spec.Delivery.DeadLetter = nil, ptr.To(false)
	})
	p.start()
	p.push("fails")
	p.eventually("a Job", func() bool { return len(p.unfinished()) == 1 })
	p.mu.Lock()
	name := p.unfinished()[0]
	p.mu.Unlock()
	p.end(name, batchv1.JobFailed, queue.Failure{Reason: "DeadlineExceeded"})
	p.eventually("dropped", func() bool {
		return p.settled["dropped"] == 1 && slices.ContainsFunc(p.events, func(e string) bool {
			return strings.HasPrefix(e, "ItemsDropped: Item ") && strings.HasSuffix(e, "after attempt 1: DeadlineExceeded")
		})
	})
	if stats := p.stats(); stats.Dropped != 1 || stats.Dead+stats.Ready+stats.Claimed+stats.Retry != 0 {
		t.Errorf("got %+v", stats)
	}
}

// TestDeletedJob counts as a failed attempt, when its Pods have ended.
func TestDeletedJob(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.start()
	p.push("a")
	p.eventually("a Job", func() bool { return len(p.jobs) == 1 })
	p.mu.Lock()
	name := p.unfinished()[0]
	p.pods[p.jobs[name].UID] = corev1.PodRunning
	p.deleteLocked(name)
	p.mu.Unlock()
	p.tell()
	p.eventually("a second attempt", func() bool { return len(p.made) == 2 && p.jobs[name] == nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.settled["retry"] != 1 {
		t.Errorf("got %v", p.settled)
	}
}

func TestPausedGivesBackWhatHasNoJob(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.err = apierrors.NewForbidden(schema.GroupResource{Resource: "jobs"}, "x", errors.New("quota"))
	life := p.start()
	p.push("a", "b")
	p.eventually("said what is wrong", func() bool {
		return p.scaledJob.Status.Conditions.Get(v1alpha1.ConditionReady).Reason == reasonJobCreateFailed
	})
	if stats := p.stats(); stats.Claimed == 0 {
		t.Error("nothing is claimed")
	}
	p.mu.Lock()
	p.scaledJob.Annotations = map[string]string{v1alpha1.AnnotationPaused: "true"}
	p.mu.Unlock()
	life.controller.Changed(theKey)
	p.eventually("given back", func() bool { s := p.stats(); return s.Claimed == 0 && s.Ready == 2 })
	p.mu.Lock()
	p.err, p.scaledJob.Annotations = nil, nil
	p.mu.Unlock()
	life.controller.Changed(theKey)
	p.eventually("Jobs", func() bool { return len(p.jobs) == 2 })
}

// TestAnotherQueue changes the list of a ScaledJob while its Jobs run: they are settled where their items are from.
func TestAnotherQueue(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	life := p.start()
	p.push("a", "b")
	p.eventually("2 Jobs", func() bool { return len(p.jobs) == 2 })
	p.mu.Lock()
	old := p.unfinished()
	p.scaledJob.Generation++
	p.scaledJob.Spec.Triggers[0].Metadata = map[string]string{"name": "other"}
	p.mu.Unlock()
	p.server.Do("RPUSH", "other", "c")
	life.controller.Changed(theKey)
	p.eventually("a Job for the item of the other queue", func() bool { return len(p.jobs) == 3 })
	p.end(old[0], batchv1.JobComplete, queue.Failure{})
	p.end(old[1], batchv1.JobFailed, queue.Failure{Reason: "BackoffLimitExceeded"})
	p.eventually("both settled", func() bool { return !unsettled(p.jobs[old[0]]) && !unsettled(p.jobs[old[1]]) })
	if stats := p.stats(); stats.Done != 1 || stats.Claimed != 0 || stats.Retry+stats.Ready != 1 {
		t.Errorf("got %+v", stats)
	}
}

// TestHopelessItem is dead at once, and holds nobody up.
func TestHopelessItem(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.hopeless = "too large"
	p.start()
	p.push("a", "too large", "b")
	p.eventually("settled", func() bool { return p.settled["dead"] == 1 && len(p.jobs) == 2 })
	dead, err := p.queue().List(t.Context(), queue.Dead, 0, 10)
	if err != nil || len(dead) != 1 || dead[0].LastFailure.Reason != "ItemRefused" || dead[0].LastFailure.Message != "no room" {
		t.Errorf("got %+v, %v", dead, err)
	}
}

// TestSeveralTriggersClaimNothing has one more trigger than items can be claimed from, as a cluster without the webhook
// takes it.
func TestSeveralTriggersClaimNothing(t *testing.T) {
	t.Parallel()
	p := newPlant(t, func(sj *v1alpha1.ScaledJob) {
		sj.Spec.Triggers = append(sj.Spec.Triggers, v1alpha1.ScaleTriggers{
			Type: "list", Metadata: map[string]string{"name": "other"},
		})
	})
	p.push("a")
	p.start()
	p.eventually("told", func() bool {
		ready := p.scaledJob.Status.Conditions.Get(v1alpha1.ConditionReady)
		return ready.Status == metav1.ConditionFalse && strings.Contains(ready.Message, "here are 2 triggers, want one")
	})
	p.eventually("no Job", func() bool { return len(p.made) == 0 })
}

// TestDeletedScaledJob gives what has not finished back to the head of the queue, in order, and settles the rest.
func TestDeletedScaledJob(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.start()
	p.push("a", "b", "c", "d", "e", "f")
	p.eventually("5 Jobs", func() bool { return len(p.jobs) == 5 })
	p.mu.Lock()
	names := p.unfinished()
	for _, name := range names[:3] {
		p.pods[p.jobs[name].UID] = corev1.PodRunning
	}
	p.endLocked(names[2], batchv1.JobComplete, queue.Failure{})
	p.scaledJob.DeletionTimestamp = ptr.To(metav1.Now())
	p.mu.Unlock()
	p.tell()
	p.eventually("gone", func() bool { return p.scaledJob == nil })
	ready, err := p.queue().List(t.Context(), queue.Ready, 0, 10)
	var got []string
	for _, item := range ready {
		got = append(got, string(item.Parts[0]))
	}
	if want := []string{"a", "b", "d", "e", "f"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("the queue holds %q, %v, want %q", got, err, want)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, job := range p.jobs {
		if unsettled(job) {
			t.Errorf("Job %s is kept", job.Name)
		}
	}
}

// TestDeletedScaledJobWithoutQueue waits no longer than it must, and the next ScaledJob takes the claims over.
func TestDeletedScaledJobWithoutQueue(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	life := p.start()
	p.push("a", "b")
	p.eventually("2 Jobs", func() bool { return len(p.jobs) == 2 })
	p.down.Store(true)
	p.mu.Lock()
	again := p.scaledJob.DeepCopy()
	p.scaledJob.DeletionTimestamp = ptr.To(metav1.NewTime(time.Now().Add(time.Second - releaseWithin)))
	p.mu.Unlock()
	p.tell()
	p.eventually("gone", func() bool { return p.scaledJob == nil })
	p.mu.Lock()
	clear(p.jobs) // by owner reference
	again.UID, again.Finalizers = "another", nil
	p.scaledJob = again
	p.mu.Unlock()
	p.down.Store(false)
	life.controller.Changed(theKey)
	p.eventually("Jobs for the claims", func() bool { return len(p.jobs) == 2 })
	if stats := p.stats(); stats.Claimed != 2 || stats.Ready != 0 {
		t.Errorf("got %+v", stats)
	}
}

// TestClaimChaos kills controllers at random requests, loses answers, deletes Jobs, and has a former leader go on. In
// the end each item has succeeded once or is dead after all its attempts; no attempt had two Jobs; and never were there
// more Jobs than the limit.
func TestClaimChaos(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("CLAIM_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CLAIM_CHAOS_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	p := newPlant(t, nil)
	const items = 400
	succeeded, failures := map[string]int{}, map[string]int{}
	pushed, deaths, kills, oldLeaders := 0, 0, 0, 0

	var leader, former *controllerLife
	begin := func() {
		if leader != nil {
			leader.fenced.Store(true)
			if former != nil {
				former.stop()
			}
			if former = leader; rng.IntN(2) == 0 {
				former.stop()
				former = nil
			} else {
				oldLeaders++ // it goes on for a while
				former.left.Store(-1)
			}
		}
		life := &controllerLife{plant: p, lossy: rand.New(rand.NewPCG(seed, uint64(deaths)))}
		life.left.Store(int64(1 + rng.IntN(40)))
		if rng.IntN(4) == 0 {
			life.left.Store(-1)
		}
		deaths++
		leader = life
		life.begin()
	}
	begin()
	work := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, name := range p.unfinished() {
			job := p.jobs[name]
			item := variable(job, "OFFBOARD_ITEM")
			switch n := rng.IntN(20); {
			case job.DeletionTimestamp != nil || n < 8:
			case p.pods[job.UID] == corev1.PodPending:
				p.pods[job.UID] = corev1.PodRunning
			case n < 16:
				succeeded[item]++
				p.endLocked(name, batchv1.JobComplete, queue.Failure{})
			case n < 19:
				failures[item]++
				p.endLocked(name, batchv1.JobFailed, queue.Failure{Reason: "BackoffLimitExceeded"})
			default:
				kills++
				failures[item]++
				p.deleteLocked(name)
			}
		}
	}
	for last, deadline := int64(-1), (time.Time{}); ; {
		if pushed < items {
			n := rng.IntN(8)
			for range n {
				p.push(fmt.Sprintf("item %d", pushed))
				pushed++
			}
		}
		work()
		p.tell()
		if leader.left.Load() == 0 || rng.IntN(60) == 0 {
			begin()
		}
		stats := p.stats()
		over := stats.Done + stats.Dead
		if pushed >= items && over == int64(pushed) && stats.Claimed == 0 {
			break
		}
		if over != last { // it gets on, however slow the machine is
			last, deadline = over, time.Now().Add(time.Minute)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not get on: %+v", stats)
		}
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // lets it get somewhere; nothing depends on it
	}
	leader.stop()
	if former != nil {
		former.stop()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats()
	t.Logf("%d items: %d done, %d dead; %d Jobs, at most %d at once; %d lives of controllers, %d former leaders, %d Jobs deleted",
		pushed, stats.Done, stats.Dead, len(p.made), p.most, deaths, oldLeaders, kills)
	if p.most > 5 {
		t.Errorf("%d Jobs at once, the limit is 5", p.most)
	}
	for name, n := range p.made {
		if n != 1 {
			t.Errorf("Job %s was made %d times", name, n)
		}
	}
	for i := range pushed {
		item := fmt.Sprintf("item %d", i)
		if s, f := succeeded[item], failures[item]; s > 1 || s == 1 && f > 2 || s == 0 && f != 3 {
			t.Errorf("%s has succeeded %d times and failed %d times", item, s, f)
		}
	}
	if deaths < 10 || kills == 0 || oldLeaders == 0 || stats.Dead == 0 {
		t.Error("there was too little chaos")
	}
}
