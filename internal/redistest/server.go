// Package redistest starts real Redis servers for tests: on free ports of 127.0.0.1, in temporary folders, ended with
// the test. It is imported by tests only.
package redistest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 20 * time.Second

// Options say what a server is to be like; the zero value is an open server without persistence.
type Options struct {
	// Password is that of the default user; empty means that none is needed.
	Password string
	// Users are ACL users as the directive `user` takes them, for example "alice on >secret ~* +@all".
	Users []string
	// TLS makes the server speak TLS only, with the certificate of Certs.
	TLS bool
	// ClientCertificate makes the server require a certificate of its clients. It needs TLS.
	ClientCertificate bool
	// AppendOnly makes the server keep its data over a restart.
	AppendOnly bool
	// Directives are further settings, for example "databases 4".
	Directives []string
	// Port is the port to listen on; 0 means a free one. It stays the same over a restart.
	Port int
}

// Server is one redis-server process.
type Server struct {
	tb      testing.TB
	options Options
	folder  string
	certs   *Certs
	port    int
	running *exec.Cmd
	exited  chan struct{}
}

// Start starts a server and waits until it answers. It fails the test when there is no redis-server.
func Start(tb testing.TB, options Options) *Server {
	tb.Helper()
	server := &Server{tb: tb, options: options, folder: tb.TempDir(), port: options.Port}
	if options.TLS {
		server.certs = NewCerts(tb, server.folder)
	}
	tb.Cleanup(server.Kill)
	// Another process may take a port between its choice and its use.
	for range 50 {
		if options.Port == 0 {
			server.port = freePort(tb)
		}
		err := server.launch()
		if err == nil {
			return server
		}
		if options.Port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			tb.Fatal(err)
		}
	}
	tb.Fatal("no free port for redis-server found")
	return nil
}

// freePort returns a port on which nothing listens, from below the range that systems take outgoing ports from, so that
// it is most likely still free when a server restarts on it.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			tb.Fatal(err)
		}
		return port
	}
	tb.Fatal("no free port on 127.0.0.1 found")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// launch starts the process and waits until it answers. The error is EADDRINUSE when the port is taken.
func (s *Server) launch() error {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New("there is no redis-server on the PATH: run `make test`, which installs it")
	}
	configuration := filepath.Join(s.folder, "redis.conf")
	if err := os.WriteFile(configuration, []byte(s.configuration()), 0o600); err != nil {
		return err
	}
	logPath := filepath.Join(s.folder, "redis.log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	command := exec.Command(binary, configuration)
	command.Stdout, command.Stderr = logFile, logFile
	if err := command.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = command.Wait()
	}()
	s.running, s.exited = command, exited
	deadline := time.Now().Add(startTimeout)
	for {
		select {
		case <-exited:
			output, _ := os.ReadFile(logPath)
			if strings.Contains(string(output), "Address already in use") {
				return fmt.Errorf("redis-server on port %d: %w", s.port, syscall.EADDRINUSE)
			}
			return fmt.Errorf("redis-server ended at once:\n%s", output)
		case <-time.After(5 * time.Millisecond):
		}
		// Another server may listen on the port, and this one be about to end: only its own log tells that it is up.
		output, _ := os.ReadFile(logPath)
		if strings.Contains(string(output), "Ready to accept connections") && s.answers() {
			return nil
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("redis-server does not answer within %v:\n%s", startTimeout, output)
		}
	}
}

func (s *Server) configuration() string {
	port, tlsPort := s.port, 0
	if s.options.TLS {
		port, tlsPort = 0, s.port
	}
	appendOnly := "no"
	if s.options.AppendOnly {
		appendOnly = "yes"
	}
	lines := []string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", port),
		"dir " + strconv.Quote(s.folder),
		`save ""`,
		"appendonly " + appendOnly,
		"appendfsync always",
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

// answers tells whether the server answers a PING in any way but that it is still loading.
func (s *Server) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && !strings.HasPrefix(line, "-LOADING")
}

func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	if s.certs == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	}
	dialer := tls.Dialer{Config: s.certs.ClientConfig()}
	return dialer.DialContext(ctx, "tcp", s.Addr())
}

// Addr returns host:port.
func (s *Server) Addr() string { return address(s.port) }

// Host returns the host of Addr.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port of Addr.
func (s *Server) Port() string { return strconv.Itoa(s.port) }

// Folder returns the server's working folder.
func (s *Server) Folder() string { return s.folder }

// Certs returns the certificates of a server with TLS.
func (s *Server) Certs() *Certs { return s.certs }

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

// Restart starts a server that Stop or Kill has ended, on the same port and folder, with the password given in place of
// the former one when there is one.
func (s *Server) Restart(password ...string) {
	s.tb.Helper()
	if len(password) > 0 {
		s.options.Password = password[0]
	}
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.launch()
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			s.tb.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // whoever took the port may give it back
	}
}

// Stop ends the server in order.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once. It does nothing when the server has ended.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Freeze stops the process, so that connections stay open and nothing is answered; Thaw lets it go on.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	if err := s.running.Process.Signal(signal); err != nil {
		s.tb.Fatalf("send %v to redis-server: %v", signal, err)
	}
}

func (s *Server) end(signal syscall.Signal) {
	if s.running == nil {
		return
	}
	_ = s.running.Process.Signal(signal) // fails when it has ended already
	select {
	case <-s.exited:
	case <-time.After(startTimeout):
		_ = s.running.Process.Kill()
		<-s.exited
	}
	s.running = nil
}
