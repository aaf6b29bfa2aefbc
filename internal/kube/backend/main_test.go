package backend

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/trigger/all"
	"github.com/offboard-dev/offboard/test/controlplane"
)

var shared = controlplane.Shared{Options: controlplane.Options{Kubelet: true}}

func TestMain(m *testing.M) {
	code := shared.Main(m)
	if transport, ok := http.DefaultTransport.(*http.Transport); ok {
		transport.CloseIdleConnections()
	}
	err := goleak.Find()
	for range 3 { // a connection of SPDY lets go only a second after its end
		if err != nil {
			err = goleak.Find()
		}
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var (
	installOnce sync.Once
	installErr  error
)

// cluster returns the control plane of all tests, with our definitions.
func cluster(t *testing.T) *controlplane.Cluster {
	t.Helper()
	c := shared.Cluster(t)
	installOnce.Do(func() { _, installErr = crds.Install(context.Background(), c.Config()) })
	if installErr != nil {
		t.Fatal(installErr)
	}
	return c
}

// ask returns a backend that asks with this configuration.
func ask(t *testing.T, config *rest.Config, need Need) *Backend {
	t.Helper()
	b, err := New(Config{
		Cluster: Cluster{REST: config, Name: "context test", Namespace: "default"}, Need: need,
		TriggerTypes: all.Types(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		resolves: func(context.Context, string) bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// apply applies a manifest.
func apply(t *testing.T, c *controlplane.Cluster, namespace, manifest string) {
	t.Helper()
	if _, err := c.KubectlInput(t.Context(), manifest, "--namespace", namespace, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// scaledJob is the manifest of a ScaledJob whose list has the name on the server.
func scaledJob(name, list, address string, more ...string) string {
	return `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: ` + name + `}
spec:
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: i, command: ["true"],
    env: [` + strings.Join(more, ", ") + `]}]}}}
  triggers: [{type: redis, metadata: {listName: "` + list + `", address: "` + address + `", passwordFromEnv: PASSWORD}}]
---
`
}

// job is the manifest of a Job as the operator makes it, without its owner.
func job(name, scaledJob, spec string) string {
	return `apiVersion: batch/v1
kind: Job
metadata: {name: ` + name + `, labels: {scaledjob.keda.sh/name: ` + scaledJob + `}}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {scaledjob.keda.sh/name: ` + scaledJob + `}}
    spec: {restartPolicy: Never, ` + spec + `}
---
`
}

func runs(command string) string {
	return `containers: [{name: main, image: i, command: [sh, -c, "` + command + `"]}]`
}

func readAll(t *testing.T, log io.ReadCloser, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(log)
	if closeErr := log.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	return string(content)
}

// wantError checks an error's reason and that it holds the texts.
func wantError(t *testing.T, err error, reason control.Reason, texts ...string) {
	t.Helper()
	if err == nil || control.ReasonOf(err) != reason {
		t.Errorf("got %v (%s), want the reason %s", err, control.ReasonOf(err), reason)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %q, want %q in it", err, text)
		}
	}
}
