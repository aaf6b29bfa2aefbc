package cluster

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestStory is that of the blog: a Secret, a ScaledJob, six items; six Jobs run them, and none is left.
func TestStory(t *testing.T) {
	t.Parallel()
	c := onShared(t)
	redis := redistest.Start(t, redistest.Options{Password: "s3cret"})
	host, port, _ := net.SplitHostPort(redis.Addr())
	o := c.start()
	c.apply(fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata:
  name: usertask
stringData: {REDIS_HOST: %q, REDIS_PORT: %q, REDIS_PASSWORD: s3cret, REDIS_LIST: usertask}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  name: usertask
spec:
  jobTargetRef:
    parallelism: 1
    completions: 1
    activeDeadlineSeconds: 600
    backoffLimit: 5
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: usertask
            image: registry.example/usertask:1
            command: [offboard, runner, --, sh, -c, "echo working on $OFFBOARD_ITEM"]
            envFrom: [{secretRef: {name: usertask}}]
  pollingInterval: 30
  maxReplicaCount: 25
  successfulJobsHistoryLimit: 50
  failedJobsHistoryLimit: 50
  scalingStrategy:
    strategy: custom
    customScalingQueueLengthDeduction: 1
    customScalingRunningJobPercentage: "0.5"
  triggers:
    - type: redis
      metadata:
        hostFromEnv: REDIS_HOST
        portFromEnv: REDIS_PORT
        passwordFromEnv: REDIS_PASSWORD
        listName: usertask
        listLength: "1"
`, host, port), "apply", "-f", "-")
	c.condition("usertask", v1alpha1.ConditionReady, metav1.ConditionTrue)
	var want []string
	for i := range 6 {
		item := fmt.Sprintf(`{"user":%d}`, i)
		want = append(want, item)
		push(t, redis, "usertask", item)
	}
	c.eventually("end of six Jobs", func() (bool, string) {
		all, complete, failed := c.count()
		return complete == 6, fmt.Sprintf("%d Jobs, %d complete, %d failed", all, complete, failed)
	})
	output := c.kubectl("logs", "--selector", "scaledjob.keda.sh/name=usertask", "--tail", "-1", "--prefix=false")
	var ran []string
	for line := range strings.Lines(output) {
		if item, found := strings.CutPrefix(strings.TrimSpace(line), "working on "); found {
			ran = append(ran, item)
		}
	}
	slices.Sort(ran)
	if !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q; output:\n%s", ran, want, output)
	}
	if all, _, _ := c.count(); all != 6 {
		t.Errorf("%d Jobs for six items", all)
	}
	c.condition("usertask", v1alpha1.ConditionActive, metav1.ConditionFalse)
	status := c.scaledJob("usertask").Status
	if status.LastActiveTime == nil || *status.TriggersTypes != "redis" || *status.AuthenticationsTypes != "" ||
		!slices.Equal(status.ExternalMetricNames, []string{"s0-redis-usertask"}) {
		t.Errorf("status = %+v", status)
	}
	for _, reason := range []string{
		"KEDAScalersStarted", "ScaledJobReady", "ScaledJobActive", "ScaledJobInactive", "KEDAJobsCreated",
	} {
		c.eventually("event "+reason, func() (bool, string) {
			count, message := c.events("usertask", reason)
			return count > 0, message
		})
	}
	for name, want := range map[string]float64{
		"offboard_jobs_created_total": 6, "offboard_jobs_refused_total": 0, "offboard_jobs_without_pods": 0,
		"offboard_queue_length": 0, "offboard_jobs_running": 0, "offboard_jobs_pending": 0, "offboard_jobs_surplus_total": 0,
		"keda_scaled_job_errors_total": 0, "offboard_scaledjob_paused": 0,
	} {
		c.wantMetric(o, want, name, c.namespace, "usertask")
	}
	trigger := []string{c.namespace, "usertask", "redisScaler", "s0-redis-usertask", "0", "scaledjob"}
	for _, name := range []string{
		"keda_scaler_metrics_value", "keda_scaler_active", "keda_scaler_detail_errors_total",
	} {
		c.wantMetric(o, 0, name, trigger...)
	}
	c.wantMetric(o, 1, "keda_trigger_registered_total", "redis")
	c.wantMetric(o, 1, "keda_resource_registered_total", c.namespace, "scaled_job")
	c.wantMetric(o, 1, "offboard_leader")
	table := c.kubectl("get", "sj")
	for _, column := range []string{"usertask", "25", "redis", "True"} {
		if !strings.Contains(table, column) {
			t.Errorf("kubectl get sj does not show %s:\n%s", column, table)
		}
	}
}

// hold keeps Jobs running until the test lets them go.
func hold(l *ledger) string {
	return fmt.Sprintf("echo $HOSTNAME.$OFFBOARD_ITEM >> %[1]s; while [ ! -e %[1]s.go ]; do sleep 0.1; done", l.path)
}

// TestRollout updates the image while Jobs run: by default none is killed, with rollout.strategy immediate all are.
func TestRollout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, rollout string
		replaced      bool
	}{
		{"default", "", false},
		{"gradual", "\n  rollout: {strategy: gradual}", false},
		{"immediate", "\n  rollout: {strategy: immediate}", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, redis, ledger := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
			c.start()
			m := manifest{name: "work", redis: redis.Addr(), shell: hold(ledger),
				spec: "  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: 10" + test.rollout}
			c.apply(m.String(), "apply", "-f", "-")
			for i := range 20 {
				push(t, redis, "work", fmt.Sprint(i))
			}
			c.eventually("10 Jobs with an item", func() (bool, string) {
				return len(ledger.lines()) == 10, fmt.Sprint(ledger.lines())
			})
			before := map[string]bool{}
			for _, job := range c.jobs() {
				before[string(job.UID)] = true
			}
			const image = `{"op":"replace","path":"/spec/jobTargetRef/template/spec/containers/0/image",` +
				`"value":"registry.example/work:2"}`
			if test.replaced {
				c.kubectl("patch", "sj", "work", "--type=json", "-p", "["+image+"]")
				c.eventually("10 other Jobs with an item", func() (bool, string) {
					old := 0
					for _, job := range c.jobs() {
						if before[string(job.UID)] {
							old++
						}
					}
					return old == 0 && len(ledger.lines()) == 20, fmt.Sprintf("%d old Jobs, runs %v", old, ledger.lines())
				})
				for _, job := range c.jobs() {
					if image := job.Spec.Template.Spec.Containers[0].Image; image != "registry.example/work:2" {
						t.Errorf("a Job has image %s", image)
					}
				}
				return
			}
			// The one Job more that the update allows shows that the operator has done what it does about an update.
			c.kubectl("patch", "sj", "work", "--type=json", "-p",
				"["+image+`,{"op":"replace","path":"/spec/maxReplicaCount","value":11}]`)
			c.eventually("an 11th Job with an item", func() (bool, string) {
				return len(ledger.lines()) == 11, fmt.Sprint(ledger.lines())
			})
			jobs := c.jobs()
			if len(jobs) != 11 {
				t.Errorf("%d Jobs", len(jobs))
			}
			for _, job := range jobs {
				how, _ := scaledjob.Finished(&job)
				if isNew := job.Spec.Template.Spec.Containers[0].Image == "registry.example/work:2"; how != "" ||
					job.DeletionTimestamp != nil || isNew == before[string(job.UID)] {
					t.Errorf("Job %s: finished %q, deleted %v, new %v", job.Name, how, job.DeletionTimestamp, isNew)
				}
			}
		})
	}
}

// TestDeletion deletes a ScaledJob whose Jobs run: they go with it, also when Redis cannot be reached and KEDA has left
// its finalizer.
func TestDeletion(t *testing.T) {
	t.Parallel()
	for _, reachable := range []bool{true, false} {
		t.Run(fmt.Sprintf("reachable=%v", reachable), func(t *testing.T) {
			t.Parallel()
			c, redis, ledger := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
			c.start()
			c.apply(manifest{name: "work", redis: redis.Addr(), shell: hold(ledger)}.String(), "apply", "-f", "-")
			c.kubectl("patch", "sj", "work", "--type=merge", "-p", `{"metadata":{"finalizers":["finalizer.keda.sh"]}}`)
			push(t, redis, "work", "1", "2", "3")
			c.eventually("3 Jobs with an item", func() (bool, string) {
				return len(ledger.lines()) == 3, fmt.Sprint(ledger.lines())
			})
			if !reachable {
				redis.Stop()
			}
			c.kubectl("delete", "sj", "work", "--timeout=3m")
			c.eventually("end of the Jobs and Pods", func() (bool, string) {
				var pods corev1.PodList
				c.list(&pods)
				return len(c.jobs()) == 0 && len(pods.Items) == 0, fmt.Sprintf("%d Jobs, %d Pods", len(c.jobs()), len(pods.Items))
			})
			for _, reason := range []string{"KEDAScalersStopped", "ScaledJobDeleted"} {
				c.eventually("event "+reason, func() (bool, string) {
					count, message := c.events("work", reason)
					return count == 1, fmt.Sprintf("%d times: %s", count, message)
				})
			}
		})
	}
}

// TestAdoption finds Jobs that KEDA has made: they count.
func TestAdoption(t *testing.T) {
	t.Parallel()
	c, redis, ledger := onShared(t), redistest.Start(t, redistest.Options{}), newLedger(t)
	m := manifest{name: "work", redis: redis.Addr(), shell: hold(ledger),
		spec: "  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: 3"}
	c.apply(m.String(), "apply", "-f", "-")
	sj := c.scaledJob("work")
	for i := range 2 {
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: c.namespace, Name: fmt.Sprintf("work-keda%d", i),
				Labels: map[string]string{
					"app.kubernetes.io/name": "work", "app.kubernetes.io/version": "2.20.0", "app.kubernetes.io/part-of": "work",
					"app.kubernetes.io/managed-by": "keda-operator", "scaledjob.keda.sh/name": "work",
				},
				Annotations:     map[string]string{"scaledjob.keda.sh/generation": "1"},
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(sj, v1alpha1.GroupVersion.WithKind("ScaledJob"))},
			},
			Spec: *sj.Spec.JobTargetRef.DeepCopy(),
		}
		job.Spec.Template.Labels = map[string]string{"scaledjob.keda.sh/name": "work"}
		c.create(job)
	}
	push(t, redis, "work", "1", "2")
	c.eventually("the two Jobs of KEDA at work", func() (bool, string) {
		return len(ledger.lines()) == 2, fmt.Sprint(ledger.lines())
	})
	c.start()
	push(t, redis, "work", "3", "4", "5", "6")
	c.eventually("a third Job at work", func() (bool, string) {
		return len(ledger.lines()) == 3, fmt.Sprint(ledger.lines())
	})
	// Whatever else the operator would create it has created once it has seen the change after that.
	c.kubectl("annotate", "sj", "work", "autoscaling.keda.sh/paused=true")
	c.condition("work", v1alpha1.ConditionPaused, metav1.ConditionTrue)
	if all, _, _ := c.count(); all != 3 {
		t.Errorf("%d Jobs under a limit of 3", all)
	}
}
