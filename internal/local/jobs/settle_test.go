package jobs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// claimed is a change that makes a Job as delivery by claim does.
func claimed(owner types.UID) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Finalizers = []string{v1alpha1.FinalizerSettle}
		j.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "keda.sh/v1alpha1", Kind: "ScaledJob", Name: "sj", UID: owner, Controller: ptr.To(true),
		}}
	}
}

func (e *env) createWith(item []byte, job *batchv1.Job) *batchv1.Job {
	e.t.Helper()
	created, err := e.Create(e.t.Context(), job, &scaledjob.ItemFile{Path: "/offboard/item", Content: item})
	if err != nil {
		e.t.Fatalf("Create: %v", err)
	}
	return created
}

// folder is that of a Job.
func (e *env) folder(name string) string { return filepath.Join(e.dir, jobsDir, "default", name) }

// TestItemFile hands items to processes, which compare them with what was handed.
func TestItemFile(t *testing.T) {
	t.Parallel()
	large := make([]byte, 5<<20)
	for i := range large {
		large[i] = byte(rand.IntN(256))
	}
	e := openReal(t, t.TempDir())
	wanted := t.TempDir()
	for name, content := range map[string][]byte{
		"text": []byte("a \"quoted\"\n'line' $(HOME) \x00\xff"), "empty": {}, "nothing": nil, "large": large,
	} {
		want := filepath.Join(wanted, name)
		if err := os.WriteFile(want, content, 0o600); err != nil {
			t.Fatal(err)
		}
		compare := shell(`cmp "$OFFBOARD_ITEM_FILE" ` + want)
		e.createWith(content, newJob(name, claimed("u"), compare, backoffLimit(0), func(j *batchv1.Job) {
			main := j.Spec.Template.Spec.Containers[0]
			j.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "before", Command: main.Command}}
			j.Spec.Template.Spec.Containers = append(j.Spec.Template.Spec.Containers,
				corev1.Container{Name: "beside", Command: main.Command})
		}))
	}
	e.create(newJob("none", shell(`test "$OFFBOARD_ITEM_FILE" = ""`), backoffLimit(0)))
	for _, name := range []string{"text", "empty", "nothing", "large", "none"} {
		job := e.wait(name, "its end", func(j scaledjob.Job) bool { return Finished(j.Job) != nil })
		if Finished(job.Job).Type != batchv1.JobComplete {
			t.Errorf("%s: %+v", name, job.Pods[0].Status.ContainerStatuses)
		}
	}
	info, err := os.Stat(filepath.Join(e.folder("large"), itemFile))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != int64(len(large)) {
		t.Errorf("the file of the item: %+v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(e.folder("large"), stateFile)); err != nil || info.Size() > 64<<10 {
		t.Errorf("the state of the Job: %+v, %v", info, err)
	}
}

// TestItemFileSurvives runs a Job again after a kill; the folder that is used again after the Job holds no item.
func TestItemFileSurvives(t *testing.T) {
	t.Parallel()
	var e *env
	read := make(chan string, 1)
	runner := newScriptedRunner()
	runner.onStart = func(_ *scriptedRunner, pod *corev1.Pod) {
		data, err := os.ReadFile(e.ItemPath(pod))
		if err != nil {
			t.Error(err)
		}
		read <- string(data)
	}
	e = open(t, runner)
	e.createWith([]byte("item"), newJob("a", claimed("u")))
	if got := <-read; got != "item" {
		t.Errorf("at the start: %q", got)
	}
	e.waitRunning("a", 1)
	e.crash()
	again := newScriptedRunner()
	again.onStart = runner.onStart
	e = reopen(t, e.dir, again, testStart)
	e.wait("a", "the failure", func(j scaledjob.Job) bool { return j.Status.Failed == 1 })
	e.stepUntil(firstRetryDelay, "the retry", func() bool { return len(again.startedPods()) == 1 })
	if got := <-read; got != "item" {
		t.Errorf("after a kill: %q", got)
	}
	again.end(again.startedPods()[0].UID, 0)
	done := e.waitCondition("a", batchv1.JobComplete)
	if err := e.Delete(t.Context(), "default", "a", done.UID, ""); err != nil {
		t.Fatal(err)
	}
	if err := e.Settled(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	again.onStart = nil
	next := e.create(newJob("b"))
	if path := e.ItemPath(e.waitStarted(2)[1]); path != "" {
		t.Errorf("Job %s without an item has %s", next.Name, path)
	}
	if _, err := os.Stat(filepath.Join(e.folder("b"), itemFile)); !os.IsNotExist(err) {
		t.Errorf("the item of another Job: %v", err)
	}
}

// createOnFullDisk creates a Job whose item does not fit, and says how that ended.
func createOnFullDisk(dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		panic(err)
	}
	c, err := Open(context.Background(), Config{Dir: dir, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	job, err := c.Create(context.Background(), newJob("a"), &scaledjob.ItemFile{Content: make([]byte, 5<<20)})
	fmt.Println(job != nil, len(c.ListAll("")), err)
	_, err = c.Create(context.Background(), newJob("a"), &scaledjob.ItemFile{Content: make([]byte, 1<<10)})
	fmt.Println(err)
	os.Exit(0)
}

func TestItemOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullDirVar+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	if !strings.HasPrefix(lines[0], "false 0 job default/a is not created: ") || lines[1] != "<nil>" {
		t.Errorf("got %s", out)
	}
	left, err := os.ReadDir(filepath.Join(dir, jobsDir, "default"))
	if err != nil || len(left) != 1 || left[0].Name() != "a" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCreateAgain creates a Job under a name that exists.
func TestCreateAgain(t *testing.T) {
	t.Parallel()
	const name = "work.item-00000000000000af-2"
	e := open(t, newScriptedRunner())
	created := e.createWith([]byte("first"), newJob(name, claimed("u")))
	e.waitStarted(1)
	for _, test := range []struct {
		what   string
		change func(*batchv1.Job)
		same   bool
	}{
		{"the same ScaledJob", claimed("u"), true},
		{"another one", claimed("v"), false},
		{"nobody", func(*batchv1.Job) {}, false},
		{"an owner that does not control it", func(j *batchv1.Job) {
			claimed("u")(j)
			j.OwnerReferences[0].Controller = nil
		}, false},
	} {
		again, err := e.Create(t.Context(), newJob(name, test.change), &scaledjob.ItemFile{Content: []byte("second")})
		if test.same && (err != nil || again.UID != created.UID) || !test.same && !apierrors.IsAlreadyExists(err) {
			t.Errorf("%s: %v, %v", test.what, again, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(e.folder(name), itemFile)); string(data) != "first" {
		t.Errorf("item = %q, %v", data, err)
	}
	// A Job that is on its way out is still the same one.
	if err := e.Delete(t.Context(), "default", name, created.UID, ""); err != nil {
		t.Fatal(err)
	}
	again, err := e.Create(t.Context(), newJob(name, claimed("u")), nil)
	if err != nil || again.UID != created.UID || again.DeletionTimestamp == nil {
		t.Errorf("while it is deleted: %v, %v", again, err)
	}
	if err := e.Settled(t.Context(), scaledjob.Job{Job: created}); err != nil {
		t.Fatal(err)
	}
	if again, err := e.Create(t.Context(), newJob(name, claimed("v")), nil); err != nil || again.UID == created.UID {
		t.Errorf("when it is gone: %v, %v", again, err)
	}
	if n := len(e.waitStarted(2)); n != 2 {
		t.Errorf("%d Pods were started, want 2", n)
	}
}

// TestCreateAtOnce creates Jobs of the same names from several goroutines, while they are removed.
func TestCreateAtOnce(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	var mu sync.Mutex
	uids := map[string]types.UID{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range 20 {
				name := fmt.Sprint("job-", n)
				job, err := e.Create(t.Context(), newJob(name, claimed("u")), &scaledjob.ItemFile{Content: []byte(name)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if before, found := uids[name]; found && before != job.UID {
					t.Errorf("%s exists twice", name)
				}
				uids[name] = job.UID
				mu.Unlock()
				// One that comes and goes: each Create gives a Job, whoever has made it.
				if job, err = e.Create(t.Context(), newJob("fleeting", claimed("u")), nil); err != nil {
					t.Error(err)
					return
				}
				if err := e.Abandon(t.Context(), job); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if jobs := e.ListAll(""); len(jobs) != 20 {
		t.Errorf("%d Jobs, want 20", len(jobs))
	}
}

// TestSettled settles Jobs in several states, which costs one line in the journal each.
func TestSettled(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		finalizers []string
		deleted    bool
		left       []string // the finalizers afterwards
		gone       bool
	}{
		{"finished", []string{v1alpha1.FinalizerSettle}, false, nil, false},
		{"with another finalizer", []string{"a.dev/b", v1alpha1.FinalizerSettle, "c.dev/d"}, false,
			[]string{"a.dev/b", "c.dev/d"}, false},
		{"not to be settled", nil, false, nil, false},
		{"deleted", []string{v1alpha1.FinalizerSettle}, true, nil, true},
		{"deleted, with another finalizer", []string{v1alpha1.FinalizerSettle, "a.dev/b"}, true, []string{"a.dev/b"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := open(t, newScriptedRunner())
			e.createWith([]byte("item"), newJob("a", func(j *batchv1.Job) { j.Finalizers = test.finalizers }))
			e.runner.end(e.waitStarted(1)[0].UID, 0)
			job := e.waitCondition("a", batchv1.JobComplete)
			if test.deleted {
				if err := e.Delete(t.Context(), "default", "a", job.UID, ""); err != nil {
					t.Fatal(err)
				}
			}
			before := e.journalLines("a")
			for range 2 {
				if err := e.Settled(t.Context(), job); err != nil { // with an old version of the Job
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(e.folder("a"), itemFile)); !os.IsNotExist(err) {
				t.Errorf("the item: %v", err)
			}
			if test.gone {
				if _, err := e.Get("default", "a"); !apierrors.IsNotFound(err) {
					t.Errorf("Get: %v", err)
				}
				return
			}
			want := before
			if !slices.Equal(test.finalizers, test.left) {
				want++
			}
			if lines := e.journalLines("a"); lines != want {
				t.Errorf("%d lines in the journal, want %d", lines, want)
			}
			e.crash()
			again := reopen(t, e.dir, newScriptedRunner(), testStart)
			got, err := again.Get("default", "a")
			if err != nil || !slices.Equal(got.Finalizers, test.left) || got.Status.Succeeded != 1 {
				t.Errorf("afterwards: %+v, %v", got.Job, err)
			}
			other := scaledjob.Job{Job: newJob("nobody")}
			if err := again.Settled(t.Context(), other); err != nil {
				t.Errorf("a Job that is gone: %v", err)
			}
			other = scaledjob.Job{Job: newJob("a", func(j *batchv1.Job) { j.UID = "another" })}
			if err := again.Settled(t.Context(), other); err != nil {
				t.Errorf("another Job of that name: %v", err)
			}
		})
	}
}

func (e *env) journalLines(job string) int {
	e.t.Helper()
	data, err := os.ReadFile(filepath.Join(e.folder(job), stateFile))
	if err != nil {
		e.t.Fatal(err)
	}
	return bytes.Count(data, []byte("\n"))
}

// TestSettledWithoutDisk settles a Job whose state cannot be written, and again when it can.
func TestSettledWithoutDisk(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", claimed("u")))
	e.runner.end(e.waitStarted(1)[0].UID, 0)
	job := e.waitCondition("a", batchv1.JobComplete)
	dir := e.folder("a")
	if err := os.Rename(dir, dir+"_away"); err != nil {
		t.Fatal(err)
	}
	if err := e.Settled(t.Context(), job); err == nil {
		t.Error("Settled has returned without an error")
	}
	if got, err := e.Get("default", "a"); err != nil || len(got.Finalizers) != 1 {
		t.Errorf("not settled: %+v, %v", got.Job, err)
	}
	if err := os.Rename(dir+"_away", dir); err != nil {
		t.Fatal(err)
	}
	if err := e.Settled(t.Context(), job); err != nil {
		t.Error(err)
	}
	if got, err := e.Get("default", "a"); err != nil || len(got.Finalizers) != 0 {
		t.Errorf("settled: %+v, %v", got.Job, err)
	}
}

// TestDeletedJobStaysUntilSettled deletes a Job whose process takes its time to end.
func TestDeletedJobStaysUntilSettled(t *testing.T) {
	t.Parallel()
	e := openReal(t, t.TempDir())
	may := filepath.Join(t.TempDir(), "end")
	created := e.createWith([]byte("item"), newJob("a", claimed("u"), shell(
		`trap 'while ! test -e `+may+`; do sleep 0.01; done; cat "$OFFBOARD_ITEM_FILE"; exit 1' TERM
		echo ready; while :; do sleep 0.01; done`)))
	e.wait("a", "it is ready", func(j scaledjob.Job) bool {
		if len(j.Pods) == 0 {
			return false
		}
		log, err := os.ReadFile(e.LogPath(j.Pods[0], "main", 0))
		return err == nil && len(log) > 0 && j.Pods[0].Status.Phase == corev1.PodRunning
	})
	if err := e.Delete(t.Context(), "default", "a", created.UID, ""); err != nil {
		t.Fatal(err)
	}
	listed := func() scaledjob.Job {
		t.Helper()
		jobs, err := e.List(t.Context(), sjKey)
		if err != nil || len(jobs) != 1 || jobs[0].DeletionTimestamp == nil || len(jobs[0].Pods) != 1 {
			t.Fatalf("List = %+v, %v", jobs, err)
		}
		return jobs[0]
	}
	if err := e.EndPods(t.Context(), listed()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Pod is being ended", func() bool { return listed().Pods[0].DeletionTimestamp != nil })
	if hasEnded(listed().Pods[0]) {
		t.Errorf("the Pod has ended: %+v", listed().Pods[0].Status)
	}
	if err := os.WriteFile(may, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Pod has ended", func() bool { return hasEnded(listed().Pods[0]) })
	job := listed()
	if log, err := os.ReadFile(e.LogPath(job.Pods[0], "main", 0)); string(log) != "ready\nitem" {
		t.Errorf("log = %q, %v", log, err)
	}
	if err := e.Settled(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if jobs := e.ListAll(""); len(jobs) != 0 {
		t.Errorf("left: %+v", jobs)
	}
	if _, err := os.Stat(e.folder("a")); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
}

// TestDeletedJobStaysOverARestart kills the program while a deleted Job is being ended.
func TestDeletedJobStaysOverARestart(t *testing.T) {
	t.Parallel()
	runner := newScriptedRunner()
	runner.ignoreStop = true
	e := open(t, runner)
	created := e.createWith([]byte("item"), newJob("a", claimed("u")))
	e.waitStarted(1)
	e.waitRunning("a", 1)
	if err := e.Delete(t.Context(), "default", "a", created.UID, ""); err != nil {
		t.Fatal(err)
	}
	e.crash()
	e = reopen(t, e.dir, newScriptedRunner(), testStart)
	e.wait("a", "the Pod has ended", func(j scaledjob.Job) bool {
		return j.DeletionTimestamp != nil && len(j.Pods) == 1 && hasEnded(j.Pods[0]) && j.Status.Failed == 1
	})
	e.clock.Step(firstRetryDelay)
	if n := len(e.runner.startedPods()); n != 0 {
		t.Errorf("%d Pods were started", n)
	}
	if err := e.DeleteOwned(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if jobs := e.ListAll(""); len(jobs) != 0 {
		t.Errorf("left when the owner is gone: %+v", jobs)
	}
}
