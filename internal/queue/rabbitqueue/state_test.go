package rabbitqueue

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
)

// modelMessage is a message in the server of the model.
type modelMessage struct {
	body        string
	redelivered bool
}

// modelSession is a connection of the model.
type modelSession struct {
	id       string
	doubtful int
	// held are got and not sent; sent are those of events that have no answer; acked are acknowledged and may come back.
	held, acked []modelMessage
	ids         []string
	sent        [][]modelMessage
	dead        bool
	// flight are events on their way.
	flight []*event
}

// model is a server with a queue, and processes that take its messages into a journal. Everything that can fail does.
type model struct {
	*testing.T
	random   *rand.Rand
	queue    []modelMessage
	sessions []*modelSession
	state    *state
	pushed   int
	// made counts the items of each message, ids are theirs.
	made map[string]int
	ids  map[string]bool
	now  int64
}

func (m *model) apply(e *event) result {
	entry, err := e.encode()
	if err != nil {
		m.Fatal(err)
	}
	read, err := decode(entry)
	if err != nil {
		m.Fatal(err)
	}
	came := m.state.apply(read, len(entry))
	for i, message := range e.Take {
		if id := came.ids[i]; !m.ids[id] {
			m.ids[id] = true
			m.made[string(message.body)]++
		}
	}
	return came
}

func (m *model) begin() {
	m.sessions = append(m.sessions, &modelSession{id: fmt.Sprint("s", m.random.Uint64()), doubtful: len(m.queue)})
}

// die ends a connection: what it holds is in the queue again, and its events may come late.
func (m *model) die(s *modelSession) {
	s.dead = true
	var back []modelMessage
	for _, messages := range append(slices.Clone(s.sent), s.held) {
		for _, message := range messages {
			back = append(back, modelMessage{message.body, true})
		}
	}
	m.queue = append(back, m.queue...)
	s.held, s.sent = nil, nil
}

func (m *model) step() {
	if len(m.sessions) == 0 || m.random.IntN(40) == 0 && len(m.sessions) < 4 {
		m.begin()
	}
	s := m.sessions[m.random.IntN(len(m.sessions))]
	m.now += m.random.Int64N(3)
	switch n := m.random.IntN(100); {
	case n < 15:
		m.pushed++
		m.queue = append(m.queue, modelMessage{body: fmt.Sprint("item ", m.pushed)})
	case n < 40 && !s.dead:
		if len(m.queue) == 0 {
			s.doubtful = 0
			return
		}
		one := m.queue[0]
		m.queue = m.queue[1:]
		one.redelivered = one.redelivered || s.doubtful > 0 // what is told of it
		s.doubtful = max(0, s.doubtful-1)
		s.held = append(s.held, one)
	case n < 55 && !s.dead && len(s.held) > 0:
		e := &event{Kind: kindClaim, Session: s.id, Now: m.now}
		for _, one := range s.held {
			e.Take = append(e.Take, taken{Print: printOf("", []byte(one.body)), Doubt: one.redelivered, body: []byte(one.body)})
		}
		if m.random.IntN(2) == 0 {
			e.Claim = &claim{Owner: "o", Most: m.random.IntN(4), Parts: 1 + m.random.IntN(2)}
		}
		s.flight = append(s.flight, e)
		s.sent = append(s.sent, s.held)
		s.held = nil
	case n < 75 && len(s.flight) > 0:
		e := s.flight[0]
		s.flight = s.flight[1:]
		if s.dead && m.random.IntN(2) == 0 {
			return // it was lost
		}
		came := m.apply(e)
		if !s.dead {
			s.acked, s.ids = append(s.acked, s.sent[0]...), append(s.ids, came.ids...)
			s.sent = s.sent[1:]
		}
	case n < 80 && !s.dead:
		// All acknowledgements so far are kept. That takes longer than an event does whose connection has ended.
		if slices.ContainsFunc(m.sessions, func(s *modelSession) bool { return s.dead && len(s.flight) > 0 }) {
			return
		}
		e := &event{Kind: kindKept, Session: s.id, Now: m.now, Kept: map[string]string{}}
		for _, id := range s.ids {
			e.Kept[id] = s.id
		}
		m.apply(e)
		s.acked, s.ids = nil, nil
	case n < 84:
		claims := m.state.sorted(queue.Claimed)
		if len(claims) == 0 {
			return
		}
		r := claims[m.random.IntN(len(claims))]
		verb := []queue.Verb{queue.Ack, queue.Ack, queue.Bury, queue.PutOff, queue.Drop}[m.random.IntN(5)]
		e := &event{Kind: kindSettle, Now: m.now, Settlements: []queue.Settlement{{ID: r.ID, Attempt: r.Attempt, Verb: verb}}}
		if came := m.apply(e); !came.held[0] {
			m.Errorf("a claim was not held: %+v", r)
		}
	case n < 86 && !s.dead:
		m.die(s)
	case n < 87:
		// The server crashes, and remembers neither the last acknowledgements nor that messages were delivered.
		var back []modelMessage
		for _, s := range m.sessions {
			back = append(back, s.acked...)
			m.die(s)
			s.flight = nil
		}
		m.queue = append(back, m.queue...)
		for i := range m.queue {
			m.queue[i].redelivered = m.random.IntN(2) == 0
		}
		m.sessions = nil
	case n < 89:
		m.replace()
	}
}

// replace goes on with a new journal, which must be as the old one.
func (m *model) replace() {
	next := newState()
	for _, e := range m.state.snapshot() {
		entry, err := e.encode()
		if err != nil {
			m.Fatal(err)
		}
		read, err := decode(entry)
		if err != nil {
			m.Fatal(err)
		}
		next.apply(read, len(entry))
	}
	if got, want := describe(m.T, next), describe(m.T, m.state); got != want {
		m.Fatalf("the next journal has\n%s\nand the former\n%s", got, want)
	}
	m.state = next
}

// describe returns all that a state is.
func describe(t *testing.T, s *state) string {
	t.Helper()
	text, err := json.Marshal(struct {
		Numbers numbers
		Records map[string]*record
		Held    map[string]int
		Unkept  map[string]unkept
		Live    int64
	}{s.numbers, s.records, s.held, s.unkept, s.live})
	if err != nil {
		t.Fatal(err)
	}
	counted := newState().live
	for _, r := range s.records {
		counted += r.size() + overhead
	}
	if counted += int64(len(s.unkept)) * overhead; counted != s.live {
		t.Errorf("live is %d, want %d", s.live, counted)
	}
	return string(text)
}

// TestEachMessageBecomesOneItem has connections and servers that end at any point, events that come late or never, and
// acknowledgements that are undone.
func TestEachMessageBecomesOneItem(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		m := &model{
			T: t, random: rand.New(rand.NewPCG(seed, 1)), state: newState(), made: map[string]int{},
			ids: map[string]bool{}, now: 1_700_000_000_000,
		}
		for range 600 {
			m.step()
		}
		// In the end one connection takes all.
		for _, s := range m.sessions {
			if !s.dead {
				m.die(s)
			}
		}
		m.begin()
		last := m.sessions[len(m.sessions)-1]
		for _, one := range m.queue {
			last.doubtful--
			m.apply(&event{Kind: kindClaim, Session: last.id, Now: m.now, Take: []taken{{
				Print: printOf("", []byte(one.body)), Doubt: true, body: []byte(one.body),
			}}})
		}
		for i := range m.pushed {
			if item := fmt.Sprint("item ", i+1); m.made[item] != 1 {
				t.Errorf("seed %d: %s has become %d items", seed, item, m.made[item])
			}
		}
		m.replace()
	}
}

func TestEqualMessages(t *testing.T) {
	t.Parallel()
	s := newState()
	take := func(session string, doubt bool, id string) string {
		return s.apply(&event{Kind: kindClaim, Session: session, Take: []taken{{
			Print: printOf(id, []byte("same")), Doubt: doubt, body: []byte("same"),
		}}}, 100).ids[0]
	}
	first := take("a", false, "")
	if second := take("a", true, ""); second == first {
		t.Error("two messages over one connection are taken for one")
	}
	if third := take("b", false, ""); third == first {
		t.Error("a message that is new for certain is taken for another that is")
	}
	if fourth := take("c", true, ""); fourth != first {
		t.Errorf("a message that came back is the item %s, want %s", fourth, first)
	}
	if fifth := take("d", true, "its own"); s.records[fifth] == nil || fifth == first {
		t.Error("a message with an id of its own is taken for another")
	}
	s.apply(&event{Kind: kindKept, Kept: map[string]string{first: "a"}}, 100)
	if _, remembered := s.unkept[first]; !remembered {
		t.Error("what another connection has since is forgotten")
	}
	s.apply(&event{Kind: kindKept, Kept: map[string]string{first: "c"}}, 100)
	if _, remembered := s.unkept[first]; remembered {
		t.Error("a message that is kept is remembered")
	}
}

func FuzzDecode(f *testing.F) {
	s := newState()
	for _, e := range []*event{
		{Kind: kindClaim, ID: "a-1", Session: "a", Now: 5, Take: []taken{{Print: "p", body: []byte("x")}, {Print: "q"}},
			Claim: &claim{Owner: "o", Most: 2, Parts: 2}},
		{Kind: kindSettle, Settlements: []queue.Settlement{{ID: "b", Verb: queue.PutOff, Failure: &queue.Failure{}}}},
		{Kind: kindKept, Kept: map[string]string{"a": "b"}},
		{Kind: kindRelease, Owner: "o"},
		{Kind: kindClose},
	} {
		entry, err := e.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
		s.apply(e, len(entry))
	}
	s.closed = false
	for _, e := range s.snapshot() {
		entry, err := e.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	f.Add([]byte("{\"kind\":\"restore\",\"restore\":{\"records\":[null]}}\n"))
	f.Add([]byte("{\"kind\":\"later\"}\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		e, err := decode(entry)
		if err != nil {
			return
		}
		newState().apply(e, len(entry))
		again, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Errorf("what is read is written as %q, which is not read: %v", again, err)
		}
	})
}
