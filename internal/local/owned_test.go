package local

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/jobs"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

func TestMain(m *testing.M) {
	if process.IsKeeper(os.Args) {
		os.Exit(process.Keep())
	}
	goleak.VerifyTestMain(m)
}

// openParts opens an Engine's store and Jobs, which run nothing, with the ScaledJob work in work.yaml.
func openParts(t *testing.T) (e *Engine, manifest string) {
	t.Helper()
	dir := t.TempDir()
	manifest = filepath.Join(dir, "work.yaml")
	write(t, manifest, `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: work}
spec:
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, command: ["true"]}]}}}
  triggers: [{type: redis, metadata: {listName: work, address: "127.0.0.1:1"}}]
`)
	return openPartsIn(t, dir, filepath.Join(dir, "data"), slog.New(slog.DiscardHandler)), manifest
}

func openPartsIn(t *testing.T, manifests, data string, log *slog.Logger) *Engine {
	t.Helper()
	e := &Engine{opts: Options{DataDir: data, Log: log}, types: all.Types()}
	var err error
	e.store, _, err = objects.Open(objects.Options{
		Paths: []string{manifests}, Dir: e.dir("scaledjobs"), Validate: e.validate, Log: e.opts.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.jobs, err = jobs.Open(t.Context(), jobs.Config{Dir: data, Clock: clock.RealClock{}, Log: e.opts.Log})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// jobOf makes a Job as the controller does.
func jobOf(sj *v1alpha1.ScaledJob) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: sj.Namespace, GenerateName: sj.Name + "-",
			Labels: map[string]string{v1alpha1.LabelScaledJob: sj.Name},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(sj, v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob)),
			},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Command: []string{"true"}}},
		}}},
	}
}

// TestNoJobOutlivesItsScaledJob creates Jobs for a ScaledJob that was read before it was removed, or replaced.
func TestNoJobOutlivesItsScaledJob(t *testing.T) {
	t.Parallel()
	e, manifest := openParts(t)
	owned := ownedJobs{e.jobs, e.store}
	key := types.NamespacedName{Namespace: "default", Name: "work"}
	sj, err := e.store.ScaledJob(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, sj *v1alpha1.ScaledJob, want int) {
		t.Helper()
		job, err := owned.Create(t.Context(), jobOf(sj), nil)
		if (err == nil) != (want > 0) {
			t.Errorf("%s: Create gave %v, %v", when, job, err)
		}
		if jobs := e.jobs.ListAll(""); len(jobs) != want {
			t.Errorf("%s: %d Jobs, want %d", when, len(jobs), want)
		}
	}
	expect("in force", sj, 1)

	content, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	change, err := e.store.Reload()
	if err != nil || len(change.Removed) != 1 {
		t.Fatalf("Reload = %+v, %v; want one removed", change, err)
	}
	if err := e.jobs.DeleteOwned(t.Context(), sj.UID); err != nil {
		t.Fatal(err)
	}
	expect("removed", sj, 0)

	write(t, manifest, string(content))
	if _, err := e.store.Reload(); err != nil {
		t.Fatal(err)
	}
	expect("replaced by another one of its name", sj, 0)
}

// TestUnownedJobs starts with Jobs whose ScaledJob was removed just before a kill, and with those of one that is only
// not among the manifests.
func TestUnownedJobs(t *testing.T) {
	t.Parallel()
	for _, removed := range []bool{true, false} {
		t.Run(fmt.Sprintf("removed %v", removed), func(t *testing.T) {
			t.Parallel()
			e, manifest := openParts(t)
			for _, sj := range e.store.List() {
				if _, err := e.jobs.Create(context.Background(), jobOf(sj), nil); err != nil {
					t.Fatal(err)
				}
			}
			want := 1
			if err := os.Remove(manifest); err != nil {
				t.Fatal(err)
			}
			if removed {
				want = 0
				if _, err := e.store.Reload(); err != nil {
					t.Fatal(err)
				}
			}
			again := openPartsIn(t, filepath.Dir(manifest), e.opts.DataDir, e.opts.Log)
			if err := again.deleteUnowned(t.Context()); err != nil {
				t.Fatal(err)
			}
			if jobs := again.jobs.ListAll(""); len(jobs) != want {
				t.Errorf("%d Jobs, want %d", len(jobs), want)
			}
		})
	}
}
