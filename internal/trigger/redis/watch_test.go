package redis_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// TestNoPushIsMissed pushes and pops from other connections while a watcher measures whenever it is told of a change.
func TestNoPushIsMissed(t *testing.T) {
	t.Parallel()
	const pushes, rounds = 10000, 20
	server := redistest.Start(t, redistest.Options{})
	made := build(t, redis.NewClients(), trigger.Config{
		Metadata: config{"address": server.Addr(), "listName": "list"}, PollingInterval: time.Hour,
	})

	var mu sync.Mutex
	var seen float64
	var measurements int
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	signal := make(chan struct{}, 1)
	tell := func() {
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	var running sync.WaitGroup
	defer made.(trigger.Watcher).Watch(tell)()
	running.Go(func() {
		for {
			select {
			case <-signal:
			case <-ctx.Done():
				return
			}
			measured, err := made.Measure(ctx)
			mu.Lock()
			switch measurements++; {
			case err == nil:
				seen = measured.Value
			case strings.Contains(err.Error(), "does not answer in time"):
				tell() // it is asked again, as after each failure
			case ctx.Err() == nil:
				t.Error(err)
			}
			mu.Unlock()
		}
	})

	client := server.Client()
	var slowest time.Duration
	for round := range rounds {
		for i := range pushes / rounds {
			command := client.B().Rpush().Key("list").Element("x").Build()
			if i%7 == 6 {
				command = client.B().Lpop().Key("list").Build()
			}
			if err := client.Do(ctx, command).Error(); err != nil {
				t.Fatal(err)
			}
		}
		count, err := client.Do(ctx, client.B().Llen().Key("list").Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		length := float64(count)
		since := time.Now()
		for {
			mu.Lock()
			got := seen
			mu.Unlock()
			if got == length {
				slowest = max(slowest, time.Since(since))
				break
			}
			// On a machine that is busy with other tests even a goroutine's turn may take longer than the 50 ms that
			// an idle one needs at the very most; what was missed would stay unseen for the polling interval of an hour.
			if time.Since(since) > patience {
				t.Fatalf("round %d: the list has %v items, the watcher still sees %v", round, length, got)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	cancel()
	running.Wait()
	t.Logf("%d commands, %d measurements, the last length was seen after %v at the latest", pushes, measurements, slowest)
}

func TestWatchCallsNothingAfterItsEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	made := open(t, config{"address": server.Addr(), "listName": "list"})
	client := server.Client()
	for range 50 {
		var stopped atomic.Bool
		stop := made.(trigger.Watcher).Watch(func() {
			if stopped.Load() {
				t.Error("changed is called although watching has ended")
			}
		})
		measure(t, made)
		done := make(chan struct{})
		go func() {
			defer close(done)
			stop()
			stopped.Store(true)
		}()
		if err := client.Do(t.Context(), client.B().Rpush().Key("list").Element("x").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		<-done
	}
}
