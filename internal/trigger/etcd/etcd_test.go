package etcd_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/etcd"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMeasure(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	addr := server.Addr(0)
	for key, content := range map[string]string{
		"jobs": "20", "half": "0.5", "exponent": "2e3", "below": "-3", "zero": "0",
		"word": "many", "space": "5\n", "nan": "NaN", "infinite": "inf", "empty": "", "long": strings.Repeat("x", 1<<20),
	} {
		server.put(t, key, content)
	}
	clients := etcd.NewClients()
	for _, test := range []struct {
		name   string
		extra  config
		want   trigger.Measurement
		refuse string
	}{
		{"number", nil, trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"fraction", config{"watchKey": "half"}, trigger.Measurement{Value: 0.5, Target: 5, Active: true}, ""},
		{"exponent", config{"watchKey": "exponent"}, trigger.Measurement{Value: 2000, Target: 5, Active: true}, ""},
		{"below zero", config{"watchKey": "below"}, trigger.Measurement{Value: -3, Target: 5}, ""},
		{"zero", config{"watchKey": "zero"}, trigger.Measurement{Target: 5}, ""},
		{"value", config{"value": "2.5"}, trigger.Measurement{Value: 20, Target: 2.5, Active: true}, ""},
		{"at the activation value", config{"activationValue": "20"}, trigger.Measurement{Value: 20, Target: 5}, ""},
		{"above the activation value", config{"activationValue": "19.9"},
			trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"URL", config{"endpoints": "http://" + addr}, trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"name", config{"endpoints": "localhost:" + strconv.Itoa(server.Port(0))},
			trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"the second of two", config{"endpoints": "127.0.0.1:1, " + addr},
			trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"interval", config{"watchProgressNotifyInterval": "9223372036854775807"},
			trigger.Measurement{Value: 20, Target: 5, Active: true}, ""},
		{"no such key", config{"watchKey": "none"}, trigger.Measurement{}, `there is no key "none"`},
		{"no number", config{"watchKey": "word"}, trigger.Measurement{}, `key "word" holds no number but 4 other bytes`},
		{"more than a number", config{"watchKey": "space"}, trigger.Measurement{}, `holds no number`},
		{"not a number", config{"watchKey": "nan"}, trigger.Measurement{}, `holds no number`},
		{"infinite", config{"watchKey": "infinite"}, trigger.Measurement{}, `holds no number`},
		{"empty", config{"watchKey": "empty"}, trigger.Measurement{}, `holds no number`},
		{"long", config{"watchKey": "long"}, trigger.Measurement{}, `holds no number but 1048576 other bytes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			given := config{"endpoints": addr, "watchKey": "jobs", "value": "5"}
			for key, value := range test.extra {
				given[key] = value
			}
			made := open(t, clients, trigger.Config{Metadata: given})
			if test.refuse != "" {
				triggertest.Fails(t, made, test.refuse, "secret")
				return
			}
			if got := triggertest.Measure(t, made); got != test.want {
				t.Errorf("measured %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	server.restrict(t)
	server.put(t, "open", "7")
	server.put(t, "shut", "8")
	clients := etcd.NewClients()
	for _, test := range []struct {
		name      string
		key       string
		env, auth config
		want      float64
		refuse    string
	}{
		{"user", "open", nil, config{"username": "alice", "password": alicePassword}, 7, ""},
		{"from env", "open", config{"U": "alice", "P": alicePassword}, nil, 7, ""},
		{"auth wins", "open", config{"U": "alice", "P": "wrong-secret"}, config{"password": alicePassword}, 7, ""},
		{"nobody", "open", nil, nil, 0, "requires a user; give username and password"},
		{"wrong password", "open", nil, config{"username": "alice", "password": "wrong-secret"}, 0,
			`does not accept user "alice" with this password`},
		{"unknown user", "open", nil, config{"username": "bob", "password": alicePassword}, 0,
			`does not accept user "bob" with this password`},
		{"no right", "shut", nil, config{"username": "alice", "password": alicePassword}, 0, `denies user "alice" the key`},
	} {
		t.Run(test.name, func(t *testing.T) {
			given := metadata(server.Addr(0), test.key)
			given["usernameFromEnv"], given["passwordFromEnv"] = "U", "P"
			made := open(t, clients, trigger.Config{Metadata: given, Env: test.env, Auth: test.auth})
			if test.refuse != "" {
				triggertest.Fails(t, made, test.refuse, "secret")
				triggertest.Fails(t, made, test.refuse, "secret")
				return
			}
			if got := triggertest.Measure(t, made).Value; got != test.want {
				t.Errorf("measured %v, want %v", got, test.want)
			}
		})
	}

	t.Run("new password", func(t *testing.T) {
		made := open(t, clients, trigger.Config{
			Metadata: metadata(server.Addr(0), "open"), Auth: config{"username": "alice", "password": "new-secret"},
		})
		triggertest.Fails(t, made, "does not accept user", "secret")
		if _, err := server.client.UserChangePassword(t.Context(), "alice", "new-secret"); err != nil {
			t.Fatal(err)
		}
		if got := triggertest.Measure(t, made).Value; got != 7 {
			t.Errorf("measured %v once the password is right, want 7", got)
		}
	})

	// The server forgets who has logged in when it restarts.
	t.Run("restart", func(t *testing.T) {
		made := open(t, clients, trigger.Config{
			Metadata: metadata(server.Addr(0), "open"), Auth: config{"username": "alice", "password": "new-secret"},
		})
		calls := watch(t, made)
		eventually(t, "the watch", func() bool { return calls() > 0 })
		server.Kill()
		triggertest.Fails(t, made, "is not reachable", "secret")
		late := open(t, etcd.NewClients(), trigger.Config{
			Metadata: metadata(server.Addr(0), "open"), Auth: config{"username": "alice", "password": "new-secret"},
		})
		triggertest.Fails(t, late, "is not reachable", "secret")
		lateCalls := watch(t, late)
		server.Restart()
		for _, made := range []trigger.Trigger{made, late} {
			eventually(t, "the return", func() bool {
				measured, err := made.Measure(t.Context())
				return err == nil && measured.Value == 7
			})
		}
		eventually(t, "the late watch", func() bool { return lateCalls() > 0 })
		before, lateBefore := calls(), lateCalls()
		server.login(t, "root", rootPassword) // the client here would ask for a new login without end
		server.put(t, "open", "9")
		eventually(t, "the change", func() bool { return calls() > before && lateCalls() > lateBefore })
		if got := triggertest.Measure(t, made).Value; got != 9 {
			t.Errorf("measured %v, want 9", got)
		}
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server, plain := start(t, true), start(t, false)
	server.put(t, "jobs", "3")
	certs, addr := server.certs, server.Addr(0)
	clients := etcd.NewClients()
	complete := config{"tls": "enable", "ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}
	for _, test := range []struct {
		name, endpoints string
		auth            config // besides what is complete; empty values are left out
		refuse          string
	}{
		{"certificate", addr, nil, ""},
		{"URL", "https://" + addr, nil, ""},
		{"name", "localhost:" + strconv.Itoa(server.Port(0)), nil, ""},
		{"key password that is not needed", addr, config{"keyPassword": "secret"}, ""},
		{"no certificate", addr, config{"cert": "", "key": ""}, "require a client certificate"},
		{"unknown authority", addr, config{"ca": ""}, "shows a certificate of an unknown authority"},
		{"no TLS", addr, config{"tls": "disable", "ca": "", "cert": "", "key": ""}, "closed the connection; if it expects TLS"},
		{"URL without TLS", "http://" + addr, nil, "closed the connection"},
		{"TLS to one without", plain.Addr(0), nil, "speaks no TLS on this port, leave tls out"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			auth := config{}
			for _, given := range []config{complete, test.auth} {
				for key, value := range given {
					auth[key] = value
				}
			}
			made := open(t, clients, trigger.Config{Metadata: metadata(test.endpoints, "jobs"), Auth: auth})
			if test.refuse != "" {
				triggertest.Fails(t, made, test.refuse, "secret")
				return
			}
			if got := triggertest.Measure(t, made).Value; got != 3 {
				t.Errorf("measured %v, want 3", got)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	for _, test := range []struct {
		name        string
		extra, auth config
		want        string
	}{
		{"no endpoints", config{"endpoints": ""}, nil, "endpoints: is required"},
		{"no port", config{"endpoints": "a"}, nil, `endpoints "a": is no address of a server; give host:port`},
		{"one without a port", config{"endpoints": "a:1,b"}, nil, `endpoints "b": is no address of a server`},
		{"no host", config{"endpoints": ":2379"}, nil, `endpoints ":2379": is no address of a server`},
		{"port 0", config{"endpoints": "a:0"}, nil, `endpoints "a:0": is no address of a server`},
		{"another scheme", config{"endpoints": "ftp://a:1"}, nil, `endpoints "ftp://a:1": does not begin with http:// or https://`},
		{"a path", config{"endpoints": "http://a:1/v3"}, nil, `endpoints "http://a:1/v3": is no address of a server`},
		{"credentials", config{"endpoints": "http://u:secret@a:1"}, nil, `endpoints: holds credentials`},
		{"credentials without a scheme", config{"endpoints": "u:secret@a:1"}, nil, `endpoints: is no address`},
		{"no key", config{"watchKey": ""}, nil, "watchKey: is required"},
		{"no value", config{"value": ""}, nil, "value: is required"},
		{"value zero", config{"value": "0"}, nil, `value "0": is too small; give a number above 0`},
		{"activation", config{"activationValue": "x"}, nil, `activationValue "x": is not a number`},
		{"interval zero", config{"watchProgressNotifyInterval": "0"}, nil,
			`watchProgressNotifyInterval "0": is too small; give at least 1`},
		{"user alone", nil, config{"username": "u"}, "username: needs a password"},
		{"password alone", nil, config{"password": "secret"}, "password: needs a user"},
		{"tls", nil, config{"tls": "secret"}, "tls: is not allowed; give enable or disable"},
		{"certificate alone", nil, config{"tls": "enable", "cert": certs.ClientCert}, "make a client certificate together"},
		{"key alone", nil, config{"tls": "enable", "key": certs.ClientKey}, "make a client certificate together"},
		{"ca", nil, config{"tls": "enable", "ca": "secret"}, "ca: holds no certificate"},
		{"key", nil, config{"tls": "enable", "cert": certs.ClientCert, "key": "secret"}, "key: is not PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			given := metadata("127.0.0.1:2379", "jobs")
			for key, value := range test.extra {
				given[key] = value
			}
			made, err := etcd.Type(etcd.NewClients()).New(t.Context(), trigger.Config{Metadata: given, Auth: test.auth})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q, want %q", err, test.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		extra   config
		hasAuth bool
		want    string // the only finding; empty means none
	}{
		{"the usual", nil, true, ""},
		{"user from env, password from auth", config{"usernameFromEnv": "U"}, true, ""},
		{"user alone", config{"passwordFromEnv": "P"}, false, ""}, // the environment tells
		{"user in metadata", config{"username": "u"}, true, "cannot be given in metadata"},
	} {
		given := metadata("a:1,https://b:2,unix:/run/etcd.sock", "jobs")
		for key, value := range test.extra {
			given[key] = value
		}
		findings := etcd.Type(etcd.NewClients()).Validate(given, test.hasAuth)
		if got := len(findings); got > 1 || (got == 1) != (test.want != "") ||
			got == 1 && !strings.Contains(findings[0].Error(), test.want) {
			t.Errorf("%s: findings %v, want %q", test.name, findings, test.want)
		}
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	name := etcd.Type(etcd.NewClients()).ExternalMetricName(1, trigger.Config{Metadata: config{"watchKey": "/a.b/c"}})
	if want := "s1-etcd--a-b-c"; name != want {
		t.Errorf("metric name %q, want %q", name, want)
	}
}

func TestAnotherServer(t *testing.T) {
	t.Parallel()
	foreign := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a secret page", http.StatusForbidden)
	}))
	foreign.Config.Protocols = new(http.Protocols)
	foreign.Config.Protocols.SetUnencryptedHTTP2(true)
	foreign.Start()
	t.Cleanup(foreign.Close)
	address := strings.TrimPrefix(foreign.URL, "http://")
	triggertest.Fails(t, open(t, etcd.NewClients(), trigger.Config{Metadata: metadata(address, "jobs")}), "does not answer as etcd does", "secret")
	triggertest.Fails(t, open(t, etcd.NewClients(), trigger.Config{
		Metadata: metadata(address, "jobs"), Auth: config{"username": "u", "password": "my-secret"},
	}), "does not answer as etcd does", "secret")
}

func TestClientIsShared(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	proxy := servertest.StartProxy(t, server.Addr(0))
	clients := etcd.NewClients()
	var all []trigger.Trigger
	for i := range 10 {
		server.put(t, named("jobs", i), strconv.Itoa(i))
		all = append(all, open(t, clients, trigger.Config{Metadata: metadata(proxy.Addr(), named("jobs", i))}))
	}
	if proxy.Opened() != 0 {
		t.Errorf("making a trigger connects: %d connections", proxy.Opened())
	}
	var measuring sync.WaitGroup
	for i, made := range all {
		measuring.Go(func() {
			measured, err := made.Measure(t.Context())
			if err != nil || measured.Value != float64(i) {
				t.Errorf("measured %v, error %v, want %d", measured.Value, err, i)
			}
		})
	}
	measuring.Wait()
	if proxy.Opened() != 1 || clients.Connections() != 1 {
		t.Errorf("%d connections are opened by %d clients, want 1", proxy.Opened(), clients.Connections())
	}
	for _, made := range all {
		made.Close()
	}
	if clients.Connections() != 0 {
		t.Errorf("%d clients are kept, want none", clients.Connections())
	}
}

func TestMeasureGivenUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, auth := range []config{nil, {"username": "u", "password": "my-secret"}} {
		made := open(t, etcd.NewClients(), trigger.Config{Metadata: metadata("192.0.2.1:1", "jobs"), Auth: auth})
		if _, err := made.Measure(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
	}
}

func FuzzParseNumber(f *testing.F) {
	for _, seed := range []string{"5", "-0.5", "1e400", "NaN", "0x1p-2", "", "secret"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		number, err := etcd.ParseNumber(content)
		if math.IsNaN(number) || math.IsInf(number, 0) {
			t.Errorf("%q is %v, want a number", content, number)
		}
		if err != nil && len(err.Error()) > 150 {
			t.Errorf("error %q, want a short one", err)
		}
	})
}

// BenchmarkMeasure measures a reading next to the client's own.
func BenchmarkMeasure(b *testing.B) {
	server := start(b, false)
	server.put(b, "jobs", "5")
	made := open(b, etcd.NewClients(), trigger.Config{Metadata: metadata(server.Addr(0), "jobs")})
	triggertest.Compare(b, made, func() error {
		_, err := server.client.Get(b.Context(), "jobs")
		return err
	})
}
