package jetstream_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/jetstream"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func build(t testing.TB, clients *jetstream.Clients, metadata, auth config) trigger.Trigger {
	t.Helper()
	made, err := jetstream.Type(clients).New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(made.Close))
	return made
}

func of(endpoint, stream string) config {
	return config{"natsServerMonitoringEndpoint": endpoint, "account": "$G", "stream": stream, "consumer": "worker"}
}

// TestHTTPS is not parallel and comes first, because Go reads the system's certificates once.
func TestHTTPS(t *testing.T) {
	certs := servertest.NewCerts(t, t.TempDir())
	t.Setenv("SSL_CERT_FILE", certs.CAFile)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	secure := func(certs *servertest.Certs) *servertest.Process {
		return natstest.Start(t, func(p *servertest.Process) string {
			return fmt.Sprintf("listen: %q\nhttps: %q\ntls { cert_file: %q, key_file: %q }\n",
				p.Addr(natstest.PortClient), p.Addr(natstest.PortMonitor), certs.ServerCertFile, certs.ServerKeyFile)
		})
	}
	server := secure(certs)
	_, js := natstest.Connect(t, "tls://"+server.Addr(natstest.PortClient))
	stream(t, js, "secure", 2)
	clients := jetstream.NewClients()
	made := build(t, clients, triggertest.With(of(server.Addr(natstest.PortMonitor), "secure"), "useHttps", "true",
		"natsServer", "tls://"+server.Addr(natstest.PortClient)), nil)
	if got := triggertest.Measure(t, made); got.Value != 2 {
		t.Errorf("measured %+v, want 2", got)
	}
	changes := watch(t, made)
	changes.until(t, "the beginning", func() bool { return true })
	publish(t, js, "secure.item", 1)
	changes.until(t, "a message by TLS", func() bool { return triggertest.Measure(t, made).Value == 3 })
	items := claims(t, clients, triggertest.With(of(server.Addr(natstest.PortMonitor), "secure"), "natsServer",
		"tls://"+server.Addr(natstest.PortClient)), nil)
	if got := claim(t, items.Items(""), 5); len(got) != 3 {
		t.Errorf("claimed %+v by TLS, want 3", got)
	}
	items.Close()
	unknown := secure(servertest.NewCerts(t, t.TempDir()))
	made = build(t, clients, triggertest.With(of(unknown.Addr(natstest.PortMonitor), "secure"), "useHttps", "true"), nil)
	if text := triggertest.Refusal(t, made, "shows a certificate of an unknown authority"); !strings.Contains(text, "shows a certificate of an unknown authority") {
		t.Errorf("error %q", text)
	}
	made = build(t, clients, of(server.Addr(natstest.PortMonitor), "secure"), nil)
	if text := triggertest.Refusal(t, made, "HTTP status 400"); !strings.Contains(text, "HTTP status 400") {
		t.Errorf("error %q", text)
	}
	if os.Getenv("SSL_CERT_FILE") != certs.CAFile {
		t.Error("the environment is not that of the test")
	}
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, `accounts { APP: { jetstream: enabled, users: [{user: app, password: "hunter2"}] } }`)
	endpoint := server.Addr(natstest.PortMonitor)
	_, js := natstest.Connect(t, "nats://app:hunter2@"+server.Addr(natstest.PortClient))
	consumer := stream(t, js, "tasks", 5)
	publish(t, js, "tasks.other", 3) // which the consumer does not get
	app := triggertest.With(of(endpoint, "tasks"), "account", "APP")
	clients := jetstream.NewClients()
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           trigger.Measurement
	}{
		{"defaults", app, nil, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"lagThreshold", triggertest.With(app, "lagThreshold", "2"), nil, trigger.Measurement{Value: 5, Target: 2, Active: true}},
		{"activation", triggertest.With(app, "activationLagThreshold", "4"), nil, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"not active", triggertest.With(app, "activationLagThreshold", "5"), nil, trigger.Measurement{Value: 5, Target: 10}},
		{"useHttps", triggertest.With(app, "useHttps", "false"), nil, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"accountID", triggertest.With(app, "account", "", "accountID", "APP"), nil, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"both", triggertest.With(app, "accountID", "APP"), nil, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"from auth", triggertest.With(app, "account", "", "natsServerMonitoringEndpoint", ""),
			config{"account": "APP", "natsServerMonitoringEndpoint": endpoint}, trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"auth wins", triggertest.With(app, "account", "OTHER"), config{"accountID": "APP", "account": "APP"},
			trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"by name", triggertest.With(app, "natsServerMonitoringEndpoint", fmt.Sprint("localhost:", server.Port(natstest.PortMonitor))), nil,
			trigger.Measurement{Value: 5, Target: 10, Active: true}},
		{"credentials of a proxy", triggertest.With(app, "natsServerMonitoringEndpoint", "u:hunter2@"+endpoint), nil,
			trigger.Measurement{Value: 5, Target: 10, Active: true}},
	} {
		if got := triggertest.Measure(t, build(t, clients, test.metadata, test.auth)); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
	for _, test := range []struct {
		metadata config
		want     string
	}{
		{triggertest.With(app, "account", "NONE"), `it has no account "NONE" with JetStream`},
		{triggertest.With(app, "stream", "none"), `it has no stream "none"`},
		{triggertest.With(app, "consumer", "none"), `it has no consumer "none" of stream "tasks"`},
		{triggertest.With(app, "natsServerMonitoringEndpoint", deadAddress(t)), "is not reachable"},
		{triggertest.With(app, "useHttps", "true"), "speaks no TLS on this port"},
		{triggertest.With(app, "natsServerMonitoringEndpoint", "u:hunter2@"+server.Addr(natstest.PortClient)), "nats at " + server.Addr(natstest.PortClient)},
	} {
		if text := triggertest.Refusal(t, build(t, clients, test.metadata, nil), test.want); !strings.Contains(text, test.want) {
			t.Errorf("error %q, want %q", text, test.want)
		}
	}

	// What is fetched and not acknowledged still counts; what is acknowledged does not.
	made := build(t, clients, app, nil)
	batch, err := consumer.Fetch(2)
	if err != nil {
		t.Fatal(err)
	}
	for message := range batch.Messages() {
		if got := triggertest.Measure(t, made); got.Value < 4 {
			t.Errorf("measured %v while at most 1 of 5 is acknowledged", got.Value)
		}
		if err := message.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := triggertest.Measure(t, made); got.Value != 3 {
		t.Errorf("measured %v after 2 of 5 are acknowledged", got.Value)
	}
}

func TestOutages(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, "")
	_, js := natstest.Connect(t, "nats://"+server.Addr(natstest.PortClient))
	stream(t, js, "tasks", 2)
	proxy := servertest.StartProxy(t, server.Addr(natstest.PortMonitor))
	made := build(t, jetstream.NewClients(), of(proxy.Addr(), "tasks"), nil)
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
	server.Kill()
	triggertest.Refusal(t, made)
	server.Restart()
	triggertest.WaitFor(t, "a count after a restart", counts)
}

func TestSharing(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, "")
	_, js := natstest.Connect(t, "nats://"+server.Addr(natstest.PortClient))
	proxy := servertest.StartProxy(t, server.Addr(natstest.PortMonitor))
	clients := jetstream.NewClients()
	const count = 20
	var all []trigger.Trigger
	for i := range count {
		name := fmt.Sprint("stream", i)
		stream(t, js, name, i%3)
		all = append(all, build(t, clients, of(proxy.Addr(), name), nil))
	}
	if opened := proxy.Opened(); opened != 0 {
		t.Errorf("%d connections before the first measurement", opened)
	}
	var running sync.WaitGroup
	for i, made := range all {
		running.Go(func() {
			for range 10 {
				if measured, err := triggertest.Try(t, made); err != nil || measured.Value != float64(i%3) {
					t.Errorf("stream %d: %+v, %v", i, measured, err)
				}
			}
		})
	}
	running.Wait()
	if opened := proxy.Opened(); opened > 4 {
		t.Errorf("%d connections, want at most 4", opened)
	}
	for _, made := range all[1:] {
		made.Close()
	}
	// What is read after a message has come counts it, whoever reads at the same time.
	for i := range 50 {
		publish(t, js, "stream0.item", 1)
		if got := triggertest.Measure(t, all[0]); got.Value != float64(i+1) {
			t.Fatalf("measured %v after %d messages", got.Value, i+1)
		}
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8, which servers with one port need")
	}
	servers, clientPort, monitorPort := cluster(t, true)
	_, js := natstest.Connect(t, fmt.Sprintf("nats://127.0.0.1:%d,nats://127.0.0.2:%d,nats://127.0.0.3:%d", clientPort, clientPort, clientPort))
	var single, replicated natsjs.Stream
	for name, replicas := range map[string]int{"single": 1, "replicated": 3} {
		triggertest.WaitFor(t, "the cluster to take a stream", func() bool {
			made, err := js.CreateOrUpdateStream(t.Context(), natsjs.StreamConfig{Name: name, Subjects: []string{name}, Replicas: replicas})
			if err != nil {
				return false
			}
			if single = made; replicas == 3 {
				replicated = made
			}
			_, err = made.CreateOrUpdateConsumer(t.Context(), natsjs.ConsumerConfig{Durable: "worker", AckPolicy: natsjs.AckExplicitPolicy})
			return err == nil
		})
		publish(t, js, name, replicas)
	}
	if single == nil {
		t.Fatal("no stream")
	}
	clients := jetstream.NewClients()
	at := func(number int) string { return fmt.Sprintf("127.0.0.%d:%d", number, monitorPort) }
	for number := 1; number <= 3; number++ {
		for name, want := range map[string]float64{"single": 1, "replicated": 3} {
			made := build(t, clients, of(at(number), name), nil)
			for range 2 { // the second time, the leader is known
				triggertest.WaitFor(t, fmt.Sprintf("%v messages of %s, asked at %s", want, name, at(number)), func() bool {
					measured, err := made.Measure(t.Context())
					if err == nil && measured.Value > want {
						t.Errorf("%s at %s: %v, want %v", name, at(number), measured.Value, want)
					}
					return err == nil && measured.Value == want
				})
			}
		}
	}
	missing := build(t, clients, of(at(1), "none"), nil)
	if text := triggertest.Refusal(t, missing, `it has no stream "none"`); !strings.Contains(text, `it has no stream "none"`) {
		t.Errorf("error %q", text)
	}
	// The leader is lost, and another server takes its place.
	leader := 0
	triggertest.WaitFor(t, "a leader", func() bool {
		consumer, err := replicated.Consumer(t.Context(), "worker")
		if err != nil || consumer.CachedInfo().Cluster.Leader == "" {
			return false
		}
		leader = int(consumer.CachedInfo().Cluster.Leader[1] - '0')
		return true
	})
	asked := leader%3 + 1
	made := build(t, clients, of(at(asked), "replicated"), nil)
	triggertest.WaitFor(t, "the leader's count", func() bool {
		_, err := made.Measure(t.Context())
		return err == nil
	})
	servers[leader-1].Kill()
	triggertest.WaitFor(t, "the new leader's count", func() bool {
		measured, err := made.Measure(t.Context())
		if err == nil && measured.Value != 3 {
			t.Errorf("measured %v of 3 messages without the leader", measured.Value)
		}
		return err == nil
	})
}

func TestServersInTrouble(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status     int
		body, want string
	}{
		{200, `{}`, `it has no account "$G" with JetStream`},
		{200, `{"disabled": true}`, `it has no account "$G" with JetStream`},
		{200, `<html>hunter2</html>`, "the reply is not that of a NATS server's monitoring"},
		{200, `{"account_details": "hunter2"}`, "the reply is not that of a NATS server's monitoring"},
		{503, `hunter2`, "HTTP status 503 Service Unavailable"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			_, _ = fmt.Fprint(w, test.body)
		}))
		made := build(t, jetstream.NewClients(), of(server.Listener.Addr().String(), "tasks"), nil)
		if text := triggertest.Refusal(t, made, test.want); !strings.Contains(text, test.want) {
			t.Errorf("%d %s: error %q, want %q", test.status, test.body, text, test.want)
		}
		made.Close()
		server.Close()
	}
}

// A cluster whose servers do not advertise themselves, as Pods of a headless Service: the names lead nowhere here.
func TestLeaderThatIsNotFound(t *testing.T) {
	t.Parallel()
	body := `{"meta_cluster": {"cluster_size": 3}, "cluster": {"urls": ["nats-0.nats:6222", "127.0.0.1:6222"]}, "account_details": [
		{"name": "$G", "id": "$G", "stream_detail": [{"name": "tasks", "consumer_detail": [{"name": "worker", "num_pending": 9,
		"cluster": {"leader": "nats-0", "replicas": [{"name": "nats-0"}, {"name": "nats-2"}]}}]}]}]}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) }))
	t.Cleanup(server.Close)
	made := build(t, jetstream.NewClients(), of(server.Listener.Addr().String(), "tasks"), nil)
	want := fmt.Sprintf(`the leader of consumer "worker" of stream "tasks" is not found: nats at nats-0.%s`, server.Listener.Addr())
	if text := triggertest.Refusal(t, made, want); !strings.Contains(text, want) {
		t.Errorf("error %q, want %q", text, want)
	}
}

func FuzzMonitorReply(f *testing.F) {
	for _, body := range []string{
		`{"account_details": [{"name": "$G", "stream_detail": [{"name": "tasks", "consumer_detail": [{"name": "worker", "num_pending": 1}]}]}]}`,
		`{"meta_cluster": {"cluster_size": 2}, "connect_urls": ["[::1]:1", ":", "a"]}`, `null`, `[]`, "{",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/varz" {
				body = `{}` // no other hosts are asked
			}
			_, _ = fmt.Fprint(w, body)
		}))
		defer server.Close()
		made := build(t, jetstream.NewClients(), of(server.Listener.Addr().String(), "tasks"), nil)
		defer made.Close()
		if measured, err := made.Measure(t.Context()); err == nil && measured.Value < 0 {
			t.Errorf("measured %+v", measured)
		}
	})
}

// BenchmarkMeasure compares a measurement with the bare request.
func BenchmarkMeasure(b *testing.B) {
	server := natstest.Alone(b, "")
	_, js := natstest.Connect(b, "nats://"+server.Addr(natstest.PortClient))
	stream(b, js, "tasks", 3)
	made := build(b, jetstream.NewClients(), of(server.Addr(natstest.PortMonitor), "tasks"), nil)
	get := triggertest.Getter(b)
	triggertest.Compare(b, made, func() error {
		var answer struct {
			Accounts []struct {
				Streams []struct {
					Name      string `json:"name"`
					Consumers []struct {
						Name    string `json:"name"`
						Pending uint64 `json:"num_pending"`
					} `json:"consumer_detail"`
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		return get("http://"+server.Addr(natstest.PortMonitor)+"/jsz?acc=%24G&consumers=true", &answer)
	})
}
