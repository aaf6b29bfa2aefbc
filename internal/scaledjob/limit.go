package scaledjob

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/scaling"
)

const (
	// tickEvery is the least time between two looks at what new tokens allow.
	tickEvery = 10 * time.Millisecond
	// unknownAgain is when it is looked again which limit it is that keeps Jobs waiting.
	unknownAgain = 2 * time.Second
	// calm is how long a limit must not have kept Jobs waiting until the status says that it does not.
	calm = 5 * time.Second
)

// limiter is a limits.Pool that several workers share. It asks for the reconcile of those that are given slots.
type limiter struct {
	limits.Limits
	wake    func(types.NamespacedName)
	short   func()
	metrics Metrics

	// due has when the next token comes for which somebody waits, if it is not being waited for already.
	due  chan time.Duration
	mu   sync.Mutex
	pool *limits.Pool
	// elsewhere are Jobs that count against the limits and that no process has created which still works.
	elsewhere int
}

// newLimiter returns nil when there is no limit, which costs nothing.
func newLimiter(c Config, wake func(types.NamespacedName)) *limiter {
	if !c.Limits.Any() {
		return nil
	}
	capacity := limits.Capacity(c.Limits)
	if c.CreatedHere != nil {
		capacity = limits.None{}
	}
	l := &limiter{
		Limits: c.Limits, wake: wake, short: c.Short, metrics: c.Metrics, due: make(chan time.Duration, 1),
		pool: limits.NewPool(capacity),
	}
	if l.short == nil {
		l.short = func() {}
	}
	return l
}

// do changes the pool, and wakes those that are given slots by that.
func (l *limiter) do(change func(p *limits.Pool, now time.Time) (wake []types.NamespacedName)) {
	l.mu.Lock()
	wake := change(l.pool, time.Now())
	l.metrics.Alive(l.pool.Alive() + l.elsewhere)
	next, short := l.pool.Next(), l.pool.Waiting() > 0
	l.mu.Unlock()
	if short {
		l.short()
	}
	for _, key := range wake {
		l.wake(key)
	}
	if next >= 0 {
		select {
		case l.due <- next:
		default:
		}
	}
}

// run shares out the tokens as they come, until ctx ends.
func (l *limiter) run(ctx context.Context) {
	for {
		select {
		case next := <-l.due:
			timer := time.NewTimer(max(next, tickEvery))
			select {
			case <-timer.C:
				l.do((*limits.Pool).Tick)
			case <-ctx.Done():
				timer.Stop()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Resize changes how much of Config.Limits this process may use; from New on it is all, or nothing with
// Config.CreatedHere. decide is given what is used and wanted, which does not change before it has returned the
// capacity, and how many Jobs count beside those that were created here, for the metric. There must be limits.
func (c *Controller) Resize(decide func(limits.Usage) (capacity limits.Capacity, elsewhere int)) {
	l := c.limiter
	l.do(func(p *limits.Pool, now time.Time) (wake []types.NamespacedName) {
		var capacity limits.Capacity
		capacity, l.elsewhere = decide(p.Usage(c.Limits))
		return p.Resize(capacity, now)
	})
}

// limited is what a record holds of its ScaledJob's part in the limits.
type limited struct {
	// asked tells that the reconcile under way has asked for slots.
	asked bool
	// bound is the limit that the status names, and seen when it last kept Jobs waiting.
	bound limits.Bound
	seen  time.Time
}

// Adopt begins to look after ScaledJobs. Where this process keeps the limits alone, the Jobs that they have already
// count before anything is created for anybody.
func (c *Controller) Adopt(ctx context.Context, keys []types.NamespacedName) {
	alone := c.limiter != nil && c.CreatedHere == nil
	if alone {
		c.limiter.do(func(p *limits.Pool, _ time.Time) []types.NamespacedName {
			for _, key := range keys {
				p.Adopt(key)
			}
			return nil
		})
	}
	for _, key := range keys {
		if alone {
			_ = c.recount(ctx, key) // where that fails, the reconcile counts, and tells why it cannot
		}
		c.Changed(key)
	}
}

// count tells the limiter how many Jobs of a ScaledJob are alive.
func (c *Controller) count(key types.NamespacedName, jobs []Job) {
	if c.limiter == nil {
		return
	}
	n, here := 0, 0
	for _, job := range jobs {
		if Alive(job) {
			n++
			if c.CreatedHere == nil || c.CreatedHere(job.Job) {
				here++
			}
		}
	}
	if !c.Mine(key) {
		n = here
	}
	c.limiter.do(func(p *limits.Pool, now time.Time) []types.NamespacedName { return p.Count(key, n, here, now) })
}

// recount lists the Jobs of a ScaledJob to count them.
func (c *Controller) recount(ctx context.Context, key types.NamespacedName) error {
	if c.limiter == nil {
		return nil
	}
	jobs, err := c.Jobs.List(ctx, key)
	if err != nil {
		return err // what is counted so far still holds
	}
	c.count(key, jobs)
	return nil
}

// countLeft counts the Jobs of a ScaledJob that is not looked after any more, until they have ended. Those of one that
// this process has never looked after are not its to count.
func (c *Controller) countLeft(ctx context.Context, key types.NamespacedName) error {
	if c.limiter == nil {
		return nil
	}
	known := false
	c.limiter.do(func(p *limits.Pool, now time.Time) []types.NamespacedName {
		known = p.Knows(key)
		return p.Leave(key, now)
	})
	if !known {
		return nil
	}
	return c.recount(ctx, key)
}

// limit cuts what was decided to what the limits leave.
func (c *Controller) limit(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, decision scaling.Decision,
) scaling.Decision {
	granted := c.slots(ctx, sj, r, decision.Create, 0)
	decision.Reason += waits(decision.Create - granted)
	decision.Create = granted
	return decision
}

// waits ends a reason: so many Jobs wait.
func waits(jobs int64) string {
	switch jobs {
	case 0:
		return ""
	case 1:
		return "; 1 Job waits for the limits of all ScaledJobs"
	}
	return fmt.Sprintf("; %d Jobs wait for the limits of all ScaledJobs", jobs)
}

// slots returns how many of the wanted Jobs may be created now; first of them are for items that are claimed already.
// When it is fewer, the ScaledJob is reconciled again as soon as it is given one more.
func (c *Controller) slots(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, wanted, first int64) int64 {
	if c.limiter == nil {
		return wanted
	}
	weight, err := sj.Priority()
	if err != nil {
		weight = v1alpha1.DefaultPriority
		if c.fails(ctx, sj, r, readingPriority, err) {
			c.Events.Event(sj, warning, reasonPriorityInvalid, sentence(err.Error()))
		}
	} else {
		c.works(r, readingPriority)
	}
	granted := 0
	r.limited.asked = true
	c.limiter.do(func(p *limits.Pool, now time.Time) (wake []types.NamespacedName) {
		granted, wake = p.Ask(r.key, limits.Demand{Jobs: int(wanted), First: int(first), Weight: weight}, now)
		return wake
	})
	return int64(granted)
}

// giveBackSlots gives back what was granted and not used. A ScaledJob whose Jobs cannot be made wants no more for now:
// it is tried again when that is due, not as soon as a slot is free.
func (c *Controller) giveBackSlots(ctx context.Context, r *record, granted, made int64, err error) {
	if err != nil {
		c.withdraw(r.key)
	}
	if made < granted {
		_ = c.recount(ctx, r.key) // while it is not known which of them there are, all of them count
	}
}

// leaveLimits ends a reconcile's part in the limits: one that has failed, or has not asked, wants nothing any more. A
// slot must not be kept for a ScaledJob that does not come for it, and what fails must not be tried again as soon as a
// slot is free.
func (c *Controller) leaveLimits(r *record, failed bool) {
	if failed || !r.limited.asked {
		c.withdraw(r.key)
	}
	r.limited.asked = false
}

// withdraw makes a ScaledJob want nothing.
func (c *Controller) withdraw(key types.NamespacedName) {
	if c.limiter != nil {
		c.limiter.do(func(p *limits.Pool, now time.Time) []types.NamespacedName { return p.Leave(key, now) })
	}
}

// limited tells whether a limit keeps Jobs of the ScaledJob waiting. It returns when to look again whether the status
// still says what is so; 0 for no need.
func (p *report) limited() time.Duration {
	l := p.c.limiter
	if l == nil {
		p.status.Conditions.Remove(v1alpha1.ConditionLimited)
		return 0
	}
	l.mu.Lock()
	standing := l.pool.Standing(p.r.key)
	l.mu.Unlock()
	p.c.Metrics.Limited(p.r.key, standing.Waiting)
	now := time.Now()
	again := p.r.limited.see(standing.Bound, now)
	if standing.Waiting > 0 && standing.Bound == "" {
		again = unknownAgain
	}
	if p.r.limited.bound == "" {
		p.set(v1alpha1.ConditionLimited, metav1.ConditionFalse, reasonNotLimited, "No Job waits because of a limit")
		return again
	}
	message := p.r.limited.message(l.Limits, p.before)
	if !p.was(v1alpha1.ConditionLimited) {
		p.transition(reasonLimited, message)
	}
	p.set(v1alpha1.ConditionLimited, metav1.ConditionTrue, string(p.r.limited.bound), message)
	return again
}

// see takes which limit keeps Jobs waiting now. One that begins to is named at once, and another one, or none, only
// when that one has not kept any waiting for a while: while slots come and go, the status stays as it is.
func (l *limited) see(bound limits.Bound, now time.Time) (again time.Duration) {
	switch {
	case bound != "" && bound == l.bound:
		l.seen = now
	case l.bound == "" || now.Sub(l.seen) >= calm:
		l.bound, l.seen = bound, now
	default:
		return l.seen.Add(calm).Sub(now)
	}
	return 0
}

// message says which limit it is, in words that do not change with each Job.
func (l *limited) message(all limits.Limits, sj *v1alpha1.ScaledJob) string {
	weight, err := sj.Priority()
	if err != nil {
		weight = v1alpha1.DefaultPriority
	}
	var what string
	switch l.bound {
	case limits.MaxJobs:
		what = fmt.Sprintf("the operator's limit of %s alive (--max-jobs) is reached", plural(int64(all.Jobs), "Job"))
	case limits.MaxJobsPerNamespace:
		what = fmt.Sprintf("the limit of %s alive in the namespace (--max-jobs-per-namespace) is reached",
			plural(int64(all.JobsPerNamespace), "Job"))
	case limits.MaxJobsPerSecond:
		what = fmt.Sprintf("the operator creates %s Jobs a second at the most (--max-jobs-per-second)",
			decimal(all.JobsPerSecond))
	}
	return fmt.Sprintf("Jobs wait: %s; what becomes free is shared out by weight, which is %s here (annotation %s)",
		what, decimal(weight), v1alpha1.AnnotationPriority)
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
