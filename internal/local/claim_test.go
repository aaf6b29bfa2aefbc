package local

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// claimedBy is a Job of the ScaledJob as delivery by claim makes them.
func claimedBy(sj *v1alpha1.ScaledJob, name string) *batchv1.Job {
	job := jobOf(sj)
	job.Name, job.GenerateName = name, ""
	job.Finalizers = []string{v1alpha1.FinalizerSettle}
	job.Annotations = map[string]string{
		objects.AnnotationFolder:      sj.Annotations[objects.AnnotationFolder],
		v1alpha1.AnnotationGeneration: strconv.FormatInt(sj.Generation, 10),
		v1alpha1.AnnotationItem:       "the item",
		v1alpha1.AnnotationItemID:     "00000000000000af",
		v1alpha1.AnnotationQueue:      "work",
	}
	return job
}

// TestItemReachesProcesses has every container of a Job print its item, of which only the path is in its command.
func TestItemReachesProcesses(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "oi") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write(t, filepath.Join(dir, "work.yaml"), pausable)
	e, _ := engine(t, dir)
	sj := e.store.List()[0]
	job := claimedBy(sj, "work-00000000000000af-1")
	spec := &job.Spec.Template.Spec
	spec.InitContainers = []corev1.Container{{Name: "before", Command: []string{"cat", "$(OFFBOARD_ITEM_FILE)"}}}
	spec.Containers[0].Command = []string{"cat", "$(OFFBOARD_ITEM_FILE)"}
	item := []byte("a \"quoted\"\n'line' of $(HOME) with \x00\xff")
	file := &scaledjob.ItemFile{Path: "/offboard/item", Content: item}
	created, err := ownedJobs{e.jobs, e.store}.Create(t.Context(), job, file)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		info, err := e.Job(t.Context(), "default", created.Name)
		if err != nil {
			t.Fatal(err)
		}
		if how, _ := scaledjob.Finished(info.Job); how == batchv1.JobComplete {
			if info.Item != "the item" {
				t.Errorf("the Job's item is shown as %q", info.Item)
			}
			break
		} else if how != "" || time.Now().After(deadline) {
			t.Fatalf("status = %+v", info.Job.Status)
		}
	}
	for _, container := range []string{"before", "main"} {
		log, err := e.Logs(t.Context(), "default", created.Name, control.LogOptions{Container: container})
		if err != nil {
			t.Fatal(err)
		}
		printed, err := io.ReadAll(log)
		if err != nil || !bytes.Equal(printed, item) {
			t.Errorf("%s printed %q, %v", container, printed, err)
		}
		_ = log.Close()
	}
}

// TestPathOfItemIsNotHonoured says so in a warning.
func TestPathOfItemIsNotHonoured(t *testing.T) {
	t.Parallel()
	for delivery, want := range map[string]int{
		"": 0, "{mode: pop, file: /offboard/item}": 0, "{mode: claim}": 0, "{mode: claim, file: /offboard/item}": 1,
	} {
		path := filepath.Join(t.TempDir(), "work.yaml")
		write(t, path, strings.Replace(pausable, "spec:\n", "spec:\n  delivery: "+delivery+"\n", 1))
		warned := 0
		for _, problem := range Validate(manifest.Read(nil, path), all.Types()).Of(manifest.Warning) {
			if strings.Contains(problem.Message, "OFFBOARD_ITEM_FILE") {
				warned++
			}
		}
		if warned != want {
			t.Errorf("delivery %s: %d warnings, want %d", delivery, warned, want)
		}
	}
}

// TestReportIsShownBeforeTheItem prefers what a runner says of its item.
func TestReportIsShownBeforeTheItem(t *testing.T) {
	t.Parallel()
	e, _ := openParts(t)
	job, err := e.jobs.Create(t.Context(), claimedBy(e.store.List()[0], "a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.jobs.Get(job.Namespace, job.Name)
	if err != nil {
		t.Fatal(err)
	}
	if item := e.jobInfo(got).Item; item != "the item" {
		t.Errorf("without a report: %q", item)
	}
	write(t, e.jobs.ReportPath(got.Pods[0], "main"), "reported")
	if item := e.jobInfo(got).Item; item != "reported" {
		t.Errorf("with a report: %q", item)
	}
}

// TestRemovedScaledJobIsReleasedFirst removes the manifest of a ScaledJob that holds items, and brings it back.
func TestRemovedScaledJobIsReleasedFirst(t *testing.T) {
	t.Parallel()
	e, manifest := openParts(t)
	e.controller = scaledjob.New(scaledjob.Config{Jobs: ownedJobs{e.jobs, e.store}, Objects: e.store, Log: e.opts.Log})
	t.Cleanup(func() { // ends what it has begun
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.controller.Run(ctx)
	})
	old := e.store.List()[0]
	if err := e.store.SetFinalizer(t.Context(), old, true); err != nil {
		t.Fatal(err)
	}
	create := func(sj *v1alpha1.ScaledJob, name string) error {
		_, err := ownedJobs{e.jobs, e.store}.Create(t.Context(), claimedBy(sj, name), nil)
		return err
	}
	reload := func() {
		t.Helper()
		change, err := e.store.Reload()
		if err != nil {
			t.Fatal(err)
		}
		e.changed(t.Context(), change)
	}
	if err := create(old, "a"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	reload()
	write(t, manifest, string(content))
	reload()
	if sj := e.store.List()[0]; sj.UID != old.UID || sj.DeletionTimestamp == nil {
		t.Errorf("in force is %+v", sj.ObjectMeta)
	}
	if jobs := e.jobs.ListAll(""); len(jobs) != 1 || jobs[0].DeletionTimestamp != nil {
		t.Errorf("Jobs while it is being released: %+v", jobs)
	}
	if err := e.store.SetFinalizer(t.Context(), old, false); err != nil {
		t.Fatal(err)
	}
	if err := create(old, "b"); err == nil {
		t.Error("a Job was created for a ScaledJob that is gone")
	}
	reload()
	if jobs := e.jobs.ListAll(""); len(jobs) != 0 {
		t.Errorf("Jobs when it is released: %+v", jobs)
	}
	sj := e.store.List()[0]
	if sj.UID == old.UID || sj.DeletionTimestamp != nil {
		t.Errorf("in force is %+v", sj.ObjectMeta)
	}
	if err := create(sj, "a"); err != nil {
		t.Error(err)
	}
}

// TestUnownedClaims starts with a Job that nobody is left to settle.
func TestUnownedClaims(t *testing.T) {
	t.Parallel()
	e, manifest := openParts(t)
	if _, err := e.jobs.Create(t.Context(), claimedBy(e.store.List()[0], "a"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := e.store.Reload(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	again := openPartsIn(t, filepath.Dir(manifest), e.opts.DataDir, slog.New(slog.NewTextHandler(&log, nil)))
	if err := again.deleteUnowned(t.Context()); err != nil {
		t.Fatal(err)
	}
	if jobs := again.jobs.ListAll(metav1.NamespaceAll); len(jobs) != 0 {
		t.Errorf("left: %+v", jobs)
	}
	if !strings.Contains(log.String(), "item=00000000000000af") {
		t.Errorf("log: %s", &log)
	}
}
