// Package jetstream is the trigger type nats-jetstream: how many messages of a stream of NATS JetStream a consumer has
// yet to get or to acknowledge.
//
// It is read from the monitoring endpoint of the server that leads the consumer, as KEDA does; triggers of one account
// at one endpoint share what is read. Where parameters say how to connect as a client, which KEDA has none for, new
// messages are noticed at once, and can be handed out by claim.
package jetstream

import (
	"context"
	"sync"

	"github.com/offboard-dev/offboard/internal/queue/natsqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients holds the connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	monitors *shared.Clients[monitorSettings, *monitor]
	watches  *shared.Clients[clientSettings, *client]
	queues   *shared.Clients[queueSettings, *natsqueue.Queue]
}

// NewClients returns an empty set. It needs no closing: a connection ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{
		monitors: shared.New[monitorSettings]((*monitor).stop), watches: shared.New[clientSettings]((*client).stop),
		queues: shared.New[queueSettings](func(*natsqueue.Queue) {}), // it ends with its connection
	}
}

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name: typeName,
		Doc: "How many messages of a NATS JetStream stream a consumer has yet to get or to acknowledge. " +
			"Only with natsServer are new messages noticed at once.",
		Watches: true,
		Claims:  true,
		Params:  params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramEndpoint: "nats.nats.svc.cluster.local:8222", paramAccount: "$G", paramStream: "tasks",
				paramConsumer: "worker", paramLagThreshold: "1",
			},
			Auth: map[string]string{paramServer: "nats://worker:change-me@nats.nats.svc.cluster.local:4222"},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, cfg, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,

		CheckClaims: checkClaims,
	}
}

// lagTrigger measures one consumer.
type lagTrigger struct {
	threshold trigger.Threshold
	asked     consumerName
	monitor   *monitor
	release   func()

	mu sync.Mutex
	// leader is the URL of the server that led the consumer when it was last found; empty means that it is not known.
	leader string
}

// watchedTrigger can also tell of new messages.
type watchedTrigger struct {
	*lagTrigger
	client  *client
	release func()
}

var _ trigger.Watcher = (*watchedTrigger)(nil)

func newTrigger(clients *Clients, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
	settings, problem := newMonitorSettings(values)
	if problem != "" {
		return nil, trigger.ParamError{Key: paramEndpoint, Message: problem}
	}
	var connect clientSettings
	if values.Has(paramServer) {
		if connect, problem = newClientSettings(values); problem != "" {
			return nil, trigger.ParamError{Key: paramServer, Message: problem}
		}
	}
	made := &lagTrigger{threshold: threshold(values), asked: consumerName{
		account: values.String(paramAccount), accountID: values.String(paramAccountID),
		stream: values.String(paramStream), consumer: values.String(paramConsumer),
	}}
	made.monitor, made.release = clients.monitors.Acquire(settings, func() *monitor { return newMonitor(settings) })
	if connect == (clientSettings{}) {
		return made, nil
	}
	watched := &watchedTrigger{lagTrigger: made}
	watched.client, watched.release = clients.watches.Acquire(connect, func() *client {
		return newClient(connect, cfg.Log)
	})
	if cfg.Claims {
		return newClaimTrigger(clients, watched, connect), nil
	}
	return watched, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds.
func (t *lagTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	t.mu.Lock()
	leader := t.leader
	t.mu.Unlock()
	lag, leader, err := t.monitor.lag(ctx, t.asked, leader)
	if err != nil {
		return trigger.Measurement{}, err
	}
	t.mu.Lock()
	t.leader = leader
	t.mu.Unlock()
	return t.measurement(lag), nil
}

func (t *lagTrigger) measurement(value float64) trigger.Measurement {
	return trigger.Measurement{Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation}
}

// Close implements trigger.Trigger.
func (t *lagTrigger) Close() { t.release() }

// Close implements trigger.Trigger.
func (t *watchedTrigger) Close() {
	t.release()
	t.lagTrigger.Close()
}

// Watch implements trigger.Watcher. It calls changed when it begins to listen, and for new messages.
func (t *watchedTrigger) Watch(changed func()) (stop func()) {
	return t.client.watch(t.asked.stream, t.asked.consumer, changed)
}
