package scaledjob

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/limits"
)

// underWay is a reconcile that is under way.
type underWay struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// begin notes that a reconcile of the ScaledJob begins, and returns its context and what to call when it has ended. The
// context is nil when the ScaledJob is not this process's.
func (c *Controller) begin(ctx context.Context, key types.NamespacedName) (context.Context, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.Mine(key) {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	c.underWay[key] = underWay{cancel, ended}
	return ctx, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.underWay, key)
		close(ended)
	}
}

// LetGo drops what is known of the ScaledJobs that are not Mine any more, and tells users nothing of it. It breaks
// their reconciles off, and returns when none of them is under way. It returns how many ScaledJobs that were.
func (c *Controller) LetGo() int {
	c.mu.Lock()
	var ending []chan struct{}
	for key, reconcile := range c.underWay {
		if !c.Mine(key) {
			reconcile.cancel()
			ending = append(ending, reconcile.ended)
		}
	}
	c.mu.Unlock()
	for _, ended := range ending {
		<-ended
	}
	if c.limiter != nil {
		c.limiter.do(func(p *limits.Pool, now time.Time) []types.NamespacedName { return p.LetGo(c.Mine, now) })
	}
	return c.drop(func(key types.NamespacedName) bool { return !c.Mine(key) })
}

// workElsewhere is what is left to do about a ScaledJob that is not Mine: Jobs of it that were created here count until
// they have ended.
func (c *Controller) workElsewhere(ctx context.Context, key types.NamespacedName) {
	if err := c.countLeft(ctx, key); err != nil {
		c.queue.AddRateLimited(key)
		return
	}
	c.queue.Forget(key)
}

// drop closes the triggers of the ScaledJobs for which the condition holds, several at a time, and drops what is known
// of them. It returns how many there were.
func (c *Controller) drop(condition func(types.NamespacedName) bool) int {
	c.mu.Lock()
	var dropped []*record
	for key, r := range c.records {
		if condition(key) {
			delete(c.records, key)
			dropped = append(dropped, r)
		}
	}
	c.mu.Unlock()
	next := make(chan *record)
	var closing sync.WaitGroup
	for range min(c.Workers, len(dropped)) {
		closing.Go(func() {
			for r := range next {
				c.closeTriggers(r)
				c.Metrics.Forgotten(r.key)
			}
		})
	}
	for _, r := range dropped {
		next <- r
	}
	close(next)
	closing.Wait()
	return len(dropped)
}
