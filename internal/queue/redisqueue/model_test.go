package redisqueue

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
)

// model is what the items of a list are to do, in plain words of Go: one slice a state.
type model struct {
	now, clock, count int64
	ready             []string
	memories          map[string][]*modelItem // of what is ready again, by its bytes
	delayed, due      []*modelItem            // by at, then id
	claimed, dead     []*modelItem            // claimed by id, dead by at, then id
	unique            map[string]string
	done              int64
	buried, dropped   int64
}

type modelItem struct {
	id       string
	parts    []string
	attempt  int
	failures int
	total    int
	first    int64
	owner    string
	leased   bool
	at       int64 // until when it is delayed, put off or leased; since when it is dead
	attempts int
	drop     bool
	known    bool // its id is
	errors   []string
}

func newModel() *model {
	return &model{memories: map[string][]*modelItem{}, unique: map[string]string{}, clock: -1}
}

func (m *model) id() string {
	if m.now > m.clock {
		m.clock, m.count = m.now, 0
	} else {
		m.count++
	}
	return fmt.Sprintf("%011x%05x", m.clock, m.count)
}

func sorted(items []*modelItem) []*modelItem {
	slices.SortFunc(items, func(a, b *modelItem) int { return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.id, b.id)) })
	return items
}

// toHead puts items to the head of the list in their order.
func (m *model) toHead(items ...*modelItem) {
	for _, item := range slices.Backward(items) {
		m.ready = slices.Concat(item.parts, m.ready)
		m.remember(item)
	}
}

func (m *model) toTail(item *modelItem) {
	m.ready = append(m.ready, item.parts...)
	m.remember(item)
}

func (m *model) remember(item *modelItem) {
	if item.failures == 0 && item.total == 0 && !item.known {
		return
	}
	for _, part := range item.parts {
		memory := *item
		if len(item.parts) > 1 {
			memory.id = ""
		}
		memory.owner, memory.leased = "", false
		m.memories[part] = append(m.memories[part], &memory)
	}
}

func (m *model) pop() (string, *modelItem) {
	if len(m.ready) == 0 {
		clear(m.memories)
		return "", nil
	}
	head := m.ready[0]
	m.ready = m.ready[1:]
	known := m.memories[head]
	if len(known) == 0 {
		return head, nil
	}
	if m.memories[head] = known[1:]; len(known) == 1 {
		delete(m.memories, head)
	}
	return head, known[0]
}

// passed takes the items out whose time has come.
func (m *model) passed(items *[]*modelItem, filter func(*modelItem) bool) (passed []*modelItem) {
	*items = slices.DeleteFunc(slices.Clone(*items), func(item *modelItem) bool {
		if filter(item) && item.at <= m.now {
			passed = append(passed, item)
			return true
		}
		return false
	})
	return passed
}

func (item *modelItem) fail(reason string) {
	item.failures++
	item.total++
	if len(item.errors) == 2 {
		item.errors = item.errors[:1:1]
	}
	item.errors = append(slices.Clip(item.errors), reason)
}

func (m *model) sweep() (returned, buried int) {
	all := func(*modelItem) bool { return true }
	for _, item := range m.passed(&m.delayed, all) {
		m.toTail(item)
		returned++
	}
	waited := m.passed(&m.due, all)
	m.toHead(waited...)
	var back []*modelItem
	lost := m.passed(&m.claimed, func(item *modelItem) bool { return item.leased })
	for _, item := range slices.Backward(lost) { // as they are buried
		item.fail("LeaseLost")
		switch {
		case item.attempts == 0 || item.failures < item.attempts:
			back = append(back, item)
		case item.drop:
			m.dropped++
			buried++
		default:
			m.bury(item)
			buried++
		}
	}
	slices.Reverse(back)
	m.toHead(back...)
	return returned + len(waited) + len(back), buried
}

func (m *model) bury(item *modelItem) {
	item.owner, item.leased, item.at = "", false, m.now
	m.dead = sorted(append(m.dead, item))
	m.buried++
}

func (m *model) claim(o queue.ClaimOptions) (claims []*modelItem) {
	m.sweep()
	most := o.Most
	if o.Holds > 0 {
		held := 0
		for _, item := range m.claimed {
			if item.owner == o.Owner {
				held++
			}
		}
		most = min(most, o.Holds-held)
	}
	var size int64
	enough := func() bool { return o.Bytes > 0 && size >= o.Bytes }
	for len(claims) < most && !enough() {
		if len(m.ready) == 0 {
			m.pop()
			break
		}
		item := &modelItem{first: m.now}
		element, memory := m.pop()
		size += int64(len(element))
		if memory != nil {
			item = memory
		}
		item.parts = []string{element}
		for len(item.parts) < max(1, o.Parts) && !enough() {
			if len(m.ready) == 0 {
				m.pop()
				break
			}
			another, its := m.pop()
			size += int64(len(another))
			item.parts = append(item.parts, another)
			if its == nil {
				continue
			}
			item.attempt, item.failures = max(item.attempt, its.attempt), max(item.failures, its.failures)
			item.first = min(item.first, its.first)
			if its.total != 0 {
				item.total = its.total
			}
			item.errors = mergeErrors(item.errors, its.errors)
		}
		if item.id == "" || len(item.parts) > 1 {
			item.id = m.id()
		}
		item.attempt++
		item.owner, item.attempts, item.drop = o.Owner, 0, false
		if item.leased = o.Lease > 0; item.leased {
			item.at, item.attempts, item.drop = m.now+o.Lease.Milliseconds(), o.Attempts, o.Drop
		}
		claims = append(claims, item)
	}
	m.claimed = append(m.claimed, claims...)
	slices.SortFunc(m.claimed, func(a, b *modelItem) int { return strings.Compare(a.id, b.id) })
	return claims
}

// mergeErrors keeps the first of the one and the last of the other.
func mergeErrors(a, b []string) []string {
	switch {
	case len(b) == 0:
		return a
	case len(a) == 0:
		return b
	}
	return []string{a[0], b[len(b)-1]}
}

// take takes a claim out of those that are held; nil when it is not held.
func (m *model) take(id string, attempt int) *modelItem {
	i := slices.IndexFunc(m.claimed, func(item *modelItem) bool { return item.id == id && item.attempt == attempt })
	if i < 0 {
		return nil
	}
	item := m.claimed[i]
	m.claimed = slices.Delete(slices.Clone(m.claimed), i, i+1)
	return item
}

func (m *model) settle(settlements []queue.Settlement) (held []bool) {
	var back []*modelItem
	for _, s := range settlements {
		item := m.take(s.ID, s.Attempt)
		held = append(held, item != nil)
		if item == nil {
			continue
		}
		item.owner, item.leased = "", false
		if s.Failure != nil {
			item.fail(s.Failure.Reason)
		}
		switch s.Verb {
		case queue.Ack:
			m.done++
		case queue.PutOff:
			item.at, item.known = m.now+s.Wait.Milliseconds(), true
			m.due = sorted(append(m.due, item))
		case queue.Bury:
			m.bury(item)
		case queue.Drop:
			m.dropped++
		case queue.GiveBack:
			back = append(back, item)
		}
	}
	slices.SortFunc(back, func(a, b *modelItem) int { return strings.Compare(a.id, b.id) })
	m.toHead(back...)
	return held
}

func (m *model) release(owner string) int {
	var back []*modelItem
	m.claimed = slices.DeleteFunc(slices.Clone(m.claimed), func(item *modelItem) bool {
		if owner == "" || item.owner == owner {
			item.owner, item.leased = "", false
			back = append(back, item)
			return true
		}
		return false
	})
	m.toHead(back...)
	return len(back)
}

// steps is how many steps the model test takes.
func steps(t *testing.T) int {
	t.Helper()
	text := os.Getenv("QUEUE_MODEL_STEPS")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("QUEUE_MODEL_STEPS: %v", err)
	}
	return n
}

// TestModel does the same random steps with Redis and with the model: producers, old runners that just pop, several
// owners that claim, settle, crash and forget, and a clock that jumps. After each step both must say the same.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("QUEUE_MODEL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("QUEUE_MODEL_SEED=%d", seed)
	q, server := start(t, "model")
	w := &walk{t: t, q: q, m: newModel(), client: server.Client(), rng: rand.New(rand.NewPCG(seed, 0)), counts: map[string]int{}}
	w.m.now = 1_700_000_000_000
	q.now = func() time.Time { return time.UnixMilli(w.m.now) }
	for w.step = range steps(t) {
		w.next()
		if w.step%100 == 0 {
			w.compareAll()
		}
		if t.Failed() {
			t.Fatalf("step %d, after: %s", w.step, strings.Join(w.log, "; "))
		}
	}
	w.compareAll()
	t.Logf("steps: %v", w.counts)
	for _, kind := range []string{"claim", "leased", "ack", "retry", "bury", "drop", "release", "stale", "lost", "revive", "refused"} {
		if w.counts[kind] == 0 {
			t.Errorf("the steps had no %s", kind)
		}
	}
}

// walk is one run of the model test.
type walk struct {
	t      *testing.T
	q      *Queue
	m      *model
	client rueidis.Client
	rng    *rand.Rand
	step   int
	pushed int
	log    []string
	counts map[string]int
}

func (w *walk) note(kind, format string, args ...any) {
	w.counts[kind]++
	w.log = append(w.log, fmt.Sprintf("%d %s %s", w.m.now, kind, fmt.Sprintf(format, args...)))
	w.log = w.log[max(0, len(w.log)-12):]
}

func (w *walk) equal(what string, got, want any) {
	w.t.Helper()
	if !reflect.DeepEqual(got, want) {
		w.t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

func (w *walk) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// item returns what to push: mostly new, sometimes the same as others.
func (w *walk) item() string {
	w.pushed++
	if w.rng.IntN(10) == 0 {
		return "same\x00" + strconv.Itoa(w.rng.IntN(3))
	}
	return strings.Repeat("i", w.rng.IntN(30)) + strconv.Itoa(w.pushed)
}

func (w *walk) owner() string { return "shop/owner" + strconv.Itoa(w.rng.IntN(3)) }

func (w *walk) next() {
	ctx, m, q, r := w.t.Context(), w.m, w.q, w.rng
	switch n := r.IntN(100); {
	case n < 20: // time passes
		m.now += r.Int64N(2000)
	case n < 21: // or jumps
		m.now += r.Int64N(200_000) - 100_000
		w.note("jump", "")
	case n < 36:
		if len(m.ready) > 200 {
			return
		}
		items := make([]string, 1+r.IntN(4))
		for i := range items {
			items[i] = w.item()
		}
		w.note("push", "%q", items)
		m.ready = append(m.ready, items...)
		w.must(w.client.Do(ctx, w.client.B().Rpush().Key(q.list).Element(items...).Build()).Error())
	case n < 38: // an old runner
		w.note("pop", "")
		got, err := w.client.Do(ctx, w.client.B().Lpop().Key(q.list).Build()).ToString()
		if len(m.ready) == 0 {
			w.equal("popped", rueidis.IsRedisNil(err), true)
			return
		}
		w.must(err)
		w.equal("popped", got, m.ready[0])
		m.ready = m.ready[1:]
	case n < 42:
		w.push()
	case n < 62:
		w.claim()
	case n < 90:
		w.settle()
	case n < 93:
		w.extend()
	case n < 95:
		w.note("sweep", "")
		swept, err := q.Sweep(ctx)
		w.must(err)
		returned, buried := m.sweep()
		w.equal("swept", []int{swept.Returned, swept.Buried}, []int{returned, buried})
		w.equal("next", swept.Next, m.next())
	case n < 96:
		owner := w.owner()
		if r.IntN(4) == 0 {
			owner = ""
		}
		w.note("releaseAll", "%s", owner)
		released, err := q.Release(ctx, owner)
		w.must(err)
		w.equal("released", released, m.release(owner))
	case n < 97: // a crash: what the owner knows of its claims comes from the queue
		owner := w.owner()
		w.note("crash", "%s", owner)
		claims, err := q.Claims(ctx, owner)
		w.must(err)
		var want []*modelItem
		for _, item := range m.claimed {
			if item.owner == owner {
				bare := *item
				bare.parts = nil
				want = append(want, &bare)
			}
		}
		w.equalClaims(claims, want)
	default:
		w.dead()
	}
}

// soonest is when something is due next; -1 when nothing is.
func (m *model) soonest() int64 {
	next := int64(-1)
	see := func(at int64) {
		if next < 0 || at < next {
			next = at
		}
	}
	for _, item := range slices.Concat(m.delayed, m.due) {
		see(item.at)
	}
	for _, item := range m.claimed {
		if item.leased {
			see(item.at)
		}
	}
	return next
}

func (m *model) next() time.Duration {
	at := m.soonest()
	if at < 0 {
		return -1
	}
	return time.Duration(max(0, at-m.now)) * time.Millisecond
}

func (w *walk) push() {
	o := queue.PushOptions{}
	items := []string{w.item(), w.item()}
	if w.rng.IntN(2) == 0 {
		items = items[:1]
		o.Unique, o.UniqueFor = "key"+strconv.Itoa(w.rng.IntN(20)), time.Hour // longer than the test takes, by the server's clock
	}
	switch w.rng.IntN(3) {
	case 0:
		o.Delay = time.Duration(1+w.rng.IntN(5000)) * time.Millisecond
	case 1:
		o.At = time.UnixMilli(w.m.now + w.rng.Int64N(5000) - 1000)
	}
	w.note("pushWith", "%+v %q", o, items)
	raw := make([][]byte, len(items))
	for i, item := range items {
		raw[i] = []byte(item)
	}
	pushed, err := w.q.Push(w.t.Context(), o, raw...)
	w.must(err)
	m := w.m
	want := queue.Pushed{}
	if holder := m.unique[o.Unique]; o.Unique != "" && holder != "" {
		w.counts["refused"]++
		want.HeldBy = holder
	} else {
		at := m.now + o.Delay.Milliseconds()
		if !o.At.IsZero() {
			at = o.At.UnixMilli()
		}
		for _, item := range items {
			i := &modelItem{id: m.id(), parts: []string{item}, first: m.now, known: true, at: at}
			want.IDs = append(want.IDs, i.id)
			if at > m.now {
				m.delayed = sorted(append(m.delayed, i))
			} else {
				m.toTail(i)
			}
		}
		if o.Unique != "" {
			m.unique[o.Unique] = want.IDs[0]
		}
	}
	want.Length = int64(len(m.ready))
	w.equal("pushed", pushed, want)
}

func (w *walk) claim() {
	o := queue.ClaimOptions{Owner: w.owner(), Most: w.rng.IntN(6)}
	if w.rng.IntN(3) == 0 {
		o.Holds = 1 + w.rng.IntN(8)
	}
	if w.rng.IntN(4) == 0 {
		o.Parts = 1 + w.rng.IntN(3)
	}
	if w.rng.IntN(4) == 0 {
		o.Bytes = w.rng.Int64N(60)
	}
	kind := "claim"
	if w.rng.IntN(2) == 0 {
		kind = "leased"
		o.Lease = time.Duration(500+w.rng.IntN(4000)) * time.Millisecond
		o.Attempts = w.rng.IntN(4)
		o.Drop = w.rng.IntN(3) == 0
	}
	w.note(kind, "%+v", o)
	buried := w.m.buried
	claimed, err := w.q.Claim(w.t.Context(), o)
	w.must(err)
	want := w.m.claim(o)
	if w.m.buried > buried {
		w.counts["lost"]++
	}
	w.equalClaims(claimed.Claims, want)
	w.equal("ready", claimed.Ready, int64(len(w.m.ready)))
	w.equal("next", claimed.Next, w.m.next())
}

func (w *walk) equalClaims(got []queue.Claim, want []*modelItem) {
	w.t.Helper()
	w.equal("number of claims", len(got), len(want))
	for i := range min(len(got), len(want)) {
		w.equalClaim(got[i], want[i])
	}
}

func (w *walk) equalClaim(got queue.Claim, want *modelItem) {
	w.t.Helper()
	var parts []string
	for _, part := range got.Parts {
		parts = append(parts, string(part))
	}
	w.equal("claim",
		[]any{got.ID, parts, got.Attempt, got.Failures, got.Owner, got.First.UnixMilli()},
		[]any{want.id, want.parts, want.attempt, want.failures, want.owner, want.first})
}

var verbs = []queue.Verb{queue.Ack, queue.Ack, queue.Ack, queue.PutOff, queue.PutOff, queue.Bury, queue.Drop, queue.GiveBack}

func (w *walk) settle() {
	var settlements []queue.Settlement
	for range 1 + w.rng.IntN(4) {
		s := queue.Settlement{ID: "none", Attempt: 1, Verb: verbs[w.rng.IntN(len(verbs))]}
		if len(w.m.claimed) > 0 && w.rng.IntN(20) > 0 {
			item := w.m.claimed[w.rng.IntN(len(w.m.claimed))]
			s.ID, s.Attempt = item.id, item.attempt
		}
		if w.rng.IntN(20) == 0 {
			s.Attempt--
		}
		if s.Verb == queue.PutOff {
			s.Wait = time.Duration(w.rng.IntN(4000)) * time.Millisecond
		}
		if s.Verb == queue.Bury || s.Verb == queue.PutOff && w.rng.IntN(3) > 0 {
			s.Failure = &queue.Failure{Reason: "Failed" + strconv.Itoa(w.step), At: time.UnixMilli(w.m.now)}
		}
		w.counts[string(s.Verb)]++
		settlements = append(settlements, s)
	}
	w.note("settle", "%+v", settlements)
	held, err := w.q.Settle(w.t.Context(), settlements)
	w.must(err)
	want := w.m.settle(settlements)
	w.equal("held", held, want)
	if slices.Contains(want, false) {
		w.counts["stale"]++
	}
}

func (w *walk) extend() {
	id, attempt, lease := "none", 1, time.Duration(w.rng.IntN(5000))*time.Millisecond
	var item *modelItem
	if len(w.m.claimed) > 0 {
		item = w.m.claimed[w.rng.IntN(len(w.m.claimed))]
		id, attempt = item.id, item.attempt
	}
	if w.rng.IntN(10) == 0 {
		attempt, item = attempt+1, nil
	}
	w.note("extend", "%s %d %v", id, attempt, lease)
	held, err := w.q.Extend(w.t.Context(), id, attempt, lease)
	w.must(err)
	w.equal("extended", held, item != nil && item.leased)
	if held && item != nil {
		item.at = w.m.now + lease.Milliseconds()
	}
}

func (w *walk) dead() {
	ids := []string{"none"}
	for _, item := range w.m.dead {
		if w.rng.IntN(2) == 0 {
			ids = append(ids, item.id)
		}
	}
	var chosen []*modelItem
	for _, id := range ids {
		if i := slices.IndexFunc(w.m.dead, func(item *modelItem) bool { return item.id == id }); i >= 0 {
			chosen = append(chosen, w.m.dead[i])
			w.m.dead = slices.Delete(slices.Clone(w.m.dead), i, i+1)
		}
	}
	do, kind := w.q.RetryDead, "revive"
	if w.rng.IntN(3) == 0 {
		do, kind = w.q.DropDead, "discard"
	}
	w.note(kind, "%v", ids)
	got, err := do(w.t.Context(), ids...)
	w.must(err)
	w.equal(kind, len(got), len(chosen))
	for i, id := range got {
		w.equal(kind, id, chosen[i].id)
	}
	if kind == "discard" {
		w.m.dropped += int64(len(chosen))
		return
	}
	for _, item := range chosen {
		item.failures = 0
	}
	w.m.toHead(chosen...)
}

// compareAll compares everything that both know.
func (w *walk) compareAll() {
	w.t.Helper()
	m := w.m
	for state, want := range map[queue.State][]*modelItem{
		queue.Delayed: m.delayed, queue.Retry: m.due, queue.Claimed: m.claimed, queue.Dead: m.dead,
	} {
		records, err := w.q.List(w.t.Context(), state, 0, 10_000)
		w.must(err)
		w.equal("number of "+string(state), len(records), len(want))
		for i := range min(len(records), len(want)) {
			got, item := records[i], want[i]
			w.equalClaim(got.Claim, item)
			var errors []string
			if got.FirstFailure != nil {
				errors = append(errors, got.FirstFailure.Reason)
			}
			if got.Total > 1 {
				errors = append(errors, got.LastFailure.Reason)
			}
			w.equal("failures", errors, slices.Clone(item.errors[:min(len(item.errors), item.total)]))
			if state != queue.Claimed || item.leased {
				w.equal("at", got.At.UnixMilli(), item.at)
			}
			if w.rng.IntN(20) == 0 {
				one, err := w.q.Get(w.t.Context(), item.id)
				w.must(err)
				w.equal("the same record", one, got)
			}
		}
	}
	ready, err := w.q.List(w.t.Context(), queue.Ready, 0, 10_000)
	w.must(err)
	w.equal("ready", len(ready), len(m.ready))
	for i := range min(len(ready), len(m.ready)) {
		w.equal("ready", string(ready[i].Parts[0]), m.ready[i])
	}
	stats, err := w.q.Stats(w.t.Context())
	w.must(err)
	var leased int64
	for _, item := range m.claimed {
		if item.leased {
			leased++
		}
	}
	w.equal("stats",
		[]int64{stats.Ready, stats.Delayed, stats.Claimed, stats.Leased, stats.Retry, stats.Dead, stats.Done, stats.Buried,
			stats.Dropped},
		[]int64{int64(len(m.ready)), int64(len(m.delayed)), int64(len(m.claimed)), leased, int64(len(m.due)),
			int64(len(m.dead)), m.done, m.buried, m.dropped})
	want := ""
	if m.next() >= 0 {
		want = strconv.FormatInt(m.soonest(), 10)
	}
	wake, err := w.client.Do(w.t.Context(), w.client.B().Get().Key(WakeKey(w.q.list)).Build()).ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		w.t.Fatal(err)
	}
	w.equal("wake", wake, want)
	held := map[string]string{}
	for _, item := range m.claimed {
		n, _ := strconv.Atoi(held["o:"+item.owner])
		held["o:"+item.owner] = strconv.Itoa(n + 1)
	}
	all, err := w.client.Do(w.t.Context(), w.client.B().Hgetall().Key(w.q.keys[9]).Build()).AsStrMap()
	w.must(err)
	maps.DeleteFunc(all, func(name, _ string) bool { return !strings.HasPrefix(name, "o:") })
	w.equal("how many each holds", all, held)
	// Nothing is left of what has ended.
	payloads, err := w.client.Do(w.t.Context(), w.client.B().Hlen().Key(w.q.keys[1]).Build()).AsInt64()
	w.must(err)
	var kept int64
	for _, item := range slices.Concat(m.delayed, m.due, m.claimed, m.dead) {
		kept += int64(len(item.parts))
	}
	w.equal("elements that are kept", payloads, kept)
}
