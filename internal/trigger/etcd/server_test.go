package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/etcd"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// server is one etcd process and a client that may do everything.
type server struct {
	*servertest.Process
	certs  *servertest.Certs
	client *clientv3.Client
}

// The passwords of the users that login makes; alice may read the keys that begin with "open".
const (
	rootPassword  = "root-secret"
	alicePassword = "alice-secret"
)

// start starts a server. With TLS it requires a certificate of its clients.
func start(tb testing.TB, withTLS bool, args ...string) *server {
	tb.Helper()
	made := &server{}
	folder, scheme := tb.TempDir(), "http"
	if withTLS {
		made.certs, scheme = servertest.NewCerts(tb, folder), "https"
		args = append(args, "--cert-file", made.certs.ServerCertFile, "--key-file", made.certs.ServerKeyFile,
			"--trusted-ca-file", made.certs.CAFile, "--client-cert-auth")
	}
	made.Process = servertest.Start(tb, folder, servertest.Program{
		Name: "etcd", Ports: 2,
		Args: func(p *servertest.Process) ([]string, error) {
			url, peer := scheme+"://"+p.Addr(0), "http://"+p.Addr(1)
			return append([]string{
				"--name", "t", "--data-dir", p.Path("data"), "--enable-grpc-gateway=false", "--bcrypt-cost", "4",
				"--listen-client-urls", url, "--advertise-client-urls", url,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "t=" + peer,
			}, args...), nil
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "ready to serve client requests") {
				return errors.New("it is not up")
			}
			client, err := made.dial(p, "", "")
			if err != nil {
				return err
			}
			defer func() { _ = client.Close() }()
			_, err = client.Get(ctx, "any")
			if err != nil && strings.Contains(err.Error(), "user name is empty") {
				return nil
			}
			return err
		},
	})
	made.login(tb, "", "")
	return made
}

func (s *server) dial(p *servertest.Process, user, password string) (*clientv3.Client, error) {
	settings := clientv3.Config{
		Endpoints: []string{p.Addr(0)}, Username: user, Password: password, Logger: zap.NewNop(), DialTimeout: time.Minute,
	}
	if s.certs != nil {
		settings.TLS = s.certs.ClientConfig()
	}
	return clientv3.New(settings)
}

// login uses that user from now on.
func (s *server) login(tb testing.TB, user, password string) {
	tb.Helper()
	client, err := s.dial(s.Process, user, password)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	s.client = client
}

// restrict turns authentication on.
func (s *server) restrict(t *testing.T) {
	t.Helper()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.client.UserAdd(t.Context(), "root", rootPassword))
	must(s.client.UserGrantRole(t.Context(), "root", "root"))
	must(s.client.UserAdd(t.Context(), "alice", alicePassword))
	must(s.client.RoleAdd(t.Context(), "reader"))
	must(s.client.RoleGrantPermission(t.Context(), "reader", "open", "opeo", clientv3.PermissionType(clientv3.PermRead)))
	must(s.client.UserGrantRole(t.Context(), "alice", "reader"))
	must(s.client.AuthEnable(t.Context()))
	s.login(t, "root", rootPassword)
}

func (s *server) put(tb testing.TB, key, value string) int64 {
	tb.Helper()
	put, err := s.client.Put(tb.Context(), key, value)
	if err != nil {
		tb.Fatal(err)
	}
	return put.Header.Revision
}

// open makes a trigger, closed with the test.
func open(tb testing.TB, clients *etcd.Clients, cfg trigger.Config) trigger.Trigger {
	tb.Helper()
	made, err := etcd.Type(clients).New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

// eventually waits until something holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(triggertest.Patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v", what, triggertest.Patience)
		}
	}
}

// watch counts the calls of changed, until the end of the test.
func watch(tb testing.TB, made trigger.Trigger) (calls func() int) {
	tb.Helper()
	var mu sync.Mutex
	count := 0
	tb.Cleanup(made.(trigger.Watcher).Watch(func() {
		mu.Lock()
		defer mu.Unlock()
		count++
	}))
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

// metadata of a key whose number one Job takes whole.
func metadata(endpoints, key string) config {
	return config{"endpoints": endpoints, "watchKey": key, "value": "1"}
}

// named joins a key and a number to the name of a test's key.
func named(key string, i int) string { return fmt.Sprintf("%s-%d", key, i) }
