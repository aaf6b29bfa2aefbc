// Package kubernetesresource is the trigger type kubernetes-resource: a number that a ConfigMap or a Secret holds.
// On one machine these are those of the manifests.
package kubernetesresource

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/document"
)

// Type returns the trigger type.
func Type() trigger.Type {
	return trigger.Type{
		Name:   typeName,
		Doc:    "A number that a ConfigMap or a Secret holds.",
		Params: params(),
		Example: trigger.Example{Metadata: map[string]string{
			paramKind: trigger.ConfigMap, paramName: "backlog", paramKey: "waiting", paramTarget: "5",
		}},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return &objectTrigger{
				objects:   cfg.Objects,
				kind:      values.String(paramKind),
				name:      values.String(paramName),
				key:       values.String(paramKey),
				read:      reader(values),
				threshold: threshold(values),
			}, nil
		},
		MetricName: func(values trigger.Values) string {
			return fmt.Sprintf("%s-%s-%s",
				strings.ToLower(values.String(paramKind)), values.String(paramName), values.String(paramKey))
		},
		Threshold: threshold,
		Check:     check,
	}
}

// objectTrigger measures what is under one key of one object.
type objectTrigger struct {
	objects         trigger.Objects
	kind, name, key string
	read            func(text string) (float64, error)
	threshold       trigger.Threshold
}

// Measure implements trigger.Trigger with one request.
func (t *objectTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	value, err := t.value(ctx)
	if err != nil {
		return trigger.Measurement{}, fmt.Errorf("%s %s: %w", t.kind, t.name, err)
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

// Close implements trigger.Trigger.
func (t *objectTrigger) Close() {}

func (t *objectTrigger) value(ctx context.Context) (float64, error) {
	if t.objects == nil {
		return 0, errors.New("there are no objects to read here")
	}
	data, err := t.objects.Data(ctx, t.kind, t.name)
	if err != nil {
		return 0, err
	}
	text, found := data[t.key]
	if !found {
		return 0, fmt.Errorf("has no key %q", t.key)
	}
	value, err := t.read(text)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = errors.New("is no amount of work")
	}
	if err != nil {
		return 0, fmt.Errorf("what is under key %q %w", t.key, err)
	}
	return value, nil
}

// reader returns what finds the value in a text. Its errors hold nothing of the text, which may be secret.
func reader(values trigger.Values) func(text string) (float64, error) {
	find := document.JSON
	number := jsonNumber
	switch values.String(paramFormat) {
	case formatNumber:
		return func(text string) (float64, error) { return plainNumber(text, values.String(paramType)) }
	case formatYAML:
		find, number = document.YAML, yamlNumber
	}
	return func(text string) (float64, error) {
		value, err := find([]byte(text), values.String(paramLocation))
		if err != nil {
			return 0, err
		}
		return number(value, values.String(paramType))
	}
}

// plainNumber reads a text. As in KEDA, what follows the number is ignored unless it is an amount.
func plainNumber(text, kind string) (float64, error) {
	switch kind {
	case typeQuantity:
		return document.Quantity(strings.TrimSpace(text))
	case typeInt:
		var whole int64
		if _, err := fmt.Sscanf(text, "%d", &whole); err != nil {
			return 0, errors.New("is not a whole number")
		}
		return float64(whole), nil
	default:
		var number float64
		if _, err := fmt.Sscanf(text, "%f", &number); err != nil {
			return 0, document.ErrNoNumber
		}
		return number, nil
	}
}

// jsonNumber reads a value of a JSON document. As in KEDA, a whole number is never a string, and all others may be
// amounts.
func jsonNumber(value any, kind string) (float64, error) {
	number, err := document.Number(value)
	if _, isText := value.(string); kind == typeInt && (isText || err != nil) {
		return 0, document.ErrNoNumber
	}
	if kind == typeInt {
		number = math.Trunc(number)
	}
	return number, err
}

// yamlNumber reads a value of a YAML document. As in KEDA, a string is an amount only where amounts are asked for.
func yamlNumber(value any, kind string) (float64, error) {
	if text, isText := value.(string); isText && kind != typeQuantity {
		return plainNumber(text, typeFloat)
	}
	return document.Number(value)
}
