package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// claimed opens a trigger whose items are handed out by claim.
func claimed(t testing.TB, name string, metadata config, embedded string) trigger.Trigger {
	t.Helper()
	whole := config{"stream": "stream", "consumerGroup": "group", "pendingEntriesCount": "1"}
	for key, value := range metadata {
		whole[key] = value
	}
	return buildType(t, redis.NewClients(), name, trigger.Config{Metadata: whole, Claims: true, EmbeddedRedis: embedded})
}

// take claims and wants items of these bytes.
func take(t *testing.T, items queue.Queue, most int, want ...string) []queue.Claim {
	t.Helper()
	result, err := items.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: most})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, claim := range result.Claims {
		got = append(got, string(claim.Parts[0]))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("claimed %q, want %q", got, want)
	}
	return result.Claims
}

// end settles a claim.
func end(t *testing.T, items queue.Queue, claim queue.Claim, verb queue.Verb, wait time.Duration) {
	t.Helper()
	held, err := items.Settle(t.Context(), []queue.Settlement{{ID: claim.ID, Attempt: claim.Attempt, Verb: verb, Wait: wait}})
	if err != nil || !held[0] {
		t.Fatalf("%s: %v, %v", verb, held, err)
	}
}

// TestWhatCanBeClaimedIsMeasured follows entries through claims with each kind of server.
func TestWhatCanBeClaimedIsMeasured(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (address, embedded string){
		"redis":     func(t *testing.T) (string, string) { return redistest.Start(t, redistest.Options{}).Addr(), "" },
		"in memory": func(t *testing.T) (string, string) { return "", inMemory(t).Addr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, embedded := start(t)
			metadata := config{}
			if address != "" {
				metadata["address"] = address
			}
			made := claimed(t, "redis-streams", metadata, embedded)
			items := made.(trigger.Claimer).Items("")
			changes := watch(t, made)
			until := func(what string, ready, claims float64) {
				t.Helper()
				waitFor(t, what, func() bool {
					n, err := made.(trigger.Claimer).Claimed(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					return measure(t, made).Value == ready && n == int64(claims)
				})
			}
			until("an empty stream", 0, 0)
			if n, err := made.(trigger.Pusher).Push(t.Context(), []byte("a"), []byte("b"), []byte("c"), []byte("d")); err != nil || n != 4 {
				t.Errorf("pushed: %d, %v, want 4", n, err)
			}
			until("entries", 4, 0)
			claims := take(t, items, 3, "a", "b", "c")
			until("claims", 1, 3)
			end(t, items, claims[0], queue.Ack, 0)
			until("the end of one", 1, 2)
			changes.drain()
			end(t, items, claims[1], queue.GiveBack, 0)
			changes.until(t, "what is given back", func() bool { return measure(t, made).Value == 2 })
			until("what is given back", 2, 1)
			end(t, items, claims[2], queue.PutOff, time.Hour)
			changes.until(t, "when an item comes back", func() bool { wake := measure(t, made).Wake; return wake != nil && *wake != "" })
			take(t, items, 3, "b", "d")
			until("the rest", 0, 2)
			if released, err := items.Release(t.Context(), ""); err != nil || released != 2 {
				t.Errorf("released %d, %v", released, err)
			}
			until("what is released", 2, 0)
			for _, claim := range take(t, items, 3, "b", "d") {
				end(t, items, claim, queue.Ack, 0)
			}
			if _, err := items.Push(t.Context(), queue.PushOptions{Delay: 100 * time.Millisecond}, []byte("later")); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "what is delayed", func() bool {
				if _, err := items.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				return measure(t, made).Value == 1
			})
			take(t, items, 3, "later")
		})
	}
}

// TestUnreadIsCountedExactly has streams of which Redis does not know, or says wrongly, how many entries are unread.
func TestUnreadIsCountedExactly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	for name, prepare := range map[string]func(stream string) (want int){
		"deleted": func(stream string) int {
			server.Do("XDEL", stream, "200-0")
			return 239
		},
		"trimmed": func(stream string) int {
			server.Do("XTRIM", stream, "MAXLEN", "7")
			return 7
		},
		"trimmed and deleted": func(stream string) int {
			server.Do("XTRIM", stream, "MAXLEN", "7")
			server.Do("XDEL", stream, "247-0")
			return 6
		},
		"all deleted": func(stream string) int {
			server.Do("EVAL", "for i = 1, 250 do redis.call('XDEL', KEYS[1], i .. '-0') end", "1", stream)
			return 0
		},
		"group begins in the middle": func(stream string) int {
			server.Do("XGROUP", "DESTROY", stream, "group")
			server.Do("XGROUP", "CREATE", stream, "group", "100-0")
			return 150
		},
		"no group": func(stream string) int {
			server.Do("XGROUP", "DESTROY", stream, "group")
			return 250
		},
	} {
		stream := strings.ReplaceAll(name, " ", "-")
		server.Do("XGROUP", "CREATE", stream, "group", "0", "MKSTREAM")
		server.Do("EVAL", "for i = 1, 250 do redis.call('XADD', KEYS[1], i .. '-0', 'field', 'value') end", "1", stream)
		server.Do("XREADGROUP", "GROUP", "group", "me", "COUNT", "10", "STREAMS", stream, ">")
		want := prepare(stream)
		made := claimed(t, "redis-streams", config{"address": server.Addr(), "stream": stream}, "")
		if got := measure(t, made); got.Value != float64(want) {
			t.Errorf("%s: measured %v, want %d", name, got.Value, want)
		}
		items := made.(trigger.Claimer).Items("")
		if stats, err := items.Stats(t.Context()); err != nil || stats.Ready != int64(want) {
			t.Errorf("%s: counted %+v, %v, want %d", name, stats, err, want)
		}
		result, err := items.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 300})
		if err != nil || len(result.Claims) != want {
			t.Errorf("%s: claimed %d, %v, want %d", name, len(result.Claims), err, want)
		}
		if got := measure(t, made); got.Value != 0 {
			t.Errorf("%s: measured %v after all were claimed", name, got.Value)
		}
	}
}

// TestClaimsOfStreamsThroughAnOutage claims before and after, over the same connection settings.
func TestClaimsOfStreamsThroughAnOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	made := claimed(t, "redis-streams", config{"address": server.Addr()}, "")
	items := made.(trigger.Claimer).Items("")
	server.Do("XADD", "stream", "*", "f", "a")
	server.Do("XADD", "stream", "*", "f", "b")
	before := take(t, items, 1, "a")[0]
	server.Kill()
	waitFor(t, "the outage", func() bool { return fails(t, made, 1) })
	if _, err := items.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1}); err == nil {
		t.Error("claimed from a server that is not there")
	}
	server.Restart()
	waitFor(t, "the server's return", func() bool { return !fails(t, made, 1) })
	waitFor(t, "a claim", func() bool {
		claims, err := items.Claims(t.Context(), "o")
		return err == nil && len(claims) == 1 && claims[0].ID == before.ID
	})
	end(t, items, before, queue.Ack, 0)
	take(t, items, 2, "b")
	if pending := pendingOf(t, server, "stream"); len(pending) != 1 {
		t.Errorf("pending are %v, want one entry", pending)
	}
}

// pendingOf returns the consumers of the entries that are pending in the group.
func pendingOf(t *testing.T, server *redistest.Server, stream string) (consumers []string) {
	t.Helper()
	answer := server.Do("XPENDING", stream, "group", "-", "+", "1000")
	rows, err := answer.ToArray()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		fields, err := row.ToArray()
		if err != nil {
			t.Fatal(err)
		}
		consumer, err := fields[1].ToString()
		if err != nil {
			t.Fatal(err)
		}
		consumers = append(consumers, consumer)
	}
	return consumers
}

func TestClaimsOfStreamsRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Users: []string{
		"reader on >hunter2 ~stream resetchannels +xinfo|groups +xlen +info",
		"narrow on >hunter2 ~stream ~{stream}:offboard:* +@all -xack",
	}})
	add(server, 1)
	server.Do("RPUSH", "list", "a")
	for _, test := range []struct {
		metadata config
		want     string
	}{
		{config{"username": "reader", "password": "hunter2"}, `denies user "reader" a command or the key`},
		{config{"username": "narrow", "password": "hunter2"}, "XACK"},
		{config{"stream": "list"}, "is no stream, and only a stream hands out items"},
		{config{"username": "narrow", "password": "hunter3"}, "does not accept user"},
	} {
		test.metadata["address"] = server.Addr()
		made := claimed(t, "redis-streams", test.metadata, "")
		_, err := made.(trigger.Claimer).Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	answer := server.Do("EXISTS", "{stream}:offboard:group:group:meta")
	if n, err := answer.AsInt64(); err != nil || n != 0 {
		t.Errorf("something was taken: %d, %v", n, err)
	}
	bare := stream(t, server, nil)
	if _, err := bare.(trigger.Claimer).Items("").Sweep(t.Context()); !errors.Is(err, errors.ErrUnsupported) ||
		!strings.Contains(err.Error(), "give consumerGroup") {
		t.Errorf("without a group: %v", err)
	}
	if _, err := stream(t, server, config{"stream": "list"}).(trigger.Pusher).Push(t.Context(), []byte("a")); err == nil ||
		!strings.Contains(err.Error(), "holds another type under this key") {
		t.Errorf("push to a list: %v", err)
	}
	declared, _ := trigger.Find(redis.Types(redis.NewClients()), "redis-streams")
	_, err := declared.New(t.Context(), trigger.Config{Claims: true, Metadata: config{"stream": "s"}, EmbeddedRedis: "x:1"})
	if err == nil || !strings.Contains(err.Error(), "consumerGroup: is required where delivery.mode is claim") {
		t.Errorf("without a group: %v", err)
	}
}

// TestItemField has entries of several fields.
func TestItemField(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	fill := func() {
		server.Do("DEL", "stream")
		server.Do("XADD", "stream", "*", "job", "a\x00b")
		server.Do("XADD", "stream", "*", "b", `"/`, "job", "2", "ä", "\n")
		server.Do("XADD", "stream", "*", "other", "3")
		server.Do("XADD", "stream", "*", "x", "", "y", "5")
	}
	for field, want := range map[string][]string{
		"":    {"a\x00b", `{"b":"\"\/","job":"2","ä":"\n"}`, "3", `{"x":"","y":"5"}`, "pushed"},
		"job": {"a\x00b", "2", "3", `{"x":"","y":"5"}`, "pushed"},
	} {
		fill()
		metadata := config{"address": server.Addr(), "consumerGroup": "group" + field}
		if field != "" {
			metadata["itemField"] = field
		}
		made := claimed(t, "redis-streams", metadata, "")
		if n, err := made.(trigger.Pusher).Push(t.Context(), []byte("pushed")); err != nil || n != 5 {
			t.Errorf("pushed: %d, %v, want 5", n, err)
		}
		records, err := made.(trigger.Claimer).Items("").List(t.Context(), queue.Ready, 1, 2)
		if err != nil || len(records) != 2 || string(records[0].Parts[0]) != want[1] {
			t.Errorf("ready are %+v, %v", records, err)
		}
		take(t, made.(trigger.Claimer).Items(""), 10, want...)
		answer := server.Do("XREVRANGE", "stream", "+", "-", "COUNT", "1")
		last, err := answer.AsXRange()
		if name := map[string]string{"": "item", "job": "job"}[field]; err != nil || last[0].FieldValues[name] != "pushed" {
			t.Errorf("pushed as %+v, %v", last, err)
		}
	}
}

// TestPushToStream pushes few and many, over the connection for measurements and one of its own.
func TestPushToStream(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	for name, items := range map[string][][]byte{
		"none": nil, "odd": {[]byte("a\r\n\x00"), {0xff}, {}}, "many": make([][]byte, 4000), "very many": make([][]byte, 9000),
		"large": {make([]byte, 1<<20), make([]byte, 1<<20)},
	} {
		made := stream(t, server, config{"stream": name})
		var n int64
		err := triggertest.Again(func() (err error) {
			server.Do("DEL", name) // what is not answered in time may have arrived
			n, err = made.(trigger.Pusher).Push(t.Context(), items...)
			return err
		})
		if err != nil || n != int64(len(items)) {
			t.Errorf("%s: pushed %d, %v, want %d", name, n, err, len(items))
		}
		answer := server.Do("XRANGE", name, "-", "+")
		entries, err := answer.AsXRange()
		if err != nil || len(entries) != len(items) {
			t.Fatalf("%s: the stream has %d entries, %v", name, len(entries), err)
		}
		for i, entry := range entries {
			if entry.FieldValues["item"] != string(items[i]) {
				t.Errorf("%s: entry %d is %.40q", name, i, entry.FieldValues["item"])
			}
		}
	}
}

// testStreamClaimsOnCluster claims from streams of all slots.
func testStreamClaimsOnCluster(t *testing.T, cluster *redistest.Cluster) {
	for i, name := range []string{"claims", "{a}b", "a}b", "claims too"} {
		made := buildType(t, redis.NewClients(), "redis-cluster-streams", trigger.Config{Claims: true, Metadata: config{
			"hosts": cluster.Nodes[0].Host(), "ports": cluster.Nodes[0].Port(),
			"stream": name, "consumerGroup": "a {group}", "pendingEntriesCount": "1",
		}})
		items := made.(trigger.Claimer).Items("")
		changes := watch(t, made)
		if n, err := made.(trigger.Pusher).Push(t.Context(), []byte("a"), []byte("b"), []byte("c")); err != nil || n != 3 {
			t.Fatalf("%d %q: pushed %d, %v", i, name, n, err)
		}
		changes.until(t, "entries", func() bool { return measure(t, made).Value == 3 })
		claims := take(t, items, 2, "a", "b")
		end(t, items, claims[0], queue.Ack, 0)
		end(t, items, claims[1], queue.GiveBack, 0)
		changes.until(t, "what is given back", func() bool { return measure(t, made).Value == 2 })
		for _, claim := range take(t, items, 9, "b", "c") {
			end(t, items, claim, queue.PutOff, time.Hour)
		}
		changes.until(t, "when an item comes back", func() bool { wake := measure(t, made).Wake; return wake != nil && *wake != "" })
	}
}

// BenchmarkClaimStream claims and acknowledges 2,000 entries at batches of 50.
func BenchmarkClaimStream(b *testing.B) {
	server := redistest.Start(b, redistest.Options{})
	made := claimed(b, "redis-streams", config{"address": server.Addr()}, "")
	items := made.(trigger.Claimer).Items("")
	entries := make([][]byte, 2000)
	for i := range entries {
		entries[i] = fmt.Appendf(nil, `{"user": %d}`, i)
	}
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		if _, err := made.(trigger.Pusher).Push(ctx, entries...); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for done := 0; done < len(entries); {
			result, err := items.Claim(ctx, queue.ClaimOptions{Owner: "o", Most: 50})
			if err != nil || len(result.Claims) != 50 {
				b.Fatalf("claimed %d, %v", len(result.Claims), err)
			}
			settlements := make([]queue.Settlement, len(result.Claims))
			for i, claim := range result.Claims {
				settlements[i] = queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: queue.Ack}
			}
			if _, err := items.Settle(ctx, settlements); err != nil {
				b.Fatal(err)
			}
			done += len(settlements)
		}
	}
	b.ReportMetric(float64(2000*b.N)/b.Elapsed().Seconds(), "items/s")
}
