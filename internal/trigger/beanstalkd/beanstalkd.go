// Package beanstalkd is the trigger type beanstalkd: how many jobs of a tube on a beanstalkd server are ready or
// reserved. Triggers with equal connection settings share one connection.
package beanstalkd

import (
	"context"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "The jobs of a beanstalkd tube that are ready or reserved; a tube that does not exist has none.",
		Params: params(),
		Example: trigger.Example{Metadata: map[string]string{
			paramServer: "beanstalkd.example:11300", paramTube: "usertask", paramValue: "1",
		}},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,
	}
}

// Clients holds the connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	connections *shared.Clients[settings, *connection]
}

// NewClients returns an empty set. It needs no closing: a connection ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared.New[settings]((*connection).close)}
}

// tubeTrigger measures one tube.
type tubeTrigger struct {
	tube           string
	includeDelayed bool
	threshold      trigger.Threshold
	connection     *connection
	release        func()
}

func newTrigger(clients *Clients, values trigger.Values) (*tubeTrigger, error) {
	chosen, err := newSettings(values)
	if err != nil {
		return nil, err
	}
	made := &tubeTrigger{
		tube:           values.String(paramTube),
		includeDelayed: values.Bool(paramIncludeDelayed),
		threshold:      threshold(values),
	}
	made.connection, made.release = clients.connections.Acquire(chosen, func() *connection {
		return newConnection(chosen)
	})
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds. Reserved jobs count, because the Jobs that work on
// them are counted too.
func (t *tubeTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	stats, err := t.connection.stats(ctx, t.tube)
	if err != nil {
		return trigger.Measurement{}, err
	}
	value := float64(stats.ready) + float64(stats.reserved)
	if t.includeDelayed {
		value += float64(stats.delayed)
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

// Close implements trigger.Trigger.
func (t *tubeTrigger) Close() { t.release() }
