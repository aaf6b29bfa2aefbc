package metrics

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/scaling"
)

var update = flag.Bool("update", false, "write the golden files and the tables of docs/metrics.md anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// redisTrigger is one of the blog's: a list at a Redis.
func redisTrigger(name, list string) v1alpha1.ScaleTriggers {
	return v1alpha1.ScaleTriggers{Type: "redis", Name: name, Metadata: map[string]string{"listName": list}}
}

func newScaledJob(namespace, name string, triggers ...v1alpha1.ScaleTriggers) *v1alpha1.ScaledJob {
	return &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.ScaledJobSpec{Triggers: triggers},
	}
}

// ref names a trigger of the ScaledJob as the controller does.
func ref(sj *v1alpha1.ScaledJob, index int, metric string) scaledjob.TriggerRef {
	t := sj.Spec.Triggers[index]
	return scaledjob.TriggerRef{ScaledJob: sj.Key(), Type: t.Type, Name: t.Name, Index: index, Metric: metric}
}

// newRegistry returns a registry that checks what it is given as thoroughly as it can.
func newRegistry(t testing.TB, recorder *Recorder) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(recorder); err != nil {
		t.Fatal(err)
	}
	return registry
}

func gather(t testing.TB, recorder *Recorder) []*dto.MetricFamily {
	t.Helper()
	families, err := newRegistry(t, recorder).Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// busy returns a Recorder that has been told everything that a controller can tell.
func busy() *Recorder {
	r := New("1.2.3")
	r.SetLeader(true)
	r.SetLimits(limits.Limits{Jobs: 100, JobsPerNamespace: 40, JobsPerSecond: 2.5})
	r.Alive(37)
	r.SetReplicas(3)
	mail := newScaledJob("shop", "mail", redisTrigger("", "mail"), redisTrigger("bulk", "newsletter"))
	r.Tracked(mail)
	r.Measured(ref(mail, 0, "s0-redis-mail"), scaling.Reading{Value: 7, Target: 5, Active: true}, 2*time.Millisecond, nil)
	r.Measured(ref(mail, 1, "s1-redis-newsletter"), scaling.Reading{Target: 5}, 3*time.Millisecond, nil)
	r.Measured(ref(mail, 1, "s1-redis-newsletter"), scaling.Reading{}, 10*time.Second, errors.New("timeout"))
	r.Reconciled(mail.Key(), 250*time.Millisecond, false)
	r.Queue(mail.Key(), 7, 90*time.Second, 3, 2)
	r.Created(mail.Key(), 5, 12*time.Millisecond)
	r.Created(mail.Key(), 1, 0)
	r.Refused(mail.Key(), 2)
	r.WithoutPods(mail.Key(), 3)
	r.Limited(mail.Key(), 4)
	r.Settled(mail.Key(), "done", 7)
	r.Settled(mail.Key(), "dead", 1)
	r.Surplus(mail.Key(), 1)
	r.Failed(mail.Key())

	image := newScaledJob("shop", "thumbnail", v1alpha1.ScaleTriggers{Type: "rabbitmq"})
	r.Tracked(image)
	r.Measured(ref(image, 0, "s0-rabbitmq-image"), scaling.Reading{}, time.Second, errors.New("refused"))
	r.Reconciled(image.Key(), 0, true)
	return r
}

// TestKEDA compares with what KEDA 2.20 publishes: names, types, labels and their values.
func TestKEDA(t *testing.T) {
	t.Parallel()
	const want = `
# HELP keda_internal_scale_loop_latency_seconds How much later than it was due the last reconcile of the ScaledJob began.
# TYPE keda_internal_scale_loop_latency_seconds gauge
keda_internal_scale_loop_latency_seconds{namespace="shop",resource="mail",type="scaledjob"} 0.25
keda_internal_scale_loop_latency_seconds{namespace="shop",resource="thumbnail",type="scaledjob"} 0
# HELP keda_resource_registered_total ScaledJobs, by namespace.
# TYPE keda_resource_registered_total gauge
keda_resource_registered_total{namespace="shop",type="scaled_job"} 2
# HELP keda_resource_totals The name of keda_resource_registered_total before KEDA 2.17.
# TYPE keda_resource_totals gauge
keda_resource_totals{namespace="shop",type="scaled_job"} 2
# HELP keda_scaled_job_errors_total Reconciles of the ScaledJob that failed.
# TYPE keda_scaled_job_errors_total counter
keda_scaled_job_errors_total{namespace="shop",scaledJob="mail"} 1
keda_scaled_job_errors_total{namespace="shop",scaledJob="thumbnail"} 0
# HELP keda_scaler_active Whether the trigger's value is above its activation threshold (1) or not (0).
# TYPE keda_scaler_active gauge
keda_scaler_active{metric="s0-redis-mail",namespace="shop",scaledObject="mail",scaler="redisScaler",triggerIndex="0",type="scaledjob"} 1
keda_scaler_active{metric="s1-redis-newsletter",namespace="shop",scaledObject="mail",scaler="bulk",triggerIndex="1",type="scaledjob"} 0
# HELP keda_scaler_detail_errors_total Measurements of the trigger that failed.
# TYPE keda_scaler_detail_errors_total counter
keda_scaler_detail_errors_total{metric="s0-rabbitmq-image",namespace="shop",scaledObject="thumbnail",scaler="rabbitMQScaler",triggerIndex="0",type="scaledjob"} 1
keda_scaler_detail_errors_total{metric="s0-redis-mail",namespace="shop",scaledObject="mail",scaler="redisScaler",triggerIndex="0",type="scaledjob"} 0
keda_scaler_detail_errors_total{metric="s1-redis-newsletter",namespace="shop",scaledObject="mail",scaler="bulk",triggerIndex="1",type="scaledjob"} 1
# HELP keda_scaler_metrics_latency_seconds How long the last measurement of the trigger took.
# TYPE keda_scaler_metrics_latency_seconds gauge
keda_scaler_metrics_latency_seconds{metric="s0-rabbitmq-image",namespace="shop",scaledObject="thumbnail",scaler="rabbitMQScaler",triggerIndex="0",type="scaledjob"} 1
keda_scaler_metrics_latency_seconds{metric="s0-redis-mail",namespace="shop",scaledObject="mail",scaler="redisScaler",triggerIndex="0",type="scaledjob"} 0.002
keda_scaler_metrics_latency_seconds{metric="s1-redis-newsletter",namespace="shop",scaledObject="mail",scaler="bulk",triggerIndex="1",type="scaledjob"} 10
# HELP keda_scaler_metrics_value The trigger's value: how much work waits.
# TYPE keda_scaler_metrics_value gauge
keda_scaler_metrics_value{metric="s0-redis-mail",namespace="shop",scaledObject="mail",scaler="redisScaler",triggerIndex="0",type="scaledjob"} 7
keda_scaler_metrics_value{metric="s1-redis-newsletter",namespace="shop",scaledObject="mail",scaler="bulk",triggerIndex="1",type="scaledjob"} 0
# HELP keda_trigger_registered_total Triggers of all ScaledJobs, by trigger type.
# TYPE keda_trigger_registered_total gauge
keda_trigger_registered_total{type="rabbitmq"} 1
keda_trigger_registered_total{type="redis"} 2
# HELP keda_trigger_totals The name of keda_trigger_registered_total before KEDA 2.17.
# TYPE keda_trigger_totals gauge
keda_trigger_totals{type="rabbitmq"} 1
keda_trigger_totals{type="redis"} 2
`
	var names []string
	for _, f := range gather(t, busy()) {
		if name := f.GetName(); strings.HasPrefix(name, "keda_") && name != "keda_build_info" {
			names = append(names, name)
		}
	}
	if err := testutil.CollectAndCompare(busy(), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

// TestPublished compares everything with a file that tests of the dashboard and the alerts read too.
func TestPublished(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	for _, f := range gather(t, busy()) {
		if f.GetName() == "keda_build_info" {
			standIn(f.GetMetric()[0])
		}
		if _, err := expfmt.MetricFamilyToText(&got, f); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "testdata/published.txt", got.Bytes())
}

// standIn replaces what differs from one build to another.
func standIn(build *dto.Metric) {
	fixed := map[string]string{"git_commit": "0000000", "goversion": "go1.26", "goos": "linux", "goarch": "amd64"}
	labels := make([]*dto.LabelPair, len(build.GetLabel()))
	for i, pair := range build.GetLabel() {
		name, value := pair.GetName(), pair.GetValue()
		if other, differs := fixed[name]; differs {
			value = other
		}
		labels[i] = &dto.LabelPair{Name: &name, Value: &value}
	}
	build.Label = labels
}

func TestBuildInfo(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"version": "1.2.3", "goversion": runtime.Version(), "goos": runtime.GOOS, "goarch": runtime.GOARCH,
	}
	for _, f := range gather(t, New("1.2.3")) {
		if f.GetName() != "keda_build_info" {
			continue
		}
		for _, pair := range f.GetMetric()[0].GetLabel() {
			if value, known := want[pair.GetName()]; known && value != pair.GetValue() || pair.GetValue() == "" {
				t.Errorf("%s = %q, want %q", pair.GetName(), pair.GetValue(), value)
			}
		}
		return
	}
	t.Error("there is none")
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; look at the change and run the test with -update\ngot:\n%s", file, got)
	}
}

// TestNames holds our names to Prometheus's rules; KEDA's break some.
func TestNames(t *testing.T) {
	t.Parallel()
	var ours []*dto.MetricFamily
	for _, f := range gather(t, busy()) {
		if strings.HasPrefix(f.GetName(), "offboard_") {
			ours = append(ours, f)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil || len(problems) > 0 || len(ours) == 0 {
		t.Errorf("%d families: %v, %v", len(ours), problems, err)
	}
}

// TestScalerNames checks the label scaler for every trigger type of KEDA.
func TestScalerNames(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("testdata/scalers.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(list)), "\n")
	for _, line := range lines {
		triggerType, want, _ := strings.Cut(line, " ")
		if got := scalerName(scaledjob.TriggerRef{Type: triggerType}); got != want {
			t.Errorf("%s: %q, want %q", triggerType, got, want)
		}
		if got := scalerName(scaledjob.TriggerRef{Type: triggerType, Name: "mine"}); got != "mine" {
			t.Errorf("%s with a name: %q", triggerType, got)
		}
	}
	if len(lines) != 78 {
		t.Errorf("%d types", len(lines))
	}
	for _, odd := range []string{"", "-", "a--b", "a-"} {
		if got := scalerName(scaledjob.TriggerRef{Type: odd}); !strings.HasSuffix(got, "Scaler") {
			t.Errorf("%q: %q", odd, got)
		}
	}
}

// seriesOf returns how many series carry the name of the ScaledJob in any label.
func seriesOf(t *testing.T, r *Recorder, key types.NamespacedName) (count int) {
	t.Helper()
	for _, f := range gather(t, r) {
		for _, m := range f.GetMetric() {
			for _, pair := range m.GetLabel() {
				if pair.GetValue() == key.Name {
					count++
				}
			}
		}
	}
	return count
}
