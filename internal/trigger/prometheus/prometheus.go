// Package prometheus is the trigger type prometheus: the value of a PromQL query, from Prometheus or any server that
// has its HTTP API.
package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *httpget.Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "The value of a Prometheus query.",
		Params: params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramServer:    "http://prometheus.monitoring:9090",
				paramQuery:     `sum(tasks_waiting{queue="thumbnails"})`,
				paramThreshold: "5",
				"authModes":    "basic",
			},
			Auth: map[string]string{"username": "reader", "password": "secret"},
		},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, values)
		},
		MetricName: func(trigger.Values) string { return typeName },
		Threshold:  threshold,
		Check:      check,
	}
}

// queryTrigger measures one query.
type queryTrigger struct {
	client     *httpget.Client
	address    *url.URL
	header     http.Header
	threshold  trigger.Threshold
	ignoreNull bool
	release    func()
}

func newTrigger(clients *httpget.Clients, values trigger.Values) (*queryTrigger, error) {
	server, finding := httpget.URL(values, paramServer)
	if finding != nil {
		return nil, *finding
	}
	if server.Path == "" {
		server.Path = "/" // or what is joined to it has no slash before it, in errors
	}
	client, err := clients.Open(values)
	if err != nil {
		return nil, err
	}
	made := &queryTrigger{
		client:     client,
		address:    server.JoinPath("api/v1/query"),
		header:     http.Header{},
		threshold:  threshold(values),
		ignoreNull: values.Bool(paramIgnoreNull),
		release:    sync.OnceFunc(client.Close),
	}
	// No time is given: the server's own clock is the one that its series were recorded by.
	query := url.Values{}
	if namespace := values.String(paramNamespace); namespace != "" {
		query.Set(paramNamespace, namespace)
	}
	for name, value := range values.Map(paramQueryParameters) {
		query.Set(name, value)
	}
	query.Set("query", values.String(paramQuery))
	made.address.RawQuery = query.Encode()
	for name, value := range values.Map(paramHeaders) {
		made.header.Set(name, value)
	}
	return made, nil
}

// Measure implements trigger.Trigger with one request.
func (t *queryTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	value, err := t.value(ctx)
	if err != nil {
		return trigger.Measurement{}, fmt.Errorf("prometheus at %w", err)
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

// Close implements trigger.Trigger.
func (t *queryTrigger) Close() { t.release() }

func (t *queryTrigger) value(ctx context.Context) (float64, error) {
	reply, err := t.client.Get(ctx, t.address, t.header)
	var status httpget.StatusError
	if errors.As(err, &status) {
		if reason := t.reason(status.Body); reason != "" {
			return 0, fmt.Errorf("%w: %s", err, reason)
		}
	}
	if err != nil {
		return 0, err
	}
	value, err := read(reply)
	if errors.Is(err, errNull) && t.ignoreNull {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%s%s %w", t.address.Host, t.address.Path, err)
	}
	return value, nil
}

// reason returns what the API says about an error, for example where a query is not PromQL; "" where it says nothing.
func (t *queryTrigger) reason(body []byte) string {
	var reply struct {
		Type  string `json:"errorType"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &reply); err != nil || reply.Type == "" {
		return ""
	}
	return t.client.Show(reply.Type + ": " + reply.Error)
}
