package jobs

import "sync"

// turn says where a Job stands in the queue.
type turn int

const (
	idle turn = iota
	queued
	working
	// workingAgain is working with something new to look at afterwards.
	workingAgain
)

// queue hands each Job that something happened to to one worker at a time. A Job is in it once, however much happened.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	jobs   []*record
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.filled.L = &q.mu
	return q
}

// add queues the Job. It never blocks.
func (q *queue) add(r *record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch r.turn {
	case idle:
		if q.closed {
			return
		}
		r.turn = queued
		q.push(r)
	case working:
		r.turn = workingAgain
	case queued, workingAgain:
	}
}

// next waits for a Job and returns nil when the queue is closed and empty. The caller gives it back with done.
func (q *queue) next() *record {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.jobs) == 0 {
		if q.closed {
			return nil
		}
		q.filled.Wait()
	}
	r := q.jobs[0]
	q.jobs[0] = nil
	q.jobs = q.jobs[1:]
	r.turn = working
	return r
}

// done ends the turn that next began.
func (q *queue) done(r *record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.turn == workingAgain {
		r.turn = queued
		q.push(r)
		return
	}
	r.turn = idle
}

func (q *queue) push(r *record) {
	q.jobs = append(q.jobs, r)
	q.filled.Signal()
}

// close lets next return nil once all that is queued has been handed out.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Broadcast()
}
