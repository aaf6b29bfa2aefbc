package rabbitqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// operationTimeout bounds one operation, connecting included.
	operationTimeout = 30 * time.Second
	// retryAfter is for how long a connection that could not be made is not tried again.
	retryAfter = time.Second
	// mostTries is how often it is tried again to connect after an error that passes, and betweenTries how long it is
	// waited before.
	mostTries    = 5
	betweenTries = 100 * time.Millisecond
	// maxListed is how many ready items can be looked at.
	maxListed = 1000
	// maxSettle is how many claims one event settles.
	maxSettle = 1000
)

var errClosed = errors.New("the queue is not used any more")

var errNoLeases = queue.Unsupported("a claim on a queue of RabbitMQ has no lease: use delivery by claim of a ScaledJob")

// Server is how a server is reached.
type Server interface {
	// Dial connects, within the context. What it returns belongs to the caller.
	Dial(ctx context.Context) (*amqp.Connection, error)
	// Explain says what an error of the connection means. It holds no secret.
	Explain(err error, queue string) error
}

// Queue is the items of one queue. All who claim from it in a process share one Queue. It connects when it is first
// used, and again after its connection is lost.
type Queue struct {
	server Server
	name   string
	// limits are the usual ones, unless a test has set others.
	limits limits

	// ctx ends with the queue.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	session  *session
	opening  *opening
	failure  error
	failedAt time.Time
}

// opening is a session that is being made.
type opening struct {
	done    chan struct{}
	session *session
	err     error
}

var _ queue.Queue = (*Queue)(nil)

// New returns the items of a queue. It must be closed.
func New(server Server, name string) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	return &Queue{server: server, name: name, limits: usual, ctx: ctx, cancel: cancel}
}

// Close ends the connection and waits for what is under way.
func (q *Queue) Close() {
	q.cancel()
	q.mu.Lock()
	if q.session != nil {
		q.session.fail(errClosed)
	}
	q.mu.Unlock()
	q.running.Wait()
	if q.session != nil {
		q.session.stop()
	}
}

// Name implements queue.Queue.
func (q *Queue) Name() string { return q.name }

// current returns the session, made anew where there is none.
func (q *Queue) current(ctx context.Context) (*session, error) {
	q.mu.Lock()
	switch {
	case q.ctx.Err() != nil:
		q.mu.Unlock()
		return nil, errClosed
	case q.session != nil && q.session.failure() == nil:
		defer q.mu.Unlock()
		return q.session, nil
	case q.opening == nil && q.failure != nil && time.Since(q.failedAt) < retryAfter:
		defer q.mu.Unlock()
		return nil, q.failure
	case q.opening == nil:
		q.open()
	}
	made := q.opening
	q.mu.Unlock()
	select {
	case <-made.done:
		return made.session, made.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// open begins to make a session. It goes on when the one who wanted it first does not wait any more.
func (q *Queue) open() {
	made, former := &opening{done: make(chan struct{})}, q.session
	q.opening, q.session = made, nil
	q.running.Go(func() {
		if former != nil {
			former.stop()
		}
		ctx, cancel := context.WithTimeout(q.ctx, openTimeout)
		defer cancel()
		made.session, made.err = q.connect(ctx)
		q.mu.Lock()
		q.session, q.opening = made.session, nil
		q.failure, q.failedAt = made.err, time.Now()
		q.mu.Unlock()
		close(made.done)
	})
}

// connect makes a session. Some errors pass: the journal is renewed, or a stream is being made by another process,
// which RabbitMQ calls an internal error.
func (q *Queue) connect(ctx context.Context) (*session, error) {
	for tries, least := 0, 1; ; tries++ {
		s, err := openSession(ctx, q.server, q.name, q.limits, least)
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, errRenewed):
			least, tries = s.number+1, 0
		case !isReply(err, amqp.InternalError) || tries > mostTries || ctx.Err() != nil:
			return nil, err
		}
		time.Sleep(betweenTries)
	}
}

// with calls do with a session; again with the next one when the journal has been renewed.
func (q *Queue) with(ctx context.Context, do func(ctx context.Context, s *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	for {
		s, err := q.current(ctx)
		if err == nil {
			err = do(ctx, s)
		}
		if err == nil || errors.Is(err, errClosed) {
			return err
		}
		if !errors.Is(err, errRenewed) || ctx.Err() != nil {
			return q.server.Explain(err, q.name)
		}
	}
}

// append appends an event.
func (q *Queue) append(ctx context.Context, e *event) (came result, err error) {
	err = q.with(ctx, func(ctx context.Context, s *session) (err error) {
		came, err = s.append(ctx, e)
		return err
	})
	return came, err
}

// look calls do with the state.
func (q *Queue) look(ctx context.Context, do func(s *state)) error {
	return q.with(ctx, func(_ context.Context, s *session) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		do(s.state)
		return nil
	})
}

// Claim implements queue.Queue. There are no leases.
func (q *Queue) Claim(ctx context.Context, o queue.ClaimOptions) (claimed queue.ClaimResult, err error) {
	if o.Owner == "" {
		return claimed, queue.ErrNoOwner
	}
	if o.Lease != 0 {
		return claimed, errNoLeases
	}
	c := &claim{Owner: o.Owner, Most: o.Most, Holds: o.Holds, Parts: max(1, o.Parts), Bytes: o.Bytes}
	err = q.with(ctx, func(ctx context.Context, s *session) error {
		for {
			s.mu.Lock()
			most := o.Most
			if o.Holds > 0 {
				most = min(most, o.Holds-s.state.held[o.Owner])
			}
			ready, size := s.state.ready()
			due := s.state.next() > 0 && s.state.next() <= time.Now().UnixMilli()
			s.mu.Unlock()
			wanted, bytes := most*c.Parts-ready, o.Bytes
			if o.Bytes > 0 && ready > 0 {
				if bytes -= size; bytes <= 0 {
					wanted = 0
				}
			}
			came, left, err := s.fetch(ctx, wanted, bytes, c, most > 0 && (ready > 0 || due))
			if err != nil {
				return err
			}
			if wanted > 0 && left > 0 && len(came.claims) == 0 {
				continue // what there was had been taken before
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			ready, _ = s.state.ready()
			claimed = queue.ClaimResult{Claims: came.claims, Ready: left + int64(ready), Next: s.state.wait()}
			return nil
		}
	})
	return claimed, err
}

// Settle implements queue.Queue. It settles at most maxSettle claims at once: more are not all or none.
func (q *Queue) Settle(ctx context.Context, settlements []queue.Settlement) ([]bool, error) {
	settlements = slices.Clone(settlements)
	for i := range settlements {
		s := &settlements[i]
		switch s.Verb {
		case queue.Ack, queue.PutOff, queue.Bury, queue.Drop, queue.GiveBack:
		default:
			return nil, fmt.Errorf("settle item %q: there is no verb %q", s.ID, s.Verb)
		}
		if s.Failure != nil {
			cut := s.Failure.Cut()
			s.Failure = &cut
		}
	}
	held := make([]bool, 0, len(settlements))
	for page := range slices.Chunk(settlements, maxSettle) {
		came, err := q.append(ctx, &event{Kind: kindSettle, Settlements: page})
		if err != nil {
			return held, err
		}
		held = append(held, came.held...)
	}
	return held, nil
}

// Extend implements queue.Queue. There are no leases.
func (q *Queue) Extend(context.Context, string, int, time.Duration) (bool, error) {
	return false, errNoLeases
}

// Claims implements queue.Queue.
func (q *Queue) Claims(ctx context.Context, owner string) (claims []queue.Claim, err error) {
	err = q.look(ctx, func(s *state) {
		for _, r := range s.sorted(queue.Claimed) {
			if owner == "" || r.Owner == owner {
				c := r.claim()
				c.Parts = nil
				claims = append(claims, c)
			}
		}
	})
	return claims, err
}

// Sweep implements queue.Queue.
func (q *Queue) Sweep(ctx context.Context) (swept queue.Swept, err error) {
	due := false
	if err := q.look(ctx, func(s *state) { swept.Next = s.wait(); due = swept.Next == 0 }); err != nil || !due {
		return swept, err
	}
	came, err := q.append(ctx, &event{Kind: kindSweep})
	if err != nil {
		return swept, err
	}
	swept.Returned = came.count
	return swept, q.look(ctx, func(s *state) { swept.Next = s.wait() })
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, owner string) (int, error) {
	came, err := q.append(ctx, &event{Kind: kindRelease, Owner: owner})
	return came.count, err
}

// Push implements queue.Queue: all items or none, at once.
func (q *Queue) Push(ctx context.Context, o queue.PushOptions, items ...[]byte) (pushed queue.Pushed, err error) {
	if o.Delay > 0 || !o.At.IsZero() || o.Unique != "" {
		return pushed, queue.Unsupported("a queue of RabbitMQ takes items at once only, " +
			"not for later and not with a unique key")
	}
	if len(items) == 0 {
		return pushed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	left, err := publish(ctx, q.server, q.name, items)
	if err != nil {
		return pushed, q.server.Explain(err, q.name)
	}
	ready, _, err := q.Counts(ctx)
	if err != nil {
		return pushed, fmt.Errorf("the items are pushed, but how many there are is not known: %w", err)
	}
	pushed.Length = left + ready
	return pushed, nil
}

// publish publishes messages to the queue, all or none, and returns how many it has then. It has a connection of its
// own: a session may end at any time.
func publish(ctx context.Context, server Server, name string, items [][]byte) (left int64, err error) {
	conn, err := server.Dial(ctx)
	if err != nil {
		return 0, err
	}
	hangUp := func() { _ = conn.CloseDeadline(time.Now().Add(goodbye)) } // an error means that it is lost already
	defer hangUp()
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	channel, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	returned := channel.NotifyReturn(make(chan amqp.Return, len(items)))
	if err := channel.Tx(); err != nil {
		return 0, err
	}
	for _, item := range items {
		err := channel.PublishWithContext(ctx, "", name, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: item})
		if err != nil {
			return 0, err
		}
	}
	if err := channel.TxCommit(); err != nil {
		return 0, fmt.Errorf("it is not known whether the items are pushed: %w", err)
	}
	select {
	case <-returned:
		return 0, &amqp.Error{Code: amqp.NotFound, Reason: "no queue takes the items", Server: true}
	default:
	}
	declared, err := channel.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("the items are pushed, but how many there are is not known: %w", err)
	}
	return int64(declared.Messages), nil
}

// List implements queue.Queue. Ready items beyond the first maxListed are not shown. Those that are shown are taken
// into the journal: to look at a message and to leave it in the queue is not possible without marking it as
// redelivered.
func (q *Queue) List(ctx context.Context, state queue.State, skip, limit int) (records []queue.Record, err error) {
	switch state {
	case queue.Ready, queue.Claimed, queue.Retry, queue.Dead:
	case queue.Delayed:
		return nil, nil
	default:
		return nil, queue.NotKept(state)
	}
	if limit <= 0 {
		return nil, nil
	}
	skip = max(0, skip)
	err = q.with(ctx, func(ctx context.Context, s *session) error {
		if state == queue.Ready {
			s.mu.Lock()
			ready, _ := s.state.ready()
			s.mu.Unlock()
			if wanted := min(skip+limit, maxListed) - ready; wanted > 0 {
				if _, _, err := s.fetch(ctx, wanted, 0, nil, false); err != nil {
					return err
				}
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		all := s.state.sorted(state)
		all = all[min(skip, len(all)):]
		records = nil
		for _, r := range all[:min(limit, len(all))] {
			records = append(records, r.record(false))
		}
		return nil
	})
	return records, err
}

// Get implements queue.Queue.
func (q *Queue) Get(ctx context.Context, id string) (record queue.Record, err error) {
	found := false
	err = q.look(ctx, func(s *state) {
		if r := s.records[id]; r != nil {
			record, found = r.record(true), true
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("item %q of %q: %w", id, q.name, queue.ErrNotFound)
	}
	return record, err
}

// RetryDead implements queue.Queue.
func (q *Queue) RetryDead(ctx context.Context, ids ...string) ([]string, error) {
	came, err := q.append(ctx, &event{Kind: kindRetry, IDs: ids})
	return came.ids, err
}

// DropDead implements queue.Queue.
func (q *Queue) DropDead(ctx context.Context, ids ...string) ([]string, error) {
	came, err := q.append(ctx, &event{Kind: kindDrop, IDs: ids})
	return came.ids, err
}

// Stats implements queue.Queue. The rates are not known.
func (q *Queue) Stats(ctx context.Context) (stats queue.Stats, err error) {
	err = q.with(ctx, func(ctx context.Context, s *session) error {
		_, left, err := s.fetch(ctx, 0, 0, nil, false)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		count := func(name queue.State) int64 { return int64(len(s.state.states[name])) }
		ready, _ := s.state.ready()
		stats = queue.Stats{
			Ready: left + int64(ready), Claimed: count(queue.Claimed), Retry: count(queue.Retry), Dead: count(queue.Dead),
			Done: s.state.Done, Buried: s.state.Buried, Dropped: s.state.Dropped, Oldest: -1,
		}
		return nil
	})
	return stats, err
}

// Counts returns how many elements are ready although they are not in the queue any more, and how many claims there
// are. It asks nobody while there is a connection.
func (q *Queue) Counts(ctx context.Context) (ready, claimed int64, err error) {
	err = q.look(ctx, func(s *state) {
		n, _ := s.ready()
		ready, claimed = int64(n), int64(len(s.states[queue.Claimed]))
	})
	return ready, claimed, err
}
