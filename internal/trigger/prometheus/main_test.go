package prometheus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
	"github.com/offboard-dev/offboard/internal/trigger/prometheus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// Credentials of a server that has them.
const (
	user     = "reader"
	password = "canary-password"
)

// start starts a Prometheus server that scrapes the targets. With certificates it speaks TLS, requires a client's
// certificate and asks for a password.
func start(tb testing.TB, certs *servertest.Certs, targets ...string) *servertest.Process {
	tb.Helper()
	return servertest.Start(tb, "", servertest.Program{
		Name: "prometheus", Ports: 1,
		Args: func(p *servertest.Process) ([]string, error) {
			quoted := strings.Join(targets, `", "`)
			if len(targets) > 0 {
				quoted = `"` + quoted + `"`
			}
			if err := p.Write("prometheus.yml", fmt.Sprintf(
				"global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"+
					"scrape_configs: [{job_name: test, static_configs: [{targets: [%s]}]}]\n", quoted)); err != nil {
				return nil, err
			}
			args := []string{
				"--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=" + p.Addr(0),
			}
			if certs == nil {
				return args, nil
			}
			hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
			if err != nil {
				return nil, err
			}
			return append(args, "--web.config.file=web.yml"), p.Write("web.yml", fmt.Sprintf(
				"tls_server_config: {cert_file: %q, key_file: %q, client_ca_file: %q, "+
					"client_auth_type: RequireAndVerifyClientCert}\nbasic_auth_users: {%s: %q}\n",
				certs.ServerCertFile, certs.ServerKeyFile, certs.CAFile, user, hash))
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "Server is ready to receive web requests") {
				return errors.New("it is not up")
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr(0))
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
}

// metrics serves a gauge tasks_waiting and a counter, as an application does, and returns host:port and the gauge.
func metrics(tb testing.TB) (string, client.Gauge) {
	tb.Helper()
	registry := client.NewRegistry()
	gauge := client.NewGauge(client.GaugeOpts{Name: "tasks_waiting", Help: "Tasks."})
	registry.MustRegister(gauge)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	tb.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), gauge
}

// guard is a proxy to the server that looks at each request first, and may refuse it by a status that is not 0.
func guard(tb testing.TB, server *servertest.Process, look func(r *http.Request) (status int)) string {
	tb.Helper()
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Addr(0)})
	transport := &http.Transport{}
	pass.Transport = transport
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := look(r); status != 0 {
			w.WriteHeader(status)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	tb.Cleanup(func() { front.Close(); transport.CloseIdleConnections() })
	return front.URL
}

// build makes a trigger; a request may take long unless the metadata says otherwise.
func build(tb testing.TB, clients *httpget.Clients, metadata, auth config) trigger.Trigger {
	tb.Helper()
	if metadata["timeout"] == "" {
		metadata["timeout"] = "1m"
	}
	made, err := prometheus.Type(clients).New(tb.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

// ask measures a query once.
func ask(tb testing.TB, server, query string, more, auth config) (trigger.Measurement, error) {
	tb.Helper()
	metadata := config{"serverAddress": server, "query": query, "threshold": "5"}
	for key, value := range more {
		metadata[key] = value
	}
	return build(tb, httpget.NewClients(), metadata, auth).Measure(tb.Context())
}
