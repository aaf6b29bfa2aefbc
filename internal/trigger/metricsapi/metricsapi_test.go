package metricsapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
	"github.com/offboard-dev/offboard/internal/trigger/metricsapi"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func serve(tb testing.TB, handler http.HandlerFunc) string {
	tb.Helper()
	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)
	return server.URL
}

// build makes a trigger; a request may take long unless the metadata says otherwise.
func build(tb testing.TB, clients *httpget.Clients, metadata, auth config) trigger.Trigger {
	tb.Helper()
	if metadata["timeout"] == "" {
		metadata["timeout"] = "1m"
	}
	made, err := metricsapi.Type(clients).New(tb.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

func TestMeasuresEveryFormat(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	waiting := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "waiting", Help: "Tasks."}, []string{"queue"})
	registry.MustRegister(waiting)
	waiting.WithLabelValues("mail").Set(2.5)
	waiting.WithLabelValues("video").Set(-1)
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/json":
			_, _ = io.WriteString(w, `{"waiting": {"mail": 2.5, "video": "-1", "audio": "2500m", "secret": "canary"}}`)
		case "/yaml":
			_, _ = io.WriteString(w, "waiting: {mail: 2.5, video: -1, audio: 2500m, nan: .nan, secret: canary}\n")
		case "/xml":
			_, _ = io.WriteString(w, "<waiting><mail>2.5</mail><video>-1</video><audio>2500m</audio></waiting>")
		case "/metrics":
			metrics.ServeHTTP(w, r)
		}
	})
	for _, test := range []struct {
		path, format, location string
		want                   float64
		wrong                  string
	}{
		{"/json", "", "waiting.mail", 2.5, ""},
		{"/json", "json", "waiting.video", -1, ""},
		{"/json", "json", "waiting.audio", 2.5, ""},
		{"/json", "json", "waiting.secret", 0, `what is at valueLocation "waiting.secret" is not a number`},
		{"/json", "json", "waiting.none", 0, "is not there"},
		{"/xml", "json", "waiting.mail", 0, "the document is not of the format json"},
		{"/yaml", "yaml", "waiting.mail", 2.5, ""},
		{"/yaml", "yaml", "waiting.video", -1, ""},
		{"/yaml", "yaml", "waiting.audio", 2.5, ""},
		{"/yaml", "yaml", "waiting.nan", 0, "is NaN, which is no amount of work"},
		{"/yaml", "xml", "waiting.mail", 0, "the document is not of the format xml"},
		{"/xml", "xml", "waiting.mail", 2.5, ""},
		{"/xml", "xml", "waiting.audio", 2.5, ""},
		{"/metrics", "prometheus", `waiting{queue="mail"}`, 2.5, ""},
		{"/metrics", "prometheus", `waiting{queue="video"}`, -1, ""},
		{"/metrics", "prometheus", `waiting{queue="audio"}`, 0, "is not there"},
		{"/json", "prometheus", `waiting{queue="mail"}`, 0, "the document is not of the format prometheus"},
		{"/empty", "json", "waiting", 0, "the document is not of the format json"},
	} {
		made := build(t, httpget.NewClients(), config{
			"url": server + test.path, "format": test.format, "valueLocation": test.location,
			"targetValue": "2.5", "activationTargetValue": "-1",
		}, nil)
		got, err := made.Measure(t.Context())
		if want := (trigger.Measurement{Value: test.want, Target: 2.5, Active: test.want > -1}); test.wrong == "" &&
			(err != nil || got != want) {
			t.Errorf("%s: got %+v, %v; want %+v", test.location, got, err, want)
		}
		if test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong) ||
			!strings.Contains(err.Error(), test.path) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s of %s: error %v, want %q", test.location, test.path, err, test.wrong)
		}
	}
}

func TestAuthenticates(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		for _, shown := range []string{
			user + password, r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), r.URL.Query().Get("api_key"),
		} {
			if strings.HasSuffix(shown, "canary") && r.URL.Query().Get("kept") == "yes" {
				_, _ = io.WriteString(w, `{"v": 1}`)
				return
			}
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, r.Header, r.URL)
	})
	for name, auth := range map[string]config{
		"basic":  {"authMode": "basic", "username": "u", "password": "canary"},
		"bearer": {"authMode": "bearer", "token": "canary"},
		"header": {"authMode": "apiKey", "apiKey": "canary"},
		"query":  {"authMode": "apiKey", "method": "query", "apiKey": "canary"},
	} {
		for _, suffix := range []string{"", "-bad"} {
			with := config{}
			for key, value := range auth {
				with[key] = strings.ReplaceAll(value, "canary", "canary"+suffix)
			}
			metadata := config{"url": server + "/d?kept=yes", "valueLocation": "v", "targetValue": "1"}
			got, err := build(t, httpget.NewClients(), metadata, with).Measure(t.Context())
			if suffix == "" && (err != nil || got.Value != 1) {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
			if suffix != "" && (err == nil || !strings.Contains(err.Error(), "401 Unauthorized; correct authModes") ||
				strings.Contains(err.Error(), "canary")) {
				t.Errorf("%s, bad: error %v", name, err)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"certificates": %d}`, len(r.TLS.PeerCertificates))
	}))
	server.TLS = certs.ServerConfig(t)
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, test := range []struct {
		unsafe string
		auth   config
		want   string
	}{
		{"false", config{"authMode": "tls", "ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}, "1"},
		{"true", nil, "0"},
		{"false", nil, "certificate of an unknown authority"},
	} {
		got, err := build(t, httpget.NewClients(), config{
			"url": server.URL, "valueLocation": "certificates", "targetValue": "1", "unsafeSsl": test.unsafe,
		}, test.auth).Measure(t.Context())
		if text := fmt.Sprint(got.Value, err); !strings.Contains(text, test.want) {
			t.Errorf("got %s, want %s", text, test.want)
		}
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if code := int(status.Load()); code != 0 {
			w.WriteHeader(code)
		}
		_, _ = io.WriteString(w, `{"v": 3}`)
	})
	proxy := servertest.StartProxy(t, strings.TrimPrefix(server, "http://"))
	clients := httpget.NewClients()
	metadata := config{"url": "http://" + proxy.Addr(), "valueLocation": "v", "targetValue": "1", "timeout": "2s"}
	made := build(t, clients, metadata, nil)
	works := func(when string) {
		t.Helper()
		for deadline := time.Now().Add(triggertest.Patience); ; time.Sleep(10 * time.Millisecond) {
			got, err := made.Measure(t.Context())
			if err == nil && got.Value == 3 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v, %v", when, got, err)
			}
		}
	}
	works("before the outage")
	// A connection on which an answer is late is not used any more.
	triggertest.WaitFor(t, "the measurement of another trigger", func() bool {
		works("before the measurement of another trigger")
		before := proxy.Opened()
		_, err := build(t, clients, metadata, nil).Measure(t.Context())
		if errors.Is(err, context.DeadlineExceeded) {
			return false
		}
		if err != nil || proxy.Opened() != before {
			t.Errorf("two triggers made %d connections, %v; want %d", proxy.Opened(), err, before)
		}
		return true
	})
	proxy.Hold()
	if _, err := made.Measure(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dead network: error %v", err)
	}
	proxy.Forward()
	works("after the network is back")
	proxy.Cut()
	works("after the connections were cut")
	status.Store(http.StatusServiceUnavailable)
	if got, err := made.Measure(t.Context()); err == nil || !strings.Contains(err.Error(), "status 503") {
		t.Errorf("a failing server: %+v, %v", got, err)
	}
	status.Store(0)
	works("after the server is back")
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ key, value, want string }{
		{"url", "", "url: is required"},
		{"url", "h/x", `url "h/x": is not the address`},
		{"valueLocation", "", "valueLocation: is required"},
		{"targetValue", "", "targetValue: is required"},
		{"targetValue", "0", "give a number above 0"},
		{"activationTargetValue", "x", "is not a number"},
		{"format", "csv", `format "csv": is not allowed; give prometheus or json or xml or yaml`},
		{"aggregationType", "median", `aggregationType "median": is not allowed`},
		{"aggregateFromKubeServiceEndpoints", "true", `url "h": names no Service`},
		{"aggregateFromKubeServiceEndpoints", "yes", "is not a boolean"},
		{"unsafeSsl", "x", "is not a boolean"},
		{"timeout", "x", "is not a length of time"},
		{"authMode", "basic", "username: is required by authMode basic"},
	} {
		metadata := config{"url": "http://h", "valueLocation": "v", "targetValue": "1"}
		metadata[test.key] = test.value
		_, err := metricsapi.Type(httpget.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: error %v, want %q", test.key, test.value, err, test.want)
		}
	}
	selector := config{"url": "http://h", "valueLocation": "sum(x)", "targetValue": "1", "format": "prometheus"}
	findings := metricsapi.Type(nil).Validate(selector, false)
	if len(findings) != 1 || !strings.HasPrefix(findings[0].Error(), `valueLocation "sum(x)": is not a metric`) {
		t.Errorf("findings %v", findings)
	}
	metadata := config{"valueLocation": "a.b", "targetValue": "2.5", "activationTargetValue": "1"}
	if name := metricsapi.Type(nil).ExternalMetricName(1, trigger.Config{Metadata: metadata}); name != "s1-metric-api-a-b" {
		t.Errorf("metric name %s", name)
	}
	if got, _ := metricsapi.Type(nil).ThresholdOf(metadata); got != (trigger.Threshold{Target: 2.5, Activation: 1}) {
		t.Errorf("threshold %+v", got)
	}
}

// BenchmarkMeasure compares a measurement with a bare request of the same document.
func BenchmarkMeasure(b *testing.B) {
	server := serve(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"v": 3}`) })
	made := build(b, httpget.NewClients(), config{"url": server, "valueLocation": "v", "targetValue": "1"}, nil)
	get := triggertest.Getter(b)
	triggertest.Compare(b, made, func() error { return get(server, nil) })
}
