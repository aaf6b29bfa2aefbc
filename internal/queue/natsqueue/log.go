package natsqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// frameHeader is the header of a message of the log that says which one it is of how many that make a transaction.
	frameHeader = "Offboard-Frame"
	// writerHeader is the header that says which Queue has written it.
	writerHeader = "Offboard-Writer"
	// frameReserve is how much of the largest message is left to headers.
	frameReserve = 1 << 10
	// manyTries is how often a transaction is made anew because another process was faster.
	manyTries = 100
)

// errConflict tells that another process has written to the log.
var errConflict = errors.New("other processes change the queue all the time")

// log is the stream of transactions, and what they come to. A transaction is one message, or several where it is larger
// than a message may be. Each message is written on the condition that it follows the one that was last seen, so that
// whoever writes a transaction has seen all before it, and no other one is between its messages.
type log struct {
	name, subject, writer string
	js                    jetstream.JetStream
	// frame is how many bytes of a transaction a message holds.
	frame int

	*model
	stream jetstream.Stream
	// tail is the last message that was seen, last the last one that there is, 0 when there is none.
	tail, last uint64
	// begun is where the last transaction begins.
	begun uint64
	// doubt tells that a message was sent and no answer came: it may yet be written.
	doubt bool
	// reading is a transaction that was read in part.
	reading frames
	// cached is the data of the transaction that begins at cachedAt.
	cached   []byte
	cachedAt uint64
}

// frames gathers the messages of a transaction.
type frames struct {
	first        uint64
	next, number int
	text         []byte
}

// add takes the next message. It returns whether the transaction is whole. What was never completed is dropped.
func (f *frames) add(sequence uint64, header string, text []byte) (whole bool, err error) {
	index, number, err := parseFrame(header)
	if err != nil {
		return false, err
	}
	if index == 0 {
		*f = frames{first: sequence, number: number}
	}
	if index != f.next || number != f.number {
		return false, errors.New("a part of a transaction is missing before it")
	}
	f.next++
	f.text = append(f.text, text...)
	return f.next == f.number, nil
}

func parseFrame(header string) (index, number int, err error) {
	before, after, _ := strings.Cut(header, "/")
	index, err1 := strconv.Atoi(before)
	number, err2 := strconv.Atoi(after)
	if err1 != nil || err2 != nil || index < 0 || index >= number {
		return 0, 0, fmt.Errorf("its header %s is %q, want for example 0/1", frameHeader, header)
	}
	return index, number, nil
}

// open finds the log's stream, or makes it. It has as many replicas as the source.
func (l *log) open(ctx context.Context, replicas int) error {
	config := jetstream.StreamConfig{
		Name: l.name, Subjects: []string{l.subject}, Storage: jetstream.FileStorage, Replicas: replicas,
		Discard: jetstream.DiscardNew, Description: "What Offboard knows of items; see its docs/queue-nats-jetstream.md",
	}
	stream, err := l.js.Stream(ctx, l.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = l.js.CreateStream(ctx, config)
	}
	if err != nil {
		return fmt.Errorf("stream %q, in which the state of items is kept: %w", l.name, err)
	}
	got := stream.CachedInfo().Config
	problem := ""
	switch {
	case len(got.Subjects) != 1 || got.Subjects[0] != l.subject:
		problem = fmt.Sprintf("it has the subjects %q, want %q", got.Subjects, l.subject)
	case got.Storage != jetstream.FileStorage:
		problem = "it is kept in memory only, want the storage file"
	case got.MaxAge > 0, got.Retention != jetstream.LimitsPolicy, got.MaxMsgsPerSubject > 0,
		got.Discard != jetstream.DiscardNew && (got.MaxMsgs > 0 || got.MaxBytes > 0):
		problem = "it discards old messages, want no limits, or the discard policy new"
	}
	if problem != "" {
		return fmt.Errorf("stream %q cannot keep the state of items: %s", l.name, problem)
	}
	return nil
}

// catchUp reads what others have written, and returns whether there was anything.
func (l *log) catchUp(ctx context.Context) (changed bool, err error) {
	for {
		stream, err := l.js.Stream(ctx, l.name)
		if err != nil {
			return changed, fmt.Errorf("stream %q, in which the state of items is kept: %w", l.name, err)
		}
		info := stream.CachedInfo()
		first := max(info.State.FirstSeq, 1)
		// Another log, one that has lost its end, or one whose next messages were purged, is read from its beginning.
		if l.stream == nil || !info.Created.Equal(l.stream.CachedInfo().Created) || info.State.LastSeq < l.tail ||
			first > l.tail+1 {
			l.forget(first - 1)
			changed = true
		}
		l.stream = stream
		if info.State.Msgs == 0 {
			l.tail, l.last = info.State.LastSeq, 0
			return changed, nil
		}
		if info.State.LastSeq == l.tail {
			l.last = l.tail
			return changed, nil
		}
		changed = true
		if err := l.read(ctx, info.State.LastSeq); err == nil || !errors.Is(err, errGap) {
			return changed, err
		}
	}
}

// errGap tells that messages of the log were purged before they were read.
var errGap = errors.New("messages are missing")

// forget makes the log one of which nothing is known up to that message.
func (l *log) forget(tail uint64) {
	l.model, l.tail, l.last, l.begun, l.reading, l.cached, l.cachedAt = newModel(), tail, 0, 0, frames{}, nil, 0
}

// read reads up to a message.
func (l *log) read(ctx context.Context, until uint64) error {
	consumer, err := l.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: l.tail + 1,
	})
	if err != nil {
		return fmt.Errorf("read stream %q: %w", l.name, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read stream %q: %w", l.name, err)
	}
	defer messages.Stop()
	for l.tail < until {
		next, cancel := context.WithTimeout(ctx, request)
		message, err := messages.Next(jetstream.NextContext(next))
		cancel()
		if err != nil {
			return fmt.Errorf("read stream %q: %w", l.name, err)
		}
		about, err := message.Metadata()
		if err != nil {
			return fmt.Errorf("read stream %q: %w", l.name, err)
		}
		if about.Sequence.Stream != l.tail+1 {
			l.stream = nil
			return errGap
		}
		if err := l.see(about.Sequence.Stream, message.Headers(), message.Data()); err != nil {
			l.stream = nil
			return fmt.Errorf("message %d of stream %q: %w", about.Sequence.Stream, l.name, err)
		}
	}
	return nil
}

// see takes the next message of the log.
func (l *log) see(sequence uint64, header nats.Header, text []byte) error {
	whole, err := l.reading.add(sequence, header.Get(frameHeader), text)
	if err != nil {
		return err
	}
	if whole {
		made, _, err := decode(l.reading.text)
		if err != nil {
			return err
		}
		l.apply(made, l.reading.first)
		l.begun, l.reading = l.reading.first, frames{}
	}
	l.tail, l.last = sequence, sequence
	return nil
}

// commit writes a transaction. After errConflict nothing of it holds; after another error that is known only when doubt
// is not set.
func (l *log) commit(ctx context.Context, d *draft) error {
	made := d.change()
	text := made.encode(d.data)
	number := max(1, (len(text)+l.frame-1)/l.frame)
	last, first := l.last, uint64(0)
	for i := range number {
		message := nats.NewMsg(l.subject)
		message.Data = text[i*l.frame : min(len(text), (i+1)*l.frame)]
		message.Header.Set(frameHeader, fmt.Sprintf("%d/%d", i, number))
		message.Header.Set(writerHeader, l.writer)
		answer, err := l.js.PublishMsg(ctx, message, jetstream.WithExpectLastSequencePerSubject(last))
		if err != nil {
			return l.refused(err)
		}
		last = answer.Sequence
		if i == 0 {
			first = last
		}
	}
	l.apply(made, first)
	l.tail, l.last, l.begun, l.reading = last, last, first, frames{}
	return nil
}

// refused tells what the error of a write means.
func (l *log) refused(err error) error {
	var answer *jetstream.APIError
	if !errors.As(err, &answer) {
		l.doubt = true
		return fmt.Errorf("write to stream %q: %w", l.name, err)
	}
	if answer.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		answer.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant {
		return errConflict
	}
	return fmt.Errorf("write to stream %q: %w", l.name, err)
}

// transact makes a transaction and writes it, again where another process was faster. One that changes nothing is not
// written.
func (l *log) transact(ctx context.Context, do func(*draft) error) error {
	for range manyTries {
		d := l.draft()
		if err := do(d); err != nil {
			return err
		}
		if !d.changes() {
			return nil
		}
		err := l.commit(ctx, d)
		if !errors.Is(err, errConflict) {
			return err
		}
		if _, err := l.catchUp(ctx); err != nil {
			return err
		}
	}
	return errConflict
}

// clear makes sure that what was written without an answer either holds by now or never will.
func (l *log) clear(ctx context.Context) error {
	if !l.doubt {
		return nil
	}
	err := l.transact(ctx, func(d *draft) error {
		d.forced = true
		return nil
	})
	if err == nil {
		l.doubt = false
	}
	return err
}

// load returns the bytes of a part.
func (l *log) load(ctx context.Context, p part) ([]byte, error) {
	if l.cachedAt != p.Log {
		var whole frames
		for done := false; !done; {
			message, err := l.stream.GetMsg(ctx, p.Log+uint64(whole.next))
			if err != nil {
				return nil, fmt.Errorf("read stream %q: %w", l.name, err)
			}
			if done, err = whole.add(message.Sequence, message.Header.Get(frameHeader), message.Data); err != nil {
				return nil, fmt.Errorf("message %d of stream %q: %w", message.Sequence, l.name, err)
			}
		}
		_, data, err := decode(whole.text)
		if err != nil {
			return nil, fmt.Errorf("message %d of stream %q: %w", p.Log, l.name, err)
		}
		l.cached, l.cachedAt = data, p.Log
	}
	return p.cut(l.cached)
}

// loadAll returns the bytes of a record's parts.
func (l *log) loadAll(ctx context.Context, r record) ([][]byte, error) {
	all := make([][]byte, 0, len(r.Parts))
	for _, p := range r.Parts {
		one, err := l.load(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// trim writes what is oldest in the log anew, and removes what nobody needs any more, when the log is much larger than
// what it must hold. So a log of which half is needed is written once more for each time that it doubles.
func (l *log) trim(ctx context.Context, slack uint64) error {
	const most, atOnce = 8 << 20, 1000
	if l.stream.CachedInfo().State.Bytes < 2*l.bytes()+slack {
		return nil
	}
	all := slices.Concat(slices.Collect(maps.Values(l.live)), slices.Collect(maps.Values(l.done)))
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.oldest(), b.oldest()) })
	for size := 0; len(all) > 0 && size < most; {
		d := l.draft()
		for len(all) > 0 && len(d.data) < l.frame && len(d.set) < atOnce {
			if err := l.move(ctx, d, all[0]); err != nil {
				return err
			}
			size += all[0].size()
			all = all[1:]
		}
		if err := l.commit(ctx, d); err != nil {
			return err
		}
	}
	keep := l.begun
	for _, r := range l.live {
		keep = min(keep, r.oldest())
	}
	for _, r := range l.done {
		keep = min(keep, r.oldest())
	}
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(keep)); err != nil {
		return fmt.Errorf("remove what is not needed of stream %q: %w", l.name, err)
	}
	return nil
}

// move makes a record be written anew, with its bytes.
func (l *log) move(ctx context.Context, d *draft, r record) error {
	r.Parts = slices.Clone(r.Parts)
	for i, p := range r.Parts {
		if r.State == queue.Done {
			break // nobody reads its bytes
		}
		data, err := l.load(ctx, p)
		if err != nil {
			return err
		}
		r.Parts[i] = d.hold(p, data)
	}
	d.put(r)
	return nil
}
