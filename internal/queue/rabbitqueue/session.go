package rabbitqueue

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// openTimeout bounds how long it takes to connect and to read the journal.
	openTimeout = 2 * time.Minute
	// prefetch is how many entries of a stream are on their way at a time.
	prefetch = 100
	// replicaWithin is for how long a stream may be refused that is just being made; replicaEvery is between two tries.
	replicaWithin, replicaEvery = 10 * time.Second, 50 * time.Millisecond
	// goodbye is how long the server may take to answer that the connection is closed.
	goodbye = time.Second
	// maxEvent is about how many bytes an event has at most, unless a single message is larger.
	maxEvent = 4 << 20
)

// limits are those of a session.
type limits struct {
	// keptAfter is how long a connection must live on after an acknowledgement until that is taken to be kept.
	keptAfter time.Duration
	// tickEvery is how often it is looked whether acknowledgements are kept.
	tickEvery time.Duration
	// returnedAfter is how long the server may take to notice that another process is gone and to have its messages back
	// in the queue.
	returnedAfter time.Duration
	// registered is how long a server must live on after it has made a stream until it will have it after a crash too.
	registered time.Duration
	// compactAfter is the size in bytes from which on a journal may be replaced.
	compactAfter int64
}

// usual are the limits for all but tests. RabbitMQ writes an acknowledgement to its disk within a second, and takes at
// most two heartbeats, of 10 seconds here, to notice that a process is gone.
var usual = limits{
	keptAfter: 10 * time.Second, tickEvery: 5 * time.Second, returnedAfter: time.Minute, registered: 5 * time.Second,
	compactAfter: 64 << 20,
}

// errRenewed tells that the journal was closed before the event, and goes on in another stream.
var errRenewed = errors.New("the journal goes on in another stream")

// missingError tells that there is no stream of that name, which the index says is the journal.
type missingError string

func (e missingError) Error() string {
	return fmt.Sprintf("stream %q is missing, which has what was claimed, put off and given up: bring it back, or delete "+
		"its index too, the stream named without what follows the last dot, to begin anew without all that", string(e))
}

// session is a connection that has read the journal and follows it. It ends when anything fails on it: then what it
// holds goes back to the queue.
type session struct {
	queue string
	id    string
	conn  *amqp.Connection
	index *index
	// stream is what has the journal, and number its number.
	stream string
	number int
	limits limits

	running sync.WaitGroup
	// done is closed at the end, after err is set.
	done chan struct{}
	// long holds an element when the journal has become long.
	long chan struct{}

	mu      sync.Mutex
	err     error
	state   *state
	waiting map[string]chan result
	sent    int

	// publishing is held while publish is used.
	publishing sync.Mutex
	publish    *amqp.Channel

	// getting is held while get, and what follows, is used.
	getting sync.Mutex
	get     *amqp.Channel
	// doubtful is how many of the messages that were in the queue when the session began may still be there.
	doubtful int
	// acked are messages that were acknowledged, oldest first.
	acked []acknowledged
	// review looks for messages that other sessions have left.
	review review
}

// acknowledged is a message by the id under which the journal knows it.
type acknowledged struct {
	id string
	at time.Time
}

// review is about messages of other sessions, whose connections are gone, or whose acknowledgements are kept, after a
// while: what of them is in the queue by then comes before what is pushed later.
type review struct {
	// kept are the messages, each with its session; nil when there is no review.
	kept  map[string]string
	since time.Time
	// counted tells that left is how many messages are to be got until all of then are seen.
	counted bool
	left    int
}

// openSession connects and reads the journal, whose number is at least the least. It makes the first one where there is
// none. A session that has failed is returned as well.
func openSession(ctx context.Context, server Server, queue string, l limits, least int) (*session, error) {
	conn, err := server.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{
		queue: queue, id: rand.Text(), conn: conn, limits: l, done: make(chan struct{}),
		state: newState(), waiting: map[string]chan result{}, long: make(chan struct{}, 1),
	}
	stop := context.AfterFunc(ctx, func() { s.fail(ctx.Err()) })
	err = s.open(ctx, least)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.fail(err)
		s.running.Wait()
		return s, s.failure()
	}
	return s, nil
}

func (s *session) open(ctx context.Context, least int) (err error) {
	if s.get, err = s.conn.Channel(); err != nil {
		return err
	}
	// The queue is asked for first: without it there is to be no journal.
	declared, err := s.get.QueueDeclarePassive(s.queue, true, false, false, false, nil)
	if err != nil {
		return err
	}
	if s.publish, err = s.conn.Channel(); err != nil {
		return err
	}
	closed := s.publish.NotifyClose(make(chan *amqp.Error, 1))
	s.running.Go(func() {
		select {
		case reason := <-closed:
			if reason != nil {
				s.fail(reason)
			}
			s.fail(amqp.ErrClosed)
		case <-s.done:
		}
	})
	if s.index, err = openIndex(s); err != nil {
		return err
	}
	if err := s.find(ctx, least); err != nil {
		return err
	}
	if _, err := s.append(ctx, &event{Kind: kindBegin}); err != nil {
		return err
	}
	// Again, since what others held may have come back meanwhile.
	if declared, err = s.get.QueueDeclarePassive(s.queue, true, false, false, false, nil); err != nil {
		return err
	}
	s.doubtful = declared.Messages
	s.running.Go(s.tick)
	return nil
}

// find looks up which stream has the journal, makes one where there is none, and begins to read it. The number of the
// journal is known to be at least the least.
func (s *session) find(ctx context.Context, least int) error {
	within := s.limits.registered + announcedWithin // if another process is making the first one
	switch {
	case s.index.isNew:
		within = 0
	case least > 1:
		within = openTimeout // others have announced it
	}
	last, err := s.index.wait(ctx, least, within)
	if errors.Is(err, errNotAnnounced) && least == 1 {
		last, err = s.make(ctx, 1, newState())
	}
	for err == nil {
		last = s.index.latest(last)
		s.stream, s.number = last.Stream, last.Number
		var missing missingError
		if err = s.follow(s.stream, s.read); !errors.As(err, &missing) {
			return err
		}
		// Another one has followed it, of which the index has not told yet.
		if last, err = s.index.wait(ctx, last.Number+1, missingWithin); errors.Is(err, errNotAnnounced) {
			return missing
		}
	}
	return err
}

// follow calls read for each entry of a stream, from its first one on, until the session ends.
func (s *session) follow(stream string, read func(entry []byte) error) error {
	entries, err := s.consume(stream)
	if err != nil {
		var reply *amqp.Error
		if stream != s.index.name && errors.As(err, &reply) && reply.Code == amqp.NotFound {
			return missingError(stream)
		}
		return err
	}
	s.running.Go(func() {
		unacked := 0
		for entry := range entries {
			if err := read(entry.Body); err != nil {
				s.fail(fmt.Errorf("%s at %v: %w", stream, entry.Headers["x-stream-offset"], err))
				// What follows must not count: it was written by who could read that entry.
				for range entries {
					continue // until the channel is closed
				}
				return
			}
			// The server sends more when those before are acknowledged; and it closes a channel that owes it some for long.
			if unacked++; unacked >= prefetch/2 || len(entries) == 0 {
				unacked = 0
				if err := entry.Ack(true); err != nil {
					s.fail(err)
				}
			}
		}
		s.fail(amqp.ErrClosed) // for example because the stream was deleted
	})
	return nil
}

// consume begins to read a stream at its first entry. While another process is making the stream, the server refuses
// that for a moment: it says that the stream has no replica on its node.
func (s *session) consume(stream string) (<-chan amqp.Delivery, error) {
	for deadline := time.Now().Add(replicaWithin); ; {
		channel, err := s.conn.Channel()
		if err != nil {
			return nil, err
		}
		if err := channel.Qos(prefetch, 0, false); err != nil {
			return nil, err
		}
		entries, err := channel.Consume(stream, "", false, false, false, false, amqp.Table{"x-stream-offset": "first"})
		var reply *amqp.Error
		if !errors.As(err, &reply) || reply.Code != amqp.PreconditionFailed || time.Now().After(deadline) {
			return entries, err
		}
		select {
		case <-s.done:
			return nil, err
		case <-time.After(replicaEvery):
		}
	}
}

// read applies an entry of the journal.
func (s *session) read(entry []byte) error {
	e, err := decode(entry)
	if err != nil {
		return err
	}
	s.mu.Lock()
	came := s.state.apply(e, len(entry))
	waits := s.waiting[e.ID]
	delete(s.waiting, e.ID)
	long := s.state.size > s.limits.compactAfter && s.state.size > garbage*s.state.live
	s.mu.Unlock()
	if waits != nil {
		waits <- came
	}
	if long {
		select {
		case s.long <- struct{}{}:
		default:
		}
	}
	if e.Kind == kindClose && !came.closed {
		s.running.Go(func() { s.renew(e.Session == s.id) })
	}
	return nil
}

// append appends an event and waits for what came of it. After an error other than errRenewed it is unknown whether it
// took effect, or will.
func (s *session) append(ctx context.Context, e *event) (result, error) {
	waits := make(chan result, 1)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return result{}, s.err
	}
	s.sent++
	e.ID, e.Session, e.Now = s.id+"-"+strconv.Itoa(s.sent), s.id, time.Now().UnixMilli()
	s.waiting[e.ID] = waits
	s.mu.Unlock()
	entry, err := e.encode()
	if err != nil {
		return result{}, err
	}
	if err := s.send(ctx, s.stream, entry); err != nil {
		return result{}, err
	}
	select {
	case came := <-waits:
		if !came.closed {
			return came, nil
		}
	case <-s.done:
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
	select {
	case <-s.done: // also when the next journal has been made
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
	select {
	case came := <-waits:
		if !came.closed {
			return came, nil
		}
	default:
	}
	return result{}, s.failure()
}

// send publishes an entry to a stream.
func (s *session) send(ctx context.Context, stream string, entry []byte) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	err := s.publish.PublishWithContext(ctx, "", stream, false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: entry})
	if err != nil {
		s.fail(err)
		return s.failure()
	}
	return nil
}

// fail ends the session for that reason, unless it has ended.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.done)
	s.running.Go(func() { _ = s.conn.CloseDeadline(time.Now().Add(goodbye)) }) // an error means that it is lost already
}

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// stop ends the session and waits for its goroutines.
func (s *session) stop() {
	s.fail(errClosed)
	s.running.Wait()
}

// message is one that was got from the queue and is not acknowledged.
type message struct {
	taken
	tag uint64
}

// printOf returns what tells a message from others.
func printOf(id string, body []byte) string {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%d:%s", len(id), id) // never fails
	_, _ = sum.Write(body)
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// fetch gets up to so many messages from the queue, up to that size if it is above 0, has the journal take them, and
// then claims. Nothing is claimed where there is no message, unless always. left is how many messages the queue still
// has.
func (s *session) fetch(
	ctx context.Context, most int, size int64, o *claim, always bool,
) (came result, left int64, err error) {
	s.getting.Lock()
	defer s.getting.Unlock()
	// An answer that does not come in time leaves open what is held: so the connection ends.
	stop := context.AfterFunc(ctx, func() { s.fail(ctx.Err()) })
	defer stop()
	defer func() {
		if err != nil {
			s.fail(err)
			err = s.failure()
		}
	}()
	if most <= 0 {
		declared, err := s.get.QueueDeclarePassive(s.queue, true, false, false, false, nil)
		if err != nil {
			return came, left, err
		}
		left = int64(declared.Messages)
	}
	var total int64
	got := false
	for done := false; !done; {
		var messages []message
		var bytes int64
		for done = true; most > 0; most-- {
			one, found, err := s.get.Get(s.queue, false)
			if err != nil {
				return came, left, err
			}
			if !found {
				left, s.doubtful, most = 0, 0, 0
				break
			}
			left = int64(one.MessageCount)
			messages = append(messages, message{tag: one.DeliveryTag, taken: taken{
				Print: printOf(one.MessageId, one.Body), Doubt: one.Redelivered || s.doubtful > 0, body: one.Body,
			}})
			s.doubtful = max(0, s.doubtful-1)
			bytes += int64(len(one.Body))
			if size > 0 && total+bytes >= size {
				most = 1
			}
			if bytes >= maxEvent && most > 1 {
				done = false // the rest in another event
				most--
				break
			}
		}
		total += bytes
		got = got || len(messages) > 0
		s.review.left -= len(messages)
		if left == 0 {
			s.review.left = 0
		}
		e := &event{Kind: kindClaim}
		if done && (got || always) {
			e.Claim = o
		}
		if e.Claim == nil && len(messages) == 0 {
			return came, left, nil
		}
		for _, one := range messages {
			e.Take = append(e.Take, one.taken)
		}
		if came, err = s.append(ctx, e); err != nil {
			return came, left, err
		}
		for i, one := range messages {
			if err := s.get.Ack(one.tag, false); err != nil {
				s.fail(err) // it comes back to the queue, and the journal knows it
				return came, left, nil
			}
			s.acked = append(s.acked, acknowledged{id: came.ids[i], at: time.Now()})
		}
	}
	return came, left, nil
}

// tick tells the journal from time to time which acknowledgements are kept.
func (s *session) tick() {
	ticker := time.NewTicker(s.limits.tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.long:
			s.tell(&event{Kind: kindClose})
		case <-ticker.C:
			if kept := s.kept(); len(kept) > 0 {
				s.tell(&event{Kind: kindKept, Kept: kept})
			}
		}
	}
}

// tell appends an event that nobody else waits for.
func (s *session) tell(e *event) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	if _, err := s.append(ctx, e); err != nil {
		s.fail(err)
	}
}

// kept returns which messages need not be remembered any more, each with its session.
func (s *session) kept() map[string]string {
	if !s.getting.TryLock() {
		return nil // the next time
	}
	defer s.getting.Unlock()
	kept := map[string]string{}
	n := 0
	for ; n < len(s.acked) && time.Since(s.acked[n].at) > s.limits.keptAfter; n++ {
		kept[s.acked[n].id] = s.id
	}
	s.acked = append([]acknowledged(nil), s.acked[n:]...)
	switch {
	case s.review.kept == nil:
		s.mu.Lock()
		for id, one := range s.state.unkept {
			if one.Session != s.id {
				if s.review.kept == nil {
					s.review = review{kept: map[string]string{}, since: time.Now()}
				}
				s.review.kept[id] = one.Session
			}
		}
		s.mu.Unlock()
	case time.Since(s.review.since) < s.limits.returnedAfter:
	case !s.review.counted:
		declared, err := s.get.QueueDeclarePassive(s.queue, true, false, false, false, nil)
		if err != nil {
			s.fail(err)
			return nil
		}
		s.review.counted, s.review.left = true, declared.Messages
	}
	if s.review.counted && s.review.left <= 0 {
		for id, session := range s.review.kept {
			kept[id] = session
		}
		s.review = review{}
	}
	return kept
}
