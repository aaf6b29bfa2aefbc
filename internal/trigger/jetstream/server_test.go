package jetstream_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
)

// stream makes a stream with a consumer named worker, and publishes messages under the subject <name>.item.
func stream(tb testing.TB, js jetstream.JetStream, name string, messages int) jetstream.Consumer {
	tb.Helper()
	made, err := js.CreateStream(tb.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}})
	if err != nil {
		tb.Fatal(err)
	}
	consumer, err := made.CreateConsumer(tb.Context(), jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: name + ".item",
	})
	if err != nil {
		tb.Fatal(err)
	}
	publish(tb, js, name+".item", messages)
	return consumer
}

func publish(tb testing.TB, js jetstream.JetStream, subject string, messages int) {
	tb.Helper()
	for range messages {
		if _, err := js.Publish(tb.Context(), subject, []byte("item")); err != nil {
			tb.Fatal(err)
		}
	}
}

// cluster starts three servers, at 127.0.0.1 to 127.0.0.3, because their monitoring is to have one port.
func cluster(tb testing.TB, advertise bool) (servers []*servertest.Process, client, monitor int) {
	tb.Helper()
	var ports []int
	for number := 1; number <= 3; number++ {
		servers = append(servers, natstest.Start(tb, func(p *servertest.Process) string {
			if number == 1 {
				ports = []int{p.Port(natstest.PortClient), p.Port(natstest.PortMonitor), p.Port(natstest.PortRoute)}
			}
			at := func(number, port int) string { return fmt.Sprintf("127.0.0.%d:%d", number, ports[port]) }
			return fmt.Sprintf("server_name: n%d\nlisten: %q\nhttp: %q\n"+
				"cluster { name: test, listen: %q, no_advertise: %t, routes: [\"nats://%s\", \"nats://%s\", \"nats://%s\"] }\n",
				number, at(number, natstest.PortClient), at(number, natstest.PortMonitor), at(number, natstest.PortRoute), !advertise,
				at(1, natstest.PortRoute), at(2, natstest.PortRoute), at(3, natstest.PortRoute))
		}))
	}
	return servers, ports[natstest.PortClient], ports[natstest.PortMonitor]
}

// deadAddress returns one that nobody listens at.
func deadAddress(t *testing.T) string {
	t.Helper()
	return servertest.FreeAddress(t)
}
