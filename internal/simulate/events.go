package simulate

import "time"

// event is something that is to happen to a Job.
type event struct {
	at   time.Duration
	kind kind
	job  int32 // its place in world.jobs
}

type kind uint8

// What can happen to a Job, in the order in which it does when it is at the same time.
const (
	worked  kind = iota // the work on an item ended
	started             // the Job was created a while ago and begins to run
)

func (e event) before(other event) bool {
	return e.at < other.at || e.at == other.at && e.kind < other.kind
}

// events is a binary heap: the next event is the first. container/heap would do the same at several times the cost.
type events []event

func (h *events) push(e event) {
	*h = append(*h, e)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s[i].before(s[parent]) {
			return
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *events) pop() event {
	s := *h
	first, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && s[child+1].before(s[child]) {
			child++
		}
		if !s[child].before(s[i]) {
			return first
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}
