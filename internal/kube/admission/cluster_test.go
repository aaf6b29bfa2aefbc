package admission_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/kube/admission"
	"github.com/offboard-dev/offboard/internal/kube/admission/certs"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
	"github.com/offboard-dev/offboard/test/controlplane"
)

const (
	certSecret = "offboard-webhook-cert"
	patience   = time.Minute
)

// hooked is a namespace of a real control plane whose objects the webhook is asked about.
type hooked struct {
	cluster   *controlplane.Cluster
	namespace string
	clock     *clocktesting.FakeClock
	certs     *certs.Manager
	address   string
	server    *http.Server
}

// newHooked starts the webhook with a clock of its own, as a user who may do what the operator's Roles grant.
func newHooked(t *testing.T, now time.Time) *hooked {
	t.Helper()
	cluster := shared.Cluster(t)
	if _, err := crds.Install(t.Context(), cluster.Config()); err != nil {
		t.Fatal(err)
	}
	h := &hooked{cluster: cluster, namespace: cluster.Namespace(t), clock: clocktesting.NewFakeClock(now)}
	h.grant(t)
	config, err := cluster.UserConfig(h.user())
	if err != nil {
		t.Fatal(err)
	}
	user, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.certs, err = certs.New(certs.Options{Client: user, Namespace: h.namespace, SecretName: certSecret,
		WebhookConfiguration: h.namespace, Hosts: []string{"127.0.0.1"}, Clock: h.clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.serve(t, servertest.FreeAddress(t)) // not a port that a connection may get while nobody serves there
	h.configure(t)

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := h.certs.Start(ctx); err != nil {
			t.Errorf("Start = %v", err)
		}
	})
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	eventually(t, "the API server knows the user's permissions", func() error {
		if h.certs.Ready() {
			return nil
		}
		h.clock.Step(time.Second) // to the next attempt
		return errors.New("there is no certificate")
	})
	h.synced(t)
	return h
}

func (h *hooked) user() string { return "operator-of-" + h.namespace }

// grant gives the user the permissions that certs needs, and no other.
func (h *hooked) grant(t *testing.T) {
	t.Helper()
	rbac := h.cluster.Client().RbacV1()
	meta := metav1.ObjectMeta{Name: h.namespace}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: h.user()}}
	_, err := rbac.Roles(h.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{certSecret},
			Verbs: []string{"get", "update"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.RoleBindings(h.namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: h.namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"validatingwebhookconfigurations"},
			ResourceNames: []string{h.namespace}, Verbs: []string{"get", "patch"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta,
		Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: h.namespace},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// serve serves the webhook at the address, until the test ends or the server is closed.
func (h *hooked) serve(t *testing.T, address string) {
	t.Helper()
	config := &tls.Config{}
	h.certs.ConfigureTLS(config)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(admission.Path, admission.New(all.Types(), nil))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(tls.NewListener(listener, config)) })
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	h.address, h.server = listener.Addr().String(), server
}

// configure makes the API server ask the webhook about the objects of the namespace, and go on without an answer.
func (h *hooked) configure(t *testing.T) {
	t.Helper()
	configurations := h.cluster.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configurations.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: h.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    "validate.offboard.dev",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://" + h.address + admission.Path)},
			AdmissionReviewVersions: []string{"v1"},
			FailurePolicy:           ptr.To(admissionregistrationv1.Ignore),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: h.namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{"keda.sh"}, APIVersions: []string{"v1alpha1"},
					Resources: []string{"scaledjobs", "triggerauthentications", "clustertriggerauthentications"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := configurations.Delete(context.Background(), h.namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// synced waits until the certificates have been looked at.
func (h *hooked) synced(t *testing.T) {
	t.Helper()
	eventually(t, "the certificates are looked at", func() error {
		if !h.certs.Ready() || !h.clock.HasWaiters() {
			return fmt.Errorf("ready = %t, waiting = %t", h.certs.Ready(), h.clock.HasWaiters())
		}
		return nil
	})
}

// pass lets time pass.
func (h *hooked) pass(t *testing.T, d time.Duration) {
	t.Helper()
	h.clock.Step(d)
	h.synced(t)
}

// serial identifies the certificate that is served.
func (h *hooked) serial(t *testing.T) string {
	t.Helper()
	certificate, err := h.certs.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.Leaf.SerialNumber.String()
}

// apply has kubectl apply a manifest. It returns what kubectl has said.
func (h *hooked) apply(t *testing.T, manifest string, flags ...string) (string, error) {
	t.Helper()
	manifest = strings.ReplaceAll(manifest, "namespace: default", "namespace: "+h.namespace)
	said, err := h.cluster.KubectlInput(t.Context(), manifest, append([]string{"apply", "-f", "-"}, flags...)...)
	return string(said), err
}

// refuses waits until the API server refuses what is wrong, which it does when it trusts the webhook. It asks about
// another object than is there in any test.
func (h *hooked) refuses(t *testing.T) error {
	t.Helper()
	var refused error
	eventually(t, "the API server asks the webhook", func() error {
		said, err := h.apply(t, strings.Replace(bad, "tasks", "others", 1), "--dry-run=server")
		if err == nil {
			return fmt.Errorf("the bad manifest is allowed: %s", said)
		}
		refused = err
		return nil
	})
	return refused
}

// TestServerSideDryRun has kubectl say what validate says, and goes on without the webhook.
func TestServerSideDryRun(t *testing.T) {
	t.Parallel()
	h := newHooked(t, time.Now())

	refused := h.refuses(t)
	for _, want := range badErrors {
		if !strings.Contains(refused.Error(), want) {
			t.Errorf("kubectl does not say %q: %v", want, refused)
		}
	}
	t.Logf("kubectl says: %v", refused)
	if said, err := h.apply(t, bad); err == nil {
		t.Errorf("the bad manifest is applied: %s", said)
	}
	for _, flag := range []string{"--dry-run=server", "--dry-run=none"} {
		if said, err := h.apply(t, good, flag); err != nil {
			t.Errorf("%s: %v: %s", flag, err, said)
		}
	}

	// Nobody is stopped when the webhook is down.
	h.server.Close()
	if said, err := h.apply(t, bad); err != nil {
		t.Fatalf("without the webhook: %v: %s", err, said)
	}

	// When it is back, an object that was broken meanwhile can be labelled, repaired and deleted, and not edited.
	h.serve(t, h.address)
	_ = h.refuses(t)
	name := []string{"-n", h.namespace, "scaledjob", "usertask"}
	kubectl := func(verb string, args ...string) error {
		_, err := h.cluster.Kubectl(t.Context(), append(append([]string{verb}, name...), args...)...)
		return err
	}
	if err := kubectl("label", "a=b"); err != nil {
		t.Error(err)
	}
	if err := kubectl("patch", "--type=merge", "-p", `{"metadata":{"finalizers":["offboard.dev/test"]}}`); err != nil {
		t.Error(err)
	}
	if err := kubectl("patch", "--type=merge", "-p", `{"spec":{"maxReplicaCount":7}}`); err == nil {
		t.Error("a bad object could be edited and left bad")
	}
	if err := kubectl("delete", "--wait=false"); err != nil {
		t.Error(err)
	}
	if err := kubectl("patch", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`); err != nil {
		t.Error(err)
	}
	eventually(t, "the object is gone", func() error {
		if err := kubectl("get"); err == nil || !strings.Contains(err.Error(), "NotFound") {
			return fmt.Errorf("kubectl get: %w", err)
		}
		return nil
	})
}

// TestRotationIsFollowed rotates certificates that a real API server verifies, with the system's clock.
func TestRotationIsFollowed(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	// The authority is as old as it gets before it is replaced; it is replaced now.
	h := newHooked(t, time.Now().Add(-10*365*day*2/3))
	certificates := map[string]bool{h.serial(t): true} // has long expired
	expired := 10 * 365 * day * 2 / 3
	for _, step := range []struct {
		name string
		time time.Duration
		new  bool
	}{
		{"an expired certificate is replaced", expired, true},
		{"the next authority is trusted", 2 * time.Minute, false},
		{"the next authority signs", 20 * time.Minute, true},
		{"nothing changes", 2 * time.Minute, false},
	} {
		h.pass(t, step.time)
		if is := !certificates[h.serial(t)]; is != step.new {
			t.Errorf("%s: there is a new certificate: %t, want %t", step.name, is, step.new)
		}
		certificates[h.serial(t)] = true
		_ = h.refuses(t)
	}

	secrets := h.cluster.Client().CoreV1().Secrets(h.namespace)
	if err := secrets.Delete(t.Context(), certSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.pass(t, 2*time.Minute)
	if certificates[h.serial(t)] {
		t.Error("a deleted Secret is not made anew")
	}
	_ = h.refuses(t)
}
