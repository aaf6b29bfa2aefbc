package ration

import (
	"maps"
	"slices"

	"github.com/offboard-dev/offboard/internal/limits"
)

// Replica is one replica in one term. Its methods are for one goroutine.
type Replica struct {
	limits     limits.Limits
	name, term string
	// own is its entry as the table last had it.
	own Entry
	// sent are the entries that were sent in place of that of the table's version base: any of them may have been stored,
	// or be stored at any time, as long as no other version of the table is seen.
	sent []Entry
	base string
}

// NewReplica returns one that has nothing. term names its Lease and no earlier one.
func NewReplica(l limits.Limits, name, term string) *Replica {
	return &Replica{limits: l, name: name, term: term, own: Entry{Replica: name}}
}

// State is what a replica knows besides the table.
type State struct {
	limits.Usage
	// Left are the Jobs alive that no replica of the table has created; nil while they are not known. They must have been
	// counted after they were read from the server, and that after a table with as many Removals was seen.
	Left Amounts
	// Complete tells that each replica that has a Lease is in the table.
	Complete bool
	// Gone are terms in the table that have no Lease any more, and of which no Job can come to be.
	Gone []string
}

// Step is what a replica does next.
type Step struct {
	// Now is what it may use from now on, at once.
	Now Share
	// Table is to be stored in place of the one it was made from; nil when there is nothing to write. Sent must be called
	// first.
	Table *Table
	// Then is what it may use when that is stored, also before it sees the table anew.
	Then Share
}

// Next returns what to do. The table must not be older than the one before.
func (r *Replica) Next(t Table, s State) Step {
	stored, registered := t.Entries[r.term]
	if registered {
		r.own = stored
		if t.Version != r.base {
			r.sent, r.base = nil, t.Version
		}
	}
	entry := r.own
	next := t.with(r.term, entry, s.Gone)
	var due Amounts // nil where nobody lacks anything
	switch {
	case len(next.Entries) == 1 && (s.Complete || entry.Whole):
		entry = Entry{Replica: r.name, Whole: true}
	case registered:
		entry, due = r.divide(next, s)
	case !entry.Whole:
		// It is the first time, and it has nothing; or somebody has deleted the table.
		entry = r.numbers(r.bounded(s.Left), entry, s)
	}
	step := Step{Now: r.bounded(s.Left)}
	if due != nil {
		step.Now = step.Now.least(Share{limits: r.limits, amounts: due})
	}
	step.Now.final = registered && s.Left != nil && (entry.Whole || s.Complete && !rises(r.own, entry))
	if !registered || len(s.Gone) > 0 || !same(entry, r.own) {
		next.Entries[r.term] = entry
		step.Table = &next
		left := s.Left
		if len(s.Gone) > 0 {
			left = nil
		}
		step.Then = r.share(entry, left)
	}
	return step
}

// Sent notes that a write of the step's table is on its way.
func (r *Replica) Sent(step Step) { r.sent = append(r.sent, step.Table.Entries[r.term]) }

// Stored notes that the step's table is stored, and its version.
func (r *Replica) Stored(step Step, version string) {
	r.own, r.sent, r.base = step.Table.Entries[r.term], nil, version
}

// bounded is what the replica has, whatever of what it has sent is stored.
func (r *Replica) bounded(left Amounts) Share {
	share := r.share(r.own, left)
	for _, sent := range r.sent {
		share = share.least(r.share(sent, left))
	}
	return share
}

// rises tells whether the replica is about to have more Jobs.
func rises(before, after Entry) bool {
	for what, ceiling := range after.Ceilings {
		if what != Rate && ceiling.Most > before.Ceilings[what].Most {
			return true
		}
	}
	return false
}

// share is the part that an entry gives.
func (r *Replica) share(e Entry, left Amounts) Share {
	share := Share{limits: r.limits, whole: e.Whole, left: left, amounts: Amounts{}}
	for what, ceiling := range e.Ceilings {
		share.amounts[what] = ceiling.Most
	}
	return share
}

// least returns what both of them have.
func (s Share) least(other Share) Share {
	switch {
	case s.whole && other.whole:
		return s
	case s.whole:
		s, other = other, s
	}
	amounts := Amounts{}
	for what, amount := range s.amounts {
		amounts[what] = min(amount, other.of(what))
	}
	return Share{limits: s.limits, amounts: amounts}
}

// divide returns the entry of a replica that is not the only one, and what it is due; nil where nobody lacks anything.
func (r *Replica) divide(t Table, s State) (Entry, Amounts) {
	before := r.own
	if before.Whole {
		// It gives nothing to others before what it has can be counted.
		before = r.numbers(r.share(before, s.Left), before, s)
		for _, what := range r.things(s, before) {
			// Also while it is not known how much the whole is.
			before.Ceilings[what] = Ceiling{Most: max(before.Ceilings[what].Most, s.used(what))}
		}
	}
	now := before
	now.Wants = s.Wants
	t.Entries[r.term] = now
	if !r.own.Whole && !short(t, r.limits) && !short(Table{Entries: map[string]Entry{r.term: r.own}}, r.limits) {
		return r.own, nil
	}
	due := targets(r.limits, t, s.Left)[r.term]
	now.Ceilings = map[string]Ceiling{}
	for _, what := range r.things(s, before) {
		if ceiling := r.ceiling(what, t, s, before.Ceilings[what], due[what]); ceiling.Most > 0 || s.wants(what) {
			now.Ceilings[what] = ceiling
		}
	}
	if r.limits.Jobs > 0 && r.limits.JobsPerNamespace > 0 {
		takeTogether(before, now, s)
	}
	return now, due
}

// takeTogether takes nothing of all Jobs while there is no room for one in any namespace, and nothing in a namespace
// while there is none of all: it could not be used, and would only go round.
func takeTogether(before, now Entry, s State) {
	ofAll, inNamespaces := now.Ceilings[Jobs].Most-s.used(Jobs), 0
	for what, ceiling := range now.Ceilings {
		if what != Jobs && what != Rate {
			inNamespaces += max(0, ceiling.Most-s.used(what))
		}
	}
	for what, ceiling := range now.Ceilings {
		useless := inNamespaces == 0
		if what != Jobs {
			useless = ofAll <= 0 && what != Rate
		}
		if useless && ceiling.Most > before.Ceilings[what].Most {
			now.Ceilings[what] = before.Ceilings[what]
		}
	}
}

// numbers returns an entry with the ceilings of a share.
func (r *Replica) numbers(share Share, from Entry, s State) Entry {
	entry := Entry{Replica: r.name, Ceilings: map[string]Ceiling{}, Wants: from.Wants}
	for _, what := range r.things(s, from) {
		if most := share.of(what); most > 0 {
			entry.Ceilings[what] = Ceiling{Most: most, Turn: from.Ceilings[what].Turn}
		}
	}
	return entry
}

// ceiling is what the replica is to have of a thing of which it is due so much. It gives back what it does not use, and
// takes what is free.
func (r *Replica) ceiling(what string, t Table, s State, before Ceiling, due int) Ceiling {
	if due <= before.Most {
		before.Most = min(before.Most, max(due, s.used(what)))
		return before
	}
	if s.Left == nil || !s.Complete || len(s.Gone) > 0 {
		return before
	}
	limit, _ := limitOf(r.limits, what)
	free, turn := limit-s.Left[what], 0
	for _, entry := range t.Entries {
		if entry.Whole {
			return before
		}
		free -= entry.Ceilings[what].Most
		turn = max(turn, entry.Ceilings[what].Turn)
	}
	if free <= 0 {
		return before
	}
	if before.Most == 0 {
		before.Turn = turn + 1
	}
	before.Most = min(due, before.Most+free)
	return before
}

// things are what is shared out and concerns the replica.
func (r *Replica) things(s State, e Entry) []string {
	things := map[string]bool{Jobs: true, Rate: true}
	for namespace := range s.Namespaces {
		things[namespace] = true
	}
	for namespace := range s.Wants {
		things[namespace] = true
	}
	for what := range e.Ceilings {
		things[what] = true
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(things)), func(what string) bool {
		_, exists := limitOf(r.limits, what)
		return !exists
	})
}

// used is how much of a thing the replica uses.
func (s State) used(what string) int {
	switch what {
	case Jobs:
		return s.Jobs
	case Rate:
		return 0
	}
	return s.Namespaces[what]
}

// wants tells whether the replica has a use for the thing.
func (s State) wants(what string) bool {
	return what == Jobs || what == Rate || len(s.Wants[what]) > 0
}

// short tells whether anybody lacks anything.
func short(t Table, l limits.Limits) bool {
	for _, entry := range t.Entries {
		things := append([]string{Jobs, Rate}, slices.Collect(maps.Keys(entry.Wants))...)
		for _, what := range things {
			_, exists := limitOf(l, what)
			if _, lacks := entry.wanted(what); exists && lacks && !entry.Whole {
				return true
			}
		}
	}
	return false
}

// same tells whether two entries say the same.
func same(a, b Entry) bool {
	return a.Replica == b.Replica && a.Whole == b.Whole && maps.Equal(a.Ceilings, b.Ceilings) &&
		maps.EqualFunc(a.Wants, b.Wants, slices.Equal[[]limits.Want])
}
