package local

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// podCounter implements trigger.Pods on one machine, which is the one node of its Pods.
type podCounter struct {
	// active returns the Jobs that have Pods which have not ended.
	active func() []scaledjob.Job

	mu     sync.Mutex
	askers map[*asker]struct{}
}

var _ trigger.Pods = (*podCounter)(nil)

// asker wants to be told when the Pods of a namespace change.
type asker struct {
	namespace string
	// changed holds a token when something has changed that was not looked at yet.
	changed chan struct{}
}

func newPodCounter(active func() []scaledjob.Job) *podCounter {
	return &podCounter{active: active, askers: map[*asker]struct{}{}}
}

// Count implements trigger.Pods. It never fails.
func (c *podCounter) Count(_ context.Context, namespace string, selector labels.Selector) (trigger.PodCount, error) {
	var count trigger.PodCount
	for _, job := range c.active() {
		if job.Namespace != namespace {
			continue
		}
		for _, pod := range job.Pods {
			ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
			if !ended && selector.Matches(labels.Set(pod.Labels)) {
				count.Pods, count.Nodes = count.Pods+1, 1
			}
		}
	}
	return count, nil
}

// Watch implements trigger.Pods. However much happens at once, it is counted once.
func (c *podCounter) Watch(namespace string, selector labels.Selector, changed func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{namespace, make(chan struct{}, 1)}
	c.mu.Lock()
	c.askers[a] = struct{}{}
	c.mu.Unlock()
	last, _ := c.Count(ctx, namespace, selector) // it never fails
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-a.changed:
			}
			if count, _ := c.Count(ctx, namespace, selector); count != last {
				last = count
				changed()
			}
		}
	})
	return func() {
		c.mu.Lock()
		delete(c.askers, a)
		c.mu.Unlock()
		cancel()
		watching.Wait()
	}
}

// changed tells that Pods of the namespace may have changed. It does not block.
func (c *podCounter) changed(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.askers {
		if a.namespace != namespace {
			continue
		}
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
}
