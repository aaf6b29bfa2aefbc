package nsq_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/nsq"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// client asks the servers outside the trigger; it keeps no connections.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

// ready waits for the line that the program writes, and for an answer at its HTTP address.
func ready(ctx context.Context, p *servertest.Process) error {
	if !strings.Contains(p.Log(), "HTTP: listening on") {
		return errors.New("it is not up")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr(0)+"/ping", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// startLookupd starts an nsqlookupd: HTTP at its port 0, nsqds at its port 1.
func startLookupd(tb testing.TB) *servertest.Process {
	tb.Helper()
	return servertest.Start(tb, "", servertest.Program{
		Name: servertest.Tool(tb, "nsqlookupd"), Ports: 2, Ready: ready,
		Args: func(p *servertest.Process) ([]string, error) {
			return []string{"-http-address", p.Addr(0), "-tcp-address", p.Addr(1), "-broadcast-address", "127.0.0.1"}, nil
		},
	})
}

// startNsqd starts an nsqd that keeps its messages over a restart: HTTP at its port 0, consumers at its port 1, HTTPS at
// its port 2.
func startNsqd(tb testing.TB, lookupds []*servertest.Process, args ...string) *servertest.Process {
	tb.Helper()
	folder := tb.TempDir()
	certs := servertest.NewCerts(tb, folder)
	return servertest.Start(tb, folder, servertest.Program{
		Name: servertest.Tool(tb, "nsqd"), Ports: 3, Ready: ready,
		Args: func(p *servertest.Process) ([]string, error) {
			all := []string{
				"-http-address", p.Addr(0), "-tcp-address", p.Addr(1), "-https-address", p.Addr(2),
				"-tls-cert", certs.ServerCertFile, "-tls-key", certs.ServerKeyFile, "-tls-required=tcp-https",
				"-broadcast-address", "127.0.0.1", "-data-path", p.Folder(), "-mem-queue-size", "0", "-sync-every", "1",
			}
			for _, lookupd := range lookupds {
				all = append(all, "-lookupd-tcp-address", lookupd.Addr(1))
			}
			if slices.Contains(args, "https") {
				all = append(all, "-broadcast-http-port", strconv.Itoa(p.Port(2)))
			}
			return all, nil
		},
	})
}

// post sends a command to an nsqd.
func post(tb testing.TB, nsqd *servertest.Process, path, body string) {
	tb.Helper()
	answer, err := client.Post("http://"+nsqd.Addr(0)+path, "", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		tb.Fatalf("%s: status %d", path, answer.StatusCode)
	}
}

// publish sends messages to the topic.
func publish(tb testing.TB, nsqd *servertest.Process, topic string, count int) {
	tb.Helper()
	post(tb, nsqd, "/mpub?topic="+topic, strings.Repeat("message\n", count))
}

// registered waits until the nsqlookupd names that many nsqds for the topic.
func registered(tb testing.TB, lookupd *servertest.Process, topic string, count int) {
	tb.Helper()
	eventually(tb, "the topic at nsqlookupd", func() bool {
		answer, err := client.Get("http://" + lookupd.Addr(0) + "/lookup?topic=" + topic)
		if err != nil {
			return false
		}
		defer func() { _ = answer.Body.Close() }()
		content, err := io.ReadAll(answer.Body)
		return err == nil && strings.Count(string(content), "broadcast_address") == count
	})
}

// eventually waits until something holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(triggertest.Patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v", what, triggertest.Patience)
		}
	}
}

// open makes a trigger, closed with the test.
func open(tb testing.TB, clients *nsq.Clients, metadata config, env config) trigger.Trigger {
	tb.Helper()
	made, err := nsq.Type(clients).New(tb.Context(), trigger.Config{Metadata: metadata, Env: env})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

// becomes waits until the trigger measures the depth: nsqd puts messages into channels in the background.
func becomes(tb testing.TB, made trigger.Trigger, want float64) {
	tb.Helper()
	var got trigger.Measurement
	var err error
	defer func() {
		if tb.Failed() {
			tb.Errorf("measured %v, error %v, want %v", got.Value, err, want)
		}
	}()
	eventually(tb, "the depth", func() bool {
		got, err = made.Measure(tb.Context())
		return err == nil && got.Value == want
	})
}

// on returns the metadata of a channel.
func on(lookupds, topic, channel string) config {
	return config{"nsqLookupdHTTPAddresses": lookupds, "topic": topic, "channel": channel}
}

// TestMeasure has two nsqlookupds and three nsqds, of which the second nsqlookupd knows two.
func TestMeasure(t *testing.T) {
	t.Parallel()
	first, second := startLookupd(t), startLookupd(t)
	both := []*servertest.Process{first, second}
	one, two, three := startNsqd(t, both), startNsqd(t, both), startNsqd(t, both[:1])
	lookupds := first.Addr(0) + ", " + second.Addr(0)
	clients := nsq.NewClients()

	none := open(t, clients, on(lookupds, "none", "work"), nil)
	if got := triggertest.Measure(t, none); got != (trigger.Measurement{Target: 10}) {
		t.Errorf("measured %+v of a topic that nobody knows, want nothing", got)
	}

	publish(t, one, "jobs", 3)
	publish(t, two, "jobs", 4)
	registered(t, first, "jobs", 2)
	registered(t, second, "jobs", 2)
	jobs := open(t, clients, on(lookupds, "jobs", "work"), nil)
	becomes(t, jobs, 7) // no channel yet
	post(t, one, "/channel/create?topic=jobs&channel=other", "")
	becomes(t, open(t, clients, on(lookupds, "jobs", "other"), nil), 7) // 3 in the channel, 4 in the other nsqd's topic
	becomes(t, jobs, 4)                                                 // another channel has the topic's messages of the first
	post(t, two, "/channel/create?topic=jobs&channel=work", "")
	becomes(t, jobs, 4)
	publish(t, one, "jobs", 2)
	becomes(t, jobs, 4)
	post(t, one, "/channel/create?topic=jobs&channel=work", "")
	publish(t, one, "jobs", 5)
	becomes(t, jobs, 9)
	publish(t, three, "jobs", 1) // known to the first nsqlookupd alone
	registered(t, first, "jobs", 3)
	becomes(t, jobs, 10)
	becomes(t, open(t, clients, on(second.Addr(0), "jobs", "work"), nil), 9)
	post(t, two, "/channel/pause?topic=jobs&channel=work", "")
	becomes(t, jobs, 6)
	post(t, two, "/channel/unpause?topic=jobs&channel=work", "")
	becomes(t, jobs, 10)

	for _, test := range []struct {
		name       string
		extra, env config
		want       trigger.Measurement
	}{
		{"defaults", nil, nil, trigger.Measurement{Value: 10, Target: 10, Active: true}},
		{"depthThreshold", config{"depthThreshold": "3"}, nil, trigger.Measurement{Value: 10, Target: 3, Active: true}},
		{"at the activation depth", config{"activationDepthThreshold": "10"}, nil, trigger.Measurement{Value: 10, Target: 10}},
		{"above the activation depth", config{"activationDepthThreshold": "9"}, nil,
			trigger.Measurement{Value: 10, Target: 10, Active: true}},
		{"unsafeSsl without HTTPS", config{"unsafeSsl": "true"}, nil, trigger.Measurement{Value: 10, Target: 10, Active: true}},
		{"from env",
			config{
				"nsqLookupdHTTPAddresses": "", "nsqLookupdHTTPAddressesFromEnv": "L", "topic": "", "topicFromEnv": "T",
				"channel": "", "channelFromEnv": "C", "depthThresholdFromEnv": "D", "activationDepthThresholdFromEnv": "A",
				"useHttpsFromEnv": "H", "unsafeSslFromEnv": "U",
			},
			config{"L": lookupds, "T": "jobs", "C": "work", "D": "4", "A": "11", "H": "false", "U": "true"},
			trigger.Measurement{Value: 10, Target: 4}},
	} {
		metadata := on(lookupds, "jobs", "work")
		for key, value := range test.extra {
			metadata[key] = value
		}
		if got := triggertest.Measure(t, open(t, clients, metadata, test.env)); got != test.want {
			t.Errorf("%s: measured %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	lookupd := startLookupd(t)
	nsqd := startNsqd(t, []*servertest.Process{lookupd}, "https")
	publish(t, nsqd, "jobs", 3)
	registered(t, lookupd, "jobs", 1)
	// nsqlookupd has no HTTPS of its own: a proxy in front of it has.
	certs := servertest.NewCerts(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(certs.ServerCertFile, certs.ServerKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: lookupd.Addr(0)})
	forward.Transport = client.Transport
	front := httptest.NewUnstartedServer(forward)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.StartTLS()
	t.Cleanup(front.Close)
	address := strings.TrimPrefix(front.URL, "https://")

	clients := nsq.NewClients()
	metadata := on(address, "jobs", "work")
	metadata["useHttps"] = "true"
	triggertest.Fails(t, open(t, clients, metadata, nil), "nsqlookupd at "+address+" shows a certificate of an unknown authority", "secret")
	metadata["unsafeSsl"] = "true"
	becomes(t, open(t, clients, metadata, nil), 3)
	metadata["nsqLookupdHTTPAddresses"] = lookupd.Addr(0)
	triggertest.Fails(t, open(t, clients, metadata, nil), "nsqlookupd at "+lookupd.Addr(0)+" speaks no TLS on this port", "secret")
	triggertest.Fails(t, open(t, clients, on(lookupd.Addr(0), "jobs", "work"), nil),
		"nsqd at "+nsqd.Addr(2)+" answers with status 400", "secret") // HTTP to nsqd's port for HTTPS
}

func TestOutages(t *testing.T) {
	t.Parallel()
	lookupd := startLookupd(t)
	nsqd := startNsqd(t, []*servertest.Process{lookupd})
	publish(t, nsqd, "jobs", 3)
	registered(t, lookupd, "jobs", 1)
	made := open(t, nsq.NewClients(), on(lookupd.Addr(0), "jobs", "work"), nil)
	becomes(t, made, 3)

	nsqd.Freeze()
	triggertest.Fails(t, made, "nsqd at "+nsqd.Addr(0)+" does not answer in time", "secret")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := made.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v of a measurement that is given up, want %v", err, context.Canceled)
	}
	nsqd.Thaw()
	becomes(t, made, 3)

	nsqd.Kill()
	// As long as nsqlookupd names it, nobody knows what it holds; nsqlookupd notices the end of its connection.
	eventually(t, "the end of nsqd", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 0 || err != nil && strings.Contains(err.Error(), "is not reachable")
	})
	nsqd.Restart()
	becomes(t, made, 3)

	lookupd.Kill()
	triggertest.Fails(t, made, "nsqlookupd at "+lookupd.Addr(0)+" is not reachable", "secret")
	two := open(t, nsq.NewClients(), on("127.0.0.1:1,"+lookupd.Addr(0), "jobs", "work"), nil)
	lookupd.Restart()
	nsqd.Stop()
	nsqd.Restart() // it registers again at once then, else within 15 seconds
	becomes(t, made, 3)
	triggertest.Fails(t, two, "nsqlookupd at 127.0.0.1:1 is not reachable", "secret")
}

func TestForeignServers(t *testing.T) {
	t.Parallel()
	serve := func(status int, header, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set("Location", header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	producer := func(address string) string {
		host, port, _ := strings.Cut(address, ":")
		return fmt.Sprintf(`{"channels": [], "producers": [{"broadcast_address": %q, "http_port": %s}]}`, host, port)
	}
	for _, test := range []struct{ name, address, want string }{
		{"a page", serve(200, "", "<html>secret"), "does not answer as nsqlookupd does"},
		{"other JSON", serve(200, "", `{"secret": 1}`), "does not answer as nsqlookupd does"},
		{"no page", serve(404, "", "secret"), "answers with status 404"},
		{"a failure", serve(500, "", "secret"), "answers with status 500"},
		{"a redirection", serve(302, "http://127.0.0.1:1/secret", ""), "answers with status 302"},
		{"much", serve(200, "", strings.Repeat("[", 17<<20)), "answers with more than 16777216 bytes"},
		{"deep", serve(200, "", strings.Repeat("[", 1<<20)), "does not answer as nsqlookupd does"},
		{"an nsqd that is none", serve(200, "", producer(serve(200, "", `{"topics": [], "secret": 1}`))),
			"does not answer as nsqd does"},
		{"an nsqd without a topic", serve(200, "", producer(serve(404, "", "TOPIC_NOT_FOUND secret"))), "nsqd at"},
		{"an nsqd without an address", serve(200, "", producer("secret/:80")), "names an nsqd without an address"},
		{"an nsqd without a port", serve(200, "", producer("a:0")), "names an nsqd without an address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			triggertest.Fails(t, open(t, nsq.NewClients(), on(test.address, "jobs", "work"), nil), test.want, "secret")
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		extra, env config
		want       string
	}{
		{"no address", config{"nsqLookupdHTTPAddresses": ""}, nil, "nsqLookupdHTTPAddresses: is required"},
		{"commas alone", config{"nsqLookupdHTTPAddresses": ",,"}, nil, "nsqLookupdHTTPAddresses: holds no address"},
		{"a URL", config{"nsqLookupdHTTPAddresses": "http://a:1"}, nil, `nsqLookupdHTTPAddresses "http://a:1": is a URL`},
		{"a path", config{"nsqLookupdHTTPAddresses": "a:1,b:1/x"}, nil, `nsqLookupdHTTPAddresses "b:1/x": is not an address`},
		{"credentials", config{"nsqLookupdHTTPAddresses": "u:secret@a:1"}, nil, `nsqLookupdHTTPAddresses: is not an address`},
		{"no host", config{"nsqLookupdHTTPAddresses": ":4161"}, nil, `nsqLookupdHTTPAddresses ":4161": is not an address`},
		{"no port number", config{"nsqLookupdHTTPAddresses": "a:x"}, nil, `nsqLookupdHTTPAddresses "a:x": is not an address`},
		{"from env", config{"nsqLookupdHTTPAddresses": "", "nsqLookupdHTTPAddressesFromEnv": "L"}, config{"L": "http://secret"},
			"nsqLookupdHTTPAddresses: is a URL"},
		{"no topic", config{"topic": ""}, nil, "topic: is required"},
		{"topic", config{"topic": "a b"}, nil, `topic "a b": is not the name of a topic`},
		{"long topic", config{"topic": strings.Repeat("a", 65)}, nil, "is not the name of a topic"},
		{"no channel", config{"channel": ""}, nil, "channel: is required"},
		{"channel", config{"channel": "a#b"}, nil, `channel "a#b": is not the name of a channel`},
		{"depth zero", config{"depthThreshold": "0"}, nil, `depthThreshold "0": is too small; give at least 1`},
		{"depth no number", config{"depthThreshold": "0.5"}, nil, `depthThreshold "0.5": is not a whole number`},
		{"activation", config{"activationDepthThreshold": "-1"}, nil, `activationDepthThreshold "-1": is too small`},
		{"useHttps", config{"useHttps": "on"}, nil, `useHttps "on": is not a boolean`},
		{"unsafeSsl", config{"unsafeSsl": "on"}, nil, `unsafeSsl "on": is not a boolean`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := on("127.0.0.1:4161", "jobs", "work")
			for key, value := range test.extra {
				metadata[key] = value
			}
			made, err := nsq.Type(nsq.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata, Env: test.env})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q, want %q", err, test.want)
			}
		})
	}
	findings := nsq.Type(nsq.NewClients()).Validate(config{
		"nsqLookupdHTTPAddresses": "a:4161,[::1]:4161", "topic": "jobs#ephemeral", "channel": "c", "unsafeSsl": "true",
	}, false)
	if len(findings) != 1 || !findings[0].Warning || findings[0].Key != "unsafeSsl" {
		t.Errorf("findings %v, want a warning of unsafeSsl", findings)
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	name := nsq.Type(nsq.NewClients()).ExternalMetricName(1, trigger.Config{Metadata: on("a:1", "t.a", "c")})
	if want := "s1-nsq-t-a-c"; name != want {
		t.Errorf("metric name %q, want %q", name, want)
	}
}

func TestConnectionsAreShared(t *testing.T) {
	t.Parallel()
	lookupd := startLookupd(t)
	proxy := servertest.StartProxy(t, lookupd.Addr(0))
	clients := nsq.NewClients()
	var all []trigger.Trigger
	for i := range 10 {
		all = append(all, open(t, clients, on(proxy.Addr(), fmt.Sprint("topic", i), "work"), nil))
	}
	if proxy.Opened() != 0 {
		t.Errorf("making a trigger connects: %d connections", proxy.Opened())
	}
	for _, made := range all {
		triggertest.Measure(t, made)
	}
	if proxy.Opened() != 1 || clients.Connections() != 1 {
		t.Errorf("%d connections are opened by %d clients, want 1", proxy.Opened(), clients.Connections())
	}
	var measuring sync.WaitGroup
	for _, made := range all {
		measuring.Go(func() {
			if _, err := made.Measure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	measuring.Wait()
	for _, made := range all {
		made.Close()
	}
	if clients.Connections() != 0 {
		t.Errorf("%d clients are kept, want none", clients.Connections())
	}
}

func FuzzDepth(f *testing.F) {
	f.Add([]byte(`{"version": "1.3.0", "topics": [{"topic_name": "t", "depth": 3, "channels": []}]}`))
	f.Add([]byte(`{"version": "1.3.0", "topics": [{"topic_name": "t", "channels": [{"channel_name": "c", "depth": -1}]}]}`))
	f.Add([]byte(`{"version": "1", "topics": null}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if depth, complete := nsq.Depth(content, "t", "c"); depth < 0 || !complete && depth != 0 {
			t.Errorf("depth %d, complete %t", depth, complete)
		}
	})
}

// BenchmarkMeasure measures a reading next to the two questions that it asks, asked with Go's client.
func BenchmarkMeasure(b *testing.B) {
	lookupd := startLookupd(b)
	nsqd := startNsqd(b, []*servertest.Process{lookupd})
	publish(b, nsqd, "jobs", 3)
	registered(b, lookupd, "jobs", 1)
	made := open(b, nsq.NewClients(), on(lookupd.Addr(0), "jobs", "work"), nil)
	get := triggertest.Getter(b)
	triggertest.Compare(b, made, func() error {
		var found struct {
			Producers []struct {
				Address string `json:"broadcast_address"`
				Port    int    `json:"http_port"`
			} `json:"producers"`
		}
		var stats struct {
			Topics []struct {
				Depth int64 `json:"depth"`
			} `json:"topics"`
		}
		return errors.Join(
			get("http://"+lookupd.Addr(0)+"/lookup?topic=jobs", &found),
			get("http://"+nsqd.Addr(0)+"/stats?format=json&topic=jobs&include_clients=false&include_mem=false", &stats),
		)
	})
}
