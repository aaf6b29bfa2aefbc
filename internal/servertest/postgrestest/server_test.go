package postgrestest_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerKeepsPortAndDataOverRestart(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	addr := server.Addr()
	server.Exec("CREATE TABLE jobs (id int)", "INSERT INTO jobs VALUES (1), (2)")
	open := server.Connect() // neither end waits for it
	for _, end := range []func(){server.Kill, server.Stop} {
		end()
		if _, err := pgx.Connect(t.Context(), server.URL()); err == nil {
			t.Error("it answers after its end")
		}
		server.Restart()
		if got := server.Count("SELECT count(*) FROM jobs"); got != 2 || server.Addr() != addr {
			t.Errorf("%d rows at %s, want 2 at %s", got, server.Addr(), addr)
		}
	}
	if err := open.Ping(t.Context()); err == nil {
		t.Error("a connection has survived")
	}
}

func TestFrozenServerAnswersAfterwards(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{TLS: true})
	open := server.Connect()
	server.Freeze()
	answered := make(chan error, 1)
	go func() { answered <- open.Ping(context.Background()) }()
	select {
	case err := <-answered:
		t.Errorf("a frozen server answers: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	server.Thaw()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
