package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/kube/shard"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/test/controlplane"
)

const (
	replicaSeed = 23
	// replicaQueues is how many ScaledJobs there are: one half with delivery by pop, one by claim.
	replicaQueues = 24
	replicaLimit  = 3
	// leaseTime is how long after its loss a replica's share is taken over at the latest. An overloaded machine may be
	// leaseSlack late.
	leaseTime  = 15 * time.Second
	leaseSlack = 45 * time.Second
)

// replicas are the operators that share the ScaledJobs of a test out.
type replicas struct {
	*cluster
	flags   []string
	running []*operator
}

// add starts another one.
func (r *replicas) add() *operator {
	r.t.Helper()
	o := r.launch(append([]string{"--leader-elect=true"}, r.flags...)...)
	r.running = append(r.running, o)
	return o
}

// end ends one.
func (r *replicas) end(o *operator, signal syscall.Signal) int {
	r.t.Helper()
	r.running = slices.DeleteFunc(r.running, func(other *operator) bool { return other == o })
	return o.end(signal)
}

var joined = regexp.MustCompile(`this replica has joined.* lease=(\S+)`)

// lease is the name of the Lease of a replica that has joined, as it says itself.
func (r *replicas) lease(o *operator) (name string) {
	r.t.Helper()
	r.eventually("word of a replica that it has joined", func() (bool, string) {
		if found := joined.FindStringSubmatch(o.log.String()); found != nil {
			name = found[1]
		}
		return name != "", o.log.String()
	})
	return name
}

// expired counts how often those that run have taken the replica of a Lease for lost.
func (r *replicas) expired(lease string) (times int) {
	for _, o := range r.running {
		for line := range strings.Lines(o.log.String()) {
			if strings.Contains(line, "a replica is lost") && strings.Contains(line, "lease="+lease+" ") {
				times++
			}
		}
	}
	return times
}

// leases are the replicas' Leases.
func (c *cluster) leases() []coordinationv1.Lease {
	c.t.Helper()
	var list coordinationv1.LeaseList
	c.list(&list)
	return list.Items
}

// agree waits until those that run, and nobody else, act under the view of them all, and returns it.
func (r *replicas) agree() shard.View {
	r.t.Helper()
	var view shard.View
	r.eventually(fmt.Sprintf("agreement of %d replicas", len(r.running)), func() (bool, string) {
		leases := r.leases()
		names, views := make([]string, len(leases)), map[string]bool{}
		for i := range leases {
			names[i] = leases[i].Name
			views[leases[i].Annotations["offboard.dev/view"]] = true
		}
		view = shard.NewView(names...)
		return len(leases) == len(r.running) && len(views) == 1 && views[view.String()],
			fmt.Sprintf("Leases %q, views %q", names, slices.Sorted(maps.Keys(views)))
	})
	return view
}

// queueOf returns the number of a queue whose ScaledJob the replica owns.
func (r *replicas) queueOf(view shard.View, o *operator) int {
	r.t.Helper()
	lease := r.lease(o)
	for i := range replicaQueues {
		if view.Owner(r.namespace+"/"+queueName(i)) == lease {
			return i
		}
	}
	r.t.Fatalf("%s owns no ScaledJob under %v", lease, view)
	return 0
}

func queueName(i int) string { return fmt.Sprint("queue-", i) }

// queues are the lists to which the test pushes.
type queues struct {
	t      *testing.T
	redis  *redistest.Server
	mu     sync.Mutex
	pushed [replicaQueues]int
}

// push appends an item to a list.
func (q *queues) push(i int) (item string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	item = fmt.Sprintf("%s:%d", queueName(i), q.pushed[i])
	q.pushed[i]++
	client := q.redis.Client()
	if err := client.Do(q.t.Context(), client.B().Rpush().Key(queueName(i)).Element(item).Build()).Error(); err != nil {
		q.t.Errorf("push %s: %v", item, err)
	}
	return item
}

// produce pushes all the time, until the returned function is called.
func (q *queues) produce() (stop func()) {
	random := rand.New(rand.NewPCG(replicaSeed, 1))
	stopped := make(chan struct{})
	var producing sync.WaitGroup
	producing.Go(func() {
		for {
			select {
			case <-stopped:
				return
			case <-time.After(time.Duration(random.IntN(700)) * time.Millisecond):
				q.push(random.IntN(replicaQueues))
			}
		}
	})
	return sync.OnceFunc(func() { close(stopped); producing.Wait() })
}

// wantRun waits until the item was run.
func (r *replicas) wantRun(l *ledger, item string) time.Duration {
	r.t.Helper()
	began := time.Now()
	r.eventually("run of "+item, func() (bool, string) {
		lines := l.lines()
		return slices.Contains(lines, item), fmt.Sprintf("%d runs", len(lines))
	})
	return time.Since(began)
}

// TestReplicas has three replicas share ScaledJobs out while items are pushed all the time, and has them killed, paused
// for longer than their Leases, stopped and started. Each item runs exactly once, no ScaledJob ever has more Jobs than it
// may, and everything that was written came from the one replica that owned the ScaledJob at that time.
func TestReplicas(t *testing.T) {
	t.Parallel()
	audit := newAudit(t)
	withAudit := options()
	withAudit.APIServerFlags = []string{"--audit-policy-file=" + audit.policy, "--audit-log-path=" + audit.log}
	r := &replicas{cluster: use(t, controlplane.ForTest(t, withAudit))}
	redis, l := redistest.Start(t, redistest.Options{}), newLedger(t)
	for i := range replicaQueues {
		m := manifest{
			name: queueName(i), redis: redis.Addr(), shell: fmt.Sprintf(`echo "$OFFBOARD_ITEM" >> %s`, l.path),
			spec: fmt.Sprintf("  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: %d\n"+
				"  successfulJobsHistoryLimit: 10000\n  failedJobsHistoryLimit: 10000", replicaLimit),
		}
		if i%2 == 1 {
			m.spec += "\n  delivery: {mode: claim}"
		}
		r.apply(m.String(), "apply", "-f", "-")
	}
	history, jobs := r.recordLeases(), r.observe()
	q := &queues{t: t, redis: redis}
	for range 3 {
		r.add()
	}
	view := r.agree()
	stop := q.produce()
	defer stop()

	// One is lost. Its share waits for the end of its Lease, and nobody else's does: audit.goesOn looks at that, since it
	// depends on the machine when an item has run.
	killed, other := r.running[0], r.running[1]
	lost, kept := r.queueOf(view, killed), r.queueOf(view, other)
	lostLease := r.lease(killed)
	r.end(killed, syscall.SIGKILL)
	began := time.Now()
	waiting, atOnce := q.push(lost), q.push(kept)
	t.Logf("an item of another replica's share had run after %v", r.wantRun(l, atOnce))
	r.agree()
	r.inTime("the lost share had other owners", began)
	r.wantRun(l, waiting)
	t.Logf("an item of it had run %v after the loss", time.Since(began))
	r.add()
	view = r.agree()

	// One is paused for longer than its Lease and goes on: it joins anew.
	paused := r.running[0]
	lost = r.queueOf(view, paused)
	if err := paused.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	r.wantRun(l, q.push(lost))
	r.inTime("an item of the paused share had run", began)
	if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of its term", func() (bool, string) {
		return strings.Contains(paused.log.String(), "this replica has lost its Lease"), paused.log.String()
	})
	view = r.agree()
	r.wantRun(l, q.push(r.queueOf(view, paused)))

	// One is stopped in order: the others need not wait for anything.
	stopped := r.running[1]
	lost = r.queueOf(view, stopped)
	stoppedLease := r.lease(stopped)
	expired := r.expired(stoppedLease)
	began = time.Now()
	if code := r.end(stopped, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, stopped.log)
	}
	r.agree()
	t.Logf("the stopped share had other owners %v after the signal", time.Since(began))
	r.wantRun(l, q.push(lost))
	if r.expired(stoppedLease) != expired {
		t.Errorf("the others have waited for the end of the Lease %s", stoppedLease)
	}
	r.add()
	r.agree()

	// At random, as fast as it comes.
	random := rand.New(rand.NewPCG(replicaSeed, 2))
	for range 6 {
		o := r.running[random.IntN(len(r.running))]
		switch random.IntN(3) {
		case 0:
			r.end(o, syscall.SIGKILL)
			r.add()
		case 1:
			r.end(o, syscall.SIGTERM)
			r.add()
		case 2:
			_ = o.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(2+random.IntN(6)) * time.Second)
			_ = o.cmd.Process.Signal(syscall.SIGCONT)
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
	}
	r.agree()
	stop()
	r.verifyQueues(l, q, jobs)
	for _, o := range slices.Clone(r.running) {
		r.end(o, syscall.SIGTERM)
	}
	writes, leases := audit.writes(t), history.all(r.t)
	goesOn(t, writes, leases, lostLease)
	verifyOwners(t, writes, leases)
}

// inTime wants something to have happened that waits for the end of a Lease and nothing else.
func (r *replicas) inTime(what string, began time.Time) {
	r.t.Helper()
	took := time.Since(began)
	if took > leaseTime+leaseSlack {
		r.t.Errorf("%s after %v, want %v", what, took, leaseTime)
	}
	r.t.Logf("%s after %v", what, took)
}

// verifyQueues waits until every item was run, and checks that each ran once and no Job was surplus, and how many there
// were at once.
func (r *replicas) verifyQueues(l *ledger, q *queues, jobs *observer) {
	r.t.Helper()
	items := 0
	for _, n := range q.pushed {
		items += n
	}
	r.progresses("end of the items", func() (bool, int, string) {
		lines := l.lines()
		return len(lines) >= items, len(lines), fmt.Sprintf("%d of %d run", len(lines), items)
	})
	r.eventually("end of all Jobs", func() (bool, string) {
		n := unfinished(r.cluster.jobs())
		return n == 0, fmt.Sprintf("%d unfinished", n)
	})
	ran, made := map[string]int{}, map[string]int{}
	for _, item := range l.lines() {
		ran[item]++
	}
	for _, job := range r.cluster.jobs() {
		made[job.Labels[v1alpha1.LabelScaledJob]]++
		if how, _ := scaledjob.Finished(&job); how != "Complete" {
			r.t.Errorf("Job %s has ended with %q", job.Name, how)
		}
	}
	surplus := 0
	for i, n := range q.pushed {
		for item := range n {
			if times := ran[fmt.Sprintf("%s:%d", queueName(i), item)]; times != 1 {
				r.t.Errorf("item %d of %s ran %d times", item, queueName(i), times)
			}
		}
		more := made[queueName(i)] - n
		if claimed := i%2 == 1; more < 0 || claimed && more > 0 {
			r.t.Errorf("%d Jobs for the %d items of %s", made[queueName(i)], n, queueName(i))
		}
		surplus += more
	}
	r.fewSurplus(surplus, items)
	created, most := jobs.counts()
	for name, n := range jobs.mostOf() {
		if n > replicaLimit {
			r.t.Errorf("%d Jobs of %s at once under a limit of %d", n, name, replicaLimit)
		}
	}
	r.t.Logf("%d items, %d Jobs, at most %d at once", items, created, most)
}
