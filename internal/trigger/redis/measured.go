package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// pollPeriod is how often Watch asks the server that this process serves where that one cannot tell of changes.
const pollPeriod = 50 * time.Millisecond

var _ trigger.Watcher = (*measured)(nil)

// measured is the part of a trigger that measures and watches.
type measured struct {
	server    server
	release   func()
	threshold trigger.Threshold
	// watched are the keys whose changes change the measurement.
	watched []string
	// read reads the server; ctx bounds it.
	read func(ctx context.Context) (reading, error)
	// last is what read last gave.
	last atomic.Pointer[outcome]
}

// reading is one reading of a trigger.
type reading struct {
	size int64
	// wake and holds are those of trigger.Measurement.
	wake  *string
	holds time.Duration
}

// outcome is what came of one reading, as far as it tells of a change.
type outcome struct {
	size    int64
	wake    string
	failure string
}

// Measure implements trigger.Trigger. It answers within 5 seconds, and without a command to the server when the server
// has not told of a change since the last time, for about as long as the measurement holds.
func (m *measured) Measure(ctx context.Context) (trigger.Measurement, error) {
	got, err := m.bounded(ctx)
	m.last.Store(newOutcome(got, err))
	if err != nil {
		return trigger.Measurement{}, err
	}
	value := float64(got.size)
	return trigger.Measurement{
		Value: value, Target: m.threshold.Target, Active: value > m.threshold.Activation, Wake: got.wake, Holds: got.holds,
	}, nil
}

func (m *measured) bounded(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	return m.read(ctx)
}

// Close implements trigger.Trigger.
func (m *measured) Close() { m.release() }

// Watch implements trigger.Watcher. It calls changed at once, because the key may have changed since the last Measure;
// then when the server says that the key changed, when the connection is lost for longer than a quick reconnect takes,
// and when it is back.
//
// No change is missed: a Measure that is answered from memory found an entry there, and an entry exists only as long
// as the server has it on record to tell of a change of the key. When it does tell, rueidis first drops the entry, then
// calls back; both happen in the goroutine that reads the connection, in the order in which the server wrote. So the
// Measure that follows changed either sends the command anew or joins one that is under way, whose answer the server
// wrote after the notice, hence after the change; and with the answer, the key is on record again.
func (m *measured) Watch(changed func()) (stop func()) {
	ends := make([]func(), 0, len(m.watched)+1)
	for _, key := range m.watched {
		ends = append(ends, m.server.watch(key, changed))
	}
	changed()
	if single, ok := m.server.(*connection); ok && single.settings.polled {
		ctx, cancel := context.WithCancel(context.Background())
		var polling sync.WaitGroup
		polling.Go(func() { m.poll(ctx, single, changed) })
		ends = append(ends, func() { cancel(); polling.Wait() })
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// poll asks the server again and again while it cannot tell of changes, until ctx ends.
func (m *measured) poll(ctx context.Context, single *connection, changed func()) {
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	for {
		current := single.current()
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
		if got, err := m.bounded(ctx); ctx.Err() == nil && !newOutcome(got, err).equal(m.last.Load()) {
			changed()
		}
	}
}

func newOutcome(got reading, err error) *outcome {
	switch {
	case err != nil:
		return &outcome{failure: err.Error()}
	case got.wake == nil:
		return &outcome{size: got.size}
	default:
		return &outcome{size: got.size, wake: *got.wake}
	}
}

func (o *outcome) equal(other *outcome) bool { return other != nil && *o == *other }
