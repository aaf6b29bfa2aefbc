package decider

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/offboard-dev/offboard/internal/scaling"
)

func TestTakeup(t *testing.T) {
	t.Parallel()
	const limit = 30 * time.Second
	start := time.Unix(1_000_000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	running := func(uids ...types.UID) (jobs []Job) {
		for _, uid := range uids {
			jobs = append(jobs, Job{uid, start})
		}
		return jobs
	}
	check := func(t *testing.T, tk *takeup, unfinished, pending int, want int64) {
		t.Helper()
		if got := tk.untaken(unfinished, pending); got != want {
			t.Errorf("untaken(%d, %d) = %d, want %d", unfinished, pending, got, want)
		}
	}
	t.Run("a fall pays the oldest", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(3, start)
		for _, uid := range []types.UID{"a", "b", "c"} {
			tk.created(uid, 1)
		}
		tk.observe(running("a", "b", "c"), 1, start, limit)
		check(t, tk, 3, 0, 3)
		tk.measure(1, at(50*time.Millisecond))
		check(t, tk, 3, 0, 1)
		if tk.smoothed != 50*time.Millisecond {
			t.Errorf("learnt %v, want 50ms", tk.smoothed)
		}
		tk.measure(5, at(60*time.Millisecond))
		check(t, tk, 3, 0, 1)
		tk.measure(4, at(70*time.Millisecond))
		check(t, tk, 3, 0, 0)
	})
	t.Run("what was taken by a Job that has ended is not held against the others", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(2, start)
		tk.created("a", 1)
		tk.created("b", 1)
		tk.observe(running("a", "b"), 1, start, limit)
		tk.measure(1, start)
		tk.observe(running("a"), 1, start, limit) // b took its item and ended; a has yet to
		check(t, tk, 1, 0, 1)
	})
	t.Run("a Job that takes several", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(3, start)
		tk.created("a", 3)
		tk.observe(running("a"), 5, start, limit)
		tk.measure(2, start)
		tk.measure(1, start)
		check(t, tk, 1, 0, 1)
		tk.measure(0, start)
		check(t, tk, 1, 0, 0)
	})
	t.Run("pending ones cannot have taken anything", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.observe([]Job{{UID: "a"}, {UID: "b"}}, 1, start, limit)
		tk.observe([]Job{{UID: "a"}, {UID: "b"}}, 1, at(time.Hour), limit)
		check(t, tk, 2, 2, 2)
	})
	t.Run("the Pod that follows a failed one takes work anew", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(2, start)
		tk.created("a", 1)
		tk.observe(running("a"), 1, start, limit)
		tk.measure(1, start)
		check(t, tk, 1, 0, 0)
		for range 2 { // however often one looks
			tk.observe([]Job{{UID: "a"}}, 1, at(time.Second), limit)
			check(t, tk, 1, 1, 1)
		}
		tk.observe(running("a"), 1, at(10*time.Second), limit)
		check(t, tk, 1, 0, 1)
		tk.measure(0, at(10*time.Second))
		check(t, tk, 1, 0, 0)
	})
	t.Run("a hidden fall is written off", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(1, start)
		tk.created("a", 1)
		tk.observe(running("a"), 1, start, limit)
		tk.measure(1, start) // a's item was taken while another was pushed
		check(t, tk, 1, 0, 1)
		if wait := tk.next(start, limit); wait != limit {
			t.Errorf("next = %v, want the whole polling interval while nothing was learnt", wait)
		}
		tk.observe(running("a"), 1, at(limit), limit)
		check(t, tk, 1, 0, 0)
	})
	t.Run("a barren Job is not followed at once", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(1, start)
		tk.created("a", 1)
		tk.observe(running("a"), 1, start, limit)
		tk.observe(nil, 1, at(time.Second), limit) // a has ended, and nothing was taken
		tk.measure(1, at(time.Second))
		check(t, tk, 0, 0, 1)
		if wait := tk.next(at(time.Second), limit); wait != limit {
			t.Errorf("next = %v, want the polling interval while nothing was learnt", wait)
		}
		tk.observe(nil, 1, at(time.Second+limit), limit)
		check(t, tk, 0, 0, 0)
	})
	t.Run("pauses grow until something is taken", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		now := start
		tk.sample(10 * time.Millisecond)
		tk.measure(5, now)
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			job := types.UID(fmt.Sprint(i))
			tk.created(job, 1)
			tk.observe(running(job), 1, now, limit)
			tk.observe(nil, 1, now, limit)
			check(t, tk, 0, 0, 1)
			wait := tk.next(now, limit)
			if wait != want*time.Second {
				t.Errorf("pause %d is %v, want %v", i, wait, want*time.Second)
			}
			now = now.Add(wait)
			tk.observe(nil, 1, now, limit)
			check(t, tk, 0, 0, 0)
		}
		tk.created("last", 1)
		tk.observe(nil, 1, now, limit)
		check(t, tk, 0, 0, 1)
		tk.measure(4, now)
		check(t, tk, 0, 0, 0)
	})
	t.Run("other triggers pay nothing", func(t *testing.T) {
		t.Parallel()
		tk := newTakeup()
		tk.measure(9, start)
		tk.created("a", 1)
		tk.observe(running("a"), 1, start, limit)
		tk.interrupted()
		tk.measure(0, start)
		check(t, tk, 1, 0, 1)
	})
}

// simulation plays pushes, Jobs and decisions on a virtual clock.
type simulation struct {
	now    time.Time
	events eventHeap
	rng    *rand.Rand

	queue, pushed, served, surplus, created, most int
	jobs                                          map[types.UID]*simulatedJob
	takeup                                        *takeup
	rule                                          scaling.Rule
	// lag is how long a change takes to be noticed: changes within it hide each other.
	lag time.Duration
	// longest is how long the work on an item takes at the most.
	longest   time.Duration
	scheduled bool
}

type simulatedJob struct{ since time.Time }

type simulatedEvent struct {
	at time.Time
	do func()
}

type eventHeap []simulatedEvent

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h eventHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)        { *h = append(*h, x.(simulatedEvent)) }
func (h *eventHeap) Pop() any          { old := *h; last := old[len(old)-1]; *h = old[:len(old)-1]; return last }

func (s *simulation) after(d time.Duration, do func()) {
	heap.Push(&s.events, simulatedEvent{s.now.Add(d), do})
}

func (s *simulation) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)))
}

// changed asks for a decision, as a notice of the queue or of a Job does.
func (s *simulation) changed() {
	if !s.scheduled {
		s.scheduled = true
		s.after(s.lag, func() { s.scheduled = false; s.decide() })
	}
}

func (s *simulation) decide() {
	const limit = 30 * time.Second
	state := scaling.State{Readings: []scaling.Reading{{Value: float64(s.queue), Target: 1, Active: s.queue > 0}}}
	var alive []Job
	for uid, job := range s.jobs {
		state.Running++
		if job.since.IsZero() {
			state.Pending++
		}
		alive = append(alive, Job{uid, job.since})
	}
	s.takeup.observe(alive, 1, s.now, limit)
	s.takeup.measure(float64(s.queue), s.now)
	state.Untaken = s.takeup.untaken(len(alive), int(state.Pending))
	for range scaling.Decide(s.rule, state).Create {
		s.start()
	}
	s.most = max(s.most, len(s.jobs))
	if wait := s.takeup.next(s.now, limit); wait > 0 && s.queue > 0 {
		s.after(wait, s.changed)
	}
}

func (s *simulation) start() {
	s.created++
	uid := types.UID(fmt.Sprint(s.created))
	job := &simulatedJob{}
	s.jobs[uid] = job
	s.takeup.created(uid, 1)
	s.after(s.between(time.Millisecond, 200*time.Millisecond), func() { // the Pod starts
		job.since = s.now
		s.changed()
		s.after(s.between(time.Millisecond, 300*time.Millisecond), func() { // the runner takes its item
			work := time.Millisecond
			if s.queue > 0 {
				s.queue--
				s.served++
				work = s.between(s.longest/1000, s.longest)
			} else {
				s.surplus++
			}
			s.changed()
			s.after(work, func() { delete(s.jobs, uid); s.changed() })
		})
	})
}

// TestTakeupSimulation plays random arrivals and checks what the estimate is for: no Job finds the queue empty, the
// limit holds, and every item is served, with changes noticed one by one and with changes that hide each other.
func TestTakeupSimulation(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"default", "custom", "accurate", "eager"} {
		for _, lag := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond} {
			for seed := range uint64(6) {
				deduction, most := int64(1), int64(1+seed*2)
				s := &simulation{
					now: time.Unix(1_000_000, 0), rng: rand.New(rand.NewPCG(seed, 0)),
					jobs: map[types.UID]*simulatedJob{}, takeup: newTakeup(), lag: lag,
					longest: []time.Duration{20 * time.Second, 50 * time.Millisecond}[seed%2],
					rule:    scaling.Rule{Strategy: strategy, Deduction: &deduction, RunningPercentage: "0.5", Max: &most},
				}
				for s.pushed < 300 {
					s.pushed++
					s.after(s.between(0, 2*time.Minute), func() { s.queue++; s.changed() })
				}
				for len(s.events) > 0 {
					next := heap.Pop(&s.events).(simulatedEvent)
					s.now = next.at
					next.do()
				}
				if s.surplus != 0 || s.served != s.pushed || s.created != s.pushed || s.most > int(most) {
					t.Errorf("strategy %s, lag %v, seed %d: %d items, %d served, %d Jobs of which %d found nothing, "+
						"%d at once with a limit of %d", strategy, lag, seed, s.pushed, s.served, s.created, s.surplus, s.most, most)
				}
			}
		}
	}
}

// TestToldIsObserved tells one Decider of each change and shows another all Jobs: they must decide alike.
func TestToldIsObserved(t *testing.T) {
	t.Parallel()
	const polling = 30 * time.Second
	rapid.Check(t, func(t *rapid.T) {
		told, shown := New(), New()
		now := time.Unix(1_000_000, 0)
		jobs := map[types.UID]time.Time{}
		limit, least := int64(6), rapid.Int64Range(0, 2).Draw(t, "minReplicaCount")
		rule := scaling.Rule{Strategy: rapid.SampledFrom([]string{"default", "accurate", "eager"}).Draw(t, "strategy"),
			Max: &limit, Min: &least}
		queue, made := 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			queue = max(0, queue+rapid.IntRange(-2, 3).Draw(t, "queue"))
			if uids := slices.Sorted(maps.Keys(jobs)); len(uids) > 0 {
				uid := rapid.SampledFrom(uids).Draw(t, "job")
				switch {
				case rapid.Bool().Draw(t, "ends"):
					delete(jobs, uid)
					told.Ended(uid, now)
				case jobs[uid].IsZero():
					jobs[uid] = now
					told.Began(uid, now)
				}
			}
			var list []Job
			pending := int64(0)
			for uid, since := range jobs {
				list = append(list, Job{uid, since})
				if since.IsZero() {
					pending++
				}
			}
			decide := func(d *Decider) (scaling.Decision, time.Duration) {
				d.Measured(float64(queue), now)
				running := int64(len(jobs))
				state := scaling.State{Running: running, Pending: pending, Untaken: d.Untaken(running, pending),
					Readings: []scaling.Reading{{Value: float64(queue), Target: 1, Active: queue > 0}}}
				decision := d.Decide(rule, state, now, polling)
				if decision.Floor {
					d.Floored(now)
				}
				return decision, d.Next(state, now, polling)
			}
			one, other := told.Elapsed(now, polling), shown.Observe(list, 1, now, polling)
			decision, next := decide(told)
			again, nextAgain := decide(shown)
			if one != other || decision != again || next != nextAgain {
				t.Fatalf("told: %d surplus, %+v, next %v; shown: %d surplus, %+v, next %v",
					one, decision, next, other, again, nextAgain)
			}
			for range decision.Create {
				made++
				uid := types.UID(fmt.Sprint(made))
				jobs[uid] = time.Time{}
				told.Created(Waiting{float64(queue), 1}, uid)
				shown.Created(Waiting{float64(queue), 1}, uid)
			}
		}
	})
}
