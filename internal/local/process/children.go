package process

import (
	"sync"
	"syscall"
	"time"
)

// children are the containers of this operating-system process that live. It is a package variable because what it
// mirrors, the list of children, exists once for an operating-system process.
var children = registry{byPID: map[int]*Process{}, byID: map[string]*Process{}}

// sweepEvery is how often orphans that have ended are reaped while containers run.
const sweepEvery = 10 * time.Second

// goneWithin bounds the wait for processes that were killed. Only one that hangs in the kernel takes longer than some
// milliseconds; it is then left to the next sweep.
const goneWithin = 5 * time.Second

type registry struct {
	// forks is held for reading from a fork until its pid is known here, and for writing by whoever must not take an
	// unknown child for an orphan.
	forks sync.RWMutex

	mu    sync.Mutex
	byPID map[int]*Process
	byID  map[string]*Process
	timer *time.Timer
}

// start makes p known from before its fork, by its id, and after it, by its pid.
func (r *registry) start(p *Process, fork func() error) error {
	r.forks.RLock()
	defer r.forks.RUnlock()
	r.mu.Lock()
	r.byID[p.id] = p
	r.mu.Unlock()
	err := fork()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.byID, p.id)
		return err
	}
	r.byPID[p.pid] = p
	if r.timer == nil && isSubreaper() {
		r.timer = time.AfterFunc(sweepEvery, r.sweepAndRearm)
	}
	return nil
}

// forget is called once p's main process is reaped.
func (r *registry) forget(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, p.id)
	// The pid may have been given to the next container already.
	if r.byPID[p.pid] == p {
		delete(r.byPID, p.pid)
	}
	if len(r.byID) == 0 && r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

func (r *registry) sweepAndRearm() {
	sweep(r, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Reset(sweepEvery)
	}
}

// liveSession tells whether pid is the main process, and so the session, of a live container.
func (r *registry) liveSession(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byPID[pid] != nil
}

func (r *registry) liveID(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id] != nil
}

// finish is called when the main process of p has ended and its group was killed: it ends what has left the group, and
// returns when all of it is gone.
func (r *registry) finish(p *Process) {
	r.forget(p)
	deadline := time.Now().Add(goneWithin)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		// Signal 0 only asks. If the group's number has been given away meanwhile, the next container has it.
		groupGone := syscall.Kill(-p.pid, 0) != nil || r.liveSession(p.pid)
		if swept := sweep(r, p.pid); (swept && groupGone) || time.Now().After(deadline) {
			return
		}
		time.Sleep(pause)
	}
}
