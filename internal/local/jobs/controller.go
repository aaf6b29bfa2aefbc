package jobs

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// workers is how many Jobs are dealt with at the same time. A turn is mostly short system calls; more than a few wait
// only where a write must outlive a loss of power.
const workers = 16

// Config is what a Controller is made from. The functions may be nil.
type Config struct {
	// Dir is the folder for all state. It is made when it is missing, and belongs to one Controller at a time: the
	// caller sees to that.
	Dir string
	// KillLeftovers ends what a previous run has left running: processes with one of the labels (Pods' UIDs) and
	// recorded ones, as process.KillLeftovers does. Open fails when it fails, since two Pods for one piece of work are
	// worse than none.
	KillLeftovers func(ctx context.Context, labels []string, recorded []process.Recorded) error
	// OnChange is called after each visible change of a ScaledJob's Jobs or Pods with the ScaledJob's name, from
	// several goroutines and never while a lock is held. It must not block for long, nor call Drain.
	OnChange func(scaledJob types.NamespacedName)
	// OnRemove is called with each Job that is removed, for whatever reason, as OnChange is.
	OnRemove func(job *batchv1.Job)
	// Clock gives the time.
	Clock clock.WithDelayedExecution
	// Log receives what no caller is there to be told.
	Log *slog.Logger
}

// Controller keeps Jobs and runs their Pods. It implements scaledjob.Jobs.
type Controller struct {
	cfg     Config
	runner  PodRunner
	index   *index
	queue   *queue
	folders folders
	// sequence orders Jobs, revision is the last resource version that was given.
	sequence, revision atomic.Uint64

	// draining tells that no Pods are started any more. It is set under starting, which the start of a Pod holds for
	// reading.
	draining atomic.Bool
	starting sync.RWMutex
	// closed tells that nothing is written any more. Operations hold life for reading.
	closed bool
	life   sync.RWMutex

	// pods counts Pods that the Pod runner has; running finds their Jobs.
	pods    sync.WaitGroup
	running sync.Map // types.UID of the Pod to *record
	// departing are deleted Jobs whose last processes still have to end.
	departing sync.Map // *record to nothing
	workers   sync.WaitGroup
	drained   chan struct{}
}

var _ scaledjob.Jobs = (*Controller)(nil)

// Open loads the Jobs of a folder and ends what a previous run has left running. Pods that were running when the
// previous run ended without warning count as failed. State that cannot be read is moved aside with a warning. Nothing
// runs before Start.
func Open(ctx context.Context, cfg Config) (*Controller, error) {
	c := &Controller{
		cfg: cfg, index: newIndex(), queue: newQueue(),
		folders: folders{root: filepath.Join(cfg.Dir, jobsDir)}, drained: make(chan struct{}),
	}
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Start begins to work on the Jobs, with the Pods being run by runner. It is called once; the caller ends the work with
// Drain.
func (c *Controller) Start(runner PodRunner) {
	c.runner = runner
	for range workers {
		c.workers.Go(c.work)
	}
}

func (c *Controller) work() {
	for r := c.queue.next(); r != nil; r = c.queue.next() {
		c.sync(r)
		c.queue.done(r)
	}
}

// List returns the Jobs that carry the ScaledJob's label in its namespace, in the order of creation. The slice is the
// caller's, the Jobs are shared. It never fails.
func (c *Controller) List(_ context.Context, scaledJob types.NamespacedName) ([]scaledjob.Job, error) {
	return c.index.ofScaledJob(scaledJob), nil
}

// ListAll returns all Jobs of a namespace, or of every one when it is empty, in the order of creation.
func (c *Controller) ListAll(namespace string) []scaledjob.Job {
	var jobs []scaledjob.Job
	for _, r := range c.index.all() {
		if view := r.view.Load(); view != nil && (namespace == "" || namespace == view.Namespace) {
			jobs = append(jobs, *view)
		}
	}
	return jobs
}

// Get returns a Job. The error is a NotFound API error when there is none.
func (c *Controller) Get(namespace, name string) (scaledjob.Job, error) {
	if r := c.index.get(types.NamespacedName{Namespace: namespace, Name: name}); r != nil {
		if view := r.view.Load(); view != nil {
			return *view, nil
		}
	}
	return scaledjob.Job{}, notFound(name)
}

// Active returns the Jobs that have Pods which have not ended, also those that were deleted meanwhile.
func (c *Controller) Active() []scaledjob.Job {
	var active []scaledjob.Job
	add := func(r *record) {
		if view := r.view.Load(); view != nil && hasActivePods(view) {
			active = append(active, *view)
		}
	}
	for _, r := range c.index.all() {
		add(r)
	}
	c.departing.Range(func(key, _ any) bool {
		add(key.(*record))
		return true
	})
	return active
}

func hasActivePods(job *scaledjob.Job) bool {
	for _, pod := range job.Pods {
		if !hasEnded(pod) {
			return true
		}
	}
	return false
}

// Drain ends the Controller. From now on no Pods are started and Create refuses; Pods that run may end until ctx is
// done, then they are stopped with their grace period. It returns when all have ended and their outcomes are on disk;
// the error says which are not. Jobs that are not finished go on when the folder is opened again. Reading still works
// afterwards.
func (c *Controller) Drain(ctx context.Context) error {
	c.starting.Lock()
	again := c.draining.Swap(true)
	c.starting.Unlock()
	if again {
		<-c.drained
		return nil
	}
	defer close(c.drained)

	ended := make(chan struct{})
	go func() {
		c.pods.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		c.stopAll()
		<-ended
	}
	c.life.Lock() // waits for operations that have begun
	c.closed = true
	c.life.Unlock()
	c.queue.close()
	c.workers.Wait()
	return c.shut()
}

// stopAll stops every Pod because the program ends. Whether one succeeds even so is its own affair.
func (c *Controller) stopAll() {
	records := c.index.all()
	c.departing.Range(func(key, _ any) bool {
		records = append(records, key.(*record))
		return true
	})
	for _, r := range records {
		r.mu.Lock()
		for _, p := range r.pods {
			if p.shell.started && !p.ended() {
				c.stop(p, pods.Stop{
					Reason: "Stopped", Message: "offboard was stopped and ended the Pod", Disruption: true,
				})
			}
		}
		r.mu.Unlock()
	}
}

// shut writes what could not be written before, and ends all timers.
func (c *Controller) shut() error {
	var errs []error
	for _, r := range c.index.all() {
		c.sync(r)
		r.mu.Lock()
		if r.timer != nil {
			r.timer.Stop()
		}
		errs = append(errs, r.saveError)
		r.mu.Unlock()
	}
	c.folders.clear()
	return errors.Join(errs...)
}

func (c *Controller) nextRevision() (uint64, string) {
	revision := c.revision.Add(1)
	return revision, strconv.FormatUint(revision, 10)
}

// Folders below Config.Dir.
const (
	jobsDir    = "jobs"    // <namespace>/<job>
	removedDir = "removed" // <uid>: deleted Jobs whose processes still have to end
	brokenDir  = "broken"  // what could not be read
)

func (c *Controller) jobDir(key types.NamespacedName) string {
	return filepath.Join(c.cfg.Dir, jobsDir, key.Namespace, key.Name)
}
