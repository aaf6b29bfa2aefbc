package control

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Limits of what one request about the items of a queue may ask for.
const (
	// MaxRecords is how many records one answer may have.
	MaxRecords = 500
	// MaxChanges is how many items one request may change.
	MaxChanges = 5_000
	// MaxUniqueKey is the longest unique key of a push in bytes.
	MaxUniqueKey = 4 << 10
)

// Selection says which records Items returns.
type Selection struct {
	// ID asks for the record of one item, whole; the rest has no effect then.
	ID string
	// State is queue.Ready, Delayed, Claimed, Retry or Dead.
	State queue.State
	// Skip is how many of the oldest records are left out, Limit how many are returned at the most.
	Skip, Limit int
}

// Operation is what Change does with items.
type Operation string

// The operations.
const (
	// RetryDead puts dead items back to the head of the queue.
	RetryDead Operation = "retry"
	// DropDead removes dead items.
	DropDead Operation = "drop"
	// GiveBack gives claims back to the head of the queue.
	GiveBack Operation = "release"
)

// ItemRef names an item of a queue.
type ItemRef struct {
	ID string `json:"id"`
	// Attempt is that of the claim to give back: one that was made since then is left alone. Of dead items it is 0.
	Attempt int `json:"attempt,omitempty"`
}

func (s Selection) check() error {
	switch {
	case s.ID != "":
		return nil
	case !slices.Contains([]queue.State{queue.Ready, queue.Delayed, queue.Claimed, queue.Retry, queue.Dead}, s.State):
		return Errorf(BadRequest, "no items are kept in the state %q: want ready, delayed, claimed, retry or dead", s.State)
	case s.Skip < 0:
		return Errorf(BadRequest, "the number of items to skip is %d, must not be negative", s.Skip)
	case s.Limit < 1 || s.Limit > MaxRecords:
		return Errorf(BadRequest, "the number of items is %d, must be from 1 to %d", s.Limit, MaxRecords)
	}
	return nil
}

func checkChange(operation Operation, items []ItemRef) error {
	switch {
	case !slices.Contains([]Operation{RetryDead, DropDead, GiveBack}, operation):
		return Errorf(BadRequest, "unknown operation %q: want retry, drop or release", operation)
	case len(items) > MaxChanges:
		return Errorf(BadRequest, "%d items in one request; at most %d are allowed", len(items), MaxChanges)
	}
	return nil
}

// Select does for a Backend what Items is to do, with the queue.
func Select(ctx context.Context, q queue.Queue, s Selection) ([]queue.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.ID == "" {
		records, err := q.List(ctx, s.State, s.Skip, s.Limit)
		return records, QueueError(err)
	}
	record, err := q.Get(ctx, s.ID)
	if err != nil {
		return nil, QueueError(err)
	}
	return []queue.Record{record}, nil
}

// Apply does for a Backend what Change is to do, with the queue.
func Apply(ctx context.Context, q queue.Queue, operation Operation, items []ItemRef) ([]string, error) {
	if err := checkChange(operation, items); err != nil {
		return nil, err
	}
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = item.ID
	}
	switch operation {
	case RetryDead:
		done, err := q.RetryDead(ctx, ids...)
		return done, QueueError(err)
	case DropDead:
		done, err := q.DropDead(ctx, ids...)
		return done, QueueError(err)
	case GiveBack:
	}
	return giveBack(ctx, q, items)
}

// settleAtOnce is how many claims a queue settles in one step.
const settleAtOnce = 500

// giveBack gives claims back so that they are at the head of the queue in the order of their ids.
func giveBack(ctx context.Context, q queue.Queue, items []ItemRef) ([]string, error) {
	ordered := slices.SortedFunc(slices.Values(items), func(a, b ItemRef) int { return cmp.Compare(a.ID, b.ID) })
	var done []string
	// The last ones first, so that those before them come to be ahead.
	for len(ordered) > 0 {
		from := (len(ordered) - 1) / settleAtOnce * settleAtOnce
		settlements := make([]queue.Settlement, 0, len(ordered)-from)
		for _, item := range ordered[from:] {
			settlements = append(settlements, queue.Settlement{ID: item.ID, Attempt: item.Attempt, Verb: queue.GiveBack})
		}
		held, err := q.Settle(ctx, settlements)
		var page []string
		for i, was := range held {
			if was {
				page = append(page, settlements[i].ID)
			}
		}
		done = append(page, done...)
		if err != nil {
			return done, QueueError(err)
		}
		ordered = ordered[:from]
	}
	return done, nil
}

// QueueError gives an error of a queue its reason.
func QueueError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrNotFound):
		return Errorf(NotFound, "%w", err)
	case errors.Is(err, errors.ErrUnsupported):
		return Errorf(BadRequest, "%w", err) // to ask again changes nothing
	}
	return Errorf(Unavailable, "%w", err)
}

// Later pushes with options for a Backend.
func Later(ctx context.Context, q queue.Queue, o queue.PushOptions, items [][]byte) (queue.Pushed, error) {
	if err := checkPush(o, len(items)); err != nil {
		return queue.Pushed{}, err
	}
	pushed, err := q.Push(ctx, o, items...)
	return pushed, QueueError(err)
}

// Count counts the items of a queue for a Backend.
func Count(ctx context.Context, q queue.Queue) (queue.Stats, error) {
	stats, err := q.Stats(ctx)
	return stats, QueueError(err)
}

// checkPush returns what contradicts itself in how items are to be pushed.
func checkPush(o queue.PushOptions, items int) error {
	switch {
	case items == 0:
		return Errorf(BadRequest, "a push needs at least one item")
	case items > MaxPushItems:
		return Errorf(BadRequest, "%d items in one push; at most %d are allowed", items, MaxPushItems)
	case o.Delay < 0:
		return Errorf(BadRequest, "the delay is %s, must not be negative", o.Delay)
	case o.Delay > 0 && !o.At.IsZero():
		return Errorf(BadRequest, "a push has a delay or a time, not both")
	case o.At.UTC().Year() < 0 || o.At.UTC().Year() > 9999:
		return Errorf(BadRequest, "the time is in the year %d, must be in one of four digits", o.At.UTC().Year())
	case o.Unique == "" && o.UniqueFor != 0:
		return Errorf(BadRequest, "the unique key is missing")
	case o.Unique != "" && o.UniqueFor <= 0:
		return Errorf(BadRequest, "how long the unique key holds is %s, must be more than 0", o.UniqueFor)
	case len(o.Unique) > MaxUniqueKey:
		return Errorf(BadRequest, "the unique key has %d bytes; at most %d are allowed", len(o.Unique), MaxUniqueKey)
	case o.Unique != "" && items != 1:
		return Errorf(BadRequest, "a unique key is for one item, and there are %d", items)
	}
	return nil
}
