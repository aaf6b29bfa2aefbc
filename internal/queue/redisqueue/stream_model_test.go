package redisqueue

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
)

// hold is how the group has the entry of a part.
type hold int

const (
	gone    hold = iota // acknowledged by us, or the group that it was pending in is gone
	pending             // for our consumer
	taken               // acknowledged or claimed by others
)

// modelPart is an entry that was read.
type modelPart struct {
	entry int
	text  string
	hold  hold
}

// streamModel is what the items of a stream are to do, in plain words of Go.
type streamModel struct {
	model // time, ids and counters

	entries []string // of the stream, all that there ever were
	ids     []string // of them
	read    int      // how many the group has read
	last    int      // how many there were up to the last that was taken by us
	past    map[int]*modelItem
	// These have their parts beside them, in the same order.
	parts map[*modelItem][]*modelPart
	back  []*modelItem // of one part each, by entry
}

func (m *streamModel) toBack(items ...*modelItem) {
	for _, item := range items {
		parts := m.parts[item]
		delete(m.parts, item)
		for _, part := range parts {
			one := *item
			one.owner, one.parts = "", []string{part.text}
			if len(parts) > 1 {
				one.id = ""
			}
			m.parts[&one] = []*modelPart{part}
			m.back = append(m.back, &one)
		}
	}
	slices.SortFunc(m.back, func(a, b *modelItem) int {
		return cmp.Compare(m.parts[a][0].entry, m.parts[b][0].entry)
	})
}

func (m *streamModel) sweepStream() (returned int, arrived []*modelItem) {
	all := func(*modelItem) bool { return true }
	arrived = m.passed(&m.delayed, all)
	waited := m.passed(&m.due, all)
	m.toBack(waited...)
	return len(arrived) + len(waited), arrived
}

// arrive appends what was delayed to the stream.
func (m *streamModel) arrive(items []*modelItem) {
	for _, item := range items {
		m.past[len(m.entries)] = item
		m.entries = append(m.entries, item.parts[0])
		m.ids = append(m.ids, "")
	}
}

func (m *streamModel) popStream() *modelItem {
	for len(m.back) > 0 {
		item := m.back[0]
		m.back = m.back[1:]
		if m.parts[item][0].hold != taken {
			return item
		}
		delete(m.parts, item)
	}
	if m.read == len(m.entries) {
		clear(m.past)
		return nil
	}
	item := m.past[m.read]
	delete(m.past, m.read)
	if item == nil {
		item = &modelItem{first: m.now}
	}
	text := m.entries[m.read]
	item.parts = []string{text}
	m.parts[item] = []*modelPart{{entry: m.read, text: text, hold: pending}}
	m.read++
	m.last = m.read
	return item
}

func (m *streamModel) claimStream(o queue.ClaimOptions) (claims []*modelItem) {
	for len(claims) < o.Most {
		item := m.popStream()
		if item == nil {
			break
		}
		for len(item.parts) < o.Parts {
			another := m.popStream()
			if another == nil {
				break
			}
			item.parts = append(item.parts, another.parts...)
			m.parts[item] = append(m.parts[item], m.parts[another]...)
			delete(m.parts, another)
			item.attempt, item.failures = max(item.attempt, another.attempt), max(item.failures, another.failures)
			item.first = min(item.first, another.first)
		}
		if item.id == "" || len(item.parts) > 1 {
			item.id = m.id()
		}
		item.attempt++
		item.owner = o.Owner
		claims = append(claims, item)
	}
	m.claimed = append(m.claimed, claims...)
	slices.SortFunc(m.claimed, func(a, b *modelItem) int { return strings.Compare(a.id, b.id) })
	return claims
}

// over acknowledges the entries of an item that has ended.
func (m *streamModel) over(item *modelItem) {
	for _, part := range m.parts[item] {
		part.hold = gone
	}
}

func (m *streamModel) settleStream(settlements []queue.Settlement) (held []bool) {
	for _, s := range settlements {
		item := m.take(s.ID, s.Attempt)
		held = append(held, item != nil)
		if item == nil {
			continue
		}
		item.owner = ""
		if s.Failure != nil {
			item.fail(s.Failure.Reason)
		}
		switch s.Verb {
		case queue.Ack, queue.Drop:
			delete(m.parts, item)
			if s.Verb == queue.Ack {
				m.done++
			} else {
				m.dropped++
			}
		case queue.PutOff:
			item.at = m.now + s.Wait.Milliseconds()
			m.due = sorted(append(m.due, item))
		case queue.Bury:
			m.over(item)
			m.bury(item)
		case queue.GiveBack:
			m.toBack(item)
		}
	}
	return held
}

// TestStreamModel is TestModel for a stream: producers, consumers of others that read, acknowledge and claim, several
// owners that claim and settle, and groups that are destroyed.
func TestStreamModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("QUEUE_MODEL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("QUEUE_MODEL_SEED=%d", seed)
	r := startStream(t)
	m := &streamModel{model: *newModel(), past: map[int]*modelItem{}, parts: map[*modelItem][]*modelPart{}}
	m.now = 1_700_000_000_000
	r.q.now = func() time.Time { return time.UnixMilli(m.now) }
	w := &streamWalk{s: m, walk: walk{
		t: t, q: r.q, m: &m.model, client: r.server.Client(), rng: rand.New(rand.NewPCG(seed, 0)), counts: map[string]int{},
	}}
	for w.step = range steps(t) / 10 {
		w.nextStep()
		if w.step%50 == 0 {
			w.compareStream()
		}
		if t.Failed() {
			t.Fatalf("step %d, after: %s", w.step, strings.Join(w.log, "; "))
		}
	}
	w.compareStream()
	t.Logf("steps: %v", w.counts)
}

type streamWalk struct {
	walk

	s *streamModel
}

func (w *streamWalk) do(command ...string) rueidis.RedisResult {
	return w.client.Do(w.t.Context(), w.client.B().Arbitrary(command...).Build())
}

func (w *streamWalk) nextStep() {
	ctx, m, q, r := w.t.Context(), w.s, w.q, w.rng
	switch n := r.IntN(100); {
	case n < 20:
		m.now += r.Int64N(2000)
	case n < 35:
		if len(m.entries)-m.read > 100 {
			return
		}
		item := w.item()
		w.note("push", "%q", item)
		id, err := w.do("XADD", "work", "*", "field", item).ToString()
		w.must(err)
		m.entries, m.ids = append(m.entries, item), append(m.ids, id)
	case n < 38:
		o := queue.PushOptions{Delay: time.Duration(1+r.IntN(3000)) * time.Millisecond}
		item := &modelItem{id: m.id(), parts: []string{w.item()}, first: m.now, at: m.now + o.Delay.Milliseconds()}
		w.note("later", "%q %v", item.parts[0], o.Delay)
		pushed, err := q.Push(ctx, o, []byte(item.parts[0]))
		w.must(err)
		w.equal("ids", pushed.IDs, []string{item.id})
		m.delayed = sorted(append(m.delayed, item))
	case n < 58:
		w.claimSome()
	case n < 84:
		w.settleSome()
	case n < 87:
		w.note("sweep", "")
		swept, err := q.Sweep(ctx)
		w.must(err)
		w.equal("swept", swept.Returned, w.sweepAll())
	case n < 88:
		owner := w.owner()
		w.note("releaseAll", "%s", owner)
		released, err := q.Release(ctx, owner)
		w.must(err)
		var back []*modelItem
		m.claimed = slices.DeleteFunc(slices.Clone(m.claimed), func(item *modelItem) bool {
			if item.owner == owner {
				back = append(back, item)
			}
			return item.owner == owner
		})
		m.toBack(back...)
		w.equal("released", released, len(back))
	case n < 96:
		w.others()
	default:
		w.deadOnes()
	}
}

// sweepAll sweeps in the model, and finds out which ids the entries have got that the script has appended.
func (w *streamWalk) sweepAll() int {
	returned, arrived := w.s.sweepStream()
	w.s.arrive(arrived)
	if len(arrived) > 0 {
		newest, err := w.do("XREVRANGE", "work", "+", "-", "COUNT", fmt.Sprint(len(arrived))).AsXRange()
		w.must(err)
		for i, entry := range newest {
			w.s.ids[len(w.s.ids)-1-i] = entry.ID
		}
	}
	return returned
}

func (w *streamWalk) claimSome() {
	o := queue.ClaimOptions{Owner: w.owner(), Most: w.rng.IntN(6), Parts: 1}
	if w.rng.IntN(4) == 0 {
		o.Parts = 1 + w.rng.IntN(12)
	}
	w.note("claim", "%+v", o)
	claimed, err := w.q.Claim(w.t.Context(), o)
	w.must(err)
	w.sweepAll()
	w.equalClaims(claimed.Claims, w.s.claimStream(o))
}

func (w *streamWalk) settleSome() {
	var settlements []queue.Settlement
	for range 1 + w.rng.IntN(4) {
		s := queue.Settlement{ID: "none", Attempt: 1, Verb: verbs[w.rng.IntN(len(verbs))]}
		if len(w.s.claimed) > 0 {
			item := w.s.claimed[w.rng.IntN(len(w.s.claimed))]
			s.ID, s.Attempt = item.id, item.attempt
		}
		if s.Verb == queue.PutOff {
			s.Wait = time.Duration(w.rng.IntN(4000)) * time.Millisecond
		}
		if s.Verb == queue.Bury || s.Verb == queue.PutOff && w.rng.IntN(3) > 0 {
			s.Failure = &queue.Failure{Reason: "Failed", At: time.UnixMilli(w.s.now)}
		}
		settlements = append(settlements, s)
	}
	w.note("settle", "%+v", settlements)
	held, err := w.q.Settle(w.t.Context(), settlements)
	w.must(err)
	w.equal("held", held, w.s.settleStream(settlements))
}

// others read, acknowledge, claim and delete.
func (w *streamWalk) others() {
	m, do := w.s, w.do
	var ours []*modelPart
	for _, item := range slices.Concat(m.claimed, m.due, m.back) {
		for _, part := range m.parts[item] {
			if part.hold == pending {
				ours = append(ours, part)
			}
		}
	}
	switch n := w.rng.IntN(20); {
	case n < 6:
		w.note("read", "")
		do("XGROUP", "CREATE", "work", "workers", w.begins(), "MKSTREAM") // an error when it is there
		do("XREADGROUP", "GROUP", "workers", "other", "COUNT", "1", "STREAMS", "work", ">")
		m.read = min(m.read+1, len(m.entries))
	case n < 10 && len(ours) > 0:
		part := ours[w.rng.IntN(len(ours))]
		w.note("xack", "%s", part.text)
		do("XACK", "work", "workers", m.ids[part.entry])
		part.hold = taken
	case n < 14 && len(ours) > 0:
		part := ours[w.rng.IntN(len(ours))]
		if !w.inStream(part) {
			return
		}
		w.note("xclaim", "%s", part.text)
		do("XCLAIM", "work", "workers", "other", "0", m.ids[part.entry])
		part.hold = taken
	case n < 17 && len(ours) > 0:
		part := ours[w.rng.IntN(len(ours))]
		w.note("xdel", "%s", part.text)
		do("XDEL", "work", m.ids[part.entry])
	case n < 18:
		w.note("trim", "")
		do("XTRIM", "work", "MAXLEN", fmt.Sprint(len(m.entries)-m.read))
	case n < 19 && w.rng.IntN(10) == 0 && m.read == m.last: // else what others have read would come again
		w.note("destroy", "")
		do("XGROUP", "DESTROY", "work", "workers")
		for _, parts := range m.parts {
			for _, part := range parts {
				part.hold = gone
			}
		}
	}
}

// begins is the entry after which the script would make the group.
func (w *streamWalk) begins() string {
	if w.s.last == 0 {
		return "0"
	}
	return w.s.ids[w.s.last-1]
}

func (w *streamWalk) inStream(part *modelPart) bool {
	id := w.s.ids[part.entry]
	entries, err := w.do("XRANGE", "work", id, id).AsXRange()
	w.must(err)
	return len(entries) == 1
}

func (w *streamWalk) deadOnes() {
	m := w.s
	var chosen []*modelItem
	var ids []string
	m.dead = slices.DeleteFunc(slices.Clone(m.dead), func(item *modelItem) bool {
		if w.rng.IntN(2) == 0 {
			return false
		}
		chosen, ids = append(chosen, item), append(ids, item.id)
		return true
	})
	if w.rng.IntN(3) == 0 {
		w.note("discard", "%v", ids)
		got, err := w.q.DropDead(w.t.Context(), ids...)
		w.must(err)
		w.equal("discarded", len(got), len(chosen))
		for _, item := range chosen {
			delete(m.parts, item)
		}
		m.dropped += int64(len(chosen))
		return
	}
	w.note("revive", "%v", ids)
	got, err := w.q.RetryDead(w.t.Context(), ids...)
	w.must(err)
	w.equal("revived", len(got), len(chosen))
	for _, item := range chosen {
		item.failures = 0
	}
	m.toBack(chosen...)
}

// compareStream compares everything that both know.
func (w *streamWalk) compareStream() {
	w.t.Helper()
	m := w.s
	for state, want := range map[queue.State][]*modelItem{
		queue.Delayed: m.delayed, queue.Retry: m.due, queue.Claimed: m.claimed, queue.Dead: m.dead,
	} {
		records, err := w.q.List(w.t.Context(), state, 0, 10_000)
		w.must(err)
		w.equal("number of "+string(state), len(records), len(want))
		for i := range min(len(records), len(want)) {
			w.equalClaim(records[i].Claim, want[i])
		}
	}
	var ready, entries []string
	for _, item := range m.back {
		ready = append(ready, item.parts[0])
	}
	ready = append(ready, m.entries[m.read:]...)
	records, err := w.q.List(w.t.Context(), queue.Ready, 0, 10_000)
	w.must(err)
	w.equal("number of ready", len(records), len(ready))
	for i := range min(len(records), len(ready)) {
		w.equal("ready", string(records[i].Parts[0]), ready[i])
	}
	stats, err := w.q.Stats(w.t.Context())
	w.must(err)
	w.equal("stats",
		[]int64{stats.Ready, stats.Delayed, stats.Claimed, stats.Retry, stats.Dead, stats.Done, stats.Buried, stats.Dropped},
		[]int64{int64(len(ready)), int64(len(m.delayed)), int64(len(m.claimed)), int64(len(m.due)), int64(len(m.dead)), m.done,
			m.buried, m.dropped})
	kept := len(m.delayed)
	for _, parts := range m.parts {
		kept += len(parts)
		for _, part := range parts {
			if part.hold == pending {
				entries = append(entries, m.ids[part.entry])
			}
		}
	}
	payloads, err := w.do("HLEN", w.q.keys[1]).AsInt64()
	w.must(err)
	w.equal("elements that are kept", payloads, int64(kept))
	rows, err := w.do("XPENDING", "work", "workers", "-", "+", "100000", "offboard").ToArray()
	if err != nil && len(entries) == 0 {
		return // there is no group
	}
	w.must(err)
	var got []string
	for _, row := range rows {
		fields, err := row.ToArray()
		w.must(err)
		id, err := fields[0].ToString()
		w.must(err)
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(entries)
	w.equal("entries that are pending for us", got, entries)
}
