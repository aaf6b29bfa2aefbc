// Package rabbitmq is the trigger type rabbitmq: the length of a queue of RabbitMQ, or the rates at which messages come
// and go, by AMQP 0-9-1 or by the HTTP API of the management plugin.
//
// By AMQP, triggers with equal connection settings share one connection, and by HTTP one client. Those of delivery by
// claim share another connection where they also have the queue in common: see rabbitqueue.
package rabbitmq

import (
	"context"

	"github.com/offboard-dev/offboard/internal/queue/rabbitqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients holds the connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	amqp *shared.Clients[amqpSettings, *connection]
	http *shared.Clients[httpSettings, *api]
	// claims are the queues that are claimed from.
	claims *shared.Clients[claimSettings, *rabbitqueue.Queue]
}

// NewClients returns an empty set. It needs no closing: a connection ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{
		amqp: shared.New[amqpSettings]((*connection).stop), http: shared.New[httpSettings]((*api).stop),
		claims: shared.New[claimSettings]((*rabbitqueue.Queue).Close),
	}
}

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name: typeName,
		Doc: "The length of a RabbitMQ queue, or the rates at which messages are published and delivered; " +
			"delivery by claim needs AMQP.",
		Claims: true,
		Params: params(),
		Example: trigger.Example{
			Metadata: map[string]string{paramQueueName: "usertask", paramMode: string(queueLength), paramValue: "1"},
			Auth:     map[string]string{paramHost: "amqp://worker:change-me@rabbitmq.example:5672/"},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			if protocolOf(values) != protocolAMQP {
				return newTrigger(clients, values)
			}
			made, err := newClaimTrigger(clients, values)
			if err != nil {
				return nil, err
			}
			if cfg.Claims {
				return made, nil
			}
			return popTrigger{made.queueTrigger, made}, nil
		},
		MetricName:  metricName,
		Threshold:   threshold,
		Check:       check,
		CheckClaims: checkClaims,
	}
}

// queueTrigger measures one queue, or those that a regular expression names.
type queueTrigger struct {
	mode      mode
	threshold trigger.Threshold
	read      func(ctx context.Context) (reading, error)
	release   func()
}

func newTrigger(clients *Clients, values trigger.Values) (*queueTrigger, error) {
	made := &queueTrigger{mode: modeOf(values), threshold: threshold(values)}
	material := materialOf(values)
	config, err := material.Config()
	if err != nil {
		return nil, err
	}
	if protocolOf(values) == protocolAMQP {
		settings, problem := newAMQPSettings(values, material)
		if problem != "" {
			return nil, trigger.ParamError{Key: paramHost, Message: problem}
		}
		queue := values.String(paramQueueName)
		conn, release := clients.amqp.Acquire(settings, func() *connection { return newConnection(settings, config) })
		made.read = func(ctx context.Context) (reading, error) { return conn.read(ctx, queue) }
		made.release = release
		return made, nil
	}
	asked, problem := newQuery(values)
	if problem != "" {
		return nil, trigger.ParamError{Key: paramHost, Message: problem}
	}
	settings := httpSettings{server: asked.base.Scheme + "://" + asked.base.Host, tls: material}
	client, release := clients.http.Acquire(settings, func() *api { return newAPI(config) })
	made.read = func(ctx context.Context) (reading, error) { return asked.read(ctx, client) }
	made.release = release
	return made, nil
}

func materialOf(values trigger.Values) network.TLS {
	material := network.TLSOf(values)
	material.Insecure = values.Bool(paramUnsafeSSL)
	return material
}

// Measure implements trigger.Trigger. It answers within 5 seconds, or what parameter timeout says.
func (t *queueTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	read, err := t.read(ctx)
	if err != nil {
		return trigger.Measurement{}, err
	}
	return t.measurement(read), nil
}

func (t *queueTrigger) measurement(read reading) trigger.Measurement {
	value, active := t.mode.evaluate(read, t.threshold)
	return trigger.Measurement{Value: value, Target: t.threshold.Target, Active: active}
}

// Close implements trigger.Trigger.
func (t *queueTrigger) Close() { t.release() }
