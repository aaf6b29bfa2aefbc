package postgresql_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// testEveryParameterConnects gives each parameter by each way that it may be read from.
func testEveryParameterConnects(t *testing.T, server *postgrestest.Server) {
	server.Exec(
		`CREATE USER "odd user" PASSWORD 'it''s a secret'`, `CREATE USER slash PASSWORD 'a\b'`,
		`CREATE USER quote PASSWORD 'o''clock'`, `CREATE USER "at@here" PASSWORD 'a@b:c'`,
		`CREATE DATABASE "odd base"`,
	)
	port := server.Port()
	parts := config{
		"host": "127.0.0.1", "port": port, "userName": "postgres", "dbName": "postgres", "sslmode": "disable",
	}
	password := config{"password": postgrestest.Password}
	keywords := "host=127.0.0.1 port=" + port + " user=postgres dbname='odd base' sslmode=disable password='" +
		strings.ReplaceAll(postgrestest.Password, "'", `\'`) + "'"
	socket := filepath.Dir(server.Path("x"))
	for _, test := range []struct {
		name                string
		metadata, env, auth config
		database            string
	}{
		{"URL from auth", nil, nil, config{"connection": server.URL()}, "postgres"},
		{"URL from env", config{"connectionFromEnv": "C"}, config{"C": server.URL() + "\n"}, nil, "postgres"},
		{"auth wins over env", config{"connectionFromEnv": "C"}, config{"C": "x"}, config{"connection": server.URL()}, "postgres"},
		{"keywords", nil, nil, config{"connection": keywords}, "odd base"},
		{"connection wins", parts, nil, config{"connection": keywords, "password": "wrong"}, "odd base"},
		{"parts", parts, nil, password, "postgres"},
		{"parts from auth", nil, nil, triggertest.Merge(parts, password), "postgres"},
		{"auth wins over metadata", triggertest.Merge(parts, config{"host": "192.0.2.1", "port": "1", "dbName": "no"}), nil,
			triggertest.Merge(parts, password), "postgres"},
		{"password from env", triggertest.Merge(parts, config{"passwordFromEnv": "P"}), config{"P": postgrestest.Password}, nil, "postgres"},
		{"name for the host", triggertest.Merge(parts, config{"host": "localhost"}), nil, password, "postgres"},
		{"several hosts", triggertest.Merge(parts, config{"host": "127.0.0.1,127.0.0.1", "port": "1," + port}), nil, password, "postgres"},
		{"unix socket", triggertest.Merge(parts, config{"host": socket}), nil, password, "postgres"},
		{"prefer", triggertest.Merge(parts, config{"sslmode": "prefer"}), nil, password, "postgres"},
		{"allow", triggertest.Merge(parts, config{"sslmode": "allow"}), nil, password, "postgres"},
		{"spaces and quotes", triggertest.Merge(parts, config{"userName": "odd user", "dbName": "odd base"}), nil,
			config{"password": "it's a secret"}, "odd base"},
		{"a quote without a space", triggertest.Merge(parts, config{"userName": "quote"}), nil, config{"password": "o'clock"}, "postgres"},
		{"a backslash", triggertest.Merge(parts, config{"userName": "slash"}), nil, config{"password": `a\b`}, "postgres"},
		{"at signs in a URL", nil, nil,
			config{"connection": "postgres://at@here:a@b:c@127.0.0.1:" + port + "/postgres?sslmode=disable"}, "postgres"},
		{"a mode of queries", nil, nil, config{"connection": server.URL() + "&default_query_exec_mode=simple_protocol"}, "postgres"},
		{"a name of the application", nil, nil, config{"connection": server.URL() + "&application_name=mine"}, "postgres"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made := build(t, postgresql.NewClients(), trigger.Config{
				Metadata: triggertest.Merge(config{
					"query":            "SELECT count(*) FROM pg_database WHERE datname = current_database() AND datname = '" + test.database + "'",
					"targetQueryValue": "1",
				}, test.metadata),
				Env: test.env, Auth: test.auth,
			})
			if got := triggertest.Measure(t, made); got.Value != 1 {
				t.Errorf("it is not database %q", test.database)
			}
		})
	}
}

func testTLS(t *testing.T, plain *postgrestest.Server) {
	server := postgrestest.Start(t, postgrestest.Options{TLS: true})
	const usesTLS = "SELECT count(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"
	byParts := func(server *postgrestest.Server, mode string) trigger.Config {
		return trigger.Config{
			Metadata: config{
				"query": usesTLS, "targetQueryValue": "1", "host": "127.0.0.1", "port": server.Port(), "userName": "postgres",
				"dbName": "postgres", "sslmode": mode,
			},
			Auth: config{"password": postgrestest.Password},
		}
	}
	byConnection := func(rest string) trigger.Config {
		return trigger.Config{
			Metadata: config{"query": usesTLS, "targetQueryValue": "1"},
			Auth:     config{"connection": strings.Replace(server.URL(), "sslmode=require", rest, 1)},
		}
	}
	authority := "&sslrootcert=" + server.Certs().CAFile
	for name, cfg := range map[string]trigger.Config{
		"require":     byParts(server, "require"),
		"prefer":      byParts(server, "prefer"),
		"allow":       byParts(server, "allow"),
		"verify-ca":   byConnection("sslmode=verify-ca" + authority),
		"verify-full": byConnection("sslmode=verify-full" + authority),
	} {
		if got := triggertest.Measure(t, build(t, postgresql.NewClients(), cfg)); got.Value != 1 {
			t.Errorf("%s: without TLS", name)
		}
	}
	otherCerts := servertest.NewCerts(t, t.TempDir())
	for _, test := range []struct {
		name, want string
		cfg        trigger.Config
	}{
		{"disable", "does not accept the user, the database or the kind of connection", byParts(server, "disable")},
		{"unknown authority", "shows a certificate of an unknown authority", byParts(server, "verify-full")},
		{"another authority", "shows a certificate of an unknown authority",
			byConnection("sslmode=verify-ca&sslrootcert=" + otherCerts.CAFile)},
		{"no TLS there", "speaks no TLS; give sslmode disable", byParts(plain, "require")},
	} {
		_, err := build(t, postgresql.NewClients(), test.cfg).Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
	}
}

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	parts := config{"host": "a", "port": "5432", "userName": "u", "dbName": "d", "sslmode": "disable"}
	without := func(name string) config {
		rest := triggertest.Merge(parts)
		delete(rest, name)
		return rest
	}
	connection := func(text string) config { return config{"connection": text} }
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"no query", triggertest.Merge(parts, config{"query": ""}), nil, "query: is required"},
		{"no target", triggertest.Merge(parts, config{"targetQueryValue": ""}), nil, "targetQueryValue: is required"},
		{"target 0", triggertest.Merge(parts, config{"targetQueryValue": "0"}), nil, `targetQueryValue "0": is too small; give a number above 0`},
		{"target", triggertest.Merge(parts, config{"targetQueryValue": "many"}), nil, `targetQueryValue "many": is not a number`},
		{"activation", triggertest.Merge(parts, config{"activationTargetQueryValue": "x"}), nil, `activationTargetQueryValue "x": is not a number`},
		{"no host", without("host"), nil, "host: is required where no connection is given"},
		{"no port", without("port"), nil, "port: is required where no connection is given"},
		{"no user", without("userName"), nil, "userName: is required where no connection is given"},
		{"no database", without("dbName"), nil, "dbName: is required where no connection is given"},
		{"no sslmode", without("sslmode"), nil, "sslmode: is required where no connection is given"},
		{"sslmode", triggertest.Merge(parts, config{"sslmode": "on"}), nil, "sslmode: is not allowed; give disable, allow"},
		{"port", triggertest.Merge(parts, config{"port": "pg"}), nil, "port: is not a port"},
		{"port too big", triggertest.Merge(parts, config{"port": "65536"}), nil, "port: is not a port"},
		{"channel", triggertest.Merge(parts, config{"channel": strings.Repeat("c", 64)}), nil, "channel: is no name of a channel"},
		{"claimTable", triggertest.Merge(parts, config{"claimTable": "a b"}), nil, `claimTable: has something else behind a name`},
		{"claimTable of a database", triggertest.Merge(parts, config{"claimTable": "a.b.c"}), nil, "claimTable: has more than a schema and a table"},
		{"claimKey", triggertest.Merge(parts, config{"claimTable": "a", "claimKey": "a.id"}), nil, "claimKey: is no name of a column"},
		{"claimItem", triggertest.Merge(parts, config{"claimTable": "a", "claimItem": "item::text"}), nil, "claimItem: is no name of a column"},
		{"password in metadata", triggertest.Merge(parts, config{"password": "hunter2"}), connection("hunter2"), "connection: is no connection string"},
		{"no string", nil, connection("hunter2"), "connection: is no connection string of PostgreSQL; give postgres://"},
		{"unfinished string", nil, connection("host=a password='hunter2"), "connection: is no connection string"},
		{"port in a string", nil, connection("postgres://u:hunter2@a:pg/d"), "connection: holds a port that is none"},
		{"sslmode in a string", nil, connection("postgres://u:hunter2@a/d?sslmode=on"), "connection: holds an sslmode that is none"},
		{"slash in a password", nil, connection("postgres://u:1/hunter2@a:5432/d"), "write %2F or %3F"},
		{"question mark in a password", nil, connection("postgres://u:1?hunter2@a:5432/d"), "write %2F or %3F"},
		{"at and slash in a password", nil, connection("postgres://u:x@y@1/hunter2@a:5432/d"), "write %2F or %3F"},
		{"file of an authority", nil, connection("postgres://u:hunter2@a/d?sslmode=verify-ca&sslrootcert=/no"),
			"connection: names a file of certificates, sslrootcert, that cannot be read"},
		{"pool", nil, connection("postgres://u:hunter2@a/d?pool_max_conns=0"), "connection: holds a pool_max_conns that is too small"},
		{"service", nil, connection("service=no servicefile=/no password=hunter2"), "connection: names a service that cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := triggertest.Merge(config{"query": "SELECT 1", "targetQueryValue": "1"}, test.metadata)
			made, err := postgresql.Type(postgresql.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata, Auth: test.auth})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows a secret", err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	declared := postgresql.Type(postgresql.NewClients())
	parts := config{
		"query": "q", "targetQueryValue": "1", "host": "a", "port": "1", "userName": "u", "dbName": "d", "sslmode": "require",
	}
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string
	}{
		{"parts", triggertest.Merge(parts, config{"passwordFromEnv": "P"}), false, nil},
		{"channel", triggertest.Merge(parts, config{"channel": "jobs"}), false, nil},
		{"connection from env", config{"query": "q", "targetQueryValue": "1", "connectionFromEnv": "C"}, false, nil},
		{"connection from auth", config{"query": "q", "targetQueryValue": "1"}, true, nil},
		{"nothing", config{"query": "q", "targetQueryValue": "1"}, false, []string{
			"dbName: is required", "host: is required", "port: is required", "sslmode: is required", "userName: is required"}},
		{"password in metadata", triggertest.Merge(parts, config{"password": "hunter2"}), false,
			[]string{"password: cannot be given in metadata; give password in a TriggerAuthentication or passwordFromEnv"}},
		{"misspelt", triggertest.Merge(parts, config{"chanel": "c"}), false, []string{"did you mean channel?"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			findings := declared.Validate(test.metadata, test.hasAuth)
			if len(findings) != len(test.want) {
				t.Fatalf("findings %v, want %q", findings, test.want)
			}
			for i, finding := range findings {
				if text := finding.Error(); !strings.Contains(text, test.want[i]) || strings.Contains(text, "hunter2") {
					t.Errorf("finding %q, want %q", text, test.want[i])
				}
			}
		})
	}
}

// TestDeliveryByClaimNeedsATable is about what is asked for besides.
func TestDeliveryByClaimNeedsATable(t *testing.T) {
	t.Parallel()
	cfg := trigger.Config{
		Metadata: config{"query": "SELECT 1", "targetQueryValue": "1"}, Auth: config{"connection": "postgres://a/d"}, Claims: true,
	}
	made, err := postgresql.Type(postgresql.NewClients()).New(t.Context(), cfg)
	if err == nil {
		made.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "claimTable: is required where delivery.mode is claim") {
		t.Errorf("error %v", err)
	}
	cfg.Metadata["claimTable"] = `shop."My Jobs"`
	made, err = postgresql.Type(postgresql.NewClients()).New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	name := postgresql.Type(postgresql.NewClients()).ExternalMetricName(1, trigger.Config{})
	if name != "s1-postgresql" {
		t.Errorf("metric name %q, want s1-postgresql", name)
	}
}

// FuzzConnection gives connection strings that may be anything: none ends the process, and none is shown.
func FuzzConnection(f *testing.F) {
	for _, text := range []string{
		"postgres://u:hunter2@a:5432/d?sslmode=require", "host=a password=hunter2", "hunter2", "postgres://u:hunter2/@a",
		"host='a' password='hunter2", "postgres://hunter2", "postgresql://[::1", `password=hunter2\`, "service=hunter2",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		made, err := postgresql.Type(postgresql.NewClients()).New(t.Context(), trigger.Config{
			Metadata: config{"query": "SELECT 1", "targetQueryValue": "1"}, Auth: config{"connection": text},
		})
		if err == nil {
			made.Close()
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %q shows a secret", err)
		}
	})
}
