package natsqueue

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// totals are what is known of the queue as a whole. Each transaction has them all.
type totals struct {
	// Stream and Consumer say whose log it is.
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	// StreamMade and ConsumerMade are about when these were created. Another stream of the name numbers its messages anew,
	// and another consumer hands out again what was done: then Epoch grows, so that ids are new ones. StreamEpoch is the
	// first one of this stream.
	StreamMade   time.Time `json:"streamMade"`
	ConsumerMade time.Time `json:"consumerMade"`
	Epoch        uint16    `json:"epoch"`
	StreamEpoch  uint16    `json:"streamEpoch"`
	// Floor is up to which message the server keeps for good what was acknowledged to it.
	Floor   uint64 `json:"floor"`
	Done    int64  `json:"done"`
	Buried  int64  `json:"buried"`
	Dropped int64  `json:"dropped"`
}

// part is one message that was taken over.
type part struct {
	// ID is the epoch in 4 and the message's sequence number in its stream in 12 hexadecimal digits.
	ID string `json:"i"`
	// Stored is when the stream got the message, in nanoseconds since 1970: another stream of the name has another message
	// of that number.
	Stored int64 `json:"t"`
	// Its bytes are Size ones from Offset on in the data of the transaction that begins at Log in the log; in the
	// transaction that says so while that is 0.
	Size   int    `json:"n"`
	Log    uint64 `json:"l,omitempty"`
	Offset int    `json:"o"`
}

func newID(epoch uint16, sequence uint64) string { return fmt.Sprintf("%04x%012x", epoch, sequence) }

// parseID is the inverse of newID.
func parseID(id string) (epoch uint16, sequence uint64, err error) {
	if len(id) != 16 {
		return 0, 0, fmt.Errorf("the id %q has %d digits, want 16", id, len(id))
	}
	number, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("the id %q is not hexadecimal", id)
	}
	return uint16(number >> 48), number & (1<<48 - 1), nil
}

// record is what is known of an item. Its id is that of its first part. One that is done is kept until the server
// cannot hand out its messages again. A ready one has one part.
type record struct {
	State    queue.State    `json:"s"`
	Parts    []part         `json:"p"`
	Attempt  int            `json:"a,omitempty"`
	Failures int            `json:"f,omitempty"`
	Total    int            `json:"t,omitempty"`
	Owner    string         `json:"w,omitempty"`
	First    time.Time      `json:"q,omitzero"`
	Since    time.Time      `json:"c,omitzero"`
	At       time.Time      `json:"d,omitzero"`
	Error1   *queue.Failure `json:"e1,omitempty"`
	Error2   *queue.Failure `json:"e2,omitempty"`

	// home is where the transaction begins that said so.
	home uint64
}

func (r record) id() string { return r.Parts[0].ID }

func (r record) size() int {
	size := 0
	for _, p := range r.Parts {
		size += p.Size
	}
	return size
}

// oldest is the oldest transaction that the record needs.
func (r record) oldest() uint64 {
	oldest := r.home
	if r.State == queue.Done {
		return oldest
	}
	for _, p := range r.Parts {
		oldest = min(oldest, p.Log)
	}
	return oldest
}

func (r record) claim(parts [][]byte) queue.Claim {
	return queue.Claim{
		ID: r.id(), Attempt: r.Attempt, Failures: r.Failures, Owner: r.Owner, First: r.First, Since: r.Since, Parts: parts,
	}
}

// change is one transaction: the records that it sets and removes, and the totals after it.
type change struct {
	Totals totals   `json:"totals"`
	Remove []string `json:"remove,omitempty"`
	Set    []record `json:"set,omitempty"`
}

// encode returns the change as a line of JSON, and the items' bytes.
func (c change) encode(data []byte) []byte {
	line, err := json.Marshal(c)
	if err != nil {
		panic(err) // it consists of texts, numbers and times
	}
	return append(append(line, '\n'), data...)
}

// decode is the inverse of encode.
func decode(text []byte) (c change, data []byte, err error) {
	line, data, found := bytes.Cut(text, []byte{'\n'})
	if !found || json.Unmarshal(line, &c) != nil {
		return change{}, nil, errors.New("it is not a transaction of Offboard")
	}
	for _, r := range c.Set {
		if len(r.Parts) == 0 {
			return change{}, nil, errors.New("an item of it has no parts")
		}
		for _, p := range r.Parts {
			if _, _, err := parseID(p.ID); err != nil {
				return change{}, nil, err
			}
			// Where the bytes are in another transaction, that one is looked at when they are needed.
			if p.Log == 0 && r.State != queue.Done {
				if _, err := p.cut(data); err != nil {
					return change{}, nil, err
				}
			}
		}
	}
	return c, data, nil
}

// cut returns the part's bytes of the data of its transaction.
func (p part) cut(data []byte) ([]byte, error) {
	if p.Offset < 0 || p.Size < 0 || p.Offset > len(data) || p.Size > len(data)-p.Offset {
		return nil, fmt.Errorf("the bytes of item %s are not in their transaction", p.ID)
	}
	return data[p.Offset : p.Offset+p.Size], nil
}

// model is what the transactions come to.
type model struct {
	totals totals
	// live are the records of items that are not done, done those of the others, by their ids.
	live, done map[string]record
	// messages are those of this stream that the records have.
	messages map[uint64]holder
}

// holder is the record that has a message, and when the stream got that.
type holder struct {
	id     string
	stored int64
}

func newModel() *model {
	return &model{live: map[string]record{}, done: map[string]record{}, messages: map[uint64]holder{}}
}

// apply takes over a transaction that begins at first in the log.
func (m *model) apply(c change, first uint64) {
	before := m.totals
	m.totals = c.Totals
	for _, id := range c.Remove {
		m.remove(id)
	}
	for _, r := range c.Set {
		r.home, r.Parts = first, slices.Clone(r.Parts)
		for i := range r.Parts {
			if r.Parts[i].Log == 0 {
				r.Parts[i].Log = first
			}
		}
		m.remove(r.id())
		switch {
		case r.State != queue.Done:
			m.live[r.id()] = r
		case !m.settled(r):
			m.done[r.id()] = r
		default:
			continue
		}
		m.index(r)
	}
	if m.totals.Epoch != before.Epoch {
		// What another consumer hands out again is meant to be done again.
		clear(m.done)
		clear(m.messages)
		for _, r := range m.live {
			m.index(r)
		}
	}
	if m.totals.Floor != before.Floor {
		for id, r := range m.done {
			if m.settled(r) {
				m.remove(id)
			}
		}
	}
}

// settled tells whether the server does not hand out the messages of what is done again.
func (m *model) settled(r record) bool {
	for _, p := range r.Parts {
		if sequence, ours := m.sequence(p); ours && sequence > m.totals.Floor {
			return false
		}
	}
	return true
}

// sequence returns the message's number; false when it is one of a former stream.
func (m *model) sequence(p part) (sequence uint64, ours bool) {
	epoch, sequence, err := parseID(p.ID)
	return sequence, err == nil && epoch >= m.totals.StreamEpoch
}

// has tells whether a record has the message.
func (m *model) has(sequence uint64, stored time.Time) bool {
	known, found := m.messages[sequence]
	return found && known.stored == stored.UnixNano()
}

// foreign tells whether a record has another message of that number: it is from another stream of the name.
func (m *model) foreign(sequence uint64, stored time.Time) bool {
	known, found := m.messages[sequence]
	return found && known.stored != stored.UnixNano()
}

func (m *model) index(r record) {
	for _, p := range r.Parts {
		if sequence, ours := m.sequence(p); ours {
			m.messages[sequence] = holder{r.id(), p.Stored}
		}
	}
}

func (m *model) remove(id string) {
	r, found := m.live[id]
	if !found {
		r = m.done[id]
	}
	for _, p := range r.Parts {
		if sequence, ours := m.sequence(p); ours && m.messages[sequence].id == id {
			delete(m.messages, sequence)
		}
	}
	delete(m.live, id)
	delete(m.done, id)
}

// bytes is about how much the log must hold.
func (m *model) bytes() uint64 {
	const each = 300
	total := each * (len(m.live) + len(m.done) + 1)
	for _, r := range m.live {
		total += r.size()
	}
	return uint64(total)
}

// draft is a transaction that is being made.
type draft struct {
	*model
	totals totals
	set    map[string]record
	gone   map[string]bool
	// data are the bytes of items that are taken over.
	data []byte
	// forced tells that it is to be written even if it changes nothing.
	forced bool
}

func (m *model) draft() *draft {
	return &draft{model: m, totals: m.totals, set: map[string]record{}, gone: map[string]bool{}}
}

func (d *draft) changes() bool {
	return d.forced || len(d.set) > 0 || len(d.gone) > 0 || d.totals != d.model.totals
}

func (d *draft) put(r record) {
	d.set[r.id()] = r
	delete(d.gone, r.id())
}

func (d *draft) drop(id string) {
	delete(d.set, id)
	d.gone[id] = true
}

// hold adds the bytes of a part to the transaction.
func (d *draft) hold(p part, data []byte) part {
	p.Size, p.Log, p.Offset = len(data), 0, len(d.data)
	d.data = append(d.data, data...)
	return p
}

// get returns the record of an item that is not done.
func (d *draft) get(id string) (record, bool) {
	if r, found := d.set[id]; found {
		return r, r.State != queue.Done
	}
	r, found := d.live[id]
	return r, found && !d.gone[id]
}

// all returns the records in that state, in the order of their ids.
func (d *draft) all(state queue.State) []record {
	var found []record
	for id, r := range d.live {
		if _, set := d.set[id]; !set && !d.gone[id] && r.State == state {
			found = append(found, r)
		}
	}
	for _, r := range d.set {
		if r.State == state {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b record) int { return cmp.Compare(a.id(), b.id()) })
	return found
}

// held is how many claims the owner has.
func (d *draft) held(owner string) int {
	held := 0
	for _, r := range d.all(queue.Claimed) {
		if r.Owner == owner {
			held++
		}
	}
	return held
}

func (d *draft) change() change {
	return change{
		Totals: d.totals, Remove: slices.Sorted(maps.Keys(d.gone)),
		Set: slices.SortedFunc(maps.Values(d.set), func(a, b record) int { return cmp.Compare(a.id(), b.id()) }),
	}
}

// ready makes the messages of an item ready again, each for itself.
func (d *draft) ready(r record) {
	r.State, r.Owner, r.Since, r.At = queue.Ready, "", time.Time{}, time.Time{}
	for _, p := range r.Parts {
		one := r
		one.Parts = []part{p}
		d.put(one)
	}
}

// finish makes an item one that is done.
func (d *draft) finish(r record) { d.put(record{State: queue.Done, Parts: r.Parts}) }

// returnDue makes items ready whose wait is over, and returns how many.
func (d *draft) returnDue(now time.Time) int {
	returned := 0
	for _, r := range d.all(queue.Retry) {
		if !r.At.After(now) {
			d.ready(r)
			returned++
		}
	}
	return returned
}

// next is how long until the next wait is over; negative when nothing waits.
func (m *model) next(now time.Time) time.Duration {
	next := time.Duration(-1)
	for _, r := range m.live {
		if r.State != queue.Retry {
			continue
		}
		if left := max(0, r.At.Sub(now)); next < 0 || left < next {
			next = left
		}
	}
	return next
}

// join makes one claim of ready items, of which there is at least one.
func (d *draft) join(items []record, owner string, now time.Time) record {
	joined := items[0]
	joined.Parts = nil
	for _, r := range items {
		joined.Parts = append(joined.Parts, r.Parts...)
		joined.Attempt, joined.Failures = max(joined.Attempt, r.Attempt), max(joined.Failures, r.Failures)
		joined.Total = max(joined.Total, r.Total)
		joined.Error1, joined.Error2 = cmp.Or(joined.Error1, r.Error1), cmp.Or(r.Error2, joined.Error2)
		if r.First.Before(joined.First) {
			joined.First = r.First
		}
		if _, known := d.get(r.id()); known {
			d.drop(r.id())
		}
	}
	joined.Attempt++
	joined.State, joined.Owner, joined.Since = queue.Claimed, owner, now
	d.put(joined)
	return joined
}

// settle does what one settlement says and returns whether the claim was held.
func (d *draft) settle(s queue.Settlement, now time.Time) (held bool, err error) {
	r, found := d.get(s.ID)
	if !found || r.State != queue.Claimed || r.Attempt != s.Attempt {
		return false, nil
	}
	if s.Failure != nil {
		failure := s.Failure.Cut()
		r.Failures, r.Total = r.Failures+1, r.Total+1
		r.Error1, r.Error2 = cmp.Or(r.Error1, &failure), &failure
	}
	r.Owner, r.Since = "", time.Time{}
	switch s.Verb {
	case queue.Ack:
		d.finish(r)
		d.totals.Done++
	case queue.Drop:
		d.finish(r)
		d.totals.Dropped++
	case queue.Bury:
		r.State, r.At = queue.Dead, now
		d.put(r)
		d.totals.Buried++
	case queue.PutOff:
		r.State, r.At = queue.Retry, now.Add(s.Wait)
		d.put(r)
	case queue.GiveBack:
		d.ready(r)
	default:
		return false, fmt.Errorf("unknown verb %q", s.Verb)
	}
	return true, nil
}
