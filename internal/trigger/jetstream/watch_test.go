package jetstream_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/jetstream"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// watched lets tests wait for the next call of changed.
type watched struct{ signal chan struct{} }

func watch(t testing.TB, made trigger.Trigger) *watched {
	t.Helper()
	signal := make(chan struct{}, 1)
	stop := made.(trigger.Watcher).Watch(func() {
		select {
		case signal <- struct{}{}:
		default:
		}
	})
	t.Cleanup(sync.OnceFunc(stop))
	return &watched{signal}
}

// until waits for a call of changed after which the condition holds.
func (w *watched) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.After(triggertest.Patience); ; {
		select {
		case <-w.signal:
			if condition() {
				return
			}
		case <-deadline:
			t.Fatalf("%s: not within %v", what, triggertest.Patience)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, `authorization { users: [{user: app, password: "hunter2"}] }`)
	_, js := natstest.Connect(t, "nats://app:hunter2@"+server.Addr(natstest.PortClient))
	stream(t, js, "tasks", 1)
	proxy := servertest.StartProxy(t, server.Addr(natstest.PortClient))
	clients := jetstream.NewClients()
	metadata := of(server.Addr(natstest.PortMonitor), "tasks")
	auth := config{"natsServer": "nats://app:hunter2@" + proxy.Addr()}
	made := build(t, clients, metadata, auth)
	changes := watch(t, made)
	changes.until(t, "the beginning", func() bool { return triggertest.Measure(t, made).Value == 1 })
	want := 1.0
	for range 50 {
		publish(t, js, "tasks.item", 1)
		want++
		changes.until(t, "a message", func() bool { return triggertest.Measure(t, made).Value == want })
	}
	other := watch(t, build(t, clients, metadata, auth))
	other.until(t, "the beginning of another", func() bool { return true })
	if opened := proxy.Opened(); opened != 1 {
		t.Errorf("%d connections for two watches, want 1", opened)
	}
	proxy.Cut()
	publish(t, js, "tasks.item", 1)
	want++
	changes.until(t, "a message while the connection is lost", func() bool { return triggertest.Measure(t, made).Value == want })
	server.Kill()
	server.Restart()
	publish(t, js, "tasks.item", 1)
	want++
	changes.until(t, "a message after a restart", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == want
	})
}

func TestWatchOfWhatComesLater(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, "")
	_, js := natstest.Connect(t, "nats://"+server.Addr(natstest.PortClient))
	made := build(t, jetstream.NewClients(), triggertest.With(of(server.Addr(natstest.PortMonitor), "late"), "natsServer", "nats://"+server.Addr(natstest.PortClient)), nil)
	changes := watch(t, made)
	stream(t, js, "late", 1)
	changes.until(t, "the stream", func() bool { return triggertest.Measure(t, made).Value == 1 })
	publish(t, js, "late.item", 1)
	changes.until(t, "a message", func() bool { return triggertest.Measure(t, made).Value == 2 })
}

func TestWatchWithWrongCredentials(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, `authorization { users: [{user: app, password: "hunter2"}] }`)
	_, js := natstest.Connect(t, "nats://app:hunter2@"+server.Addr(natstest.PortClient))
	stream(t, js, "tasks", 1)
	var log safeBuffer
	for _, auth := range []config{
		{"natsServer": "nats://app:hunter2-old@" + server.Addr(natstest.PortClient)},
		{"natsServer": "nats://" + server.Addr(natstest.PortClient), "natsCredentials": "hunter2"},
		{"natsServer": "nats://hunter2@" + deadAddress(t)},
	} {
		made, err := jetstream.Type(jetstream.NewClients()).New(t.Context(), trigger.Config{
			Metadata: of(server.Addr(natstest.PortMonitor), "tasks"), Auth: auth,
			Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := made.(trigger.Watcher).Watch(func() { t.Error("changed is called") })
		before := len(log.String())
		triggertest.WaitFor(t, "a line of the log", func() bool { return len(log.String()) > before })
		if got := triggertest.Measure(t, made); got.Value != 1 {
			t.Errorf("measured %+v, want 1", got)
		}
		stop()
		made.Close()
	}
	if text := log.String(); strings.Contains(text, "hunter2") {
		t.Errorf("the log shows a secret:\n%s", text)
	}
}

// safeBuffer is written from several goroutines.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns what was written.
func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
