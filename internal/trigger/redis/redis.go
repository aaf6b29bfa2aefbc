// Package redis is the trigger type redis: the length of a list on one Redis server, or the size of a set, a sorted set
// or a hash.
//
// A measurement is answered from memory for as long as the server has not said that the key changed (client tracking,
// Redis 6 and later, no server setting needed), so that asking often costs nothing and a push is noticed at once.
// Triggers with equal connection settings share one connection. The package knows nothing of Redis Cluster and
// Sentinel, and it takes no items off a list.
package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "The length of a Redis list, or the size of a set, a sorted set or a hash.",
		Params: params(),
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, cfg, values)
		},
		MetricName: metricName,
		Check:      check,
	}
}

// measureTimeout bounds one measurement, waiting for a connection included.
const measureTimeout = 5 * time.Second

// pollPeriod is how often Watch asks the server that this process serves where that one cannot tell of changes.
const pollPeriod = 50 * time.Millisecond

var (
	_ trigger.Watcher = (*sizeTrigger)(nil)
	_ trigger.Pusher  = (*sizeTrigger)(nil)
)

// sizeTrigger measures one key.
type sizeTrigger struct {
	key        string
	target     float64
	activation int64
	connection *connection
	interval   time.Duration
	release    func()

	// kind is what the key last held, so that one command is enough to measure it.
	kind atomic.Pointer[kind]
	// last is what Measure last answered.
	last atomic.Pointer[outcome]
}

// outcome is what came of one reading.
type outcome struct {
	size    int64
	failure string
}

func newTrigger(clients *Clients, cfg trigger.Config, values trigger.Values) (*sizeTrigger, error) {
	chosen, err := newSettings(values, cfg.EmbeddedRedis)
	if err != nil {
		return nil, err
	}
	made := &sizeTrigger{
		key:        values.String(paramListName),
		target:     float64(values.Int(paramListLength)),
		activation: values.Int(paramActivation),
		interval:   cfg.PollingInterval,
	}
	made.kind.Store(&listKind)
	connection, release := clients.acquire(chosen, cfg.PollingInterval, cfg.Log)
	made.connection, made.release = connection, sync.OnceFunc(release)
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds, and without a command to the server when the server
// has not told of a change since the last time, for at most the polling interval.
func (t *sizeTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	size, err := t.connection.size(ctx, t.key, &t.kind)
	t.last.Store(newOutcome(size, err))
	if err != nil {
		return trigger.Measurement{}, err
	}
	return trigger.Measurement{Value: float64(size), Target: t.target, Active: size > t.activation}, nil
}

// Close implements trigger.Trigger.
func (t *sizeTrigger) Close() { t.release() }

// Watch implements trigger.Watcher. It calls changed at once, because the key may have changed since the last Measure;
// then when the server says that the key changed, when the connection is lost for longer than a quick reconnect takes,
// and when it is back.
//
// No change is missed: a Measure that is answered from memory found an entry there, and an entry exists only as long
// as the server has it on record to tell of a change of the key. When it does tell, rueidis first drops the entry, then
// calls back; both happen in the goroutine that reads the connection, in the order in which the server wrote. So the
// Measure that follows changed either sends the command anew or joins one that is under way, whose answer the server
// wrote after the notice, hence after the change; and with the answer, the key is on record again.
func (t *sizeTrigger) Watch(ctx context.Context, changed func()) {
	defer t.connection.watch(t.key, changed)()
	changed()
	if t.connection.settings.polled {
		t.poll(ctx, changed)
		return
	}
	<-ctx.Done()
}

// poll asks the server again and again while it cannot tell of changes, until ctx ends.
func (t *sizeTrigger) poll(ctx context.Context, changed func()) {
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	for {
		current := t.connection.current()
		if current.session == nil || current.session.tracked {
			select {
			case <-ctx.Done():
				return
			case <-current.replaced:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if size, err := t.read(ctx); ctx.Err() == nil && !newOutcome(size, err).equal(t.last.Load()) {
			changed()
		}
	}
}

func (t *sizeTrigger) read(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	return t.connection.size(ctx, t.key, &t.kind)
}

// Push implements trigger.Pusher with RPUSH.
func (t *sizeTrigger) Push(ctx context.Context, items ...[]byte) (int64, error) {
	length, err := t.connection.push(ctx, t.key, items)
	if err != nil {
		return 0, fmt.Errorf("push %d items to %q: %w", len(items), t.key, err)
	}
	return length, nil
}

// Queue implements trigger.Pusher.
func (t *sizeTrigger) Queue() string { return t.key }

func newOutcome(size int64, err error) *outcome {
	if err != nil {
		return &outcome{failure: err.Error()}
	}
	return &outcome{size: size}
}

func (o *outcome) equal(other *outcome) bool { return other != nil && *o == *other }
