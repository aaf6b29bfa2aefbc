package cluster

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
)

const (
	chaosSeed  = 11
	chaosItems = 500
	chaosLimit = 15
	chaosKills = 6
)

// chaosManifest is a ScaledJob whose Jobs run for a second and note when they begin and end.
func chaosManifest(redis *redistest.Server, l *ledger) manifest {
	return manifest{
		name: "work", redis: redis.Addr(),
		spec: fmt.Sprintf("  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: %d\n"+
			"  successfulJobsHistoryLimit: 10000\n  failedJobsHistoryLimit: 10000", chaosLimit),
		shell: fmt.Sprintf("[ -n \"$OFFBOARD_ITEM\" ] || exit 9; sleep 1; echo $OFFBOARD_ITEM >> %s", l.path),
	}
}

// produce pushes items from a goroutine of its own, in bursts, and returns a channel that is closed when all are pushed.
func produce(t *testing.T, redis *redistest.Server, items int, random *rand.Rand) <-chan struct{} {
	done := make(chan struct{})
	redisClient := redis.Client()
	go func() {
		defer close(done)
		for i := 0; i < items; {
			for range min(1+random.IntN(12), items-i) {
				err := redisClient.Do(t.Context(), redisClient.B().Rpush().Key("work").Element(fmt.Sprint(i)).Build()).Error()
				if err != nil {
					t.Errorf("push %d: %v", i, err)
					return
				}
				i++
			}
			time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		}
	}()
	return done
}

// verify waits until every item was run, and checks what must hold then: each ran once, hardly a Job was surplus, and
// there were never more than the limit.
func (c *cluster) verify(l *ledger, jobs *observer, items int) {
	c.t.Helper()
	c.progresses("end of the items", func() (bool, int, string) {
		created, _ := jobs.counts()
		ran := len(l.lines())
		return ran >= items, ran, fmt.Sprintf("%d of %d run, %d Jobs", ran, items, created)
	})
	c.eventually("end of all Jobs", func() (bool, string) {
		n := unfinished(c.jobs())
		return n == 0, fmt.Sprintf("%d unfinished", n)
	})
	seen := map[string]int{}
	for _, item := range l.lines() {
		seen[item]++
	}
	for i := range items {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			c.t.Errorf("item %d ran %d times", i, n)
		}
	}
	all, complete, failed := c.count()
	var created, most int
	c.eventually("word of all Jobs", func() (bool, string) {
		created, most = jobs.counts()
		return created >= all, fmt.Sprintf("%d of %d", created, all)
	})
	if all < items || complete != all || created != all {
		c.t.Errorf("%d Jobs for %d items: %d complete, %d failed, %d created", all, items, complete, failed, created)
	}
	c.fewSurplus(all-items, items)
	if most > chaosLimit {
		c.t.Errorf("%d Jobs at once under a limit of %d", most, chaosLimit)
	}
	c.t.Logf("%d items, %d Jobs, at most %d at once", items, created, most)
}

// TestKilledOperator kills the operator again and again while items arrive.
func TestKilledOperator(t *testing.T) {
	t.Parallel()
	c, redis, l := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
	c.apply(chaosManifest(redis, l).String(), "apply", "-f", "-")
	jobs := c.observe()
	random := rand.New(rand.NewPCG(chaosSeed, 1))
	o := c.start()
	pushed := produce(t, redis, chaosItems, rand.New(rand.NewPCG(chaosSeed, 2)))
	for range chaosKills {
		time.Sleep(time.Second + time.Duration(random.IntN(3000))*time.Millisecond)
		o.end(syscall.SIGKILL)
		o = c.start()
	}
	<-pushed
	c.verify(l, jobs, chaosItems)
}

// TestOutages takes away the API server, Redis and both for half a minute each. Nothing is created from ignorance, and
// work goes on afterwards by itself.
func TestOutages(t *testing.T) {
	t.Parallel()
	const outage = 30 * time.Second
	c, redis, l := onOwn(t), redistest.Start(t, redistest.Options{AppendOnly: true}), newLedger(t)
	c.apply(chaosManifest(redis, l).String(), "apply", "-f", "-")
	o := c.launch("--leader-elect=true")
	o.waitReady()
	c.condition("work", v1alpha1.ConditionReady, metav1.ConditionTrue)
	pid, items := o.cmd.Process.Pid, 0
	add := func(n int) {
		for range n {
			push(t, redis, "work", fmt.Sprint(items))
			items++
		}
	}
	settled := func(after string) {
		t.Helper()
		repaired := time.Now()
		// Kubernetes' own Job controller needs a minute or more to come to itself.
		var all int
		c.progresses("end of the items after "+after, func() (bool, int, string) {
			var complete, failed int
			all, complete, failed = c.count()
			return complete == all && all >= items && len(l.lines()) >= items, complete,
				fmt.Sprintf("%d items, %d Jobs, %d complete, %d failed, %d runs", items, all, complete, failed, len(l.lines()))
		})
		if len(l.lines()) != items {
			t.Errorf("after %s: %d runs for %d items", after, len(l.lines()), items)
		}
		c.fewSurplus(all-items, items)
		t.Logf("%s: settled within %v", after, time.Since(repaired).Round(100*time.Millisecond))
	}
	add(5)
	settled("the start")

	// Nothing is under way when the API server goes: the Job controller, when it loses the answer to the creation of a
	// Pod, creates a second one.
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	add(10)
	time.Sleep(outage)
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled("an outage of the API server")

	// Items wait at the limit when Redis goes, and meanwhile there comes to be room below it.
	// Their runners pop: others would wait until they can say how it went.
	held := manifest{name: "held", redis: redis.Addr(), shell: hold(l),
		spec: "  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: 3"}.String()
	c.apply(strings.Replace(held, "offboard, runner, --,", "offboard, runner, --pop, --,", 1), "apply", "-f", "-")
	for i := range 6 {
		push(t, redis, "held", fmt.Sprint(i))
	}
	c.eventually("3 Jobs that hold their item", func() (bool, string) {
		return len(l.lines()) == items+3, fmt.Sprintf("%d items, runs %v", items, l.lines())
	})
	redis.Stop()
	before, _, _ := c.count()
	c.condition("work", v1alpha1.ConditionReady, metav1.ConditionFalse)
	c.condition("held", v1alpha1.ConditionReady, metav1.ConditionFalse)
	l.release()
	c.eventually("end of the Jobs that held their item", func() (bool, string) {
		n := unfinished(c.jobs())
		return n == 0, fmt.Sprintf("%d unfinished", n)
	})
	items += 6
	time.Sleep(outage)
	if all, _, _ := c.count(); all != before {
		t.Errorf("%d Jobs were created while Redis could not be asked", all-before)
	}
	redis.Restart()
	c.condition("work", v1alpha1.ConditionReady, metav1.ConditionTrue)
	add(10)
	settled("an outage of Redis")

	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	add(10)
	redis.Stop()
	time.Sleep(outage)
	redis.Restart()
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(10)
	settled("an outage of both")

	if o.cmd.Process.Pid != pid || o.cmd.ProcessState != nil {
		t.Error("the operator did not live through it")
	}
}
