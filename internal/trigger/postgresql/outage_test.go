package postgresql_test

import (
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	server.Stop()
	made := query(t, server, postgresql.NewClients(), "SELECT 5")
	if !triggertest.InOutage(t, made, 5, postgrestest.Password) {
		t.Error("there is no server, and no error")
	}
	server.Restart()
	triggertest.WaitFor(t, "the server that came up", func() bool { return !triggertest.InOutage(t, made, 5, postgrestest.Password) })
	for name, end := range map[string]func(){"kill": server.Kill, "stop": server.Stop} {
		end()
		_, err := made.Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), server.Addr()+" is not reachable") {
			t.Errorf("%s: error %v", name, err)
		}
		server.Restart()
		triggertest.WaitFor(t, "the return after "+name, func() bool { return !triggertest.InOutage(t, made, 5, postgrestest.Password) })
	}
	// A restart between two measurements goes unnoticed.
	for _, end := range []func(){server.Kill, server.Stop} {
		end()
		server.Restart()
		if measured, err := triggertest.Try(t, made); err != nil || measured.Value != 5 {
			t.Errorf("a restart is noticed: %v, %v", measured.Value, err)
		}
	}
	server.Freeze()
	triggertest.WaitFor(t, "the silence", func() bool { return triggertest.InOutage(t, made, 5, postgrestest.Password) }) // it may answer once more before it stops
	_, err := made.Measure(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("frozen: error %v", err)
	}
	server.Thaw()
	triggertest.WaitFor(t, "the return of a frozen server", func() bool { return !triggertest.InOutage(t, made, 5, postgrestest.Password) })
}

func testBlackHole(t *testing.T, server *postgrestest.Server) {
	proxy := servertest.StartProxy(t, server.Addr())
	made := build(t, postgresql.NewClients(), trigger.Config{
		Metadata: config{"query": "SELECT 5", "targetQueryValue": "1"},
		Auth:     config{"connection": strings.Replace(server.URL(), server.Addr(), proxy.Addr(), 1)},
	})
	triggertest.Measure(t, made)
	proxy.Hold()
	for range 2 { // with the connection that there is, then with none
		if !triggertest.InOutage(t, made, 5, postgrestest.Password) {
			t.Error("nothing passes, and no error")
		}
	}
	proxy.Forward()
	triggertest.WaitFor(t, "the return", func() bool { return !triggertest.InOutage(t, made, 5, postgrestest.Password) })
	proxy.Cut()
	if measured, err := triggertest.Try(t, made); err != nil || measured.Value != 5 {
		t.Errorf("a lost connection is not replaced: %v, %v", measured.Value, err)
	}
}

func testRefusals(t *testing.T, server *postgrestest.Server) {
	server.Exec("CREATE USER reader PASSWORD 'old-secret'", "CREATE TABLE forbidden (id int)",
		"CREATE USER crowd PASSWORD 'secret' CONNECTION LIMIT 1")
	clients := postgresql.NewClients()
	with := func(url, text string) trigger.Trigger {
		return build(t, clients, trigger.Config{
			Metadata: config{"query": text, "targetQueryValue": "1"}, Auth: config{"connection": url},
		})
	}
	good := server.UserURL("reader", "old-secret")
	for _, test := range []struct{ name, url, query, want string }{
		{"wrong password", server.UserURL("reader", "hunter2"), "SELECT 1", `does not accept user "reader" with this password`},
		{"password with a backslash", server.UserURL("reader", `hunter2\`), "SELECT 1", "a backslash in it is written twice"},
		{"no such user", server.UserURL("nobody", "hunter2"), "SELECT 1", `does not accept user "nobody"`},
		{"no such database", strings.Replace(good, "/postgres?", "/missing?", 1), "SELECT 1", `has no database "missing"; correct dbName`},
		{"no such table", good, "SELECT count(*) FROM missing", "does not know a table"},
		{"no right", good, "SELECT count(*) FROM forbidden", `denies user "reader" what the query reads; allow it with GRANT`},
		{"no such host", strings.Replace(good, server.Addr(), "no.such.host.invalid:5432", 1), "SELECT 1", "has a name that is not found"},
		{"nobody there", strings.Replace(good, server.Addr(), "127.0.0.1:1", 1), "SELECT 1", "postgresql at 127.0.0.1:1 is not reachable"},
	} {
		_, err := triggertest.Try(t, with(test.url, test.query))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: error %q shows a secret", test.name, err)
		}
	}

	old := with(good, "SELECT 1")
	triggertest.Measure(t, old)
	server.Exec("ALTER USER reader PASSWORD 'new-secret'",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'")
	triggertest.WaitFor(t, "the refusal of the old password", func() bool {
		_, err := old.Measure(t.Context())
		return err != nil && strings.Contains(err.Error(), "SQLSTATE 28P01") && !strings.Contains(err.Error(), "secret")
	})
	triggertest.Measure(t, with(server.UserURL("reader", "new-secret"), "SELECT 1"))

	crowd := server.UserURL("crowd", "secret")
	first, late := with(crowd, "SELECT 1"), with(crowd+"&application_name=late", "SELECT 1")
	triggertest.Measure(t, first)
	_, err := triggertest.Try(t, late)
	if err == nil || !strings.Contains(err.Error(), "takes no more connections; raise its max_connections") {
		t.Errorf("error %v", err)
	}
	first.Close()
	triggertest.WaitFor(t, "a connection to be free", func() bool { return !triggertest.InOutage(t, late, 1, postgrestest.Password) })
}

func testNewDoesNotConnect(t *testing.T, server *postgrestest.Server) {
	proxy := servertest.StartProxy(t, server.Addr())
	for range 10 {
		build(t, postgresql.NewClients(), trigger.Config{
			Metadata: config{"query": "SELECT 1", "targetQueryValue": "1", "channel": "c"},
			Auth:     config{"connection": strings.Replace(server.URL(), server.Addr(), proxy.Addr(), 1)},
		}).Close()
	}
	if proxy.Opened() != 0 {
		t.Errorf("%d connections", proxy.Opened())
	}
}
