package redisqueue_test

import (
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

func TestConform(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	queuetest.Conform(t, func(t *testing.T) queuetest.Fixture {
		list, client := t.Name(), server.Client()
		return queuetest.Fixture{
			Open: func(*testing.T) (queue.Queue, func()) { return queuetest.Open(client, list), func() {} },
			Push: func(t *testing.T, items ...string) {
				if err := client.Do(t.Context(), client.B().Rpush().Key(list).Element(items...).Build()).Error(); err != nil {
					t.Fatal(err)
				}
			},
			Leases: true, Delays: true,
		}
	})
}

func TestConformStream(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	queuetest.Conform(t, func(t *testing.T) queuetest.Fixture {
		stream, client := redisqueue.Stream{Key: t.Name(), Group: "workers"}, server.Client()
		return queuetest.Fixture{
			Open: func(*testing.T) (queue.Queue, func()) {
				return redisqueue.NewStream(queuetest.Conn{Client: client}, stream), func() {}
			},
			Push: func(_ *testing.T, items ...string) {
				for _, item := range items {
					server.Do("XADD", stream.Key, "*", "item", item)
				}
			},
			Leases: true, Delays: true,
		}
	})
}
