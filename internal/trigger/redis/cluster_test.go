package redis_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// onCluster opens a trigger of type redis-cluster that knows the last node only.
func onCluster(t testing.TB, cluster *redistest.Cluster, clients *redis.Clients, list string) trigger.Trigger {
	t.Helper()
	return buildType(t, clients, "redis-cluster", trigger.Config{
		Metadata: config{"addresses": cluster.Nodes[2].Addr(), "listName": list},
	})
}

// spread returns lists of which each of the three nodes has two.
func spread(cluster *redistest.Cluster) map[string]*redistest.Server {
	lists, counts := map[string]*redistest.Server{}, map[*redistest.Server]int{}
	for i := 0; len(lists) < 6; i++ {
		list := fmt.Sprint("list", i)
		if owner := cluster.Owner(list); counts[owner] < 2 {
			counts[owner]++
			lists[list] = owner
		}
	}
	return lists
}

// sees tells whether the trigger measures what is wanted; it may have measured something else before, or not at all.
func sees(t testing.TB, made trigger.Trigger, want float64) bool {
	t.Helper()
	measured, err := made.Measure(t.Context())
	return err == nil && measured.Value == want
}

// other returns a node that is not the one given.
func other(cluster *redistest.Cluster, node *redistest.Server) *redistest.Server {
	if cluster.Nodes[0] == node {
		return cluster.Nodes[1]
	}
	return cluster.Nodes[0]
}

// TestCluster uses a cluster all of whose nodes run.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, redistest.Options{})
	t.Run("lists on all nodes", func(t *testing.T) { testSpreadLists(t, cluster) })
	t.Run("slot that moves", func(t *testing.T) { testMovingSlot(t, cluster) })
	t.Run("empty slot that moves", func(t *testing.T) { testMovingEmptySlot(t, cluster) })
	t.Run("streams", func(t *testing.T) { testStreamOnCluster(t, cluster) })
	t.Run("claims", func(t *testing.T) { testClaimsOnCluster(t, cluster) })
	t.Run("claims of streams", func(t *testing.T) { testStreamClaimsOnCluster(t, cluster) })
	t.Run("claims while a slot moves", func(t *testing.T) { testClaimsWhileASlotMoves(t, cluster) })
}

// TestClusterThatFails uses a cluster whose nodes are killed.
func TestClusterThatFails(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, redistest.Options{AppendOnly: true})
	t.Run("node that goes and returns", func(t *testing.T) { testNodeThatGoesAndReturns(t, cluster) })
	t.Run("cluster that is down", func(t *testing.T) { testClusterThatIsDown(t, cluster) })
	t.Run("failover", func(t *testing.T) { testClusterFailover(t, cluster) })
}

func testSpreadLists(t *testing.T, cluster *redistest.Cluster) {
	clients := redis.NewClients()
	for list, owner := range spread(cluster) {
		made := onCluster(t, cluster, clients, list)
		changes := watch(t, made)
		changes.until(t, "the first measurement", func() bool { return !fails(t, made, 0) })
		if got := measure(t, made); got.Holds <= 0 {
			t.Errorf("%s: holds for %v, want more", list, got.Holds)
		}
		owner.Do("RPUSH", list, "a")
		changes.until(t, "a push", func() bool { return measure(t, made).Value == 1 })
		length, err := made.(trigger.Pusher).Push(t.Context(), []byte("b"), []byte("c"))
		if err != nil || length != 3 {
			t.Errorf("%s: pushed: %d, %v, want 3", list, length, err)
		}
		changes.until(t, "an own push", func() bool { return measure(t, made).Value == 3 })
		length, err = made.(trigger.Pusher).Push(t.Context(), make([][]byte, 5000)...)
		if err != nil || length != 5003 {
			t.Errorf("%s: pushed many: %d, %v, want 5003", list, length, err)
		}
	}
	for _, node := range cluster.Nodes {
		// One more asks for the slots now and then.
		waitFor(t, "one connection to each node", func() bool { return len(connections(t, node)) == 1 })
	}
}

func testMovingSlot(t *testing.T, cluster *redistest.Cluster) {
	made := onCluster(t, cluster, redis.NewClients(), "moving")
	changes := watch(t, made)
	from := cluster.Owner("moving")
	to := other(cluster, from)
	from.Do("RPUSH", "moving", "a")
	changes.until(t, "a push", func() bool { return sees(t, made, 1) })
	slot := cluster.Slot("moving")
	cluster.Begin(slot, from, to)
	from.Do("RPUSH", "moving", "b")
	changes.until(t, "a push before the list moves", func() bool { return measure(t, made).Value == 2 })
	from.Do("MIGRATE", to.Host(), to.Port(), "moving", "0", "10000")
	// The list is elsewhere, the slot is not yet: the node that has it cannot tell of changes.
	changes.until(t, "the list that has moved", func() bool {
		got := measure(t, made)
		return got.Value == 2 && got.Holds == 0
	})
	if length, err := made.(trigger.Pusher).Push(t.Context(), []byte("c")); err != nil || length != 3 {
		t.Errorf("pushed: %d, %v, want 3", length, err)
	}
	if got := measure(t, made); got.Value != 3 {
		t.Errorf("measured %v, want 3", got.Value)
	}
	cluster.Finish(slot, from, to)
	to.Do("RPUSH", "moving", "d")
	changes.await(t, "a push after the slot has moved", func() bool { return measure(t, made).Value == 4 })
	changes.await(t, "the new node to tell of changes", func() bool { return measure(t, made).Holds > 0 })
	changes.drain()
	to.Do("RPUSH", "moving", "e")
	changes.until(t, "a push to the new node", func() bool { return measure(t, made).Value == 5 })
}

// testMovingEmptySlot moves a slot without keys, of which the old node tells nobody.
func testMovingEmptySlot(t *testing.T, cluster *redistest.Cluster) {
	made := onCluster(t, cluster, redis.NewClients(), "nothing")
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 0) })
	from := cluster.Owner("nothing")
	to := other(cluster, from)
	slot := cluster.Slot("nothing")
	cluster.Begin(slot, from, to)
	cluster.Finish(slot, from, to)
	to.Do("RPUSH", "nothing", "a")
	changes.await(t, "a push to the new node", func() bool { return measure(t, made).Value == 1 })
}

func testStreamOnCluster(t *testing.T, cluster *redistest.Cluster) {
	made := buildType(t, redis.NewClients(), "redis-cluster-streams", trigger.Config{Metadata: config{
		"hosts": cluster.Nodes[0].Host(), "ports": cluster.Nodes[0].Port(),
		"stream": "stream", "consumerGroup": "group", "lagCount": "1",
	}})
	owner := cluster.Owner("stream")
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 0) })
	add(owner, 2)
	changes.until(t, "entries", func() bool { return measure(t, made).Value == 2 })
	owner.Do("XGROUP", "CREATE", "stream", "group", "0")
	read(t, owner, 1)
	if got := measure(t, made); got.Value != 1 {
		t.Errorf("measured %v, want 1", got.Value)
	}
}

func testClaimsOnCluster(t *testing.T, cluster *redistest.Cluster) {
	made := onCluster(t, cluster, redis.NewClients(), "work")
	items := made.(trigger.Claimer).Items("")
	err := triggertest.Again(func() error {
		cluster.Owner("work").Do("DEL", "work") // what is not answered in time may have arrived
		_, err := items.Push(t.Context(), queue.PushOptions{}, []byte("a"), []byte("b"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := items.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2})
	if err != nil || len(result.Claims) != 2 {
		t.Fatalf("claimed %+v, %v, want 2", result, err)
	}
	waitFor(t, "the claims to be counted", func() bool {
		claimed, err := made.(trigger.Claimer).Claimed(t.Context())
		return err == nil && claimed == 2
	})
	changes := watch(t, made)
	held, err := items.Settle(t.Context(), []queue.Settlement{
		{ID: result.Claims[0].ID, Attempt: 1, Verb: queue.Ack},
		{ID: result.Claims[1].ID, Attempt: 1, Verb: queue.PutOff, Wait: time.Hour, Failure: &queue.Failure{Reason: "R"}},
	})
	if err != nil || !held[0] || !held[1] {
		t.Errorf("settled: %v, %v", held, err)
	}
	changes.until(t, "when an item comes back", func() bool { wake := measure(t, made).Wake; return wake != nil && *wake != "" })
}

// testClaimsWhileASlotMoves claims and settles without a pause while the slot goes back and forth.
func testClaimsWhileASlotMoves(t *testing.T, cluster *redistest.Cluster) {
	const count = 100
	made := onCluster(t, cluster, redis.NewClients(), "moved")
	items := made.(trigger.Claimer).Items("")
	all := make([][]byte, count)
	for i := range all {
		all[i] = fmt.Append(nil, "item ", i)
	}
	if _, err := items.Push(t.Context(), queue.PushOptions{}, all...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var moving sync.WaitGroup
	moves := 0
	// A script waits while the keys are on their way. One after the other, the moves would leave a slow machine no time.
	settled := make(chan struct{}, 1)
	moving.Go(func() {
		from, slot := cluster.Owner("moved"), cluster.Slot("moved")
		to := other(cluster, from)
		for ctx.Err() == nil {
			cluster.Begin(slot, from, to)
			cluster.Finish(slot, from, to)
			from, to = to, from
			moves++
			select {
			case <-settled:
			case <-ctx.Done():
			}
		}
	})
	seen := map[string]bool{}
	for len(seen) < count {
		result, err := items.Claim(ctx, queue.ClaimOptions{Owner: "o", Most: 1})
		if err != nil {
			t.Errorf("claim: %v", err)
			break
		}
		if len(result.Claims) != 1 {
			t.Errorf("claimed %d items of those that are left, want 1", len(result.Claims))
			break
		}
		claim := result.Claims[0]
		if seen[claim.ID] {
			t.Errorf("%s is claimed twice", claim.ID)
		}
		seen[claim.ID] = true
		held, err := items.Settle(ctx, []queue.Settlement{{ID: claim.ID, Attempt: claim.Attempt, Verb: queue.Ack}})
		if err != nil || !held[0] {
			t.Errorf("settle: %v, %v", held, err)
			break
		}
		select {
		case settled <- struct{}{}:
		default:
		}
	}
	cancel()
	moving.Wait()
	stats, err := items.Stats(t.Context())
	if err != nil || stats.Done != count || stats.Ready != 0 || stats.Claimed != 0 || moves < 2 {
		t.Errorf("%+v, %v after %d moves, want all %d done", stats, err, moves, count)
	}
	t.Logf("%d items done during %d moves of the slot", count, moves)
}

// testNodeThatGoesAndReturns kills a node without a replica. The others serve their slots meanwhile.
func testNodeThatGoesAndReturns(t *testing.T, cluster *redistest.Cluster) {
	full := func(coverage string) {
		for _, node := range cluster.Running() {
			node.Do("CONFIG", "SET", "cluster-require-full-coverage", coverage)
		}
	}
	full("no")
	clients := redis.NewClients()
	victim := cluster.Owner("list")
	made := onCluster(t, cluster, clients, "list")
	changes := watch(t, made)
	victim.Do("RPUSH", "list", "a")
	changes.until(t, "the push", func() bool { return sees(t, made, 1) })
	victim.Kill()
	changes.await(t, "the outage", func() bool { return fails(t, made, 1) })
	_, err := made.Measure(t.Context())
	if err == nil || !strings.Contains(err.Error(), "redis at "+victim.Addr()+" is not reachable") {
		t.Errorf("error %v", err)
	}
	for _, list := range []string{"a", "b", "c", "d", "e", "f"} {
		owner := cluster.Find(list)
		if owner == nil {
			continue // it is the victim's
		}
		owner.Do("RPUSH", list, "a")
		if got := measure(t, onCluster(t, cluster, clients, list)); got.Value != 1 {
			t.Errorf("%s: measured %v, want 1", list, got.Value)
		}
	}
	victim.Restart()
	changes.await(t, "the node's return", func() bool { return !fails(t, made, 1) })
	waitFor(t, "a push to be taken", func() bool {
		_, err := made.(trigger.Pusher).Push(t.Context(), []byte("b"))
		return err == nil
	})
	changes.await(t, "a push after the return", func() bool { return sees(t, made, 2) })
	full("yes")
	cluster.Await()
}

// testClusterThatIsDown kills a node of a cluster that then serves nothing, as is the default.
func testClusterThatIsDown(t *testing.T, cluster *redistest.Cluster) {
	victim := cluster.Owner("down")
	key := "z"
	for i := 0; cluster.Owner(key) == victim; i++ {
		key = fmt.Sprint(i)
	}
	made := onCluster(t, cluster, redis.NewClients(), key)
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 0) })
	victim.Kill()
	waitFor(t, "the cluster to be down", func() bool {
		return strings.Contains(cluster.Running()[0].Text("CLUSTER", "INFO"), "cluster_state:fail")
	})
	_, err := made.(trigger.Pusher).Push(t.Context(), []byte("a"))
	if err == nil || !strings.Contains(err.Error(), "is a node of a Redis Cluster that is down") {
		t.Errorf("error %v", err)
	}
	victim.Restart()
	changes.await(t, "the cluster's return", func() bool {
		_, err := made.(trigger.Pusher).Push(t.Context(), []byte("a"))
		return err == nil
	})
	changes.await(t, "the push", func() bool { return sees(t, made, 1) })
	cluster.Await()
}

// testClusterFailover kills a master, whose replica the cluster then promotes.
func testClusterFailover(t *testing.T, cluster *redistest.Cluster) {
	const list = "failover"
	victim := cluster.Owner(list)
	replica := cluster.AddReplica(victim)
	made := onCluster(t, cluster, redis.NewClients(), list)
	changes := watch(t, made)
	victim.Do("RPUSH", list, "a")
	changes.until(t, "the push", func() bool { return sees(t, made, 1) })
	victim.Do("WAIT", "1", "10000")
	victim.Kill()
	changes.await(t, "the outage", func() bool { return fails(t, made, 1) })
	changes.await(t, "the promoted replica", func() bool { return !fails(t, made, 1) })
	replica.Do("RPUSH", list, "b")
	changes.until(t, "a push to the promoted replica", func() bool { return measure(t, made).Value == 2 })
	victim.Restart() // it becomes a replica
	replica.Do("RPUSH", list, "c")
	changes.until(t, "a push after the old master's return", func() bool { return measure(t, made).Value == 3 })
}

func TestClusterWithPasswordAndTLS(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, redistest.Options{TLS: true, Password: "hunter2"})
	cluster.Owner("list").Do("RPUSH", "list", "a")
	single := redistest.Start(t, redistest.Options{})
	for _, test := range []struct {
		name     string
		metadata config
		want     string
	}{
		{"right", nil, ""},
		{"databaseIndex has no effect", config{"databaseIndex": "3"}, ""},
		{"dead node first", config{"addresses": "127.0.0.1:1," + cluster.Nodes[0].Addr()}, ""},
		{"no password", config{"password": ""}, "redis at " + cluster.Nodes[0].Addr() + " requires a password"},
		{"wrong password", config{"password": "hunter2-x"}, `does not accept user "default"`},
		{"no TLS", config{"enableTLS": "false"}, `if it expects TLS, give enableTLS "true"`},
		{"no cluster", config{"addresses": single.Addr(), "enableTLS": "false", "password": ""},
			"is no node of a Redis Cluster; use trigger type redis"},
		{"no node", config{"addresses": "127.0.0.1:1,127.0.0.1:2"}, "redis at 127.0.0.1:1 is not reachable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{
				"addresses": cluster.Nodes[0].Addr(), "listName": "list", "password": "hunter2", "enableTLS": "true",
			}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			made := buildType(t, redis.NewClients(), "redis-cluster", trigger.Config{
				Metadata: metadata, Auth: config{"ca": cluster.Nodes[0].Certs().CA},
			})
			measured, err := triggertest.Try(t, made) // the handshakes take long on a machine that has much to do
			switch {
			case test.want == "":
				if err != nil || measured.Value != 1 {
					t.Errorf("measured %v, %v, want 1", measured.Value, err)
				}
			case err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2"):
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestClusterBehindABlackHole bounds a measurement, and Close, when nothing answers.
func TestClusterBehindABlackHole(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	proxy.Hold()
	made := openType(t, "redis-cluster", config{"address": proxy.Addr(), "listName": "list"})
	since := time.Now()
	if _, err := made.Measure(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(since); took > mostMeasureTime {
		t.Errorf("a measurement took %v", took)
	}
	since = time.Now()
	made.Close()
	if took := time.Since(since); took > mostMeasureTime {
		t.Errorf("Close takes %v in a black hole", took)
	}
}
