package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// TestServiceAccountToken asks for a token, with and without the right to it.
func TestServiceAccountToken(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	key := types.NamespacedName{Namespace: namespace, Name: "worker"}
	o := &objects{writer: c}
	if _, err := o.ServiceAccountToken(t.Context(), key, time.Hour); !apierrors.IsNotFound(err) {
		t.Errorf("of nobody: got %v; want that there is no such account", err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "worker"}}
	if err := c.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	status, err := o.ServiceAccountToken(t.Context(), key, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(status.ExpirationTimestamp.Time); left < 55*time.Minute || left > 61*time.Minute {
		t.Errorf("the token is valid for %v; want an hour", left)
	}
	review, err := plane.Client().AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: status.Token},
	}, metav1.CreateOptions{})
	if want := "system:serviceaccount:" + namespace + ":worker"; err != nil || review.Status.User.Username != want {
		t.Errorf("the token is that of %q, %v; want %s", review.Status.User.Username, err, want)
	}
	// With the rights of the chart's defaults.
	config := user(t, plane, c, "no-tokens-"+namespace, []string{namespace}, clusterRules, rules(""))
	if _, err := (&objects{writer: aClient(t, config)}).ServiceAccountToken(t.Context(), key, time.Hour); !apierrors.IsForbidden(err) {
		t.Errorf("without the right: got %v; want that it is forbidden", err)
	}
}

// TestNoSecretIsShown lets ScaledJobs with each source of secrets fail, and looks for the secrets in all that is said.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry"
	const tokens = "eyJhbGciOi" // how every token of a service account begins
	redis := redistest.Start(t, redistest.Options{Password: canary + " of the server"})
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	files := t.TempDir()
	create := func(object client.Object) {
		t.Helper()
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]string{"password": canary})
	if err == nil {
		err = os.WriteFile(filepath.Join(files, namespace+".json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	create(&corev1.Secret{ObjectMeta: meta("secret"), StringData: map[string]string{"password": canary}})
	create(&corev1.ConfigMap{ObjectMeta: meta("configmap"), Data: map[string]string{"password": canary}})
	create(&corev1.ServiceAccount{ObjectMeta: meta("worker")})
	target := func(name, key string) []v1alpha1.AuthTargetRef {
		return []v1alpha1.AuthTargetRef{{Parameter: "password", Name: name, Key: key}}
	}
	vault := func(authentication v1alpha1.VaultAuthentication, credential v1alpha1.Credential) *v1alpha1.HashiCorpVault {
		return &v1alpha1.HashiCorpVault{
			Address: "http://127.0.0.1:1", Authentication: authentication, Role: "r", Mount: "m", Credential: &credential,
			Secrets: []v1alpha1.VaultSecret{{Parameter: "password", Path: "secret/data/a", Key: "k"}},
		}
	}
	sources := map[string]v1alpha1.TriggerAuthenticationSpec{
		"secret":      {SecretTargetRef: target("secret", "password")},
		"configmap":   {ConfigMapTargetRef: target("configmap", "password")},
		"env":         {Env: []v1alpha1.AuthEnvironment{{Parameter: "password", Name: "password"}}},
		"token":       {BoundServiceAccountToken: []v1alpha1.BoundServiceAccountToken{{Parameter: "password", ServiceAccountName: "worker"}}},
		"no-account":  {BoundServiceAccountToken: []v1alpha1.BoundServiceAccountToken{{Parameter: "password", ServiceAccountName: "none"}}},
		"vault-token": {HashiCorpVault: vault("token", v1alpha1.Credential{Token: canary})},
		"vault-login": {HashiCorpVault: vault("kubernetes", v1alpha1.Credential{ServiceAccountName: "worker"})},
		"no-key":      {SecretTargetRef: target("secret", "none")},
	}
	var scaledJobs []*v1alpha1.ScaledJob
	declare := func(name, kind, ref string) {
		sj := aScaledJob(namespace, name)
		sj.Spec.MinReplicaCount = nil
		sj.Spec.JobTargetRef.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "secret"}},
		}}
		sj.Spec.Triggers = []v1alpha1.ScaleTriggers{{
			Type: "redis", Metadata: map[string]string{"address": redis.Addr(), "listName": name},
			AuthenticationRef: &v1alpha1.AuthenticationRef{Name: ref, Kind: kind},
		}}
		create(sj)
		scaledJobs = append(scaledJobs, sj)
	}
	for name, spec := range sources {
		create(&v1alpha1.TriggerAuthentication{ObjectMeta: meta(name), Spec: spec})
		declare(name, v1alpha1.KindTriggerAuthentication, name)
	}
	file := &v1alpha1.ClusterTriggerAuthentication{
		ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: v1alpha1.TriggerAuthenticationSpec{FilePath: namespace + ".json"},
	}
	create(file)
	t.Cleanup(func() { _ = c.Delete(context.WithoutCancel(t.Context()), file) })
	declare("file", v1alpha1.KindClusterTriggerAuthentication, namespace)

	log := &logs{}
	address := servertest.FreeAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Config: plane.Config(), Namespaces: []string{namespace}, TriggerTypes: all.Types(), Version: "test", AuthFiles: files,
			HealthAddress: "0", MetricsAddress: address, ClusterNamespace: namespace,
			Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the operator ended with %v", err)
		}
	}()
	said := map[string]string{}
	for _, sj := range scaledJobs {
		eventually(t, sj.Name+" fails", func() bool {
			ready := conditionOf(t, c, sj, v1alpha1.ConditionReady)
			return ready.Status == metav1.ConditionFalse && ready.Message != ""
		})
		now := &v1alpha1.ScaledJob{}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(sj), now); err != nil {
			t.Fatal(err)
		}
		said["the status of "+sj.Name] = fmt.Sprintf("%+v", now.Status)
	}
	var events corev1.EventList
	eventually(t, "there are events of all", func() bool {
		if err := c.List(t.Context(), &events, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		about := map[string]bool{}
		for _, event := range events.Items {
			about[event.InvolvedObject.Name] = about[event.InvolvedObject.Name] || event.Type == corev1.EventTypeWarning
		}
		for _, sj := range scaledJobs {
			if !about[sj.Name] {
				return false
			}
		}
		return true
	})
	said["the events"] = fmt.Sprintf("%+v", events.Items)
	said["the log"] = log.String()
	response, err := http.Get("http://" + address + "/metrics") //nolint:noctx // of this test's own server
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !strings.Contains(string(page), namespace) {
		t.Errorf("the metrics do not tell of %s, %v", namespace, err)
	}
	said["the metrics"] = string(page)
	http.DefaultClient.CloseIdleConnections()
	for where, text := range said {
		for _, secret := range []string{canary, tokens} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s shows a secret: %s", where, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	for name, want := range map[string]string{
		"token": "redis", "no-account": `ServiceAccount "` + namespace + `/none" does not exist`,
		"vault-token": "connection refused", "vault-login": "connection refused", "file": "redis",
	} {
		if !strings.Contains(said["the status of "+name], want) {
			t.Errorf("%s does not fail as it is to: %s; want %q", name, said["the status of "+name], want)
		}
	}
}
