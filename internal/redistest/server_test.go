package redistest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerKeepsPortAndDataOverRestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true, Password: "old"})
	server.Do("RPUSH", "list", "a", "b")
	server.Kill()
	server.Restart("new")
	answer := server.Do("LLEN", "list")
	if got, err := answer.AsInt64(); err != nil || got != 2 {
		t.Errorf("LLEN after restart: %d, %v", got, err)
	}
}

func TestTLSServerWithClientCertificate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{TLS: true, ClientCertificate: true})
	server.Do("PING")
}
