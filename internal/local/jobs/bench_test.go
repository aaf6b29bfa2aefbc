package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
)

// instantRunner runs Pods in no time, so that what is measured is the Controller.
type instantRunner struct{ c *Controller }

func (i *instantRunner) Start(pod *corev1.Pod, update func(corev1.PodStatus)) error {
	i.c.RecordStart(pod, "main", 4711, "1")
	update(runningStatus(0))
	update(endedStatus(0))
	return nil
}

func (i *instantRunner) Stop(types.UID, pods.Stop) bool { return false }

// waiters are told of changes, by the name of the ScaledJob.
var waiters sync.Map // string to chan struct{}

func changed(key types.NamespacedName) {
	if waiter, ok := waiters.Load(key.Name); ok {
		select {
		case waiter.(chan struct{}) <- struct{}{}:
		default:
		}
	}
}

func openBench(b *testing.B, dir string) *Controller {
	b.Helper()
	c, err := Open(b.Context(), Config{
		Dir: dir, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler),
		KillLeftovers: process.KillLeftovers,
		OnChange:      changed,
	})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkJob measures the whole life of a Job, 25 at a time: create, run, finish, and delete after 100 later ones.
// cpu-ms/op is the CPU time of this process, without that of the Jobs' own.
func BenchmarkJob(b *testing.B) {
	b.Run("controller only", func(b *testing.B) {
		c := openBench(b, b.TempDir())
		c.Start(&instantRunner{c})
		benchmarkJobs(b, c)
	})
	b.Run("processes", func(b *testing.B) {
		c := openBench(b, b.TempDir())
		runner, err := realRunner(c)
		if err != nil {
			b.Fatal(err)
		}
		c.Start(runner)
		benchmarkJobs(b, c)
	})
	b.Run("processes of items", func(b *testing.B) {
		dir := b.TempDir()
		keeper, err := process.OpenKeeper(b.Context(), filepath.Join(dir, "keeper"))
		if err != nil {
			b.Fatal(err)
		}
		c := openBench(b, dir)
		runner, err := pods.New(pods.Config{
			Command: runTrue, LogPath: c.LogPath, ReportPath: c.ReportPath, RecordStart: c.RecordStart,
			Keeper: keeper, ExitPath: c.ExitPath,
		})
		if err != nil {
			b.Fatal(err)
		}
		c.Start(runner)
		benchmarkJobs(b, c, claim)
		if err := keeper.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("processes without a controller", func(b *testing.B) {
		dir := b.TempDir()
		runner, err := pods.New(pods.Config{
			Command: runTrue,
			LogPath: func(pod *corev1.Pod, container string, _ int32) string { return dir + "/" + pod.Name + container },
		})
		if err != nil {
			b.Fatal(err)
		}
		job := newJob("x")
		SetDefaults(job)
		parallel(b, func(n int) {
			done := make(chan struct{})
			pod := newPod(job, fmt.Sprint("x-", n), newUID(), time.Now())
			if err := runner.Start(pod, func(s corev1.PodStatus) {
				if s.Phase == corev1.PodSucceeded {
					close(done)
				}
			}); err != nil {
				b.Error(err)
			}
			<-done
		})
		if err := runner.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
}

func runTrue(context.Context, *corev1.Pod, *corev1.Container) (pods.Command, error) {
	return pods.Command{Args: []string{"/bin/true"}, Dir: "/"}, nil
}

func realRunner(c *Controller) (*pods.Runner, error) {
	return pods.New(pods.Config{
		Command: runTrue, LogPath: c.LogPath, ReportPath: c.ReportPath, RecordStart: c.RecordStart,
	})
}

// parallel runs b.N calls, 25 at a time, and reports the CPU time of each.
func parallel(b *testing.B, f func(n int)) {
	b.ReportAllocs()
	var next atomic.Int64
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 25 {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				f(int(n))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(time.Millisecond)/float64(b.N), "cpu-ms/op")
}

func benchmarkJobs(b *testing.B, c *Controller, change ...func(*batchv1.Job)) {
	const history = 100
	template := newJob("", change...)
	var finished sync.Map
	parallel(b, func(n int) {
		job := template.DeepCopy()
		job.Name = fmt.Sprint("job-", n)
		job.Labels[v1alpha1.LabelScaledJob] = job.Name
		change := make(chan struct{}, 1)
		waiters.Store(job.Name, change)
		if _, err := c.Create(b.Context(), job, nil); err != nil {
			b.Error(err)
			return
		}
		for {
			j, err := c.Get("default", job.Name)
			if err != nil || Finished(j.Job) != nil {
				break
			}
			<-change
		}
		waiters.Delete(job.Name)
		finished.Store(n, nil)
		if _, ok := finished.Load(n - history); ok {
			name := fmt.Sprint("job-", n-history)
			if err := c.settle(b.Context(), types.NamespacedName{Namespace: "default", Name: name}, ""); err != nil {
				b.Error(err)
			}
			if err := c.Delete(b.Context(), "default", name, "", metav1.DeletePropagationBackground); err != nil {
				b.Error(err)
			}
		}
	})
	if err := c.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStartLatency measures the time from Create to the start of the process, for Jobs without and with an item.
func BenchmarkStartLatency(b *testing.B) {
	b.Run("pop", func(b *testing.B) { benchmarkStart(b) })
	b.Run("claim", func(b *testing.B) { benchmarkStart(b, claim) })
}

func benchmarkStart(b *testing.B, change ...func(*batchv1.Job)) {
	b.Helper()
	started := make(chan time.Time, 1)
	dir := b.TempDir()
	keeper, err := process.OpenKeeper(b.Context(), filepath.Join(dir, "keeper"))
	if err != nil {
		b.Fatal(err)
	}
	c := openBench(b, dir)
	runner, err := pods.New(pods.Config{
		Command: runTrue, LogPath: c.LogPath, ReportPath: c.ReportPath,
		RecordStart: func(pod *corev1.Pod, container string, pid int, startID string) {
			started <- time.Now()
			c.RecordStart(pod, container, pid, startID)
		},
		Keeper: keeper, ExitPath: c.ExitPath,
	})
	if err != nil {
		b.Fatal(err)
	}
	c.Start(runner)
	var latencies []time.Duration
	for n := 0; b.Loop(); n++ {
		begin := time.Now()
		if _, err := c.Create(b.Context(), newJob(fmt.Sprint("job-", n), change...), nil); err != nil {
			b.Fatal(err)
		}
		latencies = append(latencies, (<-started).Sub(begin))
		for len(c.Active()) > 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	slices.Sort(latencies)
	b.ReportMetric(float64(latencies[len(latencies)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(latencies[len(latencies)*99/100])/1e6, "p99-ms")
	if err := errors.Join(c.Drain(b.Context()), keeper.Close()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkList measures one List of 200 Jobs among 10,000.
func BenchmarkList(b *testing.B) {
	c := &Controller{index: newIndex()}
	for n := range 10_000 {
		job := newJob(fmt.Sprint("job-", n))
		job.Labels = map[string]string{v1alpha1.LabelScaledJob: fmt.Sprint("sj-", n/200)}
		r := &record{key: types.NamespacedName{Namespace: "default", Name: job.Name}, sequence: uint64(n), job: job}
		r.publish("1")
		c.index.insert(r, job)
	}
	b.ReportAllocs()
	for b.Loop() {
		if jobs, _ := c.List(b.Context(), types.NamespacedName{Namespace: "default", Name: "sj-7"}); len(jobs) != 200 {
			b.Fatal(len(jobs))
		}
	}
}

// BenchmarkOpen measures loading 10,000 finished Jobs.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	c := openBench(b, dir)
	c.Start(&instantRunner{c})
	for n := range 10_000 {
		if _, err := c.Create(b.Context(), newJob(fmt.Sprint("job-", n)), nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c := openBench(b, dir)
		if n := len(c.ListAll("")); n != 10_000 {
			b.Fatalf("%d Jobs loaded", n)
		}
	}
}

// cpuTime is the CPU time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
