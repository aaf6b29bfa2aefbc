package redistest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
)

func TestClusterSpreadsKeysAndMovesSlots(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, redistest.Options{})
	owners := map[*redistest.Server]bool{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		owners[cluster.Owner(key)] = true
	}
	if len(owners) != 3 {
		t.Errorf("six keys are on %d nodes, want 3", len(owners))
	}
	from := cluster.Owner("list")
	from.Do("RPUSH", "list", "item")
	to := cluster.Nodes[0]
	if to == from {
		to = cluster.Nodes[1]
	}
	slot := cluster.Slot("list")
	cluster.Begin(slot, from, to)
	cluster.Finish(slot, from, to)
	if owner := cluster.Owner("list"); owner != to {
		t.Errorf("the slot is at %s, want %s", owner.Addr(), to.Addr())
	}
	length := to.Do("LLEN", "list")
	if n, err := length.AsInt64(); err != nil || n != 1 {
		t.Errorf("%d items, %v, want 1", n, err)
	}
}

func TestSentinelPromotesTheReplica(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, redistest.Options{})
	replica := redistest.Start(t, redistest.Options{Directives: []string{"replicaof 127.0.0.1 " + master.Port()}})
	sentinel := redistest.Start(t, redistest.Options{Monitors: master})
	redistest.AwaitReplica(t, sentinel)
	master.Kill()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		answer := sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", redistest.MasterName)
		address, err := answer.AsStrSlice()
		if err == nil && strings.Join(address, ":") == replica.Addr() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sentinel names %v, %v, want %s", address, err, replica.Addr())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
