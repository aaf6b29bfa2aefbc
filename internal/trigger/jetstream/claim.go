package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/natsqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// queueSettings is all that makes one queue differ from another; it stays comparable.
type queueSettings struct {
	clientSettings
	stream, consumer string
}

// claimTrigger hands out the messages of its consumer, and asks it as a client how many there are.
type claimTrigger struct {
	*watchedTrigger

	settings clientSettings
	clients  *Clients
	queue    *natsqueue.Queue

	mu sync.Mutex
	// used are the queues by their settings, each with what lets it go.
	used   map[queueSettings]*natsqueue.Queue
	letsGo []func()
}

var (
	_ trigger.Watcher = (*claimTrigger)(nil)
	_ trigger.Pusher  = (*claimTrigger)(nil)
	_ trigger.Claimer = (*claimTrigger)(nil)
)

func newClaimTrigger(clients *Clients, watched *watchedTrigger, settings clientSettings) *claimTrigger {
	made := &claimTrigger{
		watchedTrigger: watched, settings: settings, clients: clients, used: map[queueSettings]*natsqueue.Queue{},
	}
	made.queue = made.use(watched.asked.stream, watched.asked.consumer)
	return made
}

// use returns a queue that all triggers with equal settings share.
func (t *claimTrigger) use(stream, consumer string) *natsqueue.Queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	settings := queueSettings{t.settings, stream, consumer}
	if known := t.used[settings]; known != nil {
		return known
	}
	// All who use it have the same client.
	made, release := t.clients.queues.Acquire(settings, func() *natsqueue.Queue {
		return natsqueue.New(t.client, stream, consumer)
	})
	t.used[settings] = made
	t.letsGo = append(t.letsGo, release)
	return made
}

// Measure implements trigger.Trigger. It counts what can be claimed, and answers within 5 seconds.
func (t *claimTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	ready, err := t.queue.Ready(ctx)
	if err != nil {
		return trigger.Measurement{}, err
	}
	return t.measurement(float64(ready)), nil
}

// Watch implements trigger.Watcher. It also tells when another process changes what is known of items.
func (t *claimTrigger) Watch(changed func()) (stop func()) {
	stopMessages := t.watchedTrigger.Watch(changed)
	stopLog, err := t.queue.Follow(changed)
	if err != nil {
		t.client.tell(err)
		return stopMessages
	}
	return func() {
		stopMessages()
		stopLog()
	}
}

// Items implements trigger.Claimer.
func (t *claimTrigger) Items(name string) queue.Queue {
	if name == "" || name == t.queue.Name() {
		return t.queue
	}
	stream, consumer, err := natsqueue.ParseName(name)
	if err != nil {
		return formerQueue{natsqueue.New(t.client, "", name), name} // it was of another type
	}
	return formerQueue{t.use(stream, consumer), name}
}

// formerQueue is one that the trigger does not measure any more, and that may be gone with its items.
type formerQueue struct {
	queue.Queue
	name string
}

// Name implements queue.Queue.
func (q formerQueue) Name() string { return q.name }

// Get implements queue.Queue.
func (q formerQueue) Get(ctx context.Context, id string) (queue.Record, error) {
	found, err := q.Queue.Get(ctx, id)
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrStreamNameRequired) {
		return queue.Record{}, fmt.Errorf("item %q of %q: %w", id, q.name, queue.ErrNotFound)
	}
	return found, err
}

// Claimed implements trigger.Claimer.
func (t *claimTrigger) Claimed(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	return t.queue.Claimed(ctx)
}

// Push implements trigger.Pusher. Of several items some may arrive although there is an error, which says so.
func (t *claimTrigger) Push(ctx context.Context, items ...[]byte) (int64, error) {
	if len(items) == 0 {
		return 0, nil
	}
	pushed, err := t.queue.Push(ctx, queue.PushOptions{}, items...)
	return pushed.Length, err
}

// Queue implements trigger.Pusher.
func (t *claimTrigger) Queue() string { return t.queue.Name() }

// Close implements trigger.Trigger.
func (t *claimTrigger) Close() {
	t.mu.Lock()
	for _, release := range t.letsGo {
		release()
	}
	t.mu.Unlock()
	t.watchedTrigger.Close()
}

var _ natsqueue.Conn = (*client)(nil)

// Connect implements natsqueue.Conn.
func (c *client) Connect() (*nats.Conn, error) { return c.connect() }

// failedFor is for how long a failure may be why there was no answer to a request.
const failedFor = 30 * time.Second

// failure is what the connection was last lost for, could not be made for, or was refused.
type failure struct {
	err error
	at  time.Time
}

// fails notes a failure.
func (c *client) fails(err error) { c.failed.Store(&failure{err, time.Now()}) }

// Explain implements natsqueue.Conn. Where a request just had no answer, it says why, as far as that is known.
func (c *client) Explain(err error) error {
	silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders)
	if failed := c.failed.Load(); silent && failed != nil && time.Since(failed.at) < failedFor {
		err = failed.err
	}
	return network.Error("nats at "+c.settings.hosts(), "", err, c.settings.withTLS(), c.settings.secrets()...)
}

// hosts returns where the servers are, without who logs in.
func (s clientSettings) hosts() string {
	var hosts []string
	for server := range strings.SplitSeq(s.servers, ",") {
		if parsed, err := url.Parse(strings.TrimSpace(server)); err == nil {
			hosts = append(hosts, parsed.Host)
		}
	}
	return strings.Join(hosts, ",")
}

func (s clientSettings) withTLS() bool {
	return strings.HasPrefix(s.servers, "tls://") || strings.HasPrefix(s.servers, "wss://")
}
