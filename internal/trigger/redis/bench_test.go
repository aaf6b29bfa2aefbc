package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// BenchmarkPushToChanged measures the time from before a push by another client to the call of changed, and on to the
// answer of the Measure that follows.
func BenchmarkPushToChanged(b *testing.B) {
	for _, watched := range []int{1, 1000} {
		b.Run(fmt.Sprintf("triggers=%d", watched), func(b *testing.B) { benchmarkPushToChanged(b, watched) })
	}
}

func benchmarkPushToChanged(b *testing.B, watched int) {
	server := redistest.Start(b, redistest.Options{})
	clients := redis.NewClients()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	called := make(chan time.Time, 16)
	var first trigger.Trigger
	for i := range watched {
		made := build(b, clients, trigger.Config{Metadata: config{"address": server.Addr(), "listName": fmt.Sprint("list", i)}})
		measure(b, made)
		changed := func() {}
		if i == 0 {
			first = made
			changed = func() {
				select {
				case called <- time.Now():
				default:
				}
			}
		}
		b.Cleanup(made.(trigger.Watcher).Watch(changed))
	}
	client := server.Client()
	<-called
	var toChanged, toMeasured []time.Duration
	for b.Loop() {
		for len(called) > 0 {
			<-called
		}
		since := time.Now()
		if err := client.Do(ctx, client.B().Rpush().Key("list0").Element("x").Build()).Error(); err != nil {
			b.Fatal(err)
		}
		at := <-called
		measure(b, first)
		toChanged, toMeasured = append(toChanged, at.Sub(since)), append(toMeasured, time.Since(since))
	}
	report := func(name string, times []time.Duration) {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), name+"-p99-µs")
	}
	report("changed", toChanged)
	report("measured", toMeasured)
	b.ReportMetric(float64(len(connections(b, server))), "connections")
	cancel()
	running.Wait()
}

// BenchmarkMeasureUnchanged measures a reading that is answered from memory.
func BenchmarkMeasureUnchanged(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	made := open(b, config{"address": server.Addr(), "listName": "list"})
	b.ReportAllocs()
	for b.Loop() {
		measure(b, made)
	}
}

// BenchmarkMeasure compares measurements of what Redis does not tell of, so that each asks the server, with the bare
// questions.
func BenchmarkMeasure(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	server.Do("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
	add(server, 100)
	read(b, server, 50)
	client := server.Client()
	for name, bench := range map[string]struct {
		metadata config
		command  []string
	}{
		"lag":     {config{"consumerGroup": "group", "lagCount": "1"}, []string{"XINFO", "GROUPS", "stream"}},
		"pending": {config{"consumerGroup": "group"}, []string{"XPENDING", "stream", "group"}},
	} {
		b.Run(name, func(b *testing.B) {
			triggertest.Compare(b, stream(b, server, bench.metadata), func() error {
				return client.Do(b.Context(), client.B().Arbitrary(bench.command...).Build()).Error()
			})
		})
	}
}
