// Package natstest starts real NATS servers with JetStream for tests. It is imported by tests only.
package natstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// Ports of a server.
const (
	PortClient = iota
	PortMonitor
	PortRoute
	portCount
)

// Start starts a server with lines of configuration, which must say where it listens.
func Start(tb testing.TB, configuration func(p *servertest.Process) string) *servertest.Process {
	tb.Helper()
	return servertest.Start(tb, "", servertest.Program{
		Name: "nats-server", Ports: portCount,
		Args: func(p *servertest.Process) ([]string, error) {
			text := configuration(p) + fmt.Sprintf("\njetstream { store_dir: %q }\n", p.Path("store"))
			return []string{"-c", p.Path("nats.conf")}, p.Write("nats.conf", text)
		},
		Ready: func(_ context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "Server is ready") {
				return errors.New("it is not up")
			}
			return nil
		},
	})
}

// Alone starts a server without a cluster; more is further configuration.
func Alone(tb testing.TB, more string) *servertest.Process {
	tb.Helper()
	return Start(tb, func(p *servertest.Process) string {
		return fmt.Sprintf("listen: %q\nhttp: %q\n%s", p.Addr(PortClient), p.Addr(PortMonitor), more)
	})
}

// Connect returns a client that is closed with the test.
func Connect(tb testing.TB, server string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	tb.Helper()
	conn, err := nats.Connect(server, append(options, nats.Timeout(time.Minute), nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		tb.Fatal(err)
	}
	return conn, js
}
