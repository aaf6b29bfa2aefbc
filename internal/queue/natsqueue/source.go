package natsqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// statusHeader is the header of a message by which the server says what has become of a request.
	statusHeader = "Status"
	// silence is after how long without a message it is asked whether there may be more, mostAsked how often.
	silence, mostAsked = time.Second, 4
)

var errSilent = errors.New("the server has messages and does not send them")

// source is the consumer that items come from.
type source struct {
	consumer                 jetstream.Consumer
	stream                   jetstream.Stream
	streamMade, consumerMade time.Time
	replicas                 int
	// filters are the subjects that the consumer has, empty for all of the stream's, which are subjects.
	filters, subjects []string
	// most is how many messages one request may ask for; 0 means any number.
	most int
	// ackWait is after which time the server delivers again what is not acknowledged.
	ackWait time.Duration
	// floor is up to which message of the stream all are acknowledged.
	floor uint64
}

// findSource asks for the consumer. The error says what about it is not fit.
func findSource(ctx context.Context, js jetstream.JetStream, streamName, name string) (source, error) {
	stream, err := js.Stream(ctx, streamName)
	if err != nil {
		return source{}, fmt.Errorf("stream %q: %w", streamName, err)
	}
	consumer, err := stream.Consumer(ctx, name)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return source{}, fmt.Errorf("consumer %q of stream %q: the server pushes its messages; want a pull consumer, "+
			"without a deliver subject", name, streamName)
	}
	if err != nil {
		return source{}, fmt.Errorf("consumer %q of stream %q: %w", name, streamName, err)
	}
	of, info := stream.CachedInfo(), consumer.CachedInfo()
	config := info.Config
	problem := ""
	switch {
	case config.Durable == "":
		problem = "it is not durable, so that the server may remove it; want one with a durable name"
	case config.AckPolicy != jetstream.AckExplicitPolicy:
		problem = fmt.Sprintf("its ack policy is %s; want explicit", config.AckPolicy)
	case config.MaxDeliver > 0:
		problem = fmt.Sprintf("the server gives a message up after %d deliveries (max_deliver), although nobody may have "+
			"got it; want -1, and attempts of the ScaledJob's delivery", config.MaxDeliver)
	case config.HeadersOnly:
		problem = "it hands out headers only"
	}
	if problem != "" {
		return source{}, fmt.Errorf("consumer %q of stream %q is not fit for delivery by claim: %s", name, streamName,
			problem)
	}
	found := source{
		consumer: consumer, stream: stream, streamMade: of.Created, consumerMade: info.Created,
		replicas: max(1, of.Config.Replicas), filters: config.FilterSubjects, subjects: of.Config.Subjects,
		most: config.MaxRequestBatch, ackWait: config.AckWait, floor: info.AckFloor.Stream,
	}
	if config.FilterSubject != "" {
		found.filters = []string{config.FilterSubject}
	}
	return found, nil
}

// count returns how many messages are not acknowledged, or not delivered yet. What is claimed is acknowledged.
func (s source) count(ctx context.Context) (int64, error) {
	info, err := s.consumer.Info(ctx)
	if err != nil {
		of := s.consumer.CachedInfo()
		return 0, fmt.Errorf("consumer %q of stream %q: %w", of.Name, of.Stream, err)
	}
	return int64(info.NumPending) + int64(info.NumAckPending), nil
}

// pushSubject is the one subject under which a message reaches the consumer.
func (s source) pushSubject() (string, error) {
	subjects := s.filters
	if len(subjects) != 1 || !literal(subjects[0]) {
		subjects = s.subjects
	}
	if len(subjects) != 1 || !literal(subjects[0]) {
		return "", queue.Unsupported("the consumer takes messages of several subjects, %s; "+
			"publish to one of them with a client", strings.Join(slices.Concat(s.filters, s.subjects), ", "))
	}
	return subjects[0], nil
}

// literal tells whether a subject has no wildcards.
func literal(subject string) bool {
	for token := range strings.SplitSeq(subject, ".") {
		if token == "*" || token == ">" {
			return false
		}
	}
	return true
}

// matches tells whether a subject is one of those of a filter, of which * is any token and > are all further ones.
func matches(filter, subject string) bool {
	want, got := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range want {
		switch {
		case token == ">":
			return len(got) > i
		case i >= len(got) || token != "*" && token != got[i]:
			return false
		}
	}
	return len(want) == len(got)
}

// message is one that was fetched and is not acknowledged.
type message struct {
	*nats.Msg

	sequence uint64
	at       time.Time
}

// fetch takes up to n messages from the consumer, in the order of the stream as far as it has it. left is how many it
// has besides that nobody has fetched. What the request is made of, and the statuses that end its answer, are described
// in https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-13.md.
//
// The client's own FetchNoWait takes a second of silence for the end of the answer. What the server sends after that
// would be nobody's until AckWait is over; so its end, or an error, is waited for here.
func (s source) fetch(ctx context.Context, conn *nats.Conn, n int) (messages []message, left int64, err error) {
	messages, left, err = s.pull(ctx, conn, n)
	if err != nil {
		of := s.consumer.CachedInfo()
		err = fmt.Errorf("fetch messages of consumer %q of stream %q: %w", of.Name, of.Stream, err)
	}
	return messages, left, err
}

func (s source) pull(ctx context.Context, conn *nats.Conn, n int) (messages []message, left int64, err error) {
	answer, err := conn.SubscribeSync(conn.NewInbox())
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = answer.Unsubscribe() }() // fails when the connection is closed only
	// No limits: a message that the client drops would wait for AckWait.
	if err := answer.SetPendingLimits(-1, -1); err != nil {
		return nil, 0, err
	}
	of := s.consumer.CachedInfo()
	subject := jetstream.DefaultAPIPrefix + "CONSUMER.MSG.NEXT." + of.Stream + "." + of.Name
	wanted, err := json.Marshal(map[string]any{"batch": n, "no_wait": true})
	if err != nil {
		return nil, 0, err
	}
	if err := conn.PublishRequest(subject, answer.Subject, wanted); err != nil {
		return nil, 0, err
	}
	for asked := 0; len(messages) < n; {
		got, err := next(ctx, answer)
		if errors.Is(err, errSilent) {
			if asked++; asked > mostAsked {
				return messages, 0, err
			}
			more, err := s.delivers(ctx)
			if err != nil {
				return messages, 0, err
			}
			// What the server has sent before this answer has been read, and may just not have been looked at.
			if queued, _, err := answer.Pending(); err != nil || queued == 0 && !more {
				return messages, left, err
			}
			continue
		}
		if err != nil {
			return messages, 0, err
		}
		asked = 0
		if len(got.Data) == 0 && got.Header.Get(statusHeader) != "" {
			end, err := ends(got.Header.Get(statusHeader), got.Header.Get("Description"))
			if end || err != nil {
				return messages, left, err
			}
			continue
		}
		about, err := got.Metadata()
		if err != nil {
			return messages, 0, err
		}
		messages = append(messages, message{got, about.Sequence.Stream, about.Timestamp})
		left = int64(about.NumPending)
	}
	return messages, left, nil
}

// next waits for the next message of an answer. The error is errSilent when none comes for a while.
func next(ctx context.Context, answer *nats.Subscription) (*nats.Msg, error) {
	within, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	got, err := answer.NextMsgWithContext(within)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, errSilent
	}
	return got, err
}

// delivers tells whether the server may yet deliver something. It says nothing of its own when it must not: as many
// messages are not acknowledged as the consumer allows, or it is paused.
func (s source) delivers(ctx context.Context) (bool, error) {
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return false, err
	}
	most := info.Config.MaxAckPending
	return info.NumPending > 0 && !info.Paused && (most <= 0 || info.NumAckPending < most), nil
}

// ends tells whether a status says that there is no more. The error is one that it reports.
func ends(status, description string) (bool, error) {
	switch status {
	case "100":
		return false, nil // the server is still at it
	case "404", "408":
		return true, nil
	case "503":
		return true, nats.ErrNoResponders
	}
	return true, fmt.Errorf("status %s %s", status, description)
}

// waiting returns records of messages that nobody has claimed yet, by reading them in the stream.
func (q *Queue) waiting(ctx context.Context, skip, limit int) ([]queue.Record, error) {
	found, err := findSource(ctx, q.log.js, q.stream, q.consumer)
	if err != nil {
		return nil, err
	}
	asked := ">"
	if len(found.filters) == 1 {
		asked = found.filters[0]
	}
	var records []queue.Record
	for next := found.floor + 1; len(records) < limit; {
		got, err := found.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(asked))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return records, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read stream %q: %w", q.stream, err)
		}
		next = got.Sequence + 1
		if q.log.has(got.Sequence, got.Time) || !found.takes(got.Subject) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		records = append(records, queue.Record{
			State: queue.Ready, Size: int64(len(got.Data)),
			Claim: queue.Claim{First: got.Time, Parts: [][]byte{got.Data[:min(len(got.Data), shown)]}},
		})
	}
	return records, nil
}

// takes tells whether the consumer gets messages of the subject.
func (s source) takes(subject string) bool {
	for _, filter := range s.filters {
		if matches(filter, subject) {
			return true
		}
	}
	return len(s.filters) == 0
}
