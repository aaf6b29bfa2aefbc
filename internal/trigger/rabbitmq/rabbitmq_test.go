package rabbitmq_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/rabbitmq"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func build(t testing.TB, clients *rabbitmq.Clients, metadata, auth config) trigger.Trigger {
	t.Helper()
	made, err := rabbitmq.Type(clients).New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(made.Close))
	return made
}

// The server takes seconds to start, so that all tests share one. Each has queues of its own.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	shared := rabbitmqtest.Start(t)
	t.Run("parallel", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *rabbitmqtest.Server){
			"every parameter": testEveryParameter, "refusals": testRefusals, "modes": testModes, "regex": testRegex,
			"unacknowledged": testUnacknowledged, "new queue": testNewQueue, "missing queue": testMissingQueue,
			"sharing": testSharing, "network": testNetwork, "names": testNames, "claims": testClaims,
			"pop makes nothing": testPopMakesNothing, "claim rights": testClaimRights, "claim errors": testClaimErrors,
			"claim tls": testClaimTLS,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, shared)
			})
		}
	})
	t.Run("restart", func(t *testing.T) { testRestart(t, shared) })
	t.Run("claim restart", func(t *testing.T) { testClaimRestart(t, shared) })
}

func testEveryParameter(t *testing.T, server *rabbitmqtest.Server) {
	const password = "p@ss/w#rd%2F +hunter2"
	server.Put("vhosts/team%2Fone", struct{}{})
	server.Put("vhosts/plain", struct{}{})
	for _, vhost := range []string{"team/one", "plain"} {
		server.Permit(vhost, rabbitmqtest.Admin)
	}
	server.User("alice", password, "management")
	server.User("test client", "hunter2", "none")
	server.Permit("/", "test client")
	server.Queue(t, server.Channel(t, "/"), "jobs", 3)
	server.Queue(t, server.Channel(t, "team/one"), "jobs", 2)
	server.Queue(t, server.Channel(t, "plain"), "jobs", 1)

	certs := server.Certs
	client := config{"ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}
	amqpAt, httpAt := server.Addr(rabbitmqtest.PortAMQP), server.Addr(rabbitmqtest.PortHTTP)
	amqps, https := server.Addr(rabbitmqtest.PortAMQPS), server.Addr(rabbitmqtest.PortHTTPS)
	user := rabbitmqtest.Admin + ":" + rabbitmqtest.Password + "@"
	alice := config{"username": "alice", "password": password}
	other := httptest.NewServer(prefixed(t, "/rabbit/mq", "http://"+httpAt))
	t.Cleanup(other.Close)
	for _, test := range []struct {
		name                string
		metadata, env, auth config
		want                float64
	}{
		{"amqp", config{"host": server.AMQP()}, nil, nil, 3},
		{"amqp without a slash", config{"host": "amqp://" + user + amqpAt}, nil, nil, 3},
		{"amqp, vhost escaped", config{"host": "amqp://" + user + amqpAt + "/%2F"}, nil, nil, 3},
		{"amqp, vhost", config{"host": "amqp://" + user + amqpAt + "/plain"}, nil, nil, 1},
		{"amqp, vhost with a slash", config{"host": "amqp://" + user + amqpAt + "/team%2Fone"}, nil, nil, 2},
		{"amqp, vhostName", config{"host": "amqp://" + user + amqpAt + "/plain", "vhostName": "team/one"}, nil, nil, 2},
		{"amqp, vhostName /", config{"host": "amqp://" + user + amqpAt + "/plain", "vhostName": "/"}, nil, nil, 3},
		{"amqp from env", config{"hostFromEnv": "H"}, config{"H": server.AMQP()}, nil, 3},
		{"amqp from auth", nil, nil, config{"host": server.AMQP()}, 3},
		{"protocol", config{"host": server.AMQP(), "protocol": "amqp"}, nil, nil, 3},
		{"protocol from auth", config{"host": server.AMQP()}, nil, config{"protocol": "amqp", "vhostName": "plain"}, 1},
		{"amqp, user", config{"host": "amqp://" + amqpAt}, nil, alice, 3},
		{"amqp, user in place of another", config{"host": "amqp://who:what@" + amqpAt}, nil, alice, 3},
		{"amqp, user from env", config{"host": "amqp://" + amqpAt, "usernameFromEnv": "U", "passwordFromEnv": "P"},
			config{"U": "alice", "P": password}, nil, 3},
		{"amqp, user in host", config{"host": "amqp://" + url.UserPassword("alice", password).String() + "@" + amqpAt}, nil, nil, 3},
		{"amqp, mechanism", config{"host": server.AMQP() + "?auth_mechanism=amqplain"}, nil, nil, 3},
		{"amqps", config{"host": "amqps://" + user + amqps}, nil, config{"ca": certs.CA, "tls": "enable"}, 3},
		{"amqps without tls", config{"host": "amqps://" + user + amqps}, nil, config{"ca": certs.CA}, 3},
		{"amqps by name", config{"host": fmt.Sprintf("amqps://%slocalhost:%d", user, server.Port(rabbitmqtest.PortAMQPS))}, nil, config{"ca": certs.CA}, 3},
		{"amqps, server name", config{"host": "amqps://" + user + amqps + "?server_name_indication=localhost"}, nil, config{"ca": certs.CA}, 3},
		{"amqps, unsafeSsl", config{"host": "amqps://" + user + amqps, "unsafeSsl": "true"}, nil, nil, 3},
		{"amqps, certificate logs in", config{"host": "amqps://" + amqps}, nil, triggertest.With(client, "tls", "enable"), 3},
		{"amqps, certificate and user", config{"host": "amqps://" + amqps}, nil,
			triggertest.With(client, "tls", "enable", "username", "alice", "password", password), 3},
		{"tls disable", config{"host": server.AMQP()}, nil, config{"tls": "disable"}, 3},
		{"http", config{"host": server.HTTP()}, nil, nil, 3},
		{"http without a slash", config{"host": "http://" + user + httpAt}, nil, nil, 3},
		{"http, vhost escaped", config{"host": "http://" + user + httpAt + "/%2F"}, nil, nil, 3},
		{"http, vhost", config{"host": "http://" + user + httpAt + "/plain"}, nil, nil, 1},
		{"http, vhost with a slash", config{"host": "http://" + user + httpAt + "/team%2Fone"}, nil, nil, 2},
		{"http, vhostName", config{"host": "http://" + user + httpAt + "/plain", "vhostName": "team/one"}, nil, nil, 2},
		{"http, path", config{"host": strings.Replace(other.URL, "http://", "http://"+user, 1) + "/rabbit/mq/plain"}, nil, nil, 1},
		{"http, path and no vhost", config{"host": strings.Replace(other.URL, "http://", "http://"+user, 1) + "/rabbit/mq/"}, nil, nil, 3},
		{"http, path and vhostName", config{"host": strings.Replace(other.URL, "http://", "http://"+user, 1) + "/rabbit/mq/",
			"vhostName": "team/one"}, nil, nil, 2},
		{"http, protocol", config{"host": server.HTTP(), "protocol": "http"}, nil, nil, 3},
		{"http, user", config{"host": "http://" + httpAt}, nil, alice, 3},
		{"http, timeout in ms", config{"host": server.HTTP(), "timeout": "30000"}, nil, nil, 3},
		{"http, timeout", config{"host": server.HTTP(), "timeout": "30s"}, nil, nil, 3},
		{"https", config{"host": "https://" + user + https}, nil, triggertest.With(client, "tls", "enable"), 3},
		{"https, unsafeSsl", config{"host": "https://" + user + https, "unsafeSsl": "true"}, nil, triggertest.With(client, "ca", ""), 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made, err := rabbitmq.Type(rabbitmq.NewClients()).New(t.Context(), trigger.Config{
				Metadata: triggertest.With(test.metadata, "queueName", "jobs"), Env: test.env, Auth: test.auth,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			// Statistics come some time after a message.
			triggertest.WaitFor(t, fmt.Sprint("a measurement of ", test.want), func() bool { return triggertest.Measure(t, made).Value == test.want })
			if got := triggertest.Measure(t, made); got != (trigger.Measurement{Value: test.want, Target: 20, Active: true}) {
				t.Errorf("measured %+v", got)
			}
		})
	}
}

// prefixed serves what another server does below a path, as a proxy in front of it does.
func prefixed(t *testing.T, prefix, to string) http.Handler {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, found := strings.CutPrefix(r.URL.EscapedPath(), prefix)
		if !found {
			http.NotFound(w, r)
			return
		}
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to+path+"?"+r.URL.RawQuery, nil)
		if err != nil {
			t.Error(err)
			return
		}
		request.Header = r.Header
		reply, err := transport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = reply.Body.Close() }()
		w.WriteHeader(reply.StatusCode)
		_, _ = io.Copy(w, reply.Body)
	})
}

func testRefusals(t *testing.T, server *rabbitmqtest.Server) {
	server.User("blind", "hunter2", "none")
	server.User("mute", "hunter2", "management")
	server.Put("permissions/%2F/mute", map[string]string{"configure": "", "write": "", "read": ""})
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "refusals", 1)
	if _, err := channel.QueueDeclare("exclusive", false, false, true, false, nil); err != nil {
		t.Fatal(err)
	}
	other := servertest.NewCerts(t, t.TempDir())
	dead := deadAddress(t)
	amqpAt, httpAt := server.Addr(rabbitmqtest.PortAMQP), server.Addr(rabbitmqtest.PortHTTP)
	amqps, https := server.Addr(rabbitmqtest.PortAMQPS), server.Addr(rabbitmqtest.PortHTTPS)
	user := rabbitmqtest.Admin + ":" + rabbitmqtest.Password + "@"
	for _, test := range []struct {
		name, host, queue string
		auth              config
		want              string
	}{
		{"amqp password", "amqp://admin:hunter2-old@" + amqpAt, "", nil, `does not accept user "admin" with this password`},
		{"amqp unknown user", "amqp://bob:hunter2@" + amqpAt, "", nil, `does not accept user "bob" with this password`},
		{"amqp guest", "amqp://" + amqpAt, "", nil, `user "guest"`},
		{"amqp vhost", "amqp://" + user + amqpAt + "/nowhere", "", nil, `does not let user "admin" into virtual host "nowhere"`},
		{"amqp vhost denied", "amqp://blind:hunter2@" + amqpAt, "", nil, `does not let user "blind" into virtual host "/"`},
		{"amqp queue", server.AMQP(), "nothing", nil, `has no queue "nothing" in virtual host "/"`},
		{"amqp exclusive", server.AMQP(), "exclusive", nil, `keeps queue "exclusive" for another connection`},
		{"amqp to nobody", "amqp://" + user + dead, "", nil, "is not reachable"},
		{"amqp to TLS", "amqp://" + user + amqps, "", nil, "speaks no AMQP on this port; give its port for AMQP, or amqps:// where it is for TLS"},
		{"amqps to amqp", "amqps://" + user + amqpAt, "", nil, "no TLS on this port"},
		{"amqps authority", "amqps://" + user + amqps, "", nil, "certificate of an unknown authority; give ca"},
		{"amqps other authority", "amqps://" + user + amqps, "", config{"ca": other.CA}, "certificate of an unknown authority; give ca"},
		{"amqps name", "amqps://" + user + amqps + "?server_name_indication=rabbit.example", "", config{"ca": server.Certs.CA},
			"certificate for another name"},
		{"http password", "http://admin:hunter2-old@" + httpAt, "", nil, `does not accept user "admin" with this password`},
		{"http without a user", "http://" + httpAt, "", nil, "requires a user and a password"},
		{"http without a tag", "http://blind:hunter2@" + httpAt, "", nil, `user "blind"`},
		{"http vhost", "http://" + user + httpAt + "/nowhere", "", nil, `has no queue "refusals" in virtual host "nowhere"`},
		{"http queue", server.HTTP(), "nothing", nil, `has no queue "nothing" in virtual host "/"`},
		{"http to nobody", "http://" + user + dead, "", nil, "is not reachable"},
		{"http to amqp", "http://" + user + amqpAt, "", nil, "rabbitmq at http://" + amqpAt},
		{"https to http", "https://" + user + httpAt, "", nil, "no TLS on this port"},
		{"https authority", "https://" + user + https, "", nil, "certificate of an unknown authority; give ca"},
		{"https client certificate", "https://" + user + https, "", config{"ca": server.Certs.CA}, "require a client certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.queue == "" {
				test.queue = "refusals"
			}
			made := build(t, rabbitmq.NewClients(), config{"queueName": test.queue, "host": test.host}, test.auth)
			if text := triggertest.Refusal(t, made, test.want); !strings.Contains(text, test.want) || !strings.HasPrefix(text, "rabbitmq at ") {
				t.Errorf("error %q, want %q", text, test.want)
			}
		})
	}
	t.Run("amqp to http", func(t *testing.T) {
		t.Parallel()
		made := build(t, rabbitmq.NewClients(), config{"queueName": "refusals", "host": "amqp://" + user + httpAt}, nil)
		// The server waits for the rest of a request, about as long as a measurement may take, and then hangs up.
		text := triggertest.Refusal(t, made)
		if !strings.Contains(text, "does not answer in time") && !strings.Contains(text, "closed the connection") {
			t.Errorf("error %q, want that it does not answer, or hangs up", text)
		}
	})
}

// deadAddress returns one that nobody listens at.
func deadAddress(t *testing.T) string {
	t.Helper()
	return servertest.FreeAddress(t)
}

func testModes(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "modes", 5)
	metadata := config{"queueName": "modes", "host": server.HTTP()}
	clients := rabbitmq.NewClients()
	length := build(t, clients, triggertest.With(metadata, "mode", "QueueLength", "value", "2.5", "activationValue", "4.5"), nil)
	triggertest.WaitFor(t, "the length", func() bool {
		return triggertest.Measure(t, length) == trigger.Measurement{Value: 5, Target: 2.5, Active: true}
	})
	older := build(t, clients, triggertest.With(metadata, "queueLength", "3", "activationValue", "5"), nil)
	triggertest.WaitFor(t, "the length with queueLength", func() bool {
		return triggertest.Measure(t, older) == trigger.Measurement{Value: 5, Target: 3} // statistics are some time behind
	})
	// What nobody takes is as much as one Job takes, whatever cannot be divided by zero.
	eta := build(t, clients, triggertest.With(metadata, "mode", "ExpectedQueueConsumptionTime", "value", "7"), nil)
	triggertest.WaitFor(t, "the time without a consumer", func() bool {
		measured, err := eta.Measure(t.Context()) // fails until there are statistics
		return err == nil && measured == trigger.Measurement{Value: 7, Target: 7, Active: true}
	})
	of := func(mode string) trigger.Trigger {
		return build(t, clients, triggertest.With(metadata, "mode", mode, "value", "1.5"), nil)
	}
	published, delivered, ratio := of("MessageRate"), of("DeliverGetRate"), of("PublishedToDeliveredRatio")
	if got := triggertest.Measure(t, delivered); got != (trigger.Measurement{Target: 1.5}) {
		t.Errorf("delivered without a consumer: %+v", got)
	}
	var seen [4]bool
	triggertest.WaitFor(t, "all rates", func() bool {
		rabbitmqtest.Publish(t, channel, "modes", "item", "item")
		if _, _, err := channel.Get("modes", true); err != nil {
			t.Fatal(err)
		}
		for i, made := range []trigger.Trigger{published, delivered, ratio} {
			got := triggertest.Measure(t, made)
			seen[i] = seen[i] || got.Value > 0 && got.Value != 1.5 && got.Active
		}
		// Two come for each that goes, so that the queue is never empty.
		seen[3] = seen[3] || triggertest.Measure(t, eta).Value != 7 && triggertest.Measure(t, eta).Active
		return seen == [4]bool{true, true, true, true}
	})
}

func testRegex(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	for name, messages := range map[string]int{"regex-a": 1, "regex-b": 4, "regex-c": 1, "other-regex": 9} {
		server.Queue(t, channel, name, messages)
	}
	clients := rabbitmq.NewClients()
	metadata := config{"queueName": "^regex-.$", "host": server.HTTP(), "useRegex": "true"}
	for _, test := range []struct {
		more []string
		want float64
	}{
		{nil, 6},
		{[]string{"operation", "sum"}, 6},
		{[]string{"operation", "max"}, 4},
		{[]string{"operation", "avg"}, 2},
		{[]string{"pageSize", "1"}, 6},
		{[]string{"pageSize", "2", "operation", "max"}, 4},
		{[]string{"pageSize", "500"}, 6},
		{[]string{"excludeUnacknowledged", "true"}, 6},
		{[]string{"queueName", "^nothing$"}, 0},
		{[]string{"queueName", "^nothing$", "operation", "avg"}, 0},
		{[]string{"queueName", "^nothing$", "operation", "max"}, 0},
	} {
		made := build(t, clients, triggertest.With(metadata, test.more...), nil)
		if got := triggertest.Measure(t, made); got.Value != test.want || got.Active != (test.want > 0) {
			t.Errorf("%q: %+v, want %v", test.more, got, test.want)
		}
	}
	rate := build(t, clients, triggertest.With(metadata, "mode", "MessageRate", "value", "1"), nil)
	triggertest.WaitFor(t, "rates of several queues", func() bool {
		rabbitmqtest.Publish(t, channel, "regex-a", "item")
		measured, err := rate.Measure(t.Context())
		return err == nil && measured.Value > 0
	})
	broken := build(t, clients, triggertest.With(metadata, "queueName", "["), nil)
	if text := triggertest.Refusal(t, broken, `does not take "[" for a regular expression`); !strings.Contains(text, `does not take "[" for a regular expression`) {
		t.Errorf("error %q", text)
	}
	nowhere := build(t, clients, triggertest.With(metadata, "vhostName", "nowhere"), nil)
	if text := triggertest.Refusal(t, nowhere, `has no virtual host "nowhere"`); !strings.Contains(text, `has no virtual host "nowhere"`) {
		t.Errorf("error %q", text)
	}
}

func testUnacknowledged(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "unacknowledged", 3)
	if _, found, err := channel.Get("unacknowledged", false); err != nil || !found {
		t.Fatal(found, err)
	}
	clients := rabbitmq.NewClients()
	for _, test := range []struct {
		metadata config
		want     float64
	}{
		{config{"host": server.HTTP()}, 3},
		{config{"host": server.HTTP(), "excludeUnacknowledged": "true"}, 2},
		{config{"host": server.HTTP(), "excludeUnacknowledged": "true", "useRegex": "true"}, 2},
		{config{"host": server.AMQP()}, 2},
	} {
		made := build(t, clients, triggertest.With(test.metadata, "queueName", "unacknowledged"), nil)
		triggertest.WaitFor(t, fmt.Sprint(test.want, " messages"), func() bool { return triggertest.Measure(t, made).Value == test.want })
	}
}

// A queue of which there are no statistics yet must not be taken for an empty one.
func testNewQueue(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	clients := rabbitmq.NewClients()
	for i := range 20 {
		name := fmt.Sprintf("new.(%d)", i)
		server.Queue(t, channel, name, 0)
		if got := triggertest.Measure(t, build(t, clients, config{"queueName": name, "host": server.HTTP()}, nil)); got.Value != 0 {
			t.Errorf("%s: %+v, want none", name, got)
		}
		server.Queue(t, channel, name+"-filled", 2)
		made := build(t, clients, config{"queueName": name + "-filled", "host": server.HTTP()}, nil)
		triggertest.WaitFor(t, "two messages", func() bool { return triggertest.Measure(t, made).Value == 2 })
	}
}

func testNames(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	clients := rabbitmq.NewClients()
	for _, name := range []string{
		"two words", "a+b", "a/b/../c", "100%", "%2F", `quo"te's`, "ünï©ödé", "?query=1&x#y", strings.Repeat("k", 255), "a:b;c,d@e",
	} {
		server.Queue(t, channel, name, 1)
		for _, host := range []string{server.AMQP(), server.HTTP()} {
			made := build(t, clients, config{"queueName": name, "host": host}, nil)
			triggertest.WaitFor(t, fmt.Sprintf("one message in %q by %.4s", name, host), func() bool { return triggertest.Measure(t, made).Value == 1 })
		}
	}
}

func testMissingQueue(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "present", 2)
	clients := rabbitmq.NewClients()
	missing := build(t, clients, config{"queueName": "late", "host": server.AMQP()}, nil)
	present := build(t, clients, config{"queueName": "present", "host": server.AMQP()}, nil)
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 25 {
				triggertest.Refusal(t, missing)
			}
		})
		running.Go(func() {
			for range 25 {
				if measured, err := triggertest.Try(t, present); err != nil || measured.Value != 2 {
					t.Errorf("beside a missing queue: %+v, %v", measured, err)
				}
			}
		})
	}
	running.Wait()
	server.Queue(t, channel, "late", 1)
	if got := triggertest.Measure(t, missing); got.Value != 1 {
		t.Errorf("of a queue that came late: %+v, want 1", got)
	}
	if _, err := channel.QueueDelete("late", false, false, false); err != nil {
		t.Fatal(err)
	}
	triggertest.Refusal(t, missing)
}

func testSharing(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	for _, port := range []int{rabbitmqtest.PortAMQP, rabbitmqtest.PortHTTP} {
		proxy := servertest.StartProxy(t, server.Addr(port))
		scheme := map[int]string{rabbitmqtest.PortAMQP: "amqp", rabbitmqtest.PortHTTP: "http"}[port]
		host := fmt.Sprintf("%s://%s:%s@%s/", scheme, rabbitmqtest.Admin, rabbitmqtest.Password, proxy.Addr())
		clients := rabbitmq.NewClients()
		const count = 50
		var all []trigger.Trigger
		for i := range count {
			name := fmt.Sprintf("%s-shared-%d", scheme, i)
			server.Queue(t, channel, name, i%3)
			all = append(all, build(t, clients, config{"queueName": name, "host": host}, nil))
		}
		if opened := proxy.Opened(); opened != 0 {
			t.Errorf("%s: %d connections before the first measurement", scheme, opened)
		}
		var running sync.WaitGroup
		for i, made := range all {
			running.Go(func() {
				for range 5 {
					triggertest.WaitFor(t, "a count", func() bool { return triggertest.Measure(t, made).Value == float64(i%3) })
				}
			})
		}
		running.Wait()
		if opened, most := proxy.Opened(), map[int]int{rabbitmqtest.PortAMQP: 1, rabbitmqtest.PortHTTP: 8}[port]; opened > most {
			t.Errorf("%s: %d connections, want at most %d", scheme, opened, most)
		}
		for _, made := range all[1:] {
			made.Close()
		}
		triggertest.Measure(t, all[0])
	}
}

func testNetwork(t *testing.T, server *rabbitmqtest.Server) {
	server.Queue(t, server.Channel(t, "/"), "network", 2)
	for _, port := range []int{rabbitmqtest.PortAMQP, rabbitmqtest.PortHTTP} {
		scheme := map[int]string{rabbitmqtest.PortAMQP: "amqp", rabbitmqtest.PortHTTP: "http"}[port]
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			proxy := servertest.StartProxy(t, server.Addr(port))
			host := fmt.Sprintf("%s://%s:%s@%s/", scheme, rabbitmqtest.Admin, rabbitmqtest.Password, proxy.Addr())
			made := build(t, rabbitmq.NewClients(), config{"queueName": "network", "host": host}, nil)
			counts := func() bool {
				measured, err := made.Measure(t.Context())
				return err == nil && measured.Value == 2
			}
			triggertest.WaitFor(t, "the first count", counts)
			proxy.Cut()
			triggertest.WaitFor(t, "a count after a cut", counts)
			proxy.Hold()
			if text := triggertest.Refusal(t, made); !strings.Contains(text, "does not answer in time") {
				t.Errorf("error %q", text)
			}
			proxy.Forward()
			triggertest.WaitFor(t, "a count after a silence", counts)
			proxy.Hold()
			proxy.Cut()
			// The first may still fail with the connection that is cut, the next one while it connects.
			triggertest.WaitFor(t, "silence while connecting", func() bool {
				return strings.Contains(triggertest.Refusal(t, made), "does not answer in time")
			})
			since := time.Now()
			made.Close()
			if took := time.Since(since); took > triggertest.MostMeasureTime {
				t.Errorf("Close takes %v in a black hole", took)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		proxy := servertest.StartProxy(t, server.Addr(rabbitmqtest.PortHTTP))
		proxy.Hold()
		made := build(t, rabbitmq.NewClients(), config{"queueName": "network", "host": "http://" + proxy.Addr(), "timeout": "20"}, nil)
		const limit = 4 * time.Second
		if took := triggertest.Quickly(limit, func() { triggertest.Refusal(t, made) }); took >= limit {
			t.Errorf("took %v with a timeout of 20 ms", took)
		}
	})
}

func testRestart(t *testing.T, server *rabbitmqtest.Server) {
	server.Queue(t, server.Channel(t, "/"), "restart", 2)
	clients := rabbitmq.NewClients()
	byAMQP := build(t, clients, config{"queueName": "restart", "host": server.AMQP()}, nil)
	byHTTP := build(t, clients, config{"queueName": "restart", "host": server.HTTP()}, nil)
	all := []trigger.Trigger{byAMQP, byHTTP}
	for _, made := range all {
		triggertest.WaitFor(t, "two messages", func() bool { return triggertest.Measure(t, made).Value == 2 })
	}
	server.Kill()
	for _, made := range all {
		triggertest.WaitFor(t, "the outage", func() bool {
			measured, err := made.Measure(t.Context())
			if err == nil && measured.Value != 2 {
				t.Errorf("measured %v in an outage", measured.Value)
			}
			return err != nil && strings.Contains(err.Error(), "is not reachable")
		})
	}
	server.Restart()
	for _, made := range all {
		last := ""
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the last answer was %s", last)
			}
		})
		triggertest.WaitFor(t, "two messages after the return", func() bool {
			measured, err := made.Measure(t.Context())
			last = fmt.Sprintf("%+v, %v", measured, err)
			return err == nil && measured.Value == 2
		})
	}
}

func TestServersInTrouble(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status     int
		body, want string
	}{
		{200, `{"name":"jobs"}`, `it has no count of the messages in queue "jobs"`},
		{200, `<html>hunter2</html>`, "the reply is not that of a management API"},
		{200, `{"messages":"hunter2"}`, "the reply is not that of a management API"},
		{200, ``, "the reply is not that of a management API"},
		{403, `hunter2`, `denies user "u" the management API`},
		{503, `hunter2`, "HTTP status 503 Service Unavailable"},
		{302, `hunter2`, "302"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			_, _ = fmt.Fprint(w, test.body)
		}))
		host := strings.Replace(server.URL, "http://", "http://u:hunter2@", 1)
		for _, more := range [][]string{{"mode", "MessageRate", "value", "1"}, {"useRegex", "false"}} {
			if test.status == 200 && strings.HasPrefix(test.body, `{"name"`) && more[0] == "useRegex" {
				continue // asks again, in another way
			}
			made := build(t, rabbitmq.NewClients(), triggertest.With(config{"queueName": "jobs", "host": host}, more...), nil)
			if text := triggertest.Refusal(t, made, test.want); !strings.Contains(text, test.want) {
				t.Errorf("%d %s: error %q, want %q", test.status, test.body, text, test.want)
			}
			made.Close()
		}
		server.Close()
	}
}

func FuzzManagementReply(f *testing.F) {
	for _, body := range []string{
		`{"name":"jobs","messages":3,"messages_ready":2,"message_stats":{"publish_details":{"rate":1.5}}}`,
		`{"items":[{"name":"jobs","messages":1}],"page_count":1,"filtered_count":1}`, `[]`, `null`, `{"messages":-1e308}`, "{",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) }))
		defer server.Close()
		made := build(t, rabbitmq.NewClients(), config{"queueName": "jobs", "host": server.URL}, nil)
		defer made.Close()
		measured, err := made.Measure(t.Context())
		if err == nil && (measured.Value < 0 || math.IsNaN(measured.Value)) {
			t.Errorf("measured %+v", measured)
		}
	})
}
