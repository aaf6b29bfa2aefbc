// Package postgrestest starts real PostgreSQL servers for tests: on free ports of 127.0.0.1, in temporary folders,
// ended with the test. It is imported by tests only.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shirou/gopsutil/v4/process"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// The user that may do everything, and the database that there is.
const (
	User     = "postgres"
	Password = "the superuser's secret"
	Database = "postgres"
)

// Options say what a server is to be like; the zero value takes connections with and without TLS off.
type Options struct {
	// TLS makes the server take connections with TLS only, with the certificate of Certs.
	TLS bool
	// Trust makes the server take connections without a password.
	Trust bool
	// Settings are further lines of postgresql.conf, for example "max_connections = 10".
	Settings []string
}

// Server is one PostgreSQL server.
type Server struct {
	*servertest.Process

	tb      testing.TB
	options Options
	certs   *servertest.Certs
	account *syscall.Credential
}

// Start starts a server with an empty database and waits until it answers. It fails the test when there is no
// PostgreSQL.
func Start(tb testing.TB, options Options) *Server {
	tb.Helper()
	server := &Server{tb: tb, options: options, account: account(tb)}
	folder := server.newFolder()
	server.initialize(folder)
	server.Process = servertest.Start(tb, folder, servertest.Program{
		Name:       binary(tb, "postgres"),
		Args:       func(p *servertest.Process) ([]string, error) { return server.arguments(p), nil },
		Ready:      server.ready,
		Credential: server.account,
	})
	// It comes before the end of the process itself, which is not that of its children.
	tb.Cleanup(server.Kill)
	return server
}

// account returns whom PostgreSQL is to run as: it refuses root.
func account(tb testing.TB) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(found.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			tb.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	tb.Fatal("PostgreSQL refuses root, and there is neither a user postgres nor nobody to run it as")
	return nil
}

// binary returns the path of a program of PostgreSQL, the newest version of Debian's where none is on the PATH.
func binary(tb testing.TB, name string) string {
	tb.Helper()
	if found, err := exec.LookPath(name); err == nil {
		return found
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		tb.Fatalf("there is no %s: run `make test`, which installs it", name)
	}
	slices.Sort(found)
	return found[len(found)-1]
}

// newFolder returns a folder that the server's user may reach, as it may none within the test's own. Its path is short
// enough for a unix socket.
func (s *Server) newFolder() string {
	s.tb.Helper()
	folder, err := os.MkdirTemp("", "postgres")
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = os.RemoveAll(folder) })
	s.own(folder)
	return folder
}

// own gives a file to the server's user.
func (s *Server) own(path string) {
	s.tb.Helper()
	if s.account == nil {
		return
	}
	if err := os.Chown(path, int(s.account.Uid), int(s.account.Gid)); err != nil {
		s.tb.Fatal(err)
	}
}

// initialize makes the files of an empty database.
func (s *Server) initialize(folder string) {
	s.tb.Helper()
	write := func(name, content string) {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			s.tb.Fatal(err)
		}
		s.own(path)
	}
	write("password", Password)
	command := exec.Command(binary(s.tb, "initdb"), "--pgdata", filepath.Join(folder, "data"), "--username", User,
		"--pwfile", filepath.Join(folder, "password"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
		"--no-sync", "--no-instructions")
	command.Dir = folder
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.account}
	if output, err := command.CombinedOutput(); err != nil {
		s.tb.Fatalf("initdb: %v\n%s", err, output)
	}
	kind := "host"
	if s.options.TLS {
		kind = "hostssl"
		s.certs = servertest.NewCerts(s.tb, folder)
		for _, path := range []string{s.certs.CAFile, s.certs.ServerCertFile, s.certs.ServerKeyFile} {
			s.own(path)
		}
	}
	method := "scram-sha-256"
	if s.options.Trust {
		method = "trust"
	}
	write("data/pg_hba.conf", kind+" all all 127.0.0.1/32 "+method+"\nlocal all all "+method+"\n")
}

func (s *Server) arguments(p *servertest.Process) []string {
	settings := append([]string{
		"listen_addresses = 127.0.0.1", "port = " + strconv.Itoa(p.Port(0)), "unix_socket_directories = " + p.Folder(),
		"fsync = off", "full_page_writes = off", "shared_buffers = 16MB", "timezone = UTC",
		"autovacuum = off", "log_min_messages = warning",
	}, s.options.Settings...)
	if s.certs != nil {
		settings = append(settings, "ssl = on", "ssl_cert_file = "+s.certs.ServerCertFile,
			"ssl_key_file = "+s.certs.ServerKeyFile, "ssl_ca_file = "+s.certs.CAFile)
	}
	arguments := []string{"-D", p.Path("data")}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		arguments = append(arguments, "-c", strings.TrimSpace(name)+"="+strings.TrimSpace(value))
	}
	return arguments
}

func (s *Server) ready(ctx context.Context, p *servertest.Process) error {
	// Another server may have the port: only the log of this one tells that it is up.
	if !strings.Contains(p.Log(), "ready to accept connections") {
		return errors.New("it is not up")
	}
	conn, err := pgx.Connect(ctx, s.url(p, User, Password, Database))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.Process.Addr(0) }

// Host returns the host of Addr.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port of Addr.
func (s *Server) Port() string { return strconv.Itoa(s.Process.Port(0)) }

// Certs returns the certificates of a server with TLS.
func (s *Server) Certs() *servertest.Certs { return s.certs }

// URL returns a connection string of the superuser for the database that there is.
func (s *Server) URL() string { return s.url(s.Process, User, Password, Database) }

// UserURL returns a connection string of a user.
func (s *Server) UserURL(name, password string) string {
	return s.url(s.Process, name, password, Database)
}

func (s *Server) url(p *servertest.Process, name, password, database string) string {
	mode := "disable"
	if s.options.TLS {
		mode = "require"
	}
	made := url.URL{
		Scheme: "postgres", User: url.UserPassword(name, password), Host: p.Addr(0), Path: database,
		RawQuery: "sslmode=" + mode,
	}
	return made.String()
}

// Connect returns a connection of the superuser, closed with the test.
func (s *Server) Connect() *pgx.Conn {
	s.tb.Helper()
	conn, err := pgx.Connect(context.Background(), s.URL())
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs statements as the superuser over a connection of its own, and fails the test when one fails.
func (s *Server) Exec(statements ...string) {
	s.tb.Helper()
	conn := s.Connect()
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range statements {
		if _, err := conn.Exec(context.Background(), statement); err != nil {
			s.tb.Fatalf("%s: %v", statement, err)
		}
	}
}

// Count returns the one number that a query gives the superuser.
func (s *Server) Count(query string, args ...any) int {
	s.tb.Helper()
	conn := s.Connect()
	defer func() { _ = conn.Close(context.Background()) }()
	var count int
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&count); err != nil {
		s.tb.Fatalf("%s: %v", query, err)
	}
	return count
}

// family returns the process and its children, which are in process groups of their own; empty when it has ended.
func (s *Server) family() []*os.Process {
	s.tb.Helper()
	content, err := os.ReadFile(s.Path("data/postmaster.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.SplitN(string(content), "\n", 2)[0])
	if err != nil {
		s.tb.Fatal(err)
	}
	parent, err := process.NewProcess(int32(pid))
	if err != nil {
		return nil
	}
	pids := []int{pid}
	children, err := parent.Children()
	if err != nil && !errors.Is(err, process.ErrorNoChildren) {
		s.tb.Fatalf("the children of postgres: %v", err)
	}
	for _, child := range children {
		pids = append(pids, int(child.Pid))
	}
	var family []*os.Process
	for _, pid := range pids {
		if found, err := os.FindProcess(pid); err == nil {
			family = append(family, found)
		}
	}
	return family
}

// Stop ends the server in order, and its clients' connections.
func (s *Server) Stop() {
	s.tb.Helper()
	if family := s.family(); len(family) > 0 {
		_ = family[0].Signal(syscall.SIGINT) // SIGTERM waits for the clients
	}
	s.Process.Stop()
}

// Kill ends the server and its children at once. It does nothing when it has ended.
func (s *Server) Kill() {
	s.tb.Helper()
	if family := s.family(); len(family) > 0 {
		_ = family[0].Signal(syscall.SIGSTOP) // so that it starts nothing any more
	}
	family := s.family()
	for _, member := range slices.Backward(family) {
		_ = member.Kill()
	}
	s.Process.Kill()
	// While any of them holds on to the shared memory, no server starts in the folder.
	deadline := time.Now().Add(stopTimeout)
	for slices.ContainsFunc(family, alive) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("a process of PostgreSQL does not end within %v", stopTimeout)
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = os.Remove(s.Path("data/postmaster.pid")) // its number may soon be another's
}

// stopTimeout is how long processes may take to end.
const stopTimeout = time.Minute

// alive tells whether a process runs; one that has ended may be listed until its parent asks.
func alive(member *os.Process) bool {
	found, err := process.NewProcess(int32(member.Pid))
	if err != nil {
		return false
	}
	status, err := found.Status()
	return err == nil && !slices.Contains(status, process.Zombie)
}

// Freeze stops the server and its children, so that connections stay open and nothing is answered.
func (s *Server) Freeze() {
	s.tb.Helper()
	for _, member := range s.family() {
		if err := member.Signal(syscall.SIGSTOP); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.tb.Fatal(fmt.Errorf("stop postgres: %w", err))
		}
	}
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw() {
	s.tb.Helper()
	for _, member := range s.family() {
		_ = member.Signal(syscall.SIGCONT)
	}
}
