package rabbitqueue_test

import (
	"context"
	"net"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/queue/rabbitqueue"
	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network dials a server and can break all connections that it has made.
type network struct {
	url string

	mu    sync.Mutex
	conns []net.Conn
	cut   bool
}

func (n *network) Dial(ctx context.Context) (*amqp.Connection, error) {
	return amqp.DialConfig(n.url, amqp.Config{
		Locale: "en_US",
		Dial: func(kind, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, kind, address)
			n.mu.Lock()
			defer n.mu.Unlock()
			if err == nil {
				n.conns = append(n.conns, conn)
				if n.cut {
					_ = conn.Close()
				}
			}
			return conn, err
		},
	})
}

func (n *network) Explain(err error, _ string) error { return err }

// crash breaks the connections, and all that are made later.
func (n *network) crash() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, conn := range n.conns {
		_ = conn.Close()
	}
}

// open opens a queue as a process of its own, and returns what ends that process.
func open(server *rabbitmqtest.Server, name string) (*rabbitqueue.Queue, func()) {
	n := &network{url: server.AMQP()}
	q := rabbitqueue.New(n, name)
	return q, sync.OnceFunc(func() {
		n.crash()
		q.Close()
	})
}

func TestConform(t *testing.T) {
	t.Parallel()
	server := rabbitmqtest.Start(t)
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			queuetest.Conform(t, func(t *testing.T) queuetest.Fixture {
				channel := server.Channel(t, "/")
				arguments := amqp.Table{"x-queue-type": kind}
				if _, err := channel.QueueDeclare(t.Name(), true, false, false, false, arguments); err != nil {
					t.Fatal(err)
				}
				return queuetest.Fixture{
					Open: func(*testing.T) (queue.Queue, func()) { return open(server, t.Name()) },
					Push: func(t *testing.T, items ...string) { rabbitmqtest.Publish(t, channel, t.Name(), items...) },
				}
			})
		})
	}
}
