package mysql_test

import (
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest/mariadbtest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/mysql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// testEveryParameterConnects gives each parameter by each way that it may be read from.
func testEveryParameterConnects(t *testing.T, server *mariadbtest.Server) {
	odd := `p@ss:w/o?rd\'"%20`
	server.Exec("CREATE USER 'open'@'127.0.0.1'", "GRANT SELECT ON *.* TO 'open'@'127.0.0.1'",
		"CREATE USER 'odd'@'127.0.0.1' IDENTIFIED BY '"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(odd)+"'",
		"GRANT SELECT ON *.* TO 'odd'@'127.0.0.1'")
	parts := config{"host": "127.0.0.1", "port": server.Port(), "username": "admin", "dbName": mariadbtest.Database}
	password := config{"password": mariadbtest.Password}
	for _, test := range []struct {
		name                string
		metadata, env, auth config
	}{
		{"string from auth", nil, nil, config{"connectionString": server.DSN()}},
		{"string from env", config{"connectionStringFromEnv": "C"}, config{"C": server.DSN() + "\n"}, nil},
		{"auth wins over env", config{"connectionStringFromEnv": "C"}, config{"C": "x"}, config{"connectionString": server.DSN()}},
		{"string wins", triggertest.Merge(parts, config{"host": "192.0.2.1"}), nil, config{"connectionString": server.DSN(), "password": "x"}},
		{"unix socket", nil, nil, config{"connectionString": "root@unix(" + server.Path("mariadb.sock") + ")/jobs"}},
		{"parts", parts, nil, password},
		{"parts from auth", nil, nil, triggertest.Merge(parts, password)},
		{"metadata wins over auth", parts, nil, triggertest.Merge(config{"host": "192.0.2.1", "port": "1", "dbName": "no", "username": "x"}, password)},
		{"password from env", triggertest.Merge(parts, config{"passwordFromEnv": "P"}), config{"P": mariadbtest.Password}, nil},
		{"user from env", config{
			"host": "127.0.0.1", "port": server.Port(), "dbName": "jobs", "usernameFromEnv": "U",
		}, config{"U": "admin"}, password},
		{"name for the host", triggertest.Merge(parts, config{"host": "localhost"}), nil, password},
		{"no password", triggertest.Merge(parts, config{"username": "open"}), nil, nil},
		{"any characters", triggertest.Merge(parts, config{"username": "odd"}), nil, config{"password": odd}},
		{"any characters in a string", nil, nil, config{"connectionString": "odd:" + odd + "@tcp(" + server.Addr() + ")/jobs"}},
		{"metric name", triggertest.Merge(parts, config{"metricName": "x"}), nil, password},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made := build(t, mysql.NewClients(), trigger.Config{
				Metadata: triggertest.Merge(config{"query": "SELECT database() = 'jobs'", "queryValue": "1"}, test.metadata),
				Env:      test.env, Auth: test.auth,
			})
			if got := triggertest.Measure(t, made); got.Value != 1 {
				t.Error("it is not the database")
			}
		})
	}
	// The query may name the database itself.
	bare := triggertest.Merge(parts, config{"query": "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'jobs'"})
	delete(bare, "dbName")
	made := build(t, mysql.NewClients(), trigger.Config{Metadata: triggertest.Merge(bare, config{"queryValue": "1"}), Auth: password})
	if got := triggertest.Measure(t, made); got.Value != 1 {
		t.Errorf("without a database: %v, want 1", got.Value)
	}
}

func testTLS(t *testing.T, plain *mariadbtest.Server) {
	server := mariadbtest.Start(t, mariadbtest.Options{TLS: true})
	const usesTLS = "SELECT count(*) FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher' AND variable_value <> ''"
	dsn := func(server *mariadbtest.Server, mode string) string {
		base, _, _ := strings.Cut(server.DSN(), "?")
		return base + "?tls=" + mode
	}
	for _, mode := range []string{"skip-verify", "preferred"} {
		if got := triggertest.Measure(t, query(t, mysql.NewClients(), dsn(server, mode), usesTLS)); got.Value != 1 {
			t.Errorf("%s: without TLS", mode)
		}
	}
	for _, test := range []struct{ dsn, want string }{
		{dsn(server, "true"), "shows a certificate of an unknown authority; have the system trust it"},
		{dsn(server, "false"), "give a connectionString with tls=true if it takes connections with TLS only"},
		{dsn(plain, "true"), "speaks no TLS; leave out tls"},
	} {
		_, err := query(t, mysql.NewClients(), test.dsn, "SELECT 1").Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), mariadbtest.Password) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	parts := config{"host": "a", "port": "3306", "username": "u", "dbName": "d"}
	connection := func(text string) config { return config{"connectionString": text} }
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"no query", triggertest.Merge(parts, config{"query": ""}), nil, "query: is required"},
		{"no target", triggertest.Merge(parts, config{"queryValue": ""}), nil, "queryValue: is required"},
		{"target 0", triggertest.Merge(parts, config{"queryValue": "0"}), nil, `queryValue "0": is too small; give a number above 0`},
		{"activation", triggertest.Merge(parts, config{"activationQueryValue": "x"}), nil, `activationQueryValue "x": is not a number`},
		{"no host", triggertest.Merge(parts, config{"host": ""}), nil, "host: is required where no connectionString is given"},
		{"no port", triggertest.Merge(parts, config{"port": ""}), nil, "port: is required where no connectionString is given"},
		{"port", triggertest.Merge(parts, config{"port": "my"}), nil, "port: is not a port"},
		{"host", triggertest.Merge(parts, config{"host": "mysql://a"}), nil, "host: is not a host"},
		{"no string", nil, connection("hunter2"), "connectionString: has no slash before the name of the database"},
		{"URL", nil, connection("mysql://u:hunter2@a:3306/d"), "connectionString: is a URL; give USER:PASSWORD@tcp(HOST:PORT)/DATABASE"},
		{"no such network", nil, connection("u:hunter2@a:3306/d"), "connectionString: is no connection string of MySQL"},
		{"TLS", nil, connection("u:hunter2@tcp(a:3306)/d?tls=on"), "connectionString: names a TLS configuration that there is not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := triggertest.Merge(config{"query": "SELECT 1", "queryValue": "1"}, test.metadata)
			made, err := mysql.Type(mysql.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata, Auth: test.auth})
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
	declared := mysql.Type(mysql.NewClients())
	parts := config{"query": "q", "queryValue": "1", "host": "a", "port": "1", "username": "u", "dbName": "d"}
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string
	}{
		{"parts", triggertest.Merge(parts, config{"passwordFromEnv": "P"}), false, nil},
		{"string from env", config{"query": "q", "queryValue": "1", "connectionStringFromEnv": "C"}, false, nil},
		{"string from auth", config{"query": "q", "queryValue": "1"}, true, nil},
		{"nothing", config{"query": "q", "queryValue": "1"}, false, []string{"host: is required", "port: is required"}},
		{"password in metadata", triggertest.Merge(parts, config{"password": "hunter2"}), false, []string{"password: cannot be given in metadata"}},
		{"misspelt", triggertest.Merge(parts, config{"userName": "u"}), false, []string{"did you mean username?"}},
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

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	declared := mysql.Type(mysql.NewClients())
	for _, test := range []struct {
		metadata, auth config
		want           string
	}{
		{config{"dbName": "jobs"}, nil, "s2-mysql-jobs"},
		{config{"dbName": "jobs"}, config{"connectionString": "u:p@tcp(a:1)/other?tls=true"}, "s2-mysql-other?tls=true"},
		{config{"dbName": "jobs"}, config{"connectionString": "u:hunter2"}, "s2-mysql-"},
	} {
		if got := declared.ExternalMetricName(2, trigger.Config{Metadata: test.metadata, Auth: test.auth}); got != test.want {
			t.Errorf("metric name %q, want %q", got, test.want)
		}
	}
}

// FuzzConnection gives connection strings that may be anything: none ends the process, and none is shown.
func FuzzConnection(f *testing.F) {
	for _, text := range []string{
		"u:hunter2@tcp(a:3306)/d?tls=true", "hunter2", "u:hunter2@/d", "mysql://u:hunter2@a/d", "u@hunter2(a/d", "/d?hunter2=%",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		made, err := mysql.Type(mysql.NewClients()).New(t.Context(), trigger.Config{
			Metadata: config{"query": "SELECT 1", "queryValue": "1"}, Auth: config{"connectionString": text},
		})
		if err == nil {
			made.Close()
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %q shows a secret", err)
		}
	})
}
