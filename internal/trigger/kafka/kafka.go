// Package kafka is the trigger types kafka and apache-kafka: how many messages of topics a consumer group of Apache
// Kafka has yet to process.
//
// KEDA has two types because it has two client libraries. Here one does for both, and what differs are the parameters.
// Triggers with equal connection settings share one client. Versions of the protocol are agreed on with the broker.
package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients holds the clients that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	clients *shared.Clients[settings, *client]
}

// NewClients returns an empty set. It needs no closing: a client ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared.New[settings]((*client).stop)}
}

// Type returns the trigger type kafka. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return typeOf(clients, kafkaType,
		"How many messages of an Apache Kafka topic, or of all topics of a consumer group, the group has yet to process.")
}

// ApacheType returns the trigger type apache-kafka. Its triggers share the connections of clients.
func ApacheType(clients *Clients) trigger.Type {
	return typeOf(clients, apacheType,
		"As kafka, which has more ways to log in; this one takes several topics.")
}

func typeOf(clients *Clients, name, doc string) trigger.Type {
	return trigger.Type{
		Name: name, Doc: doc, Params: params(name),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramServers: "kafka.example:9092", paramGroup: "worker", paramTopic: "tasks", paramLagThreshold: "1",
				paramReset: resetEarliest,
			},
			Auth: map[string]string{
				paramSASL: saslPlain, paramUsername: "worker", paramPassword: "change-me", paramTLS: tlsEnable,
			},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, name, cfg, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check(name),
	}
}

// lagTrigger measures one consumer group.
type lagTrigger struct {
	rule    rule
	group   string
	topics  []string
	client  *client
	release func()

	mu   sync.Mutex
	seen seen
}

func newTrigger(clients *Clients, name string, cfg trigger.Config, values trigger.Values) (*lagTrigger, error) {
	if name == apacheType {
		for _, param := range []string{paramSASL, paramTLS} {
			if cfg.Metadata[param] != "" && cfg.Auth[param] != "" {
				return nil, trigger.ParamError{
					Key: param, Message: "is given in metadata and in a TriggerAuthentication; give only one of them",
				}
			}
		}
	}
	chosen := newSettings(name, values)
	options, err := chosen.options()
	if err != nil {
		return nil, err
	}
	made := &lagTrigger{
		rule: newRule(values, cfg.PollingInterval), group: values.String(paramGroup), topics: values.List(paramTopic),
		seen: seen{},
	}
	if len(made.topics) == 0 {
		made.rule.partitions = nil
	}
	made.client, made.release = clients.clients.Acquire(chosen, func() *client { return newClient(chosen, options) })
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds.
func (t *lagTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	partitions, err := t.client.read(ctx, t.group, t.topics, t.rule.partitions)
	if err != nil {
		return trigger.Measurement{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	value, lag := t.rule.evaluate(partitions, t.seen, time.Now())
	return trigger.Measurement{
		Value: float64(value), Target: float64(t.rule.threshold), Active: lag > t.rule.activation,
	}, nil
}

// Close implements trigger.Trigger.
func (t *lagTrigger) Close() { t.release() }
