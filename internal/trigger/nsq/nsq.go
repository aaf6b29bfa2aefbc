// Package nsq is the trigger type nsq: the depth of a channel, summed over the nsqds that nsqlookupd names for its
// topic. Triggers with equal connection settings share their connections.
package nsq

import (
	"context"
	"net/http"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name: typeName,
		Doc: "The messages of an NSQ channel that wait on all nsqds of its topic; those of the topic where there is no " +
			"such channel yet, and none where the channel is paused.",
		Params: params(),
		Example: trigger.Example{Metadata: map[string]string{
			paramLookupds: "nsqlookupd.example:4161", paramTopic: "usertask", paramChannel: "workers", paramDepth: "1",
		}},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, values), nil
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,
	}
}

// Clients holds the HTTP connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	clients *shared.Clients[settings, *http.Client]
}

// NewClients returns an empty set. It needs no closing: connections end with the last trigger that uses them.
func NewClients() *Clients {
	return &Clients{shared.New[settings]((*http.Client).CloseIdleConnections)}
}

// channelTrigger measures one channel.
type channelTrigger struct {
	lookupds  []string
	topic     string
	channel   string
	threshold trigger.Threshold
	cluster   cluster
	release   func()
}

func newTrigger(clients *Clients, values trigger.Values) *channelTrigger {
	chosen := newSettings(values)
	made := &channelTrigger{
		lookupds:  values.List(paramLookupds),
		topic:     values.String(paramTopic),
		channel:   values.String(paramChannel),
		threshold: threshold(values),
	}
	client, release := clients.clients.Acquire(chosen, func() *http.Client { return newClient(chosen) })
	made.cluster, made.release = cluster{client: client, https: chosen.https}, release
	return made
}

// Measure implements trigger.Trigger. It answers within 5 seconds. It fails when one nsqlookupd or nsqd does not
// answer: without what that one holds, the depth would be too small.
func (t *channelTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	nsqds, err := t.cluster.nsqds(ctx, t.lookupds, t.topic)
	if err != nil {
		return trigger.Measurement{}, err
	}
	depth, err := t.cluster.depth(ctx, nsqds, t.topic, t.channel)
	if err != nil {
		return trigger.Measurement{}, err
	}
	return trigger.Measurement{Value: depth, Target: t.threshold.Target, Active: depth > t.threshold.Activation}, nil
}

// Close implements trigger.Trigger.
func (t *channelTrigger) Close() { t.release() }
