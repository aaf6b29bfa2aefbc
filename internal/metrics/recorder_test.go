package metrics

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/scaling"
)

// tellAll tells everything that can be told of a ScaledJob with one trigger, except that it is tracked.
func tellAll(r *Recorder, key types.NamespacedName) {
	sj := newScaledJob(key.Namespace, key.Name, redisTrigger("", "list"))
	r.Measured(ref(sj, 0, "s0-redis-list"), scaling.Reading{Value: 1, Target: 1, Active: true}, time.Millisecond, nil)
	r.Measured(ref(sj, 0, "s0-redis-list"), scaling.Reading{}, time.Millisecond, errors.New("refused"))
	r.Reconciled(key, 0, false)
	r.Queue(key, 1, time.Second, 1, 1)
	r.Created(key, 1, time.Millisecond)
	r.Refused(key, 1)
	r.WithoutPods(key, 1)
	r.Surplus(key, 1)
	r.Failed(key)
}

func TestForgotten(t *testing.T) {
	t.Parallel()
	r := New("1.2.3")
	sj, other := newScaledJob("a", "mail", redisTrigger("", "list")), newScaledJob("a", "other")
	empty := len(gather(t, r))
	tellAll(r, sj.Key())
	if n := seriesOf(t, r, sj.Key()); n != 0 {
		t.Errorf("%d series before it is tracked", n)
	}
	for range 2 {
		r.Tracked(sj)
		r.Tracked(other)
		tellAll(r, sj.Key())
		if n := seriesOf(t, r, sj.Key()); n != 15 {
			t.Errorf("%d series, want 15", n)
		}
		r.Forgotten(sj.Key())
		r.Forgotten(sj.Key())
		tellAll(r, sj.Key()) // those who have not heard of it yet
		if n := seriesOf(t, r, sj.Key()); n != 0 {
			t.Errorf("%d series of a forgotten ScaledJob", n)
		}
		if n := testutil.CollectAndCount(r, "offboard_reaction_seconds"); n != 1 {
			t.Errorf("%d reaction histograms while a ScaledJob is left in the namespace", n)
		}
		r.Forgotten(other.Key())
		if n := len(gather(t, r)); n != empty {
			t.Errorf("%d families are left, want %d", n, empty)
		}
	}
}

func TestTriggersChange(t *testing.T) {
	t.Parallel()
	r := New("1.2.3")
	count := func() int { return testutil.CollectAndCount(r, "keda_scaler_metrics_value") }
	sj := newScaledJob("a", "mail", redisTrigger("", "x"), redisTrigger("named", "y"))
	r.Tracked(sj)
	measure := func() {
		for i, metric := range []string{"s0-redis-x", "s1-redis-y"} {
			r.Measured(ref(sj, i, metric), scaling.Reading{Value: 1, Target: 1}, time.Millisecond, nil)
		}
	}
	measure()
	if n := count(); n != 2 {
		t.Errorf("%d series for 2 triggers", n)
	}
	r.Created(sj.Key(), 3, 0)
	same := sj.DeepCopy()
	same.Generation++
	r.Tracked(same)
	if n := count(); n != 2 {
		t.Errorf("%d series after a change of something else", n)
	}
	fewer := newScaledJob("a", "mail", redisTrigger("", "z"))
	r.Tracked(fewer)
	if n := count(); n != 0 {
		t.Errorf("%d series of triggers that are gone", n)
	}
	measure() // of the former triggers, late; the first could still be the new one
	if n := count(); n != 1 {
		t.Errorf("%d series after a late measurement, want 1", n)
	}
	r.Measured(ref(fewer, 0, "s0-redis-z"), scaling.Reading{Value: 1, Target: 1}, time.Millisecond, nil)
	const want = `
# HELP keda_scaler_metrics_value The trigger's value: how much work waits.
# TYPE keda_scaler_metrics_value gauge
keda_scaler_metrics_value{metric="s0-redis-z",namespace="a",scaledObject="mail",scaler="redisScaler",triggerIndex="0",type="scaledjob"} 1
# HELP offboard_jobs_created_total Jobs created for the ScaledJob.
# TYPE offboard_jobs_created_total counter
offboard_jobs_created_total{namespace="a",scaledjob="mail"} 3
`
	err := testutil.CollectAndCompare(r, strings.NewReader(want), "keda_scaler_metrics_value", "offboard_jobs_created_total")
	if err != nil {
		t.Error(err)
	}
}

func TestPaused(t *testing.T) {
	t.Parallel()
	r := New("1.2.3")
	sj := newScaledJob("a", "mail")
	r.Tracked(sj)
	for _, step := range []struct {
		paused, queue bool
		lengths       int
	}{{false, false, 0}, {false, true, 1}, {false, false, 1}, {true, false, 0}, {false, false, 0}, {false, true, 1}} {
		r.Reconciled(sj.Key(), 0, step.paused)
		if step.queue {
			r.Queue(sj.Key(), 5, 0, 0, 0)
		}
		if n := testutil.CollectAndCount(r, "offboard_queue_length"); n != step.lengths {
			t.Errorf("%+v: %d series", step, n)
		}
	}
}

// TestHostile names things as no manifest should; one bad label would make Prometheus lose all of them.
func TestHostile(t *testing.T) {
	t.Parallel()
	r := New("\xff")
	sj := newScaledJob("a", "mail", redisTrigger("\xfe", "x"))
	r.Tracked(sj)
	r.Measured(ref(sj, 0, "\"\n\xfd"), scaling.Reading{Value: 1}, -time.Second, nil)
	for _, index := range []int{-1, 1} {
		other := ref(sj, 0, "m")
		other.Index = index
		r.Measured(other, scaling.Reading{}, 0, nil)
	}
	r.Created(sj.Key(), -1, time.Second)
	if n := testutil.CollectAndCount(r, "keda_scaler_active"); n != 1 {
		t.Errorf("%d series", n)
	}
	for _, f := range gather(t, r) {
		if f.GetName() == "offboard_jobs_created_total" && f.GetMetric()[0].GetCounter().GetValue() != 0 {
			t.Error("a counter fell")
		}
	}
}

// TestConcurrent is for the race detector; the pedantic registry finds series that occur twice.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	r := New("1.2.3")
	ctx, cancel := context.WithCancel(t.Context())
	var telling sync.WaitGroup
	for i := range 4 {
		key := types.NamespacedName{Namespace: fmt.Sprint("ns", i%2), Name: fmt.Sprint("sj", i)}
		telling.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r.Tracked(newScaledJob(key.Namespace, key.Name, redisTrigger("", fmt.Sprint("list", n%3))))
				if n%2 == 0 {
					r.Forgotten(key)
				}
				r.SetLeader(n%2 == 0)
				r.SetReplicas(n)
			}
		})
		telling.Go(func() {
			for ctx.Err() == nil {
				tellAll(r, key)
			}
		})
	}
	registry := newRegistry(t, r)
	for range 200 {
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	telling.Wait()
}
