// Package mongodb is the trigger type mongodb: how many documents of a collection a query finds. Triggers with equal
// connection settings share one client.
package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Type returns the trigger type. Its triggers share the clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "The documents of a MongoDB collection that a query finds; none where there is no such collection.",
		Params: params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramDatabase: "work", paramCollection: "jobs", paramQuery: `{"state": "waiting"}`, paramValue: "1",
			},
			Auth: map[string]string{paramConnection: "mongodb://worker:change-me@mongodb.example:27017/work"},
		},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,
	}
}

// Clients holds the clients that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	connections *shared.Clients[settings, *connection]
}

// NewClients returns an empty set. It needs no closing: a client ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared.New[settings]((*connection).close)}
}

// queryTrigger measures one query.
type queryTrigger struct {
	database   string
	collection string
	query      bson.D
	threshold  trigger.Threshold
	connection *connection
	release    func()
}

func newTrigger(clients *Clients, values trigger.Values) (*queryTrigger, error) {
	chosen, err := newSettings(values)
	if err != nil {
		return nil, err
	}
	query, err := parseQuery(values.String(paramQuery))
	if err != nil {
		return nil, trigger.ParamError{Key: values.Key(paramQuery), Message: err.Error()}
	}
	made := &queryTrigger{
		database:   values.String(paramDatabase),
		collection: values.String(paramCollection),
		query:      query,
		threshold:  threshold(values),
	}
	made.connection, made.release = clients.connections.Acquire(chosen, func() *connection {
		return newConnection(chosen)
	})
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds.
func (t *queryTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	client, err := t.connection.get(ctx)
	if err != nil {
		return trigger.Measurement{}, err
	}
	count, err := client.Database(t.database).Collection(t.collection).CountDocuments(ctx, t.query)
	if err != nil {
		return trigger.Measurement{}, t.connection.explain(ctx, err)
	}
	value := float64(count)
	return trigger.Measurement{Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation}, nil
}

// Close implements trigger.Trigger.
func (t *queryTrigger) Close() { t.release() }
