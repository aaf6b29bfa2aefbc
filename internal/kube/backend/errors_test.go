package backend

import (
	"net"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// TestUnknownKind asks a cluster that has no definitions.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	c := controlplane.ForTest(t, controlplane.Options{})
	b := ask(t, c.Config(), Need{Events: true})
	text := "ScaledJobs are not known on the cluster of context test; install them with: offboard crds | kubectl apply"
	_, err := b.ScaledJobs(t.Context(), "default")
	wantError(t, err, control.NotFound, text)
	_, err = b.SetPaused(t.Context(), "default", "a", true)
	wantError(t, err, control.NotFound, text)
	_, err = b.Push(t.Context(), control.Queue{Name: "q", Namespace: "default"}, nil)
	wantError(t, err, control.NotFound, text)
	_, err = b.Push(t.Context(), control.Queue{Name: "q", Namespace: "default", ScaledJob: "a"}, nil)
	wantError(t, err, control.NotFound, text)
	if jobs, err := b.Jobs(t.Context(), "default", ""); err != nil || len(jobs) != 0 {
		t.Errorf("there are no Jobs: got %v, %v", jobs, err)
	}
}

func TestUnknownNamespace(t *testing.T) {
	t.Parallel()
	b := ask(t, cluster(t).Config(), Need{})
	text := `namespace "no-such" does not exist on the cluster of context test`
	_, err := b.ScaledJobs(t.Context(), "no-such")
	wantError(t, err, control.NotFound, text)
	_, err = b.Jobs(t.Context(), "no-such", "")
	wantError(t, err, control.NotFound, text)
	_, err = b.Push(t.Context(), control.Queue{Name: "q", Namespace: "no-such"}, nil)
	wantError(t, err, control.NotFound, text)
}

// TestRights is a user who may do nothing, and one whom the cluster does not know.
func TestRights(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	config, err := c.UserConfig("nobody")
	if err != nil {
		t.Fatal(err)
	}
	b := ask(t, config, Need{})
	_, err = b.ScaledJobs(t.Context(), "default")
	wantError(t, err, control.Internal, "the cluster of context test does not allow it: ", `User "nobody" cannot list resource`)
	_, err = b.SetPaused(t.Context(), "default", "a", true)
	wantError(t, err, control.Internal, `cannot get resource "scaledjobs" in API group "keda.sh"`)

	expired := rest.AnonymousClientConfig(c.Config())
	expired.BearerToken = "expired"
	_, err = ask(t, expired, Need{}).Jobs(t.Context(), "default", "")
	wantError(t, err, control.Internal, "does not accept the credentials of the kubeconfig; they may have expired")
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := "https://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = ask(t, &rest.Config{Host: host}, Need{}).ScaledJobs(t.Context(), "default")
	wantError(t, err, control.Unavailable, "the cluster of context test ("+host+") cannot be asked: ", "connection refused")

	stranger := rest.AnonymousClientConfig(cluster(t).Config())
	stranger.CAData, stranger.CAFile = nil, ""
	_, err = ask(t, stranger, Need{}).ScaledJobs(t.Context(), "default")
	wantError(t, err, control.Unavailable, "certificate signed by unknown authority")
}
