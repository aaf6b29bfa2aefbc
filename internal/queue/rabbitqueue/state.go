package rabbitqueue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// maxShown is how many bytes of each part List shows.
const maxShown = 1024

// record is what the journal knows of one item. Times are milliseconds since 1970, by the clocks of those who wrote
// them.
type record struct {
	ID string `json:"id"`
	// Order sorts ready items: by arrival, and within one claim of several.
	Order    string         `json:"order"`
	State    queue.State    `json:"state"`
	Attempt  int            `json:"attempt,omitempty"`
	Failures int            `json:"failures,omitempty"`
	Total    int            `json:"total,omitempty"`
	Owner    string         `json:"owner,omitempty"`
	Arrived  int64          `json:"arrived"`
	Since    int64          `json:"since,omitempty"`
	At       int64          `json:"at,omitempty"`
	First    *queue.Failure `json:"first,omitempty"`
	Last     *queue.Failure `json:"last,omitempty"`
	// Alone tells that it has a history of its own, and so is not put together with others.
	Alone bool  `json:"alone,omitempty"`
	Sizes []int `json:"sizes"`

	parts [][]byte
}

func (r *record) known() bool {
	return slices.Contains([]queue.State{queue.Ready, queue.Claimed, queue.Retry, queue.Dead}, r.State)
}

func (r *record) size() (size int64) {
	for _, part := range r.parts {
		size += int64(len(part))
	}
	return size
}

// unkept is a message that was taken and whose acknowledgement may not be kept by the server.
type unkept struct {
	Print   string `json:"print"`
	Session string `json:"session"`
	Doubt   bool   `json:"doubt,omitempty"`
}

// numbers are what a state has besides records.
type numbers struct {
	// Now is the latest time of any event, ID the last id.
	Now     int64 `json:"now"`
	ID      int64 `json:"id"`
	Done    int64 `json:"done"`
	Buried  int64 `json:"buried"`
	Dropped int64 `json:"dropped"`
}

// state is what follows from the events of a journal. It is the same in all processes that have read the same events:
// nothing in it depends on clocks, on chance or on the order of maps.
type state struct {
	numbers
	// closed tells that the journal has ended.
	closed  bool
	records map[string]*record
	states  map[queue.State]map[string]*record
	held    map[string]int
	// unkept are messages by the id that the item had which they became first; prints has these ids by print.
	unkept map[string]unkept
	prints map[string][]string
	// size is about how many bytes the journal has, live how many of them would be left of it in a new one.
	size, live int64
}

// overhead is about how many bytes the journal needs for an event or a record besides the bytes of messages.
const overhead = 300

func newState() *state {
	s := &state{
		records: map[string]*record{}, states: map[queue.State]map[string]*record{}, held: map[string]int{},
		unkept: map[string]unkept{}, prints: map[string][]string{},
	}
	for _, name := range []queue.State{queue.Ready, queue.Claimed, queue.Retry, queue.Dead} {
		s.states[name] = map[string]*record{}
	}
	return s
}

// result is what came of an event.
type result struct {
	// closed tells that the event is void since the journal had ended.
	closed bool
	claims []queue.Claim
	held   []bool
	// ids are those of the messages that were taken, or of the items that were dead.
	ids []string
	// count is how many items came back.
	count int
}

// apply makes the state what follows from the event.
func (s *state) apply(e *event, size int) result {
	if s.closed {
		return result{closed: true}
	}
	s.size += int64(size) + overhead
	s.Now = max(s.Now, e.Now)
	switch e.Kind {
	case kindClaim:
		ids := s.take(e)
		if e.Claim == nil {
			return result{ids: ids}
		}
		s.sweep()
		return result{ids: ids, claims: s.claim(e.Claim)}
	case kindSettle:
		held := make([]bool, len(e.Settlements))
		for i := range e.Settlements {
			held[i] = s.settle(&e.Settlements[i])
		}
		return result{held: held}
	case kindSweep:
		return result{count: s.sweep()}
	case kindRelease:
		return result{count: s.release(e.Owner)}
	case kindRetry, kindDrop:
		return result{ids: s.dead(e.Kind, e.IDs)}
	case kindKept:
		for id, session := range e.Kept {
			if s.unkept[id].Session == session {
				s.forget(id)
			}
		}
	case kindRestore:
		s.restore(e.Restore)
	case kindClose:
		s.closed = true
	}
	return result{}
}

// take makes items of messages. A message that had been taken before keeps the id of then.
func (s *state) take(e *event) []string {
	ids := make([]string, len(e.Take))
	for i, message := range e.Take {
		id := s.same(message, e.Session)
		if id == "" {
			id = s.newID()
			s.add(&record{ID: id, Order: id, State: queue.Ready, Arrived: s.Now, parts: [][]byte{message.body}})
		} else {
			s.forget(id)
			message.Doubt = true
		}
		ids[i] = id
		s.unkept[id] = unkept{Print: message.Print, Session: e.Session, Doubt: message.Doubt}
		s.prints[message.Print] = append(s.prints[message.Print], id)
		s.live += overhead
	}
	return ids
}

// same returns the id of the message if it was taken before over another connection; "" when it is new. Two which
// are both new for certain are different.
func (s *state) same(message taken, session string) string {
	for _, id := range s.prints[message.Print] {
		if before := s.unkept[id]; before.Session != session && (before.Doubt || message.Doubt) {
			return id
		}
	}
	return ""
}

// forget ends the memory of a message.
func (s *state) forget(id string) {
	before, found := s.unkept[id]
	if !found {
		return
	}
	delete(s.unkept, id)
	s.live -= overhead
	left := slices.DeleteFunc(s.prints[before.Print], func(other string) bool { return other == id })
	if s.prints[before.Print] = left; len(left) == 0 {
		delete(s.prints, before.Print)
	}
}

// newID returns an id above all others: the time, and a count.
func (s *state) newID() string {
	s.ID = max(s.ID+1, s.Now<<20)
	return fmt.Sprintf("%016x", s.ID)
}

func (s *state) add(r *record) {
	s.records[r.ID] = r
	s.states[r.State][r.ID] = r
	s.live += r.size() + overhead
}

func (s *state) remove(r *record) {
	s.leave(r)
	delete(s.records, r.ID)
	s.live -= r.size() + overhead
}

// leave takes the record out of its state.
func (s *state) leave(r *record) {
	delete(s.states[r.State], r.ID)
	if r.State != queue.Claimed {
		return
	}
	if s.held[r.Owner]--; s.held[r.Owner] == 0 {
		delete(s.held, r.Owner)
	}
}

// become puts the record into another state.
func (s *state) become(r *record, state queue.State, at int64) {
	s.leave(r)
	r.State, r.At, r.Owner, r.Since = state, at, "", 0
	s.states[state][r.ID] = r
}

// sorted returns the records of a state: oldest first.
func (s *state) sorted(name queue.State) []*record {
	return slices.SortedFunc(maps.Values(s.states[name]), func(a, b *record) int {
		switch name {
		case queue.Ready:
			return cmp.Compare(a.Order, b.Order)
		case queue.Retry, queue.Dead:
			return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID))
		default:
			return cmp.Compare(a.ID, b.ID)
		}
	})
}

// ready returns how many elements are ready, and their size in bytes.
func (s *state) ready() (n int, size int64) {
	for _, r := range s.states[queue.Ready] {
		n += len(r.parts)
		size += r.size()
	}
	return n, size
}

// claim claims what is ready.
func (s *state) claim(o *claim) []queue.Claim {
	most := o.Most
	if o.Holds > 0 {
		most = min(most, o.Holds-s.held[o.Owner])
	}
	var claims []queue.Claim
	var size int64
	for ready := s.sorted(queue.Ready); len(ready) > 0 && len(claims) < most; {
		if len(claims) > 0 && o.Bytes > 0 && size >= o.Bytes {
			break
		}
		r := ready[0]
		ready = ready[1:]
		for joins(r) && len(r.parts) < o.Parts && len(ready) > 0 && joins(ready[0]) && len(ready[0].parts) == 1 {
			s.join(r, ready[0])
			ready = ready[1:]
		}
		s.leave(r)
		r.State, r.Owner, r.Since, r.At = queue.Claimed, o.Owner, s.Now, 0
		r.Attempt++
		s.states[queue.Claimed][r.ID] = r
		s.held[o.Owner]++
		size += r.size()
		claims = append(claims, r.claim())
	}
	return claims
}

// joins tells whether the record can be claimed together with others.
func joins(r *record) bool { return !r.Alone && r.Failures == 0 }

// join makes the other one a part of the record.
func (s *state) join(r, other *record) {
	s.remove(other)
	r.parts = append(r.parts[:len(r.parts):len(r.parts)], other.parts...)
	s.live += other.size()
}

func (r *record) claim() queue.Claim {
	return queue.Claim{
		ID: r.ID, Attempt: r.Attempt, Failures: r.Failures, Parts: r.parts, Owner: r.Owner,
		First: time.UnixMilli(r.Arrived), Since: time.UnixMilli(r.Since),
	}
}

// settle tells whether the claim was held.
func (s *state) settle(o *queue.Settlement) bool {
	r := s.records[o.ID]
	if r == nil || r.State != queue.Claimed || r.Attempt != o.Attempt {
		return false
	}
	if o.Failure != nil && o.Verb != queue.Ack {
		if r.Last = o.Failure; r.First == nil {
			r.First = o.Failure
		}
		r.Failures++
		r.Total++
	}
	switch o.Verb {
	case queue.Ack:
		s.Done++
		s.remove(r)
	case queue.Drop:
		s.Dropped++
		s.remove(r)
	case queue.Bury:
		s.Buried++
		s.become(r, queue.Dead, s.Now)
	case queue.PutOff:
		r.Alone = true
		s.become(r, queue.Retry, s.Now+max(0, o.Wait).Milliseconds())
	case queue.GiveBack:
		s.giveBack(r)
	default:
		return false // Settle has refused it
	}
	return true
}

// giveBack makes a claim ready again: each of its parts by itself.
func (s *state) giveBack(r *record) {
	parts := r.parts
	s.become(r, queue.Ready, 0)
	for i, part := range parts[1:] {
		s.live -= int64(len(part))
		other := *r
		other.ID, other.Order, other.parts = s.newID(), fmt.Sprintf("%s-%06d", r.Order, i), [][]byte{part}
		other.Attempt, other.Sizes = 0, nil
		s.add(&other)
	}
	r.parts = parts[:1:1]
}

// sweep ends waits that are over.
func (s *state) sweep() (returned int) {
	for _, r := range s.sorted(queue.Retry) {
		if r.At > s.Now {
			break
		}
		s.become(r, queue.Ready, 0)
		returned++
	}
	return returned
}

// next returns when the next wait is over; 0 when there is none.
func (s *state) next() (at int64) {
	for _, r := range s.states[queue.Retry] {
		if at == 0 || r.At < at {
			at = r.At
		}
	}
	return at
}

// wait returns how long it is until then by the clock of this process; negative when there is none.
func (s *state) wait() time.Duration {
	at := s.next()
	if at == 0 {
		return -1
	}
	return max(0, time.Until(time.UnixMilli(at)))
}

func (s *state) release(owner string) (count int) {
	for _, r := range s.sorted(queue.Claimed) {
		if owner == "" || r.Owner == owner {
			s.giveBack(r)
			count++
		}
	}
	return count
}

// dead retries or drops dead items and returns the ids of those that were dead.
func (s *state) dead(what kind, ids []string) []string {
	var were []string
	for _, id := range ids {
		r := s.records[id]
		if r == nil || r.State != queue.Dead {
			continue
		}
		were = append(were, id)
		if what == kindDrop {
			s.Dropped++
			s.remove(r)
			continue
		}
		r.Failures, r.Alone = 0, true
		s.become(r, queue.Ready, 0)
	}
	return were
}

// record returns what is known of an item.
func (r *record) record(whole bool) queue.Record {
	shown := queue.Record{
		Claim: r.claim(), State: r.State, Size: r.size(), Total: r.Total, FirstFailure: r.First, LastFailure: r.Last,
	}
	if r.At > 0 {
		shown.At = time.UnixMilli(r.At)
	}
	if r.State != queue.Claimed {
		shown.Since = time.Time{}
	}
	if whole {
		return shown
	}
	shown.Parts = make([][]byte, len(r.parts))
	for i, part := range r.parts {
		shown.Parts[i] = part[:min(len(part), maxShown)]
	}
	return shown
}

// snapshot returns the events with which a new journal begins.
func (s *state) snapshot() []*event {
	var events []*event
	part, size := new(restored), int64(0)
	flush := func() {
		events = append(events, &event{Kind: kindRestore, Now: s.Now, Restore: part})
		part, size = new(restored), 0
	}
	for _, id := range slices.Sorted(maps.Keys(s.records)) {
		r := s.records[id]
		part.Records = append(part.Records, r)
		if size += r.size() + overhead; size > maxEvent {
			flush()
		}
	}
	part.Prints, part.Numbers = s.unkept, &s.numbers
	flush()
	return events
}

// restore takes over what a former journal has led to.
func (s *state) restore(part *restored) {
	if part == nil {
		return
	}
	for _, r := range part.Records {
		s.add(r)
		if r.State == queue.Claimed {
			s.held[r.Owner]++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(part.Prints)) {
		one := part.Prints[id]
		s.unkept[id] = one
		s.prints[one.Print] = append(s.prints[one.Print], id)
		s.live += overhead
	}
	if part.Numbers != nil {
		s.numbers = *part.Numbers
	}
}
