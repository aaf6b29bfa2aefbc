package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
)

// view looks at the list from outside.
func (s server) view(t *testing.T, list string) *redisqueue.Queue {
	t.Helper()
	port := s.port
	c := &client{config: config{host: "127.0.0.1", port: port, list: list}}
	t.Cleanup(c.close)
	return redisqueue.New(c, list)
}

func stats(t *testing.T, q *redisqueue.Queue) queue.Stats {
	t.Helper()
	s, err := q.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// only returns the one record of that state.
func only(t *testing.T, q *redisqueue.Queue, state queue.State) queue.Record {
	t.Helper()
	records, err := q.List(t.Context(), state, 0, 10)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records are %s, want 1: %+v, %v", len(records), state, records, err)
	}
	return records[0]
}

// wantCounts compares the items by state, as ready, claimed, retry, dead and done.
func wantCounts(t *testing.T, q *redisqueue.Queue, want ...int64) {
	t.Helper()
	s := stats(t, q)
	if got := []int64{s.Ready, s.Claimed, s.Retry, s.Dead, s.Done}; !slices.Equal(got, want) {
		t.Errorf("ready, claimed, retry, dead, done are %d, want %d", got, want)
	}
}

func TestWhatBecomesOfAnItem(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	// Long enough that the item still waits when it is looked at, however slow the machine is.
	const hour = time.Hour
	for name, test := range map[string]struct {
		script   string
		set      func(*Options)
		code     int
		says     string
		counts   []int64
		failure  *queue.Failure
		waitFrom time.Duration
	}{
		"ack": {"exit 0", nil, 0, ": done in ", []int64{0, 0, 0, 0, 1}, nil, 0},
		"retry": {
			"exit 3", func(o *Options) { o.Backoff = hour }, 3, "; it is tried again in ",
			[]int64{0, 0, 1, 0, 0}, &queue.Failure{Reason: "ExitCode", ExitCode: ptr(3)}, hour * 8 / 10,
		},
		"at once": {
			"exit 3", func(o *Options) { o.Backoff = 0 }, 3, "; it is back at the head of the list, 1 of 3 attempts failed",
			[]int64{1, 0, 0, 0, 0}, &queue.Failure{Reason: "ExitCode", ExitCode: ptr(3)}, 0,
		},
		"last attempt": {
			"exit 3", func(o *Options) { o.Attempts = 1 }, 3, "failed with exit code 3 after ",
			[]int64{0, 0, 0, 1, 0}, &queue.Failure{Reason: "ExitCode", ExitCode: ptr(3)}, 0,
		},
		"signal": {
			"kill -9 $$", func(o *Options) { o.Attempts = 1 }, 137, "ended by SIGKILL after ",
			[]int64{0, 0, 0, 1, 0}, &queue.Failure{Reason: "Signal", Signal: "SIGKILL"}, 0,
		},
		"never again": {
			"exit 65", nil, 65, "; it is dead and not tried again",
			[]int64{0, 0, 0, 1, 0}, &queue.Failure{Reason: "DataError", ExitCode: ptr(65)}, 0,
		},
		"later": {
			"exit 75", func(o *Options) { o.Attempts, o.Backoff = 1, hour }, 75, ", not counted as a failure",
			[]int64{0, 0, 1, 0, 0}, nil, hour * 8 / 10,
		},
		"later, at once": {
			"exit 75", func(o *Options) { o.Attempts, o.Backoff = 1, 0 }, 75, "at the head of the list, not counted as a failure",
			[]int64{1, 0, 0, 0, 0}, nil, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.Do("RPUSH", name, "a")
			o := newOptions(t, server.env(name), "sh", "-c", test.script)
			if test.set != nil {
				test.set(&o)
			}
			began := time.Now().Add(-time.Second)
			got := runOptions(t, o)
			if got.code != test.code || !strings.Contains(got.stdout, test.says) || got.stderr != "" {
				t.Errorf("got %+v, want %d and %q", got, test.code, test.says)
			}
			q := server.view(t, name)
			wantCounts(t, q, test.counts...)
			state := []queue.State{queue.Ready, "", queue.Retry, queue.Dead, ""}[slices.Index(test.counts, 1)]
			if state == "" {
				return
			}
			record := only(t, q, state)
			if string(record.Parts[0]) != "a" {
				t.Errorf("the item is %q", record.Parts[0])
			}
			if wait := record.At.Sub(began); test.waitFrom > 0 && (wait < test.waitFrom || wait > 2*test.waitFrom) {
				t.Errorf("it waits for %v", wait)
			}
			if test.failure == nil {
				if record.LastFailure != nil || record.Failures != 0 {
					t.Errorf("%d failures, %+v", record.Failures, record.LastFailure)
				}
				return
			}
			if record.LastFailure == nil || record.Failures != 1 {
				t.Fatalf("%d failures, %+v", record.Failures, record.LastFailure)
			}
			f := *record.LastFailure
			if f.Reason != test.failure.Reason || f.Signal != test.failure.Signal || f.Log != "" || f.At.Before(began) ||
				!strings.HasPrefix(f.Message, "the command ") || fmt.Sprint(f.ExitCode == nil) != fmt.Sprint(test.failure.ExitCode == nil) ||
				f.ExitCode != nil && *f.ExitCode != *test.failure.ExitCode {
				t.Errorf("got the failure %+v, want %+v", f, *test.failure)
			}
		})
	}
}

func ptr[T any](value T) *T { return &value }

func TestAttemptsAreCounted(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a", "b")
	q := server.view(t, "l")
	var id string
	for attempt := 1; attempt <= 3; attempt++ {
		o := newOptions(t, server.env("l"), "sh", "-c", `echo "ran $OFFBOARD_ITEM as $OFFBOARD_ITEM_ID, $OFFBOARD_ATTEMPT"; exit 1`)
		o.Backoff = 0
		got := runOptions(t, o)
		if attempt == 1 {
			_, id, _ = strings.Cut(got.stdout, " as ")
			id = id[:16]
		}
		if want := fmt.Sprintf("ran a as %s, %d\n", id, attempt); got.code != 1 || !strings.Contains(got.stdout, want) {
			t.Fatalf("got %+v, want %q", got, want)
		}
	}
	wantCounts(t, q, 1, 0, 0, 1, 0)
	dead := only(t, q, queue.Dead)
	if dead.ID != id || dead.Attempt != 3 || dead.Failures != 3 || dead.FirstFailure == nil || dead.LastFailure == nil {
		t.Errorf("got %+v", dead)
	}
	if got := runHere(t, server.env("l"), "cat"); !strings.Contains(got.stdout, "\nb") {
		t.Errorf("got %+v", got)
	}
}

// TestLaterIsTheSameItem puts an item off twice.
func TestLaterIsTheSameItem(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	var id string
	for attempt := 1; attempt <= 3; attempt++ {
		o := newOptions(t, server.env("l"), "sh", "-c", `echo "ran as $OFFBOARD_ITEM_ID, $OFFBOARD_ATTEMPT"; exit 75`)
		o.Backoff, o.Wait = 10*time.Millisecond, 10*time.Second
		got := runOptions(t, o)
		if attempt == 1 {
			_, id, _ = strings.Cut(got.stdout, " as ")
			id = id[:16]
		}
		if want := fmt.Sprintf("ran as %s, %d\n", id, attempt); got.code != ExitTempFailure || !strings.Contains(got.stdout, want) {
			t.Fatalf("got %+v, want %q", got, want)
		}
	}
}

// running is a runner in a process of its own whose command has begun and says so with the file ready in DIR.
type running struct {
	*exec.Cmd
	dir            string
	stdout, stderr *bytes.Buffer
}

func startRunner(t *testing.T, env, flags []string, script string) *running {
	t.Helper()
	dir := t.TempDir()
	cmd, stdout, stderr := processWith(t, append(env, "DIR="+dir), flags, "sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a command that is left holds the output open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{cmd, dir, stdout, stderr}
	t.Cleanup(func() { // the command too, when it was left
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	waitFor(t, "the command", exists(filepath.Join(dir, "ready")))
	return r
}

func (r *running) wait() outcome {
	_ = r.Wait()
	return outcome{r.ProcessState.ExitCode(), r.stdout.String(), r.stderr.String()}
}

// sleeps is a command that begins and then does nothing; ends is one that ends once the file go is there.
const (
	sleeps = `: >"$DIR/ready"; exec sleep 600`
	ends   = `: >"$DIR/ready"; until [ -e "$DIR/go" ]; do sleep 0.02; done; exit `
)

func (r *running) proceed(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSignalGivesTheItemBack(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for name, test := range map[string]struct {
		script string
		signal syscall.Signal
		code   int
		counts []int64
	}{
		"dies":              {sleeps, syscall.SIGTERM, 143, []int64{2, 0, 0, 0, 0}},
		"interrupt":         {sleeps, syscall.SIGINT, 130, []int64{2, 0, 0, 0, 0}},
		"hangup":            {sleeps, syscall.SIGHUP, 129, []int64{2, 0, 0, 0, 0}},
		"fails":             {`trap 'exit 7' TERM; : >"$DIR/ready"; while :; do sleep 0.01; done`, syscall.SIGTERM, 7, []int64{2, 0, 0, 0, 0}},
		"later":             {`trap 'exit 75' TERM; : >"$DIR/ready"; while :; do sleep 0.01; done`, syscall.SIGTERM, 75, []int64{2, 0, 0, 0, 0}},
		"succeeds":          {`trap 'exit 0' TERM; : >"$DIR/ready"; while :; do sleep 0.01; done`, syscall.SIGTERM, 0, []int64{1, 0, 0, 0, 1}},
		"never again":       {`trap 'exit 65' TERM; : >"$DIR/ready"; while :; do sleep 0.01; done`, syscall.SIGTERM, 65, []int64{1, 0, 0, 1, 0}},
		"no wish to end":    {`trap 'exit 7' USR1; : >"$DIR/ready"; while :; do sleep 0.01; done`, syscall.SIGUSR1, 7, []int64{1, 0, 1, 0, 0}},
		"of its own accord": {`: >"$DIR/ready"; sleep 0.1; kill -TERM $$; sleep 9`, 0, 143, []int64{1, 0, 1, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.Do("RPUSH", name, "first", "second")
			r := startRunner(t, server.env(name), []string{"--backoff=1h"}, test.script) // a retry is still one when it is looked at
			if test.signal != 0 {
				_ = r.Process.Signal(test.signal)
			}
			got := r.wait()
			if got.code != test.code || got.stderr != "" {
				t.Errorf("got %+v, want %d", got, test.code)
			}
			q := server.view(t, name)
			wantCounts(t, q, test.counts...)
			if test.counts[0] == 2 {
				if head := server.text(t, "LINDEX", name, "0"); head != "first" {
					t.Errorf("the head is %s", head)
				}
				if !strings.Contains(got.stdout, "it was given back to the head of the list") {
					t.Errorf("got %+v", got)
				}
				if server.text(t, "EXISTS", redisqueue.Prefix(name)+"past") != "0" {
					t.Error("a failure was counted")
				}
			}
		})
	}
}

// TestSignalThatNobodyHasHandled has one come while the goroutine that handles them ends.
func TestSignalThatNobodyHasHandled(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1} {
		signals := catch()
		signals.watching.stop()
		signals.caught <- sig
		signals.catchUp()
		if asked := signals.asked.Load(); asked != (sig == syscall.SIGTERM) {
			t.Errorf("%v: asked to end is %t", sig, asked)
		}
		signals.release()
	}
}

func TestSignalWhileTheItemIsClaimed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a", "b")
	signals := catch()
	defer signals.release()
	o := newOptions(t, server.env("l"), "true")
	r := &run{o}
	r.patience = time.Second
	h := newHolding(config{host: "127.0.0.1", port: server.port, list: "l"}, time.Minute)
	defer h.client.close()
	if found, err := r.seek(signals.untilEnd, h); !found || err != nil {
		t.Fatal(found, err)
	}
	err := r.giveBack(h, endSignal(syscall.SIGTERM))
	if want := "stopped by SIGTERM: the item was given back to the head of the list"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if head := server.text(t, "LINDEX", "l", "0"); head != "a" {
		t.Errorf("the head is %s", head)
	}
	signals.end(endSignal(syscall.SIGTERM))
	code, err := r.run(signals)
	if want := "stopped by SIGTERM: no item was taken"; code != 143 || err.Error() != want {
		t.Errorf("got %d, %v, want 143, %s", code, err, want)
	}
}

// TestItemOfARunnerThatDied returns to the head within its lease, as a failed attempt.
func TestItemOfARunnerThatDied(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	r := startRunner(t, server.env("l"), []string{"--lease=10s"}, sleeps)
	q := server.view(t, "l")
	first := only(t, q, queue.Claimed).At
	waitFor(t, "a renewal", func() bool { return only(t, q, queue.Claimed).At.After(first) })
	_ = r.Process.Kill()
	r.wait()
	died := time.Now()
	o := newOptions(t, server.env("l"), "sh", "-c", "echo attempt $OFFBOARD_ATTEMPT")
	o.Wait = time.Minute
	got := runOptions(t, o)
	if got.code != 0 || !strings.Contains(got.stdout, "attempt 2\n") {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(died); took > 30*time.Second {
		t.Errorf("the item came back after %v", took)
	}
	wantCounts(t, q, 0, 0, 0, 0, 1)

	// The last attempt's lease buries it.
	server.Do("RPUSH", "l", "b")
	r = startRunner(t, server.env("l"), []string{"--lease=6s", "--attempts=1"}, sleeps)
	_ = r.Process.Kill()
	r.wait()
	waitFor(t, "the sweep", func() bool {
		swept, err := q.Sweep(t.Context())
		return err == nil && swept.Buried == 1
	})
	if dead := only(t, q, queue.Dead); dead.LastFailure.Reason != "LeaseLost" || string(dead.Parts[0]) != "b" {
		t.Errorf("got %+v", dead)
	}
}

func TestLostLease(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for name, test := range map[string]struct {
		script string
		code   int
	}{
		"ends":     {sleeps, ExitFailure},
		"lingers":  {`trap ': >"$DIR/told"' TERM; : >"$DIR/ready"; while :; do sleep 0.02; done`, ExitFailure},
		"succeeds": {`trap 'exit 0' TERM; : >"$DIR/ready"; while :; do sleep 0.02; done`, ExitFailure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.Do("RPUSH", name, "a")
			r := startRunner(t, server.env(name), []string{"--lease", "12s"}, test.script)
			q := server.view(t, name)
			lost := time.Now()
			if n, err := q.Release(t.Context(), ""); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			got := r.wait()
			if got.code != test.code || !strings.Contains(got.stderr, "the claim is not held any more") {
				t.Errorf("got %+v", got)
			}
			if took := time.Since(lost); name == "lingers" && (took < killDelay || !exists(filepath.Join(r.dir, "told"))()) ||
				took > killDelay+time.Minute {
				t.Errorf("ended after %v", took)
			}
			wantCounts(t, q, 1, 0, 0, 0, 0)
		})
	}
}

// TestLeaseThatCannotBeRenewed ends the command by the runner's own clock, since it cannot know better.
func TestLeaseThatCannotBeRenewed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{AppendOnly: true})
	server.Do("RPUSH", "l", "a")
	r := startRunner(t, server.env("l"), []string{"--lease=6s"}, sleeps)
	began := time.Now()
	server.Kill()
	got := r.wait()
	if got.code != ExitFailure || !strings.Contains(got.stderr, "the lease could not be renewed in time: redis at 127.0.0.1:") ||
		!strings.Contains(got.stdout, "ended by SIGTERM") {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("ended after %v", took)
	}
	server.Restart()
	wantCounts(t, server.view(t, "l"), 0, 1, 0, 0, 0)
}

func TestRedisRestartsWhileTheCommandRuns(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{AppendOnly: true})
	server.Do("RPUSH", "l", "a")
	r := startRunner(t, server.env("l"), []string{"--lease=30s"}, ends+"0")
	q := server.view(t, "l")
	before := only(t, q, queue.Claimed).At
	server.Kill()
	server.Restart()
	q = server.view(t, "l")
	waitFor(t, "a renewal", func() bool { return only(t, q, queue.Claimed).At.After(before) })
	r.proceed(t)
	if got := r.wait(); got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, ": done in ") {
		t.Errorf("got %+v", got)
	}
	wantCounts(t, q, 0, 0, 0, 0, 1)
}

// TestRedisIsAwayAtTheEnd settles once it is back.
func TestRedisIsAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		code   string
		counts []int64
	}{"ack": {"0", []int64{0, 0, 0, 0, 1}}, "bury": {"65", []int64{0, 0, 0, 1, 0}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, redistest.Options{AppendOnly: true})
			server.Do("RPUSH", "l", "a")
			r := startRunner(t, server.env("l"), nil, ends+test.code)
			server.Kill()
			r.proceed(t)
			done := make(chan outcome, 1)
			go func() { done <- r.wait() }()
			select {
			case got := <-done:
				t.Fatalf("ended while Redis was away: %+v", got)
			case <-time.After(300 * time.Millisecond):
			}
			server.Restart()
			if got := <-done; strconv.Itoa(got.code) != test.code || got.stderr != "" {
				t.Errorf("got %+v", got)
			}
			wantCounts(t, server.view(t, "l"), test.counts...)
		})
	}
}

func TestRedisStaysAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{AppendOnly: true})
	server.Do("RPUSH", "l", "a")
	// The lease must not end before the command does.
	r := startRunner(t, server.env("l", settleFor+"=1s"), []string{"--lease=10s"}, ends+"0")
	server.Kill()
	r.proceed(t)
	if got := r.wait(); got.code != 0 || !strings.Contains(got.stderr, "what became of it could not be written down") {
		t.Errorf("got %+v", got)
	}
	server.Restart()
	wantCounts(t, server.view(t, "l"), 0, 1, 0, 0, 0)
}

func TestRedisFreezes(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	r := startRunner(t, server.env("l"), []string{"--lease=15s"}, ends+"0")
	server.Freeze()
	time.Sleep(5500 * time.Millisecond) // a renewal is under way; it must not be waited for in vain
	r.proceed(t)
	time.Sleep(500 * time.Millisecond)
	server.Thaw()
	if got := r.wait(); got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, ": done in ") {
		t.Errorf("got %+v", got)
	}
	wantCounts(t, server.view(t, "l"), 0, 0, 0, 0, 1)

	// For longer than the lease: the command ends by the runner's clock, and the item returns.
	server.Do("RPUSH", "l", "b")
	r = startRunner(t, server.env("l"), []string{"--lease=6s"}, sleeps)
	server.Freeze()
	got := r.wait()
	server.Thaw()
	if got.code != ExitFailure || !strings.Contains(got.stderr, "the lease could not be renewed in time") {
		t.Errorf("got %+v", got)
	}
	q := server.view(t, "l")
	waitFor(t, "the sweep", func() bool {
		_, err := q.Sweep(t.Context())
		return err == nil && stats(t, q).Ready == 1
	})
}

// TestSettlementWhoseAnswerIsLost is repeated, and taken for what it is.
func TestSettlementWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	_, port, _ := strings.Cut(proxy.Addr(), ":")
	server.Do("RPUSH", "l", "a")
	h := newHolding(config{host: "127.0.0.1", port: port, list: "l"}, time.Minute)
	defer h.client.close()
	if _, err := h.tryClaim(t.Context(), 1); err != nil || h.claim.ID == "" {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	proxy.Hold()
	go func() { done <- h.settle(queue.Settlement{Verb: queue.Ack}) }()
	time.Sleep(100 * time.Millisecond)
	q := server.view(t, "l")
	// What the proxy holds is settled by another, as it would be by a try whose answer got lost.
	if held, err := q.Settle(t.Context(), []queue.Settlement{{ID: h.claim.ID, Attempt: 1, Verb: queue.Ack}}); err != nil || !held[0] {
		t.Fatal(held, err)
	}
	proxy.Cut()
	proxy.Forward()
	if err := <-done; err != nil {
		t.Error(err)
	}
	wantCounts(t, q, 0, 0, 0, 0, 1)
}

func TestClaimThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	_, port, _ := strings.Cut(proxy.Addr(), ":")
	server.Do("RPUSH", "l", "a", "b")
	proxy.Hold()
	mark := filepath.Join(t.TempDir(), "mark")
	result := make(chan outcome, 1)
	go func() { result <- runHere(t, target{port}.env("l"), "touch", mark) }()
	waitFor(t, "the connection", func() bool { return proxy.Opened() > 0 })
	proxy.Cut()
	got := <-result
	if got.code != ExitFailure || !strings.Contains(got.stderr, "an item that was taken returns by itself within 30s, the lease") {
		t.Errorf("got %+v", got)
	}
	if exists(mark)() || proxy.Opened() != 1 {
		t.Errorf("a second try was made, or the command run")
	}
}

// TestSlowClaim does not begin with an item that may be somebody else's already.
func TestSlowClaim(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Do("RPUSH", "l", "a")
	const lease = time.Minute
	h := newHolding(config{host: "127.0.0.1", port: server.port, list: "l"}, lease)
	defer h.client.close()
	if _, err := h.tryClaim(t.Context(), 3); err != nil || h.claim.ID == "" {
		t.Fatal(err)
	}
	h.ends = h.ends.Add(-lease / 2) // as if the answer had taken that long
	began := time.Now()
	if err := h.refresh(); err != nil || h.ends.Before(began.Add(lease)) {
		t.Errorf("got %v, the lease ends %v after its renewal, want %v", err, h.ends.Sub(began), lease)
	}
	if _, err := server.view(t, "l").Release(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	h.ends = h.ends.Add(-lease / 2)
	if err := h.refresh(); !errors.Is(err, errNotHeld) {
		t.Errorf("got %v", err)
	}
}

func TestWaitsForAnItem(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for list, delay := range map[string]time.Duration{"much later": time.Hour, "l": time.Second} {
		if _, err := server.view(t, list).Push(t.Context(), queue.PushOptions{Delay: delay}, []byte("late")); err != nil {
			t.Fatal(err)
		}
	}
	if got := runHere(t, server.env("much later"), "cat"); got.code != 0 || !strings.Contains(got.stdout, "nothing to do") {
		t.Errorf("got %+v", got)
	}
	o := newOptions(t, server.env("much later"), "cat")
	o.Wait = 100 * time.Millisecond
	if got := runOptions(t, o); got.code != 0 || !strings.Contains(got.stdout, "nothing to do") {
		t.Errorf("got %+v", got)
	}
	o = newOptions(t, server.env("l"), "cat")
	o.Wait = time.Minute
	if got := runOptions(t, o); got.code != 0 || !strings.Contains(got.stdout, "late") {
		t.Errorf("got %+v", got)
	}
	// Nothing is to be waited for.
	began := time.Now()
	o = newOptions(t, server.env("l"), "cat")
	o.Wait = time.Minute
	if got := runOptions(t, o); got.code != 0 || !strings.Contains(got.stdout, "nothing to do") || time.Since(began) > 30*time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestLargeItemByClaim(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	item := make([]byte, 5<<20)
	if _, err := rand.Read(item); err != nil {
		t.Fatal(err)
	}
	copy(item, "\x00\"'$(HOME)\r\n\xff")
	server.Do("RPUSH", "l", string(item))
	// It arrives twice: what comes back is not altered either.
	for code := 1; code >= 0; code-- {
		dir := t.TempDir()
		o := newOptions(t, server.env("l", "DIR="+dir, "CODE="+strconv.Itoa(code)), "sh", "-c", `cat >"$DIR/stdin"; exit $CODE`)
		o.Backoff = 0
		if got := runOptions(t, o); got.code != code {
			t.Fatalf("got %+v", got)
		}
		if got := read(t, dir, "stdin"); !bytes.Equal(got, item) {
			t.Errorf("%d bytes arrived, and differ", len(got))
		}
	}
	wantCounts(t, server.view(t, "l"), 0, 0, 0, 0, 1)
}

// TestRunnersRace takes 1,000 items with two runners by claim and one that pops, as fast as they can.
func TestRunnersRace(t *testing.T) {
	t.Parallel()
	const items = 1000
	server := startRedis(t, redistest.Options{})
	args := []string{"RPUSH", "l"}
	for i := range items {
		args = append(args, strconv.Itoa(i))
	}
	server.Do(args...)
	var (
		mu    sync.Mutex
		times = map[string]int{}
		done  sync.WaitGroup
		begun sync.WaitGroup
	)
	modes := []string{"claim", "claim", "pop"}
	begun.Add(len(modes))
	for _, mode := range modes {
		done.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			for {
				item, err := takeOne(t.Context(), server.port, mode)
				if err != nil {
					t.Error(err)
				}
				if item == nil {
					return
				}
				mu.Lock()
				times[string(item)]++
				mu.Unlock()
				begin() // none takes all before another has begun
				begun.Wait()
			}
		})
	}
	done.Wait()
	for i := range items {
		if n := times[strconv.Itoa(i)]; n != 1 {
			t.Errorf("item %d was taken %d times", i, n)
		}
	}
	s := stats(t, server.view(t, "l"))
	if s.Ready+s.Claimed+s.Retry+s.Dead != 0 || s.Done == 0 || s.Done == items {
		t.Errorf("got %+v", s)
	}
}

// takeOne is a runner's way to one item and its end, without the command; nil when there is none.
func takeOne(ctx context.Context, port, mode string) ([]byte, error) {
	c := config{host: "127.0.0.1", port: port, list: "l"}
	r := &run{Options{patience: time.Minute, Attempts: 1}}
	if mode == "pop" {
		l, item, err := r.take(ctx, c)
		if l != nil {
			l.close()
		}
		return item, err
	}
	h := newHolding(c, time.Minute)
	defer h.client.close()
	if found, err := r.seek(ctx, h); err != nil || !found {
		return nil, err
	}
	return h.claim.Parts[0], h.settle(queue.Settlement{Verb: queue.Ack})
}

func TestUserWithoutScripts(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{Users: []string{
		"old on >p +lpop +lpush ~l", "noeval on >p ~* +@all -eval", "nokeys on >p ~l +@all",
		"partly on >p ~* +@all -hset", "right on >p " + scriptRights + " ~l ~{l}:offboard:*",
	}})
	server.Do("RPUSH", "l", "a", "b", "c")
	for user, want := range map[string]string{
		"old": "NOPERM", "noeval": "NOPERM", "nokeys": "NOPERM", "partly": "NOPERM the user may not use HSET",
	} {
		server.Do("SCRIPT", "FLUSH") // one that may load it has done so for all
		got := runHere(t, server.env("l", "REDIS_USER="+user, "REDIS_PASSWORD=p"), "true")
		if got.code != ExitFailure || !strings.Contains(got.stderr, want) ||
			!strings.Contains(got.stderr, scriptRights+" ~l ~{l}:offboard:*; or use --pop") {
			t.Errorf("%s: got %+v, want %s", user, got, want)
		}
		if left := server.text(t, "LLEN", "l"); left != "3" {
			t.Errorf("%s: %s items are left", user, left)
		}
	}
	if got := runPop(t, server.env("l", "REDIS_USER=old", "REDIS_PASSWORD=p"), "cat"); got.code != 0 || !strings.Contains(got.stdout, "a") {
		t.Errorf("got %+v", got)
	}
	// Those rights are enough for all that becomes of an item.
	for _, script := range []string{"exit 1", "exit 75", "exit 0", "exit 65"} {
		o := newOptions(t, server.env("l", "REDIS_USER=right", "REDIS_PASSWORD=p"), "sh", "-c", script)
		o.Backoff = 0
		if got := runOptions(t, o); got.stderr != "" {
			t.Errorf("%s: got %+v", script, got)
		}
	}
	server.Do("RPUSH", "l", "d")
	r := startRunner(t, server.env("l", "REDIS_USER=right", "REDIS_PASSWORD=p"), []string{"--lease=15s"}, ends+"0")
	q := server.view(t, "l")
	first := only(t, q, queue.Claimed).At
	waitFor(t, "a renewal", func() bool { return only(t, q, queue.Claimed).At.After(first) })
	r.proceed(t)
	if got := r.wait(); got.code != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestBackoff is that of spec.delivery by default.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for failures := range 70 {
		for _, random := range []float64{0, 0.25, 0.5, 0.999} {
			if got, want := backoff(DefaultBackoff, failures, random), (*v1alpha1.Delivery)(nil).Wait(failures, random); got != want {
				t.Errorf("after %d failures: %v, want %v", failures, got, want)
			}
		}
	}
	if got := backoff(0, 5000, 0.5); got != 0 {
		t.Errorf("got %v", got)
	}
	if got := backoff(time.Hour, 9, 0.5); got != time.Hour {
		t.Errorf("got %v", got)
	}
	if got := backoff(math.MaxInt64, 9, 0.9); got != math.MaxInt64 {
		t.Errorf("got %v", got)
	}
}
