package scaledjob

import (
	"context"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// aside does something that waits for the server of a queue. Meanwhile another ScaledJob is reconciled in this one's
// place, so that a server that is slow or dead delays nobody but those who use it.
func (c *Controller) aside(do func()) {
	<-c.working
	defer func() { c.working <- struct{}{} }()
	do()
}

// itemsOf returns the queue of that name at the trigger's source, as a reconcile uses it; see trigger.Claimer.
func (c *Controller) itemsOf(source trigger.Claimer, name string) queue.Queue {
	return asideQueue{source.Items(name), c}
}

// asideQueue waits aside for those answers of a queue that a reconcile waits for itself. Get, which several goroutines
// of one reconcile call, is not among them.
type asideQueue struct {
	queue.Queue
	c *Controller
}

func (q asideQueue) Claim(ctx context.Context, options queue.ClaimOptions) (result queue.ClaimResult, err error) {
	q.c.aside(func() { result, err = q.Queue.Claim(ctx, options) })
	return result, err
}

func (q asideQueue) Settle(ctx context.Context, settlements []queue.Settlement) (held []bool, err error) {
	q.c.aside(func() { held, err = q.Queue.Settle(ctx, settlements) })
	return held, err
}

func (q asideQueue) Claims(ctx context.Context, owner string) (claims []queue.Claim, err error) {
	q.c.aside(func() { claims, err = q.Queue.Claims(ctx, owner) })
	return claims, err
}

func (q asideQueue) Sweep(ctx context.Context) (swept queue.Swept, err error) {
	q.c.aside(func() { swept, err = q.Queue.Sweep(ctx) })
	return swept, err
}
