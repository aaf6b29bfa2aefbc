package cluster

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestLimits has two ScaledJobs with more work than the operator may have Jobs, and kills it: the limit holds, both get
// on, and the status tells. The first Jobs hold until all that was looked at.
func TestLimits(t *testing.T) {
	t.Parallel()
	const limit, items = 4, 12
	c, redis, ledger := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
	jobs := c.observe()
	for name, priority := range map[string]string{"small": "1", "great": "3"} {
		c.apply(strings.Replace(manifest{name: name, redis: redis.Addr(), shell: hold(ledger) + "; sleep 1"}.String(), "metadata:\n",
			fmt.Sprintf("metadata:\n  annotations: {%s: %q}\n", v1alpha1.AnnotationPriority, priority), 1), "apply", "-f", "-")
		work := make([]string, items)
		for i := range work {
			work[i] = fmt.Sprint(i)
		}
		push(t, redis, name, work...)
	}
	o := c.start("--max-jobs", fmt.Sprint(limit))
	for _, name := range []string{"small", "great"} {
		if limited := c.condition(name, v1alpha1.ConditionLimited, metav1.ConditionTrue); limited.Reason != "MaxJobs" ||
			!strings.Contains(limited.Message, "limit of 4 Jobs alive (--max-jobs)") {
			t.Errorf("Limited of %s is %+v", name, limited)
		}
	}
	for _, name := range []string{"small", "great"} {
		c.eventually("event JobsLimited of "+name, func() (bool, string) {
			told, message := c.events(name, "JobsLimited")
			return told == 1, fmt.Sprintf("%d times: %s", told, message)
		})
	}
	c.wantMetric(o, limit, "offboard_jobs_limit")
	c.wantMetric(o, limit, "offboard_jobs_alive")
	o.end(syscall.SIGKILL)
	o = c.start("--max-jobs", fmt.Sprint(limit))
	ledger.release()
	var all int
	c.progresses("end of all Jobs", func() (bool, int, string) {
		var complete, failed int
		all, complete, failed = c.count()
		return complete == all && len(ledger.lines()) >= 2*items, complete,
			fmt.Sprintf("%d Jobs, %d complete, %d failed, %d runs", all, complete, failed, len(ledger.lines()))
	})
	if ran := len(ledger.lines()); ran != 2*items {
		t.Errorf("%d runs of %d items", ran, 2*items)
	}
	c.fewSurplus(all-2*items, 2*items)
	for _, name := range []string{"small", "great"} {
		c.condition(name, v1alpha1.ConditionLimited, metav1.ConditionFalse)
		if told, message := c.events(name, "JobsLimited"); told > 2 { // before the kill, and perhaps after it
			t.Errorf("that Jobs of %s wait was told %d times, last %q", name, told, message)
		}
	}
	c.wantMetric(o, 0, "offboard_jobs_waiting", "great")
	if created, most := jobs.counts(); created != all || most != limit {
		t.Errorf("%d Jobs were created, %d at once; want %d and %d:%s", created, most, all, limit, jobs.atMost())
	}
}

// TestLimitsOfReplicas has replicas keep a limit together while there is more work than they may have Jobs, and has
// them killed, paused for longer than their Leases, and stopped: all of them have Jobs at the same time, never are
// there more than the limit, and who is left uses all of it.
func TestLimitsOfReplicas(t *testing.T) {
	t.Parallel()
	const limit, scaledJobs, items = 6, 16, 300
	redis := redistest.Start(t, redistest.Options{})
	r := &replicas{cluster: onShared(t), flags: []string{"--max-jobs", fmt.Sprint(limit)}}
	for i := range scaledJobs {
		m := manifest{name: queueName(i), redis: redis.Addr(), shell: "sleep 2"}
		if i%2 == 1 {
			m.spec = "  delivery: {mode: claim}"
		}
		r.apply(m.String(), "apply", "-f", "-")
	}
	jobs := r.observe()
	for range 2 {
		r.add()
	}
	r.agree()
	work := make([]string, items)
	for i := range work {
		work[i] = fmt.Sprint(i)
	}
	for i := range scaledJobs {
		push(t, redis, queueName(i), work...)
	}
	r.share(limit)

	// One is lost. When its Lease is over and its Jobs have ended, the other one uses the limit alone.
	killed := r.running[0]
	term := r.term(killed)
	r.end(killed, syscall.SIGKILL)
	began := time.Now()
	r.fills(limit, func(by map[string]int) bool { return by[term] == 0 && len(by) == 1 })
	t.Logf("the limit was used up by the one that was left %v after the loss", time.Since(began))
	r.add()
	r.agree()
	r.share(limit)

	// One is paused for longer than its Lease and goes on: it creates nothing before it has joined anew.
	paused := r.running[0]
	term = r.term(paused)
	if err := paused.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	r.fills(limit, func(by map[string]int) bool { return by[term] == 0 && len(by) == 1 })
	t.Logf("the limit was used up by the one that was not paused after %v", time.Since(began))
	if err := paused.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of its term", func() (bool, string) {
		return strings.Contains(paused.log.String(), "this replica has lost its Lease"), paused.log.String()
	})
	r.agree()
	if r.term(paused) == term {
		t.Errorf("the replica goes on as %s", term)
	}
	r.share(limit)

	// One is paused for a moment, often: its Lease holds, and so does its part.
	for range 3 {
		_ = paused.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Second)
		_ = paused.cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(time.Second)
	}
	r.share(limit)

	// One is stopped in order: the other one need not wait.
	stopped := r.running[1]
	began = time.Now()
	if code := r.end(stopped, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM:\n%s", code, stopped.log)
	}
	r.fills(limit, func(by map[string]int) bool { return by[r.term(r.running[0])] == limit })
	t.Logf("the limit was used up by the one that was left %v after the other was told to stop", time.Since(began))
	r.wantMetric(r.running[0], limit, "offboard_jobs_alive")
	if created, most := jobs.counts(); most != limit {
		t.Errorf("of %d Jobs that were created, %d were alive at once, want %d:%s", created, most, limit, jobs.atMost())
	} else {
		t.Logf("%d Jobs were created, %d at once", created, most)
	}
}

// term is the UID of the replica's Lease. A replica that was held up for long joins anew, with another one.
func (r *replicas) term(o *operator) (uid string) {
	r.t.Helper()
	name := r.lease(o)
	r.eventually("Lease "+name, func() (bool, string) {
		leases := r.leases()
		i := slices.IndexFunc(leases, func(lease coordinationv1.Lease) bool { return lease.Name == name })
		if i >= 0 {
			uid = string(leases[i].UID)
		}
		return i >= 0, fmt.Sprintf("%d Leases", len(leases))
	})
	return uid
}

// fills waits until there are as many Jobs as may be, and the condition holds of how many each replica has created.
func (r *replicas) fills(limit int, condition func(byTerm map[string]int) bool) {
	r.t.Helper()
	r.eventually("use of the limit", func() (bool, string) {
		alive, by := 0, map[string]int{}
		for _, job := range r.jobs() {
			if how, _ := scaledjob.Finished(&job); how == "" {
				alive++
				by[strings.TrimPrefix(job.Annotations[annotationCreator], r.namespace+"/")]++
			}
		}
		return alive == limit && condition(by), fmt.Sprintf("%d Jobs are alive, by their creators %v", alive, by)
	})
}

// share waits until all replicas that run have Jobs at the same time.
func (r *replicas) share(limit int) {
	r.t.Helper()
	r.fills(limit, func(by map[string]int) bool {
		return !slices.ContainsFunc(r.running, func(o *operator) bool { return by[r.term(o)] == 0 })
	})
}
