package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// farm is many ScaledJobs with queues of numbers, and their Jobs, in memory: requests take a while, fail, and lose their
// answers. It holds the limits against what there is at each moment.
type farm struct {
	t          *testing.T
	limits     limits.Limits
	config     Config
	controller *Controller
	stop       func()

	mu         sync.Mutex
	random     *rand.Rand
	scaledJobs map[types.NamespacedName]*v1alpha1.ScaledJob
	waiting    map[types.NamespacedName]int
	jobs       map[types.NamespacedName]map[string]*batchv1.Job
	lost       map[types.NamespacedName]time.Time // until then it is not known which Jobs there are
	measured   map[types.NamespacedName]int
	created    map[types.NamespacedName]int
	writes     map[types.NamespacedName]int
	reasons    map[types.NamespacedName]map[string]bool // those that Limited has had
	events     []string
	number     int
	most       int
	// unreliable makes requests fail.
	unreliable bool
	refuses    types.NamespacedName // the ScaledJob for which there can be no Jobs
	// silent are the ScaledJobs whose queue does not answer.
	silent map[types.NamespacedName]bool
}

func newFarm(t *testing.T, l limits.Limits) *farm {
	t.Helper()
	f := &farm{
		t: t, limits: l, random: rand.New(rand.NewPCG(1, 2)), scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{},
		waiting: map[types.NamespacedName]int{}, jobs: map[types.NamespacedName]map[string]*batchv1.Job{},
		lost: map[types.NamespacedName]time.Time{}, measured: map[types.NamespacedName]int{},
		created: map[types.NamespacedName]int{}, writes: map[types.NamespacedName]int{},
		silent: map[types.NamespacedName]bool{}, reasons: map[types.NamespacedName]map[string]bool{},
	}
	f.config = Config{Version: "test", Log: slog.New(slog.DiscardHandler), Limits: l, TriggerTypes: []trigger.Type{{
		Name: "farm",
		Build: func(_ context.Context, config trigger.Config, _ trigger.Values) (trigger.Trigger, error) {
			namespace, name, _ := strings.Cut(config.Metadata["of"], "/")
			return farmTrigger{f, types.NamespacedName{Namespace: namespace, Name: name}}, nil
		},
	}}}
	return f
}

// add adds a ScaledJob with that much work.
func (f *farm) add(namespace, name, priority string, work int) types.NamespacedName {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	sj := &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(key.String()), Generation: 1},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
			}},
			MaxReplicaCount: ptr.To[int32](1000),
			ScalingStrategy: v1alpha1.ScalingStrategy{Strategy: v1alpha1.StrategyAccurate},
			Triggers:        []v1alpha1.ScaleTriggers{{Type: "farm", Metadata: map[string]string{"of": key.String()}}},
		},
	}
	if priority != "" {
		sj.Annotations = map[string]string{v1alpha1.AnnotationPriority: priority}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scaledJobs[key], f.waiting[key] = sj, work
	if f.jobs[key] == nil {
		f.jobs[key] = map[string]*batchv1.Job{}
	}
	return key
}

// start starts a controller that adopts all ScaledJobs.
func (f *farm) start() {
	config := f.config
	config.Jobs, config.Objects, config.Events = f, f, f
	f.controller = New(config)
	ctx, cancel := context.WithCancel(context.Background())
	f.mu.Lock()
	keys := slices.Collect(maps.Keys(f.scaledJobs))
	f.mu.Unlock()
	f.controller.Adopt(ctx, keys)
	var running sync.WaitGroup
	running.Go(func() { f.controller.Run(ctx) })
	f.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	f.t.Cleanup(f.stop)
}

// eventually waits until the condition holds, which it checks with the farm locked.
func (f *farm) eventually(what string, condition func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		ok, alive, _ := condition(), f.aliveLocked(""), 0
		state := fmt.Sprintf("%d Jobs are alive, %v wait, %v were created, events %q", alive, f.waiting, f.created, f.events)
		f.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("not %s: %s", what, state)
		}
	}
}

// aliveLocked counts the Jobs that have not ended, in one namespace or in all.
func (f *farm) aliveLocked(namespace string) (n int) {
	for key := range f.jobs {
		if namespace == "" || key.Namespace == namespace {
			n += f.aliveOf(key)
		}
	}
	return n
}

func (f *farm) aliveOf(key types.NamespacedName) (n int) {
	for _, job := range f.jobs[key] {
		if how, _ := Finished(job); how == "" {
			n++
		}
	}
	return n
}

// end ends one Job of the ScaledJob, if it has one.
func (f *farm) end(key types.NamespacedName) bool {
	f.mu.Lock()
	found := false
	for name, job := range f.jobs[key] {
		if how, _ := Finished(job); how == "" {
			f.jobs[key][name] = ended(job, batchv1.JobComplete, time.Now())
			found = true
			break
		}
	}
	f.mu.Unlock()
	f.controller.Changed(key)
	return found
}

// push adds work.
func (f *farm) push(key types.NamespacedName, n int) {
	f.mu.Lock()
	f.waiting[key] += n
	f.mu.Unlock()
	f.controller.Changed(key)
}

type farmTrigger struct {
	farm *farm
	key  types.NamespacedName
}

func (t farmTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	t.farm.mu.Lock()
	defer t.farm.mu.Unlock()
	t.farm.measured[t.key]++
	if t.farm.silent[t.key] {
		t.farm.mu.Unlock()
		<-ctx.Done()
		t.farm.mu.Lock()
		return trigger.Measurement{}, ctx.Err()
	}
	if t.farm.unreliable && t.farm.random.IntN(10) == 0 {
		return trigger.Measurement{}, errors.New("no answer")
	}
	n := float64(t.farm.waiting[t.key])
	return trigger.Measurement{Value: n, Target: 1, Active: n > 0}, nil
}

func (t farmTrigger) Close() {}

func (f *farm) List(_ context.Context, key types.NamespacedName) (list []Job, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.lost[key]) {
		return nil, errors.New("it is not known yet whether a Job was created")
	}
	running := []*corev1.Pod{{Status: corev1.PodStatus{Phase: corev1.PodRunning}}}
	for _, job := range f.jobs[key] {
		list = append(list, Job{Job: job, Pods: running})
	}
	return list, nil
}

// Create makes a Job, which takes its work at once.
func (f *farm) Create(_ context.Context, job *batchv1.Job, _ *ItemFile) (*batchv1.Job, error) {
	key := types.NamespacedName{Namespace: job.Namespace, Name: job.Labels[v1alpha1.LabelScaledJob]}
	f.mu.Lock()
	pause, fate := time.Duration(f.random.IntN(3000))*time.Microsecond, f.random.IntN(20)
	f.mu.Unlock()
	time.Sleep(pause) // the server takes its time
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case key == f.refuses, f.unreliable && fate == 0:
		return nil, errors.New("refused")
	case f.unreliable && fate == 1: // the answer is lost, and there may be a Job
		f.lost[key] = time.Now().Add(20 * time.Millisecond)
		if f.random.IntN(2) == 0 {
			return nil, errors.New("the answer was lost")
		}
	}
	f.number++
	job = job.DeepCopy()
	job.Name = fmt.Sprintf("%s%d", job.GenerateName, f.number)
	job.UID = types.UID(job.Name)
	f.jobs[key][job.Name] = job
	f.created[key]++
	f.waiting[key] = max(0, f.waiting[key]-1)
	alive, here := f.aliveLocked(""), f.aliveLocked(key.Namespace)
	f.most = max(f.most, alive)
	if limit := f.limits.Jobs; limit > 0 && alive > limit {
		f.t.Errorf("%d Jobs are alive, the limit is %d", alive, limit)
	}
	if limit := f.limits.JobsPerNamespace; limit > 0 && here > limit {
		f.t.Errorf("%d Jobs are alive in %s, the limit is %d", here, key.Namespace, limit)
	}
	if time.Now().Before(f.lost[key]) {
		return nil, errors.New("the answer was lost")
	}
	return job, nil
}

func (f *farm) Delete(_ context.Context, namespace, name string, _ types.UID, _ metav1.DeletionPropagation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, jobs := range f.jobs {
		if job := jobs[name]; job != nil && key.Namespace == namespace {
			delete(jobs, name)
			f.controller.Changed(key)
		}
	}
	return nil
}

func (f *farm) EndPods(context.Context, Job) error                  { return errors.ErrUnsupported }
func (f *farm) Settled(context.Context, Job) error                  { return errors.ErrUnsupported }
func (f *farm) Failure(context.Context, Job) (queue.Failure, error) { return queue.Failure{}, nil }
func (f *farm) SetFinalizer(context.Context, *v1alpha1.ScaledJob, bool) error {
	return errors.ErrUnsupported
}
func (f *farm) Secret(context.Context, types.NamespacedName) (*corev1.Secret, error) {
	return nil, errors.ErrUnsupported
}

func (f *farm) ConfigMap(context.Context, types.NamespacedName) (*corev1.ConfigMap, error) {
	return nil, errors.ErrUnsupported
}

func (f *farm) TriggerAuthentication(
	context.Context, types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	return nil, errors.ErrUnsupported
}

func (f *farm) ClusterTriggerAuthentication(
	context.Context, string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	return nil, errors.ErrUnsupported
}

func (f *farm) ServiceAccountToken(
	context.Context, types.NamespacedName, time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	return nil, errors.ErrUnsupported
}

func (f *farm) ScaledJob(_ context.Context, key types.NamespacedName) (*v1alpha1.ScaledJob, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sj := f.scaledJobs[key]; sj != nil {
		return sj.DeepCopy(), nil
	}
	return nil, notFound("scaledjobs", key.Name)
}

func (f *farm) UpdateStatus(_ context.Context, sj *v1alpha1.ScaledJob) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes[sj.Key()]++
	if stored := f.scaledJobs[sj.Key()]; stored != nil {
		stored.Status = *sj.Status.DeepCopy()
		if f.reasons[sj.Key()] == nil {
			f.reasons[sj.Key()] = map[string]bool{}
		}
		f.reasons[sj.Key()][f.limited(sj.Key()).Reason] = true
	}
	return nil
}

func (f *farm) Event(sj *v1alpha1.ScaledJob, eventType, reason, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, sj.Name+": "+eventType+" "+reason+": "+message)
}

func (f *farm) told(what string) (n int) {
	for _, event := range f.events {
		if strings.Contains(event, what) {
			n++
		}
	}
	return n
}

func (f *farm) limited(key types.NamespacedName) v1alpha1.Condition {
	return f.scaledJobs[key].Status.Conditions.Get(v1alpha1.ConditionLimited)
}

// TestLimitAndShares has three ScaledJobs of weights 1, 2 and 5 with more work than they may have Jobs.
func TestLimitAndShares(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{Jobs: 16})
	weights := map[types.NamespacedName]int{
		f.add("ns", "one", "", 1000): 1, f.add("ns", "two", "2", 1000): 2, f.add("ns", "five", "5", 1000): 5,
	}
	f.start()
	f.eventually("at the limit", func() bool { return f.aliveLocked("") == 16 })
	total := 16
	for range 20 {
		for key := range weights {
			if f.end(key) {
				total++
			}
			f.eventually("at the limit again", func() bool { return f.aliveLocked("") == 16 && f.number == total })
		}
	}
	f.eventually("shared by weight", func() bool {
		for key, weight := range weights {
			if math.Abs(float64(f.aliveOf(key)-2*weight)) > 1 {
				return false
			}
		}
		return true
	})
	f.eventually("told", func() bool {
		for key := range weights {
			if c := f.limited(key); c.Status != metav1.ConditionTrue || c.Reason != "MaxJobs" {
				return false
			}
		}
		return f.told("JobsLimited") >= len(weights) // after the status has been written
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.told("JobsLimited"); n != 3 {
		t.Errorf("it was told %d times, want once a ScaledJob: %q", n, f.events)
	}
	const want = "Jobs wait: the operator's limit of 16 Jobs alive (--max-jobs) is reached; what becomes free is shared " +
		"out by weight, which is 5 here (annotation offboard.dev/priority)"
	for key, weight := range weights {
		if message := f.limited(key).Message; weight == 5 && message != want {
			t.Errorf("Limited says %q", message)
		}
		// At the most Ready, Active, and Limited came to be one after the other: nothing for each of the Jobs.
		if f.writes[key] > 6 {
			t.Errorf("the status of %s was written %d times", key.Name, f.writes[key])
		}
	}
}

// TestLimitsInChaos has 16 workers and 40 ScaledJobs, requests that fail and lose their answers, and controllers that
// end and begin: the limits hold at each moment, and all work is done in the end.
func TestLimitsInChaos(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{Jobs: 20, JobsPerNamespace: 9, JobsPerSecond: 2000})
	var keys []types.NamespacedName
	work := 0
	for i := range 40 {
		keys = append(keys, f.add(fmt.Sprint("ns", i%4), fmt.Sprint("sj", i), fmt.Sprint(1+i%7), 20))
		work += 20
	}
	f.unreliable = true
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 4 {
		f.start()
		if round == 0 { // later Jobs may end as fast as they are created
			f.eventually("at the limit", func() bool { return f.most == 20 })
		}
		for range 400 {
			f.end(keys[random.IntN(len(keys))])
			if random.IntN(10) == 0 {
				f.push(keys[random.IntN(len(keys))], 1)
			}
			time.Sleep(time.Duration(random.IntN(500)) * time.Microsecond)
		}
		if round == 3 {
			break
		}
		f.stop()
	}
	f.mu.Lock()
	f.unreliable = false
	f.mu.Unlock()
	for last, deadline := 0, (time.Time{}); ; {
		left := 0
		for _, key := range keys {
			f.end(key)
			f.mu.Lock()
			left += f.waiting[key] + f.aliveOf(key)
			f.mu.Unlock()
		}
		if left == 0 {
			break
		}
		if left != last { // it gets on
			last, deadline = left, time.Now().Add(time.Minute)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d Jobs are missing or alive", left)
		}
		time.Sleep(time.Millisecond)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most != 20 {
		t.Errorf("there were %d Jobs at the most, want 20", f.most)
	}
}

// TestJobsThereAlready begins beside more Jobs than there may be. None is ended, and none is created until there are
// fewer.
func TestJobsThereAlready(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{})
	old, wants := f.add("ns", "old", "", 6), f.add("ns", "wants", "", 0)
	f.start()
	f.eventually("created without a limit", func() bool { return f.aliveOf(old) == 6 })
	f.stop()
	f.config.Limits = limits.Limits{Jobs: 4}
	f.push(wants, 3)
	f.start()
	f.eventually("told", func() bool { return f.limited(wants).Status == metav1.ConditionTrue })
	for alive := 5; alive >= 4; alive-- {
		f.end(old)
		f.eventually("counted", func() bool { return f.aliveLocked("") == alive && f.limited(wants).Status == metav1.ConditionTrue })
	}
	f.mu.Lock()
	if f.created[wants] != 0 || f.aliveOf(old) != 4 {
		t.Errorf("%d Jobs were created, %d of the old ones are left", f.created[wants], f.aliveOf(old))
	}
	f.mu.Unlock()
	f.limits = f.config.Limits
	f.end(old)
	f.eventually("created", func() bool { return f.created[wants] == 1 })

	// Jobs of a ScaledJob that is deleted count until they have ended.
	f.mu.Lock()
	delete(f.scaledJobs, old)
	f.mu.Unlock()
	f.controller.Changed(old)
	f.eventually("forgotten", func() bool { return f.told("ScaledJobDeleted") == 1 })
	f.mu.Lock()
	if f.aliveOf(old) != 3 || f.created[wants] != 1 {
		t.Errorf("%d Jobs are left of the one that is deleted, %d were created", f.aliveOf(old), f.created[wants])
	}
	f.mu.Unlock()
	f.end(old)
	f.eventually("created after its Job has ended", func() bool { return f.created[wants] == 2 })
}

// TestNoHerd has 300 that wait for one slot: when it is free, one of them is looked at and not all.
func TestNoHerd(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{Jobs: 1})
	var keys []types.NamespacedName
	for i := range 300 {
		key := f.add("ns", fmt.Sprint("sj", i), "", 2)
		f.scaledJobs[key].Spec.PollingInterval = ptr.To[int32](3600) // on a busy machine polls would be counted, too
		keys = append(keys, key)
	}
	f.start()
	f.eventually("all wait", func() bool {
		for _, key := range keys {
			if f.limited(key).Status == "" || f.limited(key).Status == metav1.ConditionUnknown {
				return false
			}
		}
		return f.number == 1
	})
	measured := func() (n int) {
		for _, key := range keys {
			n += f.measured[key]
		}
		return n
	}
	f.mu.Lock()
	before := measured()
	f.mu.Unlock()
	for i := range 20 {
		for _, key := range keys {
			f.mu.Lock()
			alive := f.aliveOf(key)
			f.mu.Unlock()
			if alive > 0 {
				f.end(key)
				break
			}
		}
		f.eventually("the next one", func() bool { return f.number == i+2 && f.aliveLocked("") == 1 })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := measured() - before; n > 20*4 {
		t.Errorf("%d measurements for 20 slots", n)
	}
}

// TestRefusedDoesNotSpin has one that waits, and whose Jobs are refused: it is tried again when that is due, and keeps
// no slot from the other.
func TestRefusedDoesNotSpin(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{Jobs: 2})
	bad, good := f.add("ns", "bad", "1000", 10), f.add("ns", "good", "", 10)
	f.refuses = bad
	f.start()
	f.eventually("the other has all slots", func() bool { return f.aliveOf(good) == 2 })
	for i := range 8 {
		f.end(good)
		f.eventually("the next one", func() bool { return f.created[good] == i+3 })
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.measured[bad] > 30 {
		t.Errorf("it was tried %d times", f.measured[bad])
	}
}

// TestRate creates no faster than the limit, and says so.
func TestRate(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{JobsPerSecond: 20})
	a, b := f.add("a", "a", "", 12), f.add("b", "b", "nonsense", 12)
	began := time.Now()
	f.start()
	f.eventually("all", func() bool { return f.created[a]+f.created[b] == 24 })
	// Two at once, and 22 more at 20 a second.
	if took := time.Since(began); took < time.Second {
		t.Errorf("24 Jobs took %v", took)
	}
	f.mu.Lock()
	if !f.reasons[a]["MaxJobsPerSecond"] || f.told("Warning PriorityInvalid") != 1 {
		t.Errorf("Limited was %v, events %q", f.reasons[a], f.events)
	}
	f.mu.Unlock()
	f.eventually("over", func() bool { return f.limited(a).Reason == reasonNotLimited })

	f.stop()
	f.config.Limits = limits.Limits{}
	f.start()
	f.eventually("no condition without limits", func() bool {
		return !slices.ContainsFunc(f.scaledJobs[a].Status.Conditions, func(c v1alpha1.Condition) bool {
			return c.Type == v1alpha1.ConditionLimited
		})
	})
}

// TestFloorWaits has minReplicaCount ask for Jobs that have to wait: they come as soon as there are slots.
func TestFloorWaits(t *testing.T) {
	t.Parallel()
	f := newFarm(t, limits.Limits{Jobs: 3})
	busy, floor := f.add("ns", "busy", "", 3), f.add("ns", "floor", "", 0)
	f.start()
	f.eventually("full", func() bool { return f.aliveOf(busy) == 3 })
	f.mu.Lock()
	f.scaledJobs[floor].Spec.MinReplicaCount = ptr.To[int32](2)
	f.mu.Unlock()
	f.controller.Changed(floor)
	f.eventually("told", func() bool { return f.limited(floor).Status == metav1.ConditionTrue })
	for i := range 2 {
		f.end(busy)
		f.eventually("one more", func() bool { return f.aliveOf(floor) == i+1 })
	}
}

// TestClaimsWaitUnclaimed has more items than the limit allows Jobs: what waits stays in the queue, and what is claimed
// and has lost its Job comes first.
func TestClaimsWaitUnclaimed(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.limits = limits.Limits{Jobs: 2}
	var items []string
	for i := range 6 {
		items = append(items, fmt.Sprint("item", i))
	}
	p.push(items...)
	life := p.start()
	p.eventually("two Jobs", func() bool { return len(p.unfinished()) == 2 })
	p.eventually("told", func() bool {
		return p.scaledJob.Status.Conditions.Get(v1alpha1.ConditionLimited).Reason == "MaxJobs"
	})
	if stats := p.stats(); stats.Claimed != 2 || stats.Ready != 4 {
		t.Errorf("%+v", stats)
	}

	// A claim whose Job is gone needs a slot as well, and gets the next one.
	life.stop()
	p.mu.Lock()
	names := p.unfinished()
	gone := names[0]
	delete(p.jobs, gone)
	p.jobs["other"] = p.jobs[names[1]].DeepCopy()
	p.jobs["other"].Name, p.jobs["other"].UID, p.jobs["other"].Annotations = "other", "other", nil
	p.pods["other"] = corev1.PodRunning
	p.mu.Unlock()
	p.start()
	p.eventually("looked at", func() bool { return len(p.unfinished()) == 2 && p.settled["done"] == 0 })
	p.end(names[1], batchv1.JobComplete, queue.Failure{})
	p.eventually("made again", func() bool { return p.made[gone] == 2 })
	p.mu.Lock()
	if p.most > 2 {
		t.Errorf("there were %d Jobs", p.most)
	}
	delete(p.jobs, "other")
	p.mu.Unlock()
	for done := 1; done < 6; done++ {
		p.tell()
		var next string
		p.eventually("another Job", func() bool {
			for _, name := range p.unfinished() {
				next = name
			}
			return next != "" && p.settled["done"] == done
		})
		p.end(next, batchv1.JobComplete, queue.Failure{})
	}
	p.eventually("all done", func() bool { return p.settled["done"] == 6 && len(p.unfinished()) == 0 })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most > 2 {
		t.Errorf("there were %d Jobs at once", p.most)
	}
}
