package ration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/limits"
)

// The model's times, in ticks of half a second: they are in the proportion of the operator's.
const (
	renewEvery = 4
	fence      = 20  // of a Lease that is not renewed
	lastAnswer = 6   // from the begin of a request to create a Job until nobody waits for its answer
	settled    = 10  // that a request of which nobody waits for the answer may still take effect
	expiry     = 28  // of another replica's Lease
	giveUp     = 4   // waiting for the answer to a write of the table
	disturbed  = 400 // until when things go wrong
	finish     = 600 // until when Jobs end
	latest     = 60  // that a write of the table may still take effect
)

// flaw is a way in which a protocol may be wrong.
type flaw string

const (
	sound          flaw = ""
	raisesEarly    flaw = "uses what it has written before it is stored"
	lowersLate     flaw = "gives back in the table what it goes on using"
	forgetsSent    flaw = "takes a write for lost whose answer is"
	blindWrites    flaw = "writes whatever version there is"
	neverCounts    flaw = "believes the watch about what is left over"
	countsOnce     flaw = "reads what is left over only once"
	neverLeft      flaw = "does not count what is left over"
	trustsWatch    flaw = "believes the watch that a Lease is gone"
	neverQuiet     flaw = "removes an entry as soon as its Lease is gone"
	neverFences    flaw = "creates however long ago it has renewed its Lease"
	sameTerm       flaw = "keeps its term when it joins anew"
	likesStrangers flaw = "does not care for those that are not in the table"
)

// job is one Job that is alive.
type job struct {
	id        int
	term      string
	namespace string
}

// request is one that is on its way to the server, or whose answer is on its way back.
type request struct {
	at, answer int
	effect     func() any
	done       bool
	result     any
}

// creation is a Job that is being created, as the one who creates it knows.
type creation struct {
	job
	*request
	until int // when its fate is known at the latest
}

// node is one process with a replica.
type node struct {
	name    string
	term    string // empty while it has none
	replica *Replica
	census  *Census
	renewed int

	table    Table // as known
	share    Share
	writing  *request
	written  Step
	begun    int
	reading  *request
	listing  *request
	asking   []string
	counting *request
	counts   string // the epoch of counting
	counted  string
	leases   []string // as the watch has shown them
	jobs     map[int]job
	creating []*creation
	wants    map[string]int // for how many more Jobs there is work

	paused  int
	leaving bool
	dead    bool
}

// world is all of it.
type world struct {
	flaw   flaw
	random *rand.Rand
	limits limits.Limits
	now    int

	table    Table
	made     int
	versions int
	leases   map[string]int // when they were last renewed
	jobs     map[int]job
	ids      int
	way      []*request
	nodes    []*node
	born     int
	terms    int
	spaces   []string
	faults   bool
	endless  bool
	most     int // Jobs at once
	last     int // the same, in the end
	trace    []string
}

func newWorld(flaw flaw, seed uint64) *world {
	random := rand.New(rand.NewPCG(seed, 11))
	w := &world{
		flaw: flaw, random: random, leases: map[string]int{}, jobs: map[int]job{}, faults: true, spaces: []string{"a", "b", "c"},
	}
	switch random.IntN(3) {
	case 0:
		w.limits = limits.Limits{Jobs: 1 + random.IntN(6), JobsPerSecond: 2}
	case 1:
		w.limits = limits.Limits{JobsPerNamespace: 1 + random.IntN(3)}
	case 2:
		w.limits = limits.Limits{Jobs: 2 + random.IntN(6), JobsPerNamespace: 1 + random.IntN(3)}
	}
	for range 2 + random.IntN(2) {
		w.start()
	}
	return w
}

func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%4d ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) time() time.Time { return time.Unix(0, 0).Add(time.Duration(w.now) * time.Second / 2) }

func (w *world) start() {
	w.born++
	w.nodes = append(w.nodes, &node{name: fmt.Sprintf("r%d", w.born), jobs: map[int]job{}, wants: map[string]int{}})
	w.tell("r%d starts", w.born)
}

// send puts a request on its way. With faults, it may take long.
func (w *world) send(long int, effect func() any) *request {
	most := 2
	if w.faults && w.random.IntN(4) == 0 {
		most = long
		if long == latest && w.random.IntN(4) > 0 { // mostly soon after nobody waits for it any more
			most = 3 * giveUp
		}
	}
	r := &request{at: w.now + w.random.IntN(most), effect: effect}
	r.answer = r.at + w.random.IntN(3)
	w.way = append(w.way, r)
	return r
}

func (r *request) ready(now int) bool { return r != nil && r.done && r.answer <= now }

// may is the check before each Job.
func (w *world) may(n *node) bool {
	return n.term != "" && (w.flaw == neverFences || w.now-n.renewed < fence)
}

// step lets a process do what it does at this time.
func (w *world) step(n *node) {
	if n.dead || n.paused > w.now {
		return
	}
	w.created(n)
	if n.term == "" {
		w.join(n)
		return
	}
	if n.leaving || w.now-n.renewed >= fence && w.flaw != neverFences {
		w.end(n)
		return
	}
	// Renewals are not what this model is about: they either take effect at once or not at all.
	if _, exists := w.leases[n.term]; exists && w.now-n.renewed >= renewEvery && (!w.faults || w.random.IntN(3) > 0) {
		w.leases[n.term], n.renewed = w.now, w.now
	}
	for _, term := range slices.Sorted(maps.Keys(w.leases)) {
		if term != n.term && w.now-w.leases[term] >= expiry {
			delete(w.leases, term)
			w.tell("%s declares %s dead", n.name, term)
		}
	}
	if w.random.IntN(3) == 0 {
		n.leases = slices.Sorted(maps.Keys(w.leases))
		n.take(w.table)
	}
	if w.random.IntN(10) == 0 {
		n.jobs = maps.Clone(w.jobs)
	}
	w.round(n)
	w.create(n)
}

// take takes a table that is newer than the one that is known.
func (n *node) take(t Table) {
	if number(t.Version) > number(n.table.Version) {
		n.table = t
	}
}

func number(version string) (n int) {
	_, _ = fmt.Sscan(version, &n)
	return n
}

// join begins a term.
func (w *world) join(n *node) {
	if slices.ContainsFunc(n.creating, func(c *creation) bool { return w.now < c.until-settled }) {
		return // an answer is waited for
	}
	if n.leaving {
		n.dead = true
		return
	}
	w.terms++
	term := fmt.Sprintf("%s-%d", n.name, w.terms)
	if w.flaw == sameTerm {
		term = n.name
	}
	*n = node{
		name: n.name, term: term, replica: NewReplica(w.limits, n.name, term), census: NewCensus(term, settled*time.Second/2),
		renewed: w.now, jobs: map[int]job{}, wants: n.wants, table: Table{Version: "-1"},
		share: Share{limits: w.limits},
	}
	w.leases[term] = w.now
	n.reading = w.send(giveUp, func() any { n.leases = slices.Sorted(maps.Keys(w.leases)); return w.table })
	w.tell("%s has joined as %s", n.name, term)
}

// end ends a term.
func (w *world) end(n *node) {
	w.tell("%s ends its term", n.name)
	waits := slices.ContainsFunc(n.creating, func(c *creation) bool { return !c.ready(w.now) })
	if n.leaving && !waits && n.writing == nil && w.random.IntN(2) == 0 {
		without := w.table.Without(n.term)
		w.store(w.table.Version, without)
	}
	delete(w.leases, n.term)
	n.term = ""
}

// store replaces the table by compare and swap.
func (w *world) store(version string, t Table) any {
	if w.table.Version != version && w.flaw != blindWrites {
		return nil
	}
	w.versions++
	if t.Made = w.table.Made; t.Made == "" {
		w.made++
		t.Made = fmt.Sprint(w.made)
	}
	t.Version = fmt.Sprint(w.versions)
	w.table = t
	return t
}

// round is what the operator does again and again.
func (w *world) round(n *node) {
	switch {
	case n.writing.ready(w.now):
		if t, stored := n.writing.result.(Table); stored {
			w.tell("%s has stored %s: %+v", n.name, t.Version, t.Entries[n.term])
			n.take(t)
			n.replica.Stored(n.written, t.Version)
			n.share = n.written.Then
			n.writing = nil
			return // what it has got it uses before it looks anew
		}
		n.writing = nil
		n.reading = w.send(giveUp, func() any { return w.table })
		return
	case n.writing != nil && w.now-n.begun > giveUp:
		n.writing = nil
		n.reading = w.send(giveUp, func() any { return w.table })
		return
	case n.reading.ready(w.now):
		n.take(n.reading.result.(Table))
		n.reading = nil
	case n.reading != nil:
		return
	}
	if n.listing.ready(w.now) {
		for _, term := range n.asking {
			if !slices.Contains(n.listing.result.([]string), term) {
				n.census.Missing(term, w.time())
			}
		}
		n.listing = nil
	}
	if n.counting.ready(w.now) {
		for id, j := range n.counting.result.(map[int]job) {
			if j.term != n.term { // its own it knows
				n.jobs[id] = j
			}
		}
		n.counted, n.counting = n.counts, nil
	}
	doubtful := n.census.Look(n.table, n.leases, w.time())
	switch {
	case w.flaw == trustsWatch:
		for _, term := range doubtful {
			n.census.missing[term] = time.Time{}
		}
	case len(doubtful) > 0 && n.listing == nil:
		n.asking = doubtful
		n.listing = w.send(giveUp, func() any { return slices.Sorted(maps.Keys(w.leases)) })
	}
	if w.flaw == neverQuiet {
		for term := range n.census.missing {
			n.census.missing[term] = time.Time{}
		}
	}
	epoch := n.census.Epoch(n.table)
	if n.counted != epoch && n.counting == nil {
		n.counts = epoch
		n.counting = w.send(giveUp, func() any { return maps.Clone(w.jobs) })
	}
	state := State{Usage: w.usage(n), Complete: n.census.Complete(), Gone: n.census.Gone(w.time())}
	if w.flaw == likesStrangers {
		state.Complete = true
	}
	switch {
	case w.flaw == neverLeft:
		state.Left = Amounts{}
	case n.counted == epoch || w.flaw == neverCounts || w.flaw == countsOnce && n.counted != "":
		state.Left = Amounts{}
		for _, j := range n.jobs {
			if _, exists := n.table.Entries[j.term]; !exists && j.term != n.term {
				state.Left[Jobs]++
				state.Left[j.namespace]++
			}
		}
	}
	if n.writing != nil {
		state.Gone = nil
	}
	step := n.replica.Next(n.table, state)
	if w.flaw != lowersLate || n.writing == nil && step.Table == nil {
		n.share = step.Now
	}
	if step.Table == nil || n.writing != nil || w.random.IntN(2) == 0 {
		return
	}
	if w.flaw != forgetsSent {
		n.replica.Sent(step)
	}
	if w.flaw == raisesEarly {
		n.share = step.Then
	}
	version := n.table.Version
	n.written, n.begun = step, w.now
	n.writing = w.send(latest, func() any { return w.store(version, *step.Table) })
}

// used are the Jobs that count here, by namespace and for all.
func (n *node) used() Amounts {
	used := Amounts{}
	for _, j := range n.jobs {
		if j.term == n.term && !slices.ContainsFunc(n.creating, func(c *creation) bool { return c.id == j.id }) {
			used[Jobs]++
			used[j.namespace]++
		}
	}
	for _, c := range n.creating {
		if c.term == n.term {
			used[Jobs]++
			used[c.namespace]++
		}
	}
	return used
}

func (w *world) usage(n *node) limits.Usage {
	used := n.used()
	u := limits.Usage{Jobs: used[Jobs], Namespaces: map[string]int{}, Wants: map[string][]limits.Want{}}
	for i, namespace := range w.spaces {
		wants := used[namespace] + n.wants[namespace]
		if w.endless {
			wants = 1000
		}
		if wants == 0 {
			continue
		}
		name := ""
		if w.limits.JobsPerNamespace > 0 {
			name = namespace
			u.Namespaces[name] = used[namespace]
		}
		u.Wants[name] = append(u.Wants[name], limits.Want{
			Weight: float64(1 + 100*i), Jobs: min(wants, w.limits.Alive(), w.limits.AliveIn(name)), Waiting: min(2, n.wants[namespace]),
		})
	}
	return u
}

// create asks for Jobs, as far as the share goes.
func (w *world) create(n *node) {
	for _, i := range w.random.Perm(len(w.spaces)) {
		namespace, used := w.spaces[i], n.used()
		if n.wants[namespace] == 0 && !w.endless || !w.may(n) || used[Jobs] >= n.share.Alive() ||
			used[namespace] >= n.share.AliveIn(namespace) {
			continue
		}
		n.wants[namespace] = max(0, n.wants[namespace]-1)
		w.ids++
		c := &creation{job: job{w.ids, n.term, namespace}, until: w.now + lastAnswer + settled}
		c.request = w.send(lastAnswer+settled, func() any { w.jobs[c.id] = c.job; return nil })
		n.creating = append(n.creating, c)
	}
}

// created takes answers: a Job whose answer is there is known, one whose answer is lost is asked for when its fate is
// certain.
func (w *world) created(n *node) {
	n.creating = slices.DeleteFunc(n.creating, func(c *creation) bool {
		if !c.ready(w.now) && w.now < c.until {
			return false
		}
		if exists, alive := w.jobs[c.id]; alive {
			n.jobs[c.id] = exists
		}
		return true
	})
}

// disturb has something happen.
func (w *world) disturb() {
	n := w.nodes[w.random.IntN(len(w.nodes))]
	if w.random.IntN(4) == 0 {
		n.wants[w.spaces[w.random.IntN(len(w.spaces))]] = w.random.IntN(15)
	}
	if w.random.IntN(10) > 0 {
		return
	}
	switch w.random.IntN(9) {
	case 0, 8:
		w.tell("%s is killed", n.name)
		n.dead = true
	case 1:
		w.tell("%s is told to stop", n.name)
		n.leaving = true
	case 2, 3:
		n.paused = w.now + w.random.IntN(3*expiry)
		w.tell("%s is paused until %d", n.name, n.paused)
	case 4, 5:
		if len(w.nodes) < 4 {
			w.start()
		}
	case 6:
		if w.random.IntN(4) == 0 {
			w.tell("somebody deletes the table")
			w.versions++
			w.table = Table{Version: fmt.Sprint(w.versions)}
		}
	case 7: // nothing
	}
}

// tick lets time pass.
func (w *world) tick() {
	w.now++
	w.random.Shuffle(len(w.way), func(i, j int) { w.way[i], w.way[j] = w.way[j], w.way[i] })
	w.way = slices.DeleteFunc(w.way, func(r *request) bool {
		if r.at <= w.now {
			r.result, r.done = r.effect(), true
		}
		return r.done
	})
	for _, id := range slices.Sorted(maps.Keys(w.jobs)) {
		if w.now < finish && w.random.IntN(60) == 0 {
			delete(w.jobs, id)
		}
	}
	if w.faults {
		w.disturb()
	}
	for _, i := range w.random.Perm(len(w.nodes)) {
		w.step(w.nodes[i])
	}
	w.nodes = slices.DeleteFunc(w.nodes, func(n *node) bool { return n.dead })
	for w.faults && len(w.nodes) < 2 {
		w.start()
	}
}

// alive counts the Jobs.
func (w *world) alive() Amounts {
	alive := Amounts{}
	for _, j := range w.jobs {
		alive[Jobs]++
		alive[j.namespace]++
	}
	return alive
}

// check returns which limit is not kept.
func (w *world) check() error {
	rate := 0
	for what, n := range w.alive() {
		if limit, exists := limitOf(w.limits, what); exists && n > limit {
			return fmt.Errorf("at %d, %d are alive of %s, the limit is %d", w.now, n, what, limit)
		}
	}
	for _, n := range w.nodes {
		if w.may(n) && w.limits.JobsPerSecond > 0 {
			rate += n.share.of(Rate)
		}
	}
	if rate > wholeRate {
		return fmt.Errorf("at %d, the rates are %d together", w.now, rate)
	}
	return nil
}

// run lets things go wrong for a while, then lets everything settle. It returns what does not hold.
func (w *world) run() error {
	if err := w.disturbed(); err != nil {
		return err
	}
	w.faults, w.endless = false, true
	for _, n := range w.nodes {
		n.paused = min(n.paused, w.now)
	}
	if !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.dead && !n.leaving }) {
		w.start()
	}
	for w.now < finish+80 {
		w.tick()
		if err := w.check(); err != nil {
			return err
		}
		if w.now > disturbed+100 {
			w.last = max(w.last, len(w.jobs))
		}
	}
	return w.settledWell()
}

// disturbed lets things go wrong. It returns which limit was not kept.
func (w *world) disturbed() error {
	for w.now < disturbed {
		w.tick()
		if err := w.check(); err != nil {
			return err
		}
		w.most = max(w.most, len(w.jobs))
	}
	return nil
}

// settledWell returns what is not as it should be when nothing happens any more: the limits are used up, and nobody
// writes.
func (w *world) settledWell() error {
	want := w.limits.Alive()
	if each := w.limits.JobsPerNamespace; each > 0 {
		want = min(want, len(w.spaces)*each)
	}
	// Where there are both limits, what is free may be due to one who cannot have it before another Job has ended.
	if both := w.limits.Jobs > 0 && w.limits.JobsPerNamespace > 0; w.last < want-1 || !both && len(w.jobs) != want {
		return fmt.Errorf("in the end, %d Jobs are alive, there may be %d: %+v", len(w.jobs), want, w.table.Entries)
	}
	if len(w.table.Entries) != len(w.nodes) {
		return fmt.Errorf("in the end, there are %d replicas and the entries %v", len(w.nodes), w.table.Entries)
	}
	if version := w.table.Version; len(w.nodes) > 0 {
		for range 50 {
			w.tick()
		}
		if w.table.Version != version {
			return fmt.Errorf("in the end, the table is still written: %+v", w.table.Entries)
		}
	}
	return nil
}

// TestNeverMore lets replicas be killed, paused, stopped and started at random, with requests that take effect long
// after anybody waits for them. Never are there more Jobs than the limits allow, and in the end the limits are used
// up.
func TestNeverMore(t *testing.T) {
	t.Parallel()
	const seeds = 30
	most := 0
	for seed := range uint64(seeds) {
		w := newWorld(sound, seed)
		if err := w.run(); err != nil {
			t.Fatalf("seed %d, %+v: %v\n%s", seed, w.limits, err, strings.Join(w.trace, "\n"))
		}
		most += w.most
	}
	t.Logf("%d runs, %d Jobs at once on average", seeds, most/seeds)
}

// TestFlawsAreFound makes sure that the model finds what would be wrong: without any one step of the protocol, there
// are more Jobs than the limits allow.
func TestFlawsAreFound(t *testing.T) {
	t.Parallel()
	// Where a flaw rarely shows, the search begins near where it does.
	for flaw, first := range map[flaw]uint64{
		raisesEarly: 0, lowersLate: 0, forgetsSent: 0, blindWrites: 0, neverCounts: 50, countsOnce: 50, neverLeft: 0,
		trustsWatch: 110, neverQuiet: 170, neverFences: 0, sameTerm: 0, likesStrangers: 0,
	} {
		t.Run(string(flaw), func(t *testing.T) {
			t.Parallel()
			for seed := first; seed < first+3000; seed++ {
				if err := newWorld(flaw, seed).disturbed(); err != nil {
					t.Logf("%s, seed %d: %v", flaw, seed, err)
					return
				}
			}
			t.Error("the model has not found it")
		})
	}
}
