package queuetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue/natsqueue"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
)

// NATS is a connection of NATS as natsqueue needs one.
type NATS struct{ Conn *nats.Conn }

var _ natsqueue.Conn = NATS{}

// Connect implements natsqueue.Conn.
func (c NATS) Connect() (*nats.Conn, error) { return c.Conn, nil }

// Explain implements natsqueue.Conn.
func (c NATS) Explain(err error) error { return err }

// JetStream starts a NATS server with the work queue stream work, which has the consumer worker.
func JetStream(tb testing.TB) *Source {
	server := natstest.Alone(tb, "")
	url := "nats://" + server.Addr(natstest.PortClient)
	conn, js := natstest.Connect(tb, url)
	stream, err := js.CreateStream(tb.Context(), jetstream.StreamConfig{
		Name: "work", Subjects: []string{"work"}, Retention: jetstream.WorkQueuePolicy,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := stream.CreateConsumer(tb.Context(), jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	}); err != nil {
		tb.Fatal(err)
	}
	return &Source{
		Trigger: fmt.Sprintf(`{type: nats-jetstream, metadata: {natsServerMonitoringEndpoint: %q, natsServer: %q, `+
			`account: $G, stream: work, consumer: worker, lagThreshold: "1"}}`, server.Addr(natstest.PortMonitor), url),
		Push: func(ctx context.Context, items ...string) error {
			// Its own limit is 5 s for each, which a busy machine may need.
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for _, item := range items {
				if _, err := js.Publish(ctx, "work", []byte(item)); err != nil {
					return err
				}
			}
			return nil
		},
		Queue: natsqueue.New(NATS{conn}, "work", "worker"),
		Exact: true,
		Kill:  server.Kill,
		Restart: func() {
			server.Restart()
			for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
				_, err := js.Stream(tb.Context(), "work")
				if err == nil {
					return
				}
				if time.Now().After(deadline) {
					tb.Errorf("the server does not come back: %v", err)
					return
				}
			}
		},
	}
}
