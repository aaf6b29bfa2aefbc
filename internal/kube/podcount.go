package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// The pauses between attempts to watch Pods. After a watch that has lasted, they begin again with the shortest.
const (
	shortestWatchPause = 100 * time.Millisecond
	longestWatchPause  = 5 * time.Second
)

// podPage is how many Pods are asked for at once.
const podPage = 500

// unended takes the Pods that have neither succeeded nor failed. To a watch, one that ends is one that is deleted.
var unended = fields.AndSelectors(
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
).String()

// podCounter implements trigger.Pods on a cluster. The Pods of a namespace are watched, and what counts of them is held
// in memory, while anybody wants to be told of them; that is one watch a namespace.
//
// A count comes from memory while the watch is open, and from the server while it is not: a count from before an outage
// is no knowledge. An informer would not do, since it does not tell whether its watch is open. A server that falls
// silent without closing its connections is noticed within 45 seconds, by the client's own pings.
type podCounter struct {
	client typedcorev1.PodsGetter
	log    *slog.Logger

	mu      sync.Mutex
	watched map[string]*watchedPods // by namespace
}

var _ trigger.Pods = (*podCounter)(nil)

func newPodCounter(client typedcorev1.PodsGetter, log *slog.Logger) *podCounter {
	return &podCounter{client: client, log: log, watched: map[string]*watchedPods{}}
}

// Count implements trigger.Pods.
func (c *podCounter) Count(ctx context.Context, namespace string, selector labels.Selector) (trigger.PodCount, error) {
	c.mu.Lock()
	w := c.watched[namespace]
	c.mu.Unlock()
	if w != nil {
		if count, current := w.count(selector); current {
			return count, nil
		}
	}
	var sum tally
	_, err := eachUnended(ctx, c.client.Pods(namespace), selector, func(pod *corev1.Pod) { sum.add(pod.Spec.NodeName) })
	return sum.count(), err
}

// Watch implements trigger.Pods.
func (c *podCounter) Watch(namespace string, selector labels.Selector, changed func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched[namespace]
	if w == nil {
		w = watchPods(c.client.Pods(namespace), c.log.With("namespace", namespace))
		c.watched[namespace] = w
	}
	a := &asker{selector, changed}
	w.add(a)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		last := w.remove(a)
		if last {
			delete(c.watched, namespace)
		}
		c.mu.Unlock()
		if last {
			w.end()
		}
	})
}

// eachUnended reads from the server the Pods that the selector takes and that have not ended, page by page, and returns
// the version as of which these are all.
func eachUnended(
	ctx context.Context, client typedcorev1.PodInterface, selector labels.Selector, do func(*corev1.Pod),
) (version string, err error) {
	options := metav1.ListOptions{LabelSelector: selector.String(), FieldSelector: unended, Limit: podPage}
	for {
		page, err := client.List(ctx, options)
		if err != nil {
			return "", err
		}
		for i := range page.Items {
			do(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return page.ResourceVersion, nil
		}
	}
}

// tally counts Pods and their nodes.
type tally struct {
	pods  int
	nodes map[string]struct{}
}

// add counts a Pod; node is empty while it has none.
func (t *tally) add(node string) {
	t.pods++
	if node == "" {
		return
	}
	if t.nodes == nil {
		t.nodes = map[string]struct{}{}
	}
	t.nodes[node] = struct{}{}
}

func (t *tally) count() trigger.PodCount { return trigger.PodCount{Pods: t.pods, Nodes: len(t.nodes)} }

// watchedPods are the Pods of one namespace that have not ended.
type watchedPods struct {
	client typedcorev1.PodInterface
	log    *slog.Logger
	end    func() // ends the watch and waits for that

	mu sync.Mutex
	// known are the Pods, and nothing while the watch is not open.
	known  map[types.UID]knownPod
	open   bool
	askers map[*asker]struct{}
}

// knownPod is what counts of a Pod. Its labels are never changed.
type knownPod struct {
	labels labels.Set
	node   string
}

// asker wants to be told of the Pods that a selector takes.
type asker struct {
	selector labels.Selector
	changed  func()
}

// watchPods begins to watch.
func watchPods(client typedcorev1.PodInterface, log *slog.Logger) *watchedPods {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchedPods{client: client, log: log, askers: map[*asker]struct{}{}}
	var watching sync.WaitGroup
	watching.Go(func() { w.run(ctx) })
	w.end = func() { cancel(); watching.Wait() }
	return w
}

func (w *watchedPods) add(a *asker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.askers[a] = struct{}{}
}

// remove sees to it that a is told nothing more, and tells whether it was the last one.
func (w *watchedPods) remove(a *asker) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.askers, a)
	return len(w.askers) == 0
}

// count counts the Pods that the selector takes; not current while the watch is not open.
func (w *watchedPods) count(selector labels.Selector) (count trigger.PodCount, current bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum tally
	for _, pod := range w.known {
		if selector.Matches(pod.labels) {
			sum.add(pod.node)
		}
	}
	return sum.count(), w.open
}

// run watches until ctx ends.
func (w *watchedPods) run(ctx context.Context) {
	pause, told := shortestWatchPause, false
	for {
		lasted, err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if lasted > 0 {
			told = false
		}
		if lasted > longestWatchPause {
			pause = shortestWatchPause
		}
		if err != nil && !told {
			w.log.WarnContext(ctx, "the Pods that triggers count are not watched now, so that each measurement asks the server",
				"error", err)
			told = true
		}
		if !wait(ctx, pause+rand.N(pause/2)) {
			return
		}
		pause = min(2*pause, longestWatchPause)
	}
}

// watch lists the Pods and watches them for as long as the server lets it, and returns for how long that was. Servers
// end every watch after a while.
func (w *watchedPods) watch(ctx context.Context) (lasted time.Duration, err error) {
	known := map[types.UID]knownPod{}
	version, err := eachUnended(ctx, w.client, labels.Everything(), func(pod *corev1.Pod) {
		known[pod.UID] = knownPod{pod.Labels, pod.Spec.NodeName}
	})
	if err != nil {
		return 0, fmt.Errorf("list: %w", err)
	}
	events, err := w.client.Watch(ctx, metav1.ListOptions{FieldSelector: unended, ResourceVersion: version})
	if err != nil {
		return 0, fmt.Errorf("watch: %w", err)
	}
	defer events.Stop()
	began := time.Now()
	w.begin(known)
	defer w.lose()
	for event := range events.ResultChan() {
		pod, isPod := event.Object.(*corev1.Pod)
		switch {
		case event.Type == watch.Error:
			return time.Since(began), fmt.Errorf("watch: %w", apierrors.FromObject(event.Object))
		case isPod:
			w.show(pod, event.Type != watch.Deleted)
		}
	}
	return time.Since(began), nil
}

// begin takes what there is as a watch begins. What has changed while there was none, nobody has told.
func (w *watchedPods) begin(known map[types.UID]knownPod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.open = known, true
	for a := range w.askers {
		a.changed()
	}
}

// lose forgets the Pods, since nobody tells any more what becomes of them.
func (w *watchedPods) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.open = nil, false
}

// show takes a Pod from the watch, or the end of one, and tells those whose count that changes.
func (w *watchedPods) show(pod *corev1.Pod, there bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, was := w.known[pod.UID]
	after := knownPod{pod.Labels, pod.Spec.NodeName}
	switch {
	case !there:
		delete(w.known, pod.UID)
	case was && before.node == after.node && maps.Equal(before.labels, after.labels):
		return
	default:
		w.known[pod.UID] = after
	}
	for a := range w.askers {
		counted, counts := was && a.selector.Matches(before.labels), there && a.selector.Matches(after.labels)
		if counted != counts || counts && before.node != after.node {
			a.changed()
		}
	}
}
