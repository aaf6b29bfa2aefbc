// Package postgresql is the trigger type postgresql: the number that a query gives on a PostgreSQL server.
//
// Triggers with equal connection settings share a pool of connections. Where the user names a channel, NOTIFY on it is
// noticed at once, over one further connection that all of them share. Where the user names a table, its rows are
// handed out as items; see postgresqlqueue.
package postgresql

import (
	"context"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	return trigger.Type{
		Name:    typeName,
		Doc:     "The number that a query gives on a PostgreSQL server; changes are noticed at once where channel is given.",
		Claims:  true,
		Watches: true,
		Params:  params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramQuery: "SELECT count(*) FROM jobs", paramTarget: "1", paramChannel: "jobs", paramClaimTable: "jobs",
			},
			Auth: map[string]string{
				paramConnection: "postgres://worker:change-me@postgres.example:5432/app?sslmode=require",
			},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, cfg, values)
		},
		MetricName:  func(trigger.Values) string { return typeName },
		Threshold:   threshold,
		Check:       check,
		CheckClaims: checkClaims,
	}
}

var _ trigger.Watcher = (*watchedTrigger)(nil)

// queryTrigger measures with one query.
type queryTrigger struct {
	query     string
	threshold trigger.Threshold
	server    *server
	release   func()
}

// watchedTrigger also tells of notifications on a channel.
type watchedTrigger struct {
	*queryTrigger
	channel string
}

func newTrigger(clients *Clients, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
	chosen, config, err := newSettings(values)
	if err != nil {
		return nil, err
	}
	opened, release := clients.acquire(chosen, config, cfg.Log)
	made := &queryTrigger{
		query: values.String(paramQuery), threshold: threshold(values), server: opened, release: release,
	}
	channel, items := values.String(paramChannel), newItems(opened, values)
	switch {
	case channel != "" && items != nil:
		return struct {
			*watchedTrigger
			*itemsOfTable
		}{&watchedTrigger{made, channel}, items}, nil
	case channel != "":
		return &watchedTrigger{made, channel}, nil
	case items != nil:
		return struct {
			*queryTrigger
			*itemsOfTable
		}{made, items}, nil
	}
	return made, nil
}

// Measure implements trigger.Trigger. It answers within 5 seconds. The measurement holds for no longer than until the
// next poll, also with a channel: what the query gives may change with time, or by a statement that notifies nobody.
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

// Watch implements trigger.Watcher. It calls changed at each notification, and when listening begins, fails, or begins
// again after that, since what happened meanwhile was not told.
func (t *watchedTrigger) Watch(changed func()) (stop func()) {
	return t.server.listener.watch(t.channel, changed)
}
