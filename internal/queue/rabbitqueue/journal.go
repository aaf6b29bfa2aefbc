package rabbitqueue

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// announcedWithin is how long an announcement is waited for before one is made, besides what it takes until a stream
	// is registered: the index is short, and whoever closes a journal makes the next one at once.
	announcedWithin = 3 * time.Second
	// missingWithin is how long it takes at the most until the index tells that a journal which is missing was followed
	// by another one.
	missingWithin = 10 * time.Second
	// asks is how often the server is asked for a new journal until that is taken to be kept.
	asks = 10
	// looks is into how many parts a time is divided that is waited for.
	looks = 20
	// garbage is how many times as large as what it tells a journal may be.
	garbage = 4
	// latestWithin is how long further entries of the index may take to come.
	latestWithin = 50 * time.Millisecond
)

var errNotAnnounced = errors.New("no journal is announced")

// announcement is an entry of the index.
type announcement struct {
	// Number counts the journals, from 1.
	Number int    `json:"number"`
	Stream string `json:"stream"`
	// Begun tells that the stream is being made: it is no journal until it is announced again.
	Begun bool `json:"begun,omitempty"`
}

// index is what the index says.
type index struct {
	name string
	// isNew tells that this process has made it.
	isNew bool

	mu sync.Mutex
	// last is the journal of the highest number; the first one announced of that number.
	last  announcement
	begun []announcement
	// changed is closed, and made anew, when there is another entry.
	changed chan struct{}
}

// openIndex makes the index where there is none, and follows it.
func openIndex(s *session) (*index, error) {
	x := &index{name: s.queue + ".offboard", changed: make(chan struct{})}
	s.index = x
	probe, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	switch _, err := probe.QueueDeclarePassive(x.name, true, false, false, false, nil); {
	case err == nil:
		_ = probe.Close() // an error shows with what follows
	case isReply(err, amqp.NotFound):
		x.isNew = true
	default:
		return nil, err
	}
	if err := s.declare(x.name); err != nil { // also refused where it is no stream
		return nil, err
	}
	return x, s.follow(x.name, x.read)
}

func isReply(err error, code int) bool {
	var reply *amqp.Error
	return errors.As(err, &reply) && reply.Code == code
}

// declare makes a stream unless there is one of that name.
func (s *session) declare(name string) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	_, err := s.publish.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "stream"})
	return err
}

func (x *index) read(entry []byte) error {
	var a announcement
	if err := json.Unmarshal(entry, &a); err != nil || a.Number < 1 || !strings.HasPrefix(a.Stream, x.name+".") {
		return errors.New("it is no announcement of Offboard's")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if a.Begun {
		x.begun = append(x.begun, a)
	} else if a.Number > x.last.Number {
		x.last = a
	}
	close(x.changed)
	x.changed = make(chan struct{})
	return nil
}

// wait returns the last journal once its number is as high as that. The error is errNotAnnounced when there is none in
// time. While this process is stopped, or has no turn, no time passes: what came meanwhile is to be read first.
func (x *index) wait(ctx context.Context, number int, within time.Duration) (announcement, error) {
	ticker := time.NewTicker(max(1, within/looks))
	defer ticker.Stop()
	for ticks := 0; ; {
		x.mu.Lock()
		last, changed := x.last, x.changed
		x.mu.Unlock()
		if last.Number >= number {
			return last, nil
		}
		select {
		case <-changed:
		case <-ticker.C:
			if ticks++; ticks > looks {
				return announcement{}, errNotAnnounced
			}
		case <-ctx.Done():
			return announcement{}, ctx.Err()
		}
	}
}

// latest returns the last journal when no further entry of the index comes for a moment. What comes later is found out
// by reading a journal that is closed, or missing.
func (x *index) latest(known announcement) announcement {
	for {
		x.mu.Lock()
		last, changed := x.last, x.changed
		x.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(latestWithin):
			if last.Number > known.Number {
				return last
			}
			return known
		}
	}
}

// renew ends the session when there is the journal that follows: made by whoever has closed this one, or else by
// whoever waits for it.
func (s *session) renew(own bool) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.fail(ctx.Err()) })
	defer stop()
	err := errNotAnnounced
	if !own {
		_, err = s.index.wait(ctx, s.number+1, s.limits.registered+announcedWithin)
	}
	if errors.Is(err, errNotAnnounced) {
		_, err = s.make(ctx, s.number+1, s.state)
	}
	if err == nil {
		err = errRenewed
	}
	s.fail(err)
}

// make makes the journal of that number, which begins with the state, unless another process is first, and returns what
// is the journal then. The state must not change any more.
func (s *session) make(ctx context.Context, number int, begin *state) (last announcement, err error) {
	made := announcement{
		Number: number, Begun: true,
		Stream: fmt.Sprintf("%s.%d-%s", s.index.name, number, strings.ToLower(rand.Text())),
	}
	if err := s.announce(ctx, made); err != nil {
		return last, err
	}
	if err := s.declare(made.Stream); err != nil {
		return last, err
	}
	if err := s.registered(ctx, made.Stream); err != nil {
		return last, err
	}
	s.mu.Lock()
	events := begin.snapshot()
	s.mu.Unlock()
	channel, err := s.conn.Channel()
	if err != nil {
		return last, err
	}
	if err := channel.Confirm(false); err != nil {
		return last, err
	}
	for _, e := range events {
		e.Session = s.id
		entry, err := e.encode()
		if err != nil {
			return last, err
		}
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", made.Stream, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: entry})
		if err != nil {
			return last, err
		}
		if taken, err := confirmation.WaitContext(ctx); err != nil {
			return last, err
		} else if !taken {
			return last, fmt.Errorf("the server does not take an entry of %s", made.Stream)
		}
	}
	made.Begun = false
	if err := s.announce(ctx, made); err != nil {
		return last, err
	}
	if last, err = s.index.wait(ctx, number, openTimeout); err != nil {
		return last, err
	}
	return last, s.clean(channel, last, made)
}

// registered waits until the server will have a new journal after a crash too.
//
// RabbitMQ 3.10 answers that there is a stream before that is on its disk. It writes what was declared some 2 seconds
// later; and when the first stream of all is made, it notes within 3 seconds only that it has the process to start
// which knows of all streams: after a crash before that, all of them stay down for good. So nothing is written, and no
// message is acknowledged, before the node has lived for longer. It is asked from time to time instead of once in the
// end, since it might be stopped meanwhile.
func (s *session) registered(ctx context.Context, stream string) error {
	for range asks {
		select {
		case <-time.After(s.limits.registered / asks):
		case <-s.done:
			return s.failure()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.declare(stream); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) announce(ctx context.Context, a announcement) error {
	entry, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return s.send(ctx, s.index.name, entry)
}

// clean deletes the streams that are not needed any more: the one that was made, where another one is the journal; or
// else all that were made before, but for the journal that this one follows. That has others who have not noticed yet,
// and RabbitMQ ends connections that write to a stream while it is deleted.
func (s *session) clean(channel *amqp.Channel, last, made announcement) error {
	old := []announcement{made}
	if last.Stream == made.Stream {
		s.index.mu.Lock()
		old = slices.Clone(s.index.begun)
		s.index.mu.Unlock()
	}
	for _, a := range old {
		if a.Number > made.Number || a.Stream == last.Stream || a.Stream == s.stream {
			continue
		}
		if _, err := channel.QueueDelete(a.Stream, false, false, false); err != nil {
			return err // that it does not exist is none
		}
	}
	return nil
}
