package limits

import (
	"container/heap"
	"maps"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// burstOf is how long tokens are gathered that nobody needs: the Jobs of that time may be created at once.
const burstOf = 100 * time.Millisecond

// Pool gives the slots that the limits leave to the ScaledJobs that want Jobs. Each free slot goes to the one with the
// fewest Jobs alive for its weight, and among equals to the one that has waited longest. So the Jobs of those that want
// more converge to their weighted max-min fair share, what one does not need the others get, and since nobody is passed
// over for ever, every ScaledJob gets on, however small its weight.
//
// A slot is used from before its Job is asked for until it is known that there is no such Job, or none any more: a Job
// that is being created counts as alive. So there are never more Jobs than the limits allow, unless there were before.
type Pool struct {
	capacity Capacity
	accounts map[types.NamespacedName]*account
	spaces   map[string]*space
	// ready are the namespaces in which somebody waits and which have room, in the order of whose turn it is.
	ready ordered[*space]
	// used are the slots of all namespaces, and waiting the Jobs that wait for one.
	used, waiting int
	// uncounted are accounts of which it is not known yet how many Jobs they have. Until it is, nobody gets any.
	uncounted int
	// tokens say how many Jobs may be created now, as of refilled.
	tokens   float64
	refilled time.Time
	turn     uint64
}

// account is what the Pool knows of one ScaledJob.
type account struct {
	key       types.NamespacedName
	space     *space
	uncounted bool
	weight    float64
	// alive are its Jobs, those being created included, and here those of them that count against the capacity; reserved
	// are slots that were given to it and that it has yet to take.
	alive, here, reserved int
	// waiting are the Jobs that it wants besides; first of them are for items that it holds already.
	waiting, first int
	// turn orders those with equal shares: since when it waits, or when it was last given a slot.
	turn uint64
	// place is where in its namespace's order it is; -1 while it does not wait.
	place int
}

// space is one namespace.
type space struct {
	name     string
	accounts int
	used     int
	waiting  ordered[*account]
	place    int // in the Pool's order; -1 while it has nobody waiting, or no room
}

// Demand is what a ScaledJob wants.
type Demand struct {
	// Jobs are to be created now; First of them are for items that are claimed already, and come before all others'.
	Jobs, First int
	// Weight is the ScaledJob's part in what is shared out; it is positive.
	Weight float64
}

// Usage is what a Pool uses and wants.
type Usage struct {
	// Jobs are the slots that are used, and Namespaces those of each namespace, where there is a limit for each.
	Jobs       int
	Namespaces map[string]int
	// Wants are what is used and wanted together, by namespace where there is a limit for each, else under "". ScaledJobs
	// that want about as many Jobs for their weights are one.
	Wants map[string][]Want
}

// Want is what ScaledJobs use and want.
type Want struct {
	// Weight is the sum of their weights.
	Weight float64 `json:"weight"`
	// Jobs are those that they have and want, and Waiting those of them that could be created now, where there is a limit
	// for that.
	Jobs    int `json:"jobs"`
	Waiting int `json:"waiting,omitempty"`
}

// Standing is where a ScaledJob stands.
type Standing struct {
	// Waiting is how many Jobs wait for a slot, and Bound the limit because of which they do; it is empty while they wait
	// for Jobs to be counted, or for a capacity that is final.
	Waiting int
	Bound   Bound
}

// NewPool returns a Pool of that capacity in which nobody has Jobs yet.
func NewPool(capacity Capacity) *Pool {
	p := &Pool{capacity: capacity, accounts: map[types.NamespacedName]*account{}, spaces: map[string]*space{}}
	p.ready = ordered[*space]{
		before: func(a, b *space) bool { return before(a.waiting.items[0], b.waiting.items[0]) },
		moved:  func(s *space, place int) { s.place = place },
	}
	return p
}

// before tells whose turn it is: what is claimed already first, then the smallest share, then who has waited longest.
func before(a, b *account) bool {
	if aFirst, bFirst := a.first > 0, b.first > 0; aFirst != bFirst {
		return aFirst
	}
	aShare, bShare := a.holds()*b.weight, b.holds()*a.weight
	if aShare != bShare {
		return aShare < bShare
	}
	return a.turn < b.turn
}

// holds is what is compared by weight. One that has nothing comes before all that have something, however small its
// weight; otherwise it is what would be held with half of the next slot, so that what comes out is the nearest whole
// numbers to the shares (the method of Sainte-Laguë).
func (a *account) holds() float64 {
	if slots := a.alive + a.reserved; slots > 0 {
		return float64(slots) + 0.5
	}
	return 0
}

// Adopt tells of a ScaledJob that may have Jobs: until they are counted, nobody gets any.
func (p *Pool) Adopt(key types.NamespacedName) {
	if a := p.account(key); !a.uncounted {
		a.uncounted = true
		p.uncounted++
	}
}

// Knows tells whether Jobs of the ScaledJob count.
func (p *Pool) Knows(key types.NamespacedName) bool { return p.accounts[key] != nil }

// Count tells how many Jobs of the ScaledJob are alive, and how many of them were created here: these count against
// the capacity, all of them against what the ScaledJob is due. What was given to it before, for Jobs to be created,
// is among them now, or free again. It returns who was given slots by that, and is to come and Ask for them.
func (p *Pool) Count(key types.NamespacedName, alive, here int, now time.Time) (wake []types.NamespacedName) {
	a := p.account(key)
	if a.uncounted {
		a.uncounted = false
		p.uncounted--
	}
	p.use(a, here-a.here)
	a.alive, a.here = alive, here
	p.settle(a)
	return p.share(now, nil)
}

// Ask takes the slots that are given to the ScaledJob now, for Jobs which it creates next, and notes that it waits for
// the rest of what it wants. What it had asked for before counts no more. It returns who else was given slots, and is
// to come and Ask for them.
func (p *Pool) Ask(
	key types.NamespacedName, demand Demand, now time.Time,
) (granted int, wake []types.NamespacedName) {
	a := p.account(key)
	a.weight = demand.Weight
	if unwanted := a.reserved - demand.Jobs; unwanted > 0 {
		a.reserved -= unwanted
		p.use(a, -unwanted)
		p.tokens += float64(unwanted)
	}
	p.wait(a, demand.Jobs-a.reserved, demand.First-a.reserved)
	p.settle(a)
	wake = p.share(now, a)
	granted = a.reserved
	a.alive, a.here, a.reserved = a.alive+granted, a.here+granted, 0
	p.settle(a)
	return granted, wake
}

// Leave takes back what the ScaledJob has asked for, and what was given to it and not taken. Its Jobs still count.
func (p *Pool) Leave(key types.NamespacedName, now time.Time) (wake []types.NamespacedName) {
	if p.accounts[key] == nil {
		return nil
	}
	_, wake = p.Ask(key, Demand{Weight: 1}, now)
	return wake
}

// LetGo takes back what the ScaledJobs that are not mine any more have asked for and not taken. Only their Jobs that
// were created here still count. It returns who was given slots by that, and is to come and Ask for them.
func (p *Pool) LetGo(mine func(types.NamespacedName) bool, now time.Time) (wake []types.NamespacedName) {
	for _, key := range slices.Collect(maps.Keys(p.accounts)) {
		if !mine(key) {
			wake = append(wake, p.Leave(key, now)...)
			if a := p.accounts[key]; a != nil {
				a.alive = a.here
				p.settle(a)
			}
		}
	}
	return wake
}

// Resize changes the capacity. It returns who was given slots by that, and is to come and Ask for them. Jobs that are
// alive stay so, also when they are more than there may be now.
func (p *Pool) Resize(capacity Capacity, now time.Time) (wake []types.NamespacedName) {
	p.refill(now) // at the rate that has held until now
	p.capacity = capacity
	for _, s := range p.spaces {
		p.order(s)
	}
	return p.share(now, nil)
}

// Tick shares out the tokens that have come since. It returns who was given slots, and is to come and Ask for them.
func (p *Pool) Tick(now time.Time) (wake []types.NamespacedName) { return p.share(now, nil) }

// Next returns how long until there is a token for those that wait for nothing else; negative means never.
func (p *Pool) Next() time.Duration {
	rate := p.capacity.PerSecond()
	if len(p.ready.items) == 0 || !p.room() || p.token() || rate <= 0 {
		return -1
	}
	return time.Duration(math.Ceil((1 - p.tokens) / rate * float64(time.Second)))
}

// Standing returns where a ScaledJob stands.
func (p *Pool) Standing(key types.NamespacedName) Standing {
	a := p.accounts[key]
	if a == nil || a.waiting == 0 {
		return Standing{}
	}
	switch {
	case p.uncounted > 0 || !p.capacity.Final():
		return Standing{a.waiting, ""}
	case !p.spaceRoom(a.space):
		return Standing{a.waiting, MaxJobsPerNamespace}
	case !p.room():
		return Standing{a.waiting, MaxJobs}
	}
	return Standing{a.waiting, MaxJobsPerSecond}
}

// Alive returns how many slots are used: the Jobs that are alive, and those for which a slot was given.
func (p *Pool) Alive() int { return p.used }

// Waiting returns how many Jobs wait for a slot.
func (p *Pool) Waiting() int { return p.waiting }

// Usage returns what is used, and what is wanted at the most under these limits.
func (p *Pool) Usage(limits Limits) Usage {
	u := Usage{Jobs: p.used, Namespaces: map[string]int{}, Wants: map[string][]Want{}}
	classes := map[string]map[int]Want{}
	for _, a := range p.accounts {
		jobs := min(a.here+a.reserved+a.waiting, limits.Alive(), limits.AliveIn(a.key.Namespace))
		if jobs == 0 {
			continue
		}
		namespace := ""
		if limits.JobsPerNamespace > 0 {
			namespace = a.key.Namespace
			u.Namespaces[namespace] = a.space.used
		}
		if classes[namespace] == nil {
			classes[namespace] = map[int]Want{}
		}
		class := math.Ilogb(float64(jobs) / a.weight)
		want := classes[namespace][class]
		want.Weight += a.weight
		want.Jobs += jobs
		if rate := limits.JobsPerSecond; rate > 0 {
			want.Waiting += min(a.waiting, int(math.Ceil(rate)))
		}
		classes[namespace][class] = want
	}
	for namespace, wants := range classes {
		for _, class := range slices.Sorted(maps.Keys(wants)) {
			u.Wants[namespace] = append(u.Wants[namespace], wants[class])
		}
	}
	return u
}

// room tells whether there is a free slot, in whatever namespace.
func (p *Pool) room() bool { return p.uncounted == 0 && p.used < p.capacity.Alive() }

// spaceRoom tells whether the namespace has a free slot.
func (p *Pool) spaceRoom(s *space) bool { return s.used < p.capacity.AliveIn(s.name) }

// token tells whether there is one.
func (p *Pool) token() bool { return p.tokens >= 1 }

// share gives free slots to those whose turn it is, and returns who is to come for them, but for the one that asks.
func (p *Pool) share(now time.Time, asks *account) (wake []types.NamespacedName) {
	p.refill(now)
	for p.room() && p.token() && len(p.ready.items) > 0 {
		a := p.ready.items[0].waiting.items[0]
		if a.reserved == 0 && a != asks {
			wake = append(wake, a.key)
		}
		a.reserved++
		p.tokens--
		p.use(a, 1)
		p.turn++
		a.turn = p.turn
		p.wait(a, a.waiting-1, a.first-1)
		p.settle(a)
	}
	return wake
}

// refill adds the tokens of the time that has passed.
func (p *Pool) refill(now time.Time) {
	rate := p.capacity.PerSecond()
	if math.IsInf(rate, 1) {
		p.tokens = rate
		return
	}
	most := max(1, rate*burstOf.Seconds())
	if p.refilled.IsZero() && rate > 0 {
		p.tokens, p.refilled = most, now
	}
	if passed := now.Sub(p.refilled); passed > 0 && !p.refilled.IsZero() {
		p.tokens += passed.Seconds() * rate
		p.refilled = now
	}
	p.tokens = min(p.tokens, most)
}

// account returns the ScaledJob's account, a new one if there is none.
func (p *Pool) account(key types.NamespacedName) *account {
	if a := p.accounts[key]; a != nil {
		return a
	}
	s := p.spaces[key.Namespace]
	if s == nil {
		s = &space{name: key.Namespace, place: -1, waiting: ordered[*account]{
			before: before, moved: func(a *account, place int) { a.place = place },
		}}
		p.spaces[key.Namespace] = s
	}
	s.accounts++
	a := &account{key: key, space: s, weight: 1, place: -1}
	p.accounts[key] = a
	return a
}

// use takes slots for the account, or gives them back when n is negative.
func (p *Pool) use(a *account, n int) {
	p.used += n
	a.space.used += n
}

// wait notes for how many Jobs the account waits.
func (p *Pool) wait(a *account, jobs, first int) {
	jobs = max(0, jobs)
	p.waiting += jobs - a.waiting
	if a.waiting == 0 && jobs > 0 {
		p.turn++
		a.turn = p.turn
	}
	a.waiting, a.first = jobs, min(max(0, first), jobs)
}

// settle brings the orders up to date after the account has changed, and forgets what holds nothing any more.
func (p *Pool) settle(a *account) {
	s := a.space
	s.waiting.put(a, a.place, a.waiting > 0)
	p.order(s)
	if a.alive == 0 && a.here == 0 && a.reserved == 0 && a.waiting == 0 && !a.uncounted && p.accounts[a.key] == a {
		delete(p.accounts, a.key)
		if s.accounts--; s.accounts == 0 {
			delete(p.spaces, s.name)
		}
	}
}

// order brings the order of the namespaces up to date after one of them has changed.
func (p *Pool) order(s *space) { p.ready.put(s, s.place, len(s.waiting.items) > 0 && p.spaceRoom(s)) }

// ordered is a heap whose elements know their place in it.
type ordered[T any] struct {
	items  []T
	before func(a, b T) bool
	moved  func(item T, place int)
}

// put makes the item be in the heap, at the right place, or not. place is where it is; -1 means nowhere.
func (o *ordered[T]) put(item T, place int, in bool) {
	switch {
	case in && place < 0:
		heap.Push(o, item)
	case in:
		heap.Fix(o, place)
	case place >= 0:
		heap.Remove(o, place)
	}
}

// Len implements heap.Interface.
func (o *ordered[T]) Len() int { return len(o.items) }

// Less implements heap.Interface.
func (o *ordered[T]) Less(i, j int) bool { return o.before(o.items[i], o.items[j]) }

// Swap implements heap.Interface.
func (o *ordered[T]) Swap(i, j int) {
	o.items[i], o.items[j] = o.items[j], o.items[i]
	o.moved(o.items[i], i)
	o.moved(o.items[j], j)
}

// Push implements heap.Interface.
func (o *ordered[T]) Push(item any) {
	o.items = append(o.items, item.(T)) // only put calls it
	o.moved(o.items[len(o.items)-1], len(o.items)-1)
}

// Pop implements heap.Interface.
func (o *ordered[T]) Pop() any {
	last := len(o.items) - 1
	item := o.items[last]
	o.items = slices.Delete(o.items, last, last+1)
	o.moved(item, -1)
	return item
}
