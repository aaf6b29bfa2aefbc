package natsqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
)

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
	jetstream.Msg

	sequence uint64
	at       time.Time
}

// fetch takes up to n messages from the consumer, in the order of the stream as far as it has it. left is how many it
// has besides that nobody has fetched.
func (s source) fetch(n int) (messages []message, left int64, err error) {
	batch, err := s.consumer.FetchNoWait(n)
	if err != nil {
		return nil, 0, fmt.Errorf("fetch messages: %w", err)
	}
	for got := range batch.Messages() {
		about, err := got.Metadata()
		if err != nil {
			return messages, 0, fmt.Errorf("fetch messages: %w", err)
		}
		messages = append(messages, message{got, about.Sequence.Stream, about.Timestamp})
		left = int64(about.NumPending)
	}
	if err := batch.Error(); err != nil {
		return messages, 0, fmt.Errorf("fetch messages: %w", err)
	}
	return messages, left, nil
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
