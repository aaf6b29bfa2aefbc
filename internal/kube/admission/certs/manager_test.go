package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const (
	namespace  = "offboard"
	secretName = "offboard-webhook"
	configName = "offboard"
	host       = "offboard.offboard.svc"
)

var (
	start     = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	secretKey = types.NamespacedName{Namespace: namespace, Name: secretName}
)

// newConfiguration has two webhooks, one with a bundle that nobody knows.
func newConfiguration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: configName},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{
			{Name: "a.offboard.dev"},
			{Name: "b.offboard.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: []byte("old")}},
		},
	}
}

// watched is a manager with what it logs.
type watched struct {
	*Manager
	log *lines
}

func newManager(t *testing.T, c client.Client, clock *clocktesting.FakeClock) watched {
	t.Helper()
	log := &lines{}
	manager, err := New(Options{Client: c, Namespace: namespace, SecretName: secretName, ServiceName: "offboard",
		WebhookConfiguration: configName, Hosts: []string{"127.0.0.1"}, Clock: clock,
		Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return watched{manager, log}
}

// lines keeps a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// bundle returns what the API server trusts now.
func bundle(t *testing.T, c client.Client) []byte {
	t.Helper()
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := c.Get(t.Context(), types.NamespacedName{Name: configName}, config); err != nil {
		t.Fatal(err)
	}
	for _, hook := range config.Webhooks[1:] {
		if !bytes.Equal(hook.ClientConfig.CABundle, config.Webhooks[0].ClientConfig.CABundle) {
			t.Fatalf("webhook %s has another bundle than %s", hook.Name, config.Webhooks[0].Name)
		}
	}
	return config.Webhooks[0].ClientConfig.CABundle
}

func secret(t *testing.T, c client.Client) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := c.Get(t.Context(), secretKey, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// handshake connects as an API server that trusts the bundle does, in memory.
func handshake(m *Manager, bundle []byte, now time.Time) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle holds no certificate")
	}
	there, here := net.Pipe()
	served := make(chan error, 1)
	serverConfig := &tls.Config{Time: func() time.Time { return now }}
	m.ConfigureTLS(serverConfig)
	go func() {
		defer there.Close()
		served <- tls.Server(there, serverConfig).Handshake()
	}()
	connection := tls.Client(here, &tls.Config{RootCAs: pool, ServerName: host, Time: serverConfig.Time})
	err := connection.Handshake()
	if err == nil {
		_, err = io.Copy(io.Discard, connection) // until the other end closes, which ends its handshake in order
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
			err = nil
		}
	}
	here.Close()
	return errors.Join(err, ignorePipe(<-served, err))
}

// ignorePipe leaves away that the client hung up, of which the client has said why.
func ignorePipe(err, client error) error {
	if client != nil || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

func TestFirstStart(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
	clock := clocktesting.NewFakeClock(start)
	m := newManager(t, c, clock)
	if m.Ready() {
		t.Error("ready before there is a certificate")
	}
	if _, err := m.GetCertificate(nil); err == nil || !strings.Contains(err.Error(), "offboard/offboard-webhook") {
		t.Errorf("without a certificate: %v", err)
	}
	if err := m.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !m.Ready() {
		t.Error("not ready")
	}
	if err := handshake(m.Manager, bundle(t, c), start); err != nil {
		t.Error(err)
	}
	leaf := m.serving.Load().Leaf
	for _, name := range []string{host, "127.0.0.1"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	before := secret(t, c)
	if before.Type != corev1.SecretTypeTLS {
		t.Errorf("type = %s", before.Type)
	}
	if err := m.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := secret(t, c); after.ResourceVersion != before.ResourceVersion {
		t.Error("a Secret in order was written again")
	}
}

func TestOptionsAreRequired(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().Build()
	full := Options{Client: c, Namespace: "n", SecretName: "s", ServiceName: "w", WebhookConfiguration: "c"}
	for name, remove := range map[string]func(o *Options){
		"Namespace":            func(o *Options) { o.Namespace = "" },
		"SecretName":           func(o *Options) { o.SecretName = "" },
		"WebhookConfiguration": func(o *Options) { o.WebhookConfiguration = "" },
		"Client":               func(o *Options) { o.Client = nil },
		"ServiceName":          func(o *Options) { o.ServiceName = "" },
	} {
		opts := full
		remove(&opts)
		if _, err := New(opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	m, err := New(full)
	if err != nil || m.NeedLeaderElection() {
		t.Errorf("New = %v, %v", m, err)
	}
}

// TestReplicasAgree starts several replicas at once.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
	clock := clocktesting.NewFakeClock(start)
	var started sync.WaitGroup
	replicas := make([]watched, 5)
	for i := range replicas {
		replicas[i] = newManager(t, c, clock)
		started.Go(func() {
			if err := replicas[i].sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	trusted, written := bundle(t, c), 0
	for _, m := range replicas {
		if err := handshake(m.Manager, trusted, start); err != nil {
			t.Error(err)
		}
		if !m.serving.Load().Leaf.Equal(replicas[0].serving.Load().Leaf) {
			t.Error("the replicas serve with different certificates")
		}
		written += m.log.count("wrote the webhook's certificates")
	}
	if written != 1 {
		t.Errorf("the Secret was written %d times, want once", written)
	}
}

// TestRepair breaks the Secret in every way that happens.
func TestRepair(t *testing.T) {
	t.Parallel()
	other, _, err := issuer{}.authority(start)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spoil func(s *corev1.Secret)
		after time.Duration
		keeps bool // whether the authority is still good
	}{
		"emptied":            {spoil: func(s *corev1.Secret) { s.Data = nil }},
		"no authority":       {spoil: func(s *corev1.Secret) { delete(s.Data, keyAuthorities) }},
		"text for authority": {spoil: func(s *corev1.Secret) { s.Data[keyAuthorities] = []byte("hello") }},
		"broken authority":   {spoil: func(s *corev1.Secret) { s.Data[keyAuthorities] = encodeCertificate([]byte{1}) }},
		"leaf for authority": {spoil: func(s *corev1.Secret) {
			s.Data[keyAuthorities], s.Data[keyAuthorityKey] = s.Data[keyServing], s.Data[keyServingKey]
		}},
		"no authority key":      {spoil: func(s *corev1.Secret) { delete(s.Data, keyAuthorityKey) }},
		"other authority's key": {spoil: func(s *corev1.Secret) { s.Data[keyAuthorityKey] = s.Data[keyServingKey] }},
		"broken authority key":  {spoil: func(s *corev1.Secret) { s.Data[keyAuthorityKey] = encodeCertificate([]byte{1}) }},
		"other authority":       {spoil: func(s *corev1.Secret) { s.Data[keyAuthorities] = encodeCertificate(other.Raw) }},
		"no certificate":        {spoil: func(s *corev1.Secret) { delete(s.Data, keyServing) }, keeps: true},
		"broken key":            {spoil: func(s *corev1.Secret) { s.Data[keyServingKey] = []byte("hello") }, keeps: true},
		"certificate expired":   {spoil: func(*corev1.Secret) {}, after: servingLife + time.Hour, keeps: true},
		"all expired":           {spoil: func(*corev1.Secret) {}, after: authorityLife},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
			clock := clocktesting.NewFakeClock(start)
			if err := newManager(t, c, clock).sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			broken, trusted := secret(t, c), bundle(t, c)
			test.spoil(broken)
			if err := c.Update(t.Context(), broken); err != nil {
				t.Fatal(err)
			}
			clock.Step(test.after)
			m := newManager(t, c, clock)
			if err := m.sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := handshake(m.Manager, bundle(t, c), clock.Now()); err != nil {
				t.Error(err)
			}
			if kept := bytes.Equal(bundle(t, c), trusted); kept != test.keeps {
				t.Errorf("authority kept = %t, want %t", kept, test.keeps)
			}
			if m.log.count("made anew") != 1 {
				t.Errorf("the log does not say why:\n%s", m.log.text.String())
			}
		})
	}
}

// TestNewHost replaces the certificate when it is for other hosts.
func TestNewHost(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
	clock := clocktesting.NewFakeClock(start)
	if err := newManager(t, c, clock).sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{Client: c, Namespace: namespace, SecretName: secretName, WebhookConfiguration: configName,
		Hosts: []string{host, "10.0.0.1"}, Clock: clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.serving.Load().Leaf.VerifyHostname("10.0.0.1"); err != nil {
		t.Error(err)
	}
}

// TestRotation lets 11 years go by, twelve days at a time, while clients of two replicas connect without a pause.
func TestRotation(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
	clock := clocktesting.NewFakeClock(start)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	// A client holds time while it reads the bundle and connects: an API server is never days behind.
	var passing sync.RWMutex
	var handshakes atomic.Int64
	replicas := []watched{newManager(t, c, clock), newManager(t, c, clock)}
	for _, m := range replicas {
		running.Go(func() { _ = m.Start(ctx) })
	}
	for !replicas[0].Ready() || !replicas[1].Ready() || clock.Waiters() < len(replicas) {
		time.Sleep(time.Millisecond)
	}
	for _, m := range replicas {
		running.Go(func() {
			for ctx.Err() == nil {
				passing.RLock()
				err := handshake(m.Manager, bundle(t, c), clock.Now())
				passing.RUnlock()
				if err != nil {
					t.Errorf("at %s: %v", clock.Now(), err)
					return
				}
				handshakes.Add(1)
			}
		})
	}

	leaves, authorities := map[string]bool{}, map[string]bool{}
	most, last := 0, 0 // authorities that are trusted at once
	const steps = 11 * 365 / 12
	for step := 0; step < steps && !t.Failed(); step++ {
		passing.Lock()
		clock.Step(12 * 24 * time.Hour)
		passing.Unlock()
		for clock.Waiters() < len(replicas) { // until both have looked and wait again
			time.Sleep(10 * time.Microsecond)
		}
		m, err := parse(secret(t, c).Data)
		if err != nil {
			t.Fatal(err)
		}
		leaves[m.serving.Leaf.SerialNumber.String()] = true
		authorities[m.authorities[0].SerialNumber.String()] = true
		last = len(m.authorities)
		most = max(most, last)
		for i, replica := range replicas {
			if left := replica.serving.Load().Leaf.NotAfter.Sub(clock.Now()); left < servingLife/6 {
				t.Fatalf("replica %d serves with a certificate that has %s left", i, left)
			}
		}
	}
	for handshakes.Load() < 100 && !t.Failed() { // on a busy machine the years pass faster
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d handshakes; %d serving certificates, %d authorities", handshakes.Load(), len(leaves), len(authorities))
	if len(authorities) != 2 || len(leaves) < 50 || most != 2 || last != 1 {
		t.Errorf("%d authorities, of which %d at once and %d at last, and %d serving certificates; want 2, 2, 1, 50 or more",
			len(authorities), most, last, len(leaves))
	}
}

// TestNextAuthority follows the steps in which an authority is replaced.
func TestNextAuthority(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).Build()
	clock := clocktesting.NewFakeClock(start)
	m := newManager(t, c, clock)
	look := func() *x509.Certificate {
		t.Helper()
		if err := m.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := handshake(m.Manager, bundle(t, c), clock.Now()); err != nil {
			t.Fatal(err)
		}
		return m.serving.Load().Leaf
	}
	look()
	first := bundle(t, c)
	for clock.Now().Before(start.Add(authorityLife*2/3 - 25*24*time.Hour)) {
		clock.Step(24 * 24 * time.Hour)
		look()
	}
	leaf := look()
	clock.Step(25 * 24 * time.Hour)
	if added := look(); !added.Equal(leaf) {
		t.Error("the next authority signed before it was known")
	}
	if both := bundle(t, c); len(both) <= len(first) || !bytes.HasSuffix(both, first) {
		t.Errorf("the bundle is not the next authority and the last one:\n%s", both)
	}
	clock.Step(settleTime - time.Second)
	if waiting := look(); !waiting.Equal(leaf) {
		t.Error("the next authority signed too early")
	}
	// While the API servers are not told, it must not sign either.
	config := newConfiguration()
	if err := c.Get(t.Context(), types.NamespacedName{Name: configName}, config); err != nil {
		t.Fatal(err)
	}
	config.Webhooks[0].ClientConfig.CABundle = first
	if err := c.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	clock.Step(time.Second)
	if told := look(); !told.Equal(leaf) {
		t.Error("the next authority signed although it was not known")
	}
	if signed := look(); signed.Equal(leaf) {
		t.Error("the next authority did not sign")
	}
}

// TestWithoutConfiguration goes on without it, says so once, and fills it in when it is there.
func TestWithoutConfiguration(t *testing.T) {
	t.Parallel()
	c := fake.NewClientBuilder().Build()
	clock := clocktesting.NewFakeClock(start)
	m := newManager(t, c, clock)
	for range 3 {
		if err := m.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !m.Ready() || m.log.count("there is no webhook configuration") != 1 {
		t.Errorf("ready = %t; log:\n%s", m.Ready(), m.log.text.String())
	}
	if err := c.Create(t.Context(), newConfiguration()); err != nil {
		t.Fatal(err)
	}
	if err := m.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := handshake(m.Manager, bundle(t, c), start); err != nil {
		t.Error(err)
	}
}

// TestFailures keeps the last good certificate while the API server refuses, says it once, and recovers.
func TestFailures(t *testing.T) {
	t.Parallel()
	var refusing atomic.Bool
	var reads atomic.Int64
	c := fake.NewClientBuilder().WithObjects(newConfiguration()).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			reads.Add(1)
			if _, isSecret := o.(*corev1.Secret); isSecret && refusing.Load() {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("no rule"))
			}
			return c.Get(ctx, key, o, opts...)
		},
	}).Build()
	clock := clocktesting.NewFakeClock(start)
	m := newManager(t, c, clock)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Start(ctx); err != nil {
			t.Errorf("Start = %v", err)
		}
	})
	defer running.Wait()
	defer cancel()
	step := func() {
		for !clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
		before := reads.Load()
		clock.Step(2 * pollInterval)
		for reads.Load() == before || !clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
	}
	step()
	refusing.Store(true)
	for range 4 {
		step()
	}
	if !m.Ready() || m.log.count("cannot keep the webhook's certificate") != 1 || m.log.count("no rule") != 1 {
		t.Errorf("ready = %t; log:\n%s", m.Ready(), m.log.text.String())
	}
	refusing.Store(false)
	if err := c.Delete(t.Context(), secret(t, c)); err != nil {
		t.Fatal(err)
	}
	step()
	if err := handshake(m.Manager, bundle(t, c), clock.Now()); err != nil {
		t.Error(err)
	}
}
