package prometheus_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
	"github.com/offboard-dev/offboard/internal/trigger/prometheus"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMeasuresWhatIsScraped(t *testing.T) {
	t.Parallel()
	first, gauge := metrics(t)
	second, _ := metrics(t)
	gauge.Set(7)
	server := start(t, nil, first, second)
	address := "http://" + server.Addr(0)
	made := build(t, httpget.NewClients(), config{
		"serverAddress": address + "/", "query": "sum(tasks_waiting)", "threshold": "2.5", "activationThreshold": "7",
	}, nil)
	for _, test := range []struct {
		value  float64
		active bool
	}{{7, false}, {7.5, true}, {0, false}} {
		gauge.Set(test.value)
		want := trigger.Measurement{Value: test.value, Target: 2.5, Active: test.active}
		var got trigger.Measurement
		var err error
		triggertest.WaitFor(t, "a scrape", func() bool {
			got, err = made.Measure(t.Context())
			return err != nil || got.Value == test.value
		})
		if got != want || err != nil {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}

	triggertest.WaitFor(t, "a scrape of both targets", func() bool {
		got, err := ask(t, address, "count(up)", nil, nil)
		return err == nil && got.Value == 2
	})
	for query, want := range map[string]float64{
		`scalar(vector(2.5))`: 2.5, `vector(-1)`: -1, `count(up{job="test"})`: 2, `1e300`: 1e300, `vector(1e-300)`: 1e-300,
		"vector(\n 4) # + & = ü": 4,
	} {
		got, err := ask(t, address, query, nil, nil)
		if err != nil || got.Value != want || got.Active != (want > 0) || got.Target != 5 {
			t.Errorf("%s: got %+v, %v; want %v", query, got, err, want)
		}
	}
	for _, query := range []string{"no_such_metric", "vector(NaN)", "vector(Inf)", "-Inf", "NaN", "vector(0/0)"} {
		got, err := ask(t, address, query, nil, nil)
		if err != nil || got.Value != 0 || got.Active {
			t.Errorf("%s: got %+v, %v; want 0", query, got, err)
		}
		got, err = ask(t, address, query, config{"ignoreNullValues": "false"}, nil)
		if err == nil || !strings.Contains(err.Error(), "gives no number for the query") {
			t.Errorf("%s, not ignored: got %+v, %v; want an error", query, got, err)
		}
	}
	for query, want := range map[string]string{
		"up":      "gives 2 series for the query; make it one, for example with sum(…)",
		"up[1m]":  "gives a range of values",
		`"words"`: "gives a result that is no number",
		"sum(":    "answers with status 400 Bad Request: bad_data: ",
	} {
		got, err := ask(t, address, query, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "prometheus at "+server.Addr(0)+"/api/v1/query ") {
			t.Errorf("%s: got %+v, %v; want error %q", query, got, err, want)
		}
	}
	if got, err := ask(t, address, "time()", config{"queryParameters": "time=1234, timeout=5s"}, nil); got.Value != 1234 {
		t.Errorf("with queryParameters: got %+v, %v; want 1234", got, err)
	}
	// What is not the API of Prometheus is an error, not a 0.
	if got, err := ask(t, "http://"+first, "up", nil, nil); err == nil {
		t.Errorf("not Prometheus: got %+v, want an error", got)
	}
}

func TestRequestAndAuthentication(t *testing.T) {
	t.Parallel()
	server := start(t, nil)
	var mu sync.Mutex
	var seen *http.Request
	address := guard(t, server, func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		seen = r.Clone(context.Background())
		if secret := r.Header.Get("Authorization") + r.Header.Get("X-Token"); secret != "" && secret != "Bearer canary" &&
			secret != "canary" {
			return http.StatusUnauthorized
		}
		return 0
	})
	got, err := ask(t, address, "vector(1)", config{
		"namespace": "team a", "customHeaders": "X-Scope-OrgID = tenant,X-Other=a=b", "queryParameters": "dedup=true",
	}, nil)
	if err != nil || got.Value != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	query := seen.URL.Query()
	if query.Get("namespace") != "team a" || query.Get("dedup") != "true" || query.Get("query") != "vector(1)" ||
		query.Has("time") || seen.URL.Path != "/api/v1/query" {
		t.Errorf("asked %s", seen.URL)
	}
	if seen.Header.Get("X-Scope-OrgID") != "tenant" || seen.Header.Get("X-Other") != "a=b" {
		t.Errorf("headers %v", seen.Header)
	}
	for _, test := range []struct {
		metadata, auth config
		want           string
	}{
		{config{"authModes": "bearer"}, config{"bearerToken": "canary"}, ""},
		{config{"authModes": "custom"}, config{"customAuthHeader": "X-Token", "customAuthValue": "canary"}, ""},
		{config{"authModes": "bearer"}, config{"bearerToken": "canary-bad"}, "401 Unauthorized; correct authModes"},
		{config{"authModes": "custom"}, config{"customAuthHeader": "X-Token", "customAuthValue": "canary-bad"},
			"401 Unauthorized; correct authModes"},
	} {
		got, err := ask(t, address, "vector(1)", test.metadata, test.auth)
		if test.want == "" && (err != nil || got.Value != 1) {
			t.Errorf("%v: got %+v, %v", test.auth, got, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%v: error %v, want %q", test.auth, err, test.want)
		}
	}
}

func TestPasswordAndTLS(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	server := start(t, certs)
	address := "https://" + server.Addr(0)
	all := config{
		"username": user, "password": password, "ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey,
	}
	without := func(key, value string) config {
		changed := config{}
		for k, v := range all {
			changed[k] = v
		}
		changed[key] = value
		return changed
	}
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"both", config{"authModes": "tls,basic"}, all, ""},
		{"modes from the authentication", nil, without("authModes", "basic, tls"), ""},
		{"any certificate", config{"authModes": "tls,basic", "unsafeSsl": "true"}, without("ca", ""), ""},
		{"unknown authority", config{"authModes": "tls,basic"}, without("ca", ""), "certificate of an unknown authority"},
		{"no client certificate", config{"authModes": "basic"}, all, "client certificate"},
		{"no password", config{"authModes": "tls"}, all, "401 Unauthorized"},
		{"bad password", config{"authModes": "tls,basic"}, without("password", "canary-bad"), "401 Unauthorized"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ask(t, address, "vector(1)", test.metadata, test.auth)
			if test.want == "" && (err != nil || got.Value != 1) {
				t.Errorf("got %+v, %v", got, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) ||
				strings.Contains(err.Error(), "canary")) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	if _, err := ask(t, "http://"+server.Addr(0), "vector(1)", nil, nil); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("without TLS: error %v", err)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	server := start(t, nil)
	proxy := servertest.StartProxy(t, server.Addr(0))
	made := build(t, httpget.NewClients(), config{
		"serverAddress": "http://" + proxy.Addr(), "query": "vector(3)", "threshold": "1", "timeout": "2s",
	}, nil)
	works := func() bool {
		got, err := made.Measure(t.Context())
		return err == nil && got.Value == 3
	}
	if !works() {
		t.Error("no measurement before the outage")
	}
	proxy.Hold()
	if _, err := made.Measure(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dead network: error %v", err)
	}
	proxy.Forward()
	triggertest.WaitFor(t, "a measurement after the network is back", works)
	server.Freeze()
	if _, err := made.Measure(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server: error %v", err)
	}
	server.Thaw()
	triggertest.WaitFor(t, "a measurement after the thaw", works)
	server.Kill()
	if got, err := made.Measure(t.Context()); err == nil {
		t.Errorf("a dead server: %+v", got)
	}
	server.Restart()
	triggertest.WaitFor(t, "a measurement after the restart", works)
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	valid := config{"serverAddress": "http://h", "query": "up", "threshold": "1"}
	for _, test := range []struct{ key, value, want string }{
		{"serverAddress", "", "serverAddress: is required"},
		{"query", "", "query: is required"},
		{"threshold", "", "threshold: is required"},
		{"serverAddress", "h:9090", `serverAddress "h:9090": is not the address of a server`},
		{"serverAddress", "ftp://u:canary@h", "serverAddress: is not the address"},
		{"serverAddress", "http://h?x=1", "serverAddress: holds a query; give queryParameters"},
		{"threshold", "0", "give a number above 0"},
		{"threshold", "-1", "give a number above 0"},
		{"activationThreshold", "much", "is not a number"},
		{"ignoreNullValues", "perhaps", "is not a boolean"},
		{"unsafeSsl", "perhaps", "is not a boolean"},
		{"customHeaders", "X", "is not key=value"},
		{"queryParameters", "x", "is not key=value"},
		{"timeout", "-1s", "is negative"},
		{"authModes", "bearer", "bearerToken: is required"},
	} {
		metadata := config{}
		for key, value := range valid {
			metadata[key] = value
		}
		metadata[test.key] = test.value
		_, err := prometheus.Type(httpget.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s=%s: error %v, want %q", test.key, test.value, err, test.want)
		}
	}
	declared := prometheus.Type(nil)
	valid["awsRegion"], valid["identityOwner"] = "eu-1", "pod"
	findings := declared.Validate(valid, false)
	if len(findings) != 2 || !findings[0].Warning || !findings[1].Warning {
		t.Errorf("findings %v, want two warnings", findings)
	}
	if name := declared.ExternalMetricName(3, trigger.Config{Metadata: valid}); name != "s3-prometheus" {
		t.Errorf("metric name %s", name)
	}
	if got, ok := declared.ThresholdOf(config{"threshold": "2.5", "activationThreshold": "1"}); !ok ||
		got != (trigger.Threshold{Target: 2.5, Activation: 1}) {
		t.Errorf("threshold %+v, %t", got, ok)
	}
}

// BenchmarkMeasure compares a measurement with a bare request of the same query.
func BenchmarkMeasure(b *testing.B) {
	address := "http://" + start(b, nil).Addr(0)
	made := build(b, httpget.NewClients(), config{"serverAddress": address, "query": "vector(1)", "threshold": "1"}, nil)
	get := triggertest.Getter(b)
	triggertest.Compare(b, made, func() error { return get(address+"/api/v1/query?query=vector(1)", nil) })
}
