// Package mariadbtest starts real MariaDB servers for tests: on free ports of 127.0.0.1, in temporary folders, ended
// with the test. It is imported by tests only.
package mariadbtest

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// The user that may do everything, and the database that there is.
const (
	User     = "admin"
	Password = "the admin's secret"
	Database = "jobs"
)

// Options say what a server is to be like; the zero value takes connections without TLS.
type Options struct {
	// TLS makes the server take connections with TLS only, with the certificate of Certs.
	TLS bool
	// Settings are further settings, for example "max_connections=10".
	Settings []string
}

// Server is one mariadbd process.
type Server struct {
	*servertest.Process

	tb      testing.TB
	options Options
	certs   *servertest.Certs
}

// Start starts a server with an empty database and waits until it answers. It fails the test when there is no MariaDB.
func Start(tb testing.TB, options Options) *Server {
	tb.Helper()
	// The path of a socket must be short, which the test's own folder need not be.
	folder, err := os.MkdirTemp("", "mariadb")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(folder) })
	server := &Server{tb: tb, options: options}
	if options.TLS {
		server.certs = servertest.NewCerts(tb, folder)
	}
	server.initialize(folder)
	server.Process = servertest.Start(tb, folder, servertest.Program{
		Name:  "mariadbd",
		Args:  func(p *servertest.Process) ([]string, error) { return server.arguments(p), nil },
		Ready: server.ready,
		Taken: "Do you already have another server running on port",
	})
	return server
}

// initialize makes the files of an empty server.
func (s *Server) initialize(folder string) {
	s.tb.Helper()
	current, err := user.Current()
	if err != nil {
		s.tb.Fatal(err)
	}
	command := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+filepath.Join(folder, "data"),
		"--user="+current.Username, "--auth-root-authentication-method=normal", "--skip-test-db",
		"--tmpdir="+folder, "--innodb-flush-method=nosync")
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		s.tb.Fatalf("mariadb-install-db: %v\n%s", err, output)
	}
	account := "'" + User + "'@'127.0.0.1'"
	script := "CREATE DATABASE IF NOT EXISTS " + Database + ";\n" +
		"CREATE USER IF NOT EXISTS " + account + " IDENTIFIED BY '" + strings.ReplaceAll(Password, "'", "''") + "';\n" +
		"GRANT ALL ON *.* TO " + account + " WITH GRANT OPTION;\n"
	if err := os.WriteFile(filepath.Join(folder, "init.sql"), []byte(script), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) arguments(p *servertest.Process) []string {
	arguments := []string{
		"--no-defaults", "--datadir=" + p.Path("data"), "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(p.Port(0)),
		"--socket=" + p.Path("mariadb.sock"), "--pid-file=" + p.Path("mariadb.pid"), "--init-file=" + p.Path("init.sql"),
		"--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=16M",
		"--innodb-log-file-size=8M", "--skip-name-resolve", "--tmpdir=" + p.Folder(), "--performance-schema=OFF",
	}
	if os.Geteuid() == 0 {
		arguments = append(arguments, "--user=root") // which it otherwise refuses
	}
	if s.certs != nil {
		arguments = append(arguments, "--require-secure-transport=ON", "--ssl-ca="+s.certs.CAFile,
			"--ssl-cert="+s.certs.ServerCertFile, "--ssl-key="+s.certs.ServerKeyFile)
	}
	for _, setting := range s.options.Settings {
		arguments = append(arguments, "--"+setting)
	}
	return arguments
}

func (s *Server) ready(ctx context.Context, p *servertest.Process) error {
	// Another server may have the port: only the log of this one tells that it is up.
	if !strings.Contains(p.Log(), "ready for connections") {
		return errors.New("it is not up")
	}
	return s.with(p, func(db *sql.DB) error { return db.PingContext(ctx) })
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.Process.Addr(0) }

// Host returns the host of Addr.
func (s *Server) Host() string { return "127.0.0.1" }

// Port returns the port of Addr.
func (s *Server) Port() string { return strconv.Itoa(s.Process.Port(0)) }

// DSN returns a data source name of the user that may do everything.
func (s *Server) DSN() string { return s.config(s.Process).FormatDSN() }

func (s *Server) config(p *servertest.Process) *mysql.Config {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.DBName = User, Password, Database
	config.Net, config.Addr = "tcp", p.Addr(0)
	config.Timeout, config.Logger = time.Minute, &mysql.NopLogger{}
	if s.certs != nil {
		config.TLSConfig = "skip-verify"
	}
	return config
}

// with opens the server for the user that may do everything, until use returns.
func (s *Server) with(p *servertest.Process, use func(*sql.DB) error) error {
	connector, err := mysql.NewConnector(s.config(p))
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	return use(db)
}

// Exec runs statements over a connection of its own, and fails the test when one fails.
func (s *Server) Exec(statements ...string) {
	s.tb.Helper()
	err := s.with(s.Process, func(db *sql.DB) error {
		for _, statement := range statements {
			if _, err := db.ExecContext(context.Background(), statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.tb.Fatalf("%q: %v", statements, err)
	}
}

// Count returns the one number that a query gives.
func (s *Server) Count(query string, args ...any) int {
	s.tb.Helper()
	var count int
	err := s.with(s.Process, func(db *sql.DB) error {
		return db.QueryRowContext(context.Background(), query, args...).Scan(&count)
	})
	if err != nil {
		s.tb.Fatalf("%s: %v", query, err)
	}
	return count
}
