// Package natsqueue hands out the messages of a pull consumer of a NATS JetStream stream.
//
// A claim takes a message over: it is fetched, kept in progress while it is written to a log together with who has
// claimed it, and only then acknowledged at its consumer. From there on all that is known of the item is in the log, a
// stream of its own, which is a sequence of transactions: each is written on the condition that nobody else has written
// since, so that every operation happens as a whole or not at all, one after the other, whoever does it. What the
// transactions come to is held in memory, by each process for itself, and read again from the log whenever another
// process has written.
//
// Why the message does not stay with its consumer, kept in progress until it is settled: a server writes
// acknowledgements to its disk a little later and forgets the last of them when it is killed; items that wait would use
// up MaxAckPending; and nobody could keep them in progress while no process runs.
//
// What a crash leads to between
//   - a fetch and its transaction: the server delivers the message again after AckWait, as nothing is known of it;
//   - a transaction and the acknowledgement: it delivers the message again, which the log knows: it is acknowledged
//     then, and not handed out;
//   - an acknowledgement and the server's writing it down: the same. What is done is known in the log as long as that
//     can happen;
//   - two messages of one transaction, where it is larger than one may be: nothing of it holds;
//   - a transaction and its answer: the next operation first writes an empty one, after which the former either holds
//     or cannot be written any more;
//   - two steps of trim: what was written twice is known twice, and nothing is removed before it is written anew.
package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// request bounds one request of an operation, patience how long an operation waits for others of this process.
	request, patience = 5 * time.Second, 20 * time.Second
	// shown is how many bytes of a part a list shows.
	shown = 4 << 10
	// maintainEvery is how often Claim looks after the log and whether stream and consumer are the same.
	maintainEvery = time.Minute
	// keptAfter is for how long a server must have had an acknowledgement, without a crash, for it to have it for good. It
	// writes them after some 100 ms, and to the disk itself every 2 minutes unless sync_interval says otherwise.
	keptAfter = 10 * time.Minute
	// sameWithin is by how much the time may change at which a stream or a consumer was created: servers tell a slightly
	// different one after their restart. A stream that is made anew so soon is known by its messages.
	sameWithin = 5 * time.Second
	// logSlack is by how many bytes the log may be larger than it has to be.
	logSlack = 16 << 20
)

// Conn is a connection to the servers.
type Conn interface {
	// Connect returns the connection, which need not be established yet. The error is one of the settings.
	Connect() (*nats.Conn, error)
	// Explain says what failed at which servers, without secrets.
	Explain(err error) error
}

// Queue is the items of one consumer. It has no goroutine, and ends with its connection.
type Queue struct {
	conn             Conn
	stream, consumer string

	// lock is held, by an element in it, during an operation.
	lock chan struct{}
	log  log
	nats *nats.Conn
	// checked tells that source is as the last transaction says.
	checked    bool
	source     source
	maintained time.Time
	kept       kept
	// size is how large the items of late were.
	size int64

	// The following are constant but in tests.
	now                          func() time.Time
	keptAfter, every, sameWithin time.Duration
	logSlack                     uint64
}

// kept is what was acknowledged to the server at some time, up to floor, and how often the connection had been lost.
type kept struct {
	at         time.Time
	floor      uint64
	reconnects uint64
}

var _ queue.Queue = (*Queue)(nil)

// New returns the items of a consumer of a stream.
func New(conn Conn, stream, consumer string) *Queue {
	q := &Queue{
		conn: conn, stream: stream, consumer: consumer, lock: make(chan struct{}, 1),
		now: time.Now, keptAfter: keptAfter, every: maintainEvery, sameWithin: sameWithin, logSlack: logSlack,
	}
	q.log.name, q.log.subject = "OFFBOARD_"+stream+"_"+consumer, logSubject(stream, consumer)
	q.log.writer = nats.NewInbox() // which is like no other
	q.log.forget(0)
	return q
}

// Follow calls changed after each change of what is known of items that another process makes, until stop is called.
func (q *Queue) Follow(changed func()) (stop func(), err error) {
	conn, err := q.conn.Connect()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	stopped := false
	subscription, err := conn.Subscribe(q.log.subject, func(message *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if !stopped && message.Header.Get(writerHeader) != q.log.writer {
			changed()
		}
	})
	if err != nil {
		return nil, err
	}
	return func() {
		mu.Lock()
		stopped = true
		mu.Unlock()
		_ = subscription.Unsubscribe()
	}, nil
}

func logSubject(stream, consumer string) string { return "OFFBOARD." + stream + "." + consumer }

// Name returns how the queue of a consumer is called.
func Name(stream, consumer string) string { return stream + "/" + consumer }

// ParseName is the inverse of Name.
func ParseName(name string) (stream, consumer string, err error) {
	stream, consumer, found := strings.Cut(name, "/")
	if !found || stream == "" || consumer == "" {
		return "", "", fmt.Errorf("%q is no queue of NATS JetStream, want STREAM/CONSUMER", name)
	}
	return stream, consumer, nil
}

// Name implements queue.Queue.
func (q *Queue) Name() string { return Name(q.stream, q.consumer) }

// acquire waits until no other operation of this process is under way.
func (q *Queue) acquire(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case q.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return q.conn.Explain(ctx.Err())
	}
}

// do does one operation, alone in this process.
func (q *Queue) do(ctx context.Context, operation func(ctx context.Context) error) error {
	if err := q.acquire(ctx); err != nil {
		return err
	}
	defer func() { <-q.lock }()
	err := q.prepare(ctx)
	if err == nil {
		err = operation(ctx)
	}
	if err == nil || errors.Is(err, queue.ErrNotFound) {
		return err
	}
	q.checked = false // perhaps stream or consumer are not what they were
	return q.conn.Explain(err)
}

// prepare makes the queue ready for an operation.
func (q *Queue) prepare(ctx context.Context) error {
	if q.log.js == nil {
		conn, err := q.conn.Connect()
		if err != nil {
			return err
		}
		js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(request))
		if err != nil {
			return err
		}
		q.nats, q.log.js = conn, js
	}
	if !q.checked {
		if err := q.check(ctx); err != nil {
			return err
		}
	}
	return q.log.clear(ctx)
}

// check looks whether stream and consumer are fit for it, and still the same.
func (q *Queue) check(ctx context.Context) error {
	found, err := findSource(ctx, q.log.js, q.stream, q.consumer)
	if err != nil {
		return err
	}
	q.source = found
	// What a server takes is known once there was an answer from it.
	q.log.frame = int(max(q.nats.MaxPayload()-frameReserve, frameReserve))
	if err := q.log.open(ctx, found.replicas); err != nil {
		return err
	}
	if _, err := q.log.catchUp(ctx); err != nil {
		return err
	}
	err = q.log.transact(ctx, func(d *draft) error {
		t := &d.totals
		switch {
		case t.Stream == "":
			t.Stream, t.Consumer = q.stream, q.consumer
		case t.Stream != q.stream || t.Consumer != q.consumer:
			return fmt.Errorf("stream %q keeps the state of items of %q: give the consumer another name", q.log.name,
				Name(t.Stream, t.Consumer))
		case q.differ(t.StreamMade, found.streamMade):
			t.Epoch++
			t.StreamEpoch = t.Epoch
		case q.differ(t.ConsumerMade, found.consumerMade):
			t.Epoch++
		default:
			return nil
		}
		t.StreamMade, t.ConsumerMade, t.Floor = found.streamMade, found.consumerMade, 0
		q.kept = kept{}
		return nil
	})
	q.checked = err == nil
	return err
}

// differ tells whether what was created at these times is not the same.
func (q *Queue) differ(before, now time.Time) bool { return now.Sub(before).Abs() > q.sameWithin }

// maintain looks from time to time whether stream and consumer are still the same, and keeps the log small.
func (q *Queue) maintain(ctx context.Context) error {
	now := q.now()
	if now.Sub(q.maintained) < q.every {
		return nil
	}
	if err := q.check(ctx); err != nil {
		return err
	}
	q.maintained = now
	reconnects := q.nats.Stats().Reconnects
	if q.kept.at.IsZero() || q.kept.reconnects != reconnects {
		q.kept = kept{now, q.source.floor, reconnects}
	}
	q.kept.floor = min(q.kept.floor, q.source.floor)
	if now.Sub(q.kept.at) >= q.keptAfter {
		floor := q.kept.floor
		q.kept = kept{now, q.source.floor, reconnects}
		err := q.log.transact(ctx, func(d *draft) error {
			if len(d.done) > 0 {
				d.totals.Floor = max(d.totals.Floor, floor)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return q.log.trim(ctx, q.logSlack)
}

// Settle implements queue.Queue. It is one transaction, however many there are.
func (q *Queue) Settle(ctx context.Context, settlements []queue.Settlement) (held []bool, err error) {
	err = q.do(ctx, func(ctx context.Context) error {
		return q.current(ctx, func(d *draft) error {
			held = make([]bool, len(settlements))
			for i, s := range settlements {
				if held[i], err = d.settle(s, q.now()); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// current makes a transaction. When it comes to nothing, that is so by what is the latest.
func (q *Queue) current(ctx context.Context, do func(*draft) error) error {
	for {
		changes := false
		err := q.log.transact(ctx, func(d *draft) error {
			err := do(d)
			changes = d.changes()
			return err
		})
		if err != nil || changes {
			return err
		}
		if changed, err := q.log.catchUp(ctx); err != nil || !changed {
			return err
		}
	}
}

// read does what needs what is the latest, and changes nothing.
func (q *Queue) read(ctx context.Context, do func(ctx context.Context) error) error {
	return q.do(ctx, func(ctx context.Context) error {
		if _, err := q.log.catchUp(ctx); err != nil {
			return err
		}
		return do(ctx)
	})
}

// errLeases is the answer to what needs leases.
var errLeases = queue.Unsupported("leases are not supported for NATS JetStream; claim through a ScaledJob with " +
	"delivery.mode claim")

// Extend implements queue.Queue. There are no leases.
func (q *Queue) Extend(context.Context, string, int, time.Duration) (bool, error) {
	return false, errLeases
}

// Claims implements queue.Queue.
func (q *Queue) Claims(ctx context.Context, owner string) (claims []queue.Claim, err error) {
	err = q.read(ctx, func(context.Context) error {
		for _, r := range q.log.draft().all(queue.Claimed) {
			if owner == "" || r.Owner == owner {
				claims = append(claims, r.claim(nil))
			}
		}
		return nil
	})
	return claims, err
}

// Claimed returns how many claims there are.
func (q *Queue) Claimed(ctx context.Context) (claimed int64, err error) {
	err = q.read(ctx, func(context.Context) error {
		claimed = int64(len(q.log.draft().all(queue.Claimed)))
		return nil
	})
	return claimed, err
}

// Sweep implements queue.Queue.
func (q *Queue) Sweep(ctx context.Context) (swept queue.Swept, err error) {
	err = q.do(ctx, func(ctx context.Context) error {
		now := q.now()
		err := q.current(ctx, func(d *draft) error {
			swept.Returned = d.returnDue(now)
			return nil
		})
		swept.Next = q.log.next(now)
		return err
	})
	return swept, err
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, owner string) (released int, err error) {
	err = q.do(ctx, func(ctx context.Context) error {
		return q.current(ctx, func(d *draft) error {
			released = 0
			for _, r := range d.all(queue.Claimed) {
				if owner == "" || r.Owner == owner {
					d.ready(r)
					released++
				}
			}
			return nil
		})
	})
	return released, err
}

// RetryDead implements queue.Queue.
func (q *Queue) RetryDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, ids, func(d *draft, r record) {
		r.Failures = 0
		d.ready(r)
	})
}

// DropDead implements queue.Queue.
func (q *Queue) DropDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, ids, func(d *draft, r record) {
		d.finish(r)
		d.totals.Dropped++
	})
}

func (q *Queue) dead(ctx context.Context, ids []string, what func(*draft, record)) (done []string, err error) {
	err = q.do(ctx, func(ctx context.Context) error {
		return q.current(ctx, func(d *draft) error {
			done = nil
			for _, id := range ids {
				if r, found := d.get(id); found && r.State == queue.Dead {
					what(d, r)
					done = append(done, id)
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// List implements queue.Queue.
func (q *Queue) List(ctx context.Context, state queue.State, skip, limit int) (records []queue.Record, err error) {
	switch state {
	case queue.Ready, queue.Delayed, queue.Claimed, queue.Retry, queue.Dead:
	default:
		return nil, queue.NotKept(state)
	}
	skip = max(0, skip)
	err = q.read(ctx, func(ctx context.Context) error {
		known := q.log.draft().all(state)
		if state == queue.Retry || state == queue.Dead {
			slices.SortStableFunc(known, func(a, b record) int { return a.At.Compare(b.At) })
		}
		for _, r := range known[min(skip, len(known)):] {
			if len(records) >= limit {
				break
			}
			record, err := q.record(ctx, r)
			if err != nil {
				return err
			}
			for i, p := range record.Parts {
				record.Parts[i] = p[:min(len(p), shown)]
			}
			records = append(records, record)
		}
		if state != queue.Ready || len(records) >= limit {
			return nil
		}
		waiting, err := q.waiting(ctx, max(0, skip-len(known)), limit-len(records))
		records = append(records, waiting...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// record returns what is known of an item, with its bytes.
func (q *Queue) record(ctx context.Context, r record) (queue.Record, error) {
	parts, err := q.log.loadAll(ctx, r)
	if err != nil {
		return queue.Record{}, err
	}
	return queue.Record{
		Claim: r.claim(parts), State: r.State, Size: int64(r.size()), Total: r.Total,
		FirstFailure: r.Error1, LastFailure: r.Error2, At: r.At,
	}, nil
}

// Get implements queue.Queue.
func (q *Queue) Get(ctx context.Context, id string) (found queue.Record, err error) {
	err = q.read(ctx, func(ctx context.Context) error {
		r, known := q.log.live[id]
		if !known {
			return fmt.Errorf("item %q of %q: %w", id, q.Name(), queue.ErrNotFound)
		}
		found, err = q.record(ctx, r)
		return err
	})
	return found, err
}

// Stats implements queue.Queue. How fast items come and go, and how long the first one has been ready, is not known.
func (q *Queue) Stats(ctx context.Context) (stats queue.Stats, err error) {
	err = q.read(ctx, func(ctx context.Context) error {
		unread, err := q.source.count(ctx)
		if err != nil {
			return err
		}
		t := q.log.totals
		stats = queue.Stats{Ready: unread, Done: t.Done, Buried: t.Buried, Dropped: t.Dropped, Oldest: -1}
		for _, r := range q.log.live {
			switch r.State {
			case queue.Ready:
				stats.Ready++
			case queue.Claimed:
				stats.Claimed++
			case queue.Retry:
				stats.Retry++
			case queue.Dead:
				stats.Dead++
			}
		}
		if stats.Ready == 0 {
			stats.Oldest = 0
		}
		return nil
	})
	return stats, err
}

// Ready returns how many items can be claimed.
func (q *Queue) Ready(ctx context.Context) (ready int64, err error) {
	err = q.read(ctx, func(ctx context.Context) error {
		if ready, err = q.source.count(ctx); err != nil {
			return err
		}
		now := q.now()
		for _, r := range q.log.live {
			if r.State == queue.Ready || r.State == queue.Retry && !r.At.After(now) {
				ready += int64(len(r.Parts))
			}
		}
		return nil
	})
	return ready, err
}

// Push implements queue.Queue. Of several items some may arrive although there is an error.
func (q *Queue) Push(ctx context.Context, o queue.PushOptions, items ...[]byte) (pushed queue.Pushed, err error) {
	if o.Delay > 0 || !o.At.IsZero() || o.Unique != "" {
		return pushed, queue.Unsupported("pushes for later or only once are not supported for NATS JetStream; " +
			"push at once, or publish with a client and a Nats-Msg-Id")
	}
	err = q.do(ctx, func(ctx context.Context) error {
		subject, err := q.source.pushSubject()
		if err != nil {
			return err
		}
		futures := make([]jetstream.PubAckFuture, 0, len(items))
		for _, item := range items {
			future, err := q.log.js.PublishAsync(subject, item)
			if err != nil {
				return fmt.Errorf("some of the %d items may have arrived: %w", len(items), err)
			}
			futures = append(futures, future)
		}
		for i, future := range futures {
			select {
			case <-future.Ok():
				continue
			case err = <-future.Err():
			case <-ctx.Done():
				err = ctx.Err()
			}
			return fmt.Errorf("the first %d of %d items have arrived, others may have: %w", i, len(items), err)
		}
		unread, err := q.source.count(ctx)
		if err != nil {
			return fmt.Errorf("all items have arrived, but how many there are is not known: %w", err)
		}
		pushed.Length = unread + int64(len(q.log.draft().all(queue.Ready)))
		return nil
	})
	return pushed, err
}
