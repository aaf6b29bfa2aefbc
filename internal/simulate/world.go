package simulate

import (
	"math/rand/v2"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/decider"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// epoch is the time at which a simulation starts, for those who need the time of a clock.
var epoch = time.Unix(0, 0)

// never is after everything else.
const never = horizon + 1

// world is a queue, the Jobs that work on it, and what is to happen. Items are in the order of their arrival: those
// before head have been taken from the queue, those from next on have not come yet.
type world struct {
	config     Config
	arrivals   []Arrival
	head, next int
	now        time.Duration
	clock      time.Time // now, for those who need a clock
	events     events
	// wake is when a decision is due although nothing has changed.
	wake time.Duration

	jobs []job
	free []int32 // places in jobs whose Job has ended
	// running and pending count the unfinished Jobs; pending ones are part of running.
	running, pending int64

	decider  *decider.Decider // nil where every decision stands for itself
	readings []scaling.Reading
	uids     []types.UID
	random   *rand.Rand

	created, surplus, mostJobs, longest int
	// waiting counts items whose work has not begun, finished those whose work has ended.
	waiting, finished int
	waits             []time.Duration
	working, lived    float64 // seconds
	done              time.Duration
	history           History
}

// job is an unfinished Job.
type job struct {
	uid     types.UID
	created time.Duration
	// next and last are the items that it was handed with delivery by claim and has not begun: last is not among them.
	next, last int
	// taken counts the items that it has taken by itself.
	taken int
}

func newWorld(config Config, arrivals []Arrival) *world {
	config.Rule.Unexplained = true
	w := &world{
		config: config, arrivals: arrivals, readings: make([]scaling.Reading, 1),
		random: rand.New(rand.NewPCG(config.Seed, uint64(len(arrivals)))), waits: make([]time.Duration, 0, len(arrivals)),
	}
	switch {
	case config.Claim:
		w.config.Rule.Min = nil // nothing runs that has no item
	case config.Reaction == Push:
		w.decider = decider.New()
	default:
		w.wake = config.Polling / 2 // not at the start, when in many a trace everything comes at once
	}
	return w
}

// step does what happens next, all of the same kind that happens at the same time, and lets a decision follow. It
// tells whether there was anything.
func (w *world) step() bool {
	change := w.change()
	at := min(change, w.wake)
	if at > horizon || w.finished == len(w.arrivals) && len(w.events) == 0 {
		return false
	}
	w.now, w.clock = at, epoch.Add(at)
	polled := at < change
	switch {
	case polled:
		w.wake = never
	case len(w.events) > 0 && w.events[0].at == at:
		for kind := w.events[0].kind; len(w.events) > 0 && w.events[0].at == at && w.events[0].kind == kind; {
			w.happen(w.events.pop())
		}
	default:
		for w.next < len(w.arrivals) && w.arrivals[w.next].At == at {
			w.next++
			w.waiting++
		}
		w.longest = max(w.longest, w.waiting)
	}
	switch {
	case w.finished == len(w.arrivals):
		w.wake = never // nothing is of interest but the end of the Jobs there are
	case w.config.Reaction == Push || polled:
		w.decide()
	}
	w.history.add(w.now, w.waiting, int(w.running), int(w.running-w.pending))
	return true
}

// happen does what was to happen to a Job.
func (w *world) happen(e event) {
	j := &w.jobs[e.job]
	if e.kind == started {
		w.pending--
		if w.decider != nil {
			w.decider.Began(j.uid, w.clock)
		}
	} else {
		w.finished++
		w.done = w.now
	}
	switch {
	case j.next < j.last:
		w.begin(e.job, j.next)
		j.next++
	case !w.config.Claim && j.taken < w.config.Take && w.ready() > 0:
		j.taken++
		w.begin(e.job, w.head)
		w.head++
	default:
		if e.kind == started {
			w.surplus++
		}
		w.running--
		w.lived += (w.now - j.created).Seconds()
		if w.decider != nil {
			w.decider.Ended(j.uid, w.clock)
		}
		w.free = append(w.free, e.job)
	}
}

// begin lets a Job work on an item.
func (w *world) begin(job int32, item int) {
	arrival := w.arrivals[item]
	w.waiting--
	w.waits = append(w.waits, w.now-arrival.At)
	w.working += arrival.Work.Seconds()
	w.events.push(event{at: w.now + arrival.Work, kind: worked, job: job})
}

// ready is the length of the queue.
func (w *world) ready() int { return w.next - w.head }

// decide measures, decides and acts, as a reconcile of the controller does.
func (w *world) decide() {
	reading := scaling.Reading{Value: float64(w.ready()), Target: w.config.Target}
	reading.Active = reading.Value > w.config.Activation
	if w.decider != nil {
		w.decider.Elapsed(w.clock, w.config.Polling)
		w.decider.Measured(reading.Value, w.clock)
	}
	rule := &w.config.Rule
	floor := rule.Floor()
	if w.running >= rule.Limit() || w.running >= floor && (w.ready() == 0 || !reading.Active) {
		// Whatever the strategy, the decision is none, and it stays so until something happens.
		w.rest()
		return
	}
	w.readings[0] = reading
	state := scaling.State{Running: w.running, Pending: w.pending, Readings: w.readings}
	again := w.config.Polling
	created := w.created
	switch {
	case w.config.Claim:
		w.claim()
	case w.decider == nil:
		w.create(scaling.Decide(*rule, state).Create)
	default:
		state.Untaken = w.decider.Untaken(w.running, w.pending)
		decision := w.decider.Decide(*rule, state, w.clock, w.config.Polling)
		if decision.Floor {
			w.decider.Floored(w.clock)
		}
		w.create(decision.Create)
		w.decider.Created(decider.Waiting{Amount: reading.Value, Target: reading.Target}, w.uids...)
		again = w.decider.Next(state, w.clock, w.config.Polling)
	}
	w.mostJobs = max(w.mostJobs, int(w.running))
	if w.created > created || state.Untaken > 0 || floor > 0 || w.change() < never {
		w.wake = min(w.wake, w.now+again)
	} // else nothing is to come, and time alone changes no answer
}

// change is when something happens next: an arrival, or to a Job; never when nothing does.
func (w *world) change() time.Duration {
	next := never
	if w.next < len(w.arrivals) {
		next = w.arrivals[w.next].At
	}
	if len(w.events) > 0 {
		next = min(next, w.events[0].at)
	}
	return next
}

// rest lets no decision be made before something happens. Polls keep their rhythm.
func (w *world) rest() {
	next := w.change()
	w.wake = never
	if polling := w.config.Polling; w.config.Reaction == Poll && next < never {
		w.wake = w.now + polling
		if missed := next - w.wake; missed > 0 {
			w.wake = next + (polling-missed%polling)%polling
		}
	}
}

// claim takes items off the queue, as far as slots are free, and creates a Job for each target's worth of them.
func (w *world) claim() {
	for free := w.config.Rule.Free(w.running); free > 0 && w.ready() > 0; free-- {
		j := job{next: w.head}
		w.head = min(w.next, w.head+int(max(1, w.config.Target)))
		j.last = w.head
		w.add(j)
	}
}

// create creates Jobs that take items by themselves; uids are theirs afterwards.
func (w *world) create(n int64) {
	w.uids = w.uids[:0]
	for range n {
		w.uids = append(w.uids, w.add(job{}))
	}
}

// add creates a Job.
func (w *world) add(j job) types.UID {
	w.created++
	j.uid = types.UID(strconv.Itoa(w.created))
	j.created = w.now
	var place int32
	if last := len(w.free) - 1; last >= 0 {
		place, w.free = w.free[last], w.free[:last]
		w.jobs[place] = j
	} else {
		place = int32(len(w.jobs))
		w.jobs = append(w.jobs, j)
	}
	w.running++
	w.pending++
	w.events.push(event{at: w.now + w.config.Start.draw(w.random), kind: started, job: place})
	return j.uid
}
