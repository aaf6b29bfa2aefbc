package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(today.Add(-d)) }

func scaledJob(namespace, name string, conditions ...v1alpha1.Condition) *v1alpha1.ScaledJob {
	return &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: ago(90 * time.Minute)},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef:    &batchv1.JobSpec{},
			MaxReplicaCount: ptr.To[int32](25),
			ScalingStrategy: v1alpha1.ScalingStrategy{Strategy: "custom"},
			Triggers:        []v1alpha1.ScaleTriggers{{Type: "redis", Metadata: map[string]string{"listName": "usertask"}}},
		},
		Status: v1alpha1.ScaledJobStatus{Conditions: conditions},
	}
}

// someScaledJobs is an `offboard up` with ScaledJobs of all kinds.
func someScaledJobs() *fakeUp {
	ready := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "ScaledJobReady"}
	broken := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Message: "redis is down"}
	hostile := scaledJob("other", "hostile")
	hostile.Spec.MaxReplicaCount, hostile.Spec.Triggers[0].Type = nil, "\x1b[2Jredis"
	hostile.Spec.ScalingStrategy.Strategy = ""
	hostile.CreationTimestamp = metav1.Time{}
	return &fakeUp{scaledJobs: []control.ScaledJobInfo{
		{
			Object: scaledJob("default", "broken", broken), Failed: 2,
			LastReason: "redis at 127.0.0.1:6379: connection refused, and this is a long story that goes on for quite a while",
		},
		{
			Object: scaledJob("default", "usertask", ready), Queue: ptr.To(6.0), Running: 25, Pending: 3, Succeeded: 1234,
			LastReason: "custom: 6 for the work waiting",
			Events: []control.Event{{
				Type: "Normal", Reason: "JobsCreated", Message: "created 5 Jobs", Count: 2, First: ago(time.Hour), Last: ago(time.Minute),
			}},
		},
		{Object: hostile, Queue: ptr.To(1.5), LastReason: "line 1\nline 2\x1b]0;title\x07"},
	}}
}

func TestGet(t *testing.T) {
	t.Parallel()
	dataDir, _ := someScaledJobs().start(t)
	for name, args := range map[string][]string{
		"get":            {"get"},
		"get-wide":       {"get", "-o", "wide"},
		"get-all":        {"get", "-A"},
		"get-all-wide":   {"get", "-A", "-o", "wide"},
		"get-name":       {"get", "-o", "name"},
		"get-json-one":   {"get", "usertask", "-o", "json"},
		"get-yaml-one":   {"get", "scaledjob.keda.sh/usertask", "-o", "yaml"},
		"get-yaml-list":  {"get", "-o", "yaml"},
		"get-unknown":    {"get", "usertsk"},
		"get-none":       {"get", "-n", "empty"},
		"get-none-json":  {"get", "-n", "empty", "-o", "json"},
		"get-bad-output": {"get", "-o", "xml"},
		"get-name-all":   {"get", "usertask", "-A"},
		"get-watch-json": {"get", "-w", "-o", "json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, name, execute(t, dataDir, "", args...))
		})
	}
}

func aJob(name string, age time.Duration, conditions ...batchv1.JobCondition) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, CreationTimestamp: ago(age),
			Labels: map[string]string{v1alpha1.LabelScaledJob: "usertask"},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "prepare"}}, Containers: []corev1.Container{{Name: "main"}},
		}}},
		Status: batchv1.JobStatus{StartTime: ptr.To(ago(age)), Conditions: conditions},
	}
}

// aPod is a Pod of that container states, for prepare and main in this order.
func aPod(name string, phase corev1.PodPhase, states ...corev1.ContainerState) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "prepare"}}, Containers: []corev1.Container{{Name: "main"}},
		},
		Status: corev1.PodStatus{Phase: phase},
	}
	for i, state := range states {
		status := corev1.ContainerStatus{Name: []string{"prepare", "main"}[i], State: state}
		if i == 0 {
			pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, status)
		} else {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, status)
		}
	}
	return pod
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func exited(code int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
}

func isTrue(t batchv1.JobConditionType, at time.Duration) batchv1.JobCondition {
	return batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: ago(at)}
}

// someJobs is an `offboard up` with Jobs of all kinds.
func someJobs() *fakeUp {
	succeeded := aJob("usertask-aaaaa", time.Hour, isTrue(batchv1.JobComplete, 59*time.Minute))
	succeeded.Status.CompletionTime = ptr.To(ago(59 * time.Minute))
	failed := aJob("usertask-bbbbb", 50*time.Minute, isTrue(batchv1.JobFailed, 40*time.Minute))
	failed.Status.Conditions[0].Reason = "BackoffLimitExceeded"
	failed.Status.Conditions[0].Message = "Job has reached the\nlimit"
	suspended := aJob("usertask-ccccc", 30*time.Minute)
	suspended.Spec.Suspend, suspended.Status.StartTime = ptr.To(true), nil
	elsewhere := aJob("elsewhere-fffff", time.Minute)
	elsewhere.Namespace, elsewhere.Labels = "other", nil
	restarted := aPod("usertask-ddddd-2", corev1.PodRunning, exited(0), running())
	restarted.Status.ContainerStatuses[0].RestartCount = 1
	restarted.Status.ContainerStatuses[0].LastTerminationState = exited(4)
	return &fakeUp{
		jobs: []control.JobInfo{
			{Job: succeeded, Pods: []*corev1.Pod{aPod("usertask-aaaaa-1", corev1.PodSucceeded, exited(0), exited(0))}, Item: `{"user": 1}`},
			{Job: failed, Pods: []*corev1.Pod{
				aPod("usertask-bbbbb-1", corev1.PodFailed, exited(0), exited(1)), aPod("usertask-bbbbb-2", corev1.PodFailed, exited(0), exited(137)),
			}, Item: "{\"user\": 2}\n\x1b[31mred\x1b]0;title\x07 \u202eevil " + strings.Repeat("long ", 50)},
			{Job: suspended},
			{Job: aJob("usertask-ddddd", 3*time.Minute), Pods: []*corev1.Pod{restarted}, Item: "ünïcödé"},
			{Job: aJob("usertask-eeeee", 2*time.Second), Pods: []*corev1.Pod{aPod("usertask-eeeee-1", corev1.PodPending)}},
			{Job: elsewhere},
		},
		scaledJobs: []control.ScaledJobInfo{{Object: scaledJob("default", "usertask")}},
		outputs: map[string]string{
			"usertask-aaaaa-1/main":          "raw \x00\xff\x1b[1m bytes\nwithout an end",
			"usertask-aaaaa-1/prepare":       "preparing\n",
			"usertask-bbbbb-1/main":          "first try\nfailed\n",
			"usertask-bbbbb-2/main":          "second try\nunfinished",
			"usertask-ddddd-2/main":          "second run\n",
			"usertask-ddddd-2/main/previous": "first run\n",
		},
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	dataDir, _ := someJobs().start(t)
	for name, args := range map[string][]string{
		"jobs":                   {"jobs"},
		"jobs-wide":              {"jobs", "-o", "wide"},
		"jobs-all":               {"jobs", "--all-namespaces"},
		"jobs-name":              {"jobs", "-o", "name"},
		"jobs-one":               {"jobs", "job/usertask-ddddd"},
		"jobs-json-one":          {"jobs", "usertask-bbbbb", "-o", "json"},
		"jobs-yaml-one":          {"jobs", "usertask-aaaaa", "-o", "yaml"},
		"jobs-scaledjob":         {"jobs", "--scaledjob", "usertask"},
		"jobs-unknown-scaledjob": {"jobs", "-s", "user"},
		"jobs-unknown":           {"jobs", "usertask"},
		"jobs-none":              {"jobs", "-n", "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, name, execute(t, dataDir, "", args...))
		})
	}
}

func TestYAMLCanBeParsed(t *testing.T) {
	t.Parallel()
	up := someScaledJobs()
	up.jobs = someJobs().jobs
	dataDir, _ := up.start(t)
	for _, args := range [][]string{
		{"get", "-A"}, {"get", "usertask"}, {"jobs", "-A"}, {"jobs", "usertask-bbbbb"},
	} {
		asYAML := execute(t, dataDir, "", append(args, "-o", "yaml")...)
		asJSON := execute(t, dataDir, "", append(args, "-o", "json")...)
		converted, err := yaml.YAMLToJSONStrict([]byte(asYAML.out))
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		var a, b any
		if err := json.Unmarshal(converted, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(asJSON.out), &b); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		first, _ := json.Marshal(a)
		second, _ := json.Marshal(b)
		if string(first) != string(second) {
			t.Errorf("%q: YAML and JSON differ:\n%s\n%s", args, first, second)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	up := someScaledJobs()
	dataDir, stop := up.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errOut syncBuffer
	code := make(chan int, 1)
	go func() { code <- Execute(ctx, options(dataDir, nil, &out, &errOut, "get", "--watch")) }()
	out.waitFor(t, "custom: 6 for the work waiting")
	// Only what has changed is printed again, in columns that stay.
	up.change(func() { up.scaledJobs[1].Queue, up.scaledJobs[1].LastReason = ptr.To(0.0), "nothing waits" })
	out.waitFor(t, "nothing waits")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 || strings.Index(lines[3], "True") != strings.Index(lines[2], "True") {
		t.Errorf("got\n%s", out.String())
	}
	stop()
	if got := <-code; got != exitUnavailable || !strings.Contains(errOut.String(), "offboard up is not running") {
		t.Errorf("exit code %d, %s", got, errOut.String())
	}
}
