package scaledjob

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/decider"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/podenv"
	"github.com/offboard-dev/offboard/internal/scaling"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Defaults of optional fields of Config.
const (
	defaultWorkers        = 16
	defaultCreateParallel = 32
)

// What fails is tried again after firstRetry, then after ever longer pauses up to lastRetry.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// A change of a Job is looked at after a rest of restPerJob for each Job there is, and mostRest at the most.
const (
	restPerJob = 10 * time.Microsecond
	mostRest   = 100 * time.Millisecond
)

// Config is what a Controller works with.
type Config struct {
	Jobs    Jobs
	Objects Objects
	Events  Events
	// Metrics counts and times; nil means that nobody wants to know.
	Metrics Metrics
	// TriggerTypes are the types that ScaledJobs may use.
	TriggerTypes []trigger.Type
	// Endpoints knows the Pods of Services, for triggers that ask each of them; nil where there are none.
	Endpoints trigger.Endpoints
	// Pods counts Pods for triggers; nil means that there are none to count.
	Pods trigger.Pods
	// Local returns what this process itself offers to triggers and containers; nil means nothing. It is asked each time
	// that triggers are built.
	Local func() Local
	// ClusterNamespace is where the Secrets of ClusterTriggerAuthentications are; empty means the ScaledJob's own.
	ClusterNamespace string
	// AuthFiles is the folder from which ClusterTriggerAuthentications may take files; empty means that none may.
	AuthFiles string
	// Version goes into the Jobs' app.kubernetes.io/version label.
	Version string
	Log     *slog.Logger
	// Workers is how many ScaledJobs are reconciled at the same time, not counting those that wait for the server of a
	// queue; 0 means 16.
	Workers int
	// CreateParallel is how many Jobs are created or deleted at the same time, over all ScaledJobs; 0 means 32.
	CreateParallel int
	// Limits bound the Jobs of all ScaledJobs together.
	Limits limits.Limits
	// CreatedHere tells of a Job whether this process has created it; nil means of all. Where several processes keep the
	// Limits together, only those Jobs count here, and nothing is created before Resize says what this process may.
	CreatedHere func(*batchv1.Job) bool
	// Short is called while Jobs wait because of the Limits; it does not block. nil means that nobody wants to know.
	Short func()
	// Mine tells whether this process looks after the ScaledJob; nil means after all. When it changes its answer from no
	// to yes, Adopt must be called for the ScaledJob, and from yes to no, LetGo.
	Mine func(types.NamespacedName) bool
	// ReleaseAll treats every ScaledJob as one that is deleted, except that it stays: what it has claimed is settled or
	// given back, and all finalizers are taken off. Nothing is created or claimed, and Jobs that were made for no claim
	// are left alone.
	ReleaseAll bool
}

// Local is what a process that also runs the Jobs offers to them.
type Local struct {
	// Redis is the address (host:port) of the Redis that this process serves; empty when it serves none.
	Redis string
	// Env is in every container's environment unless the manifest sets it; …FromEnv parameters see it too.
	Env []podenv.Variable
}

// Controller keeps as many Jobs running as each ScaledJob asks for.
type Controller struct {
	Config
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]
	// working has room for as many reconciles as there are Workers.
	working chan struct{}
	// acting has room for CreateParallel requests.
	acting chan struct{}
	// limiter is nil when there are no limits.
	limiter *limiter
	auth    auth.Resolver

	mu       sync.Mutex
	records  map[types.NamespacedName]*record
	underWay map[types.NamespacedName]underWay
}

// record is what the controller remembers of one ScaledJob between reconciles. Only one worker at a time reconciles a
// ScaledJob, so the record needs no lock but for what others read and set: see view and stale.
type record struct {
	key      types.NamespacedName
	uid      types.UID
	version  string // of the object, when the record began
	live     *liveTriggers
	measures []v1alpha1.ScaleTriggers // what the decider's measurements are of
	advanced *v1alpha1.Advanced       // how they were made one
	decider  *decider.Decider
	items    items
	leaving  leaving
	limited  limited
	age      queueAge
	jobs     atomic.Int64        // how many there were when last looked at
	tracked  int64               // the generation that Metrics knows
	failing  map[string]wordings // what failed when last looked at, and how: it is told once
	polls    bool                // whether it was looked at before
	failed   bool                // whether the triggers did not work when last asked
	// failingSince tells by metric name since when a trigger cannot be measured. It and measuredWith are kept only where
	// the ScaledJob has a fallback or a formula.
	failingSince map[string]time.Time
	measuredWith *int64 // how many Jobs were unfinished when all triggers were last measured; nil while they never were
	// unwritten is what is to be written and told when that is due; nil when there is nothing. written is when that was
	// last done.
	unwritten *draft
	written   time.Time

	mu    sync.Mutex
	stale bool // what the triggers were built from may have changed
	view  View
	// noticed is when a trigger first told of a change since the last measurement; zero when none has.
	noticed time.Time
	// due is when the next reconcile is planned; zero when it is not.
	due time.Time
}

// View is what the controller last saw of a ScaledJob.
type View struct {
	// Queue is the sum of the triggers' values; nil while it is unknown.
	Queue *float64
	// Decision is the last one, and At when it was made; zero when there was none yet.
	Decision scaling.Decision
	At       time.Time
}

// New returns a Controller that does nothing until Run.
func New(config Config) *Controller {
	if config.Workers == 0 {
		config.Workers = defaultWorkers
	}
	if config.CreateParallel == 0 {
		config.CreateParallel = defaultCreateParallel
	}
	if config.Local == nil {
		config.Local = func() Local { return Local{} }
	}
	if config.Mine == nil {
		config.Mine = func(types.NamespacedName) bool { return true }
	}
	if config.Metrics == nil {
		config.Metrics = noMetrics{}
	}
	backoff := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstRetry, lastRetry)
	queue := workqueue.NewTypedRateLimitingQueue(backoff)
	return &Controller{
		Config:  config,
		queue:   queue,
		working: make(chan struct{}, config.Workers),
		acting:  make(chan struct{}, config.CreateParallel),
		limiter: newLimiter(config, queue.Add),
		records: map[types.NamespacedName]*record{}, underWay: map[types.NamespacedName]underWay{},
	}
}

// Changed asks for a reconcile of the ScaledJob: its manifest or its Jobs have changed. It never blocks. Where there
// are many Jobs it comes a little later, so that what happens to all of them at once is looked at together: a reconcile
// looks at every Job, and to do that for each change of each would take time that grows with the square of their
// number. What triggers tell waits for nothing.
func (c *Controller) Changed(key types.NamespacedName) {
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r == nil {
		c.queue.Add(key)
		return
	}
	c.queue.AddAfter(key, min(time.Duration(r.jobs.Load())*restPerJob, mostRest))
}

// Refresh asks for a reconcile that builds the ScaledJob's triggers anew: a Secret, a ConfigMap or a
// TriggerAuthentication that they may depend on has changed.
func (c *Controller) Refresh(key types.NamespacedName) {
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r != nil {
		r.doubt()
	}
	c.queue.Add(key)
}

// View returns what the controller last saw of the ScaledJob.
func (c *Controller) View(key types.NamespacedName) View {
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r == nil {
		return View{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// Run reconciles until ctx ends, then waits for the reconciles under way and closes all triggers.
func (c *Controller) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	var reconciles sync.WaitGroup
	if c.limiter != nil {
		reconciles.Go(func() { c.limiter.run(ctx) })
	}
	for {
		key, shutdown := c.queue.Get()
		if shutdown {
			break
		}
		c.working <- struct{}{}
		reconciles.Go(func() {
			defer func() { <-c.working }()
			c.work(ctx, key)
		})
	}
	reconciles.Wait()
	c.drop(func(types.NamespacedName) bool { return true })
}

// work reconciles a ScaledJob that has come out of the queue.
func (c *Controller) work(ctx context.Context, key types.NamespacedName) {
	defer c.queue.Done(key)
	if ctx.Err() != nil {
		return
	}
	all := ctx
	ctx, end := c.begin(all, key)
	if ctx == nil {
		c.workElsewhere(all, key)
		return
	}
	defer end()
	again, err := c.reconcile(ctx, key)
	if err == nil {
		c.queue.Forget(key)
	} else {
		// What failed has been told by the step that failed; here it is only tried again, ever more slowly.
		c.queue.AddRateLimited(key)
		if ctx.Err() == nil {
			c.Metrics.Failed(key)
		}
	}
	if again > 0 {
		c.plan(key, again)
		c.queue.AddAfter(key, again) // the sooner one of the two counts
	}
}

// record returns the ScaledJob's record, a new one when it is new or another one of a former name.
func (c *Controller) record(sj *v1alpha1.ScaledJob) *record {
	key := sj.Key()
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r != nil && r.uid == sj.UID {
		return r
	}
	c.forget(key)
	r = &record{key: key, uid: sj.UID, version: sj.ResourceVersion, decider: decider.New(), failing: map[string]wordings{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[key] = r
	return r
}

// object is the ScaledJob without all that does not identify it, for events when it is gone.
func (r *record) object() *v1alpha1.ScaledJob {
	return &v1alpha1.ScaledJob{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindScaledJob},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.key.Namespace, Name: r.key.Name, UID: r.uid, ResourceVersion: r.version,
		},
	}
}

// forget drops what is known of a ScaledJob that is being deleted or that the port does not know any more.
func (c *Controller) forget(key types.NamespacedName) {
	c.mu.Lock()
	r := c.records[key]
	delete(c.records, key)
	c.mu.Unlock()
	if r != nil {
		c.stopTriggers(r)
		c.Events.Event(r.object(), warning, reasonDeleted, "ScaledJob was deleted, or is no longer looked after")
		c.Metrics.Forgotten(key)
	}
}
