package kube

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// choreWithin bounds one attempt at a chore.
const choreWithin = 3 * time.Second

// chores are things to do about objects: one after the other, and each again until it succeeds.
type chores[T comparable] struct {
	// mine tells whether it is this process that does one.
	mine func(about T) bool
	// do does one. again is when it is to be done once more although there is no error; 0 means not at all.
	do func(ctx context.Context, about T) (again time.Duration, err error)
	// failed tells of an error.
	failed func(about T, err error)

	doing sync.Mutex // held while one is done

	mu      sync.Mutex
	waiting map[T]bool // what is to be done about, now or when it is mine
	queue   workqueue.TypedRateLimitingInterface[T]
}

// note takes note of whether there is something to do about an object.
func (c *chores[T]) note(about T, wanted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !wanted {
		delete(c.waiting, about)
		return
	}
	if c.waiting == nil {
		c.waiting = map[T]bool{}
	}
	c.waiting[about] = true
	if c.queue != nil {
		c.queue.Add(about)
	}
}

// run does what there is to do until ctx ends.
func (c *chores[T]) run(ctx context.Context) {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[T]())
	defer context.AfterFunc(ctx, queue.ShutDown)()
	c.mu.Lock()
	c.queue = queue
	c.mu.Unlock()
	c.resume()
	for {
		about, shutdown := queue.Get()
		if shutdown {
			return
		}
		switch again, err := c.attempt(ctx, about); {
		case err != nil && ctx.Err() == nil:
			c.failed(about, err)
			queue.AddRateLimited(about)
		default:
			queue.Forget(about)
			if again > 0 {
				queue.AddAfter(about, again)
			}
		}
		queue.Done(about)
	}
}

// attempt does one if it is mine. One that is not keeps waiting for resume.
func (c *chores[T]) attempt(ctx context.Context, about T) (again time.Duration, err error) {
	c.doing.Lock()
	defer c.doing.Unlock()
	if !c.mine(about) {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, choreWithin)
	defer cancel()
	return c.do(ctx, about)
}

// resume looks again at everything that waits: some of it may be mine now.
func (c *chores[T]) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for about := range c.waiting {
		if c.queue != nil {
			c.queue.Add(about)
		}
	}
}

// letGo returns when nothing is done any more of what is not mine.
func (c *chores[T]) letGo() {
	c.doing.Lock() // whatever begins later asks first whether it is mine
	defer c.doing.Unlock()
}
