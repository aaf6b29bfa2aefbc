// Package ration shares limits over all Jobs out over several replicas: how many Jobs each may have alive, and how many
// it may create in a second, so that all of them together keep the limits whatever becomes of any of them.
//
// There is one Table, which is only ever changed by a write that names the version that it replaces. Each replica has
// an Entry in it, which nobody else changes, with its ceilings. A Job counts against the ceiling of the replica that
// has created it, for life; the Jobs of a replica that has no entry any more are left over, and count beside the
// ceilings. The invariant is that in the table no limit is less than the ceilings and what is left over.
//
// It does no I/O, starts no goroutine and reads no clock; docs/architecture.md says why the limits hold.
package ration

import (
	"fmt"
	"maps"
	"math"

	"github.com/offboard-dev/offboard/internal/limits"
)

// What is shared out, besides the Jobs in each namespace, which has the namespace's name.
const (
	// Jobs are those that are alive in all namespaces.
	Jobs = "/jobs"
	// Rate is how many are created in a second, in parts of the whole rate.
	Rate = "/rate"
)

// wholeRate is how many parts the rate has.
const wholeRate = 1_000_000

// Amounts are what is used, left over or due of what is shared out.
type Amounts map[string]int

// Table is what all replicas share.
type Table struct {
	// Made is by whom it was made: one that is made after another one was deleted, which nobody should do, differs.
	// Version names what a write of the table replaces: of two tables with one version all is the same.
	Made, Version string
	// Removals counts the entries that were removed. When it grows, Jobs may be left over that nobody has counted yet.
	Removals int
	// Entries are by the replicas' terms: a replica that has lost its Lease and joins anew is another one.
	Entries map[string]Entry
}

// Entry is one replica's part.
type Entry struct {
	// Replica is its name, for people.
	Replica string `json:"replica"`
	// Whole tells that it has all that is not left over. Nobody else has anything.
	Whole bool `json:"whole,omitempty"`
	// Ceilings are how much it has of what is shared out.
	Ceilings map[string]Ceiling `json:"ceilings,omitempty"`
	// Wants are what it used and wanted when that last mattered to anybody; see limits.Usage.
	Wants map[string][]limits.Want `json:"wants,omitempty"`
}

// Ceiling bounds what a replica may use of one thing.
type Ceiling struct {
	Most int `json:"most"`
	// Turn says in which order replicas came to have any. Where there is not enough for all, it goes round.
	Turn int `json:"turn,omitempty"`
}

// with returns the table with another entry, and without some.
func (t Table) with(term string, entry Entry, without []string) Table {
	t.Entries = maps.Clone(t.Entries)
	if t.Entries == nil {
		t.Entries = map[string]Entry{}
	}
	for _, other := range without {
		if _, exists := t.Entries[other]; exists {
			delete(t.Entries, other)
			t.Removals++
		}
	}
	t.Entries[term] = entry
	return t
}

// Without returns the table without an entry.
func (t Table) Without(term string) Table {
	t = t.with(term, Entry{}, nil)
	delete(t.Entries, term)
	t.Removals++
	return t
}

// Check returns an error when an entry is none that Offboard writes.
func (t Table) Check() error {
	for term, entry := range t.Entries {
		for what, ceiling := range entry.Ceilings {
			if ceiling.Most < 0 || ceiling.Turn < 0 {
				return fmt.Errorf("%s: the ceiling of %s is %+v, must not be negative", term, what, ceiling)
			}
		}
		for namespace, wants := range entry.Wants {
			for _, want := range wants {
				if !(want.Weight > 0) || math.IsInf(want.Weight, 0) || want.Jobs < 0 || want.Waiting < 0 {
					return fmt.Errorf("%s: it wants %+v in %q, must be a weight above 0, and Jobs", term, want, namespace)
				}
			}
		}
	}
	return nil
}

// wanted returns how much the wants are of a thing, and whether that is a reason to share it out anew when the replica
// has that ceiling of it.
func (e Entry) wanted(what string) (jobs int, short bool) {
	ceiling := e.Ceilings[what].Most
	for namespace, wants := range e.Wants {
		for _, want := range wants {
			switch what {
			case Rate:
				jobs += want.Waiting
			case Jobs, namespace:
				jobs += want.Jobs
			}
		}
	}
	if what == Rate {
		return jobs, jobs > 0 && ceiling < wholeRate
	}
	return jobs, jobs > ceiling
}

// limitOf returns the limit of a thing; false when there is none.
func limitOf(l limits.Limits, what string) (int, bool) {
	switch what {
	case Jobs:
		return l.Jobs, l.Jobs > 0
	case Rate:
		return wholeRate, l.JobsPerSecond > 0
	}
	return l.JobsPerNamespace, l.JobsPerNamespace > 0
}

// Share is a replica's part of the limits.
type Share struct {
	limits limits.Limits
	// whole tells that it is all but for left, which is nil while that is unknown; otherwise it is amounts.
	whole         bool
	left, amounts Amounts
	final         bool
}

var _ limits.Capacity = Share{}

// of returns how much the share has of a thing; math.MaxInt where there is no limit.
func (s Share) of(what string) int {
	limit, exists := limitOf(s.limits, what)
	switch {
	case !exists:
		return math.MaxInt
	case !s.whole:
		return s.amounts[what]
	case s.left == nil:
		return 0
	}
	return max(0, limit-s.left[what])
}

// Alive implements limits.Capacity.
func (s Share) Alive() int { return s.of(Jobs) }

// AliveIn implements limits.Capacity.
func (s Share) AliveIn(namespace string) int { return s.of(namespace) }

// PerSecond implements limits.Capacity.
func (s Share) PerSecond() float64 {
	if s.limits.JobsPerSecond == 0 {
		return math.Inf(1)
	}
	return s.limits.JobsPerSecond * float64(s.of(Rate)) / wholeRate
}

// Final implements limits.Capacity.
func (s Share) Final() bool { return s.final }

// Passing is the same share while it is not certain yet that there will not be more of it.
func (s Share) Passing() Share {
	s.final = false
	return s
}
