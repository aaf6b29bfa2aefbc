// Package limits shares the Jobs that a cluster is to bear between ScaledJobs: how many may be alive at the same time,
// over all of them and in each namespace, and how many may be created in a second.
//
// It is pure: no I/O, no goroutines, and the time is passed in. Who calls it holds a lock.
package limits

import (
	"cmp"
	"fmt"
	"math"
)

// Limits protect a cluster. In each, 0 means none.
type Limits struct {
	// Jobs is how many Jobs may be alive, over all ScaledJobs, and JobsPerNamespace how many in each namespace.
	Jobs, JobsPerNamespace int
	// JobsPerSecond is how many may be created in a second, over all ScaledJobs.
	JobsPerSecond float64
}

// Capacity is how much of the limits a Pool may use: all of it, as Limits says, or the part of one of several
// processes.
type Capacity interface {
	// Alive is how many Jobs may be alive, and AliveIn how many in a namespace; math.MaxInt where there is no limit.
	Alive() int
	AliveIn(namespace string) int
	// PerSecond is how many Jobs may be created in a second; +Inf where there is no limit.
	PerSecond() float64
	// Final tells that there will not be more of it in a moment: who waits, waits because of the limits.
	Final() bool
}

var _ Capacity = Limits{}

// Alive implements Capacity.
func (l Limits) Alive() int { return cmp.Or(l.Jobs, math.MaxInt) }

// AliveIn implements Capacity.
func (l Limits) AliveIn(string) int { return cmp.Or(l.JobsPerNamespace, math.MaxInt) }

// PerSecond implements Capacity.
func (l Limits) PerSecond() float64 { return cmp.Or(l.JobsPerSecond, math.Inf(1)) }

// Final implements Capacity.
func (l Limits) Final() bool { return true }

// None is the capacity of a process that does not know its part yet.
type None struct{}

// Alive implements Capacity.
func (None) Alive() int { return 0 }

// AliveIn implements Capacity.
func (None) AliveIn(string) int { return 0 }

// PerSecond implements Capacity.
func (None) PerSecond() float64 { return 0 }

// Final implements Capacity.
func (None) Final() bool { return false }

// Any tells whether there is a limit.
func (l Limits) Any() bool { return l != Limits{} }

// Check returns an error when a limit is none that could be kept; it names the flag and what would be right.
func (l Limits) Check() error {
	for _, limit := range []struct {
		flag string
		jobs int
	}{{"--max-jobs", l.Jobs}, {"--max-jobs-per-namespace", l.JobsPerNamespace}} {
		if limit.jobs < 0 {
			return fmt.Errorf("%s is %d, must be a number of Jobs, or 0 for no limit", limit.flag, limit.jobs)
		}
	}
	if rate := l.JobsPerSecond; rate < 0 || math.IsNaN(rate) || math.IsInf(rate, 0) {
		return fmt.Errorf("--max-jobs-per-second is %v, must be a number such as 0.5 or 20, or 0 for no limit", rate)
	}
	return nil
}

// Bound is a limit that keeps Jobs waiting; empty means none.
type Bound string

// The limits, as the reason of a ScaledJob's condition names them.
const (
	MaxJobs             Bound = "MaxJobs"
	MaxJobsPerNamespace Bound = "MaxJobsPerNamespace"
	MaxJobsPerSecond    Bound = "MaxJobsPerSecond"
)
