// Package external holds the trigger types external and external-push: a program of the user's own, which serves the
// protocol of KEDA's external scalers over gRPC, says how much work waits.
package external

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/external/externalscaler"
)

// The names of the types in manifests.
const (
	typeName     = "external"
	pushTypeName = "external-push"
)

// Type returns the trigger type external. Its triggers share the connections of clients.
func Type(clients *Clients) trigger.Type {
	declared := declare(typeName)
	declared.Doc = "What a program of your own says that serves the protocol of KEDA's external scalers."
	declared.Build = func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
		return newTrigger(clients, cfg, values)
	}
	return declared
}

// PushType returns the trigger type external-push. Its triggers share the connections of clients.
func PushType(clients *Clients) trigger.Type {
	declared := declare(pushTypeName)
	declared.Doc = "What a program of your own says, as external, that also tells at once when there is work."
	declared.Watches = true
	declared.Build = func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
		made, err := newTrigger(clients, cfg, values)
		if err != nil {
			return nil, err
		}
		return &pushTrigger{made}, nil
	}
	return declared
}

// serverTrigger measures what a server says.
type serverTrigger struct {
	server   externalscaler.ExternalScalerClient
	settings settings
	ref      *externalscaler.ScaledObjectRef
	// secrets are those that the server has been told.
	secrets []string
	log     *slog.Logger
	release func()
}

func newTrigger(clients *Clients, cfg trigger.Config, values trigger.Values) (*serverTrigger, error) {
	chosen := newSettings(values)
	connection, release, err := clients.acquire(chosen)
	if err != nil {
		return nil, err
	}
	made := &serverTrigger{
		server:   externalscaler.NewExternalScalerClient(connection),
		settings: chosen,
		ref:      &externalscaler.ScaledObjectRef{Name: cfg.Name, Namespace: cfg.Namespace},
		log:      cfg.Log,
		release:  release,
	}
	made.ref.ScalerMetadata, made.secrets = metadata(cfg)
	return made, nil
}

// metadata returns what the server is told of the trigger's metadata, and the secrets in it. As in KEDA, the value of a
// key that names an environment variable is that of the variable; a key whose variable is not set is left out.
func metadata(cfg trigger.Config) (told map[string]string, secrets []string) {
	told = make(map[string]string, len(cfg.Metadata))
	for key, value := range cfg.Metadata {
		if !strings.HasSuffix(key, "FromEnv") {
			told[key] = value
		} else if resolved := cfg.Env[value]; resolved != "" {
			told[key] = resolved
			secrets = append(secrets, resolved)
		}
	}
	return told, secrets
}

// Measure implements trigger.Trigger. The server is asked twice, one after the other: for its metrics and whether there
// is work, and for the value of the first metric.
func (t *serverTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	measured, err := t.measure(ctx)
	if err != nil {
		return trigger.Measurement{}, t.explain(err)
	}
	return measured, nil
}

func (t *serverTrigger) measure(ctx context.Context) (trigger.Measurement, error) {
	var active *externalscaler.IsActiveResponse
	var specs *externalscaler.GetMetricSpecResponse
	var values *externalscaler.GetMetricsResponse
	asking, together := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		active, err = t.server.IsActive(together, t.ref)
		return err
	})
	asking.Go(func() (err error) {
		specs, err = t.server.GetMetricSpec(together, t.ref)
		return err
	})
	if err := asking.Wait(); err != nil {
		return trigger.Measurement{}, err
	}
	target, err := target(specs)
	if err != nil {
		return trigger.Measurement{}, err
	}
	values, err = t.server.GetMetrics(ctx, &externalscaler.GetMetricsRequest{
		ScaledObjectRef: t.ref, MetricName: specs.MetricSpecs[0].MetricName,
	})
	if err != nil {
		return trigger.Measurement{}, err
	}
	value := 0.0
	for _, v := range values.MetricValues {
		value += either(v.MetricValueFloat, v.MetricValue)
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return trigger.Measurement{}, errors.New("gives a value that is no amount of work")
	}
	return trigger.Measurement{Value: value, Target: target, Active: active.Result}, nil
}

// target returns how much of the first metric one Job takes. Where a server has several metrics, KEDA compares the
// value of the first with the mean of their targets, and so is it here.
func target(specs *externalscaler.GetMetricSpecResponse) (float64, error) {
	if len(specs.MetricSpecs) == 0 {
		return 0, errors.New("has no metric for this trigger; correct the trigger's metadata, which the server judges by")
	}
	sum := 0.0
	for _, spec := range specs.MetricSpecs {
		sum += either(spec.TargetSizeFloat, spec.TargetSize)
	}
	mean := sum / float64(len(specs.MetricSpecs))
	if !(mean > 0) || math.IsInf(mean, 0) {
		return 0, fmt.Errorf("gives a target of %v; let its GetMetricSpec give one above 0", mean)
	}
	return mean, nil
}

// either returns the first number where it is above 0, else the second.
func either(float float64, integer int64) float64 {
	if float > 0 {
		return float
	}
	return float64(integer)
}

// Close implements trigger.Trigger.
func (t *serverTrigger) Close() { t.release() }
