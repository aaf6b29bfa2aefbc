package mysql_test

import (
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/mariadbtest"
	"github.com/offboard-dev/offboard/internal/trigger/mysql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := mariadbtest.Start(t, mariadbtest.Options{})
	server.Stop()
	made := query(t, mysql.NewClients(), server.DSN(), "SELECT 5")
	if !triggertest.InOutage(t, made, 5, mariadbtest.Password) {
		t.Error("there is no server, and no error")
	}
	server.Restart()
	triggertest.WaitFor(t, "the server that came up", func() bool { return !triggertest.InOutage(t, made, 5, mariadbtest.Password) })
	for name, end := range map[string]func(){"kill": server.Kill, "stop": server.Stop} {
		end()
		_, err := made.Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), server.Addr()+" is not reachable") {
			t.Errorf("%s: error %v", name, err)
		}
		server.Restart()
		triggertest.WaitFor(t, "the return after "+name, func() bool { return !triggertest.InOutage(t, made, 5, mariadbtest.Password) })
	}
	// A restart between two measurements goes unnoticed.
	server.Kill()
	server.Restart()
	if measured, err := triggertest.Try(t, made); err != nil || measured.Value != 5 {
		t.Errorf("a restart is noticed: %v, %v", measured.Value, err)
	}
	server.Freeze()
	triggertest.WaitFor(t, "the silence", func() bool { return triggertest.InOutage(t, made, 5, mariadbtest.Password) }) // it may answer once more before it stops
	_, err := made.Measure(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("frozen: error %v", err)
	}
	server.Thaw()
	triggertest.WaitFor(t, "the return of a frozen server", func() bool { return !triggertest.InOutage(t, made, 5, mariadbtest.Password) })
}

func testBlackHole(t *testing.T, server *mariadbtest.Server) {
	proxy := servertest.StartProxy(t, server.Addr())
	made := query(t, mysql.NewClients(), strings.Replace(server.DSN(), server.Addr(), proxy.Addr(), 1), "SELECT 5")
	triggertest.Measure(t, made)
	proxy.Hold()
	for range 2 { // with the connection that there is, then with none
		if !triggertest.InOutage(t, made, 5, mariadbtest.Password) {
			t.Error("nothing passes, and no error")
		}
	}
	proxy.Forward()
	triggertest.WaitFor(t, "the return", func() bool { return !triggertest.InOutage(t, made, 5, mariadbtest.Password) })
	proxy.Cut()
	if measured, err := triggertest.Try(t, made); err != nil || measured.Value != 5 {
		t.Errorf("a lost connection is not replaced: %v, %v", measured.Value, err)
	}
}

func testRefusals(t *testing.T, server *mariadbtest.Server) {
	good := user(server, "reader", "old-secret")
	server.Exec("CREATE DATABASE forbidden", "CREATE TABLE forbidden.items (id int)")
	clients := mysql.NewClients()
	for _, test := range []struct{ name, dsn, query, want string }{
		{"wrong password", strings.Replace(good, "old-secret", "hunter2", 1), "SELECT 1", `does not accept user "reader" with this password`},
		{"no such user", strings.Replace(good, "reader", "nobody", 1), "SELECT 1", `does not accept user "nobody"`},
		{"no such database", strings.Replace(server.DSN(), "/jobs", "/missing", 1), "SELECT 1", "does not have the database; correct dbName"},
		{"no database", strings.Replace(good, "/jobs", "/", 1), "SELECT count(*) FROM items", "does not have the database; correct dbName"},
		{"forbidden database", strings.Replace(good, "/jobs", "/forbidden", 1), "SELECT 1", `denies user "reader" what the query reads`},
		{"forbidden table", good, "SELECT count(*) FROM forbidden.items", `denies user "reader" what the query reads; allow it with GRANT`},
		{"no such host", strings.Replace(good, server.Addr(), "no.such.host.invalid:3306", 1), "SELECT 1", "has a name that is not found"},
		{"nobody there", strings.Replace(good, server.Addr(), "127.0.0.1:1", 1), "SELECT 1", "mysql at 127.0.0.1:1 is not reachable"},
	} {
		_, err := triggertest.Try(t, query(t, clients, test.dsn, test.query))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: error %q shows a secret", test.name, err)
		}
	}
	old := query(t, clients, good, "SELECT 1")
	triggertest.Measure(t, old)
	server.Exec("SET PASSWORD FOR 'reader'@'127.0.0.1' = PASSWORD('new-secret')", "KILL USER 'reader'@'127.0.0.1'")
	triggertest.WaitFor(t, "the refusal of the old password", func() bool {
		_, err := old.Measure(t.Context())
		return err != nil && strings.Contains(err.Error(), "(error 1045)") && !strings.Contains(err.Error(), "secret")
	})
	triggertest.Measure(t, query(t, clients, strings.Replace(good, "old-secret", "new-secret", 1), "SELECT 1"))
}

func testNewDoesNotConnect(t *testing.T, server *mariadbtest.Server) {
	proxy := servertest.StartProxy(t, server.Addr())
	for range 10 {
		query(t, mysql.NewClients(), strings.Replace(server.DSN(), server.Addr(), proxy.Addr(), 1), "SELECT 1").Close()
	}
	if proxy.Opened() != 0 {
		t.Errorf("%d connections", proxy.Opened())
	}
}
