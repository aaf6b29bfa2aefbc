package metrics

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/scaling"
)

const benchScaledJobs = 10_000

// populated returns a Recorder with many ScaledJobs of one trigger each, and their triggers.
func populated() (*Recorder, []scaledjob.TriggerRef) {
	r := New("1.2.3")
	refs := make([]scaledjob.TriggerRef, benchScaledJobs)
	for i := range refs {
		sj := newScaledJob(fmt.Sprintf("team-%d", i%100), fmt.Sprintf("work-%d", i), redisTrigger("", "list"))
		refs[i] = ref(sj, 0, "s0-redis-list")
		r.Tracked(sj)
		tellAll(r, sj.Key())
	}
	return r, refs
}

func BenchmarkCalls(b *testing.B) {
	r, refs := populated()
	reading := scaling.Reading{Value: 3, Target: 1, Active: true}
	for name, call := range map[string]func(trigger scaledjob.TriggerRef, key types.NamespacedName){
		"Measured": func(trigger scaledjob.TriggerRef, _ types.NamespacedName) {
			r.Measured(trigger, reading, time.Millisecond, nil)
		},
		"Reconciled": func(_ scaledjob.TriggerRef, key types.NamespacedName) { r.Reconciled(key, time.Millisecond, false) },
		"Created":    func(_ scaledjob.TriggerRef, key types.NamespacedName) { r.Created(key, 1, time.Millisecond) },
		"Queue":      func(_ scaledjob.TriggerRef, key types.NamespacedName) { r.Queue(key, 3, time.Second, 2, 1) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					trigger := refs[i%len(refs)]
					call(trigger, trigger.ScaledJob)
				}
			})
		})
	}
}

// BenchmarkScrape gathers 10,000 ScaledJobs of one trigger each.
func BenchmarkScrape(b *testing.B) {
	r, _ := populated()
	registry := prometheus.NewRegistry() // as in production: not pedantic
	registry.MustRegister(r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory tells how much 10,000 ScaledJobs of one trigger each keep.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := inUse()
		r, refs := populated()
		b.ReportMetric(float64(inUse()-before)/benchScaledJobs, "B/ScaledJob")
		runtime.KeepAlive(r)
		runtime.KeepAlive(refs)
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
