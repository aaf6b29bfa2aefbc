package servertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// redis is a server to try on what holds for all.
func redis() servertest.Program {
	return servertest.Program{
		Name: "redis-server", Ports: 1,
		Args: func(p *servertest.Process) ([]string, error) {
			return []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(p.Port(0))}, nil
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "Ready to accept connections") {
				return errors.New("it is not up")
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr(0))
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
}

func TestProcessKeepsItsPortOverARestart(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, "", redis())
	addr := server.Addr(0)
	dial := func() error {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	for _, end := range []func(){server.Kill, server.Stop} {
		if err := dial(); err != nil {
			t.Error(err)
		}
		end()
		if dial() == nil {
			t.Error("somebody answers after the end")
		}
		server.Restart()
	}
	if server.Addr(0) != addr {
		t.Errorf("after restarts it is at %s, before at %s", server.Addr(0), addr)
	}
}

func TestTwoProcessesOfThatPortGetTwo(t *testing.T) {
	t.Parallel()
	first, second := servertest.Start(t, "", redis()), servertest.Start(t, "", redis())
	if first.Port(0) == second.Port(0) {
		t.Errorf("both are at %s", first.Addr(0))
	}
}

func TestProxyHoldsForwardsAndCuts(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, "", redis())
	proxy := servertest.StartProxy(t, server.Addr(0))
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

// TestAddressesAreNotGivenTwice has two processes ask for addresses on which they do not listen yet.
func TestAddressesAreNotGivenTwice(t *testing.T) {
	t.Parallel()
	const count, variable = 2000, "OFFBOARD_TEST_ADDRESSES"
	seen := map[string]bool{}
	for range count {
		seen[servertest.FreeAddress(t)] = true
	}
	if len(seen) != count {
		t.Errorf("%d of %d addresses are different", len(seen), count)
	}
	if os.Getenv(variable) != "" {
		for address := range seen {
			fmt.Println("address", address)
		}
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program, "-test.run=^TestAddressesAreNotGivenTwice$")
	command.Env = append(os.Environ(), variable+"=1")
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	others := 0
	for line := range strings.Lines(string(output)) {
		if address, found := strings.CutPrefix(strings.TrimSpace(line), "address "); found {
			others++
			if seen[address] {
				t.Errorf("another process was given %s as well", address)
			}
		}
	}
	if others != count {
		t.Errorf("the other process was given %d addresses, want %d:\n%s", others, count, output)
	}
}
