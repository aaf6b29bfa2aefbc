package limits

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is ScaledJobs with work, whose Jobs are made of the slots that a Pool gives them.
type world struct {
	t      testing.TB
	limits Limits
	pool   *Pool
	now    time.Time
	names  []types.NamespacedName
	works  map[types.NamespacedName]*worker
	// made are when Jobs were made.
	made []time.Time
	// woken are those that are to come and Ask.
	woken []types.NamespacedName
}

type worker struct {
	weight      float64
	work, alive int
	// most is what the ScaledJob itself allows.
	most int
}

func newWorld(t testing.TB, limits Limits) *world {
	t.Helper()
	return &world{t: t, limits: limits, pool: NewPool(limits), now: start, works: map[types.NamespacedName]*worker{}}
}

func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func (w *world) add(name types.NamespacedName, weight float64, work int) {
	w.names = append(w.names, name)
	w.works[name] = &worker{weight: weight, work: work, most: math.MaxInt}
}

// reconcile does as the controller does: count, ask, make.
func (w *world) reconcile(name types.NamespacedName) {
	me := w.works[name]
	w.wake(w.pool.Count(name, me.alive, me.alive, w.now))
	granted, wake := w.pool.Ask(name, Demand{Jobs: min(me.work, me.most-me.alive), Weight: me.weight}, w.now)
	w.wake(wake)
	for range granted {
		me.work--
		me.alive++
		w.made = append(w.made, w.now)
	}
	w.check()
}

func (w *world) wake(names []types.NamespacedName) { w.woken = append(w.woken, names...) }

// settle reconciles those that were woken, until nobody is.
func (w *world) settle() {
	for len(w.woken) > 0 {
		name := w.woken[0]
		w.woken = w.woken[1:]
		w.reconcile(name)
	}
}

// end ends one Job.
func (w *world) end(name types.NamespacedName) {
	w.works[name].alive--
	w.reconcile(name)
	w.settle()
}

// check holds the promises that hold at any moment.
func (w *world) check() {
	w.t.Helper()
	alive, waiting := 0, 0
	perNamespace := map[string]int{}
	for _, name := range w.names {
		alive += w.works[name].alive
		perNamespace[name.Namespace] += w.works[name].alive
	}
	limits := w.limits
	if limits.Jobs > 0 && alive > limits.Jobs {
		w.t.Fatalf("%d Jobs are alive, the limit is %d", alive, limits.Jobs)
	}
	for namespace, n := range perNamespace {
		if limits.JobsPerNamespace > 0 && n > limits.JobsPerNamespace {
			w.t.Fatalf("%d Jobs are alive in %s, the limit is %d", n, namespace, limits.JobsPerNamespace)
		}
	}
	for _, name := range w.names {
		standing := w.pool.Standing(name)
		waiting += standing.Waiting
		if standing.Waiting == 0 {
			continue
		}
		// Nobody waits unless the limit that is named is used up, by Jobs and by slots that others are coming for.
		bound := map[Bound]bool{
			MaxJobs:             limits.Jobs > 0 && w.pool.used >= limits.Jobs,
			MaxJobsPerNamespace: limits.JobsPerNamespace > 0 && w.pool.spaces[name.Namespace].used >= limits.JobsPerNamespace,
			MaxJobsPerSecond:    limits.JobsPerSecond > 0 && w.pool.tokens < 1,
		}
		if !bound[standing.Bound] {
			w.t.Fatalf("%s waits for %d Jobs because of %q, but %d slots are used, and there are %v tokens", name,
				standing.Waiting, standing.Bound, w.pool.used, w.pool.tokens)
		}
	}
	if len(w.woken) == 0 && w.pool.Alive() != alive {
		w.t.Fatalf("%d slots are used by %d Jobs, and nobody is to come for the others", w.pool.Alive(), alive)
	}
}

// TestWeights has three ScaledJobs with work without end: their Jobs come to be in proportion to their weights, whoever
// was there first.
func TestWeights(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{8, 50, 100, 1000} {
		w := newWorld(t, Limits{Jobs: limit})
		for name, weight := range map[string]float64{"one": 1, "two": 2, "five": 5} {
			w.add(key("ns", name), weight, math.MaxInt32)
		}
		random := rand.New(rand.NewPCG(1, uint64(limit)))
		for _, name := range w.names {
			w.reconcile(name)
		}
		for range 4 * limit {
			// The Jobs all take equally long on average: any of them may be the next one to end.
			which := random.IntN(limit)
			for _, name := range w.names {
				if which -= w.works[name].alive; which < 0 {
					w.end(name)
					break
				}
			}
		}
		for _, name := range w.names {
			me := w.works[name]
			if share := me.weight / 8 * float64(limit); math.Abs(float64(me.alive)-share) > 1 {
				t.Errorf("limit %d: %s has %d Jobs, its share is %v", limit, name.Name, me.alive, share)
			}
		}
	}
}

// TestLeftovers has one that wants less than its share: the others get it.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Jobs: 30})
	small, a, b := key("ns", "small"), key("ns", "a"), key("ns", "b")
	w.add(small, 10, 1000)
	w.works[small].most = 4
	w.add(a, 1, 1000)
	w.add(b, 1, 1000)
	for _, name := range w.names {
		w.reconcile(name)
	}
	for range 100 {
		w.end(a)
	}
	for name, want := range map[types.NamespacedName]int{small: 4, a: 13, b: 13} {
		if got := w.works[name].alive; got != want {
			t.Errorf("%s has %d Jobs, want %d", name.Name, got, want)
		}
	}
}

// TestNobodyStarves has more ScaledJobs than slots, of weights that differ by a million: each gets on.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Jobs: 2})
	for i := range 20 {
		w.add(key("ns", fmt.Sprint(i)), math.Pow(2, float64(i)), math.MaxInt32)
	}
	for _, name := range w.names {
		w.reconcile(name)
	}
	for range 2 {
		got := map[types.NamespacedName]int{}
		for ended := 0; ended < 20; {
			for _, name := range w.names {
				if w.works[name].alive > 0 {
					got[name]++
					ended++
					w.end(name)
				}
			}
		}
		for _, name := range w.names {
			if got[name] == 0 {
				t.Errorf("ScaledJob %s got no Job: %v", name.Name, got)
			}
		}
	}
}

// TestHeldItemsComeFirst has one with items that it holds already: it waits for nobody with less.
func TestHeldItemsComeFirst(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Jobs: 3})
	busy, holds, idle := key("ns", "busy"), key("ns", "holds"), key("ns", "idle")
	p.Ask(busy, Demand{Jobs: 2, Weight: 1}, start)
	p.Count(holds, 1, 1, start)
	p.Ask(idle, Demand{Jobs: 5, Weight: 100}, start)
	p.Ask(holds, Demand{Jobs: 3, First: 1, Weight: 1}, start)
	for i, want := range [][]types.NamespacedName{{holds}, {idle}} {
		if wake := p.Count(busy, 1-i, 1-i, start); !slices.Equal(wake, want) {
			t.Errorf("slot %d goes to %v, want %v", i, wake, want)
		}
	}
}

// TestNothingFromIgnorance gives nothing while it is not known how many Jobs there are.
func TestNothingFromIgnorance(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Jobs: 10})
	known, unknown := key("a", "known"), key("b", "unknown")
	p.Adopt(known)
	p.Adopt(unknown)
	p.Count(known, 0, 0, start)
	if granted, _ := p.Ask(known, Demand{Jobs: 20, Weight: 1}, start); granted != 0 {
		t.Errorf("%d slots were given", granted)
	}
	if wake := p.Count(unknown, 7, 7, start); !slices.Equal(wake, []types.NamespacedName{known}) {
		t.Errorf("%v are woken", wake)
	}
	if granted, _ := p.Ask(known, Demand{Jobs: 20, Weight: 1}, start); granted != 3 {
		t.Errorf("%d slots were given beside 7 Jobs, want 3", granted)
	}
}

// TestMoreThanTheLimit has more Jobs at the start than there may be: none is created until there are fewer.
func TestMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Jobs: 2, JobsPerNamespace: 2})
	a := key("ns", "a")
	for alive := 5; alive >= 2; alive-- {
		p.Count(a, alive, alive, start)
		if granted, _ := p.Ask(a, Demand{Jobs: 1, Weight: 1}, start); granted != 0 {
			t.Errorf("%d slots were given beside %d Jobs", granted, alive)
		}
	}
	p.Count(a, 1, 1, start)
	if granted, _ := p.Ask(a, Demand{Jobs: 1, Weight: 1}, start); granted != 1 {
		t.Errorf("%d slots were given beside 1 Job", granted)
	}
}

// TestNamespaces fills one namespace: what it may not have, others get, in the order of all.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Jobs: 10, JobsPerNamespace: 6})
	full, other := key("full", "a"), key("other", "b")
	w.add(full, 1000, 100)
	w.add(other, 1, 100)
	w.reconcile(full)
	w.reconcile(other)
	if a, b := w.works[full].alive, w.works[other].alive; a != 6 || b != 4 {
		t.Errorf("%d and %d Jobs, want 6 and 4", a, b)
	}
	if got := w.pool.Standing(full); got != (Standing{94, MaxJobsPerNamespace}) {
		t.Errorf("%+v", got)
	}
	if got := w.pool.Standing(other); got != (Standing{96, MaxJobs}) {
		t.Errorf("%+v", got)
	}
}

// TestRate shares out tokens over a minute: never more than the rate allows, and not less, fairly.
func TestRate(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 3, 50, 400} {
		w := newWorld(t, Limits{JobsPerSecond: rate})
		for i := range 4 {
			w.add(key("ns", fmt.Sprint(i)), float64(i%2+1), math.MaxInt32)
		}
		for _, name := range w.names {
			w.reconcile(name)
			w.settle()
		}
		const seconds = 60
		for w.now.Before(start.Add(seconds * time.Second)) {
			next := w.pool.Next()
			if next < 0 {
				t.Fatal("nobody waits for a token")
			}
			w.now = w.now.Add(next)
			w.wake(w.pool.Tick(w.now))
			w.settle()
		}
		burst := max(1, rate/10)
		for i := range w.made {
			for j := i; j < len(w.made); j += 1 + len(w.made)/50 {
				if allowed := burst + rate*w.made[j].Sub(w.made[i]).Seconds(); float64(j-i+1) > allowed+1e-3 {
					t.Fatalf("rate %v: %d Jobs within %v", rate, j-i+1, w.made[j].Sub(w.made[i]))
				}
			}
		}
		if want := rate * seconds; float64(len(w.made)) < want-1 {
			t.Errorf("rate %v: %d Jobs in a minute", rate, len(w.made))
		}
		for _, name := range w.names {
			me := w.works[name]
			if share := me.weight / 6 * float64(len(w.made)); math.Abs(float64(me.alive)-share) > 1 {
				t.Errorf("rate %v: %s got %d Jobs of %d, its share is %v", rate, name.Name, me.alive, len(w.made), share)
			}
		}
	}
}

// TestTokensComeBack leaves without having used what was given.
func TestTokensComeBack(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{JobsPerSecond: 1})
	a, b := key("ns", "a"), key("ns", "b")
	if granted, _ := p.Ask(a, Demand{Jobs: 1, Weight: 1}, start); granted != 1 {
		t.Fatalf("%d tokens at the start", granted)
	}
	p.Ask(b, Demand{Jobs: 1, Weight: 1}, start)
	p.Ask(a, Demand{Jobs: 1, Weight: 1}, start)
	now := start.Add(time.Second)
	if wake := p.Tick(now); !slices.Equal(wake, []types.NamespacedName{b}) {
		t.Fatalf("%v are woken", wake)
	}
	if wake := p.Leave(b, now); !slices.Equal(wake, []types.NamespacedName{a}) {
		t.Errorf("%v are woken after b has left", wake)
	}
}

// TestRandomDemands is random work, ends, failures, departures and limits: the promises hold at each moment.
func TestRandomDemands(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 2))
		limits := Limits{Jobs: random.IntN(30), JobsPerNamespace: random.IntN(20)}
		if random.IntN(3) == 0 {
			limits.JobsPerSecond = random.Float64() * 50
		}
		w := newWorld(t, limits)
		for i := range 1 + random.IntN(12) {
			w.add(key(fmt.Sprint(random.IntN(4)), fmt.Sprint(i)), 0.1+10*random.Float64(), 0)
		}
		for range 500 {
			name := w.names[random.IntN(len(w.names))]
			me := w.works[name]
			w.now = w.now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			switch random.IntN(6) {
			case 0:
				me.work += random.IntN(10)
			case 1, 2:
				me.alive = random.IntN(me.alive + 1)
			case 3: // its queue cannot be asked
				w.wake(w.pool.Leave(name, w.now))
				continue
			case 4: // what it waits for is gone
				me.work = 0
			case 5:
				w.wake(w.pool.Tick(w.now))
			}
			w.reconcile(name)
			if random.IntN(2) == 0 {
				w.settle()
			}
		}
		// In the end all work is done, and nothing is remembered.
		for done := false; !done; {
			done = true
			w.now = w.now.Add(time.Second)
			w.wake(w.pool.Tick(w.now))
			for _, name := range w.names {
				me := w.works[name]
				me.alive = 0
				w.reconcile(name)
				done = done && me.work == 0 && me.alive == 0
			}
			w.settle()
		}
		if p := w.pool; len(p.accounts)+len(p.spaces)+len(p.ready.items)+p.used != 0 {
			t.Fatalf("seed %d: %d accounts, %d namespaces, %d that wait and %d slots are left", seed, len(p.accounts),
				len(p.spaces), len(p.ready.items), p.used)
		}
	}
}

// TestResize takes capacity away and gives it back: what is there stays, and who waits is told.
func TestResize(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Jobs: 4})
	a, b := key("a", "a"), key("b", "b")
	p.Ask(a, Demand{Jobs: 4, Weight: 1}, start)
	p.Ask(b, Demand{Jobs: 4, Weight: 1}, start)
	if wake := p.Resize(Limits{Jobs: 2}, start); len(wake) > 0 || p.Alive() != 4 {
		t.Errorf("with less capacity %v are woken, %d are alive", wake, p.Alive())
	}
	if wake := p.Count(a, 2, 2, start); len(wake) > 0 {
		t.Errorf("at the new limit %v are woken", wake)
	}
	if wake := p.Resize(Limits{Jobs: 5, JobsPerNamespace: 1}, start); !slices.Equal(wake, []types.NamespacedName{b}) {
		t.Errorf("with more capacity %v are woken", wake)
	}
	if got := p.Standing(b); got != (Standing{3, MaxJobsPerNamespace}) {
		t.Errorf("%+v", got)
	}
	if granted, _ := p.Ask(b, Demand{Jobs: 4, Weight: 1}, start); granted != 1 {
		t.Errorf("%d slots", granted)
	}
	if p.Resize(Limits{}, start); p.Alive() != 6 {
		t.Errorf("without limits %d are alive, want 2 and 4", p.Alive())
	}
}

// TestCreatedElsewhere has Jobs that another process has created: they count for what the ScaledJob is due, and not
// against the capacity. Of a ScaledJob that is let go, only the own ones count.
func TestCreatedElsewhere(t *testing.T) {
	t.Parallel()
	p := NewPool(None{})
	a, b := key("ns", "a"), key("ns", "b")
	p.Count(a, 5, 1, start)
	p.Ask(a, Demand{Jobs: 9, Weight: 1}, start)
	if granted, _ := p.Ask(b, Demand{Jobs: 9, Weight: 1}, start); granted != 0 {
		t.Errorf("%d slots without a capacity", granted)
	}
	if got := p.Standing(b); got != (Standing{9, ""}) {
		t.Errorf("while the capacity is not final: %+v", got)
	}
	l := Limits{Jobs: 4, JobsPerNamespace: 4}
	if wake := p.Resize(l, start); !slices.Equal(wake, []types.NamespacedName{b}) || p.Alive() != 4 {
		t.Errorf("%v are woken, %d slots are used", wake, p.Alive())
	}
	usage := p.Usage(l)
	if usage.Jobs != 4 || usage.Namespaces["ns"] != 4 || p.Waiting() != 15 ||
		!slices.Equal(usage.Wants["ns"], []Want{{Weight: 2, Jobs: 8}}) {
		t.Errorf("%+v, %d wait", usage, p.Waiting())
	}
	p.LetGo(func(name types.NamespacedName) bool { return name == b }, start)
	if p.Knows(a); p.Alive() != 4 || p.Standing(a).Waiting != 0 {
		t.Errorf("after a was let go, %d slots are used, and a is at %+v", p.Alive(), p.Standing(a))
	}
	if wake := p.Count(a, 0, 0, start); len(wake) != 0 || p.Knows(a) || p.Alive() != 4 {
		t.Errorf("after its end %v are woken, a is known: %t, %d slots are used", wake, p.Knows(a), p.Alive())
	}
	if granted, _ := p.Ask(b, Demand{Jobs: 9, Weight: 1}, start); granted != 4 {
		t.Errorf("b gets %d slots, want 4", granted)
	}
}

// TestRateComesAndGoes takes the rate away again and again: what was gathered before is not given twice.
func TestRateComesAndGoes(t *testing.T) {
	t.Parallel()
	p := NewPool(atRate(1))
	a, now, got := key("ns", "a"), start, 0
	for range 20 {
		for _, rate := range []float64{1, 0} {
			p.Resize(atRate(rate), now)
			granted, _ := p.Ask(a, Demand{Jobs: 100, Weight: 1}, now)
			got += granted
			now = now.Add(250 * time.Millisecond)
		}
	}
	if got < 5 || got > 7 {
		t.Errorf("%d tokens in 5 s at 1/s, with one at the start", got)
	}
}

// atRate is a capacity without other limits, also at a rate of 0.
type atRate float64

func (atRate) Alive() int           { return math.MaxInt }
func (atRate) AliveIn(string) int   { return math.MaxInt }
func (r atRate) PerSecond() float64 { return float64(r) }
func (atRate) Final() bool          { return true }

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, bad := range []Limits{
		{Jobs: -1}, {JobsPerNamespace: -1}, {JobsPerSecond: -1}, {JobsPerSecond: math.NaN()}, {JobsPerSecond: math.Inf(1)},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := (Limits{Jobs: 1, JobsPerNamespace: 1, JobsPerSecond: 0.1}).Check(); err != nil {
		t.Error(err)
	}
}

// BenchmarkSlot is what one Job costs, from its slot to its end, while 10,000 ScaledJobs wait for 1,000 slots.
func BenchmarkSlot(b *testing.B) {
	p := NewPool(Limits{Jobs: 1000})
	endless := Demand{Jobs: math.MaxInt32, Weight: 1}
	for i := range 10_000 {
		p.Ask(key(fmt.Sprint(i%100), fmt.Sprint(i)), endless, start)
	}
	woken := p.Count(key("0", "0"), 0, 0, start)
	b.ReportAllocs()
	for b.Loop() {
		name := woken[0]
		if granted, _ := p.Ask(name, endless, start); granted != 1 {
			b.Fatalf("%d slots", granted)
		}
		if woken = append(woken[1:], p.Count(name, 0, 0, start)...); len(woken) != 1000 {
			b.Fatalf("%d have a slot", len(woken))
		}
	}
}
