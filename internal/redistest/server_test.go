package redistest_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

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

func TestProxyHoldsForwardsAndCuts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.StartProxy(t, server.Addr())
	conn, err := net.Dial("tcp", proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer := func(wait time.Duration) error {
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadFull(conn, make([]byte, len("+PONG\r\n")))
		return err
	}
	ping := func() {
		if _, err := conn.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	ping()
	if err := answer(10 * time.Second); err != nil {
		t.Errorf("through the proxy: %v", err)
	}
	proxy.Hold()
	ping()
	if err := answer(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while held: %v", err)
	}
	proxy.Forward()
	if err := answer(10 * time.Second); err != nil {
		t.Errorf("after being held: %v", err)
	}
	proxy.Cut()
	if err := answer(10 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the cut: %v", err)
	}
	if proxy.Opened() != 1 {
		t.Errorf("%d connections opened", proxy.Opened())
	}
}
