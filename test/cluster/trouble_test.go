package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestRefusals has the cluster refuse Jobs and Pods in several ways. Each is told once, in the words of the cluster, and
// other ScaledJobs go on.
func TestRefusals(t *testing.T) {
	t.Parallel()
	quota := func(hard string) func(*cluster) {
		return func(c *cluster) {
			// It bounds Services as well, of which there may be none: that they are refused shows that it is in force.
			c.kubectl("create", "quota", "few", "--hard", hard+",count/services=0")
			c.eventually("the quota in force", func() (bool, string) {
				output, err := c.Kubectl(c.t.Context(), "--namespace", c.namespace, "create", "service", "externalname",
					fmt.Sprint("try-", time.Now().UnixNano()), "--external-name=example.org")
				return err != nil && strings.Contains(err.Error(), "exceeded quota: few"), fmt.Sprintf("%s%v", output, err)
			})
		}
	}
	for _, test := range []struct {
		name     string
		image    string
		obstacle func(*cluster)
		want     string
		// withoutPods is how many Jobs are made that get no Pod. Where it is 0, Jobs are refused.
		withoutPods float64
		// repair is a kubectl command after which everything runs.
		repair []string
	}{
		{
			name:        "quota of Pods",
			obstacle:    quota("pods=5"),
			want:        "exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5",
			withoutPods: 3,
			repair:      []string{"delete", "quota", "few"},
		},
		{
			name:     "quota of Jobs",
			obstacle: quota("count/jobs.batch=5"),
			want:     "exceeded quota: few, requested: count/jobs.batch=1, used: count/jobs.batch=5, limited: count/jobs.batch=5",
			repair:   []string{"delete", "quota", "few"},
		},
		{
			name:     "admission",
			obstacle: demandTTL,
			want:     "every Job needs a ttl",
			repair:   []string{"patch", "sj", "work", "--type=merge", "-p", `{"spec":{"jobTargetRef":{"ttlSecondsAfterFinished":600}}}`},
		},
		{
			name: "invalid Job",
			obstacle: func(c *cluster) {
				c.kubectl("patch", "sj", "work", "--type=merge", "-p", `{"spec":{"jobTargetRef":{"backoffLimit":-1}}}`)
			},
			want:   "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
			repair: []string{"patch", "sj", "work", "--type=merge", "-p", `{"spec":{"jobTargetRef":{"backoffLimit":0}}}`},
		},
		{
			name:        "invalid Pod",
			image:       "registry.example/work:1 ",
			want:        "must not have leading or trailing whitespace",
			withoutPods: 8,
			repair: []string{"patch", "sj", "work", "--type=json", "-p",
				`[{"op":"replace","path":"/spec/jobTargetRef/template/spec/containers/0/image","value":"registry.example/work:2"}]`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, elsewhere, redis := onShared(t), onShared(t), redistest.Start(t, redistest.Options{})
			ledger, others := newLedger(t), newLedger(t)
			o := c.start("--namespaces", elsewhere.namespace)
			m := manifest{name: "work", redis: redis.Addr(), shell: hold(ledger), image: test.image}
			c.apply(m.String(), "apply", "-f", "-")
			elsewhere.apply(manifest{name: "other", redis: redis.Addr(), shell: "echo $OFFBOARD_ITEM >> " + others.path}.String(),
				"apply", "-f", "-")
			c.condition("work", v1alpha1.ConditionReady, metav1.ConditionTrue)
			elsewhere.condition("other", v1alpha1.ConditionReady, metav1.ConditionTrue)
			if test.obstacle != nil {
				test.obstacle(c)
			}
			for i := range 8 {
				push(t, redis, "work", fmt.Sprint(i))
			}
			refused := c.condition("work", v1alpha1.ConditionReady, metav1.ConditionFalse)
			if refused.Reason != "KEDAJobCreateFailed" || !strings.Contains(refused.Message, test.want) {
				t.Errorf("Ready = %+v, want %q", refused, test.want)
			}
			push(t, redis, "other", "1", "2", "3")
			c.eventually("others going on", func() (bool, string) {
				return len(others.lines()) == 3, fmt.Sprint(others.lines())
			})
			var message string
			c.eventually("event", func() (bool, string) {
				var count int
				count, message = c.events("work", "KEDAJobCreateFailed")
				return count > 0, ""
			})
			if !strings.Contains(message, test.want) {
				t.Errorf("event %q, want %q", message, test.want)
			}
			c.wantMetric(o, test.withoutPods, "offboard_jobs_without_pods", c.namespace, "work")
			if refused, _ := o.metric("offboard_jobs_refused_total", c.namespace, "work"); refused > 0 != (test.withoutPods == 0) {
				t.Errorf("%v Jobs are counted as refused", refused)
			}
			c.kubectl(test.repair...)
			c.eventually("8 runs after the repair", func() (bool, string) {
				return len(ledger.lines()) == 8, fmt.Sprint(ledger.lines())
			})
			c.condition("work", v1alpha1.ConditionReady, metav1.ConditionTrue)
			c.wantMetric(o, 0, "offboard_jobs_without_pods", c.namespace, "work")
			// By now it has been tried many times.
			if count, _ := c.events("work", "KEDAJobCreateFailed"); count != 1 {
				t.Errorf("said %d times", count)
			}
			c.eventually("event that it is ready again", func() (bool, string) {
				ready, _ := c.events("work", "ScaledJobReady")
				return ready == 2, fmt.Sprintf("said %d times", ready)
			})
		})
	}
}

// demandTTL makes the cluster refuse Jobs without ttlSecondsAfterFinished in the test's namespace.
func demandTTL(c *cluster) {
	c.apply(fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]q}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [batch], apiVersions: [v1], operations: [CREATE], resources: [jobs]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]q}}
  validations: [{expression: has(object.spec.ttlSecondsAfterFinished), message: every Job needs a ttl}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]q}
spec: {policyName: %[1]q, validationActions: [Deny]}`, c.namespace), "apply", "-f", "-")
	c.t.Cleanup(func() {
		_, err := c.Kubectl(context.Background(), "delete",
			"validatingadmissionpolicy/"+c.namespace, "validatingadmissionpolicybinding/"+c.namespace)
		if err != nil {
			c.t.Error(err)
		}
	})
	c.eventually("the policy in force", func() (bool, string) {
		output, err := c.Kubectl(c.t.Context(), "--namespace", c.namespace, "create", "job", "try",
			"--image=registry.example/x:1", "--dry-run=server")
		return err != nil && strings.Contains(err.Error(), "every Job needs a ttl"), fmt.Sprintf("%s%v", output, err)
	})
}

// unfinished counts the Jobs that have not ended.
func unfinished(jobs []batchv1.Job) (n int) {
	for i := range jobs {
		if how, _ := scaledjob.Finished(&jobs[i]); how == "" {
			n++
		}
	}
	return n
}
