package kube

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// component is the name under which events and changes are recorded.
const component = "offboard-operator"

// Bounds on how many events one ScaledJob may give rise to: a burst, then one in ten seconds. client-go's own bound,
// one in five minutes, would keep an alternation of active and inactive from being seen, and with it the errors in
// between.
const (
	eventBurst = 50
	eventRate  = 0.1
)

// Bounds on how many events all ScaledJobs together may: a burst, then so many a second, so that the server has time
// for what is more urgent when something happens to thousands of them. Events wait for their turn, as far as there is
// room.
const (
	allBurst    = 100
	allRate     = 50
	mostWaiting = 50_000
)

// events implements scaledjob.Events: what repeats itself is counted in one object, as kubectl describe shows it.
type events struct {
	recorder    record.EventRecorder
	broadcaster record.EventBroadcaster
	may         func(types.NamespacedName) error
	log         *slog.Logger
	end         context.CancelFunc
	recording   sync.WaitGroup
	// more holds a token when something waits.
	more chan struct{}

	mu      sync.Mutex
	waiting []told // oldest first
}

// told is an event.
type told struct {
	object                     runtime.Object
	eventType, reason, message string
}

var _ scaledjob.Events = (*events)(nil)

func newEvents(
	scheme *runtime.Scheme, sink typedcorev1.EventsGetter, may func(types.NamespacedName) error, log *slog.Logger,
) *events {
	broadcaster := record.NewBroadcaster(record.WithCorrelatorOptions(record.CorrelatorOptions{
		BurstSize: eventBurst, QPS: eventRate,
	}))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: sink.Events("")})
	ctx, end := context.WithCancel(context.Background())
	e := &events{
		recorder:    broadcaster.NewRecorder(scheme, corev1.EventSource{Component: component}),
		broadcaster: broadcaster,
		may:         may, log: log, end: end, more: make(chan struct{}, 1),
	}
	e.recording.Go(func() { e.record(ctx) })
	return e
}

// Event implements scaledjob.Events.
func (e *events) Event(sj *v1alpha1.ScaledJob, eventType, reason, message string) {
	if e.may(sj.Key()) == nil {
		e.add(told{sj, eventType, reason, message})
	}
}

// unreadable records that an object cannot be read, under the reason by which a check's failure is known.
func (e *events) unreadable(object client.Object, err error) {
	if e.may(client.ObjectKeyFromObject(object)) == nil {
		e.add(told{object, corev1.EventTypeWarning, "ScaledJobCheckFailed", "It cannot be read: " + err.Error()})
	}
}

func (e *events) add(event told) {
	e.mu.Lock()
	full := len(e.waiting) >= mostWaiting
	if !full {
		e.waiting = append(e.waiting, event)
	}
	e.mu.Unlock()
	if full {
		e.log.Warn("an event is not recorded, as too many wait", "reason", event.reason, "message", event.message)
		return
	}
	signal(e.more)
}

// record records what waits, each in its turn, until ctx ends.
func (e *events) record(ctx context.Context) {
	turn := rate.NewLimiter(allRate, allBurst)
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.more:
		}
		for event, found := e.next(); found; event, found = e.next() {
			if turn.Wait(ctx) != nil {
				return
			}
			e.recorder.Event(event.object, event.eventType, event.reason, event.message)
		}
	}
}

func (e *events) next() (event told, found bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		e.waiting = nil // the memory of a crowd is not kept
		return event, false
	}
	event = e.waiting[0]
	e.waiting = e.waiting[1:]
	return event, true
}

// close ends the goroutines.
func (e *events) close() {
	e.end()
	e.recording.Wait()
	e.broadcaster.Shutdown()
}
