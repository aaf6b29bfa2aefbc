package pods

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

// defaultGrace is the default of terminationGracePeriodSeconds.
const defaultGrace = corev1.DefaultTerminationGracePeriodSeconds * time.Second

// address is what processes of this machine are reached at.
const address = "127.0.0.1"

// pod is a Pod that runs. Its state is guarded by mu; publishing keeps the updates in order and is never taken while mu
// is held.
type pod struct {
	runner *Runner
	spec   *corev1.Pod // never modified
	update func(corev1.PodStatus)
	done   chan struct{}

	// stopped ends when the Pod is to stop. It is the Pod's life, which no caller's context bounds.
	stopped context.Context
	cancel  context.CancelFunc

	publishing sync.Mutex

	mu         sync.Mutex
	init, main []*container
	stop       *Stop
	stoppedAt  time.Time
	killAt     time.Time
	deadline   clock.Timer
	finished   bool
	status     corev1.PodStatus // phase, reason and conditions as last published, and what never changes
}

func newPod(r *Runner, spec *corev1.Pod, update func(corev1.PodStatus)) *pod {
	now := metav1.NewTime(r.cfg.Clock.Now())
	spec = spec.DeepCopy()
	spec.Status = corev1.PodStatus{
		Phase:     corev1.PodPending,
		HostIP:    address,
		HostIPs:   []corev1.HostIP{{IP: address}},
		PodIP:     address,
		PodIPs:    []corev1.PodIP{{IP: address}},
		StartTime: &now,
		QOSClass:  spec.Status.QOSClass,
	}
	p := &pod{runner: r, spec: spec, update: update, done: make(chan struct{}), status: *spec.Status.DeepCopy()}
	p.stopped, p.cancel = context.WithCancel(context.Background())
	reason := "ContainerCreating"
	if len(spec.Spec.InitContainers) > 0 {
		reason = reasonInitializing
	}
	for i := range spec.Spec.InitContainers {
		p.init = append(p.init, newContainer(p, &spec.Spec.InitContainers[i], true, reasonInitializing))
	}
	for i := range spec.Spec.Containers {
		p.main = append(p.main, newContainer(p, &spec.Spec.Containers[i], false, reason))
	}
	return p
}

// run owns the Pod from its start to its end.
func (p *pod) run() {
	defer p.runner.remove(p)
	defer p.cancel()
	p.armDeadline()
	if p.runInit() {
		p.runMain()
	}
	p.finish()
}

// runInit runs the init containers in order, and tells whether all have succeeded.
func (p *pod) runInit() bool {
	for _, c := range p.init {
		if !c.run() {
			return false
		}
	}
	return true
}

func (p *pod) runMain() {
	var others sync.WaitGroup
	for _, c := range p.main[1:] {
		others.Go(func() { c.run() })
	}
	p.main[0].run()
	others.Wait()
}

// armDeadline stops the Pod after its activeDeadlineSeconds.
func (p *pod) armDeadline() {
	if p.spec.Spec.ActiveDeadlineSeconds == nil {
		return
	}
	after := time.Duration(*p.spec.Spec.ActiveDeadlineSeconds) * time.Second
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = p.runner.cfg.Clock.AfterFunc(after, func() {
		p.requestStop(Stop{
			Reason:  "DeadlineExceeded",
			Message: "The pod ran longer than its activeDeadlineSeconds, " + after.String(),
		})
	})
}

// requestStop tells whether there was still something to stop.
func (p *pod) requestStop(stop Stop) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return false
	}
	grace := p.grace(stop)
	now := time.Now()
	killAt := now.Add(grace)
	switch {
	case p.stop == nil:
		p.stop, p.stoppedAt, p.killAt = &stop, now, killAt
		p.cancel()
	case killAt.Before(p.killAt):
		p.killAt = killAt
	default:
		return true
	}
	for _, list := range [][]*container{p.init, p.main} {
		for _, c := range list {
			if c.process != nil {
				c.process.Terminate(grace)
			}
		}
	}
	return true
}

func (p *pod) grace(stop Stop) time.Duration {
	switch {
	case stop.Grace != nil:
		return *stop.Grace
	case p.spec.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*p.spec.Spec.TerminationGracePeriodSeconds) * time.Second
	default:
		return defaultGrace
	}
}

// finish publishes the last status. From its first step on the Pod cannot be stopped any more: its outcome is decided.
func (p *pod) finish() {
	p.mu.Lock()
	p.finished = true
	if p.deadline != nil {
		p.deadline.Stop()
	}
	if p.stop != nil && p.decidedBefore(p.stoppedAt) {
		p.stop = nil
	}
	for _, list := range [][]*container{p.init, p.main} {
		for _, c := range list {
			c.settle()
		}
	}
	p.mu.Unlock()
	p.publish()
}

// decidedBefore tells whether every container had ended for good by then. A request to stop that came later, while the
// last output was still being stored, must not make work count as failed that was done: it would be done twice. mu is
// held.
func (p *pod) decidedBefore(at time.Time) bool {
	for _, c := range p.init {
		if !c.endedBefore(at) {
			return false
		}
		if !c.succeeded() {
			return true
		}
	}
	for _, c := range p.main {
		if !c.endedBefore(at) {
			return false
		}
	}
	return true
}

// change modifies the state and publishes the status that follows from it.
func (p *pod) change(modify func()) {
	p.mu.Lock()
	modify()
	p.mu.Unlock()
	p.publish()
}

func (p *pod) publish() {
	p.publishing.Lock()
	defer p.publishing.Unlock()
	p.mu.Lock()
	p.computeStatus(metav1.NewTime(p.runner.cfg.Clock.Now()))
	status := p.status.DeepCopy()
	p.mu.Unlock()
	p.update(*status)
}

// sleep waits for d, and tells whether the Pod was not stopped meanwhile.
func (p *pod) sleep(d time.Duration) bool {
	timer := p.runner.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return p.stopped.Err() == nil
	case <-p.stopped.Done():
		return false
	}
}
