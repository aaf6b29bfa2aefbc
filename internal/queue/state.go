package queue

import "slices"

// State is where an item is between its push and its end. docs/queue.md draws how they follow each other.
type State string

// The states of an item.
const (
	// Ready: in the queue itself, for whoever takes it next.
	Ready State = "ready"
	// Delayed: pushed for a later time.
	Delayed State = "delayed"
	// Claimed: taken off the queue for one Job or one runner.
	Claimed State = "claimed"
	// Running: claimed, and the run has begun. The Job or the lease tells; the queue keeps no note of it.
	Running State = "running"
	// Retry: put off after a run that did not succeed, until a time that is known.
	Retry State = "retry"
	// Done: a run has succeeded. Nothing is kept of it.
	Done State = "done"
	// Dead: given up and kept, with the reason, for a person to decide.
	Dead State = "dead"
)

// transitions are the states that can follow each state, and why.
var transitions = map[State]map[State]string{
	Ready:   {Claimed: "claim"},
	Delayed: {Ready: "its time has come"},
	Claimed: {
		Running: "the run begins", Retry: "retry", Dead: "bury", Ready: "release",
		Done: "drop: it is not to be kept",
	},
	Running: {
		Done: "ack: the run has succeeded", Retry: "retry: it has failed", Dead: "bury: the last attempt has failed",
		Ready: "release, or the lease is lost",
	},
	Retry: {Ready: "the wait is over"},
	Dead:  {Ready: "a person retries it", Done: "a person drops it"},
}

// States returns all states, in the order in which an item meets them.
func States() []State { return []State{Ready, Delayed, Claimed, Running, Retry, Done, Dead} }

// CanBecome tells whether the other state can follow directly.
func (s State) CanBecome(other State) bool {
	_, can := transitions[s][other]
	return can
}

// Next returns the states that can follow directly, in the order of States.
func (s State) Next() []State {
	var next []State
	for _, other := range States() {
		if s.CanBecome(other) {
			next = append(next, other)
		}
	}
	return next
}

// Ended tells whether nothing becomes of the item by itself any more.
func (s State) Ended() bool { return s == Done || s == Dead }

// Known tells whether it is a state at all.
func (s State) Known() bool { return slices.Contains(States(), s) }
