package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// objectManifest is a ScaledJob with one trigger, whose Jobs run until they are ended.
func objectManifest(name string, pollingInterval int, trigger string) string {
	return fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: %s}
spec:
  pollingInterval: %d
  maxReplicaCount: 100
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 1
        containers: [{name: main, image: "registry.example/work:1", command: [sleep, "600"]}]
  triggers: [%s]
---
`, name, pollingInterval, trigger)
}

const encoders = `{type: kubernetes-workload, metadata: {podSelector: "app=encoder, tier notin (live)", value: "1"}}`

// pod makes a Pod with these labels, which is never scheduled unless there is a command.
func (c *cluster) pod(name string, labels map[string]string, command ...string) {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "registry.example/encoder:1", Command: command}},
		},
	}
	if len(command) == 0 {
		pod.Spec.NodeSelector = map[string]string{"example.org/no-such-node": "true"}
	}
	c.create(pod)
}

// wantJobs waits until a ScaledJob has that many Jobs.
func (c *cluster) wantJobs(scaledJob string, want int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d Jobs of %s", want, scaledJob), func() (bool, string) {
		got := 0
		for _, job := range c.jobs() {
			if job.Labels[v1alpha1.LabelScaledJob] == scaledJob {
				got++
			}
		}
		return got == want, fmt.Sprintf("%d Jobs", got)
	})
}

// reactions does something several times, waits each time until the ScaledJob, which has no Jobs yet, has got one more,
// and logs how long that took.
func (c *cluster) reactions(scaledJob, what string, times int, act func(i int)) {
	c.t.Helper()
	added := make(chan struct{}, 10*times)
	jobs := c.Client().BatchV1().Jobs(c.namespace)
	seen := map[types.UID]bool{}
	one := func(_ watch.EventType, job *batchv1.Job) {
		if job.Labels[v1alpha1.LabelScaledJob] == scaledJob && !seen[job.UID] {
			seen[job.UID] = true
			added <- struct{}{}
		}
	}
	follow(c.t, jobs.List, jobs.Watch, func(list *batchv1.JobList) string {
		for i := range list.Items {
			one(watch.Added, &list.Items[i])
		}
		return list.ResourceVersion
	}, one)
	var took []time.Duration
	for i := range times {
		began := time.Now()
		act(i)
		select {
		case <-added:
		case <-time.After(patience):
			c.t.Fatalf("no Job for %s, number %d", what, i)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	c.t.Logf("from %s to its Job being seen: half within %v, all within %v",
		what, took[times/2].Round(time.Millisecond/10), took[times-1].Round(time.Millisecond/10))
}

// TestWorkload has a Job for each Pod, as soon as there is one: the next poll is an hour away.
func TestWorkload(t *testing.T) {
	t.Parallel()
	c, elsewhere := onShared(t), onShared(t)
	o := c.start()
	c.apply(objectManifest("follow", 3600, encoders), "apply", "-f", "-")
	c.condition("follow", v1alpha1.ConditionReady, metav1.ConditionTrue)
	elsewhere.pod("other-namespace", map[string]string{"app": "encoder"})
	c.pod("other-tier", map[string]string{"app": "encoder", "tier": "live"})
	const pods = 20
	c.reactions("follow", "a Pod that is created", pods, func(i int) {
		c.pod(fmt.Sprint("encoder-", i), map[string]string{"app": "encoder"})
	})
	c.wantJobs("follow", pods)
	c.wantMetric(o, pods, "offboard_queue_length", c.namespace, "follow")
	if names := c.scaledJob("follow").Status.ExternalMetricNames; !slices.Equal(names, []string{"s0-workload-" + c.namespace}) {
		t.Errorf("metric names %q", names)
	}

	// Pods that end or go are not counted any more.
	ledger := newLedger(t)
	c.pod("ends", map[string]string{"app": "encoder"}, "sh", "-c", hold(ledger))
	c.wantJobs("follow", pods+1)
	ledger.release()
	c.wantMetric(o, pods, "offboard_queue_length", c.namespace, "follow")
	c.kubectl("delete", "pods", "--selector", "app=encoder", "--wait=false")
	c.wantMetric(o, 0, "offboard_queue_length", c.namespace, "follow")
	c.condition("follow", v1alpha1.ConditionActive, metav1.ConditionFalse)

	// To compare with.
	redis := redistest.Start(t, redistest.Options{})
	c.apply(manifest{name: "list", redis: redis.Addr(), shell: "sleep 600"}.String(), "apply", "-f", "-")
	c.condition("list", v1alpha1.ConditionReady, metav1.ConditionTrue)
	c.reactions("list", "a push to a Redis list", pods, func(i int) { push(t, redis, "list", fmt.Sprint(i)) })

	c.kubectl("delete", "sj", "follow", "--timeout=3m")
	c.pod("late", map[string]string{"app": "encoder"})
	c.apply(objectManifest("again", 3600, encoders), "apply", "-f", "-")
	c.wantJobs("again", 1)
}

// TestWorkloadOutage stops the API server. Until it is back, nobody knows how many Pods there are; then each new one is
// noticed again, without a poll.
func TestWorkloadOutage(t *testing.T) {
	t.Parallel()
	c := onOwn(t)
	o := c.start()
	c.apply(objectManifest("follow", 3600, encoders)+objectManifest("polls", 1, encoders), "apply", "-f", "-")
	c.pod("first", map[string]string{"app": "encoder"})
	c.wantJobs("follow", 1)
	c.wantJobs("polls", 1)
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	failures := func() float64 {
		failures, _ := o.metric("keda_scaler_detail_errors_total", c.namespace, "polls")
		return failures
	}
	before := failures()
	c.eventually("measurements that fail", func() (bool, string) {
		return failures() > before, fmt.Sprintf("%v failed", failures())
	})
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.pod("second", map[string]string{"app": "encoder"})
	c.wantJobs("follow", 2)
	c.wantJobs("polls", 2)
	c.condition("polls", v1alpha1.ConditionReady, metav1.ConditionTrue)
	c.pod("third", map[string]string{"app": "encoder"})
	c.wantJobs("follow", 3)
	c.wantJobs("polls", 3)
	if !strings.Contains(o.log.String(), "the Pods that triggers count are not watched now") {
		t.Error("the outage is not logged")
	}
}

// TestKubernetesResource has Jobs for the numbers in a ConfigMap and in a Secret, which change, vanish and return.
func TestKubernetesResource(t *testing.T) {
	t.Parallel()
	c := onShared(t)
	c.start()
	c.kubectl("create", "configmap", "backlog", "--from-literal=waiting=2")
	c.kubectl("create", "secret", "generic", "backlog", `--from-literal=state={"queues": {"video": 1, "word": "canary"}}`)
	c.apply(objectManifest("plain", 1, `{type: kubernetes-resource, metadata: {resourceKind: ConfigMap, `+
		`resourceName: backlog, key: waiting, targetValue: "1"}}`)+
		objectManifest("secret", 1, `{type: kubernetes-resource, metadata: {resourceKind: Secret, resourceName: backlog, `+
			`key: state, format: json, valueLocation: queues.video, targetValue: "1"}}`), "apply", "-f", "-")
	c.wantJobs("plain", 2)
	c.wantJobs("secret", 1)
	c.kubectl("patch", "configmap", "backlog", "-p", `{"data":{"waiting":"5"}}`)
	c.kubectl("patch", "secret", "backlog", "-p", `{"stringData":{"state":"{\"queues\": {\"video\": 4}}"}}`)
	c.wantJobs("plain", 5)
	c.wantJobs("secret", 4)

	wantFailure := func(scaledJob, want string) {
		t.Helper()
		c.eventually(fmt.Sprintf("%s saying %q", scaledJob, want), func() (bool, string) {
			ready := c.scaledJob(scaledJob).Status.Conditions.Get(v1alpha1.ConditionReady)
			if strings.Contains(ready.Message, "canary") {
				t.Errorf("the condition shows what the Secret holds: %s", ready.Message)
			}
			return ready.Status == metav1.ConditionFalse && strings.Contains(ready.Message, want), fmt.Sprintf("%+v", ready)
		})
	}
	c.kubectl("delete", "configmap", "backlog")
	wantFailure("plain", `ConfigMap backlog: configmaps "backlog" not found`)
	c.kubectl("create", "configmap", "backlog", "--from-literal=other=9")
	wantFailure("plain", `ConfigMap backlog: has no key "waiting"`)
	c.kubectl("patch", "secret", "backlog", "-p", `{"stringData":{"state":"{\"queues\": {\"video\": \"canary\"}}"}}`)
	wantFailure("secret", `Secret backlog: what is under key "state" is not a number`)
	c.wantJobs("plain", 5)
	c.wantJobs("secret", 4)
	c.kubectl("patch", "configmap", "backlog", "-p", `{"data":{"waiting":"6"}}`)
	c.kubectl("patch", "secret", "backlog", "-p", `{"stringData":{"state":"{\"queues\": {\"video\": 5}}"}}`)
	c.wantJobs("plain", 6)
	c.wantJobs("secret", 5)
	c.condition("plain", v1alpha1.ConditionReady, metav1.ConditionTrue)
	c.condition("secret", v1alpha1.ConditionReady, metav1.ConditionTrue)
}

// TestKubernetesResourceRights has an operator that may read neither ConfigMaps nor Secrets: it says so, makes no Jobs
// for them, and makes them once it may.
func TestKubernetesResourceRights(t *testing.T) {
	t.Parallel()
	c := onShared(t)
	name := "operator-of-" + c.namespace
	kubeconfig, err := c.UserKubeconfig(name)
	if err != nil {
		t.Fatal(err)
	}
	c.apply(rightsOf(name, "pods, events"), "apply", "-f", "-")
	t.Cleanup(func() {
		_, err := c.Kubectl(context.Background(), "delete", "clusterrole/"+name, "clusterrolebinding/"+name)
		if err != nil {
			t.Error(err)
		}
	})
	c.kubectl("create", "configmap", "backlog", "--from-literal=waiting=2")
	c.kubectl("create", "secret", "generic", "backlog", "--from-literal=waiting=3")
	c.start("--kubeconfig", kubeconfig)
	resource := `{type: kubernetes-resource, metadata: {resourceKind: %s, resourceName: backlog, key: waiting, targetValue: "1"}}`
	c.apply(objectManifest("plain", 1, fmt.Sprintf(resource, "ConfigMap"))+
		objectManifest("secret", 1, fmt.Sprintf(resource, "Secret")), "apply", "-f", "-")
	for scaledJob, kind := range map[string]string{"plain": "configmaps", "secret": "secrets"} {
		ready := c.condition(scaledJob, v1alpha1.ConditionReady, metav1.ConditionFalse)
		want := fmt.Sprintf(`cannot get resource %q in API group "" in the namespace %q`, kind, c.namespace)
		if !strings.Contains(ready.Message, want) {
			t.Errorf("%s says %q, want %q", scaledJob, ready.Message, want)
		}
	}
	if all, _, _ := c.count(); all != 0 {
		t.Errorf("%d Jobs for amounts that nobody knows", all)
	}
	c.apply(rightsOf(name, "pods, events, configmaps, secrets"), "apply", "-f", "-")
	c.wantJobs("plain", 2)
	c.wantJobs("secret", 3)
}

// rightsOf are the rights of a user to look after the ScaledJobs of the test's namespace, and on these resources there.
func rightsOf(user, resources string) string {
	const rights = `apiVersion: rbac.authorization.k8s.io/v1
kind: %[1]sRole
metadata: {name: %[2]s}
rules: [%[3]s]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: %[1]sRoleBinding
metadata: {name: %[2]s}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %[2]s}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[1]sRole, name: %[2]s}
---
`
	return fmt.Sprintf(rights, "", user, `{apiGroups: [batch], resources: [jobs], verbs: ["*"]}, `+
		`{apiGroups: [keda.sh], resources: [scaledjobs, scaledjobs/status, triggerauthentications], verbs: ["*"]}, `+
		`{apiGroups: [""], resources: [`+resources+`], verbs: ["*"]}`) +
		fmt.Sprintf(rights, "Cluster", user,
			`{apiGroups: [keda.sh], resources: [clustertriggerauthentications], verbs: [get, list, watch]}`)
}
