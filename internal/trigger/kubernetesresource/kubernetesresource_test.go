package kubernetesresource_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/kubernetesresource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// objects are the data of objects by kind and name; that of the controller is tested where it is.
type objects map[string]config

func (o objects) Data(_ context.Context, kind, name string) (map[string]string, error) {
	if data, found := o[kind+"/"+name]; found {
		return data, nil
	}
	return nil, errors.New("not found")
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	world := objects{
		"ConfigMap/queue": {
			"n": "12", "line": "7.5\n", "words": "3 tasks", "amount": "500m\n", "text": "canary", "nan": "NaN", "empty": "",
			"json": `{"a": {"n": 2.5, "s": "2500m", "t": "canary"}}`, "yaml": "a: {n: 2.5, s: 2500m, i: 4, t: canary}",
		},
		"Secret/queue": {"n": "3"},
	}
	for _, test := range []struct {
		more  config
		want  float64
		wrong string
	}{
		{config{"key": "n"}, 12, ""},
		{config{"key": "n", "resourceKind": "Secret"}, 3, ""},
		{config{"key": "line"}, 7.5, ""},
		{config{"key": "line", "valueType": "int64"}, 7, ""},
		{config{"key": "words"}, 3, ""},
		{config{"key": "amount", "valueType": "quantity"}, 0.5, ""},
		{config{"key": "json", "format": "json", "valueLocation": "a.n"}, 2.5, ""},
		{config{"key": "json", "format": "json", "valueLocation": "a.s"}, 2.5, ""},
		{config{"key": "json", "format": "json", "valueLocation": "a.n", "valueType": "int64"}, 2, ""},
		{config{"key": "json", "format": "json", "valueLocation": "a.s", "valueType": "quantity"}, 2.5, ""},
		{config{"key": "yaml", "format": "yaml", "valueLocation": "a.n"}, 2.5, ""},
		{config{"key": "yaml", "format": "yaml", "valueLocation": "a.i", "valueType": "int64"}, 4, ""},
		{config{"key": "yaml", "format": "yaml", "valueLocation": "a.s"}, 2500, ""}, // as in KEDA
		{config{"key": "yaml", "format": "yaml", "valueLocation": "a.s", "valueType": "quantity"}, 2.5, ""},

		{config{"key": "json", "format": "json", "valueLocation": "a.s", "valueType": "int64"}, 0, "is not a number"},
		{config{"key": "json", "format": "json", "valueLocation": "a.t"}, 0, "is not a number"},
		{config{"key": "json", "format": "json", "valueLocation": "a.x"}, 0, "is not there"},
		{config{"key": "yaml", "format": "yaml", "valueLocation": "a.t"}, 0, "is not a number"},
		{config{"key": "text", "format": "json", "valueLocation": "a"}, 0, "not of the format json"},
		{config{"key": "text"}, 0, `what is under key "text" is not a number`},
		{config{"key": "text", "valueType": "int64"}, 0, "is not a whole number"},
		{config{"key": "text", "valueType": "quantity"}, 0, "is not a number"},
		{config{"key": "nan"}, 0, "is no amount of work"},
		{config{"key": "empty"}, 0, "is not a number"},
		{config{"key": "absent"}, 0, `ConfigMap queue: has no key "absent"`},
		{config{"key": "n", "resourceName": "none"}, 0, "ConfigMap none: not found"},
	} {
		metadata := config{
			"resourceKind": "ConfigMap", "resourceName": "queue", "targetValue": "2.5", "activationTargetValue": "3",
		}
		for key, value := range test.more {
			metadata[key] = value
		}
		made, err := kubernetesresource.Type().New(t.Context(), trigger.Config{Metadata: metadata, Objects: world})
		if err != nil {
			t.Fatal(err)
		}
		got, err := made.Measure(t.Context())
		made.Close()
		want := trigger.Measurement{Value: test.want, Target: 2.5, Active: test.want > 3}
		if test.wrong == "" && (err != nil || got != want) {
			t.Errorf("%v: got %+v, %v; want %+v", test.more, got, err, want)
		}
		if test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong) ||
			strings.Contains(err.Error(), "canary")) {
			t.Errorf("%v: got %+v, error %v; want %q", test.more, got, err, test.wrong)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ key, value, want string }{
		{"resourceKind", "", "resourceKind: is required"},
		{"resourceKind", "Pod", `resourceKind "Pod": is not allowed; give ConfigMap or Secret`},
		{"resourceName", "", "resourceName: is required"},
		{"key", "", "key: is required"},
		{"targetValue", "", "targetValue: is required"},
		{"targetValue", "0", "give a number above 0"},
		{"activationTargetValue", "x", "is not a number"},
		{"format", "xml", `format "xml": is not allowed`},
		{"format", "json", "valueLocation: is required with format json"},
		{"valueLocation", "a", "valueLocation: needs a document; give format json or yaml"},
		{"valueType", "bool", `valueType "bool": is not allowed`},
	} {
		metadata := config{"resourceKind": "Secret", "resourceName": "r", "key": "k", "targetValue": "1"}
		metadata[test.key] = test.value
		_, err := kubernetesresource.Type().New(t.Context(), trigger.Config{Metadata: metadata})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: error %v, want %q", test.key, test.value, err, test.want)
		}
	}
	metadata := config{"resourceKind": "ConfigMap", "resourceName": "a.b", "key": "k", "targetValue": "2.5"}
	if name := kubernetesresource.Type().ExternalMetricName(0, trigger.Config{Metadata: metadata}); name != "s0-configmap-a-b-k" {
		t.Errorf("metric name %s", name)
	}
	if got, _ := kubernetesresource.Type().ThresholdOf(metadata); got != (trigger.Threshold{Target: 2.5}) {
		t.Errorf("threshold %+v", got)
	}
}

func FuzzValue(f *testing.F) {
	f.Add("12", "number", "int64", "")
	f.Add(`{"a": "500m"}`, "json", "quantity", "a")
	f.Add("a: [1.5]", "yaml", "float64", "a.0")
	f.Fuzz(func(t *testing.T, text, format, kind, location string) {
		made, err := kubernetesresource.Type().New(t.Context(), trigger.Config{
			Objects: objects{"Secret/r": {"k": text}},
			Metadata: config{"resourceKind": "Secret", "resourceName": "r", "key": "k", "targetValue": "1",
				"format": format, "valueType": kind, "valueLocation": location},
		})
		if err != nil {
			return
		}
		if got, err := made.Measure(t.Context()); math.IsNaN(got.Value) || math.IsInf(got.Value, 0) || (err == nil) != (got.Target > 0) {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}
