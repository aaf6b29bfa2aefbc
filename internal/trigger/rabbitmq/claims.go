package rabbitmq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/rabbitqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

var (
	_ trigger.Pusher  = (*claimTrigger)(nil)
	_ trigger.Claimer = (*claimTrigger)(nil)
)

// claimSettings is all that makes one queue that is claimed from differ from another.
type claimSettings struct {
	amqpSettings
	queue string
}

// claimTrigger also hands out the messages of its queue.
type claimTrigger struct {
	*queueTrigger

	settings amqpSettings
	server   claimServer
	clients  *Clients
	queue    string

	mu sync.Mutex
	// opened are the queues that were asked for, with what releases them.
	opened map[string]*rabbitqueue.Queue
	ends   []func()
}

func newClaimTrigger(clients *Clients, values trigger.Values) (*claimTrigger, error) {
	material := materialOf(values)
	config, err := material.Config()
	if err != nil {
		return nil, err
	}
	settings, problem := newAMQPSettings(values, material)
	if problem != "" {
		return nil, trigger.ParamError{Key: paramHost, Message: problem}
	}
	measured, err := newTrigger(clients, values)
	if err != nil {
		return nil, err
	}
	return &claimTrigger{
		queueTrigger: measured, settings: settings, server: claimServer{settings, config}, clients: clients,
		queue: values.String(paramQueueName), opened: map[string]*rabbitqueue.Queue{},
	}, nil
}

// Measure implements trigger.Trigger. What was claimed and given back is not in the queue any more, and is counted too.
func (t *claimTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	read, err := t.read(ctx)
	if err != nil {
		return trigger.Measurement{}, err
	}
	ready, _, err := t.items("").Counts(ctx)
	if err != nil {
		return trigger.Measurement{}, err
	}
	read.messages += float64(ready)
	return t.measurement(read), nil
}

// Claimed implements trigger.Claimer.
func (t *claimTrigger) Claimed(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	_, claimed, err := t.items("").Counts(ctx)
	return claimed, err
}

// Items implements trigger.Claimer.
func (t *claimTrigger) Items(name string) queue.Queue { return t.items(name) }

func (t *claimTrigger) items(name string) *rabbitqueue.Queue {
	name = cmp.Or(name, t.queue)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opened[name] == nil {
		used, end := t.clients.claims.Acquire(claimSettings{t.settings, name}, func() *rabbitqueue.Queue {
			return rabbitqueue.New(t.server, name)
		})
		t.opened[name] = used
		t.ends = append(t.ends, end)
	}
	return t.opened[name]
}

// Push implements trigger.Pusher.
func (t *claimTrigger) Push(ctx context.Context, items ...[]byte) (int64, error) {
	pushed, err := t.items("").Push(ctx, queue.PushOptions{}, items...)
	if err != nil {
		return 0, fmt.Errorf("push to %q: %w", t.queue, err)
	}
	return pushed.Length, nil
}

// Queue implements trigger.Pusher.
func (t *claimTrigger) Queue() string { return t.queue }

// Close implements trigger.Trigger.
func (t *claimTrigger) Close() {
	t.mu.Lock()
	ends := t.ends
	t.ends = nil
	t.mu.Unlock()
	for _, end := range ends {
		end()
	}
	t.queueTrigger.Close()
}

// popTrigger measures a queue from which runners take messages themselves. It still knows what was claimed before, and
// makes nothing on the server unless it is asked for that.
type popTrigger struct {
	*queueTrigger
	claims *claimTrigger
}

var _ trigger.Claimer = popTrigger{}

// Items implements trigger.Claimer.
func (t popTrigger) Items(name string) queue.Queue { return popQueue{t.claims.Items(name)} }

// Claimed implements trigger.Claimer.
func (t popTrigger) Claimed(ctx context.Context) (int64, error) { return t.claims.Claimed(ctx) }

// Close implements trigger.Trigger.
func (t popTrigger) Close() { t.claims.Close() }

// popQueue is not swept: what comes back by that does not come into the queue that runners take from.
type popQueue struct{ queue.Queue }

// Sweep implements queue.Queue.
func (popQueue) Sweep(context.Context) (queue.Swept, error) { return queue.Swept{Next: -1}, nil }

// claimServer is how queues that are claimed from reach their server.
type claimServer struct {
	settings amqpSettings
	config   *tls.Config
}

// Dial implements rabbitqueue.Server.
func (s claimServer) Dial(ctx context.Context) (*amqp.Connection, error) {
	return s.settings.open(ctx, ctx, s.config)
}

// Explain implements rabbitqueue.Server.
func (s claimServer) Explain(err error, queue string) error {
	var reply *amqp.Error
	if !errors.As(err, &reply) || !reply.Server || reply.Code != amqp.AccessRefused {
		return s.settings.explain(err, queue)
	}
	hint := fmt.Sprintf("denies user %q the login or what delivery by claim needs: to read queue %q, and to configure, "+
		"write and read the streams whose names begin with %q, where write must also match amq.default; correct the "+
		"password or the user's permissions", s.settings.user, queue, queue+".offboard")
	return network.Error("rabbitmq at "+s.settings.address, hint, err, strings.HasPrefix(s.settings.url, "amqps:"),
		s.settings.password)
}
