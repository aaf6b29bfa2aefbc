// Package metricsapi is the trigger type metrics-api: a number in a JSON, XML or YAML document, or in metrics as
// Prometheus scrapes them, that any server offers over HTTP.
package metricsapi

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"sync"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
)

// Type returns the trigger type. Its triggers share the connections of clients.
func Type(clients *httpget.Clients) trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "A number in a document that is read over HTTP.",
		Params: params(),
		Example: trigger.Example{
			Metadata: map[string]string{
				paramURL:      "https://shop.example/stats",
				paramLocation: "orders.waiting",
				paramTarget:   "5",
				"authMode":    "bearer",
			},
			Auth: map[string]string{"token": "secret"},
		},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return newTrigger(clients, cfg, values)
		},
		MetricName: func(values trigger.Values) string { return "metric-api-" + values.String(paramLocation) },
		Threshold:  threshold,
		Check:      check,
	}
}

// documentTrigger measures one number in one document.
type documentTrigger struct {
	client    *httpget.Client
	address   *url.URL
	location  string
	read      func(content []byte) (float64, error)
	threshold trigger.Threshold
	// service is what the address names, when each of its Pods has a document; else nil.
	service *service
	release func()
}

func newTrigger(clients *httpget.Clients, cfg trigger.Config, values trigger.Values) (*documentTrigger, error) {
	address, finding := httpget.URL(values, paramURL)
	if finding != nil {
		return nil, *finding
	}
	read, err := reader(values)
	if err != nil {
		return nil, err
	}
	client, err := clients.Open(values)
	if err != nil {
		return nil, err
	}
	made := &documentTrigger{
		client: client, address: address, location: values.String(paramLocation), read: read,
		threshold: threshold(values), release: sync.OnceFunc(client.Close),
	}
	if values.Bool(paramEndpoints) {
		made.service, err = serviceOf(address, cfg, values.String(paramAggregation))
	}
	if err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

// Measure implements trigger.Trigger with one request, or one to each Pod of a Service.
func (t *documentTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	value, err := t.value(ctx)
	if err != nil {
		return trigger.Measurement{}, fmt.Errorf("metrics API at %w", err)
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

func (t *documentTrigger) value(ctx context.Context) (float64, error) {
	if t.service == nil {
		return t.valueAt(ctx, t.address)
	}
	return t.service.value(ctx, t.valueAt)
}

// valueAt reads the document at the address.
func (t *documentTrigger) valueAt(ctx context.Context, address *url.URL) (float64, error) {
	content, err := t.client.Get(ctx, address, nil)
	if err != nil {
		return 0, err
	}
	value, err := t.read(content)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = fmt.Errorf("is %v, which is no amount of work", value)
	}
	if err != nil {
		return 0, fmt.Errorf("%s%s: what is at %s %q %w", address.Host, address.Path, paramLocation, t.location, err)
	}
	return value, nil
}

// Close implements trigger.Trigger.
func (t *documentTrigger) Close() { t.release() }
