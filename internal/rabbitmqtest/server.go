// Package rabbitmqtest starts real RabbitMQ servers for tests. It is imported by tests only.
package rabbitmqtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// Admin is a user who may do everything, with that password.
const (
	Admin    = "admin"
	Password = "hunter2-admin"
)

// Server is a RabbitMQ with its management plugin, and with TLS.
type Server struct {
	*servertest.Process
	Certs *servertest.Certs

	tb testing.TB
}

// Ports of the server.
const (
	PortAMQP = iota
	PortAMQPS
	PortHTTP
	PortHTTPS
	portDistribution
	portCount
)

// Start starts a server and the port mapper that Erlang needs, on a port of its own.
func Start(tb testing.TB) *Server {
	tb.Helper()
	mapper := servertest.Start(tb, "", servertest.Program{
		Name: "epmd",
		Args: func(p *servertest.Process) ([]string, error) {
			return []string{"-address", "127.0.0.1", "-port", fmt.Sprint(p.Port(0))}, nil
		},
		Ready: func(ctx context.Context, p *servertest.Process) error { return connects(ctx, p.Addr(0)) },
		Taken: "failed to bind",
	})
	folder := tb.TempDir()
	made := &Server{tb: tb, Certs: servertest.NewCerts(tb, folder)}
	name := "/usr/lib/rabbitmq/bin/rabbitmq-server" // what Debian has on the PATH insists on its own user and folders
	if _, err := os.Stat(name); err != nil {
		name = "rabbitmq-server"
	}
	made.Process = servertest.Start(tb, folder, servertest.Program{
		Name: name, Ports: portCount, Timeout: 5 * time.Minute, Taken: "eaddrinuse",
		Args: func(p *servertest.Process) ([]string, error) {
			made.Process = p
			return nil, errors.Join(
				p.Write("rabbitmq.conf", made.configuration()),
				p.Write("enabled_plugins", "[rabbitmq_management, rabbitmq_auth_mechanism_ssl].\n"),
				p.Write("env.conf", ""),
			)
		},
		Env: func(p *servertest.Process) []string {
			return []string{
				"HOME=" + p.Folder(), "ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprint("ERL_EPMD_PORT=", mapper.Port(0)),
				"RABBITMQ_NODENAME=test@localhost", fmt.Sprint("RABBITMQ_DIST_PORT=", p.Port(portDistribution)),
				"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
				"RABBITMQ_CONF_ENV_FILE=" + p.Path("env.conf"), "RABBITMQ_CONFIG_FILE=" + p.Path("rabbitmq.conf"),
				"RABBITMQ_ENABLED_PLUGINS_FILE=" + p.Path("enabled_plugins"), "RABBITMQ_LOGS=-",
				"RABBITMQ_MNESIA_BASE=" + p.Path("mnesia"), "RABBITMQ_LOG_BASE=" + p.Path("log"),
				"RABBITMQ_GENERATED_CONFIG_DIR=" + p.Path("generated"), "RABBITMQ_FEATURE_FLAGS_FILE=" + p.Path("flags"),
				"RABBITMQ_PLUGINS_EXPAND_DIR=" + p.Path("plugins"), "RABBITMQ_PID_FILE=" + p.Path("pid"),
			}
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "Server startup complete") {
				return errors.New("it is not up")
			}
			return connects(ctx, p.Addr(PortAMQP))
		},
	})
	return made
}

// Kill ends the server as a crash does, when it has on its disk what was declared, and which streams and quorum queues
// it has to start again.
//
// It answers before that. What is declared gets to the disk some 2 s later: a crash before that loses even a durable
// queue. The library by which replicas agree keeps for up to 3 s in memory what there is to be started. A crash before
// that leaves all streams unavailable for good, if it was the first one, and a quorum queue empty.
func (s *Server) Kill() {
	s.tb.Helper()
	if s.Running() {
		marker := s.declareMarker()
		deadline := time.Now().Add(time.Minute)
		for !s.logged(marker) || !s.registered() {
			if time.Now().After(deadline) {
				s.tb.Fatal("RabbitMQ does not write down what was declared, or which replicas it has")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	s.Process.Kill()
}

// declareMarker declares an exchange of a name of its own: what was declared before is on the disk when that is.
func (s *Server) declareMarker() string {
	s.tb.Helper()
	name := "marker-" + rand.Text()
	conn, err := amqp.Dial(s.AMQP())
	if err != nil {
		s.tb.Fatal(err)
	}
	channel, err := conn.Channel()
	if err == nil {
		err = channel.ExchangeDeclare(name, amqp.ExchangeDirect, true, false, false, false, nil)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		s.tb.Fatal(err)
	}
	return name
}

// logged tells whether the files of the server's database have a name.
func (s *Server) logged(name string) bool {
	s.tb.Helper()
	for _, pattern := range []string{"*.LOG", "*.DCL", "*.DCD"} {
		files, err := filepath.Glob(s.Path("mnesia/*/" + pattern))
		if err != nil {
			s.tb.Fatal(err)
		}
		for _, file := range files {
			// One that was there may be gone: the database makes others of its log.
			if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte(name)) {
				return true
			}
		}
	}
	return false
}

// registered tells whether the register of replicas on the disk has all that have a folder.
func (s *Server) registered() bool {
	s.tb.Helper()
	registers, err := filepath.Glob(s.Path("mnesia/*/*/*/names.dets"))
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, register := range registers {
		content, err := os.ReadFile(register)
		if err != nil {
			s.tb.Fatal(err)
		}
		folders, err := os.ReadDir(filepath.Dir(register))
		if err != nil {
			s.tb.Fatal(err)
		}
		for _, folder := range folders {
			if folder.IsDir() && !bytes.Contains(content, []byte(folder.Name())) {
				return false
			}
		}
	}
	return true
}

func (s *Server) configuration() string {
	lines := []string{
		"listeners.tcp.1 = " + s.Addr(PortAMQP),
		"listeners.ssl.1 = " + s.Addr(PortAMQPS),
		"management.tcp.ip = 127.0.0.1",
		fmt.Sprint("management.tcp.port = ", s.Port(PortHTTP)),
		"management.ssl.ip = 127.0.0.1",
		fmt.Sprint("management.ssl.port = ", s.Port(PortHTTPS)),
		"management.ssl.fail_if_no_peer_cert = true",
		"ssl_options.fail_if_no_peer_cert = false",
		"auth_mechanisms.1 = PLAIN",
		"auth_mechanisms.2 = AMQPLAIN",
		"auth_mechanisms.3 = EXTERNAL",
		"ssl_cert_login_from = common_name",
		"default_user = " + Admin,
		"default_pass = " + Password,
		"collect_statistics_interval = 500",
		"num_acceptors.tcp = 2",
		"log.console = true",
		"log.file = false",
	}
	for _, options := range []string{"ssl_options", "management.ssl"} {
		lines = append(lines,
			options+".cacertfile = "+s.Certs.CAFile, options+".certfile = "+s.Certs.ServerCertFile,
			options+".keyfile = "+s.Certs.ServerKeyFile, options+".verify = verify_peer",
		)
	}
	return strings.Join(lines, "\n") + "\n"
}

func connects(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Put makes a thing by the management API, at a path of escaped segments.
func (s *Server) Put(path string, body any) {
	s.tb.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		s.tb.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPut, "http://"+s.Addr(PortHTTP)+"/api/"+path, bytes.NewReader(content))
	if err != nil {
		s.tb.Fatal(err)
	}
	request.SetBasicAuth(Admin, Password)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(request)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode >= 300 {
		text, _ := io.ReadAll(reply.Body)
		s.tb.Fatalf("PUT %s: %s: %s", path, reply.Status, text)
	}
}

// User makes one with that password, those tags, and permission for the virtual host / unless the tags are "none".
func (s *Server) User(name, password, tags string) {
	s.tb.Helper()
	s.Put("users/"+url.PathEscape(name), map[string]string{"password": password, "tags": strings.TrimPrefix(tags, "none")})
	if tags != "none" {
		s.Permit("/", name)
	}
}

// Permit lets the user do everything in the virtual host.
func (s *Server) Permit(vhost, user string) {
	s.tb.Helper()
	s.Put("permissions/"+url.PathEscape(vhost)+"/"+url.PathEscape(user),
		map[string]string{"configure": ".*", "write": ".*", "read": ".*"})
}

// Channel returns a channel to the virtual host, closed with the test.
func (s *Server) Channel(tb testing.TB, vhost string) *amqp.Channel {
	tb.Helper()
	conn, err := amqp.DialConfig(fmt.Sprintf("amqp://%s:%s@%s", Admin, Password, s.Addr(PortAMQP)),
		amqp.Config{Vhost: vhost, Locale: "en_US"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	channel, err := conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	if err := channel.Confirm(false); err != nil {
		tb.Fatal(err)
	}
	return channel
}

// Queue declares a queue and publishes that many messages to it.
func (s *Server) Queue(tb testing.TB, channel *amqp.Channel, name string, messages int) {
	tb.Helper()
	if _, err := channel.QueueDeclare(name, true, false, false, false, nil); err != nil {
		tb.Fatal(err)
	}
	Publish(tb, channel, name, slices.Repeat([]string{"item"}, messages)...)
}

// Publish publishes messages and waits until the server has them.
func Publish(tb testing.TB, channel *amqp.Channel, queue string, messages ...string) {
	tb.Helper()
	for _, message := range messages {
		confirmation, err := channel.PublishWithDeferredConfirm("", queue, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(message)})
		if err != nil {
			tb.Fatal(err)
		}
		if !confirmation.Wait() {
			tb.Fatal("the server does not take a message")
		}
	}
}

// AMQP returns the URL of the virtual host / for the user Admin.
func (s *Server) AMQP() string {
	return fmt.Sprintf("amqp://%s:%s@%s/", Admin, Password, s.Addr(PortAMQP))
}

// HTTP returns the URL of the management API, likewise.
func (s *Server) HTTP() string {
	return fmt.Sprintf("http://%s:%s@%s/", Admin, Password, s.Addr(PortHTTP))
}
