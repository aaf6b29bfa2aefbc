package postgresql_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// watched counts the calls of changed and lets tests wait for the next one.
type watched struct {
	signal chan struct{}
	stop   func()
}

func watch(t testing.TB, made trigger.Trigger) *watched {
	t.Helper()
	signal := make(chan struct{}, 1)
	stop := sync.OnceFunc(made.(trigger.Watcher).Watch(func() {
		select {
		case signal <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(stop)
	return &watched{signal: signal, stop: stop}
}

// until waits for calls of changed until the condition holds.
func (w *watched) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(triggertest.Patience)
	for !condition() {
		select {
		case <-w.signal:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, triggertest.Patience)
		}
	}
}

// called waits for one call.
func (w *watched) called(t testing.TB, what string) {
	t.Helper()
	select {
	case <-w.signal:
	case <-time.After(triggertest.Patience):
		t.Fatalf("%s: not called within %v", what, triggertest.Patience)
	}
}

// listen returns a trigger that counts the rows of the table and watches the channel.
func listen(t testing.TB, clients *postgresql.Clients, url, table, channel string) trigger.Trigger {
	t.Helper()
	return build(t, clients, trigger.Config{
		Metadata: config{"query": "SELECT count(*) FROM " + table, "targetQueryValue": "1", "channel": channel},
		Auth:     config{"connection": url},
	})
}

// newTable makes a table that notifies on the channel of its name, and returns the statement that inserts a row.
func newTable(t testing.TB, server *postgrestest.Server, name string) (insert string) {
	t.Helper()
	server.Exec("CREATE TABLE "+name+" (id serial)",
		"CREATE FUNCTION tell_"+name+"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY "+name+"; RETURN NULL; END $$",
		"CREATE TRIGGER tell AFTER INSERT ON "+name+" EXECUTE FUNCTION tell_"+name+"()")
	return "INSERT INTO " + name + " DEFAULT VALUES"
}

func testNotificationsAreNoticed(t *testing.T, server *postgrestest.Server) {
	insert := newTable(t, server, "noticed")
	clients, url := postgresql.NewClients(), server.URL()+"&application_name=noticed"
	first := listen(t, clients, url, "noticed", "noticed")
	changes := watch(t, first)
	changes.called(t, "the begin of listening")
	for want := range 5 {
		server.Exec(insert)
		changes.until(t, "the insert", func() bool { return triggertest.Measure(t, first).Value == float64(want+1) })
	}
	// Names are exact, may hold anything, and channels do not disturb each other.
	odd := `Job's "channel"; x`
	second := listen(t, clients, url, "noticed", odd)
	others := watch(t, second)
	others.called(t, "the begin of listening to another channel")
	server.Exec("SELECT pg_notify('" + strings.ReplaceAll(odd, "'", "''") + "', 'payload')")
	others.called(t, "a notification on another channel")
	server.Exec(insert)
	changes.called(t, "a notification after another channel was added")
	// One connection listens for all, and none for nobody.
	listening := func() int {
		return server.Count("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'noticed' AND query ~ 'LISTEN|ping'")
	}
	if got := listening(); got != 1 {
		t.Errorf("%d connections listen, want 1", got)
	}
	again := watch(t, first) // a second watcher of one channel
	again.called(t, "the begin of the second watch")
	server.Exec(insert)
	again.called(t, "a notification for the second watcher")
	changes.stop()
	again.stop()
	select {
	case <-again.signal: // of before, for example where the listening connection was made anew
	default:
	}
	server.Exec(insert, "SELECT pg_notify('"+strings.ReplaceAll(odd, "'", "''")+"', '')")
	others.called(t, "a notification after the other channel was removed")
	select {
	case <-again.signal:
		t.Error("changed is called after stop")
	default:
	}
	others.stop()
	triggertest.WaitFor(t, "the end of the listening connection", func() bool { return listening() == 0 })
	last := watch(t, second)
	last.called(t, "listening that begins anew")
	server.Exec("SELECT pg_notify('" + strings.ReplaceAll(odd, "'", "''") + "', '')")
	last.called(t, "a notification then")
}

func TestListeningSurvivesOutages(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	insert := newTable(t, server, "jobs")
	made := listen(t, postgresql.NewClients(), server.URL(), "jobs", "jobs")
	changes := watch(t, made)
	changes.called(t, "the begin of listening")
	want := 0.0
	for name, lose := range map[string]func(){
		"restart": func() { server.Stop(); server.Restart(); server.Exec(insert) },
		"kill":    func() { server.Kill(); server.Restart(); server.Exec(insert) },
		"lost": func() {
			server.Exec(insert, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'offboard'")
		},
		"frozen": func() { server.Freeze(); changes.called(t, "the silence"); server.Thaw(); server.Exec(insert) },
	} {
		lose()
		want++
		changes.until(t, name, func() bool {
			measured, err := made.Measure(t.Context())
			return err == nil && measured.Value == want
		})
		server.Exec(insert)
		want++
		changes.until(t, "a notification after "+name, func() bool {
			measured, err := made.Measure(t.Context())
			return err == nil && measured.Value == want
		})
	}
}

func testBlackHoleIsNoticed(t *testing.T, server *postgrestest.Server) {
	insert := newTable(t, server, "silent")
	proxy := servertest.StartProxy(t, server.Addr())
	made := listen(t, postgresql.NewClients(), strings.Replace(server.URL(), server.Addr(), proxy.Addr(), 1), "silent", "silent")
	changes := watch(t, made)
	changes.called(t, "the begin of listening")
	proxy.Hold()
	server.Exec(insert)
	changes.called(t, "the silence, which nothing but the check of the connection tells of")
	proxy.Cut()
	proxy.Forward()
	changes.until(t, "the return", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 1
	})
	server.Exec(insert)
	changes.until(t, "a notification after the return", func() bool { return triggertest.Measure(t, made).Value == 2 })
}

// safeBuffer is a buffer for logs.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// testRefusalToListenIsLogged limits the user to the connections that measure.
func testRefusalToListenIsLogged(t *testing.T, server *postgrestest.Server) {
	server.Exec("CREATE USER one PASSWORD 'hunter2' CONNECTION LIMIT 1")
	var log safeBuffer
	made := build(t, postgresql.NewClients(), trigger.Config{
		Metadata: config{"query": "SELECT 1", "targetQueryValue": "1", "channel": "refused"},
		Auth:     config{"connection": server.UserURL("one", "hunter2")},
		Log:      slog.New(slog.NewTextHandler(&log, nil)),
	})
	triggertest.Measure(t, made)
	changes := watch(t, made)
	changes.called(t, "the refusal")
	changes.called(t, "the refusal once more")
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") ||
		!strings.Contains(text, "takes no more connections") || strings.Contains(text, "hunter2") {
		t.Errorf("log %q, want one warning", text)
	}
	server.Exec("ALTER USER one CONNECTION LIMIT 5")
	conn := server.Connect()
	triggertest.WaitFor(t, "a notification after all", func() bool {
		if _, err := conn.Exec(context.Background(), "NOTIFY refused"); err != nil {
			t.Fatal(err)
		}
		return server.Count("SELECT count(*) FROM pg_stat_activity WHERE usename = 'one'") == 2 && len(changes.signal) == 1
	})
}

// BenchmarkNotifyToChanged measures the time from before a statement that notifies to the call of changed.
func BenchmarkNotifyToChanged(b *testing.B) {
	server := postgrestest.Start(b, postgrestest.Options{})
	insert := newTable(b, server, "jobs")
	clients := postgresql.NewClients()
	for i := range 50 {
		watch(b, listen(b, clients, server.URL(), "jobs", fmt.Sprint("other", i)))
	}
	changes := watch(b, listen(b, clients, server.URL(), "jobs", "jobs"))
	changes.called(b, "the begin of listening")
	conn := server.Connect()
	for b.Loop() {
		if _, err := conn.Exec(b.Context(), insert); err != nil {
			b.Fatal(err)
		}
		changes.called(b, "the insert")
	}
}
