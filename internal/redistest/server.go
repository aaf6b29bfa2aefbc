// Package redistest starts real Redis servers for tests: on free ports of 127.0.0.1, in temporary folders, ended with
// the test. It is imported by tests only.
package redistest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// Options say what a server is to be like; the zero value is an open server without persistence.
type Options struct {
	// Password is that of the default user; empty means that none is needed.
	Password string
	// Users are ACL users as the directive `user` takes them, for example "alice on >secret ~* +@all".
	Users []string
	// TLS makes the server speak TLS only, with the certificate of Certs.
	TLS bool
	// Certs are the certificates of other servers to share with TLS; nil means new ones.
	Certs *servertest.Certs
	// ClientCertificate makes the server require a certificate of its clients. It needs TLS.
	ClientCertificate bool
	// AppendOnly makes the server keep its data over a restart.
	AppendOnly bool
	// Directives are further settings, for example "databases 4".
	Directives []string
	// Port is the port to listen on; 0 means a free one. It stays the same over a restart.
	Port int
	// Cluster makes the server a node of a cluster, alone and without slots; StartCluster makes a whole one.
	Cluster bool
	// Monitors makes the server a sentinel that looks after that master, under the name MasterName, and alone decides
	// when it is to be replaced. A password, users and TLS are then the sentinel's own, as far as its version has them.
	Monitors *Server
}

// MasterName is the name by which a sentinel knows its master.
const MasterName = "main"

// Server is one redis-server process.
type Server struct {
	*servertest.Process

	tb      testing.TB
	options Options
	certs   *servertest.Certs
}

// Start starts a server and waits until it answers. It fails the test when there is no redis-server.
func Start(tb testing.TB, options Options) *Server {
	tb.Helper()
	server := &Server{tb: tb, options: options}
	folder := tb.TempDir()
	if server.certs = options.Certs; options.TLS && server.certs == nil {
		server.certs = servertest.NewCerts(tb, folder)
	}
	program := servertest.Program{
		Name: "redis-server", Fixed: options.Port,
		Args: func(p *servertest.Process) ([]string, error) {
			server.Process = p
			args := []string{p.Path("redis.conf")}
			if options.Monitors != nil {
				args = append(args, "--sentinel")
			}
			return args, p.Write("redis.conf", server.configuration())
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			up := "Ready to accept connections"
			if options.Monitors != nil {
				up = "+monitor master"
			}
			// Another server may listen on the port, and this one be about to end: only its own log tells that it is up.
			if !strings.Contains(p.Log(), up) {
				return errors.New("it is not up")
			}
			return server.answers(ctx)
		},
	}
	if options.Cluster {
		program.Ports = 2 // the second is the one on which the nodes talk with each other
	}
	server.Process = servertest.Start(tb, folder, program)
	return server
}

func (s *Server) configuration() string {
	port, tlsPort := s.Process.Port(0), 0
	if s.options.TLS {
		port, tlsPort = 0, s.Process.Port(0)
	}
	appendOnly := "no"
	if s.options.AppendOnly {
		appendOnly = "yes"
	}
	lines := []string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", port),
		"dir " + strconv.Quote(s.Folder()),
	}
	if s.options.Monitors != nil {
		lines = append(lines, s.sentinelLines()...)
	} else {
		lines = append(lines, `save ""`, "appendonly "+appendOnly, "appendfsync always",
			"repl-diskless-sync-delay 0") // a replica need not wait for others
	}
	if s.options.Cluster {
		lines = append(lines, s.clusterLines()...)
	}
	if s.options.Password != "" {
		lines = append(lines, "requirepass "+strconv.Quote(s.options.Password))
	}
	for _, user := range s.options.Users {
		lines = append(lines, "user "+user)
	}
	if s.options.TLS {
		authClients := "no"
		if s.options.ClientCertificate {
			authClients = "yes"
		}
		lines = append(lines,
			fmt.Sprintf("tls-port %d", tlsPort),
			"tls-cert-file "+strconv.Quote(s.certs.ServerCertFile),
			"tls-key-file "+strconv.Quote(s.certs.ServerKeyFile),
			"tls-ca-cert-file "+strconv.Quote(s.certs.CAFile),
			"tls-auth-clients "+authClients,
		)
	}
	lines = append(lines, s.options.Directives...)
	return strings.Join(lines, "\n") + "\n"
}

// sentinelLines let a sentinel replace a master quickly.
func (s *Server) sentinelLines() []string {
	master := s.options.Monitors
	lines := []string{
		fmt.Sprintf("sentinel monitor %s %s %s 1", MasterName, master.Host(), master.Port()),
		"sentinel down-after-milliseconds " + MasterName + " 5000", // less than that a busy machine may take
		"sentinel failover-timeout " + MasterName + " 3000",
	}
	if master.options.Password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", MasterName, strconv.Quote(master.options.Password)))
	}
	if master.options.TLS {
		lines = append(lines, "tls-replication yes")
	}
	return lines
}

// AwaitReplica waits until the sentinel knows a replica that it may promote.
func AwaitReplica(tb testing.TB, sentinel *Server) {
	tb.Helper()
	await(tb, "the sentinel to know a replica", func() bool {
		message := sentinel.Do("SENTINEL", "REPLICAS", MasterName)
		replicas, err := message.ToArray()
		if err != nil || len(replicas) == 0 {
			return false
		}
		replica, err := replicas[0].AsStrMap()
		return err == nil && replica["flags"] == "slave" && replica["master-link-status"] == "ok"
	})
}

// answers returns nil when the server answers a PING in any way but that it is still loading.
func (s *Server) answers(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.HasPrefix(line, "-LOADING") {
		return errors.New(line)
	}
	return err
}

func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	if s.certs == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	}
	dialer := tls.Dialer{Config: s.certs.ClientConfig()}
	return dialer.DialContext(ctx, "tcp", s.Addr())
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.Process.Addr(0) }

// Host returns the host of Addr.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port of Addr.
func (s *Server) Port() string { return strconv.Itoa(s.Process.Port(0)) }

// Certs returns the certificates of a server with TLS.
func (s *Server) Certs() *servertest.Certs { return s.certs }

// Client returns a client that may do everything, closed with the test. It caches nothing.
func (s *Server) Client() rueidis.Client {
	s.tb.Helper()
	client := s.connect()
	s.tb.Cleanup(client.Close)
	return client
}

func (s *Server) connect() rueidis.Client {
	s.tb.Helper()
	options := rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, PipelineMultiplex: -1, DisableCache: true,
		Password: s.options.Password, ClientName: "redistest",
		// It takes a connection for lost that gives no answer for so long: more than a busy machine needs.
		ConnWriteTimeout: time.Minute, Dialer: net.Dialer{Timeout: time.Minute},
	}
	if s.certs != nil {
		options.TLSConfig = s.certs.ClientConfig()
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		s.tb.Fatalf("connect to redis-server at %s: %v", s.Addr(), err)
	}
	return client
}

// Await waits until a client of Client has a connection to the server, after a restart. It repeats no command that
// changes something when that was sent on a connection of before.
func (s *Server) Await(client rueidis.Client) {
	s.tb.Helper()
	await(s.tb, "a connection", func() bool {
		return client.Do(context.Background(), client.B().Ping().Build()).Error() == nil
	})
}

// Do runs one command as the default user, over a connection of its own, and fails the test when it fails.
func (s *Server) Do(args ...string) rueidis.RedisMessage {
	s.tb.Helper()
	client := s.connect()
	defer client.Close()
	message, err := client.Do(context.Background(), client.B().Arbitrary(args...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		s.tb.Fatalf("%q: %v", args, err)
	}
	return message
}

// Text runs a command as Do does, and returns the text that it answers.
func (s *Server) Text(args ...string) string {
	s.tb.Helper()
	message := s.Do(args...)
	text, err := message.ToString()
	if err != nil {
		s.tb.Fatalf("%q: %v", args, err)
	}
	return text
}

// Restart starts a server that Stop or Kill has ended, on the same port and folder, with the password given in place of
// the former one when there is one.
func (s *Server) Restart(password ...string) {
	s.tb.Helper()
	if len(password) > 0 {
		s.options.Password = password[0]
	}
	s.Process.Restart()
}
