package e2e

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// claimManifest is a ScaledJob with delivery by claim whose containers run a shell script.
func claimManifest(redis *redistest.Server, spec, delivery, script string) string {
	manifest := scaledJob(spec+"\n  delivery: {mode: claim, "+delivery+"}", fmt.Sprintf(", address: %q", redis.Addr()), script)
	return strings.Replace(manifest, "command: [offboard, runner, --, sh, -c,", "command: [sh, -c,", 1)
}

const (
	chaosItems    = 5000
	chaosRestarts = 3
)

func TestClaimChaos(t *testing.T) { claimChaos(t, queuetest.Redis(t), chaosItems) }
func TestClaimChaosRedisStreams(t *testing.T) {
	claimChaos(t, queuetest.RedisStreams(t), queuetest.ChaosItems(t))
}
func TestClaimChaosPostgreSQL(t *testing.T) {
	claimChaos(t, queuetest.PostgreSQL(t), queuetest.ChaosItems(t))
}
func TestClaimChaosJetStream(t *testing.T) {
	claimChaos(t, queuetest.JetStream(t), queuetest.ChaosItems(t))
}

// claimChaos pushes items from 4 sides while `up` is killed every 1 to 3 seconds, runs are killed at random, and
// the queue's server is restarted three times. In the end each item has had exactly one run that succeeded, each attempt
// one Job, and nothing is claimed or lost. A run notes its item in a ledger as the last thing that it does.
//
// It does not run beside others: it takes all that the machine has, and they would be late.
func claimChaos(t *testing.T, source *queuetest.Source, items int) {
	t.Helper()
	chaos := &queuetest.Chaos{Items: items, Producers: 4, Seed: 20261126}
	manifest := scaledJob("  pollingInterval: 5\n  maxReplicaCount: 25\n"+
		"  delivery: {mode: claim, attempts: 1000, backoff: {initial: 50ms, max: 500ms}}", "", queuetest.ChaosScript("ledger"))
	manifest = strings.Replace(manifest, "command: [offboard, runner, --, sh, -c,", "command: [sh, -c,", 1)
	manifest, _, _ = strings.Cut(manifest, "  triggers:\n")
	m := newMachine(t, map[string]string{"work.yaml": manifest + "  triggers:\n    - " + source.Trigger + "\n"})
	m.start()

	chaos.Start(t, source)
	defer chaos.Wait()

	random := chaos.Random(99)
	kills, restarts := 0, 0
	// How long all of it takes depends on the machine; that it goes on does not.
	ended, deadline := -1, time.Now()
	for {
		lines := len(m.lines("ledger"))
		err := source.Left(t.Context(), items)
		if lines >= items && err == nil {
			break
		}
		if lines > ended {
			ended, deadline = lines, time.Now().Add(5*time.Minute)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not go on: %d of %d have run, %v", lines, items, err)
		}
		time.Sleep(time.Second + time.Duration(random.IntN(2000))*time.Millisecond)
		if !chaos.MoreKills(kills) {
			continue
		}
		m.stop(syscall.SIGKILL)
		kills++
		if restarts < chaosRestarts && kills%3 == 0 {
			chaos.WithoutPushes(func() {
				source.Kill()
				if restarts%2 == 0 {
					m.start() // it begins without its queue
				}
				source.Restart()
			})
			restarts++
		}
		if m.up == nil {
			m.start()
		}
	}
	m.until("the end of all Jobs", func(info control.ScaledJobInfo) bool { return info.Running+info.Pending == 0 })
	if err := source.Left(t.Context(), items); err != nil {
		t.Error(err)
	}
	// A new `up` ends the runs that it finds. Each may be between its note and its exit.
	cut := 0
	attempts := chaos.Check(m.read("ledger"), func(run, next string) string {
		if cut == kills || !queuetest.IsNext(run, next) {
			return ""
		}
		cut++
		return "what started again has ended the first run after its note"
	})
	var info control.ScaledJobInfo
	m.until("its numbers", func(now control.ScaledJobInfo) bool { info = now; return true })
	t.Logf("%d items, %d kills of up, %d restarts of the queue, %d attempts; %d Jobs succeeded, %d failed (seed %d)",
		items, kills, restarts, attempts, info.Succeeded, info.Failed, chaos.Seed)
	if jobs := info.Succeeded + info.Failed; jobs > attempts {
		t.Errorf("%d Jobs for %d attempts", jobs, attempts)
	}
	if kills < 5 || restarts != chaosRestarts || attempts == items {
		t.Error("there was too little chaos")
	}
	if code := m.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestClaimedItems has items that a variable cannot hold, or that look like something else.
func TestClaimedItems(t *testing.T) {
	t.Parallel()
	redis, dir := redistest.Start(t, redistest.Options{}), t.TempDir()
	m := newMachine(t, map[string]string{"work.yaml": claimManifest(redis, "  maxReplicaCount: 3", "attempts: 1",
		queuetest.KeepScript(dir))})
	m.start()
	q := queuetest.Open(redis.Client(), "work")
	for i, item := range queuetest.AwkwardItems() {
		redis.Do("RPUSH", "work", string(item.Item))
		m.eventually("a run of "+item.Name, func() (bool, string) {
			stats, err := q.Stats(t.Context())
			return err == nil && stats.Done == int64(i+1), fmt.Sprintf("%+v, %v", stats, err)
		})
		item.CheckKept(t, dir)
	}
}

// TestSeveralItemsAJob has a listLength above 1.
func TestSeveralItemsAJob(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{})
	redis.Do("RPUSH", "work", `{"n": 1}`, "text", "{\n\"n\": 3}", "4", "last")
	script := `cat "$OFFBOARD_ITEM_FILE" >> lines; echo "$OFFBOARD_ITEM" >> arrays`
	manifest := strings.Replace(claimManifest(redis, "  maxReplicaCount: 1", "env: OFFBOARD_ITEM, file: /offboard/items", script),
		`listLength: "1"`, `listLength: "4"`, 1)
	m := newMachine(t, map[string]string{"work.yaml": manifest})
	m.start()
	m.untilDone(2, 0)
	// One item is as it is, several are JSON.
	if got, want := m.read("lines"), "{\"n\": 1}\n\"text\"\n{\"n\":3}\n4\nlast"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := m.read("arrays"), "[{\"n\": 1},\"text\",{\"n\":3},4]\nlast\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAttemptsAndWaits has an item that always fails: it uses up its attempts, with the waits that the backoff says, and
// is then dead with its reason. The items behind it are not held up.
func TestAttemptsAndWaits(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{})
	script := `echo "$OFFBOARD_ITEM $(date +%s%N)" >> ledger; [ "$OFFBOARD_ITEM" != bad ] || { echo on my way out; exit 3; }`
	// The next poll is hours away.
	m := newMachine(t, map[string]string{"work.yaml": claimManifest(redis, "  maxReplicaCount: 1\n  pollingInterval: 10000",
		"attempts: 4, backoff: {initial: 1s, factor: 4, jitter: 0}", script)})
	m.start()
	redis.Do("RPUSH", "work", "bad", "1", "2", "3")
	m.untilDone(3, 4)
	var bad, good []time.Time
	for line := range strings.Lines(m.read("ledger")) {
		item, nanos, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(nanos, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if at := time.Unix(0, n); item == "bad" {
			bad = append(bad, at)
		} else {
			good = append(good, at)
		}
	}
	if len(bad) != 4 || len(good) != 3 {
		t.Fatalf("%d runs of the item that fails and %d of the others", len(bad), len(good))
	}
	for i, want := range []time.Duration{time.Second, 4 * time.Second, 16 * time.Second} {
		// How much later it is depends on the machine.
		if wait := bad[i+1].Sub(bad[i]); wait < want {
			t.Errorf("wait %d was %v, want %v", i+1, wait, want)
		}
	}
	for _, at := range good {
		// On a machine that takes its time, it may have had its turn again before them.
		if at.After(bad[3]) {
			t.Errorf("an item behind it ran %v after its last attempt", at.Sub(bad[3]))
		}
	}
	dead, err := queuetest.Open(redis.Client(), "work").List(t.Context(), queue.Dead, 0, 10)
	if err != nil || len(dead) != 1 {
		t.Fatalf("got %+v, %v", dead, err)
	}
	last := dead[0].LastFailure
	if dead[0].Attempt != 4 || dead[0].Total != 4 || last.ExitCode == nil || *last.ExitCode != 3 ||
		last.Reason != "BackoffLimitExceeded" || last.Job != "work-"+dead[0].ID+"-4" || last.Log != "on my way out\n" ||
		dead[0].FirstFailure.Job != "work-"+dead[0].ID+"-1" {
		t.Errorf("got %+v, first %+v, last %+v", dead[0], dead[0].FirstFailure, last)
	}
}

// TestSlotsAreUsed has items that take 1 to 100 times as long as others: while one is ready, the 25 slots are busy for at
// least 98 % of the time, less what the machine needs itself to end one process and to start others.
func TestSlotsAreUsed(t *testing.T) {
	t.Parallel()
	const slots, count, unit = 25, 125, 250 * time.Millisecond
	redis := redistest.Start(t, redistest.Options{})
	script := `s=$(date +%s%N); sleep $OFFBOARD_ITEM; echo "$s $(date +%s%N)" >> ledger`
	m := newMachine(t, map[string]string{"work.yaml": claimManifest(redis, fmt.Sprintf("  maxReplicaCount: %d", slots),
		"attempts: 1", script)})
	m.start()
	starts := measureStarts(t)
	random := rand.New(rand.NewPCG(1, 2))
	var items []string
	for range count {
		items = append(items, fmt.Sprintf("%.3f", (time.Duration(1+random.IntN(100))*unit).Seconds()))
	}
	m.push("work", items...)
	for part := range 4 { // all of them take longer than what is waited for at once
		m.until("a part of the Jobs", func(info control.ScaledJobInfo) bool { return info.Succeeded >= part*count/4 })
	}
	m.untilDone(count, 0)
	var begun, ended []int64
	for line := range strings.Lines(m.read("ledger")) {
		var from, to int64
		if _, err := fmt.Sscan(line, &from, &to); err != nil {
			t.Fatal(err)
		}
		begun, ended = append(begun, from), append(ended, to)
	}
	// From when all slots were taken first until the last item was taken.
	slices.Sort(begun)
	from, to := begun[slots-1], begun[count-1]
	var busy int64
	slices.Sort(ended)
	for i := range count {
		busy -= max(0, min(begun[i], to)-from) // each counts from its begin
		busy += max(0, min(ended[i], to)-from) // to its end
	}
	used := 100 * float64(busy) / float64(slots*(to-from))
	// The end of a run is noticed, a shell is started, and that starts the program which notes its begin.
	start := starts()
	turns := float64(count - slots) // from one run to the next one in its slot
	unused := 100 * 3 * float64(start) * turns / float64(slots*(to-from))
	t.Logf("%.2f %% of %d slots over %v; a process took %v, which is %.2f %%", used, slots,
		time.Duration(to-from).Round(time.Millisecond), start.Round(time.Microsecond), unused)
	if used+unused < 98 {
		t.Errorf("the slots were used for %.2f %% of the time while items were ready, want 98 %%", used)
	}
}

// measureStarts measures how long this machine takes to start a process and to see its end, until the returned function
// is called, which returns the mean.
func measureStarts(t *testing.T) (mean func() time.Duration) {
	t.Helper()
	var measuring sync.WaitGroup
	var sum time.Duration
	runs, stopped := 0, make(chan struct{})
	measuring.Go(func() {
		for {
			began := time.Now()
			if err := exec.CommandContext(t.Context(), "true").Run(); err != nil {
				return // the test has ended
			}
			sum += time.Since(began)
			runs++
			select {
			case <-stopped:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	stop := sync.OnceFunc(func() { close(stopped); measuring.Wait() })
	t.Cleanup(stop)
	return func() time.Duration {
		stop()
		return sum / time.Duration(max(runs, 1))
	}
}
