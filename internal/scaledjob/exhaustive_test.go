package scaledjob

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// TestEveryInterleaving looks at every state that two processes, their queue and their Jobs can get into, for a small
// number of items: each step of a reconcile may be followed by any step of the other process, by a lost answer, by the
// end of a Job, by a change of the leader, or by a crash. The comparison of claims and Jobs is the real one (look); the
// steps around it are those of settleItems and claim.
func TestEveryInterleaving(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ items, attempts, limit int }{
		"one item, two attempts": {1, 2, 1},
		"two items, one slot":    {2, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &explorer{t: t, items: test.items, attempts: test.attempts, limit: test.limit}
			e.explore()
		})
	}
}

const (
	maxItems    = 2
	maxAttempts = 2
)

// Where an item is.
const (
	itemReady = iota
	itemClaimed
	itemDone
	itemDead
)

// How a Job is.
const (
	noJob = iota
	jobRuns
	jobSucceeded
	jobFailed
)

type jobState struct {
	how  int8
	kept bool // by its finalizer
}

type jobTable [maxItems][maxAttempts]jobState

// What a process does next.
const (
	stepList = iota
	stepKnow
	stepSettle
	stepLetGo
	stepClaim
	stepCreate
)

// process is one controller. held is the attempt of the claim that it holds of each item; 0 for none.
type process struct {
	step  int8
	known bool
	held  [maxItems]int8
	seen  jobTable
	free  jobTable // what it is about to let go, by kept
	make  [maxItems]int8
	slots int8
}

// system is everything there is.
type system struct {
	item      [maxItems]int8
	attempt   [maxItems]int8
	failures  [maxItems]int8
	succeeded [maxItems]int8
	made      [maxItems][maxAttempts]int8
	jobs      jobTable
	process   [2]process
	leader    int8
}

type explorer struct {
	t                      *testing.T
	items, attempts, limit int
}

func (e *explorer) explore() {
	began := time.Now()
	start := system{}
	seen := map[system]int{start: 0}
	states := []system{start}
	var before [][]int32 // of each state, those that lead to it
	before = append(before, nil)
	for i := 0; i < len(states); i++ {
		for _, next := range e.next(states[i]) {
			known, found := seen[next]
			if !found {
				known = len(states)
				seen[next] = known
				states = append(states, next)
				before = append(before, nil)
				e.check(next)
				if e.t.Failed() {
					e.t.Fatalf("reached from %+v", states[i])
				}
			}
			before[known] = append(before[known], int32(i))
		}
	}
	// From every state the end can be reached.
	reached := make([]bool, len(states))
	var todo []int32
	for i := range states {
		if e.ended(states[i]) {
			reached[i] = true
			todo = append(todo, int32(i))
		}
	}
	ends := len(todo)
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range before[i] {
			if !reached[from] {
				reached[from] = true
				todo = append(todo, from)
			}
		}
	}
	if i := slices.Index(reached, false); i >= 0 {
		e.t.Fatalf("no end can be reached from %+v", states[i])
	}
	e.t.Logf("%d states, %d of them ends, in %v", len(states), ends, time.Since(began).Round(time.Millisecond))
	if len(states) < 1000 || ends == 0 {
		e.t.Error("there is little to explore")
	}
}

// check holds in every state.
func (e *explorer) check(s system) {
	unfinished := 0
	for i := range e.items {
		if s.succeeded[i] > 1 {
			e.t.Errorf("item %d has succeeded twice", i)
		}
		if s.item[i] == itemDone && s.succeeded[i] != 1 {
			e.t.Errorf("item %d is done and has not succeeded", i)
		}
		if s.item[i] == itemDead && (s.succeeded[i] > 0 || int(s.failures[i]) != e.attempts) {
			e.t.Errorf("item %d is dead after %d failures and %d successes", i, s.failures[i], s.succeeded[i])
		}
		for a := range maxAttempts {
			if s.made[i][a] > 1 {
				e.t.Errorf("attempt %d of item %d had two Jobs", a+1, i)
			}
			if s.jobs[i][a].how == jobRuns {
				unfinished++
			}
		}
	}
	if unfinished > e.limit {
		e.t.Errorf("%d Jobs at once", unfinished)
	}
}

// ended tells whether every item is done or dead and no Job is kept.
func (e *explorer) ended(s system) bool {
	for i := range e.items {
		if s.item[i] != itemDone && s.item[i] != itemDead {
			return false
		}
		for a := range maxAttempts {
			if s.jobs[i][a].kept {
				return false
			}
		}
	}
	return true
}

// next returns the states that can follow.
func (e *explorer) next(s system) (all []system) {
	for i := range e.items {
		for a := range maxAttempts {
			if s.jobs[i][a].how == jobRuns {
				ok, failed := s, s
				ok.jobs[i][a].how = jobSucceeded
				ok.succeeded[i]++
				failed.jobs[i][a].how = jobFailed
				all = append(all, ok, failed)
			}
			if job := s.jobs[i][a]; job.how > jobRuns && !job.kept { // it leaves the history
				trimmed := s
				trimmed.jobs[i][a] = jobState{}
				all = append(all, trimmed)
			}
		}
	}
	led := s
	led.leader = 1 - s.leader
	led.process[led.leader] = process{} // it begins with what there is
	all = append(all, led)
	for p := range s.process {
		if s.process[p] != (process{}) {
			crashed := s
			crashed.process[p] = process{}
			all = append(all, crashed)
		}
		all = append(all, e.step(s, p)...)
	}
	return all
}

// step returns what the next step of a process can lead to.
func (e *explorer) step(s system, number int) []system {
	p := &s.process[number]
	leads := int(s.leader) == number
	switch p.step {
	case stepList:
		p.seen = s.jobs
		if p.step = stepKnow; p.known {
			p.step = stepSettle
		}
		return []system{s}
	case stepKnow:
		for i := range e.items {
			p.held[i] = 0
			if s.item[i] == itemClaimed {
				p.held[i] = s.attempt[i]
			}
		}
		p.known, p.step = true, stepSettle
		return []system{s}
	case stepSettle:
		settled := p.held
		before := s
		e.settle(&s, p)
		if settled == p.held {
			return []system{s}
		}
		lost, unsent := s, before
		lost.process[number].forget()
		unsent.process[number].forget()
		return []system{s, lost, unsent}
	case stepLetGo:
		for i := range e.items {
			for a := range maxAttempts {
				if p.free[i][a].kept && leads {
					s.jobs[i][a].kept = false
				}
			}
		}
		p.free, p.step = jobTable{}, stepClaim
		return []system{s}
	case stepClaim:
		return e.claim(s, number)
	default:
		return e.create(s, number)
	}
}

// forget is what follows an error: nothing is known, and the next reconcile begins.
func (p *process) forget() { *p = process{} }

// settle is the real comparison, and what settleItems does with it.
func (e *explorer) settle(s *system, p *process) {
	r := &record{items: items{held: map[string]queue.Claim{}}}
	for i := range e.items {
		if p.held[i] > 0 {
			r.items.held[strconv.Itoa(i)] = queue.Claim{ID: strconv.Itoa(i), Attempt: int(p.held[i])}
		}
	}
	var jobs []Job
	for i := range e.items {
		for a := range maxAttempts {
			if p.seen[i][a].how != noJob {
				jobs = append(jobs, aJob(i, a+1, p.seen[i][a]))
			}
		}
	}
	w := r.look(&v1alpha1.ScaledJob{}, "q", jobs)
	free := func(job Job) {
		id, attempt := claimOf(job.Job)
		i, _ := strconv.Atoi(id)
		p.free[i][attempt-1].kept = true
	}
	for _, job := range w.free {
		free(job)
	}
	for _, done := range w.settle {
		i, _ := strconv.Atoi(done.claim.ID)
		if s.item[i] == itemClaimed && int(s.attempt[i]) == done.claim.Attempt {
			how, _ := Finished(done.job.Job)
			switch {
			case how == batchv1.JobComplete:
				s.item[i] = itemDone
			case int(s.failures[i])+1 < e.attempts:
				s.failures[i]++
				s.item[i] = itemReady
			default:
				s.failures[i]++
				s.item[i] = itemDead
			}
		}
		p.held[i] = 0
		free(done.job)
	}
	p.make = [maxItems]int8{}
	for _, claim := range w.missing {
		i, _ := strconv.Atoi(claim.ID)
		p.make[i] = int8(claim.Attempt)
	}
	p.slots = int8(max(0, e.limit-int(w.running)-len(w.missing)))
	p.step = stepLetGo
}

func aJob(item, attempt int, state jobState) Job {
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("%d-%d", item, attempt),
		Annotations: map[string]string{
			v1alpha1.AnnotationItemID: strconv.Itoa(item), v1alpha1.AnnotationAttempt: strconv.Itoa(attempt),
			v1alpha1.AnnotationQueue: "q",
		},
	}}
	if state.kept {
		job.Finalizers = []string{v1alpha1.FinalizerSettle}
	}
	how := map[int8]batchv1.JobConditionType{jobSucceeded: batchv1.JobComplete, jobFailed: batchv1.JobFailed}[state.how]
	if how != "" {
		job.Status.Conditions = []batchv1.JobCondition{{Type: how, Status: corev1.ConditionTrue}}
	}
	return Job{Job: job}
}

// claim claims as many items as there are slots; the queue itself bounds what all processes hold.
func (e *explorer) claim(s system, number int) []system {
	before := s
	held := 0
	for i := range e.items {
		if s.item[i] == itemClaimed {
			held++
		}
	}
	p := &s.process[number]
	claimed := false
	for i := range e.items {
		if p.slots > 0 && held < e.limit && s.item[i] == itemReady {
			claimed = true
			held++
			p.slots--
			s.item[i] = itemClaimed
			s.attempt[i]++
			p.held[i], p.make[i] = s.attempt[i], s.attempt[i]
		}
	}
	p.slots, p.step = 0, stepCreate
	if !claimed {
		return []system{s}
	}
	lost, unsent := s, before
	lost.process[number].forget()
	unsent.process[number].forget()
	return []system{s, lost, unsent}
}

// create makes one Job after the other; only the leader may, and one that exists is left as it is.
func (e *explorer) create(s system, number int) []system {
	p := &s.process[number]
	for i := range e.items {
		attempt := p.make[i]
		if attempt == 0 {
			continue
		}
		p.make[i] = 0
		if int(s.leader) != number {
			p.forget()
			return []system{s}
		}
		if job := &s.jobs[i][attempt-1]; job.how == noJob {
			*job = jobState{how: jobRuns, kept: true}
			s.made[i][attempt-1]++
		}
		lost := s
		lost.process[number].forget()
		return []system{s, lost}
	}
	p.step, p.seen = stepList, jobTable{}
	return []system{s}
}
