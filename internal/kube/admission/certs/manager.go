// Package certs makes, shares and rotates the certificates that the webhook serves with.
//
// All replicas of the operator share one Secret, which holds a certificate authority and a serving certificate that it
// signed. Whichever replica finds that something in it is missing, broken or old puts it right; the API server's
// optimistic concurrency makes the others take over what the first one wrote. Every replica copies the authority into
// the ValidatingWebhookConfiguration and serves with the certificate, without a restart.
//
// Rotation leaves no gap. A new serving certificate of the same authority is trusted already. A new authority is first
// added to what the API server trusts, and signs a serving certificate only when it has had time to become known; the
// old authority stays trusted until it expires.
//
// The package reads and writes these two objects by name and nothing else: it lists nothing, watches nothing and uses
// no cache. In the namespace of the Secret it needs the verbs create on secrets, and get and update on that one; and in
// the cluster get and patch on the one configuration. Deleting or emptying the Secret is the way to revoke what is in
// it: then everything is made anew, and the old authority is no longer trusted.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// pollInterval is the time between two looks at the Secret and the webhook configuration, on average.
	pollInterval = time.Minute
	// settleTime is how long a new authority is only trusted before it signs: many polls, in which every replica sees
	// it and the API servers hear of it.
	settleTime = 15 * time.Minute
	// firstRetry is the pause after a failure; it doubles up to pollInterval.
	firstRetry = time.Second
	// syncTimeout bounds one look at the objects.
	syncTimeout = 30 * time.Second
	// maxConflicts is how often a look starts again because another replica was quicker.
	maxConflicts = 10
)

// Options say which objects a Manager looks after. The objects' names and at least one host are required.
type Options struct {
	// Client reads and writes the two objects. Its reads must not come from a cache, which would need the permission to
	// list and watch all Secrets: make it with client.New.
	Client client.Client
	// Namespace and SecretName name the Secret. It is made where it does not exist.
	Namespace, SecretName string
	// ServiceName is the Service in Namespace through which API servers reach the webhook; empty when they use a URL.
	ServiceName string
	// WebhookConfiguration is the name of the ValidatingWebhookConfiguration whose caBundle fields are filled. It is not
	// made where it does not exist; the certificates are kept all the same.
	WebhookConfiguration string
	// Hosts are further DNS names and IP addresses that the certificate is for.
	Hosts []string
	// Clock tells the time; default: the system's.
	Clock clock.Clock
	// Log is told of certificates that are made and of what fails; default slog.Default.
	Log *slog.Logger
}

// Manager keeps the certificates. It is a runnable of controller-runtime's manager.
type Manager struct {
	opts  Options
	hosts []string
	issue issuer

	serving atomic.Pointer[tls.Certificate]

	// Only Start's goroutine uses these.
	lastError     string
	configMissing bool
}

// New returns a Manager, or an error that names the option that is missing.
func New(opts Options) (*Manager, error) {
	for _, required := range []struct{ name, value string }{
		{"Namespace", opts.Namespace}, {"SecretName", opts.SecretName},
		{"WebhookConfiguration", opts.WebhookConfiguration},
	} {
		if required.value == "" {
			return nil, fmt.Errorf("certs: option %s is empty", required.name)
		}
	}
	if opts.Client == nil {
		return nil, errors.New("certs: option Client is nil")
	}
	hosts := opts.Hosts
	if opts.ServiceName != "" {
		// The name that API servers ask for, whatever the domain of the cluster is.
		hosts = append([]string{opts.ServiceName + "." + opts.Namespace + ".svc"}, hosts...)
	}
	if len(hosts) == 0 {
		return nil, errors.New("certs: a certificate needs a host: give ServiceName or Hosts")
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Manager{opts: opts, hosts: hosts, issue: issuer{hosts: hosts}}, nil
}

// NeedLeaderElection tells controller-runtime that every replica runs this, since every replica serves the webhook.
func (*Manager) NeedLeaderElection() bool { return false }

// Ready tells whether there is a certificate to serve with.
func (m *Manager) Ready() bool { return m.serving.Load() != nil }

// GetCertificate returns the current certificate, for tls.Config. It fails until the Manager is Ready.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if certificate := m.serving.Load(); certificate != nil {
		return certificate, nil
	}
	return nil, fmt.Errorf("there is no certificate in Secret %s/%s yet", m.opts.Namespace, m.opts.SecretName)
}

// ConfigureTLS makes a server use the current certificate; it is one of webhook.Options' TLSOpts.
func (m *Manager) ConfigureTLS(config *tls.Config) {
	config.MinVersion = tls.VersionTLS12
	config.GetCertificate = m.GetCertificate
}

// Start keeps the certificates until the context ends, and returns nil then. What fails is logged once and tried again;
// the last good certificate stays in use.
func (m *Manager) Start(ctx context.Context) error {
	retry := firstRetry
	for {
		err := m.sync(ctx)
		if ctx.Err() != nil {
			return nil
		}
		pause := pollInterval
		if err != nil {
			pause, retry = retry, min(2*retry, pollInterval)
		} else {
			retry = firstRetry
		}
		m.report(err)
		// Replicas that were started together should not go on asking together.
		pause = pause*9/10 + rand.N(pause/5)
		timer := m.opts.Clock.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
	}
}

// report logs an error when it is news.
func (m *Manager) report(err error) {
	if err == nil {
		m.lastError = ""
		return
	}
	if m.lastError != err.Error() {
		m.lastError = err.Error()
		m.opts.Log.Warn("cannot keep the webhook's certificate; trying again", "error", err)
	}
}
