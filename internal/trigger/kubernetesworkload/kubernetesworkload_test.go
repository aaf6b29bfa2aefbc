package kubernetesworkload_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/kubernetesworkload"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// world has Pods by namespace, each with its labels and the node that the label node names. How those of a machine and
// of a cluster are counted is tested where they are.
type world map[string][]labels.Set

func (w world) Count(ctx context.Context, namespace string, selector labels.Selector) (trigger.PodCount, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return trigger.PodCount{}, errors.New("asked without a deadline")
	}
	if w[namespace] == nil {
		return trigger.PodCount{}, errors.New("there is no such namespace")
	}
	var count trigger.PodCount
	nodes := map[string]bool{}
	for _, pod := range w[namespace] {
		if selector.Matches(pod) {
			count.Pods++
			nodes[pod["node"]] = true
		}
	}
	delete(nodes, "")
	count.Nodes = len(nodes)
	return count, nil
}

// Watch tells once of a change, if it is asked about Pods of namespace work that the labels app=encoder are on.
func (w world) Watch(namespace string, selector labels.Selector, changed func()) (stop func()) {
	if namespace == "work" && selector.Matches(labels.Set{"app": "encoder"}) {
		changed()
	}
	return changed
}

func made(t *testing.T, pods trigger.Pods, namespace string, metadata config) trigger.Trigger {
	t.Helper()
	built, err := kubernetesworkload.Type().New(t.Context(),
		trigger.Config{Namespace: namespace, Metadata: metadata, Pods: pods})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(built.Close)
	return built
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	pods := world{
		"work": {
			{"app": "encoder", "tier": "batch", "node": "a"}, {"app": "encoder", "tier": "bulk", "node": "a"},
			{"app": "encoder", "tier": "live", "node": "b"}, {"app": "encoder", "tier": "batch"}, {"app": "other", "node": "c"},
		},
		"empty": {},
	}
	for _, test := range []struct {
		selector, namespace string
		more                []string
		want                trigger.Measurement
		wrong               string
	}{
		{"app=encoder", "work", nil, trigger.Measurement{Value: 4, Target: 2.5, Active: true}, ""},
		{" app = encoder , tier in (batch, bulk) ", "work", nil, trigger.Measurement{Value: 3, Target: 2.5, Active: true}, ""},
		{"app=encoder,tier notin (batch, bulk)", "work", nil, trigger.Measurement{Value: 1, Target: 2.5, Active: true}, ""},
		{"!tier", "work", nil, trigger.Measurement{Value: 1, Target: 2.5, Active: true}, ""},
		{"app!=encoder,app!=other", "work", nil, trigger.Measurement{Target: 2.5}, ""},
		{"app=encoder", "empty", nil, trigger.Measurement{Target: 2.5}, ""},
		{"app=encoder", "work", []string{"activationValue", "4"}, trigger.Measurement{Value: 4, Target: 2.5}, ""},
		{"app=encoder", "work", []string{"activationValue", "3.5"}, trigger.Measurement{Value: 4, Target: 2.5, Active: true}, ""},
		{"app=encoder", "work", []string{"groupByNode", "true"}, trigger.Measurement{Value: 2, Target: 2.5, Active: true}, ""},
		{"app=encoder", "work", []string{"groupByNode", "false"}, trigger.Measurement{Value: 4, Target: 2.5, Active: true}, ""},
		{"app=encoder", "none", nil, trigger.Measurement{}, "count the Pods of namespace none: there is no such namespace"},
	} {
		metadata := triggertest.With(config{"podSelector": test.selector, "value": "2.5"}, test.more...)
		measures := made(t, pods, test.namespace, metadata)
		if test.wrong != "" {
			triggertest.Fails(t, measures, test.wrong)
		} else if got := triggertest.Measure(t, measures); got != test.want {
			t.Errorf("%v: got %+v, want %+v", metadata, got, test.want)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	var told atomic.Int32
	count := func() { told.Add(1) }
	metadata := config{"podSelector": "app=encoder", "value": "1"}
	stop := made(t, world{}, "work", metadata).(trigger.Watcher).Watch(count)
	if told.Load() != 1 {
		t.Errorf("told %d times, want once", told.Load())
	}
	if stop(); told.Load() != 2 {
		t.Error("the watch is not stopped")
	}
	made(t, world{}, "other", metadata).(trigger.Watcher).Watch(count)
	if told.Load() != 2 {
		t.Error("the Pods of another namespace are watched")
	}
}

// TestWithoutPods has nobody who could count Pods.
func TestWithoutPods(t *testing.T) {
	t.Parallel()
	measures := made(t, nil, "work", config{"podSelector": "app=encoder", "value": "1"})
	measures.(trigger.Watcher).Watch(func() { t.Error("told of a change") })()
	triggertest.Fails(t, measures, "there are no Pods to count here")
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ key, value, want string }{
		{"podSelector", "", "podSelector: is required"},
		{"podSelector", " ", "podSelector: is required"},
		{"podSelector", "app in encoder", `podSelector "app in encoder": is no label selector (`},
		{"podSelector", "app==a=b", "is no label selector"},
		{"podSelector", "-=x", "is no label selector"},
		{"value", "", "value: is required; give a number above 0"},
		{"value", "0", "give a number above 0"},
		{"value", "-1", "give a number above 0"},
		{"value", "many", "is not a number"},
		{"activationValue", "aa", "is not a number"},
		{"groupByNode", "nodes", "is not a boolean"},
	} {
		metadata := triggertest.With(config{"podSelector": "app=encoder", "value": "1"}, test.key, test.value)
		_, err := kubernetesworkload.Type().New(t.Context(), trigger.Config{Metadata: metadata})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: error %v, want %q", test.key, test.value, err, test.want)
		}
		findings := kubernetesworkload.Type().Validate(metadata, false)
		if len(findings) != 1 || !strings.Contains(findings[0].Error(), test.want) {
			t.Errorf("%s=%s: validation finds %v, want %q", test.key, test.value, findings, test.want)
		}
	}
}

func TestDescribesItself(t *testing.T) {
	t.Parallel()
	metadata := config{"podSelector": "app=encoder", "value": "2.5", "activationValue": "1"}
	name := kubernetesworkload.Type().ExternalMetricName(3, trigger.Config{Namespace: "my.work", Metadata: metadata})
	if want := "s3-workload-my-work"; name != want {
		t.Errorf("metric name %s, want %s", name, want)
	}
	want := trigger.Threshold{Target: 2.5, Activation: 1}
	if got, _ := kubernetesworkload.Type().ThresholdOf(metadata); got != want {
		t.Errorf("threshold %+v, want %+v", got, want)
	}
}
