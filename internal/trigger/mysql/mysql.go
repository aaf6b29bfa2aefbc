// Package mysql is the trigger type mysql: the number that a query gives on a MySQL or MariaDB server. Triggers with
// equal connection settings share connections.
package mysql

import (
	"context"

	"github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "The number that a query gives on a MySQL or MariaDB server.",
		Params: params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramQuery: "SELECT count(*) FROM jobs WHERE state = 'waiting'", paramTarget: "1",
			},
			Auth: map[string]string{paramConnection: "worker:change-me@tcp(mysql.example:3306)/app"},
		},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, values)
		},
		MetricName: metricName,
		Threshold:  threshold,
		Check:      check,
	}
}

// queryTrigger measures with one query.
type queryTrigger struct {
	query     string
	threshold trigger.Threshold
	server    *server
	release   func()
}

func newTrigger(clients *Clients, values trigger.Values) (*queryTrigger, error) {
	chosen, config, err := newSettings(values)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	opened, release := clients.servers.Acquire(chosen, func() *server { return newServer(config, connector) })
	return &queryTrigger{
		query: values.String(paramQuery), threshold: threshold(values), server: opened, release: release,
	}, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds.
func (t *queryTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	value, err := t.server.number(ctx, t.query)
	if err != nil {
		return trigger.Measurement{}, err
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

// Close implements trigger.Trigger.
func (t *queryTrigger) Close() { t.release() }
