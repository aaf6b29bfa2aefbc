// Package kubernetesworkload is the trigger type kubernetes-workload: how many Pods of the ScaledJob's namespace there
// are that a label selector takes. On one machine these are the Pods of the Jobs that run there. Watch tells of changes
// as soon as the cluster does.
package kubernetesworkload

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Type returns the trigger type.
func Type() trigger.Type {
	return trigger.Type{
		Name: typeName,
		Doc: "How many Pods of the ScaledJob's namespace a label selector takes that have neither succeeded nor failed; " +
			"on one machine, those of its Jobs.",
		Watches: true,
		Params:  params(),
		Example: trigger.Example{Metadata: map[string]string{
			paramSelector: "app=encoder, tier in (batch, bulk)", paramValue: "2",
		}},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			selector, err := labels.Parse(values.String(paramSelector))
			if err != nil {
				return nil, err // check has refused it
			}
			return &podTrigger{
				pods: cfg.Pods, namespace: cfg.Namespace, selector: selector, nodes: values.Bool(paramByNode),
				threshold: threshold(values),
			}, nil
		},
		MetricName:  func(trigger.Values) string { return "workload" },
		InNamespace: true,
		Threshold:   threshold,
		Check:       check,
	}
}

var _ trigger.Watcher = (*podTrigger)(nil)

// podTrigger measures how many Pods there are, or on how many nodes they are.
type podTrigger struct {
	pods      trigger.Pods
	namespace string
	selector  labels.Selector
	nodes     bool
	threshold trigger.Threshold
}

// Measure implements trigger.Trigger. Where the Pods are watched, nobody needs to be asked.
func (t *podTrigger) Measure(ctx context.Context) (trigger.Measurement, error) {
	if t.pods == nil {
		return trigger.Measurement{}, errors.New("there are no Pods to count here")
	}
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	count, err := t.pods.Count(ctx, t.namespace, t.selector)
	if err != nil {
		return trigger.Measurement{}, fmt.Errorf("count the Pods of namespace %s: %w", t.namespace, err)
	}
	value := float64(count.Pods)
	if t.nodes {
		value = float64(count.Nodes)
	}
	return trigger.Measurement{
		Value: value, Target: t.threshold.Target, Active: value > t.threshold.Activation,
	}, nil
}

// Watch implements trigger.Watcher.
func (t *podTrigger) Watch(changed func()) (stop func()) {
	if t.pods == nil {
		return func() {}
	}
	return t.pods.Watch(t.namespace, t.selector, changed)
}

// Close implements trigger.Trigger.
func (t *podTrigger) Close() {}
