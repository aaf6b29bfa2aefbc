// Package trigger defines what a source of work must be able to do, the registry of the types, and the one declaration
// of a type's parameters from which decoding, validation and documentation follow.
//
// A trigger knows nothing of ScaledJobs, Jobs or controllers. Each type lives in a package of its own below this one.
package trigger

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Measurement is one reading of a trigger.
type Measurement struct {
	// Value says how much work waits, for example the length of a list.
	Value float64
	// Target is how much of it one Job takes; above zero.
	Target float64
	// Active tells whether Value is above the activation threshold, so that Jobs may be started for it.
	Active bool
	// Wake tells when items come back to the source by themselves, as the source's queue.Queue has it: those that are
	// delayed, put off or leased. Nil when the source does not tell.
	Wake *string
	// Holds is for how long the measurement need not be repeated, because Watch tells when it may have changed; 0 when it
	// does not.
	Holds time.Duration
}

// MeasureTimeout bounds one measurement, what must be connected or looked up for it included.
const MeasureTimeout = 5 * time.Second

// Trigger is a source that says how much work waits. Its methods may be called from several goroutines.
type Trigger interface {
	// Measure reads the source. An error means that the amount is unknown, never that there is none.
	Measure(ctx context.Context) (Measurement, error)
	// Close ends connections and goroutines. Measure and Watch must not be called afterwards.
	Close()
}

// Watcher is implemented by triggers that can tell when their measurement may have changed.
type Watcher interface {
	// Watch calls changed, from any goroutine and perhaps before it returns, each time that Measure might give another
	// answer than it last gave, until stop is called, after whose return it calls no more. It handles outages itself.
	// changed does not block. Spurious calls are allowed; a call that is lost costs at most what Measurement.Holds tells
	// or the polling interval, whichever is longer.
	Watch(changed func()) (stop func())
}

// Pusher is implemented by triggers whose source takes items.
type Pusher interface {
	// Push appends the items in their order, all of them or none, and returns how many there are then; 0 when it was
	// given none. After an error it is unknown whether they arrived when the connection broke while the server worked;
	// the error then says so.
	Push(ctx context.Context, items ...[]byte) (int64, error)
	// Queue returns the name of what Push appends to, for example the list's. It may hold any bytes.
	Queue() string
}

// Claimer is implemented by triggers whose source can hand out items one by one, so that each is bound to one Job.
type Claimer interface {
	// Items returns the queue of that name at the trigger's source; empty means the one that the trigger measures. It may
	// be used until Close.
	Items(name string) queue.Queue
	// Claimed returns how many claims there are on the queue that the trigger measures, whosever they are. It costs no
	// more than Measure does.
	Claimed(ctx context.Context) (int64, error)
}

// Kinds of objects that hold data.
const (
	ConfigMap = "ConfigMap"
	Secret    = "Secret"
)

// Objects reads objects of the ScaledJob's namespace.
type Objects interface {
	// Data returns what the object of the kind, ConfigMap or Secret, holds. It asks for it anew each time.
	Data(ctx context.Context, kind, name string) (map[string]string, error)
}

// Endpoints knows which Pods answer for a Kubernetes Service.
type Endpoints interface {
	// Endpoints returns the IP addresses of those Pods that are ready, in ascending order. A Service that does not exist
	// has none.
	Endpoints(ctx context.Context, namespace, service string) ([]string, error)
}

// Pods counts Pods that have neither succeeded nor failed.
type Pods interface {
	// Count counts those of the namespace that the selector takes. An error means that the number is unknown.
	Count(ctx context.Context, namespace string, selector labels.Selector) (PodCount, error)
	// Watch calls changed when Count may give another answer, as Watcher has it, until stop is called.
	Watch(namespace string, selector labels.Selector, changed func()) (stop func())
}

// PodCount is how many Pods there are, and on how many nodes they are. A Pod that has no node yet is on none.
type PodCount struct{ Pods, Nodes int }

// Config is what a trigger is built from. All references are resolved already.
type Config struct {
	// Namespace and Name are those of the ScaledJob, for sources that are asked for it.
	Namespace, Name string
	// Metadata is the trigger's metadata as written in the manifest.
	Metadata map[string]string
	// Env is the environment of the Job's container, in which …FromEnv parameters are looked up.
	Env map[string]string
	// Auth holds the parameters that authenticationRef gave.
	Auth map[string]string
	// PollingInterval is the longest time for which a measurement may be answered from a cache.
	PollingInterval time.Duration
	// Claims tells that items are handed out by claim, which only types with Type.Claims are asked for: Measure then
	// counts what can be claimed, and not what is claimed already.
	Claims bool
	// Objects reads objects of the ScaledJob's namespace; nil where there are none.
	Objects Objects
	// Endpoints knows the Pods of Services; nil where there are no Services.
	Endpoints Endpoints
	// Pods counts Pods; nil where there are none.
	Pods Pods
	// EmbeddedRedis is the address (host:port) of the Redis that this process itself serves; empty when there is none.
	// A trigger of type redis or redis-streams without any address uses it.
	EmbeddedRedis string
	// Log receives what no error of Measure tells, and at debug level how a connection fares. Whoever measures tells of
	// errors.
	Log *slog.Logger
}
