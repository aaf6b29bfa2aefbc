package backend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestQueueOfACluster pushes for later, looks, gives back and drops with what a user may read.
func TestQueueOfACluster(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	c := cluster(t)
	namespace := c.Namespace(t)
	apply(t, c, namespace, secret+scaledJob("work", "list", server.Addr(), password))
	b := ask(t, c.Config(), Need{})
	ctx, list := t.Context(), control.Queue{Name: "list", Namespace: namespace}
	if n, err := push(t, b, list, "a", "b"); err != nil || n != 2 {
		t.Fatalf("got %d, %v", n, err)
	}
	unique := queue.PushOptions{At: time.Now().Add(time.Hour), Unique: "k", UniqueFor: time.Minute}
	pushed, err := b.PushWith(ctx, list, unique, [][]byte{{0, 0xff}})
	if err != nil || len(pushed.IDs) != 1 || pushed.Length != 2 {
		t.Fatalf("got %+v, %v", pushed, err)
	}
	if again, err := b.PushWith(ctx, list, unique, [][]byte{{1}}); err != nil || again.HeldBy != pushed.IDs[0] {
		t.Errorf("got %+v, %v", again, err)
	}
	records, err := b.Items(ctx, list, control.Selection{ID: pushed.IDs[0]})
	if err != nil || records[0].State != queue.Delayed || string(records[0].Parts[0]) != "\x00\xff" {
		t.Errorf("got %+v, %v", records, err)
	}
	q, err := b.queue(ctx, list)
	if err != nil {
		t.Fatal(err)
	}
	result, err := q.Claim(ctx, queue.ClaimOptions{Owner: "gone/gone", Most: 2})
	if err != nil || len(result.Claims) != 2 {
		t.Fatalf("got %+v, %v", result, err)
	}
	first, second := result.Claims[0].ID, result.Claims[1].ID
	if _, err := q.Settle(ctx, []queue.Settlement{{
		ID: second, Attempt: 1, Verb: queue.Bury, Failure: &queue.Failure{Reason: "Error", At: time.Now()},
	}}); err != nil {
		t.Fatal(err)
	}
	stats, err := b.Stats(ctx, list)
	if err != nil || stats.Claimed != 1 || stats.Dead != 1 || stats.Delayed != 1 || stats.Ready != 0 {
		t.Errorf("got %+v, %v", stats, err)
	}
	for _, step := range []struct {
		operation control.Operation
		id        string
		done      bool
	}{
		{control.DropDead, first, false}, {control.RetryDead, second, true}, {control.RetryDead, second, false},
		{control.GiveBack, first, true}, {control.GiveBack, first, false},
	} {
		done, err := b.Change(ctx, list, step.operation, []control.ItemRef{{ID: step.id, Attempt: 1}})
		if err != nil || (len(done) == 1) != step.done {
			t.Errorf("%s %s: got %q, %v", step.operation, step.id, done, err)
		}
	}
	if got := items(t, server, "list"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	_, err = b.Items(ctx, list, control.Selection{ID: "none"})
	wantError(t, err, control.NotFound, "the queue has no such item")
	_, err = b.Stats(ctx, control.Queue{Name: "other", Namespace: namespace})
	wantError(t, err, control.NotFound, `there is "list"`)
	server.Stop()
	_, err = ask(t, c.Config(), Need{}).Stats(ctx, list)
	wantError(t, err, control.Unavailable, "redis at "+server.Addr()+" is not reachable")
}

// TestQueueThroughAPortForward runs scripts on a server that only the cluster reaches.
func TestQueueThroughAPortForward(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	api := shop(server.Addr(), "redis")
	api.websockets = true
	b := ask(t, api.start(t), Need{})
	list := control.Queue{Name: "list0", Namespace: "shop"}
	pushed, err := b.PushWith(t.Context(), list, queue.PushOptions{Delay: time.Hour}, [][]byte{[]byte("a")})
	if err != nil || len(pushed.IDs) != 1 {
		t.Fatalf("got %+v, %v", pushed, err)
	}
	if stats, err := b.Stats(t.Context(), list); err != nil || stats.Delayed != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// TestQueueOfAnyNamespace has ScaledJobs of two namespaces, whose Services of one name are two servers.
func TestQueueOfAnyNamespace(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	c := cluster(t)
	namespaces := []string{c.Namespace(t), c.Namespace(t)}
	list := "list of " + namespaces[0]
	open := func(address string) string {
		return strings.Replace(scaledJob("work", list, address), ", passwordFromEnv: PASSWORD", "", 1)
	}
	apply(t, c, namespaces[0], open(one.Addr()))
	b := ask(t, c.Config(), Need{})
	if n, err := push(t, b, control.Queue{Name: list}, "a"); err != nil || n != 1 {
		t.Errorf("got %d, %v", n, err)
	}
	apply(t, c, namespaces[1], open(two.Addr()))
	_, err := ask(t, c.Config(), Need{}).Stats(t.Context(), control.Queue{Name: list})
	wantError(t, err, control.BadRequest, namespaces[0]+"/work", namespaces[1]+"/work", "say which is meant with -n")

	addresses := []string{"redis:1", "redis", "redis.x:1", "127.0.0.1:1", "localhost:1"}
	want := []string{"redis.shop:1", "redis.shop:6379", "redis.x:1", "127.0.0.1:1", "localhost:1"}
	if got := qualified(addresses, "shop"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
