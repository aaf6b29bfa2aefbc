package mongodb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/mongodb"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMeasure(t *testing.T) {
	t.Parallel()
	server := start(t, false, true)
	client := server.client(t, login())
	insert(t, client, "jobs", "waiting", 3)
	insert(t, client, "jobs", "done", 4)
	ports.Store("measure", server.Port(0))
	whole := "mongodb://" + login() + server.Addr(0) + "/work"
	parts := config{"host": "127.0.0.1", "port": server.portOf(), "username": user, "password": password}
	clients := mongodb.NewClients()
	for _, test := range []struct {
		name                string
		metadata, env, auth config
		want                trigger.Measurement
	}{
		{"connection string", config{"connectionString": whole}, nil, nil,
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"connection string from env", config{"connectionStringFromEnv": "C"}, config{"C": whole}, nil,
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"connection string from auth", config{"connectionString": "mongodb://127.0.0.1:1"}, nil,
			config{"connectionString": whole}, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"connection string wins", parts, nil, config{"connectionString": whole, "host": "192.0.2.1"},
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"parts", parts, nil, nil, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"parts from auth", config{"dbName": ""}, nil, config{
			"scheme": "mongodb", "host": "localhost", "port": server.portOf(), "username": user, "password": password,
			"dbName": "work",
		}, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"password from env", triggertest.With(parts, "password", "", "passwordFromEnv", "P"),
			config{"P": password}, nil, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"servers from DNS", config{"connectionString": "mongodb+srv://" + login() + "db.measure.test/work?tls=false"},
			nil, nil, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"queryValue", config{"connectionString": whole, "queryValue": "0.5"}, nil, nil,
			trigger.Measurement{Value: 3, Target: 0.5, Active: true}},
		{"at the activation value", config{"connectionString": whole, "activationQueryValue": "3"}, nil, nil,
			trigger.Measurement{Value: 3, Target: 1}},
		{"above the activation value", config{"connectionString": whole, "activationQueryValue": "2.5"}, nil, nil,
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"two conditions", config{"connectionString": whole, "query": `{"state": "done", "n": {"$gte": 1}}`}, nil, nil,
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{"everything", config{"connectionString": whole, "query": `{"_id": {"$exists": true}}`}, nil, nil,
			trigger.Measurement{Value: 7, Target: 1, Active: true}},
		{"canonical number", config{"connectionString": whole, "query": `{"n": {"$numberInt": "0"}}`}, nil, nil,
			trigger.Measurement{Value: 2, Target: 1, Active: true}},
		{"nothing", config{"connectionString": whole, "query": `{"state": "odd"}`}, nil, nil, trigger.Measurement{Target: 1}},
		{"no such collection", config{"connectionString": whole, "collection": "none"}, nil, nil,
			trigger.Measurement{Target: 1}},
		{"no such database", config{"connectionString": whole, "dbName": "none"}, nil, nil, trigger.Measurement{Target: 1}},
		{"tls disable", config{"connectionString": whole}, nil, config{"tls": "disable", "ca": "any"},
			trigger.Measurement{Value: 3, Target: 1, Active: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			made := open(t, clients, trigger.Config{Metadata: waiting("jobs", test.metadata), Env: test.env, Auth: test.auth})
			if got := triggertest.Measure(t, made); got != test.want {
				t.Errorf("measured %+v, want %+v", got, test.want)
			}
		})
	}

	for _, test := range []struct {
		name     string
		metadata config
		want     string
	}{
		{"wrong password", config{"connectionString": strings.Replace(whole, ":p%40ss", ":wrong", 1)},
			"mongodb at " + server.Addr(0) + " does not accept the user with this password"},
		{"unknown user", config{"connectionString": "mongodb://bob:hunter2@" + server.Addr(0) + "/work"},
			"does not accept the user with this password"},
		{"another database", config{"connectionString": "mongodb://" + login() + server.Addr(0) + "/other"},
			"does not accept the user with this password"},
		{"no user", config{"connectionString": "mongodb://" + server.Addr(0) + "/work"}, "mongodb at " + server.Addr(0)},
		{"unknown operator", config{"connectionString": whole, "query": `{"n": {"$odd": 1}}`}, "refuses the query"},
		{"servers from DNS with TLS", config{"connectionString": "mongodb+srv://" + login() + "db.measure.test/work"},
			"mongodb at one.db.measure.test:" + server.portOf()},
		{"name that DNS does not have", config{"connectionString": "mongodb+srv://" + login() + "db.nobody.test/work"},
			"DNS names no servers for db.nobody.test"},
		{"host that DNS does not have", config{"connectionString": "mongodb://" + login() + "nobody.test:1/work"},
			"mongodb at nobody.test:1 has a name that is not found"},
		{"bad option with DNS", config{"connectionString": "mongodb+srv://" + login() + "db.measure.test/work?tls=hunter2"},
			"does not take the connection string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // some take as long as a measurement may
			made := open(t, clients, trigger.Config{Metadata: waiting("jobs", test.metadata)})
			triggertest.Fails(t, made, test.want, triggertest.Canary)
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server, plain := start(t, true, false), start(t, false, false)
	insert(t, server.client(t, ""), "jobs", "waiting", 3)
	certs, address := server.certs, "mongodb://"+server.Addr(0)+"/work"
	ports.Store("tls", server.Port(0))
	clients := mongodb.NewClients()
	complete := config{"tls": "enable", "ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}
	for _, test := range []struct {
		name, uri string
		auth      config // besides what is complete; empty values are left out
		refuse    string
	}{
		{"certificate", address, nil, ""},
		{"encrypted key", address, config{"key": encrypted(t, certs.ClientKey, "hunter2"), "keyPassword": "hunter2"}, ""},
		{"password of a key that is not encrypted", address, config{"keyPassword": "hunter2"}, ""},
		{"no certificate", address, config{"cert": "", "key": ""}, "require a client certificate"},
		{"no certificate, TLS by the connection string", address + "?tls=true&tlsInsecure=true",
			config{"tls": "", "ca": "", "cert": "", "key": ""}, "require a client certificate"},
		{"unknown authority", address, config{"ca": ""}, "shows a certificate of an unknown authority"},
		{"another name", "mongodb+srv://db.tls.test/work", nil, "shows a certificate for another name"},
		{"no TLS", address, config{"tls": "", "ca": "", "cert": "", "key": ""}, "mongodb at " + server.Addr(0) + " closed"},
		{"TLS to one without", "mongodb://" + plain.Addr(0), nil, "mongodb at " + plain.Addr(0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			auth := triggertest.Merge(complete, test.auth, config{"connectionString": test.uri})
			made := open(t, clients, trigger.Config{Metadata: waiting("jobs"), Auth: auth})
			if test.refuse != "" {
				triggertest.Fails(t, made, test.refuse, triggertest.Canary)
				return
			}
			if got := triggertest.Measure(t, made).Value; got != 3 {
				t.Errorf("measured %v, want 3", got)
			}
		})
	}
}

func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := start(t, false, true)
	insert(t, server.client(t, login()), "jobs", "waiting", 2)
	cfg := trigger.Config{
		Metadata: waiting("jobs"), Auth: config{"connectionString": "mongodb://" + login() + server.Addr(0) + "/work"},
	}
	clients := mongodb.NewClients()
	made, same := open(t, clients, cfg), open(t, clients, cfg)
	back := func() bool { return !triggertest.InOutage(t, made, 2, triggertest.Canary) }
	fail := func(want string, all ...trigger.Trigger) {
		t.Helper()
		var measuring sync.WaitGroup
		for _, one := range all {
			measuring.Go(func() { triggertest.Fails(t, one, "mongodb at "+server.Addr(0)+" "+want, triggertest.Canary) })
		}
		measuring.Wait()
	}
	for _, end := range []func(){server.Kill, server.Stop} {
		triggertest.WaitFor(t, "an answer", back)
		end()
		late := open(t, mongodb.NewClients(), cfg)
		fail("is not reachable", made, late)
		server.Restart()
		triggertest.WaitFor(t, "the return", back)
		if got := triggertest.Measure(t, late).Value; got != 2 {
			t.Errorf("measured %v, want 2", got)
		}
	}
	server.Freeze()
	fail("does not answer in time", made, same) // one has a connection, the other must log in
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := made.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v of a measurement that is given up, want %v", err, context.Canceled)
	}
	server.Thaw()
	triggertest.WaitFor(t, "the return", back)
}

// TestErrors holds what errors say to what the driver and the looks at a server come to, where a server would do so by
// chance or is another than the tests have.
func TestErrors(t *testing.T) {
	t.Parallel()
	late := fmt.Errorf("server selection error: %w", context.DeadlineExceeded)
	refused := errors.New("remote error: tls: certificate required")
	for _, test := range []struct {
		name  string
		err   error
		looks []error
		want  string
	}{
		{"no look", late, nil, "does not answer in time"},
		{"a look", late, []error{refused}, "refuses the TLS connection"},
		{"a look after that is given up", late, []error{refused, fmt.Errorf("reading: %w", context.Canceled)},
			"refuses the TLS connection"},
		{"a look after that is well", late, []error{refused, nil}, "does not answer in time"},
		{"a look that says nothing", late, []error{errors.New("hunter2")}, "does not answer as MongoDB does"},
		{"a connection that ended", io.EOF, nil, "closed the connection"},
		{"a look after a connection ended", io.EOF, []error{refused}, "refuses the TLS connection"},
		{"login", mongo.CommandError{Code: 18, Message: "hunter2"}, nil, "does not accept the user with this password"},
		{"rights", mongo.CommandError{Code: 13, Message: "hunter2"}, nil, "denies the user the collection"},
		{"slow query", mongo.CommandError{Code: 50, Message: "hunter2"}, nil, "takes too long for the query"},
		{"query", mongo.CommandError{Code: 2, Name: "BadValue", Message: "hunter2"}, nil,
			"refuses the query: BadValue (code 2)"},
		{"anything else", errors.New("hunter2"), nil, "cannot be asked, or does not answer as MongoDB does"},
	} {
		if got := mongodb.Explain(test.err, test.looks...).Error(); !strings.Contains(got, test.want) ||
			strings.Contains(got, triggertest.Canary) {
			t.Errorf("%s: error %q, want %q", test.name, got, test.want)
		}
	}
}

func TestForeignServer(t *testing.T) {
	t.Parallel()
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
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request hunter2\r\n\r\n")
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	made := open(t, mongodb.NewClients(), trigger.Config{
		Metadata: waiting("jobs", config{"connectionString": "mongodb://" + login() + listener.Addr().String()}),
	})
	want := "mongodb at " + listener.Addr().String() + " cannot be asked, or does not answer as MongoDB does"
	triggertest.Fails(t, made, want, triggertest.Canary)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	const uri = "mongodb://127.0.0.1:27017"
	parts := func(more config) config {
		return triggertest.Merge(config{"host": "a", "port": "1", "username": "u", "password": "hunter2"}, more)
	}
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"nothing to connect to", nil, nil, "host: is required without a connectionString"},
		{"no host", parts(config{"host": ""}), nil, "host: is required"},
		{"no port", parts(config{"port": ""}), nil, "port: is required"},
		{"no username", parts(config{"username": ""}), nil, "username: is required"},
		{"no password", parts(config{"password": ""}), nil, "password: is required"},
		{"no password with DNS", parts(config{"password": "", "port": "", "scheme": "mongodb+srv"}), nil,
			"password: is required"},
		{"another scheme", parts(config{"scheme": "http"}), nil,
			`scheme "http": is not a scheme; give mongodb or mongodb+srv`},
		{"another scheme from auth", parts(nil), config{"scheme": "hunter2"}, `scheme: is not a scheme`},
		{"port", parts(config{"port": "x"}), nil, `port "x": is not a port`},
		{"port 0", parts(config{"port": "0"}), nil, `port "0": is not a port`},
		{"host with a path", parts(config{"host": "a/b"}), nil, `host "a/b": is not a host`},
		{"host with credentials", parts(config{"host": "u:hunter2@a"}), nil, `host: is not a host`},
		{"host with a port", parts(config{"host": "a:1"}), nil, `host "a:1": is not a host`},
		{"hosts with ports", parts(config{"host": "a:1,b"}), nil, `host "a:1,b": is not a host`},
		{"hosts and none", parts(config{"host": "a,,b"}), nil, `host "a,,b": is not a host`},
		{"hosts with DNS", parts(config{"host": "a,b", "scheme": "mongodb+srv"}), nil, `host "a,b": is not a host`},
		{"another URL", config{"connectionString": "http://u:hunter2@a"}, nil,
			"connectionString: is not a connection string"},
		{"no URL", config{"connectionString": "hunter2"}, nil, "connectionString: is not a connection string"},
		{"bad escape", config{"connectionString": "mongodb://u:hunter2%@a:1"}, nil,
			"connectionString: is not a connection string"},
		{"bad option", config{"connectionString": uri + "/?tls=hunter2"}, nil,
			"connectionString: is not a connection string"},
		{"no database", config{"connectionString": uri, "dbName": ""}, nil, "dbName: is required"},
		{"no collection", config{"connectionString": uri, "collection": ""}, nil, "collection: is required"},
		{"no query", config{"connectionString": uri, "query": ""}, nil, "query: is required"},
		{"query", config{"connectionString": uri, "query": "state"}, nil, "query: is not a filter"},
		{"query that is a list", config{"connectionString": uri, "query": "[1]"}, nil, "query: is not a filter"},
		{"empty query", config{"connectionString": uri, "query": "{}"}, nil, "query: says nothing"},
		{"no value", config{"connectionString": uri, "queryValue": ""}, nil, "queryValue: is required"},
		{"value zero", config{"connectionString": uri, "queryValue": "0"}, nil,
			`queryValue "0": is too small; give a number above 0`},
		{"activation", config{"connectionString": uri, "activationQueryValue": "x"}, nil,
			`activationQueryValue "x": is not a number`},
		{"tls", config{"connectionString": uri}, config{"tls": "hunter2"}, "tls: is not allowed; give enable or disable"},
		{"tls alone", config{"connectionString": uri}, config{"tls": "enable"}, "tls: needs ca, or cert and key"},
		{"certificate alone", config{"connectionString": uri}, config{"tls": "enable", "cert": certs.ClientCert},
			"make a client certificate together"},
		{"ca", config{"connectionString": uri}, config{"tls": "enable", "ca": "hunter2"}, "ca: holds no certificate"},
		{"key", config{"connectionString": uri}, config{"tls": "enable", "cert": certs.ClientCert, "key": "hunter2"},
			"key: is not PEM"},
		{"another key password", config{"connectionString": uri}, config{
			"tls": "enable", "cert": certs.ClientCert, "key": encrypted(t, certs.ClientKey, "k3y"), "keyPassword": "hunter2",
		}, "keyPassword: does not decrypt key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made, err := mongodb.Type(mongodb.NewClients()).New(t.Context(),
				trigger.Config{Metadata: waiting("jobs", test.metadata), Auth: test.auth})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), triggertest.Canary) {
				t.Errorf("error %q, want %q", err, test.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		more    config
		hasAuth bool
		want    string // the only finding; empty means none
	}{
		{"all from auth", config{"dbName": ""}, true, ""},
		{"connection string from env", config{"connectionStringFromEnv": "C"}, false, ""},
		{"password from env", config{"host": "a", "port": "1", "username": "u", "passwordFromEnv": "P"}, false, ""},
		{"servers from DNS", config{"scheme": "mongodb+srv", "host": "a", "username": "u", "passwordFromEnv": "P"},
			false, ""},
		{"no username", config{"host": "a", "port": "1", "passwordFromEnv": "P"}, false, "username: is required"},
		{"certificate in metadata", config{"connectionStringFromEnv": "C", "ca": "x"},
			false, "ca: cannot be given in metadata"},
	} {
		findings := mongodb.Type(mongodb.NewClients()).Validate(waiting("jobs", test.more), test.hasAuth)
		if got := len(findings); got > 1 || (got == 1) != (test.want != "") ||
			got == 1 && !strings.Contains(findings[0].Error(), test.want) {
			t.Errorf("%s: findings %v, want %q", test.name, findings, test.want)
		}
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	name := mongodb.Type(mongodb.NewClients()).ExternalMetricName(1, trigger.Config{Metadata: config{"collection": "a.b"}})
	if want := "s1-mongodb-a-b"; name != want {
		t.Errorf("metric name %q, want %q", name, want)
	}
}

func TestClientIsShared(t *testing.T) {
	t.Parallel()
	server := start(t, false, false)
	insert(t, server.client(t, ""), "jobs1", "waiting", 4)
	proxy := servertest.StartProxy(t, server.Addr(0))
	clients := mongodb.NewClients()
	var all []trigger.Trigger
	for i := range 10 {
		metadata := waiting(fmt.Sprintf("jobs%d", i), config{"connectionString": "mongodb://" + proxy.Addr()})
		all = append(all, open(t, clients, trigger.Config{Metadata: metadata}))
	}
	if proxy.Opened() != 0 {
		t.Errorf("making a trigger connects: %d connections", proxy.Opened())
	}
	var measuring sync.WaitGroup
	for i, made := range all {
		measuring.Go(func() {
			measured, err := triggertest.Try(t, made)
			if want := map[bool]float64{true: 4}[i == 1]; err != nil || measured.Value != want {
				t.Errorf("measured %v of collection %d, error %v, want %v", measured.Value, i, err, want)
			}
		})
	}
	measuring.Wait()
	// Four connections ask; the driver has up to two more to look after the server.
	if proxy.Opened() > 6 || clients.Connections() != 1 {
		t.Errorf("%d connections are opened by %d clients, want at most 6 by 1", proxy.Opened(), clients.Connections())
	}
	for _, made := range all {
		made.Close()
	}
	if clients.Connections() != 0 {
		t.Errorf("%d clients are kept, want none", clients.Connections())
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{
		`{"state": "waiting"}`, `{}`, `[1]`, `{"n": {"$numberInt": "5"}}`, `{"d": {"$date": {"$numberLong": "1"}}}`,
		`{"a": {"$binary": {"base64": "hunter2", "subType": "00"}}}`,
		`{"r": {"$regularExpression": {"pattern": "(", "options": ""}}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		conditions, err := mongodb.ParseQuery(text)
		if (err == nil) != (conditions > 0) {
			t.Errorf("%q has %d conditions, error %v", text, conditions, err)
		}
		if err != nil && len(err.Error()) > 150 {
			t.Errorf("error %q, want a short one", err)
		}
	})
}

// BenchmarkMeasure measures a reading next to the client's own count.
func BenchmarkMeasure(b *testing.B) {
	server := start(b, false, true)
	client := server.client(b, login())
	insert(b, client, "jobs", "waiting", 100)
	made := open(b, mongodb.NewClients(), trigger.Config{
		Metadata: waiting("jobs", config{"connectionString": "mongodb://" + login() + server.Addr(0) + "/work"}),
	})
	triggertest.Compare(b, made, func() error {
		filter := bson.D{{Key: "state", Value: "waiting"}}
		_, err := client.Database("work").Collection("jobs").CountDocuments(b.Context(), filter)
		return err
	})
}
