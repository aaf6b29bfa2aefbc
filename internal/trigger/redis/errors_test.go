package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestErrorsSayWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{})
	locked := redistest.Start(t, redistest.Options{
		Password: "hunter2", Users: []string{"blind on >hunter2 ~other +@all", "mute on >hunter2 ~* +@connection"},
	})
	secured := redistest.Start(t, redistest.Options{TLS: true})
	mutual := redistest.Start(t, redistest.Options{TLS: true, ClientCertificate: true})
	cluster := redistest.Start(t, redistest.Options{Directives: []string{"cluster-enabled yes"}})
	other := servertest.NewCerts(t, t.TempDir())
	for _, test := range []struct {
		name           string
		server         *redistest.Server
		metadata, auth config
		want           string
	}{
		{"no password", locked, nil, nil, "requires a password; give passwordFromEnv"},
		{"wrong password", locked, config{"password": "hunter2-old"}, nil, `does not accept user "default" with this password`},
		{"unknown user", locked, config{"username": "bob", "password": "hunter2"}, nil, `does not accept user "bob"`},
		{"key denied", locked, config{"username": "blind", "password": "hunter2"}, nil, `denies user "blind" a command or the key`},
		{"command denied", locked, config{"username": "mute", "password": "hunter2"}, nil, `denies user "mute" a command or the key`},
		{"database", plain, config{"databaseIndex": "99"}, nil, "has no database 99; give a databaseIndex below"},
		{"cluster", cluster, nil, nil, "is a node of a Redis Cluster; use trigger type redis-cluster"},
		{"cluster database", cluster, config{"databaseIndex": "1"}, nil, "is a node of a Redis Cluster"},
		{"TLS to a plain port", plain, config{"enableTLS": "true"}, nil, "no TLS on this port"},
		{"plain to a TLS port", secured, nil, nil, `if it expects TLS, give enableTLS "true"`},
		{"unknown authority", secured, config{"enableTLS": "true"}, nil, "certificate of an unknown authority; give ca"},
		{"another authority", secured, config{"enableTLS": "true"}, config{"ca": other.CA}, "certificate of an unknown authority"},
		{"no client certificate", mutual, config{"enableTLS": "true"}, config{"ca": mutual.Certs().CA},
			"may require a client certificate: give cert and key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"listName": "list", "address": test.server.Addr()}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			made := build(t, redis.NewClients(), trigger.Config{Metadata: metadata, Auth: test.auth})
			_, err := triggertest.Try(t, made)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range []string{"redis at " + test.server.Addr(), test.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q shows a password or has several lines", err)
			}
		})
	}
}

func TestCertificateForAnotherName(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{TLS: true})
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	// Every address of 127.0.0.0/8 is this machine on Linux only; elsewhere the server is not reachable by it at all.
	made := build(t, redis.NewClients(), trigger.Config{
		Metadata: config{"listName": "list", "address": "ip6-localhost:" + port + ",127.0.0.1:" + port, "enableTLS": "true"},
		Auth:     config{"ca": server.Certs().CA},
	})
	if measured := measure(t, made); measured.Value != 0 {
		t.Errorf("measured %v", measured)
	}
}

// fake is a server that answers each command by its first word with a fixed reply.
func fake(t *testing.T, replies func(command []string) string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				defer func() { _ = conn.Close() }()
				reader := bufio.NewReader(conn)
				for {
					command, err := readCommand(reader)
					if err != nil {
						return
					}
					if _, err := conn.Write([]byte(replies(command))); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

func readCommand(reader *bufio.Reader) ([]string, error) {
	var count int
	if _, err := fmt.Fscanf(reader, "*%d\r\n", &count); err != nil {
		return nil, err
	}
	command := make([]string, count)
	for i := range command {
		var length int
		if _, err := fmt.Fscanf(reader, "$%d\r\n", &length); err != nil {
			return nil, err
		}
		text := make([]byte, length+2)
		for read := 0; read < len(text); {
			n, err := reader.Read(text[read:])
			if err != nil {
				return nil, err
			}
			read += n
		}
		command[i] = string(text[:length])
	}
	return command, nil
}

const hello3 = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"

func TestRepliesOfServersInTrouble(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ reply, want string }{
		{"-LOADING Redis is loading the dataset in memory\r\n", "is still loading its data: LOADING"},
		{"-MASTERDOWN Link with MASTER is down\r\n", "is a replica that has lost its master"},
		{"-MOVED 3999 127.0.0.1:6381\r\n", "use trigger type redis-cluster"},
		{"-CLUSTERDOWN Hash slot not served\r\n", "use trigger type redis-cluster"},
		{"-ERR something new\r\n", "something new"},
	} {
		address := fake(t, func(command []string) string {
			switch command[0] {
			case "HELLO":
				return hello3
			case "CLIENT":
				return "+OK\r\n"
			default:
				return test.reply
			}
		})
		_, err := triggertest.Try(t, open(t, config{"address": address, "listName": "list"}))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), address) {
			t.Errorf("%q gives %v, want %q", test.reply, err, test.want)
		}
	}
}

// TestServerThatEchoesThePassword covers servers that quote the whole of a command that they do not know.
func TestServerThatEchoesThePassword(t *testing.T) {
	t.Parallel()
	address := fake(t, func(command []string) string {
		return fmt.Sprintf("-ERR unknown command '%s', with args beginning with: %q\r\n", command[0], command[1:])
	})
	_, err := open(t, config{"address": address, "listName": "list", "password": "hunter2"}).Measure(t.Context())
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

// TestLoadingServerIsNoticedWhenReady makes a server answer that it is loading for a while.
func TestLoadingServerIsNoticedWhenReady(t *testing.T) {
	t.Parallel()
	// A busy machine takes longer now and then, pauses that are too long do each time.
	waitFor(t, "a server to be measured less than two seconds after it was ready", func() bool {
		return noticedAfter(t, time.Now().Add(time.Second)) < 2*time.Second
	})
}

// noticedAfter returns how long after it is ready a server is measured.
func noticedAfter(t *testing.T, ready time.Time) time.Duration {
	t.Helper()
	address := fake(t, func(command []string) string {
		switch {
		case command[0] == "HELLO":
			return hello3
		case command[0] == "CLIENT":
			return "+OK\r\n"
		case time.Now().Before(ready):
			return "-LOADING Redis is loading the dataset in memory\r\n"
		case command[0] == "PING":
			return "+PONG\r\n"
		default:
			return ":7\r\n"
		}
	})
	made := open(t, config{"address": address, "listName": "list"})
	changes := watch(t, made)
	changes.until(t, "the server to be ready", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 7
	})
	return time.Since(ready)
}

func TestGarbageInsteadOfRedis(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"HTTP/1.1 400 Bad Request\r\n\r\n", "\x00\x00\x00", "$-99\r\n", "*1000000000\r\n", "%99999999\r\n", "\r\n", ">2\r\n",
	} {
		address := fake(t, func([]string) string { return reply })
		made := open(t, config{"address": address, "listName": "list"})
		since := time.Now()
		_, err := made.Measure(t.Context())
		if err == nil || time.Since(since) > mostMeasureTime {
			t.Errorf("%q gives %v after %v", reply, err, time.Since(since))
		}
		made.Close()
	}
}
