package queuetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// Source is a server with an empty queue for a chaos test.
type Source struct {
	// Trigger is the entry of a ScaledJob's triggers, in YAML's flow style.
	Trigger string
	// Push appends items as an application does that knows nothing of Offboard. An error means that none has arrived.
	Push func(ctx context.Context, items ...string) error
	// Queue looks at the queue from outside.
	Queue queue.Queue
	// Exact tells that the counters of what is done are right also after crashes.
	Exact bool
	// Kill ends the server as a crash of its machine's program does, and Restart starts it again with its data.
	Kill, Restart func()
}

// Left returns an error that says what the queue has, unless all of its items are done.
func (s *Source) Left(ctx context.Context, items int) error {
	stats, err := s.Queue.Stats(ctx)
	if err != nil {
		return err
	}
	left := stats.Ready + stats.Delayed + stats.Claimed + stats.Leased + stats.Retry + stats.Dead
	if left > 0 || s.Exact && stats.Done != int64(items) {
		return fmt.Errorf("the queue has %+v", stats)
	}
	return nil
}

// Redis starts a Redis that has each command on its disk before it answers, with the list work.
func Redis(tb testing.TB) *Source {
	server := redistest.Start(tb, redistest.Options{AppendOnly: true})
	client := server.Client()
	return &Source{
		Trigger: fmt.Sprintf(`{type: redis, metadata: {address: %q, listName: work, listLength: "1"}}`, server.Addr()),
		Push: func(ctx context.Context, items ...string) error {
			return client.Do(ctx, client.B().Rpush().Key("work").Element(items...).Build()).Error()
		},
		Queue: Open(client, "work"),
		Exact: true,
		Kill:  server.Kill,
		Restart: func() {
			server.Restart()
			server.Await(client)
		},
	}
}
