package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

const (
	// writers is how many plain writers create Jobs at the same time: as many as the operator's own.
	writers = 32
	// pause is for how long nothing happens before each push of the latency.
	pause = 50 * time.Millisecond
)

// cluster measures `offboard operator` on a control plane of its own.
func (o options) cluster(ctx context.Context, redis *server) error {
	p, err := startPlane(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	for _, measure := range []func(context.Context, *plane, *server) error{
		o.clusterLatency, o.clusterIdleCost, o.clusterThroughput,
	} {
		if err := measure(ctx, p, redis); err != nil {
			return fmt.Errorf("%w\n%s", err, p.LogTails(10))
		}
	}
	return nil
}

// clusterLatency pushes one item at a time while nothing else happens, and takes the time from the push until a watch
// shows the Job. In turn with that it creates a Job plainly, where no operator looks.
func (o options) clusterLatency(ctx context.Context, p *plane, redis *server) error {
	if err := o.clusterClaimLatency(ctx, p, redis); err != nil {
		return err
	}
	plain, err := p.place(ctx, redis, o.jobs, with, nil)
	if err != nil {
		return err
	}
	ours, op, err := o.operate(ctx, p, redis, with, nil)
	if err != nil {
		return err
	}
	defer op.stop()
	took, least := make([]time.Duration, 0, o.pushes), make([]time.Duration, 0, o.pushes)
	for i := range o.pushes {
		t, err := o.reaction(ctx, ours, metav1.ConditionFalse,
			func() error { return redis.client.push(ctx, strconv.Itoa(i)) },
			func() error { return redis.client.pop(ctx) })
		if err != nil {
			return fmt.Errorf("push %d: %w\n%s", i, err, op.log.String())
		}
		took = append(took, t)
		t, err = o.reaction(ctx, plain, metav1.ConditionUnknown,
			func() error { return plain.create(ctx) }, func() error { return nil })
		if err != nil {
			return fmt.Errorf("plain Job %d: %w", i, err)
		}
		least = append(least, t)
	}
	row(fmt.Sprintf("push to Job object, p50 of %d", o.pushes), ms(quantile(took, 0.5)), atMost(15))
	row("push to Job object, p99", ms(quantile(took, 0.99)), atMost(100))
	row("one plain create to Job object, p50", ms(quantile(least, 0.5)), target{})
	row("one plain create to Job object, p99", ms(quantile(least, 0.99)), target{})
	return nil
}

// clusterClaimLatency is the same for delivery by claim. The item is done with when its Job is deleted.
func (o options) clusterClaimLatency(ctx context.Context, p *plane, redis *server) error {
	at, op, err := o.operate(ctx, p, redis, with, claims)
	if err != nil {
		return err
	}
	defer op.stop()
	took := make([]time.Duration, 0, o.pushes)
	for i := range o.pushes {
		t, err := o.reaction(ctx, at, metav1.ConditionFalse,
			func() error { return redis.client.push(ctx, strconv.Itoa(i)) }, func() error { return nil })
		if err != nil {
			return fmt.Errorf("push %d: %w\n%s", i, err, op.log.String())
		}
		took = append(took, t)
	}
	row(fmt.Sprintf("by claim: push to Job object, p50 of %d", o.pushes), ms(quantile(took, 0.5)), atMost(20))
	row("by claim: push to Job object, p99", ms(quantile(took, 0.99)), target{})
	return nil
}

// reaction takes the time from what begin does until a watch shows the Job, then takes the work and the Job away and
// waits until everybody knows.
func (o options) reaction(
	ctx context.Context, at *place, inactive metav1.ConditionStatus, begin, end func() error,
) (time.Duration, error) {
	shown, err := at.watch(ctx)
	if err != nil {
		return 0, err
	}
	defer shown.stop()
	time.Sleep(pause)
	start := time.Now()
	if err := begin(); err != nil {
		return 0, err
	}
	looking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen, name, err := shown.next(looking, 1)
	if err != nil {
		return 0, err
	}
	if err := end(); err != nil {
		return 0, err
	}
	err = at.Client().BatchV1().Jobs(at.namespace).Delete(ctx, name,
		metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	if err != nil {
		return 0, err
	}
	return seen.Sub(start), at.settled(ctx, 0, inactive)
}

// clusterIdleCost takes the memory and the processor time of the operator with one ScaledJob and nothing to do.
func (o options) clusterIdleCost(ctx context.Context, p *plane, redis *server) error {
	_, op, err := o.operate(ctx, p, redis, with, nil)
	if err != nil {
		return err
	}
	defer op.stop()
	return costs(ctx, op.process, o.idle, target{}, target{})
}

// burst is what one round of the throughput took of the operator.
type burst struct {
	took time.Duration
	// cpu is its processor time until all Jobs, and the Pods that they get, are there. before and after are its resident
	// memory without a Job and with all of them.
	cpu           time.Duration
	before, after int64
}

// clusterThroughput lets the operator make Jobs for many items at once, and plain writers as many Jobs, in turn. Once
// nobody else does anything with the Jobs, so that their creation is all that there is to do; once they get their Pods
// at the same time, as in any cluster.
func (o options) clusterThroughput(ctx context.Context, p *plane, redis *server) error {
	if _, err := o.compare(ctx, p, redis, without); err != nil {
		return err
	}
	bursts, err := o.compare(ctx, p, redis, with)
	if err != nil {
		return err
	}
	var resident []int64
	var perJob []float64
	for _, b := range bursts {
		resident = append(resident, b.after)
		perJob = append(perJob, float64(b.after-b.before)/float64(o.jobs)/1e3)
	}
	row(fmt.Sprintf("with %d Jobs and their Pods: resident memory", o.jobs), mb(quantile(resident, 0.5)), target{})
	row("more than without them, per Job", figure{quantile(perJob, 0.5), "kB", 1}, target{})
	return nil
}

// compare prints at which rates the operator and the plain writers create Jobs, and returns what that took of the
// operator, round by round.
func (o options) compare(ctx context.Context, p *plane, redis *server, pods pods) ([]burst, error) {
	var ratios, ours, theirs, claimed, shares []float64
	var processor []time.Duration
	bursts := make([]burst, o.rounds)
	for round := range bursts {
		b, err := o.createByOperator(ctx, p, redis, pods, nil)
		if err != nil {
			return nil, err
		}
		c, err := o.createByOperator(ctx, p, redis, pods, claims)
		if err != nil {
			return nil, err
		}
		plainly, err := o.createPlainly(ctx, p, redis, pods)
		if err != nil {
			return nil, err
		}
		jobs := float64(o.jobs)
		ours, theirs = append(ours, jobs/b.took.Seconds()), append(theirs, jobs/plainly.Seconds())
		claimed = append(claimed, jobs/c.took.Seconds())
		shares = append(shares, 100*b.took.Seconds()/c.took.Seconds())
		ratios = append(ratios, 100*plainly.Seconds()/b.took.Seconds())
		processor = append(processor, b.cpu/time.Duration(o.jobs))
		bursts[round] = b
	}
	row(fmt.Sprintf("%d items at once, Jobs %s Pods: created", o.jobs, pods), perSecond(ours), target{})
	row(fmt.Sprintf("as many by %d plain writers", writers), perSecond(theirs), target{})
	row(fmt.Sprintf("share, median of %d rounds in turn", o.rounds), figure{quantile(ratios, 0.5), "%", 0},
		atLeast(80))
	row(fmt.Sprintf("by claim, Jobs %s Pods: created", pods), perSecond(claimed), target{})
	row("share of what delivery by pop reaches", figure{quantile(shares, 0.5), "%", 0}, atLeast(80))
	row("the operator's processor time per Job", ms(quantile(processor, 0.5)), target{})
	return bursts, nil
}

func perSecond(rates []float64) figure { return figure{quantile(rates, 0.5), "/s", 0} }

// createByOperator takes the time from the push of all items until a watch shows the last one's Job.
func (o options) createByOperator(
	ctx context.Context, p *plane, redis *server, pods pods, delivery *v1alpha1.Delivery,
) (b burst, err error) {
	at, op, err := o.operate(ctx, p, redis, pods, delivery)
	if err != nil {
		return b, err
	}
	defer op.stop()
	items := make([]string, o.jobs)
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	if b.before, err = op.resident(); err != nil {
		return b, err
	}
	cpu, err := op.cpu()
	if err != nil {
		return b, err
	}
	b.took, err = o.burst(ctx, at, func() error { return redis.client.push(ctx, items...) })
	if err != nil {
		return b, fmt.Errorf("%w\n%s", err, op.log.String())
	}
	active := metav1.ConditionTrue
	if delivery != nil {
		active = metav1.ConditionFalse // the items are with their Jobs
	}
	if err := at.settled(ctx, o.jobs, active); err != nil {
		return b, err
	}
	if b.cpu, err = op.cpu(); err != nil {
		return b, err
	}
	b.cpu -= cpu
	if b.after, err = op.resident(); err != nil {
		return b, err
	}
	if err := redis.client.clear(ctx); err != nil {
		return b, err
	}
	return b, at.clear(ctx, metav1.ConditionFalse)
}

// createPlainly takes the time that plain writers need, until a watch shows the last Job.
func (o options) createPlainly(ctx context.Context, p *plane, redis *server, pods pods) (time.Duration, error) {
	at, err := p.place(ctx, redis, o.jobs, pods, nil)
	if err != nil {
		return 0, err
	}
	took, err := o.burst(ctx, at, func() error {
		var mu sync.Mutex
		var failed error
		var writing sync.WaitGroup
		for writer := range writers {
			writing.Go(func() {
				for i := writer; i < o.jobs; i += writers {
					if err := at.create(ctx); err != nil {
						mu.Lock()
						failed = err
						mu.Unlock()
						return
					}
				}
			})
		}
		writing.Wait()
		return failed
	})
	if err != nil {
		return 0, err
	}
	if err := at.settled(ctx, o.jobs, metav1.ConditionUnknown); err != nil {
		return 0, err
	}
	return took, at.clear(ctx, metav1.ConditionUnknown)
}

// burst takes the time from what begin does until a watch shows all Jobs.
func (o options) burst(ctx context.Context, at *place, begin func() error) (time.Duration, error) {
	shown, err := at.watch(ctx)
	if err != nil {
		return 0, err
	}
	defer shown.stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	looking, fail := context.WithCancelCause(ctx)
	start := time.Now()
	var beginning sync.WaitGroup
	defer beginning.Wait()
	beginning.Go(func() {
		if err := begin(); err != nil {
			fail(err)
		}
	})
	seen, _, err := shown.next(looking, o.jobs)
	return seen.Sub(start), err
}
