package scaledjob

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/podenv"
	"github.com/offboard-dev/offboard/internal/scaling"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Defaults of optional fields of Config.
const (
	defaultWorkers        = 16
	defaultCreateParallel = 32
)

// Config is what a Controller works with.
type Config struct {
	Jobs    Jobs
	Objects Objects
	Events  Events
	// TriggerTypes are the types that ScaledJobs may use.
	TriggerTypes []trigger.Type
	// Local returns what this process itself offers to triggers and containers; nil means nothing. It is asked each time
	// that triggers are built.
	Local func() Local
	// ClusterNamespace is where the Secrets of ClusterTriggerAuthentications are; empty means the ScaledJob's own.
	ClusterNamespace string
	// Version goes into the Jobs' app.kubernetes.io/version label.
	Version string
	Log     *slog.Logger
	// Workers is how many ScaledJobs are reconciled at the same time; 0 means 16.
	Workers int
	// CreateParallel is how many Jobs one reconcile creates at the same time; 0 means 32.
	CreateParallel int
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

	mu      sync.Mutex
	records map[types.NamespacedName]*record
}

// record is what the controller remembers of one ScaledJob between reconciles. Only one worker at a time reconciles a
// ScaledJob, so the record needs no lock but for what others read and set: see view and stale.
type record struct {
	key      types.NamespacedName
	uid      types.UID
	live     *liveTriggers
	measures []v1alpha1.ScaleTriggers // what the takeup's measurements are of
	takeup   *takeup
	floorAt  time.Time         // when Jobs were last created because minReplicaCount asked for them
	failing  map[string]string // what failed when last looked at, and how: it is told once

	mu    sync.Mutex
	stale bool // what the triggers were built from may have changed
	view  View
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
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](100*time.Millisecond, time.Minute)
	return &Controller{
		Config:  config,
		queue:   workqueue.NewTypedRateLimitingQueue(limiter),
		records: map[types.NamespacedName]*record{},
	}
}

// Changed asks for a reconcile of the ScaledJob: its manifest, its Jobs or its measurements have changed. It never
// blocks.
func (c *Controller) Changed(key types.NamespacedName) { c.queue.Add(key) }

// Refresh asks for a reconcile that builds the ScaledJob's triggers anew: a Secret, a ConfigMap or a
// TriggerAuthentication that they may depend on has changed.
func (c *Controller) Refresh(key types.NamespacedName) {
	c.mu.Lock()
	r := c.records[key]
	c.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		r.stale = true
		r.mu.Unlock()
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
	var workers sync.WaitGroup
	for range c.Workers {
		workers.Go(func() {
			for c.work(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	workers.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, r := range c.records {
		c.closeTriggers(r)
		delete(c.records, key)
	}
}

// work reconciles the next ScaledJob in the queue; false when the queue has been shut down.
func (c *Controller) work(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	if ctx.Err() != nil {
		return true
	}
	again, err := c.reconcile(ctx, key)
	if err == nil {
		c.queue.Forget(key)
	} else {
		// What failed has been told by the step that failed; here it is only tried again, ever more slowly.
		c.queue.AddRateLimited(key)
	}
	if again > 0 {
		c.queue.AddAfter(key, again) // the sooner one of the two counts
	}
	return true
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
	r = &record{key: key, uid: sj.UID, takeup: newTakeup(), failing: map[string]string{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[key] = r
	return r
}

// forget drops what is known of a ScaledJob that no longer exists.
func (c *Controller) forget(key types.NamespacedName) {
	c.mu.Lock()
	r := c.records[key]
	delete(c.records, key)
	c.mu.Unlock()
	if r != nil {
		c.closeTriggers(r)
	}
}
