package redis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// mostMeasureTime is how long one measurement may take, and all else that gives up at its end.
const mostMeasureTime = triggertest.MostMeasureTime

// fails measures once and tells whether that failed; it must never take long, nor see an empty list in an outage.
func fails(t testing.TB, made trigger.Trigger, want float64) bool {
	t.Helper()
	since := time.Now()
	measured, err := made.Measure(t.Context())
	if took := time.Since(since); took > mostMeasureTime {
		t.Errorf("a measurement took %v", took)
	}
	if err == nil && measured.Value != want {
		t.Errorf("measured %v in an outage, want %v or an error", measured.Value, want)
	}
	return err != nil
}

func TestServerThatComesUpLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	server.Do("RPUSH", "list", "a", "b")
	server.Stop()
	var log safeBuffer
	made := build(t, redis.NewClients(), trigger.Config{
		Metadata: config{"address": server.Addr(), "listName": "list"}, Log: logger(&log),
	})
	changes := watch(t, made)
	changes.until(t, "an error while the server is down", func() bool { return fails(t, made, 2) })
	_, err := made.Measure(t.Context())
	if err == nil || !strings.Contains(err.Error(), server.Addr()+" is not reachable") {
		t.Errorf("error %v", err)
	}
	waitFor(t, "the outage in the log", func() bool { return strings.Contains(log.String(), "Redis is not usable") })
	time.Sleep(300 * time.Millisecond) // several attempts
	if text := log.String(); strings.Count(text, "\n") != 1 {
		t.Errorf("an outage is to be logged once:\n%s", text)
	}
	changes.drain()
	server.Restart()
	changes.until(t, "the server that came up", func() bool { return !fails(t, made, 2) })
	waitFor(t, "the end of the outage in the log", func() bool { return strings.Contains(log.String(), "usable again") })
}

func TestRestartInMidRun(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	made := open(t, config{"address": server.Addr(), "listName": "list"})
	changes := watch(t, made)
	want := 0.0
	for _, end := range []func(){server.Kill, server.Stop} {
		server.Do("RPUSH", "list", "a")
		want++
		changes.until(t, "the push", func() bool { return measure(t, made).Value == want })
		end()
		changes.until(t, "the outage", func() bool { return fails(t, made, want) })
		server.Restart()
		changes.until(t, "the server's return", func() bool { return !fails(t, made, want) })
		server.Do("RPUSH", "list", "a")
		want++
		changes.until(t, "a push after the return", func() bool { return measure(t, made).Value == want })
	}
}

func TestPasswordChange(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AppendOnly: true, Password: "old-secret"})
	server.Do("RPUSH", "list", "a")
	clients := redis.NewClients()
	with := func(password string) trigger.Trigger {
		return build(t, clients, trigger.Config{
			Metadata: config{"address": server.Addr(), "listName": "list"}, Auth: config{"password": password},
		})
	}
	old := with("old-secret")
	changes := watch(t, old)
	changes.until(t, "the old password", func() bool { return !fails(t, old, 1) })
	server.Kill()
	server.Restart("new-secret")
	changes.until(t, "the refusal", func() bool {
		_, err := old.Measure(t.Context())
		return err != nil && strings.Contains(err.Error(), "WRONGPASS")
	})
	_, err := old.Measure(t.Context())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if fails(t, with("new-secret"), 1) {
		t.Error("the new password is refused")
	}
}

func TestBlackHole(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	server.Do("RPUSH", "list", "a")
	made := open(t, config{"address": proxy.Addr(), "listName": "list"})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 1) })
	proxy.Hold()
	since := time.Now()
	// The silence is found without anyone asking: the keep-alive finds it, and Watch says so when the reconnect fails.
	changes.until(t, "the silence to be noticed", func() bool { return fails(t, made, 1) })
	t.Logf("silence noticed after %v", time.Since(since))
	server.Do("RPUSH", "list", "b")
	changes.drain()
	proxy.Forward()
	changes.until(t, "the network's return", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 2
	})
	proxy.Cut()
	server.Do("RPUSH", "list", "c")
	changes.until(t, "a push after a cut", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 3
	})
}

func TestMeasureInABlackHoleIsBounded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	proxy.Hold()
	made := open(t, config{"address": proxy.Addr(), "listName": "list"})
	since := time.Now()
	_, err := made.Measure(t.Context())
	if took := time.Since(since); err == nil || took > mostMeasureTime {
		t.Errorf("measured %v after %v", err, took)
	}
	if err == nil || !strings.Contains(err.Error(), proxy.Addr()+" does not answer in time") {
		t.Errorf("error %v", err)
	}
	took := triggertest.Quickly(trigger.MeasureTimeout, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if measured, err := made.Measure(ctx); err == nil {
			t.Errorf("measured %+v in a black hole", measured)
		}
	})
	if took >= trigger.MeasureTimeout {
		t.Errorf("a measurement outlives its context by %v", took)
	}
	since = time.Now()
	made.Close()
	if took := time.Since(since); took > mostMeasureTime {
		t.Errorf("Close takes %v in a black hole", took)
	}
}

func TestFrozenServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("RPUSH", "list", "a")
	made := open(t, config{"address": server.Addr(), "listName": "list"})
	changes := watch(t, made)
	changes.until(t, "the first measurement", func() bool { return !fails(t, made, 1) })
	server.Freeze()
	changes.until(t, "the freeze to be noticed", func() bool { return fails(t, made, 1) })
	server.Thaw()
	changes.until(t, "the thaw", func() bool { return !fails(t, made, 1) })
}

// TestOneTriggersImpatienceIsNotAnothersError lets a measurement give up while another waits for the same answer.
func TestOneTriggersImpatienceIsNotAnothersError(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	clients := redis.NewClients()
	cfg := trigger.Config{Metadata: config{"address": proxy.Addr(), "listName": "list"}}
	hasty, patient := build(t, clients, cfg), build(t, clients, cfg)
	measure(t, hasty)
	server.Do("RPUSH", "list", "a")
	waitFor(t, "the push", func() bool { return measure(t, patient).Value == 1 })
	server.Do("DEL", "list")
	waitFor(t, "the deletion", func() bool { return measure(t, patient).Value == 0 })
	changes := watch(t, patient)
	// The notice of the push passes first, so that both have to ask. Where it is that of a change before, they may
	// answer from memory; and a busy machine may need all of the time that the patient one has.
	waitFor(t, "both to wait for one answer", func() bool {
		measure(t, patient) // the server tells of changes after a question only
		changes.drain()
		server.Do("RPUSH", "list", "a")
		changes.once(t, "the notice of a push")
		proxy.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		hastyDone, patientDone := make(chan error, 1), make(chan error, 1)
		go func() { _, err := hasty.Measure(ctx); hastyDone <- err }()
		time.Sleep(50 * time.Millisecond)
		since := time.Now()
		go func() { _, err := patient.Measure(t.Context()); patientDone <- err }()
		hastyErr := <-hastyDone
		proxy.Forward()
		patientErr := <-patientDone
		if patientErr != nil && time.Since(since) < trigger.MeasureTimeout {
			t.Fatalf("the patient measurement: %v", patientErr)
		}
		return hastyErr != nil && patientErr == nil
	})
}

func TestSecondAddressIsUsedWhenTheFirstIsDead(t *testing.T) {
	t.Parallel()
	dead := servertest.FreeAddress(t)
	first := redistest.Start(t, redistest.Options{})
	second := redistest.Start(t, redistest.Options{})
	second.Do("RPUSH", "list", "a")
	made := open(t, config{"addresses": dead + ", " + first.Addr() + "," + second.Addr(), "listName": "list"})
	changes := watch(t, made)
	changes.until(t, "the first living server", func() bool { return !fails(t, made, 0) })
	first.Kill()
	changes.until(t, "the second server", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 1
	})
	second.Kill()
	changes.until(t, "an error that names all servers", func() bool {
		_, err := made.Measure(t.Context())
		return err != nil && strings.Contains(err.Error(), dead) && strings.Contains(err.Error(), first.Addr()) &&
			strings.Contains(err.Error(), second.Addr()) && !strings.Contains(err.Error(), "\n")
	})
}
