// Package simulate plays arrivals of items against the decisions that Offboard makes, on a virtual clock: those of
// packages scaling and decider, the code that the controller runs. Around them it models a queue, Jobs that take a
// while to start, and work that takes as long as each item says. It is pure: no I/O, and no clock but its own.
//
// What it leaves out, docs/simulate.md says: Jobs never fail, and the controller, the queue and the cluster take no
// time of their own.
package simulate

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/offboard-dev/offboard/internal/scaling"
)

// Reaction is when decisions are made.
type Reaction string

// The reactions.
const (
	// Push decides whenever an item comes or a Job begins to run or ends, and knows which Jobs have yet to take their
	// item: Offboard's way.
	Push Reaction = "push"
	// Poll decides each polling interval from what is measured then: KEDA's way.
	Poll Reaction = "poll"
)

// Arrival is an item.
type Arrival struct {
	// At is when it comes, from the start of the simulation.
	At time.Duration
	// Work is how long a Job works on it.
	Work time.Duration
}

// Config is a ScaledJob and its surroundings.
type Config struct {
	// Rule is what decides with delivery by pop; of it, delivery by claim uses the limit.
	Rule scaling.Rule
	// Claim is delivery by claim; else delivery is by pop.
	Claim bool
	// Reaction is Push or Poll; with delivery by claim it must be Push.
	Reaction Reaction
	// Polling is the polling interval; above zero.
	Polling time.Duration
	// Target is how many items a Job is started for; at least 1. Activation is the number of waiting items above which
	// Jobs are started.
	Target, Activation float64
	// Take is how many items a Job works on at the most, one after another, with delivery by pop; at least 1. With
	// delivery by claim it is Target.
	Take int
	// Start is how long it takes from the creation of a Job until it takes its item.
	Start Spread
	// Seed makes the times of Start repeatable.
	Seed uint64
}

// Result is what became of the arrivals.
type Result struct {
	Arrivals int `json:"arrivals"`
	// Jobs counts those that were created; Surplus those of them that found nothing to do.
	Jobs    int `json:"jobs"`
	Surplus int `json:"surplusJobs"`
	// MostJobs is how many were unfinished at once, LongestQueue how many items waited for their work to begin.
	MostJobs     int `json:"mostJobs"`
	LongestQueue int `json:"longestQueue"`
	// Left counts items that nothing would ever have taken.
	Left int `json:"left"`
	// Wait is how long items waited until work on them began, without those that are left.
	Wait Wait `json:"waitSeconds"`
	// Done is when the last work ended, from the start of the simulation.
	Done time.Duration `json:"-"`
	// SlotUse is the share of the time of all slots, as many as the limit, that went into work; JobUse the share of the
	// time of the Jobs, from their creation to their end. Both are from 0 to 1.
	SlotUse float64 `json:"slotUtilisation"`
	JobUse  float64 `json:"jobUtilisation"`
	// History is for plots.
	History History `json:"-"`
}

// Wait is a distribution of waiting times in seconds: the mean, and the shortest times within which so many percent of
// the items were taken.
type Wait struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// horizon ends a simulation that would never end: later, times would not fit into a time.Duration.
const horizon = 200 * 365 * 24 * time.Hour

// Run plays arrivals, which must be sorted by time. Its only error is that of ctx.
func Run(ctx context.Context, config Config, arrivals []Arrival) (Result, error) {
	w := newWorld(config, arrivals)
	for steps := 0; w.step(); steps++ {
		if steps%(1<<16) == 0 && ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
	}
	return w.result(), nil
}

func (w *world) result() Result {
	r := Result{
		Arrivals: len(w.arrivals), Jobs: w.created, Surplus: w.surplus, MostJobs: w.mostJobs,
		LongestQueue: w.longest, Left: len(w.arrivals) - len(w.waits),
		Wait: newWait(w.waits), Done: w.done, History: w.history.until(w.done),
	}
	if slots := float64(w.config.Rule.Limit()) * w.done.Seconds(); slots > 0 {
		r.SlotUse = w.working / slots
	}
	if w.lived > 0 {
		r.JobUse = w.working / w.lived
	}
	return r
}

// newWait sorts the waiting times.
func newWait(waits []time.Duration) Wait {
	if len(waits) == 0 {
		return Wait{}
	}
	slices.Sort(waits)
	sum := 0.0
	for _, wait := range waits {
		sum += wait.Seconds()
	}
	percentile := func(p float64) float64 {
		return waits[max(0, int(math.Ceil(p*float64(len(waits))))-1)].Seconds()
	}
	return Wait{
		Mean: sum / float64(len(waits)),
		P50:  percentile(0.50), P95: percentile(0.95), P99: percentile(0.99), Max: percentile(1),
	}
}
