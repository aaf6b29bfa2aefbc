package beanstalkd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beanstalkd/go-beanstalk"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/beanstalkd"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// start starts a server that keeps its jobs over a restart.
func start(tb testing.TB) *servertest.Process {
	tb.Helper()
	return servertest.Start(tb, "", servertest.Program{
		Name: "beanstalkd", Ports: 1,
		Args: func(p *servertest.Process) ([]string, error) {
			return []string{
				"-V", "-l", "127.0.0.1", "-p", strconv.Itoa(p.Port(0)), "-b", p.Folder(), "-f", "0", "-s", "65536",
			}, nil
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "bind ") {
				return errors.New("it is not up")
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr(0))
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
}

// dial returns a client, closed with the test.
func dial(tb testing.TB, server *servertest.Process) *beanstalk.Conn {
	tb.Helper()
	conn, err := beanstalk.Dial("tcp", server.Addr(0))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// put puts jobs into a tube, which become ready after the delay.
func put(tb testing.TB, conn *beanstalk.Conn, tube string, count int, delay time.Duration) {
	tb.Helper()
	for range count {
		if _, err := beanstalk.NewTube(conn, tube).Put([]byte("job"), 1, delay, time.Hour); err != nil {
			tb.Fatal(err)
		}
	}
}

// open makes a trigger, closed with the test.
func open(tb testing.TB, clients *beanstalkd.Clients, metadata config) trigger.Trigger {
	tb.Helper()
	made, err := beanstalkd.Type(clients).New(tb.Context(), trigger.Config{Metadata: metadata})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	server := start(t)
	conn := dial(t, server)
	put(t, conn, "work", 3, 0)
	put(t, conn, "work", 2, time.Hour)
	put(t, conn, "default", 1, 0)
	set := beanstalk.NewTubeSet(conn, "work")
	if _, _, err := set.Reserve(time.Minute); err != nil {
		t.Fatal(err)
	}
	buried, _, err := set.Reserve(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Bury(buried, 1); err != nil {
		t.Fatal(err)
	}
	// Of work, one is ready, one reserved, one buried, two are delayed.
	clients := beanstalkd.NewClients()
	for _, test := range []struct {
		name   string
		extra  config
		want   float64
		target float64
		active bool
	}{
		{"ready and reserved", config{}, 2, 5, true},
		{"delayed left out", config{"includeDelayed": "false"}, 2, 5, true},
		{"delayed", config{"includeDelayed": "true"}, 4, 5, true},
		{"value", config{"value": "0.5"}, 2, 0.5, true},
		{"at the activation value", config{"activationValue": "2"}, 2, 5, false},
		{"above the activation value", config{"activationValue": "1.5"}, 2, 5, true},
		{"activation value below zero", config{"activationValue": "-1", "tube": "none"}, 0, 5, true},
		{"another tube", config{"tube": "default"}, 1, 5, true},
		{"no such tube", config{"tube": "none"}, 0, 5, false},
		{"timeout", config{"timeout": "1"}, 2, 5, true},
		{"timeout as a duration", config{"timeout": "1500ms"}, 2, 5, true},
		{"no timeout", config{"timeout": "0"}, 2, 5, true},
		{"timeout that no clock can hold", config{"timeout": "9223372036854775807"}, 2, 5, true},
		{"by name", config{"server": "localhost:" + strconv.Itoa(server.Port(0))}, 2, 5, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			metadata := config{"server": server.Addr(0), "tube": "work", "value": "5"}
			for key, value := range test.extra {
				metadata[key] = value
			}
			got := triggertest.Measure(t, open(t, clients, metadata))
			want := trigger.Measurement{Value: test.want, Target: test.target, Active: test.active}
			if got != want {
				t.Errorf("measured %+v, want %+v", got, want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		extra config
		want  string
	}{
		{"no server", config{"server": ""}, "server: is required"},
		{"a URL", config{"server": "tcp://a:1"}, `server "tcp://a:1": is not an address; give host:port`},
		{"no host", config{"server": ":11300"}, `server ":11300": is not an address`},
		{"two servers", config{"server": "a,b"}, `server "a,b": is not an address`},
		{"no port number", config{"server": "a:b"}, `server "a:b": does not end in a port`},
		{"port 0", config{"server": "a:0"}, `server "a:0": does not end in a port`},
		{"port too large", config{"server": "a:65536"}, `server "a:65536": does not end in a port`},
		{"no tube", config{"tube": ""}, "tube: is required"},
		{"two words", config{"tube": "a b"}, `tube "a b": is not the name of a tube`},
		{"two commands", config{"tube": "a\r\ndelete 1"}, "is not the name of a tube"},
		{"a dash first", config{"tube": "-a"}, `tube "-a": is not the name of a tube`},
		{"long tube", config{"tube": strings.Repeat("a", 201)}, "is not the name of a tube"},
		{"other letters", config{"tube": "ä"}, `tube "ä": is not the name of a tube`},
		{"no value", config{"value": ""}, "value: is required"},
		{"value zero", config{"value": "0"}, `value "0": is too small; give a number above 0`},
		{"value no number", config{"value": "many"}, `value "many": is not a number`},
		{"activation no number", config{"activationValue": "x"}, `activationValue "x": is not a number`},
		{"delayed no boolean", config{"includeDelayed": "yes"}, `includeDelayed "yes": is not a boolean`},
		{"timeout no time", config{"timeout": "soon"}, `timeout "soon": is not a time`},
		{"timeout negative", config{"timeout": "-1"}, `timeout "-1": is negative`},
		{"duration negative", config{"timeout": "-1s"}, `timeout "-1s": is negative`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"server": "127.0.0.1:11300", "tube": "work", "value": "5"}
			for key, value := range test.extra {
				metadata[key] = value
			}
			made, err := beanstalkd.Type(beanstalkd.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q", err, test.want)
			}
		})
	}
}

// TestDefaultPort tells by the error, since port 11300 is nobody's to take: an address of the network that is kept for
// documentation is never reached.
func TestDefaultPort(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:11300", "192.0.2.1:1": "192.0.2.1:1", "2001:db8::1": "[2001:db8::1]:11300",
		"[2001:db8::1]": "[2001:db8::1]:11300", "[2001:db8::1]:7": "[2001:db8::1]:7",
	} {
		made := open(t, beanstalkd.NewClients(), config{"server": server, "tube": "a", "value": "1", "timeout": "1ms"})
		triggertest.Fails(t, made, "beanstalkd at "+want+" ")
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	name := beanstalkd.Type(beanstalkd.NewClients()).ExternalMetricName(1, trigger.Config{Metadata: config{"tube": "a.b/c+(d)"}})
	if want := "s1-beanstalkd-a-b-2Fc-2B-28d-29"; name != want {
		t.Errorf("metric name %q, want %q", name, want)
	}
}

func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := start(t)
	put(t, dial(t, server), "work", 2, 0)
	made := open(t, beanstalkd.NewClients(), config{"server": server.Addr(0), "tube": "work", "value": "1"})
	for _, end := range []func(){server.Kill, server.Stop} {
		if got := triggertest.Measure(t, made).Value; got != 2 {
			t.Errorf("measured %v, want 2", got)
		}
		end()
		triggertest.Fails(t, made, "beanstalkd at "+server.Addr(0)+" is not reachable")
		server.Restart()
		// What the restart broke is not noticed: the connection is opened anew.
		if got := triggertest.Measure(t, made).Value; got != 2 {
			t.Errorf("measured %v after the return, want 2", got)
		}
		end()
		server.Restart()
		if got := triggertest.Measure(t, made).Value; got != 2 {
			t.Errorf("measured %v after a restart that nobody saw, want 2", got)
		}
	}
}

func TestFrozenServer(t *testing.T) {
	t.Parallel()
	server := start(t)
	put(t, dial(t, server), "work", 2, 0)
	clients := beanstalkd.NewClients()
	metadata := config{"server": server.Addr(0), "tube": "work", "value": "1"}
	made := open(t, clients, metadata)
	triggertest.Measure(t, made)
	server.Freeze()
	// Those that wait for their turn give up in time as well.
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() { triggertest.Fails(t, made, "beanstalkd at "+server.Addr(0)+" does not answer in time") })
	}
	waiting.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := made.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v of a measurement that is given up, want %v", err, context.Canceled)
	}
	server.Thaw()
	if got := triggertest.Measure(t, made).Value; got != 2 {
		t.Errorf("measured %v after the return, want 2", got)
	}
}

func TestForeignServers(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	stats := "---\ncurrent-jobs-ready: 1\ncurrent-jobs-reserved: 2\ncurrent-jobs-delayed: 3\n"
	for _, test := range []struct{ name, answer, want string }{
		{"another protocol", "HTTP/1.1 400 " + secret + "\r\n\r\n", "does not answer as beanstalkd does"},
		{"no protocol", strings.Repeat(secret, 10_000), "does not answer as beanstalkd does"},
		{"a size below zero", "OK -7\r\n" + secret + "\r\n", "does not answer as beanstalkd does"},
		{"a size that is too large", "OK 99999999999999\r\n" + secret, "does not answer as beanstalkd does"},
		{"a size that is wrong", "OK 2\r\n" + secret + "\r\n", "does not answer as beanstalkd does"},
		{"no counts", "OK 7\r\n" + secret + "\r\n", "does not answer as beanstalkd does"},
		{"a count below zero", fmt.Sprintf("OK %d\r\n%s\r\n", len(stats)+1, strings.ReplaceAll(stats, "2", "-2")),
			"does not answer as beanstalkd does"},
		{"no answer", "", "closed the connection"},
		{"half an answer", "OK 100\r\n" + stats, "closed the connection"},
		{"out of memory", "OUT_OF_MEMORY\r\n", "is out of memory"},
		{"internal error", "INTERNAL_ERROR\r\n", "reports an internal error"},
		{"draining", "DRAINING\r\n", "is draining"},
		{"unknown command", "UNKNOWN_COMMAND\r\n", "does not take the command stats-tube"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made := open(t, beanstalkd.NewClients(), config{"server": answering(t, test.answer), "tube": "work", "value": "1"})
			_, err := made.Measure(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	good := fmt.Sprintf("OK %d\r\n%s\r\n", len(stats), stats)
	if got := triggertest.Measure(t, open(t, beanstalkd.NewClients(), config{"server": answering(t, good), "tube": "a", "value": "1"})).Value; got != 3 {
		t.Errorf("measured %v, want 3", got)
	}
}

// answering returns the address of a server that answers each first line with the text, and then closes.
func answering(t *testing.T, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

func TestConnectionIsShared(t *testing.T) {
	t.Parallel()
	server := start(t)
	proxy := servertest.StartProxy(t, server.Addr(0))
	put(t, dial(t, server), "tube3", 3, 0)
	clients := beanstalkd.NewClients()
	var measuring sync.WaitGroup
	var all []trigger.Trigger
	for i := range 20 {
		made := open(t, clients, config{"server": proxy.Addr(), "tube": fmt.Sprint("tube", i), "value": "1"})
		all = append(all, made)
		measuring.Go(func() {
			measured, err := made.Measure(t.Context())
			if want := map[bool]float64{true: 3}[i == 3]; err != nil || measured.Value != want {
				t.Errorf("measured %v of tube %d, error %v, want %v", measured.Value, i, err, want)
			}
		})
	}
	measuring.Wait()
	if proxy.Opened() != 1 || clients.Connections() != 1 {
		t.Errorf("%d connections were opened, %d are kept, want 1", proxy.Opened(), clients.Connections())
	}
	open(t, clients, config{"server": proxy.Addr(), "tube": "a", "value": "1", "timeout": "7"}).Close()
	for _, made := range all {
		made.Close()
	}
	if clients.Connections() != 0 {
		t.Errorf("%d connections are kept, want none", clients.Connections())
	}
	if proxy.Opened() != 1 {
		t.Errorf("making a trigger connects: %d connections", proxy.Opened())
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("OK 75\r\n---\ncurrent-jobs-ready: 1\ncurrent-jobs-reserved: 2\ncurrent-jobs-delayed: 3\n\r\n"))
	f.Add([]byte("NOT_FOUND\r\n"))
	f.Add([]byte("OK -1\r\n"))
	f.Add([]byte("OK 4294967295\r\nx"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ready, reserved, delayed, remaining, err := beanstalkd.ReadStats(answer)
		if ready < 0 || reserved < 0 || delayed < 0 {
			t.Errorf("counts %d, %d and %d, want none below zero", ready, reserved, delayed)
		}
		if err == nil && len(answer)-remaining > beanstalkd.MaxBody+100 {
			t.Errorf("an answer of %d bytes is taken, want at most %d", len(answer)-remaining, beanstalkd.MaxBody)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("error %q, want no reply in it", err)
		}
	})
}

// BenchmarkMeasure measures a reading next to the question that the client library asks.
func BenchmarkMeasure(b *testing.B) {
	server := start(b)
	conn := dial(b, server)
	put(b, conn, "work", 2, 0)
	tube := beanstalk.NewTube(conn, "work")
	made := open(b, beanstalkd.NewClients(), config{"server": server.Addr(0), "tube": "work", "value": "1"})
	triggertest.Compare(b, made, func() error {
		_, err := tube.Stats()
		return err
	})
}
