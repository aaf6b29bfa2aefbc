package redis_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// patienceForAll is how long several servers may take until they agree.
const patienceForAll = 4 * time.Minute

// guarded are a master, its replica and a sentinel.
type guarded struct{ master, replica, sentinel *redistest.Server }

func guard(t testing.TB) guarded {
	t.Helper()
	master := redistest.Start(t, redistest.Options{AppendOnly: true})
	replica := redistest.Start(t, redistest.Options{
		AppendOnly: true, Directives: []string{"replicaof 127.0.0.1 " + master.Port()},
	})
	sentinel := redistest.Start(t, redistest.Options{Monitors: master, Password: "-sentinel"})
	redistest.AwaitReplica(t, sentinel)
	return guarded{master: master, replica: replica, sentinel: sentinel}
}

// metadata are the parameters by which the sentinel is reached.
func (g guarded) metadata(more config) config {
	all := config{
		"addresses": g.sentinel.Addr(), "sentinelMaster": redistest.MasterName, "sentinelPassword": "-sentinel",
	}
	for key, value := range more {
		all[key] = value
	}
	return all
}

// await is until with more patience.
func (w *watched) await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patienceForAll)
	for !condition() {
		select {
		case <-w.signal:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patienceForAll)
		}
	}
}

// TestFailover kills the master, and expects the promoted replica to be measured, watched and used.
func TestFailover(t *testing.T) {
	t.Parallel()
	servers := guard(t)
	clients := redis.NewClients()
	list := buildType(t, clients, "redis-sentinel", trigger.Config{Metadata: servers.metadata(config{"listName": "list"})})
	stream := buildType(t, clients, "redis-sentinel-streams", trigger.Config{
		Metadata: servers.metadata(config{"stream": "stream", "consumerGroup": "group", "lagCount": "1"}),
	})
	entries := buildType(t, clients, "redis-sentinel-streams", trigger.Config{
		Metadata: servers.metadata(config{"stream": "entries", "consumerGroup": "group"}), Claims: true,
	}).(trigger.Claimer).Items("")
	listChanges, streamChanges := watch(t, list), watch(t, stream)
	listChanges.until(t, "the first measurement", func() bool { return !fails(t, list, 0) })
	streamChanges.until(t, "the first measurement", func() bool { return !fails(t, stream, 0) })

	servers.master.Do("RPUSH", "list", "a", "b")
	add(servers.master, 3)
	listChanges.until(t, "a push", func() bool { return measure(t, list).Value == 2 })
	streamChanges.until(t, "an entry", func() bool { return measure(t, stream).Value == 3 })
	claimed, err := list.(trigger.Claimer).Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
	if err != nil || len(claimed.Claims) != 1 {
		t.Fatalf("claimed %+v, %v", claimed, err)
	}
	if _, err := entries.Push(t.Context(), queue.PushOptions{}, []byte("a"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	entry := take(t, entries, 1, "a")[0]
	servers.master.Do("WAIT", "1", "10000")
	listChanges.until(t, "the claim", func() bool { return measure(t, list).Value == 1 })

	servers.master.Kill()
	listChanges.await(t, "the outage", func() bool { return fails(t, list, 1) })
	listChanges.await(t, "the promoted replica", func() bool { return !fails(t, list, 1) })
	streamChanges.await(t, "the promoted replica", func() bool { return !fails(t, stream, 3) })
	servers.replica.Do("RPUSH", "list", "c")
	add(servers.replica, 1)
	listChanges.until(t, "a push to the promoted replica", func() bool { return measure(t, list).Value == 2 })
	streamChanges.until(t, "an entry of the promoted replica", func() bool { return measure(t, stream).Value == 4 })
	if length, err := list.(trigger.Pusher).Push(t.Context(), []byte("d")); err != nil || length != 3 {
		t.Errorf("pushed: %d, %v, want 3", length, err)
	}
	waitFor(t, "the claim to be settled", func() bool {
		held, err := list.(trigger.Claimer).Items("").Settle(t.Context(), []queue.Settlement{
			{ID: claimed.Claims[0].ID, Attempt: claimed.Claims[0].Attempt, Verb: queue.Ack},
		})
		if err == nil && !held[0] {
			t.Error("the claim is not known to the promoted replica")
		}
		return err == nil
	})
	waitFor(t, "the entry to be given back", func() bool {
		held, err := entries.Settle(t.Context(), []queue.Settlement{{ID: entry.ID, Attempt: 1, Verb: queue.GiveBack}})
		if err == nil && !held[0] {
			t.Error("the claim of the entry is not known to the promoted replica")
		}
		return err == nil
	})
	take(t, entries, 3, "a", "b")
}

// TestMasterThatIsReplacedWhileItLives lets the sentinel promote the replica on demand, which keeps the old master.
func TestMasterThatIsReplacedWhileItLives(t *testing.T) {
	t.Parallel()
	servers := guard(t)
	other := redistest.Start(t, redistest.Options{}) // first in the list, and no sentinel at all
	made := openType(t, "redis-sentinel", servers.metadata(config{
		"listName": "list", "addresses": other.Addr() + "," + servers.sentinel.Addr(),
	}))
	changes := watch(t, made)
	servers.master.Do("RPUSH", "list", "a")
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 1) })
	servers.master.Do("WAIT", "1", "10000")
	servers.sentinel.Do("SENTINEL", "FAILOVER", redistest.MasterName)
	deadline := time.Now().Add(patienceForAll)
	for {
		answer := servers.sentinel.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", redistest.MasterName)
		if parts, err := answer.AsStrSlice(); err == nil && net.JoinHostPort(parts[0], parts[1]) == servers.replica.Addr() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the sentinel does not promote the replica")
		}
		time.Sleep(10 * time.Millisecond)
	}
	servers.replica.Do("RPUSH", "list", "b", "c")
	changes.await(t, "the push to the promoted replica", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 3
	})
}

func TestSentinelsWithPasswordsAndTLS(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, redistest.Options{TLS: true, Password: "hunter2"})
	servers := guarded{master: master, sentinel: redistest.Start(t, redistest.Options{
		Monitors: master, TLS: true, Certs: master.Certs(), Password: "hunter2-sentinel",
	})}
	servers.master.Do("RPUSH", "list", "a")
	for _, test := range []struct {
		name                string
		metadata, auth, env config
		want                string
	}{
		{"all", nil, nil, nil, ""},
		{"from auth", config{"sentinelMaster": "", "sentinelPassword": "", "password": ""},
			config{"sentinelMaster": "main", "sentinelPassword": "hunter2-sentinel", "password": "hunter2"}, nil, ""},
		{"from env", config{
			"sentinelMaster": "", "sentinelPassword": "", "password": "", "addresses": "", "sentinelMasterFromEnv": "M",
			"sentinelPasswordFromEnv": "S", "passwordFromEnv": "P", "hostsFromEnv": "H", "portsFromEnv": "T",
		}, nil, config{
			"M": "main", "S": "hunter2-sentinel", "P": "hunter2", "H": servers.sentinel.Host(), "T": servers.sentinel.Port(),
		}, ""},
		{"sentinel's user", config{"sentinelUsername": "default"}, nil, nil, ""},
		{"sentinel's password", config{"sentinelPassword": "hunter2"}, nil, nil,
			`redis sentinel at ` + servers.sentinel.Addr() + ` does not accept user "default" with this password; correct sentinel`},
		{"no sentinel's password", config{"sentinelPassword": ""}, nil, nil, "requires a password; give sentinelPasswordFromEnv"},
		{"master's password", config{"password": "hunter2-x"}, nil, nil,
			"redis at " + servers.master.Addr() + ` does not accept user "default"`},
		{"another name", config{"sentinelMaster": "other"}, nil, nil, `knows no master "other"; correct sentinelMaster`},
		{"no sentinel", config{"addresses": servers.master.Addr(), "sentinelPassword": "hunter2"}, nil, nil, "is no sentinel; give"},
		{"no TLS", config{"enableTLS": "false"}, nil, nil, `if it expects TLS, give enableTLS "true"`},
		{"unknown authority", nil, config{"ca": ""}, nil, "certificate of an unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := servers.metadata(config{
				"listName": "list", "sentinelPassword": "hunter2-sentinel", "password": "hunter2", "enableTLS": "true",
			})
			for key, value := range test.metadata {
				metadata[key] = value
			}
			auth := config{"ca": servers.master.Certs().CA}
			for key, value := range test.auth {
				auth[key] = value
			}
			measured, err := triggertest.Try(t, buildType(t, redis.NewClients(), "redis-sentinel", trigger.Config{
				Metadata: metadata, Auth: auth, Env: test.env,
			}))
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

// TestSentinelThatSaysSomethingElse answers the question for the master in ways that Redis does not.
func TestSentinelThatSaysSomethingElse(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"*1\r\n$1\r\na\r\n", ":1\r\n", "*2\r\n:1\r\n:2\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$0\r\n\r\n$1\r\n1\r\n", "+OK\r\n",
	} {
		address := fake(t, func(command []string) string {
			if command[0] == "HELLO" {
				return hello3
			}
			return reply
		})
		made := openType(t, "redis-sentinel", config{"address": address, "sentinelMaster": "main", "listName": "list"})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := made.Measure(ctx); err == nil || !strings.Contains(err.Error(), "redis sentinel at "+address) {
			t.Errorf("%q: error %v", reply, err)
		}
	}
}
