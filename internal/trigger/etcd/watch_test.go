package etcd_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/etcd"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	clients := etcd.NewClients()
	made := open(t, clients, trigger.Config{Metadata: metadata(server.Addr(0), "jobs")})
	other := open(t, clients, trigger.Config{Metadata: metadata(server.Addr(0), "jobs2")})
	calls, otherCalls := watch(t, made), watch(t, other)
	eventually(t, "both watches", func() bool { return calls() >= 1 && otherCalls() >= 1 })
	triggertest.Fails(t, made, "there is no key", "secret")
	for i := range 3 {
		before := calls()
		since := time.Now()
		server.put(t, "jobs", strconv.Itoa(i))
		eventually(t, "the change", func() bool { return calls() > before })
		t.Logf("told of a change after at most %v", time.Since(since))
		if got := triggertest.Measure(t, made).Value; got != float64(i) {
			t.Errorf("measured %v, want %d", got, i)
		}
	}
	before := calls()
	if _, err := server.client.Delete(t.Context(), "jobs"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the key", func() bool { return calls() > before })
	triggertest.Fails(t, made, "there is no key", "secret")
	if got := otherCalls(); got != 1 {
		t.Errorf("the watch of another key was told %d times, want once", got)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	clients := etcd.NewClients()
	ended := false
	made := open(t, clients, trigger.Config{Metadata: metadata(server.Addr(0), "jobs")})
	called := make(chan struct{}, 10)
	stop := made.(trigger.Watcher).Watch(func() {
		if ended {
			t.Error("told of a change after the end")
		}
		called <- struct{}{}
	})
	<-called
	stop()
	ended = true
	calls := watch(t, made)
	eventually(t, "another watch", func() bool { return calls() >= 1 })
	before := calls()
	server.put(t, "jobs", "1")
	eventually(t, "the change", func() bool { return calls() > before })
	// One that never came about ends as well.
	unreachable := open(t, clients, trigger.Config{Metadata: metadata("127.0.0.1:1", "jobs")})
	unreachable.(trigger.Watcher).Watch(func() { t.Error("told of a change by nobody") })()
}

// TestWatchGoesOn changes the key while the watch is cut off, and is told of it afterwards.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	proxy := servertest.StartProxy(t, server.Addr(0))
	made := open(t, etcd.NewClients(), trigger.Config{Metadata: metadata(proxy.Addr(), "jobs")})
	server.put(t, "jobs", "1")
	calls := watch(t, made)
	eventually(t, "the watch", func() bool { return calls() >= 1 })
	for i, compact := range []bool{false, true, false} {
		// A watch that is made anew may tell once more of what it has told already.
		before := calls()
		eventually(t, "no more calls", func() bool {
			last := before
			time.Sleep(300 * time.Millisecond)
			before = calls()
			return before == last
		})
		proxy.Hold()
		proxy.Cut()
		server.put(t, "jobs", strconv.Itoa(10+i))
		revision := server.put(t, "another", "1")
		if compact {
			if _, err := server.client.Compact(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
		}
		if got := calls(); got != before {
			t.Fatalf("told %d times by a watch that is cut off, want none", got-before)
		}
		proxy.Forward()
		eventually(t, "what changed meanwhile", func() bool { return calls() > before })
		eventually(t, "the number", func() bool {
			measured, err := made.Measure(t.Context())
			return err == nil && measured.Value == float64(10+i)
		})
		before = calls()
		server.put(t, "jobs", "2")
		eventually(t, "the next change", func() bool { return calls() > before })
	}
}

// TestSilentWatchIsMadeAnew expects a word every second from a server that says none for ten minutes.
func TestSilentWatchIsMadeAnew(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	proxy := servertest.StartProxy(t, server.Addr(0))
	given := metadata(proxy.Addr(), "jobs")
	given["watchProgressNotifyInterval"] = "1" // the server itself tells every 10 minutes
	made := open(t, etcd.NewClients(), trigger.Config{Metadata: given})
	calls := watch(t, made)
	eventually(t, "the watch", func() bool { return calls() >= 1 })
	time.Sleep(5 * time.Second) // twice the interval, and the pause before the next attempt
	server.put(t, "jobs", "1")
	eventually(t, "the change", func() bool { return calls() >= 2 })
}

func TestFrozenServer(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	server.put(t, "jobs", "1")
	made := open(t, etcd.NewClients(), trigger.Config{Metadata: metadata(server.Addr(0), "jobs")})
	calls := watch(t, made)
	eventually(t, "the watch", func() bool { return calls() >= 1 })
	triggertest.Measure(t, made)
	server.Freeze()
	triggertest.Fails(t, made, "does not answer in time", "secret")
	server.Thaw()
	eventually(t, "the return", func() bool { _, err := made.Measure(t.Context()); return err == nil })
	before := calls()
	server.put(t, "jobs", "2")
	eventually(t, "the change", func() bool { return calls() > before })
}

func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := start(t, false)
	server.put(t, "jobs", "1")
	made := open(t, etcd.NewClients(), trigger.Config{Metadata: metadata(server.Addr(0), "jobs")})
	calls := watch(t, made)
	eventually(t, "the watch", func() bool { return calls() >= 1 })
	for _, end := range []func(){server.Kill, server.Stop} {
		end()
		triggertest.Fails(t, made, "etcd at "+server.Addr(0)+" is not reachable", "secret")
		server.Restart()
		if got := triggertest.Measure(t, made).Value; got != 1 {
			t.Errorf("measured %v after the return, want 1", got)
		}
	}
	before := calls()
	server.put(t, "jobs", "2")
	eventually(t, "the change", func() bool { return calls() > before })
}
