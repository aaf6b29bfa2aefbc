package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// TestManyIdleListsCostLittle measures many lists on one connection for longer than their polling interval, again and
// again: that nothing has changed, it knows without asking.
func TestManyIdleListsCostLittle(t *testing.T) {
	t.Parallel()
	const lists, interval = 300, 500 * time.Millisecond
	server := redistest.Start(t, redistest.Options{})
	clients := redis.NewClients()
	all := make([]trigger.Trigger, lists)
	for i := range all {
		all[i] = build(t, clients, trigger.Config{
			Metadata: config{"address": server.Addr(), "listName": fmt.Sprint("list", i)}, PollingInterval: interval,
		})
		holds := measure(t, all[i]).Holds
		if want := max(interval, time.Duration(i+1)*2*time.Second); holds != want {
			t.Fatalf("with %d lists a measurement holds for %v, want %v", i+1, holds, want)
		}
	}
	// What was remembered while there were few lists is no longer valid after this.
	for end := time.Now().Add(2 * interval); time.Now().Before(end); {
		for _, made := range all {
			measure(t, made)
		}
	}
	before, began := commands(t, server), time.Now()
	asked := 0
	for time.Since(began) < 4*interval {
		for _, made := range all {
			measure(t, made)
			asked++
		}
	}
	if took := commands(t, server) - before; took > lists/2 {
		t.Errorf("%d measurements of %d lists took %d commands", asked, lists, took)
	}
	server.Do("RPUSH", "list7", "item")
	changes := watch(t, all[7])
	changes.until(t, "the push is seen", func() bool { return measure(t, all[7]).Value == 1 })
}

// commands returns how many commands the server has run.
func commands(t *testing.T, server *redistest.Server) int {
	t.Helper()
	client := server.Client()
	info, err := client.Do(t.Context(), client.B().Info().Section("stats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if count, found := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); found {
			n, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("INFO does not tell: %s", info)
	return 0
}
