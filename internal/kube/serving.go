package kube

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/offboard-dev/offboard/internal/kube/admission"
	"github.com/offboard-dev/offboard/internal/kube/admission/certs"
)

// Webhook describes how the admission webhook is served and by which objects the API server finds it.
type Webhook struct {
	// Address is where to listen (host:port).
	Address string
	// Namespace holds the Service that leads to the webhook, and the Secret with its certificate.
	Namespace, Service, Secret string
	// Configuration is the name of the ValidatingWebhookConfiguration, whose caBundle is kept current.
	Configuration string
}

// serveAll adds the servers to the parts.
func (o *operator) serveAll() error {
	return errors.Join(o.addMetrics(), o.addWebhook(), o.addHealth(), o.addProfiling())
}

// addServer serves HTTP on the address, which is that of a flag; "0" means nowhere.
func (o *operator) addServer(name, flag, address string, handler http.Handler) error {
	if address == "0" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %s on %s: %w; name another address with --%s", name, address, err, flag)
	}
	o.Log.Info("serving "+name, "address", listener.Addr().String())
	server := &manager.Server{
		Name: name, Listener: listener, ShutdownTimeout: ptr.To(2 * time.Second),
		Server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
	}
	o.parts = append(o.parts, server.Start)
	return nil
}

// addHealth serves what a kubelet asks.
func (o *operator) addHealth() error {
	o.ready["caches"] = func(*http.Request) error { return o.unread() }
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"ping": healthz.Ping}, "/readyz": o.ready,
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return o.addServer("health checks", "health-probe-bind-address", o.HealthAddress, mux)
}

// addProfiling serves what `go tool pprof` reads.
func (o *operator) addProfiling() error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return o.addServer("profiles", "profiling-bind-address", o.ProfilingAddress, mux)
}

// addMetrics serves the metrics: those of this operator, from a registry of its own, and those of the libraries.
func (o *operator) addMetrics() error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(o.recorder); err != nil {
		return fmt.Errorf("register the metrics: %w", err)
	}
	mux := http.NewServeMux()
	gatherers := prometheus.Gatherers{registry, ctrlmetrics.Registry}
	mux.Handle("/metrics", promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return o.addServer("metrics", "metrics-bind-address", o.MetricsAddress, mux)
}

// addWebhook serves the admission webhook and keeps its certificate.
func (o *operator) addWebhook() error {
	w := o.Webhook
	if w == nil || o.ReleaseAll {
		return nil
	}
	host, portText, err := net.SplitHostPort(w.Address)
	if err != nil {
		return fmt.Errorf("the webhook's address %q is not host:port: %w", w.Address, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("the webhook's address %q has no port number: %w", w.Address, err)
	}
	certificates, err := certs.New(certs.Options{
		Client: o.client, Namespace: w.Namespace, SecretName: w.Secret, ServiceName: w.Service,
		WebhookConfiguration: w.Configuration, Log: o.Log,
	})
	if err != nil {
		return err
	}
	server := webhook.NewServer(webhook.Options{
		Host: host, Port: port, TLSOpts: []func(*tls.Config){certificates.ConfigureTLS},
	})
	server.Register(admission.Path, admission.New(o.TriggerTypes, o.Selector))
	o.parts = append(o.parts, certificates.Start, server.Start)
	o.ready["webhook"] = func(request *http.Request) error {
		if !certificates.Ready() {
			return fmt.Errorf("the webhook has no certificate in Secret %s/%s yet", w.Namespace, w.Secret)
		}
		return server.StartedChecker()(request)
	}
	return nil
}
