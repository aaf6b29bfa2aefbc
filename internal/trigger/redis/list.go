package redis

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

var (
	_ trigger.Watcher = (*listTrigger)(nil)
	_ trigger.Pusher  = (*listTrigger)(nil)
	_ trigger.Claimer = (*listTrigger)(nil)
)

// listTrigger measures one list, or a key of another kind that has a size.
type listTrigger struct {
	*claims

	key string
	// kind is what the key last held, so that one command is enough to measure it.
	kind atomic.Pointer[kind]
}

func newListTrigger(clients *Clients, s settings, cfg trigger.Config, values trigger.Values) trigger.Trigger {
	key := values.String(paramListName)
	made := &listTrigger{
		key:    key,
		claims: newClaims(clients, s, cfg, listKind.name, redisqueue.WakeKey(key), redisqueue.ClaimedKey(key)),
	}
	made.kind.Store(&listKind)
	made.threshold, made.watched, made.read = listThreshold(values), []string{key, made.wakeKey}, made.readSize
	return made
}

func listThreshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{
		Target: float64(values.Int(paramListLength)), Activation: float64(values.Int(paramListActivation)),
	}
}

func (t *listTrigger) readSize(ctx context.Context) (reading, error) {
	got, err := t.size(ctx, t.key, &t.kind)
	if err != nil || t.kind.Load() != &listKind {
		return got, err
	}
	return t.readWake(ctx, got)
}

// Push implements trigger.Pusher with RPUSH.
func (t *listTrigger) Push(ctx context.Context, items ...[]byte) (int64, error) {
	length, err := push(ctx, t.server, t.key, items, rpush)
	if err != nil {
		return 0, fmt.Errorf("push to %q: %w", t.key, err)
	}
	return length, nil
}

// Items implements trigger.Claimer. Only a list hands out items.
func (t *listTrigger) Items(name string) queue.Queue {
	return redisqueue.New(t.scripts, cmp.Or(name, t.key))
}

// Queue implements trigger.Pusher.
func (t *listTrigger) Queue() string { return t.key }
