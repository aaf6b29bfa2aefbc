package scaledjob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

const (
	normal  = corev1.EventTypeNormal
	warning = corev1.EventTypeWarning

	messageActive   = "Scaling is performed because triggers are active"
	messageInactive = "Scaling is not performed because triggers are not active"
)

// report collects what one reconcile has to say, so that status is written once and only when it changed.
type report struct {
	c      *Controller
	r      *record
	before *v1alpha1.ScaledJob
	status v1alpha1.ScaledJobStatus
}

func (c *Controller) newReport(sj *v1alpha1.ScaledJob, r *record) *report {
	return &report{c: c, r: r, before: sj, status: *sj.Status.DeepCopy()}
}

func (p *report) event(eventType, reason, message string) {
	p.c.Events.Event(p.before, eventType, reason, message)
}

func (p *report) set(t v1alpha1.ConditionType, status metav1.ConditionStatus, reason, message string) {
	p.status.Conditions.Set(v1alpha1.Condition{Type: t, Status: status, Reason: reason, Message: message})
}

// was tells whether the condition was true when the reconcile began.
func (p *report) was(t v1alpha1.ConditionType) bool {
	return p.before.Status.Conditions.Get(t).Status == metav1.ConditionTrue
}

func (p *report) jobsUnknown(ctx context.Context, err error) {
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonJobsUnknown, "The Jobs cannot be listed: "+err.Error())
	p.c.fails(ctx, p.before, p.r, "Jobs", err)
}

func (p *report) checkFailed(ctx context.Context, err error) {
	message := sentence(err.Error())
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonCheckFailed, message)
	p.set(v1alpha1.ConditionActive, metav1.ConditionUnknown, reasonUnknownState, "ScaledJob check failed")
	if p.c.fails(ctx, p.before, p.r, "check", err) {
		p.event(warning, reasonCheckFailed, message)
	}
}

func (p *report) paused(paused bool) {
	was := p.was(v1alpha1.ConditionPaused)
	switch {
	case paused && !was:
		p.event(normal, reasonPaused, "ScaledJob is paused")
		p.set(v1alpha1.ConditionPaused, metav1.ConditionTrue, reasonPaused, "ScaledJob is paused")
	case !paused && was:
		p.event(normal, reasonUnpaused, "ScaledJob is unpaused")
		p.set(v1alpha1.ConditionPaused, metav1.ConditionFalse, reasonUnpaused, "ScaledJob is unpaused")
	case !paused:
		if p.status.Conditions.Get(v1alpha1.ConditionPaused).Status != metav1.ConditionFalse {
			p.set(v1alpha1.ConditionPaused, metav1.ConditionFalse, reasonUnpaused, "ScaledJob is not paused")
		}
	}
}

// measured tells what the triggers answered.
func (p *report) measured(m measured) {
	delete(p.r.failing, "check")
	delete(p.r.failing, "Jobs")
	active := m.active()
	ready := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: reasonReady,
		Message: "ScaledJob is defined correctly and is ready for scaling"}
	switch {
	case len(m.errors) == 0:
		if !p.was(v1alpha1.ConditionReady) {
			p.event(normal, reasonReady, "ScaledJob is ready for scaling")
		}
	case len(m.readings) > 0:
		ready.Status, ready.Reason = metav1.ConditionUnknown, reasonPartialError
		ready.Message = "Some triggers do not work: " + join(m.errors)
	default:
		ready.Status, ready.Reason = metav1.ConditionFalse, reasonTriggerError
		ready.Message = "The triggers do not work: " + join(m.errors)
	}
	p.status.Conditions.Set(ready)
	wasActive := p.was(v1alpha1.ConditionActive)
	switch {
	case active:
		if !wasActive {
			p.event(normal, reasonActive, messageActive)
		}
		p.set(v1alpha1.ConditionActive, metav1.ConditionTrue, reasonScalerActive, messageActive)
		p.active(time.Now())
	case len(m.readings) == 0 && len(m.errors) > 0:
		p.set(v1alpha1.ConditionActive, metav1.ConditionUnknown, reasonUnknownState, "No trigger could be measured")
	default:
		if wasActive {
			p.event(normal, reasonInactive, messageInactive)
		}
		p.set(v1alpha1.ConditionActive, metav1.ConditionFalse, reasonScalerNotActive, messageInactive)
	}
	p.triggers(m)
}

// active notes the time. It alone is no reason to write more often than the polling interval, as KEDA would.
func (p *report) active(now time.Time) {
	last := p.status.LastActiveTime
	if last == nil || now.Sub(last.Time) >= p.before.Polling() || !p.was(v1alpha1.ConditionActive) {
		p.status.LastActiveTime = &metav1.Time{Time: now.Truncate(time.Second)}
	}
}

// triggers fills the parts of the status that describe the triggers.
func (p *report) triggers(m measured) {
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
	p.status.ExternalMetricNames = nil
	p.status.TriggersActivity = map[string]v1alpha1.TriggerActivityStatus{}
	for _, t := range p.r.live.all() {
		p.status.ExternalMetricNames = append(p.status.ExternalMetricNames, t.metric)
		p.status.TriggersActivity[t.metric] = v1alpha1.TriggerActivityStatus{IsActive: m.activity[t.metric]}
	}
}

func (p *report) created(n int, why string) {
	if n > 0 {
		p.event(normal, reasonJobsCreated, fmt.Sprintf("Created %d jobs", n))
		p.c.Log.Debug("created Jobs", "scaledjob", p.r.key.String(), "jobs", n, "reason", why)
	}
}

func (p *report) createFailed(ctx context.Context, err error, n int) {
	message := fmt.Sprintf("%d Jobs could not be created: %v", n, err)
	p.set(v1alpha1.ConditionReady, metav1.ConditionFalse, reasonJobCreateFailed, message)
	if p.c.fails(ctx, p.before, p.r, "create", err) {
		p.event(warning, reasonJobCreateFailed, message)
	}
}

func (p *report) createSucceeded() { p.c.works(p.r, "create") }

// write stores the status if it changed.
func (p *report) write(ctx context.Context) error {
	if equality.Semantic.DeepEqual(p.before.Status, p.status) {
		return nil
	}
	after := p.before.DeepCopy()
	after.Status = p.status
	if err := p.c.Objects.UpdateStatus(ctx, after); err != nil {
		return fmt.Errorf("write the status of ScaledJob %s: %w", p.r.key, err)
	}
	return nil
}

// fails notes that something does not work, and logs it when that is news; it returns whether it is. That something
// fails because this program ends is no news.
func (c *Controller) fails(ctx context.Context, sj *v1alpha1.ScaledJob, r *record, what string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	last, known := r.failing[what]
	r.failing[what] = err.Error()
	if known && last == err.Error() {
		return false
	}
	if !known {
		c.Log.Error(what+" does not work", "scaledjob", r.key.String(), "error", err)
		if strings.HasPrefix(what, "trigger ") {
			c.Events.Event(sj, warning, reasonScalerFailed, sentence(err.Error()))
		}
	}
	return !known
}

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
