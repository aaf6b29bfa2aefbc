package mariadbtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest/mariadbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerKeepsPortAndDataOverRestart(t *testing.T) {
	t.Parallel()
	server := mariadbtest.Start(t, mariadbtest.Options{})
	addr := server.Addr()
	server.Exec("CREATE TABLE items (id int)", "INSERT INTO items VALUES (1), (2)")
	for _, end := range []func(){server.Kill, server.Stop} {
		end()
		server.Restart()
		if got := server.Count("SELECT count(*) FROM items"); got != 2 || server.Addr() != addr {
			t.Errorf("%d rows at %s, want 2 at %s", got, server.Addr(), addr)
		}
	}
}

func TestServerWithTLS(t *testing.T) {
	t.Parallel()
	server := mariadbtest.Start(t, mariadbtest.Options{TLS: true})
	if got := server.Count("SELECT 1"); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}
