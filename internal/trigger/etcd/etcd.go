// Package etcd is the trigger type etcd: the number that a key of an etcd cluster holds. Watch tells of changes as etcd
// tells of them. Triggers with equal connection settings share one client.
package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Type returns the trigger type. Its triggers share the clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:    typeName,
		Doc:     "The number that a key of an etcd cluster holds; an error when there is no such key.",
		Watches: true,
		Params:  params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramEndpoints: "etcd-0.example:2379,etcd-1.example:2379", paramKey: "usertask/waiting", paramValue: "1",
			},
			Auth: map[string]string{paramUsername: "worker", paramPassword: "change-me"},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, cfg, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,
	}
}

// Clients holds the clients that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	connections *shared.Clients[settings, *opened]
}

// opened is a client, or why there is none.
type opened struct {
	connection *connection
	err        error
}

// NewClients returns an empty set. It needs no closing: a client ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared.New[settings](func(o *opened) {
		if o.err == nil {
			o.connection.close()
		}
	})}
}

var _ trigger.Watcher = (*keyTrigger)(nil)

// keyTrigger measures one key.
type keyTrigger struct {
	key       string
	threshold trigger.Threshold
	// silence is for how long a watch may tell nothing until it is made anew.
	silence    time.Duration
	connection *connection
	release    func()
	log        *slog.Logger
}

func newTrigger(clients *Clients, cfg trigger.Config, values trigger.Values) (*keyTrigger, error) {
	chosen, err := newSettings(values)
	if err != nil {
		return nil, err
	}
	made := &keyTrigger{
		key:       values.String(paramKey),
		threshold: threshold(values),
		silence:   silence(values.Int(paramProgress)),
		log:       cfg.Log,
	}
	used, release := clients.connections.Acquire(chosen, func() *opened {
		connection, err := newConnection(chosen)
		return &opened{connection, err}
	})
	if used.err != nil {
		release()
		return nil, used.err
	}
	made.connection, made.release = used.connection, release
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds.
func (t *keyTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	answer, err := t.connection.client.Get(ctx, t.key)
	if err != nil {
		return trigger.Measurement{}, t.connection.settings.explain(ctx, err)
	}
	if len(answer.Kvs) == 0 {
		return trigger.Measurement{}, fmt.Errorf("etcd at %s: there is no key %q", t.connection.settings.endpoints, t.key)
	}
	value, err := parseNumber(answer.Kvs[0].Value)
	if err != nil {
		return trigger.Measurement{}, fmt.Errorf("etcd at %s: key %q %w", t.connection.settings.endpoints, t.key, err)
	}
	return trigger.Measurement{Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation}, nil
}

// Close implements trigger.Trigger.
func (t *keyTrigger) Close() { t.release() }
