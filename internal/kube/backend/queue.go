package backend

import (
	"context"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// PushWith implements control.Backend.
func (b *Backend) PushWith(
	ctx context.Context, to control.Queue, options queue.PushOptions, items [][]byte,
) (queue.Pushed, error) {
	q, err := b.queue(ctx, to)
	if err != nil {
		return queue.Pushed{}, err
	}
	return control.Later(ctx, q, options, items)
}

// Stats implements control.Backend.
func (b *Backend) Stats(ctx context.Context, of control.Queue) (queue.Stats, error) {
	q, err := b.queue(ctx, of)
	if err != nil {
		return queue.Stats{}, err
	}
	return control.Count(ctx, q)
}

// Items implements control.Backend.
func (b *Backend) Items(ctx context.Context, of control.Queue, s control.Selection) ([]queue.Record, error) {
	q, err := b.queue(ctx, of)
	if err != nil {
		return nil, err
	}
	return control.Select(ctx, q, s)
}

// Change implements control.Backend.
func (b *Backend) Change(
	ctx context.Context, of control.Queue, operation control.Operation, items []control.ItemRef,
) ([]string, error) {
	q, err := b.queue(ctx, of)
	if err != nil {
		return nil, err
	}
	return control.Apply(ctx, q, operation, items)
}

// queue returns the items of the queue, which may be used until Close.
func (b *Backend) queue(ctx context.Context, of control.Queue) (queue.Queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pusher, err := b.pusher(ctx, of)
	if err != nil {
		return nil, err
	}
	claimer, ok := pusher.(trigger.Claimer)
	if !ok {
		return nil, control.NoItems(of)
	}
	return claimer.Items(""), nil
}
