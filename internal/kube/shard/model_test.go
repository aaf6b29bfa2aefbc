package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The model's times, in ticks of half a second: they are in the proportion of the operator's.
const (
	renewEvery = 4
	giveUp     = 4  // waiting for the answer to a renewal
	fence      = 20 // of a Lease that is not renewed
	lastAnswer = 6  // from the begin of a write about a key to its end
	expiry     = 28 // of another replica's Lease
	latest     = 60 // that a request of which nobody waits for the answer may still take effect
)

// flaw is a way in which a protocol may be wrong.
type flaw string

const (
	sound          flaw = ""
	neverLooks     flaw = "takes what the view gives without reading the Leases"
	looksBefore    flaw = "reads the Leases before it publishes its view"
	neverDrains    flaw = "publishes while writes about what it loses are under way"
	neverFences    flaw = "writes however long ago it has renewed its Lease"
	blindDeletion  flaw = "deletes a Lease of another version than the one it has seen"
	blindRenewal   flaw = "renews its Lease whatever version there is, also none"
	forgetsRivals  flaw = "looks once and takes all"
	inheritsBefore flaw = "goes on with what it held before it lost its Lease"
)

// write is one about a key that is under way.
type write struct {
	key string
	end int
}

// seen is another replica's Lease as the watch has shown it.
type seen struct {
	stored
	at int
}

// node is one process with a replica.
type node struct {
	name      string
	exclusive bool
	replica   *Replica
	own       stored // as the server has answered last
	renewed   int    // when the last renewal that succeeded was begun
	begun     int    // when the one under way was begun
	next      int    // when the next one is due
	lease     *request
	publishes bool // the request writes a new view
	looking   *request
	taking    *Share // what is taken when its Jobs are known
	ready     int
	early     []Lease // what looksBefore has read
	writes    []write
	watched   map[string]seen
	paused    int // until when
	leaving   bool
	dead      bool
}

// world is all of it.
type world struct {
	flaw   flaw
	random *rand.Rand
	now    int
	server server
	way    []*request
	nodes  []*node
	born   int
	keys   []string
	faults bool
	trace  []string
}

func newWorld(flaw flaw, seed uint64) *world {
	w := &world{
		flaw: flaw, random: rand.New(rand.NewPCG(seed, 7)), server: server{leases: map[string]stored{}}, keys: keys(6), faults: true,
	}
	for range 3 {
		w.start(false)
	}
	return w
}

func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%4d ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) start(exclusive bool) {
	w.born++
	w.nodes = append(w.nodes, &node{
		name: fmt.Sprintf("r%d", w.born), exclusive: exclusive, watched: map[string]seen{},
	})
	w.tell("r%d starts", w.born)
}

// send puts a request on its way. With faults, it may take long.
func (w *world) send(effect func(*server) any) *request {
	most := 2
	if w.faults && w.random.IntN(8) == 0 {
		most = latest
	}
	r := &request{at: w.now + w.random.IntN(most), effect: effect}
	r.answer = r.at + w.random.IntN(3)
	w.way = append(w.way, r)
	return r
}

// may is the check before each write.
func (w *world) may(n *node, key string) bool {
	return n.replica != nil && n.replica.Share().Holds(key) && (w.flaw == neverFences || w.now-n.renewed < fence)
}

// others are the Leases that the watch has shown.
func (n *node) others() []Lease {
	var all []Lease
	for name, lease := range n.watched {
		if name != n.name {
			all = append(all, lease.Lease)
		}
	}
	slices.SortFunc(all, func(a, b Lease) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// lose ends a term.
func (n *node) lose() {
	n.replica, n.lease, n.looking, n.taking, n.publishes = nil, nil, nil, nil, false
}

// step lets a process do what it does at this time.
func (w *world) step(n *node) {
	n.writes = slices.DeleteFunc(n.writes, func(one write) bool { return one.end <= w.now })
	if n.dead || n.paused > w.now {
		return
	}
	if w.random.IntN(3) == 0 {
		w.watch(n)
	}
	if n.replica == nil {
		w.join(n)
		return
	}
	w.answered(n)
	if n.replica == nil {
		return
	}
	if w.now-n.renewed >= fence && w.flaw != neverFences || n.leaving && len(n.writes) == 0 {
		w.tell("%s ends its term", n.name)
		former := n.replica
		n.lose()
		if w.flaw == inheritsBefore && !n.leaving {
			n.replica = former
			n.renewed, n.begun = w.now, w.now
		}
		return
	}
	w.expire(n)
	if n.leaving {
		n.replica.share, n.looking, n.taking = nil, nil, nil
	} else {
		w.move(n)
	}
	if n.lease == nil && w.now >= n.next {
		w.put(n, Lease{n.name, n.own.View, n.exclusive}, false)
	}
	for range 2 {
		if key := w.keys[w.random.IntN(len(w.keys))]; w.may(n, key) {
			n.writes = append(n.writes, write{key, w.now + 1 + w.random.IntN(lastAnswer)})
		}
	}
}

// join ends the former term and begins another one.
func (w *world) join(n *node) {
	if len(n.writes) > 0 {
		return
	}
	if n.lease == nil {
		former, leaving := n.own, n.leaving
		former.version = 0
		n.begun = w.now
		n.lease = w.send(func(s *server) any {
			s.remove(former)
			if leaving {
				return gone{}
			}
			return s.create(Lease{Name: n.name, Exclusive: n.exclusive})
		})
		return
	}
	if !n.lease.done || n.lease.answer > w.now {
		return
	}
	switch created := n.lease.result.(type) {
	case stored:
		n.own, n.renewed, n.next = created, n.begun, w.now+renewEvery
		n.replica, n.lease = NewReplica(Lease{Name: n.name, Exclusive: n.exclusive}), nil
		w.tell("%s has joined", n.name)
	case gone:
		n.dead = true
		w.tell("%s has left", n.name)
	default:
		// The answer to an earlier attempt was lost; the Lease is this process's own.
		n.lease = nil
		n.own = w.server.leases[n.name]
	}
}

// put writes the own Lease.
func (w *world) put(n *node, lease Lease, publishes bool) {
	version := stored{lease, n.own.uid, n.own.version}
	n.begun, n.publishes = w.now, publishes
	n.lease = w.send(func(s *server) any { return s.update(version, w.flaw == blindRenewal) })
}

// answered takes the answers that are there.
func (w *world) answered(n *node) {
	if r := n.lease; r != nil && r.done && r.answer <= w.now {
		n.lease, n.next = nil, n.begun+renewEvery
		switch result := r.result.(type) {
		case stored:
			n.own, n.renewed = result, n.begun
			if n.publishes {
				w.tell("%s has published %v", n.name, n.own.View)
				n.replica.Published()
			}
		case conflict: // by a request of its own whose answer it has not waited for
			if now, exists := w.server.leases[n.name]; exists && now.uid == n.own.uid {
				n.own, n.next = now, w.now
			}
		case gone:
			w.tell("%s finds its Lease gone", n.name)
			n.lose()
			return
		}
	} else if r != nil && w.now-n.begun >= giveUp {
		n.lease, n.next = nil, w.now
	}
	if r := n.looking; r != nil && r.done && r.answer <= w.now {
		n.looking = nil
		n.taking, n.ready = n.replica.Seen(except(n.name, r.result)), w.now+w.random.IntN(4)
	} else if r != nil && r.at > w.now+10 {
		n.looking = nil
	}
}

func except(name string, result any) []Lease {
	var all []Lease
	for _, lease := range result.([]stored) {
		if lease.Name != name {
			all = append(all, lease.Lease)
		}
	}
	return all
}

// move is what the operator does with a Replica.
func (w *world) move(n *node) {
	if n.taking != nil {
		if w.now >= n.ready {
			n.replica.Take(n.taking)
			n.taking = nil
		}
		return
	}
	if n.looking != nil || n.publishes && n.lease != nil {
		return
	}
	switch n.replica.Next(n.others()) {
	case Publish:
		under := slices.ContainsFunc(n.writes, func(one write) bool { return !n.replica.Share().Holds(one.key) })
		if under && w.flaw != neverDrains || n.lease != nil {
			return
		}
		if w.flaw == looksBefore {
			n.early = except(n.name, w.server.list())
		}
		w.put(n, Lease{n.name, n.replica.Share().View(), n.exclusive}, true)
	case Look:
		switch w.flaw {
		case neverLooks:
			n.replica.Take(n.replica.Seen(nil))
		case looksBefore:
			n.replica.Take(n.replica.Seen(n.early))
			n.early = except(n.name, w.server.list())
		default:
			n.looking = w.send(func(s *server) any { return s.list() })
			if w.flaw == forgetsRivals {
				n.replica.Take(n.replica.Seen(nil))
			}
		}
	}
}

// watch shows a process what the server has now.
func (w *world) watch(n *node) {
	for name := range n.watched {
		if _, exists := w.server.leases[name]; !exists {
			delete(n.watched, name)
		}
	}
	for name, lease := range w.server.leases {
		if known, exists := n.watched[name]; !exists || known.version != lease.version {
			n.watched[name] = seen{lease, w.now}
		}
	}
}

// expire deletes the Leases that have not been renewed for long enough.
func (w *world) expire(n *node) {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range n.watched {
			if !yield(name) {
				return
			}
		}
	}) {
		lease := n.watched[name]
		if name == n.name || w.now-lease.at < expiry || w.now-lease.at > expiry && w.random.IntN(8) > 0 {
			continue
		}
		if w.flaw == blindDeletion {
			lease.version = 0
		}
		w.tell("%s declares %s dead", n.name, name)
		w.send(func(s *server) any { s.remove(lease.stored); return nil })
	}
}

// disturb has something happen.
func (w *world) disturb() {
	if w.random.IntN(12) > 0 || len(w.nodes) == 0 {
		return
	}
	n := w.nodes[w.random.IntN(len(w.nodes))]
	switch w.random.IntN(6) {
	case 0:
		w.tell("%s is killed", n.name)
		n.dead = true
	case 1:
		w.tell("%s is told to stop", n.name)
		n.leaving = true
	case 2, 3:
		n.paused = w.now + w.random.IntN(3*expiry)
		w.tell("%s is paused until %d", n.name, n.paused)
	case 4:
		if len(w.nodes) < 4 {
			w.start(w.random.IntN(6) == 0)
		}
	case 5: // nothing
	}
}

// tick lets time pass.
func (w *world) tick() {
	w.now++
	w.random.Shuffle(len(w.way), func(i, j int) { w.way[i], w.way[j] = w.way[j], w.way[i] })
	w.way = slices.DeleteFunc(w.way, func(r *request) bool {
		if r.at <= w.now {
			r.result, r.done = r.effect(&w.server), true
		}
		return r.done
	})
	if w.faults {
		w.disturb()
	}
	for _, i := range w.random.Perm(len(w.nodes)) {
		w.step(w.nodes[i])
	}
	w.nodes = slices.DeleteFunc(w.nodes, func(n *node) bool { return n.dead && len(n.writes) == 0 })
	for w.faults && len(w.nodes) < 2 {
		w.start(false)
	}
}

// actors are the replicas that may write about the key now, or have a write about it under way.
func (w *world) actors(key string) []string {
	var all []string
	for _, n := range w.nodes {
		if !n.dead && w.may(n, key) || slices.ContainsFunc(n.writes, func(one write) bool { return one.key == key }) {
			all = append(all, n.name)
		}
	}
	return all
}

// run lets things go wrong for a while, then lets everything settle. It returns what does not hold, and how often keys
// have changed hands.
func (w *world) run() (moves int, err error) {
	const disturbed, calm = 400, 300
	holder := map[string]string{}
	for w.now < disturbed+calm {
		if w.now == disturbed {
			w.faults = false
			for _, n := range w.nodes {
				n.paused = min(n.paused, w.now)
			}
			if !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.dead && !n.leaving }) {
				w.start(false)
			}
		}
		w.tick()
		for _, key := range w.keys {
			actors := w.actors(key)
			if len(actors) > 1 {
				return moves, fmt.Errorf("at %d, %v act on %s", w.now, actors, key)
			}
			if len(actors) == 1 && holder[key] != actors[0] {
				holder[key] = actors[0]
				moves++
			}
		}
	}
	for _, key := range w.keys {
		if len(w.actors(key)) != 1 {
			return moves, fmt.Errorf("in the end, %v act on %s", w.actors(key), key)
		}
	}
	if len(w.server.leases) != len(w.nodes) {
		return moves, fmt.Errorf("in the end, there are %d replicas and the Leases %v", len(w.nodes), w.server.list())
	}
	for _, n := range w.nodes {
		if !n.replica.Share().Settled() {
			return moves, fmt.Errorf("in the end, %s is not settled under %v", n.name, n.replica.Share().View())
		}
	}
	return moves, nil
}

// TestNeverTwo lets replicas be killed, paused, stopped and started at random, with requests that take effect long after
// anybody waits for them. No key ever has two replicas that act on it, and in the end each has one.
func TestNeverTwo(t *testing.T) {
	t.Parallel()
	const seeds = 250
	moves := 0
	for seed := range uint64(seeds) {
		w := newWorld(sound, seed)
		n, err := w.run()
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(w.trace, "\n"))
		}
		moves += n
	}
	if moves < 10*seeds {
		t.Errorf("keys have changed hands %d times in %d runs: too rarely to prove anything", moves, seeds)
	}
	t.Logf("%d runs, keys changed hands %d times", seeds, moves)
}

// TestFlawsAreFound makes sure that the model finds what would be wrong: without any one step of the protocol, two
// replicas act on one key.
func TestFlawsAreFound(t *testing.T) {
	t.Parallel()
	for _, flaw := range []flaw{
		neverLooks, looksBefore, neverDrains, neverFences, blindDeletion, blindRenewal, forgetsRivals, inheritsBefore,
	} {
		t.Run(string(flaw), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3000) {
				if _, err := newWorld(flaw, seed).run(); err != nil && strings.Contains(err.Error(), " act on ") &&
					!strings.Contains(err.Error(), "[]") {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("the model has not found it")
		})
	}
}
