package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// The rows of what many ScaledJobs cost.
const (
	rowReady       = "apply to all Ready"
	rowPlain       = "as many plain creates and status patches"
	rowMemory      = "resident memory"
	rowPerObject   = "memory per ScaledJob over the object itself"
	rowObject      = "the object itself, as it was read"
	rowProcessor   = "processor, idle"
	rowConnections = "Redis connections"
	rowCommands    = "Redis commands a second, idle"
	rowPush50      = "push to Job, a random list, p50"
	rowPush99      = "push to Job, a random list, p99"
	rowLeast       = "one plain create to Job object, p50"
)

// scaleTargets are what was promised, by the number of ScaledJobs.
var scaleTargets = map[int]map[string]target{
	1000: {
		rowReady: atMost(10), rowMemory: atMost(100), rowPerObject: atMost(20), rowProcessor: atMost(0.5),
		rowConnections: atMost(4), rowCommands: atMost(5), rowPush50: atMost(20), rowPush99: atMost(150),
	},
	10000: {
		rowReady: atMost(120), rowMemory: atMost(500), rowPerObject: atMost(20), rowProcessor: atMost(2),
		rowPush99: atMost(500),
	},
}

// scale measures what idle ScaledJobs cost that all look at lists of one Redis, in growing numbers, each on a control
// plane of its own.
func (o options) scale(ctx context.Context, redis *server) error {
	var all []sizeFigures
	for _, size := range o.sizes {
		measured, err := o.scaleOf(ctx, redis, size)
		if err != nil {
			return fmt.Errorf("with %d ScaledJobs: %w", size, err)
		}
		all = append(all, measured)
	}
	if o.plot == "" {
		return nil
	}
	return plotGrowth(o.plot, all)
}

// sizeFigures are what was measured with that many ScaledJobs, by the row's name.
type sizeFigures struct {
	size    int
	figures map[string]figure
}

func (s sizeFigures) row(what string, f figure) {
	s.figures[what] = f
	row(fmt.Sprintf("%d ScaledJobs: %s", s.size, what), f, scaleTargets[s.size][what])
}

func (o options) scaleOf(ctx context.Context, redis *server, size int) (measured sizeFigures, err error) {
	measured = sizeFigures{size, map[string]figure{}}
	p, err := startPlane(ctx)
	if err != nil {
		return measured, err
	}
	defer p.stop()
	plain, err := p.crowd(ctx, redis, size)
	if err != nil {
		return measured, err
	}
	// The least that it takes: the objects and one status each, written by as many writers, and nobody who looks.
	began := time.Now()
	if err := plain.apply(ctx); err != nil {
		return measured, err
	}
	if err := plain.markAll(ctx); err != nil {
		return measured, err
	}
	measured.row(rowPlain, seconds(time.Since(began)))

	at, err := p.crowd(ctx, redis, size)
	if err != nil {
		return measured, err
	}
	op, err := o.startOperator(ctx, p, at.namespace, "--leader-election-namespace", at.namespace)
	if err != nil {
		return measured, err
	}
	defer op.stop()
	if err := o.crowdCosts(ctx, at, op, redis, measured); err != nil {
		return measured, fmt.Errorf("%w\n%s", err, op.log.String())
	}
	return measured, nil
}

// crowdCosts measures an operator that has just been started for the ScaledJobs.
func (o options) crowdCosts(
	ctx context.Context, at *crowd, op *operator, redis *server, measured sizeFigures,
) error {
	if err := at.leading(ctx); err != nil {
		return err
	}
	none, err := op.anonymous()
	if err != nil {
		return err
	}
	took, err := at.ready(ctx)
	if err != nil {
		return err
	}
	measured.row(rowReady, seconds(took))

	if err := o.crowdIdle(ctx, at, op, redis, measured); err != nil {
		return err
	}
	resident, err := op.resident()
	if err != nil {
		return err
	}
	measured.row(rowMemory, mb(resident))
	some, err := op.anonymous()
	if err != nil {
		return err
	}
	object, err := at.objectMemory(ctx)
	if err != nil {
		return err
	}
	measured.row(rowPerObject, figure{float64(some-none)/float64(at.size)/1e3 - object, "kB", 1})
	measured.row(rowObject, figure{object, "kB", 1})
	return o.crowdLatency(ctx, at, redis, measured)
}

// crowdIdle takes what nothing to do costs.
func (o options) crowdIdle(
	ctx context.Context, at *crowd, op *operator, redis *server, measured sizeFigures,
) error {
	if err := at.quiet(ctx); err != nil {
		return err
	}
	cpu, err := op.cpu()
	if err != nil {
		return err
	}
	before, _, err := redis.client.load(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sleep(ctx, o.idle); err != nil {
		return err
	}
	after, connections, err := redis.client.load(ctx)
	if err != nil {
		return err
	}
	elapsed := time.Since(began).Seconds()
	cpuAfter, err := op.cpu()
	if err != nil {
		return err
	}
	measured.row(rowProcessor, figure{100 * (cpuAfter - cpu).Seconds() / elapsed, "%", 2})
	measured.row(rowConnections, figure{float64(connections - at.others), "", 0})
	measured.row(rowCommands, figure{float64(after-before) / elapsed, "/s", 1})
	return nil
}

// crowdLatency pushes one item at a time onto a list at random, and takes the time until a watch shows the Job; in turn
// with that it creates a Job plainly.
func (o options) crowdLatency(ctx context.Context, at *crowd, redis *server, measured sizeFigures) error {
	took, least := make([]time.Duration, 0, o.pushes), make([]time.Duration, 0, o.pushes)
	order := rand.New(rand.NewPCG(1, uint64(at.size))).Perm(at.size)
	for i := range o.pushes {
		chosen := order[i%at.size]
		t, err := at.reaction(ctx, chosen, func() error { return redis.client.pushTo(ctx, at.list(chosen), "item") })
		if err != nil {
			return fmt.Errorf("push %d: %w", i, err)
		}
		took = append(took, t)
		if err := redis.client.Do(ctx, redis.client.B().Del().Key(at.list(chosen)).Build()).Error(); err != nil {
			return err
		}
		plain := at.plain(chosen)
		t, err = at.reaction(ctx, chosen, func() error {
			_, err := at.Client().BatchV1().Jobs(at.namespace).Create(ctx, plain, metav1.CreateOptions{})
			return err
		})
		if err != nil {
			return fmt.Errorf("plain Job %d: %w", i, err)
		}
		least = append(least, t)
	}
	measured.row(rowPush50, ms(quantile(took, 0.5)))
	measured.row(rowPush99, ms(quantile(took, 0.99)))
	measured.row(rowLeast, ms(quantile(least, 0.5)))
	return nil
}

// crowd is a namespace for many ScaledJobs, each with a list of its own.
type crowd struct {
	*place
	size int
	// others are the connections to Redis that there are without the operator.
	others int64
}

func (p *plane) crowd(ctx context.Context, redis *server, size int) (*crowd, error) {
	_, connections, err := redis.client.load(ctx)
	if err != nil {
		return nil, err
	}
	at, err := p.emptyPlace(ctx, redis, 10, with, nil)
	return &crowd{at, size, connections}, err
}

func (c *crowd) name(i int) string { return fmt.Sprintf("bench-%05d", i) }

func (c *crowd) list(i int) string { return c.namespace + "/" + c.name(i) }

// object is the ScaledJob of that number.
func (c *crowd) object(i int) *v1alpha1.ScaledJob {
	object := c.scaledJob.DeepCopy()
	object.Name = c.name(i)
	object.Spec.Triggers[0].Metadata["listName"] = c.list(i)
	return object
}

// plain is a Job as the operator makes it for the ScaledJob of that number, but for its owner.
func (c *crowd) plain(i int) *batchv1.Job {
	job := c.plainJob()
	job.GenerateName = c.name(i) + "-"
	job.OwnerReferences, job.Labels = nil, map[string]string{"plain": "yes"}
	return job
}

// objectMemory is how many kB one of the ScaledJobs takes in memory, without the record of how it was written: the mean
// of many that were read one by one.
func (c *crowd) objectMemory(ctx context.Context) (float64, error) {
	object := &v1alpha1.ScaledJob{}
	if err := c.scaledJobs.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: c.name(0)}, object); err != nil {
		return 0, err
	}
	object.ManagedFields = nil
	text, err := json.Marshal(object)
	if err != nil {
		return 0, err
	}
	const many = 1000
	objects := make([]v1alpha1.ScaledJob, many)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range objects {
		if err := json.Unmarshal(text, &objects[i]); err != nil {
			return 0, err
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	pointed := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	runtime.KeepAlive(objects)
	return (pointed/many + float64(unsafe.Sizeof(*object))) / 1e3, nil
}

// each does something for every number, as many at a time as there are writers.
func (c *crowd) each(do func(i int) error) error {
	var next atomic.Int64
	failures := make([]error, writers)
	var working sync.WaitGroup
	for writer := range writers {
		working.Go(func() {
			for failures[writer] == nil {
				i := int(next.Add(1)) - 1
				if i >= c.size {
					return
				}
				failures[writer] = do(i)
			}
		})
	}
	working.Wait()
	return errors.Join(failures...)
}

// apply creates the ScaledJobs.
func (c *crowd) apply(ctx context.Context) error {
	return c.each(func(i int) error { return c.scaledJobs.Create(ctx, c.object(i)) })
}

// markAll patches each ScaledJob's status once.
func (c *crowd) markAll(ctx context.Context) error {
	return c.each(func(i int) error {
		before := &v1alpha1.ScaledJob{}
		before.Namespace, before.Name = c.namespace, c.name(i)
		after := before.DeepCopy()
		after.Status.Conditions.Set(v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue,
			Reason: "Plain", Message: "This is written by nobody who looks at the queue"})
		return c.scaledJobs.Status().Patch(ctx, after, client.MergeFrom(before))
	})
}

// leading waits until the operator looks after ScaledJobs: it makes one more ready, and deletes it.
func (c *crowd) leading(ctx context.Context) error {
	first := c.object(c.size)
	if err := c.scaledJobs.Create(ctx, first); err != nil {
		return err
	}
	err := eventually(ctx, "an operator at work", func() error {
		if err := c.scaledJobs.Get(ctx, client.ObjectKeyFromObject(first), first); err != nil {
			return err
		}
		return readiness(first)
	})
	return errors.Join(err, c.scaledJobs.Delete(ctx, first))
}

// quiet waits until no event has been recorded for a while: those of the beginning are recorded each in its turn.
func (c *crowd) quiet(ctx context.Context) error {
	const while = 5 * time.Second
	before := int64(-1)
	return eventually(ctx, "the end of events", func() error {
		events, err := c.Client().CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		now := int64(len(events.Items)) + ptr.Deref(events.RemainingItemCount, 0)
		if now == before {
			return nil
		}
		before = now
		return errors.Join(fmt.Errorf("there are %d events, and more come", now), sleep(ctx, while))
	})
}

func readiness(sj *v1alpha1.ScaledJob) error {
	if ready := sj.Status.Conditions.Get(v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
		return fmt.Errorf("ScaledJob %s is %+v", sj.Name, ready)
	}
	return nil
}

// ready creates the ScaledJobs and takes the time until a watch has shown all of them Ready.
func (c *crowd) ready(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	watching, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	began := time.Now()
	var applying sync.WaitGroup
	defer applying.Wait()
	applying.Go(func() {
		if err := c.apply(ctx); err != nil {
			fail(err)
		}
	})
	ready := map[string]bool{}
	for len(ready) < c.size {
		list := &v1alpha1.ScaledJobList{}
		// Whoever is left behind by a watch begins anew, as this does.
		if err := c.scaledJobs.List(watching, list, client.InNamespace(c.namespace)); err != nil {
			return 0, fmt.Errorf("%d ScaledJobs were ready: %w", len(ready), errors.Join(err, context.Cause(watching)))
		}
		note := func(sj *v1alpha1.ScaledJob) {
			if readiness(sj) == nil {
				ready[sj.Name] = true
			}
		}
		for i := range list.Items {
			note(&list.Items[i])
		}
		shown, err := c.scaledJobs.Watch(watching, &v1alpha1.ScaledJobList{}, client.InNamespace(c.namespace),
			&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}})
		if err != nil {
			return 0, err
		}
		for event := range shown.ResultChan() {
			if sj, ok := event.Object.(*v1alpha1.ScaledJob); ok {
				note(sj)
			}
			if len(ready) == c.size {
				break
			}
		}
		shown.Stop()
	}
	return time.Since(began), nil
}

// reaction takes the time from what begin does until a watch shows the Job, which must be of the ScaledJob of that
// number, and deletes the Job.
func (c *crowd) reaction(ctx context.Context, i int, begin func() error) (time.Duration, error) {
	shown, err := c.watch(ctx)
	if err != nil {
		return 0, err
	}
	defer shown.stop()
	if err := sleep(ctx, pause); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := begin(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen, name, err := shown.next(ctx, 1)
	if err == nil && !strings.HasPrefix(name, c.name(i)+"-") {
		err = fmt.Errorf("the Job %s came, and none for ScaledJob %s", name, c.name(i))
	}
	if err != nil {
		return 0, err
	}
	background := metav1.DeletePropagationBackground
	return seen.Sub(start), c.Client().BatchV1().Jobs(c.namespace).Delete(ctx, name,
		metav1.DeleteOptions{PropagationPolicy: &background})
}

// load is how many commands the server has run so far, and how many connections it has.
func (c redisClient) load(ctx context.Context) (commands, connections int64, err error) {
	info, err := c.Do(ctx, c.B().Info().Section("stats", "clients").Build()).ToString()
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(info) {
		name, count, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "total_commands_processed":
			commands, err = strconv.ParseInt(count, 10, 64)
		case "connected_clients":
			connections, err = strconv.ParseInt(count, 10, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return commands, connections, nil
}

// seconds is a time in seconds.
func seconds(d time.Duration) figure { return figure{d.Seconds(), "s", 1} }

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
