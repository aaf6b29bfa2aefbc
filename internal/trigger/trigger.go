// Package trigger defines what a source of work must be able to do, the registry of the types, and the one declaration
// of a type's parameters from which decoding, validation and documentation follow.
//
// A trigger knows nothing of ScaledJobs, Jobs or controllers. Each type lives in a package of its own below this one.
package trigger

import (
	"context"
	"log/slog"
	"time"
)

// Measurement is one reading of a trigger.
type Measurement struct {
	// Value says how much work waits, for example the length of a list.
	Value float64
	// Target is how much of it one Job takes; above zero.
	Target float64
	// Active tells whether Value is above the activation threshold, so that Jobs may be started for it.
	Active bool
}

// Trigger is a source that says how much work waits. Its methods may be called from several goroutines.
type Trigger interface {
	// Measure reads the source. An error means that the amount is unknown, never that there is none.
	Measure(ctx context.Context) (Measurement, error)
	// Close ends connections and goroutines. Measure and Watch must not be called afterwards.
	Close()
}

// Watcher is implemented by triggers that can tell when their measurement may have changed.
type Watcher interface {
	// Watch calls changed, from any goroutine and without blocking it, each time that Measure might give another
	// answer than it last gave, until ctx ends; it returns when it calls no more. It handles outages itself. Spurious
	// calls are allowed; a call that is lost costs at most the polling interval.
	Watch(ctx context.Context, changed func())
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

// Config is what a trigger is built from. All references are resolved already.
type Config struct {
	// Metadata is the trigger's metadata as written in the manifest.
	Metadata map[string]string
	// Env is the environment of the Job's container, in which …FromEnv parameters are looked up.
	Env map[string]string
	// Auth holds the parameters that authenticationRef gave.
	Auth map[string]string
	// PollingInterval is the longest time for which a measurement may be answered from a cache.
	PollingInterval time.Duration
	// EmbeddedRedis is the address (host:port) of the Redis that this process itself serves; empty when there is none.
	// A redis trigger without any address uses it.
	EmbeddedRedis string
	// Log receives what no error of Measure tells, and at debug level how a connection fares. Whoever measures tells of
	// errors.
	Log *slog.Logger
}
