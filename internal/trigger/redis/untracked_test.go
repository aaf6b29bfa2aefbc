package redis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// inMemory starts the Redis that `offboard up` falls back to, which cannot tell of changes.
func inMemory(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(servertest.FreeAddress(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

func TestEmbeddedServerWithoutTrackingIsPolled(t *testing.T) {
	t.Parallel()
	server := inMemory(t)
	for _, address := range []string{"", server.Addr(), "localhost:" + server.Port()} {
		var log safeBuffer
		list := "list of [" + address + "]"
		made := build(t, redis.NewClients(), trigger.Config{
			Metadata: config{"listName": list, "address": address}, EmbeddedRedis: server.Addr(), Log: logger(&log),
		})
		changes := watch(t, made)
		changes.until(t, "the first measurement", func() bool { return measure(t, made).Value == 0 })
		for i, want := range []float64{1, 2, 3} {
			changes.drain()
			since := time.Now()
			if _, err := server.RPush(list, "item"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-changes.signal:
			case <-time.After(patience):
				t.Fatal("a push is not noticed")
			}
			t.Logf("push %d noticed after %v", i, time.Since(since))
			changes.until(t, "a push", func() bool { return measure(t, made).Value == want })
		}
		server.Del(list)
		if err := server.Set(list, "no list"); err != nil {
			t.Fatal(err)
		}
		// A poll may come between the two.
		changes.until(t, "the wrong kind", func() bool {
			measured, err := made.Measure(t.Context())
			if err == nil && measured.Value != 3 && measured.Value != 0 {
				t.Errorf("measured %v, want 3, 0 or an error", measured.Value)
			}
			return err != nil || measured.Value == 0
		})
		if log.String() != "" {
			t.Errorf("polling the embedded server is no news:\n%s", log.String())
		}
	}
}

func TestEmbeddedServerIsLeftAloneWhenNothingIsToBeSaid(t *testing.T) {
	t.Parallel()
	server := inMemory(t)
	made := build(t, redis.NewClients(), trigger.Config{
		Metadata: config{"listName": "list"}, EmbeddedRedis: server.Addr(),
	})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return measure(t, made).Value == 0 })
	// There are calls for the new connection, and then none for ten times as long as between two polls.
	waitFor(t, "no call of changed though nothing changes", func() bool {
		changes.drain()
		measure(t, made)
		select {
		case <-changes.signal:
			return false
		case <-time.After(10 * 50 * time.Millisecond):
			return true
		}
	})
}

func TestOtherServerWithoutTrackingIsLeftToThePollingInterval(t *testing.T) {
	t.Parallel()
	server := inMemory(t)
	var log safeBuffer
	made := build(t, redis.NewClients(), trigger.Config{
		Metadata: config{"listName": "list", "address": server.Addr()}, Log: logger(&log),
	})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return measure(t, made).Value == 0 })
	waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "Redis does not tell of changes") })
	if _, err := server.RPush("list", "item"); err != nil {
		t.Fatal(err)
	}
	if got := measure(t, made); got.Value != 1 {
		t.Errorf("the poll measures %v", got.Value)
	}
}

func TestUserWhoMayNotTrackIsLeftToThePollingInterval(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Users: []string{
		"a on >pw ~* +llen",
		"b on >pw ~* +llen +client|tracking",
		"c on >pw ~* +@all -multi -pttl -ping",
	}})
	server.Do("RPUSH", "list", "a")
	for user, tracked := range map[string]bool{"a": false, "b": false, "c": true} {
		var log safeBuffer
		made := build(t, redis.NewClients(), trigger.Config{
			Metadata: config{"listName": "list", "address": server.Addr()},
			Auth:     config{"username": user, "password": "pw"}, Log: logger(&log),
		})
		if got := measure(t, made); got.Value < 1 {
			t.Errorf("user %s measures %v", user, got.Value)
		}
		if told := strings.Contains(log.String(), "does not tell of changes"); told == tracked {
			t.Errorf("user %s: log %q", user, log.String())
		}
		before := measure(t, made).Value
		if tracked {
			changes := watch(t, made)
			server.Do("RPUSH", "list", "b")
			changes.until(t, "a push", func() bool { return measure(t, made).Value == before+1 })
			continue
		}
		server.Do("RPUSH", "list", "b")
		if got := measure(t, made); got.Value != before+1 {
			t.Errorf("user %s measures %v from memory, though changes are not told", user, got.Value)
		}
	}
}

func TestServerWithoutRESP3(t *testing.T) {
	t.Parallel()
	address := fake(t, func(command []string) string {
		switch command[0] {
		case "CLIENT":
			if command[1] == "SETNAME" {
				return "+OK\r\n"
			}
			return "-ERR unknown subcommand\r\n"
		case "HELLO":
			return "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
		case "PING":
			return "+PONG\r\n"
		case "LLEN":
			return ":4\r\n"
		default:
			return "-ERR unknown command\r\n"
		}
	})
	if got := measure(t, open(t, config{"address": address, "listName": "list"})); got.Value != 4 {
		t.Errorf("measured %v", got.Value)
	}
}

func TestEmbeddedServerThatRestarts(t *testing.T) {
	t.Parallel()
	server := inMemory(t)
	made := build(t, redis.NewClients(), trigger.Config{Metadata: config{"listName": "list"}, EmbeddedRedis: server.Addr()})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return measure(t, made).Value == 0 })
	server.Close()
	changes.until(t, "the outage", func() bool { return fails(t, made, 0) })
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.RPush("list", "item"); err != nil {
		t.Fatal(err)
	}
	changes.until(t, "the push after the restart", func() bool {
		measured, err := made.Measure(context.Background())
		return err == nil && measured.Value == 1
	})
}
