package redisqueue

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestOneSlot runs everything on a node of a Redis Cluster, which refuses keys of different slots together, for lists
// whose names make it hard.
func TestOneSlot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Directives: []string{"cluster-enabled yes"}})
	server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	client := server.Client()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		info := server.Do("CLUSTER", "INFO")
		if strings.Contains(info.String(), "cluster_state:ok") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cluster does not come up: %q", info.String())
		}
	}
	for _, list := range []string{
		"work", "{a}b", "a{b}c", "a{b", "a}b", "a{}b", "}{", "{}", "{", "}", "{}{a}", "{a{b}}", " ", "ä\x00\xff", "a{b}{c}", "{}}",
	} {
		q := New(conn{client}, list)
		for _, key := range q.keys {
			answer := server.Do("CLUSTER", "KEYSLOT", key)
			want := server.Do("CLUSTER", "KEYSLOT", list)
			if got, want := answer.String(), want.String(); got != want {
				t.Errorf("key %q of list %q is in slot %s, want %s", key, list, got, want)
			}
		}
		if err := everything(t.Context(), q, client); err != nil {
			t.Errorf("list %q: %v", list, err)
		}
	}
}

// everything does each operation once.
func everything(ctx context.Context, q *Queue, client rueidis.Client) error {
	if err := client.Do(ctx, client.B().Rpush().Key(q.list).Element("a", "b", "c", "d").Build()).Error(); err != nil {
		return err
	}
	if _, err := q.Push(ctx, queue.PushOptions{Unique: "k}{", UniqueFor: time.Minute, Delay: time.Hour}, []byte("e")); err != nil {
		return err
	}
	result, err := q.Claim(ctx, queue.ClaimOptions{Owner: "o", Most: 4, Lease: time.Minute})
	if err != nil {
		return err
	}
	var settlements []queue.Settlement
	for i, verb := range []queue.Verb{queue.Ack, queue.PutOff, queue.Bury} {
		claim := result.Claims[i]
		settlements = append(settlements, queue.Settlement{
			ID: claim.ID, Attempt: claim.Attempt, Verb: verb, Wait: time.Hour, Failure: &queue.Failure{Reason: "R"},
		})
	}
	if _, err := q.Settle(ctx, settlements); err != nil {
		return err
	}
	if _, err := q.Extend(ctx, result.Claims[3].ID, 1, time.Hour); err != nil {
		return err
	}
	if _, err := q.Sweep(ctx); err != nil {
		return err
	}
	if _, err := q.Claims(ctx, "o"); err != nil {
		return err
	}
	if _, err := q.Get(ctx, result.Claims[2].ID); err != nil {
		return err
	}
	for _, state := range []queue.State{queue.Ready, queue.Delayed, queue.Claimed, queue.Retry, queue.Dead} {
		if _, err := q.List(ctx, state, 0, 10); err != nil {
			return err
		}
	}
	if _, err := q.Stats(ctx); err != nil {
		return err
	}
	if _, err := q.RetryDead(ctx, result.Claims[2].ID); err != nil {
		return err
	}
	if _, err := q.DropDead(ctx, "none"); err != nil {
		return err
	}
	_, err = q.Release(ctx, "")
	return err
}

// TestReplica lets a replica take over: it knows what the master knew.
func TestReplica(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, redistest.Options{})
	replica := redistest.Start(t, redistest.Options{Directives: []string{"replicaof 127.0.0.1 " + master.Port()}})
	client := master.Client()
	q := New(conn{client}, "work")
	for i := range 20 {
		master.Do("RPUSH", "work", "item "+strconv.Itoa(i))
		if err := everything(t.Context(), q, client); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "p", Most: 3}); err != nil {
			t.Fatal(err)
		}
		client.Do(t.Context(), client.B().Del().Key(uniqueKey(Prefix("work"), "k}{")).Build())
	}
	deadline := time.Now().Add(3 * time.Minute)
	for {
		answer := master.Do("WAIT", "1", "1000")
		if n, err := answer.AsInt64(); err == nil && n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the replica does not follow")
		}
	}
	before := snapshot(t, q)
	master.Kill()
	replica.Do("REPLICAOF", "NO", "ONE")
	next := New(conn{replica.Client()}, "work")
	if after := snapshot(t, next); !reflect.DeepEqual(after, before) {
		t.Errorf("the replica has\n%+v\nthe master had\n%+v", after, before)
	}
	if _, err := next.Claim(t.Context(), queue.ClaimOptions{Owner: "p", Most: 1}); err != nil {
		t.Error(err)
	}
}

// snapshot returns the records of all states.
func snapshot(t *testing.T, q *Queue) map[queue.State][]queue.Record {
	t.Helper()
	all := map[queue.State][]queue.Record{}
	for _, state := range []queue.State{queue.Ready, queue.Delayed, queue.Claimed, queue.Retry, queue.Dead} {
		records, err := q.List(t.Context(), state, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		all[state] = records
	}
	return all
}

// TestLeasesAfterARestart lets a runner settle that could not renew its lease because the server was away. It begins
// anew where that took longer than a server spares leases after its start.
func TestLeasesAfterARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	deadline := time.Now().Add(3 * time.Minute)
	for try := 0; ; try++ {
		problem := leasesAfterARestart(t, server, fmt.Sprint("work", try))
		if problem == "" {
			return
		}
		if up := uptime(t, server); up < 9 || time.Now().After(deadline) {
			t.Fatalf("%s, %d s after the start", problem, up)
		}
	}
}

// leasesAfterARestart returns what is not as it should be.
func leasesAfterARestart(t *testing.T, server *redistest.Server, list string) (problem string) {
	t.Helper()
	q := New(conn{server.Client()}, list)
	server.Do("RPUSH", list, "a", "b")
	before, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1, Lease: time.Second})
	if err != nil || len(before.Claims) != 1 {
		t.Fatalf("got %+v, %v", before, err)
	}
	time.Sleep(1100 * time.Millisecond) // the server's uptime is in seconds, and the lease ends
	server.Stop()
	server.Restart()
	q = New(conn{server.Client()}, list)
	swept, err := q.Sweep(t.Context())
	least := time.Duration(10-uptime(t, server)-2) * time.Second
	if err != nil || swept.Returned != 0 || swept.Next < least || swept.Next > 10*time.Second {
		return fmt.Sprintf("swept %+v, %v, want none for %v to 10 s", swept, err, least)
	}
	after, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2, Lease: 10 * time.Millisecond})
	if err != nil || len(after.Claims) != 1 || string(after.Claims[0].Parts[0]) != "b" {
		return fmt.Sprintf("claimed %+v, %v", after, err)
	}
	for returned := 0; returned == 0; time.Sleep(10 * time.Millisecond) {
		if swept, err = q.Sweep(t.Context()); err != nil || swept.Returned > 1 || uptime(t, server) > 9 {
			return fmt.Sprintf("the lease from after the start: %+v, %v", swept, err)
		}
		returned = swept.Returned
	}
	claim := before.Claims[0]
	held, err := q.Settle(t.Context(), []queue.Settlement{{ID: claim.ID, Attempt: claim.Attempt, Verb: queue.Ack}})
	if err != nil || !held[0] {
		return fmt.Sprintf("settled %v, %v", held, err)
	}
	return ""
}

// uptime returns for how many seconds the server has been up.
func uptime(t *testing.T, server *redistest.Server) int {
	t.Helper()
	_, rest, _ := strings.Cut(server.Text("INFO", "server"), "uptime_in_seconds:")
	line, _, _ := strings.Cut(rest, "\r")
	seconds, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}
