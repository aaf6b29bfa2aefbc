package cluster

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/redistest"
)

const (
	claimItems = 5000
	// claimLimit is so high since the operator is killed after each of its lives has made one round of Jobs.
	claimLimit = 100
)

// claimed makes a manifest one of delivery by claim: the container runs the script itself.
func (m manifest) claimed(delivery string) string {
	m.spec += "\n  delivery: {mode: claim, " + delivery + "}"
	return strings.Replace(m.String(), "command: [offboard, runner, --, sh, -c,", "command: [sh, -c,", 1)
}

func TestClaimChaos(t *testing.T) { claimChaos(t, queuetest.Redis(t), claimItems) }
func TestClaimChaosRedisStreams(t *testing.T) {
	claimChaos(t, queuetest.RedisStreams(t), queuetest.ChaosItems(t))
}
func TestClaimChaosPostgreSQL(t *testing.T) {
	claimChaos(t, queuetest.PostgreSQL(t), queuetest.ChaosItems(t))
}
func TestClaimChaosRabbitMQ(t *testing.T) {
	claimChaos(t, queuetest.RabbitMQ(t, "classic"), queuetest.ChaosItems(t))
}
func TestClaimChaosJetStream(t *testing.T) {
	claimChaos(t, queuetest.JetStream(t), queuetest.ChaosItems(t))
}

// claimChaos pushes items from 4 sides while the operator is killed every 1 to 3 seconds, runs are killed at random, the
// queue's server is restarted three times and the API server twice. In the end each item has had exactly one run that
// succeeded, each attempt one Job, and nothing is claimed or lost. A run notes its item in a ledger as the last thing
// that it does.
//
// It does not run beside others: it takes all that the machine has, and they would be late.
func claimChaos(t *testing.T, source *queuetest.Source, items int) {
	t.Helper()
	chaos := &queuetest.Chaos{Items: items, Producers: 4, Seed: 20261126}
	c, l := onOwn(t), newLedger(t)
	began := time.Now()
	text := manifest{
		name: "work", spec: fmt.Sprintf("  maxReplicaCount: %d", claimLimit),
		// Kubernetes reads $$ as $.
		shell: strings.ReplaceAll(queuetest.ChaosScript(l.path), "$$", "$$$$"),
	}.claimed("attempts: 1000, backoff: {initial: 50ms, max: 500ms}")
	text, _, _ = strings.Cut(text, "  triggers:\n")
	c.apply(text+"  triggers:\n    - "+source.Trigger+"\n", "apply", "-f", "-")
	jobs := c.observe()
	o := c.start()

	chaos.Start(t, source)
	defer chaos.Wait()

	random := chaos.Random(99)
	kills, queueRestarts, serverRestarts := 0, 0, 0
	// How long all of it takes depends on the machine; that it goes on does not.
	ended, deadline := -1, began
	for {
		lines := len(l.lines())
		err := source.Left(t.Context(), items)
		if lines >= items && err == nil {
			break
		}
		if lines > ended {
			ended, deadline = lines, time.Now().Add(patience)
		}
		if kills%10 == 0 && chaos.MoreKills(kills) {
			t.Logf("after %v: %d of %d have run, %d kills", time.Since(began).Round(time.Second), lines, items, kills)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not go on: %d of %d have run, %v", lines, items, err)
		}
		time.Sleep(time.Second + time.Duration(random.IntN(2000))*time.Millisecond)
		if !chaos.MoreKills(kills) {
			continue
		}
		// A slow machine may need longer than that to read what is known of the items: some lives last until one has run.
		for kills%3 == 2 && len(l.lines()) == lines && lines < items && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		o.end(syscall.SIGKILL)
		kills++
		switch {
		case kills%4 == 0 && queueRestarts < 3:
			chaos.WithoutPushes(func() {
				source.Kill()
				o = c.launch("--leader-elect=false") // it begins without its queue
				source.Restart()
			})
			queueRestarts++
		case kills%4 == 2 && serverRestarts < 2:
			if err := c.StopAPIServer(); err != nil {
				t.Fatal(err)
			}
			if err := c.StartAPIServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			serverRestarts++
			o = c.launch("--leader-elect=false")
		default:
			o = c.launch("--leader-elect=false")
		}
		o.waitReady()
	}
	took := time.Since(began)
	c.eventually("end of all Jobs", func() (bool, string) {
		n := unfinished(c.jobs())
		return n == 0, fmt.Sprintf("%d unfinished", n)
	})
	if err := source.Left(t.Context(), items); err != nil {
		t.Error(err)
	}
	attempts := chaos.Check(strings.Join(l.lines(), "\n"), jobs.twice)
	_, most := jobs.counts()
	t.Logf("%d items in %v, %d kills of the operator, %d restarts of the queue, %d of the API server, %d attempts, at most %d "+
		"Jobs at once (seed %d)", items, took.Round(time.Second), kills, queueRestarts, serverRestarts, attempts, most, chaos.Seed)
	if most > claimLimit {
		t.Errorf("%d Jobs at once under a limit of %d", most, claimLimit)
	}
	if kills < 10 || queueRestarts != 3 || serverRestarts != 2 || attempts == items {
		t.Error("there was too little chaos")
	}
	for _, job := range c.jobs() {
		if len(job.Finalizers) > 0 {
			t.Errorf("Job %s has the finalizers %q", job.Name, job.Finalizers)
		}
	}
}

// TestClaimedItems has items that a variable cannot hold, one of them larger than a Secret may be, and a ScaledJob whose
// name is as long as it may be.
func TestClaimedItems(t *testing.T) {
	t.Parallel()
	c, redis, dir := onShared(t), redistest.Start(t, redistest.Options{}), t.TempDir()
	name := "work" + strings.Repeat("-a1", 19) + "aa"
	if len(name) != 63 {
		t.Fatalf("the name has %d characters", len(name))
	}
	c.start("--item-image", programImage)
	c.apply(manifest{
		name: name, redis: redis.Addr(), spec: "  maxReplicaCount: 3", shell: queuetest.KeepScript(dir),
	}.claimed("attempts: 1"), "apply", "-f", "-")
	q := queuetest.Open(redis.Client(), name)
	for i, item := range queuetest.AwkwardItems() {
		push(t, redis, name, string(item.Item))
		c.eventually("a run of "+item.Name, func() (bool, string) {
			stats, err := q.Stats(t.Context())
			return err == nil && stats.Done == int64(i+1), fmt.Sprintf("%+v, %v", stats, err)
		})
		item.CheckKept(t, dir)
	}
	c.eventually("end of the Secrets", func() (bool, string) {
		names := c.kubectl("get", "secrets", "--output", "name")
		return names == "", names
	})
}

// TestDeadItem has an item that always fails, with others behind it.
func TestDeadItem(t *testing.T) {
	t.Parallel()
	c, redis, l := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
	c.start()
	c.apply(manifest{
		name: "work", redis: redis.Addr(), spec: "  maxReplicaCount: 1",
		shell: `[ "$OFFBOARD_ITEM" != bad ] || { echo on my way out; exit 3; }; echo $OFFBOARD_ITEM >> ` + l.path,
	}.claimed("attempts: 2, backoff: {initial: 1s}"), "apply", "-f", "-")
	push(t, redis, "work", "bad", "1", "2")
	q := queuetest.Open(redis.Client(), "work")
	var dead []queue.Record
	c.eventually("the item's death", func() (bool, string) {
		var err error
		dead, err = q.List(t.Context(), queue.Dead, 0, 10)
		return len(dead) == 1, fmt.Sprintf("%+v, %v", dead, err)
	})
	last := dead[0].LastFailure
	if dead[0].Attempt != 2 || last.ExitCode == nil || *last.ExitCode != 3 || last.Reason != "BackoffLimitExceeded" ||
		last.Job != "work-"+dead[0].ID+"-2" || last.Log != "on my way out\n" {
		t.Errorf("got %+v, %+v", dead[0], last)
	}
	c.eventually("the runs of the others", func() (bool, string) {
		return slices.Equal(l.lines(), []string{"1", "2"}), fmt.Sprint(l.lines())
	})
	c.eventually("event ItemsBuried", func() (bool, string) {
		count, message := c.events("work", "ItemsBuried")
		return count == 1, message
	})
}

// TestReleasedItems deletes a ScaledJob while its Jobs run: their items are at the head of the queue again, in order.
func TestReleasedItems(t *testing.T) {
	t.Parallel()
	c, redis, l := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
	c.start()
	c.apply(manifest{
		name: "work", redis: redis.Addr(), spec: "  maxReplicaCount: 4",
		shell: fmt.Sprintf(`echo $OFFBOARD_ITEM >> %s; [ $OFFBOARD_ITEM = 2 ] || exec sleep 600`, l.path),
	}.claimed("attempts: 2"), "apply", "-f", "-")
	push(t, redis, "work", "1", "2", "3", "4", "5", "6", "7")
	c.eventually("runs", func() (bool, string) { return len(l.lines()) == 5, fmt.Sprint(l.lines()) })
	c.kubectl("delete", "sj", "work", "--timeout", "3m")
	q := queuetest.Open(redis.Client(), "work")
	ready, err := q.List(t.Context(), queue.Ready, 0, 10)
	var got []string
	for _, item := range ready {
		got = append(got, string(item.Parts[0]))
	}
	if want := []string{"1", "3", "4", "5", "6", "7"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("the queue holds %q, %v, want %q", got, err, want)
	}
	c.eventually("end of the Jobs", func() (bool, string) {
		return len(c.jobs()) == 0, fmt.Sprint(len(c.jobs()))
	})
}
