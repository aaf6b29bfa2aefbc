package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	normal  = corev1.EventTypeNormal
	warning = corev1.EventTypeWarning

	messageActive   = "Scaling is performed because triggers are active"
	messageInactive = "Scaling is not performed because triggers are not active"
)

// What can fail for a ScaledJob besides its triggers, as the log names it.
const (
	checking     = "the check"
	listingJobs  = "listing Jobs"
	creatingJobs = "creating Jobs"
	makingPods   = "making the Jobs' Pods"
	rollingOut   = "deleting Jobs of an older version"
	trimming     = "deleting finished Jobs"
	writing      = "writing the status"
	claiming     = "claiming and settling items"

	readingPriority = "reading the priority"
)

// writeEvery is how often the status of one ScaledJob is written at the most, and what has been created is told.
const writeEvery = time.Second

// report collects what one reconcile has to say, so that status is written once and only when it changed.
type report struct {
	c      *Controller
	r      *record
	before *v1alpha1.ScaledJob
	// last is the status that the reconcile before arrived at.
	last *v1alpha1.ScaledJobStatus
	draft
}

// draft is a status that is to be written, and what is to be told together with it.
type draft struct {
	status v1alpha1.ScaledJobStatus
	// transitions are the events of conditions that have changed, by reason and message.
	transitions [][2]string
	// created counts Jobs.
	created int
}

func (c *Controller) newReport(sj *v1alpha1.ScaledJob, r *record) *report {
	p := &report{c: c, r: r, before: sj, last: &sj.Status}
	if unwritten := r.unwritten; unwritten != nil {
		p.last, p.draft = &unwritten.status, *unwritten
	}
	p.status = *p.last.DeepCopy()
	p.declared()
	return p
}

// declared fills the parts of the status that the manifest alone tells.
func (p *report) declared() {
	var kinds, auths []string
	for _, t := range p.before.Spec.Triggers {
		if !slices.Contains(kinds, t.Type) {
			kinds = append(kinds, t.Type)
		}
		if ref := t.AuthenticationRef; ref != nil && !slices.Contains(auths, ref.Name) {
			auths = append(auths, ref.Name)
		}
	}
	joinedKinds, joinedAuths := strings.Join(kinds, ","), strings.Join(auths, ",")
	p.status.TriggersTypes, p.status.AuthenticationsTypes = &joinedKinds, &joinedAuths
}

func (p *report) event(eventType, reason, message string) {
	p.c.Events.Event(p.before, eventType, reason, message)
}

func (p *report) transition(reason, message string) {
	p.transitions = append(p.transitions, [2]string{reason, message})
}

func (p *report) set(t v1alpha1.ConditionType, status metav1.ConditionStatus, reason, message string) {
	p.status.Conditions.Set(v1alpha1.Condition{Type: t, Status: status, Reason: reason, Message: message})
}

// was tells whether the condition was true when the reconcile began.
func (p *report) was(t v1alpha1.ConditionType) bool {
	return p.last.Conditions.Get(t).Status == metav1.ConditionTrue
}

func (p *report) jobsUnknown(ctx context.Context, err error) {
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonJobsUnknown, "The Jobs cannot be listed: "+err.Error())
	p.c.fails(ctx, p.before, p.r, listingJobs, err)
}

func (p *report) checkFailed(ctx context.Context, err error) {
	message := sentence(err.Error())
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonCheckFailed, message)
	p.set(v1alpha1.ConditionActive, metav1.ConditionUnknown, reasonUnknownState, "ScaledJob check failed")
	if p.c.fails(ctx, p.before, p.r, checking, err) {
		p.event(warning, reasonScalerFailed, message)
		p.event(warning, reasonCheckFailed, message)
	}
}

// paused tells that nothing is done until the ScaledJob is unpaused. Whatever has failed before is not tried meanwhile:
// it is news again if it still fails then.
func (p *report) paused() {
	if !p.was(v1alpha1.ConditionPaused) {
		p.transition(reasonPaused, "ScaledJob is paused")
	}
	p.set(v1alpha1.ConditionPaused, metav1.ConditionTrue, reasonPaused, "ScaledJob is paused")
	p.set(v1alpha1.ConditionReady, metav1.ConditionTrue, reasonReady, "ScaledJob is paused: no Job is created")
	maps.DeleteFunc(p.r.failing, func(what string, _ wordings) bool { return what != trimming && what != writing })
}

func (p *report) notPaused() {
	if p.was(v1alpha1.ConditionPaused) {
		p.transition(reasonUnpaused, "ScaledJob is unpaused")
		p.set(v1alpha1.ConditionPaused, metav1.ConditionFalse, reasonUnpaused, "ScaledJob is unpaused")
	} else if p.status.Conditions.Get(v1alpha1.ConditionPaused).Status != metav1.ConditionFalse {
		p.set(v1alpha1.ConditionPaused, metav1.ConditionFalse, reasonUnpaused, "ScaledJob is not paused")
	}
}

// measured tells what the triggers answered.
func (p *report) measured(m measured) {
	p.c.works(p.r, checking)
	active := m.active()
	ready := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: reasonReady,
		Message: "ScaledJob is defined correctly and is ready for scaling"}
	switch {
	case len(m.errors) == 0:
	case len(m.readings) > 0:
		ready.Status, ready.Reason = metav1.ConditionUnknown, reasonPartialError
		ready.Message = "Some triggers do not work: " + join(m.errors)
	default:
		ready.Status, ready.Reason = metav1.ConditionFalse, reasonTriggerError
		ready.Message = "The triggers do not work: " + join(m.errors)
	}
	if m.fallback {
		ready.Message += "; the fallback says how many Jobs there are"
	}
	p.status.Conditions.Set(ready)
	wasActive := p.was(v1alpha1.ConditionActive)
	switch {
	case active:
		if !wasActive {
			p.transition(reasonActive, messageActive)
		}
		p.set(v1alpha1.ConditionActive, metav1.ConditionTrue, reasonScalerActive, messageActive)
		p.active(time.Now())
	case len(m.readings) == 0 && len(m.errors) > 0:
		p.set(v1alpha1.ConditionActive, metav1.ConditionUnknown, reasonUnknownState, "No trigger could be measured")
	default:
		if wasActive {
			p.transition(reasonInactive, messageInactive)
		}
		p.set(v1alpha1.ConditionActive, metav1.ConditionFalse, reasonScalerNotActive, messageInactive)
	}
	p.triggers(m)
}

// fallback tells whether the ScaledJob's fallback holds, if it has one.
func (p *report) fallback(m measured) {
	spec := p.before.Spec.Fallback
	switch {
	case spec == nil || p.before.ClaimsItems():
		p.status.Conditions.Remove(v1alpha1.ConditionFallback)
	case len(m.fallen) == 0:
		p.set(v1alpha1.ConditionFallback, metav1.ConditionFalse, reasonNoFallback, "No fallback is needed")
	default:
		message := fmt.Sprintf("More than %d times in a row not measured: %s", spec.FailureThreshold,
			strings.Join(m.fallen, ", "))
		if !p.was(v1alpha1.ConditionFallback) {
			p.transition(reasonFallback, message)
		}
		p.set(v1alpha1.ConditionFallback, metav1.ConditionTrue, reasonFallback, message)
	}
}

// active notes the time. It alone is no reason to write more often than the polling interval, as KEDA would.
func (p *report) active(now time.Time) {
	last := p.status.LastActiveTime
	if last == nil || now.Sub(last.Time) >= p.before.Polling() || !p.was(v1alpha1.ConditionActive) {
		p.status.LastActiveTime = &metav1.Time{Time: now.Truncate(time.Second)}
	}
}

// triggers fills the parts of the status that tell of the triggers as they were measured.
func (p *report) triggers(m measured) {
	p.status.ExternalMetricNames = nil
	p.status.TriggersActivity = map[string]v1alpha1.TriggerActivityStatus{}
	for _, t := range p.r.live.all() {
		p.status.ExternalMetricNames = append(p.status.ExternalMetricNames, t.metric)
		p.status.TriggersActivity[t.metric] = v1alpha1.TriggerActivityStatus{IsActive: m.activity[t.metric]}
	}
}

func (p *report) jobsCreated(n int, why string) {
	if n > 0 {
		p.created += n
		p.c.Log.Debug("created Jobs", "scaledjob", p.r.key.String(), "jobs", n, "reason", why)
	}
}

func (p *report) createFailed(ctx context.Context, failures []error) {
	refused := 0
	for _, err := range failures {
		if isRefusal(err) {
			refused++
		}
	}
	p.c.Metrics.Refused(p.r.key, refused)
	err := failures[0]
	message := "Jobs could not be created: " + err.Error()
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonJobCreateFailed, message)
	if p.c.fails(ctx, p.before, p.r, creatingJobs, err) {
		p.event(warning, reasonJobCreateFailed, message)
	}
}

// noneCreated is for a reconcile that had no Job to create. A refusal from before stands while work waits: it is over
// when a Job has been created, not because none was asked for.
func (p *report) noneCreated(waiting float64) {
	if _, refused := p.r.failing[creatingJobs]; !refused {
		return
	}
	if waiting <= 0 {
		p.createSucceeded()
		return
	}
	before := p.last.Conditions.Get(v1alpha1.ConditionReady)
	if p.status.Conditions.Get(v1alpha1.ConditionReady).Status == metav1.ConditionTrue &&
		before.Reason == reasonJobCreateFailed {
		p.status.Conditions.Set(before)
	}
}

// settled tells what became of items.
func (p *report) settled(all []settling) {
	count := map[queue.Verb]int{}
	example := map[queue.Verb]*settling{}
	for i := range all {
		s := &all[i]
		count[s.Verb]++
		example[s.Verb] = s
	}
	for verb, outcome := range map[queue.Verb]string{
		queue.Ack: "done", queue.PutOff: "retry", queue.Bury: "dead", queue.Drop: "dropped",
	} {
		if n := count[verb]; n > 0 {
			p.c.Metrics.Settled(p.r.key, outcome, n)
		}
	}
	for verb, told := range map[queue.Verb]struct{ reason, what string }{
		queue.Bury: {reasonItemsBuried, "dead"}, queue.Drop: {reasonItemsDropped, "dropped"},
	} {
		n := count[verb]
		if n == 0 {
			continue
		}
		s := example[verb]
		message := fmt.Sprintf("Item %s is %s after attempt %d: %s", s.ID, told.what, s.Attempt, s.Failure.Reason)
		if n > 1 {
			message = fmt.Sprintf("%d items are %s, for example %s after attempt %d: %s", n, told.what, s.ID, s.Attempt,
				s.Failure.Reason)
		}
		p.event(warning, told.reason, message)
	}
}

// claimFailed tells that items cannot be claimed or settled.
func (p *report) claimFailed(ctx context.Context, err error) {
	message := sentence(err.Error())
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonClaimFailed, message)
	if p.c.fails(ctx, p.before, p.r, claiming, err) {
		p.event(warning, reasonClaimFailed, message)
	}
}

// podsRefused tells that Jobs have been made whose Pods cannot be, and why: a quota or an admission check is against
// them. Empty words mean that there are no such Jobs.
func (p *report) podsRefused(ctx context.Context, words string) {
	if words == "" {
		p.c.works(p.r, makingPods)
		return
	}
	message := "Jobs have no Pods: " + words
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonJobCreateFailed, message)
	if p.c.fails(ctx, p.before, p.r, makingPods, errors.New(words)) {
		p.event(warning, reasonJobCreateFailed, message)
	}
}

func (p *report) createSucceeded() { p.c.works(p.r, creatingJobs) }

// write stores the status if it changed, and tells what was to be told. Where that was done only just now, it keeps
// them, and returns how long until they are due.
func (p *report) write(ctx context.Context) (wait time.Duration, err error) {
	if ready := p.status.Conditions.Get(v1alpha1.ConditionReady); ready.Status == metav1.ConditionTrue &&
		!p.was(v1alpha1.ConditionReady) {
		p.transition(reasonReady, "ScaledJob is ready for scaling")
	}
	changed := !equality.Semantic.DeepEqual(p.before.Status, p.status)
	if !changed && p.created == 0 && len(p.transitions) == 0 {
		p.r.unwritten = nil
		return 0, nil
	}
	p.r.unwritten = &p.draft
	if wait = writeEvery - time.Since(p.r.written); wait > 0 {
		return wait, nil
	}
	p.r.written = time.Now()
	if p.created > 0 {
		p.event(normal, reasonJobsCreated, fmt.Sprintf("Created %d jobs", p.created))
		p.created = 0
	}
	if changed {
		after := p.before.DeepCopy()
		after.Status = p.status
		if err := p.c.Objects.UpdateStatus(ctx, after); err != nil {
			if p.c.fails(ctx, p.before, p.r, writing, err) {
				p.event(warning, reasonUpdateFailed, sentence(err.Error()))
			}
			return 0, fmt.Errorf("write the status of ScaledJob %s: %w", p.r.key, err)
		}
		p.c.works(p.r, writing)
	}
	p.r.unwritten = nil
	for _, t := range p.transitions {
		p.event(normal, t[0], t[1])
	}
	return 0, nil
}

// fails notes that something does not work, and logs it when that is news; it returns whether it is: the first time,
// and when the words are others than before, but for numbers. That something fails because this program ends is no
// news.
func (c *Controller) fails(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, what string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if !r.failing[what].tell(err.Error()) {
		return false
	}
	r.failing[what] = append(r.failing[what], wording(err.Error()))
	c.Log.Error(what+" does not work", "scaledjob", r.key.String(), "error", err)
	if strings.HasPrefix(what, "trigger ") {
		c.Events.Event(sj, warning, reasonScalerFailed, sentence(err.Error()))
	}
	return true
}

// maxWordings bounds what is told of one failure that goes on, in case its words never are the same.
const maxWordings = 5

// wordings are those in which a failure that goes on has been told.
type wordings []string

func (w wordings) tell(message string) bool {
	return len(w) < maxWordings && !slices.Contains(w, wording(message))
}

// numbers are those with a point or colon as well, such as durations and addresses.
var numbers = regexp.MustCompile(`[0-9]+([.:][0-9]+)*`)

// wording is a message without its numbers, which differ from one attempt to the next.
func wording(message string) string { return numbers.ReplaceAllString(message, "#") }

// works notes that something works, and logs it when it had failed before.
func (c *Controller) works(r *record, what string) {
	if _, failed := r.failing[what]; failed {
		delete(r.failing, what)
		c.Log.Info(what+" works again", "scaledjob", r.key.String())
	}
}

func join(errs []error) string {
	messages := make([]string, len(errs))
	for i, err := range errs {
		messages[i] = err.Error()
	}
	return strings.Join(messages, "; ")
}

// sentence makes an error's text begin as a message for people does.
func sentence(message string) string {
	if message == "" {
		return message
	}
	return strings.ToUpper(message[:1]) + message[1:]
}
