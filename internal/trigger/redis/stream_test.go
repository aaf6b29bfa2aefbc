package redis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// stream opens a trigger of type redis-streams.
func stream(t testing.TB, server *redistest.Server, metadata config) trigger.Trigger {
	t.Helper()
	whole := config{"address": server.Addr(), "stream": "stream"}
	for key, value := range metadata {
		whole[key] = value
	}
	return openType(t, "redis-streams", whole)
}

// add appends entries.
func add(server *redistest.Server, count int) {
	for range count {
		server.Do("XADD", "stream", "*", "field", "value")
	}
}

// read lets a consumer of the group read entries, and returns their ids.
func read(t testing.TB, server *redistest.Server, count int) []string {
	t.Helper()
	message := server.Do("XREADGROUP", "GROUP", "group", "me", "COUNT", fmt.Sprint(count), "STREAMS", "stream", ">")
	entries, err := message.AsXRead()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, entry := range entries["stream"] {
		ids = append(ids, entry.ID)
	}
	if len(ids) != count {
		t.Fatalf("read %d entries, want %d", len(ids), count)
	}
	return ids
}

func TestStreamIsMeasuredAsKEDADoes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
	add(server, 7)
	ids := read(t, server, 4)
	server.Do("XACK", "stream", "group", ids[0])
	server.Do("XGROUP", "CREATE", "empty", "group", "$", "MKSTREAM")
	for _, test := range []struct {
		name     string
		metadata config
		want     trigger.Measurement
	}{
		{"length", nil, trigger.Measurement{Value: 7, Target: 5, Active: true}},
		{"length, own target", config{"streamLength": "3", "activationLagCount": "7"}, trigger.Measurement{Value: 7, Target: 3}},
		{"length although lagCount", config{"lagCount": "2", "pendingEntriesCount": "3"},
			trigger.Measurement{Value: 7, Target: 5, Active: true}},
		{"pending", config{"consumerGroup": "group"}, trigger.Measurement{Value: 3, Target: 5, Active: true}},
		{"pending, own target", config{"consumerGroup": "group", "pendingEntriesCount": "2", "activationLagCount": "3"},
			trigger.Measurement{Value: 3, Target: 2}},
		{"pending as lagCount is 0", config{"consumerGroup": "group", "lagCount": "0"},
			trigger.Measurement{Value: 3, Target: 5, Active: true}},
		{"lag", config{"consumerGroup": "group", "lagCount": "2"}, trigger.Measurement{Value: 3, Target: 2, Active: true}},
		{"lag, activation", config{"consumerGroup": "group", "lagCount": "2", "activationLagCount": "3"},
			trigger.Measurement{Value: 3, Target: 2}},
		{"length, no stream", config{"stream": "none"}, trigger.Measurement{Target: 5}},
		{"lag, no stream", config{"stream": "none", "consumerGroup": "group", "lagCount": "2"}, trigger.Measurement{Target: 2}},
		{"lag, empty stream", config{"stream": "empty", "consumerGroup": "group", "lagCount": "2"}, trigger.Measurement{Target: 2}},
		{"lag, no group", config{"consumerGroup": "other", "lagCount": "2"}, trigger.Measurement{Value: 7, Target: 2, Active: true}},
		{"activation below zero", config{"stream": "none", "activationLagCount": "-1"}, trigger.Measurement{Target: 5, Active: true}},
	} {
		got := measure(t, stream(t, server, test.metadata))
		if byLength := strings.HasPrefix(test.name, "length") || strings.HasPrefix(test.name, "activation"); byLength {
			test.want.Holds = 30 * time.Second
		}
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestStreamErrors(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("RPUSH", "list", "a")
	add(server, 1)
	for _, test := range []struct {
		metadata config
		want     string
	}{
		{config{"consumerGroup": "group"}, `key "stream" has no consumer group "group"`},
		{config{"stream": "none", "consumerGroup": "group"}, `key "none" has no consumer group "group"`},
		{config{"stream": "list"}, `key "list" holds no stream`},
		{config{"stream": "list", "consumerGroup": "group"}, `key "list" holds no stream`},
		{config{"stream": "list", "consumerGroup": "group", "lagCount": "1"}, `key "list" holds no stream`},
	} {
		_, err := triggertest.Try(t, stream(t, server, test.metadata))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), server.Addr()) {
			t.Errorf("%v: error %v, want %q", test.metadata, err, test.want)
		}
	}
}

// TestLagThatTheServerDoesNotKnow deletes an entry that nobody has read: Redis then gives up counting.
func TestLagThatTheServerDoesNotKnow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	add(server, 150)
	server.Do("XGROUP", "CREATE", "stream", "group", "0")
	made := stream(t, server, config{"consumerGroup": "group", "lagCount": "1"})
	if got := measure(t, made); got.Value != 150 {
		t.Errorf("measured %v, want 150", got.Value)
	}
	read(t, server, 40)
	message := server.Do("XRANGE", "stream", "-", "+")
	entries, err := message.AsXRange()
	if err != nil {
		t.Fatal(err)
	}
	server.Do("XDEL", "stream", entries[100].ID)
	groups := server.Do("XINFO", "GROUPS", "stream")
	group, err := groups.ToAny()
	if err != nil || group.([]any)[0].(map[string]any)["lag"] != nil {
		t.Fatalf("the server knows: %v, %v", group, err)
	}
	if got := measure(t, made); got.Value != 100 {
		t.Errorf("measured %v of 109 entries that are to be counted, want 100", got.Value)
	}
	read(t, server, 30)
	if got := measure(t, made); got.Value != 79 || !got.Active {
		t.Errorf("measured %v, want 79", got.Value)
	}
	read(t, server, 79)
	if got := measure(t, made); got.Value != 0 || got.Active {
		t.Errorf("measured %v, want 0", got.Value)
	}
}

func TestServerThatKnowsNoLag(t *testing.T) {
	t.Parallel()
	const group = "*8\r\n$4\r\nname\r\n$5\r\ngroup\r\n$9\r\nconsumers\r\n:0\r\n$7\r\npending\r\n:0\r\n" +
		"$17\r\nlast-delivered-id\r\n$3\r\n0-0\r\n"
	for reply, want := range map[string]string{
		"*1\r\n" + group:           "since 7.0: leave out lagCount",
		"*1\r\n*1\r\n:1\r\n":       "answers in an unknown form",
		":7\r\n":                   "answers in an unknown form",
		"*1\r\n:7\r\n":             "answers in an unknown form",
		"*1\r\n*2\r\n:1\r\n:2\r\n": "answers in an unknown form",
		"*1\r\n*2\r\n$4\r\nname\r\n$5\r\ngroup\r\n":                                                                "answers in an unknown form",
		"*1\r\n*6\r\n$4\r\nname\r\n$5\r\ngroup\r\n$17\r\nlast-delivered-id\r\n$1\r\n0\r\n$3\r\nlag\r\n$1\r\nx\r\n": "answers in an unknown form",
	} {
		address := fake(t, func(command []string) string {
			switch command[0] {
			case "HELLO":
				return hello3
			case "XINFO":
				return reply
			default:
				return "+OK\r\n"
			}
		})
		made := openType(t, "redis-streams", config{
			"address": address, "stream": "stream", "consumerGroup": "group", "lagCount": "1",
		})
		if _, err := triggertest.Try(t, made); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", reply, err, want)
		}
	}
}

// TestNewEntryIsNoticed waits for what a change of the stream brings about, and for the return of the server.
func TestNewEntryIsNoticed(t *testing.T) {
	t.Parallel()
	for name, metadata := range map[string]config{
		"length": nil,
		"lag":    {"consumerGroup": "group", "lagCount": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{AppendOnly: true})
			made := stream(t, server, metadata)
			changes := watch(t, made)
			changes.until(t, "the first measurement", func() bool { return !fails(t, made, 0) })
			for i := range 5 {
				changes.drain()
				since := time.Now()
				add(server, 1)
				changes.until(t, "a new entry", func() bool { return measure(t, made).Value == float64(i+1) })
				t.Logf("entry %d noticed after %v", i, time.Since(since))
			}
			server.Do("XTRIM", "stream", "MAXLEN", "3")
			changes.until(t, "that the stream is trimmed", func() bool { return measure(t, made).Value == 3 })
			server.Kill()
			changes.until(t, "the outage", func() bool { return fails(t, made, 3) })
			server.Restart()
			changes.until(t, "the server's return", func() bool { return !fails(t, made, 3) })
			server.Do("DEL", "stream")
			changes.until(t, "the deletion", func() bool { return measure(t, made).Value == 0 })
		})
	}
}

// TestWhatGroupsDoIsMeasuredAnew reads and acknowledges, of which Redis tells nobody: nothing may be remembered.
func TestWhatGroupsDoIsMeasuredAnew(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
	add(server, 5)
	lag := stream(t, server, config{"consumerGroup": "group", "lagCount": "1"})
	pending := stream(t, server, config{"consumerGroup": "group"})
	check := func(wantLag, wantPending float64) {
		t.Helper()
		if got := measure(t, lag); got.Value != wantLag || got.Holds != 0 {
			t.Errorf("lag %+v, want %v that holds for no time", got, wantLag)
		}
		if got := measure(t, pending); got.Value != wantPending || got.Holds != 0 {
			t.Errorf("pending %+v, want %v that holds for no time", got, wantPending)
		}
	}
	check(5, 0)
	ids := read(t, server, 3)
	check(2, 3)
	server.Do("XACK", "stream", "group", ids[0], ids[1])
	check(2, 1)
	server.Do("XGROUP", "DELCONSUMER", "stream", "group", "me")
	check(2, 0)
	server.Do("XGROUP", "SETID", "stream", "group", "0")
	check(5, 0)
}

func TestStreamOnTheEmbeddedRedis(t *testing.T) {
	t.Parallel()
	server := inMemory(t)
	made := buildType(t, redis.NewClients(), "redis-streams", trigger.Config{
		Metadata: config{"stream": "stream"}, EmbeddedRedis: server.Addr(),
	})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return measure(t, made).Value == 0 })
	if _, err := server.XAdd("stream", "*", []string{"field", "value"}); err != nil {
		t.Fatal(err)
	}
	changes.until(t, "a new entry", func() bool { return measure(t, made).Value == 1 })
}

// TestStreamNeedsNoFurtherRights measures as a user who may run what KEDA runs for a group, and no more.
func TestStreamNeedsNoFurtherRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Users: []string{
		"lag on >hunter2 ~stream resetchannels +xinfo|groups +xlen +info", "pending on >hunter2 ~stream +xpending",
		"length on >hunter2 ~stream +xlen",
	}})
	server.Do("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
	add(server, 3)
	read(t, server, 1)
	for user, test := range map[string]struct {
		metadata config
		want     float64
	}{
		"lag":     {config{"consumerGroup": "group", "lagCount": "1"}, 2},
		"pending": {config{"consumerGroup": "group"}, 1},
		"length":  {nil, 3},
	} {
		metadata := config{"address": server.Addr(), "stream": "stream", "username": user, "password": "hunter2"}
		for key, value := range test.metadata {
			metadata[key] = value
		}
		if got := measure(t, openType(t, "redis-streams", metadata)); got.Value != test.want {
			t.Errorf("user %s measures %v, want %v", user, got.Value, test.want)
		}
	}
	_, err := stream(t, server, config{"username": "length", "password": "hunter2", "consumerGroup": "group"}).
		Measure(t.Context())
	if err == nil || !strings.Contains(err.Error(), `denies user "length" a command`) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
