package local

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
)

const pausable = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: work}
spec:
  pollingInterval: 1
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, command: ["true"]}]}}}
  triggers: [{type: redis, metadata: {listName: list}}]
`

// engine runs one on the folder until the function that it returns is called.
func engine(t *testing.T, dir string) (*Engine, func()) {
	t.Helper()
	e, problems, err := Open(t.Context(), Options{
		DataDir: filepath.Join(dir, "data"), Paths: []string{filepath.Join(dir, "work.yaml")}, MemoryRedis: true,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err, problems)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, context.Background()) }()
	stopped := false
	stop := func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return e, stop
}

// TestPausedStartsNothing pauses what its manifest does not, over a restart, and resumes it.
func TestPausedStartsNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ol") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "work.yaml"), []byte(pausable), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func(e *Engine) control.ScaledJobInfo {
		infos, err := e.ScaledJobs(t.Context(), "default")
		if err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
		return infos[0]
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	paused := func(e *Engine) func() bool {
		return func() bool {
			info := look(e)
			return info.Object.Status.Conditions.Get("Paused").Status == "True" && info.LastReason == "paused"
		}
	}
	e, stop := engine(t, dir)
	if changed, err := e.SetPaused(t.Context(), "default", "work", true); err != nil || !changed {
		t.Fatal(changed, err)
	}
	until("the condition", paused(e))
	stop()

	e, _ = engine(t, dir)
	until("the condition after a restart", paused(e))
	if _, err := e.Push(t.Context(), control.Queue{Name: "list", ScaledJob: "work", Namespace: "default"}, [][]byte{[]byte("a")}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Push(t.Context(), control.Queue{Name: "list", ScaledJob: "other"}, [][]byte{[]byte("a")})
	if want := "ScaledJob other has no queue that items can be pushed to, or does not exist"; control.ReasonOf(err) != control.NotFound || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if jobs, err := e.Jobs(t.Context(), "", ""); err != nil || len(jobs) != 0 {
		t.Errorf("got %v, %v", jobs, err)
	}
	if changed, err := e.SetPaused(t.Context(), "default", "work", false); err != nil || !changed {
		t.Fatal(changed, err)
	}
	until("a Job", func() bool { return look(e).Succeeded > 0 })

	annotated := "metadata: {name: work, annotations: {autoscaling.keda.sh/paused: \"true\"}}"
	manifest := []byte("apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\n" + annotated + pausable[len("apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {name: work}"):])
	if err := os.WriteFile(filepath.Join(dir, "work.yaml"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	until("the manifest's word", paused(e))
	if _, err := e.SetPaused(t.Context(), "default", "work", false); control.ReasonOf(err) != control.BadRequest {
		t.Errorf("got %v", err)
	}
	jobs, err := e.Jobs(t.Context(), "", "work")
	if err != nil || len(jobs) == 0 {
		t.Fatal(jobs, err)
	}
	if one, err := e.Job(t.Context(), "default", jobs[0].Job.Name); err != nil || one.Job.UID != jobs[0].Job.UID {
		t.Errorf("got %v, %v", one, err)
	}
}
