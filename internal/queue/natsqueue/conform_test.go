package natsqueue_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/natsqueue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConform(t *testing.T) {
	t.Parallel()
	url := "nats://" + natstest.Alone(t, "").Addr(natstest.PortClient)
	conn, js := natstest.Connect(t, url)
	var number atomic.Int64
	for _, retention := range []jetstream.RetentionPolicy{jetstream.WorkQueuePolicy, jetstream.LimitsPolicy} {
		t.Run(strings.ToLower(retention.String()), func(t *testing.T) {
			queuetest.Conform(t, func(t *testing.T) queuetest.Fixture {
				name := fmt.Sprint("work", number.Add(1))
				makeSource(t, js, jetstream.StreamConfig{
					Name: name, Subjects: []string{name}, Retention: retention,
				}, jetstream.ConsumerConfig{})
				return queuetest.Fixture{
					Open: func(t *testing.T) (queue.Queue, func()) {
						own, err := nats.Connect(url, nats.Timeout(time.Minute))
						if err != nil {
							t.Fatal(err)
						}
						return natsqueue.New(queuetest.NATS{Conn: own}, name, "worker"), own.Close
					},
					Push: func(t *testing.T, items ...string) { publish(t, conn, name, items...) },
				}
			})
		})
	}
}

// makeSource makes a stream with the consumer worker.
func makeSource(tb testing.TB, js jetstream.JetStream, s jetstream.StreamConfig, c jetstream.ConsumerConfig) {
	tb.Helper()
	stream, err := js.CreateStream(tb.Context(), s)
	if err != nil {
		tb.Fatal(err)
	}
	c.Durable, c.AckPolicy = "worker", jetstream.AckExplicitPolicy
	if _, err := stream.CreateConsumer(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
}

// publish publishes as an application does that knows nothing of Offboard.
func publish(tb testing.TB, conn *nats.Conn, subject string, items ...string) {
	tb.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		tb.Fatal(err)
	}
	for _, item := range items {
		if _, err := js.Publish(tb.Context(), subject, []byte(item)); err != nil {
			tb.Fatal(err)
		}
	}
}
