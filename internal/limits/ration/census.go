package ration

import (
	"fmt"
	"slices"
	"time"
)

// Census knows which terms of the table are over, and whether the table has all that are not. Its methods are for one
// goroutine.
type Census struct {
	// quiet is how long after the end of its Lease a Job of a replica may still come to be.
	quiet time.Duration
	own   string
	made  string
	// known are the terms that the table has had.
	known map[string]bool
	// missing tells since when a term of the table is known to have no Lease.
	missing map[string]time.Time
	// strangers are terms with a Lease that the table has never had, and when that was last seen.
	strangers map[string]time.Time
	vanished  int
}

// NewCensus returns one that knows nothing but its own term. A Job of a replica that has lost its Lease may come to be
// until quiet has passed, and not later.
func NewCensus(own string, quiet time.Duration) *Census {
	return &Census{quiet: quiet, own: own, missing: map[string]time.Time{}, strangers: map[string]time.Time{}}
}

// Look takes the terms that have a Lease, as a watch tells, the first time as the server says, and returns those of
// the table which it does not show: whether they have none, the server itself must say, after the table was read. It
// is to be told with Missing.
func (c *Census) Look(t Table, leases []string, now time.Time) (doubtful []string) {
	if c.made != t.Made || c.known == nil {
		c.made, c.known = t.Made, map[string]bool{}
	}
	for term := range t.Entries {
		c.known[term] = true
		if _, missing := c.missing[term]; !missing && !slices.Contains(leases, term) {
			doubtful = append(doubtful, term)
		}
	}
	for term := range c.missing {
		if _, exists := t.Entries[term]; !exists {
			delete(c.missing, term)
		}
	}
	for _, term := range leases {
		if !c.known[term] && term != c.own {
			c.strangers[term] = now
		}
	}
	for term, seen := range c.strangers {
		if c.known[term] {
			delete(c.strangers, term)
		} else if now.Sub(seen) > c.quiet {
			delete(c.strangers, term)
			c.vanished++
		}
	}
	return doubtful
}

// Missing notes that a term has no Lease any more.
func (c *Census) Missing(term string, now time.Time) { c.missing[term] = now }

// Gone returns the terms of the table of which no Job can come to be any more.
func (c *Census) Gone(now time.Time) (gone []string) {
	for term, since := range c.missing {
		if now.Sub(since) > c.quiet {
			gone = append(gone, term)
		}
	}
	return gone
}

// Complete tells that each replica which may create Jobs is in the table.
func (c *Census) Complete() bool { return len(c.strangers) == 0 }

// Epoch names what the Jobs must have been read after, from the server, to know those that are left over.
func (c *Census) Epoch(t Table) string { return fmt.Sprint(t.Made, "/", t.Removals, "/", c.vanished) }
