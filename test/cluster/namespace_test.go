package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestNamespaceDeletedMeanwhile has a namespace with Jobs of delivery by claim deleted while the operator is away: it
// stays until the operator returns, and then it goes. What has not finished is given back, if the queue can be reached.
func TestNamespaceDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, reachable := range []bool{true, false} {
		t.Run(fmt.Sprintf("Redis reachable %t", reachable), func(t *testing.T) {
			t.Parallel()
			c, redis, l := onShared(t), redistest.Start(t, redistest.Options{AppendOnly: true}), newLedger(t)
			m := manifest{name: "work", redis: redis.Addr(), spec: "  maxReplicaCount: 3", shell: hold(l)}
			c.apply(m.claimed("attempts: 2"), "apply", "-f", "-")
			o := c.start()
			push(t, redis, "work", "a", "b", "c", "d", "e")
			c.eventually("3 running Jobs", func() (bool, string) {
				return len(c.running()) == 3, fmt.Sprintf("Jobs %v, running Pods %v", len(c.jobs()), c.running())
			})
			o.end(syscall.SIGKILL)
			c.kubectl("delete", "namespace", c.namespace, "--wait=false")
			namespace := &corev1.Namespace{}
			exists := func() bool {
				there := false
				c.ask("get the namespace", func(ctx context.Context) error {
					err := c.client.Get(ctx, client.ObjectKey{Name: c.namespace}, namespace)
					there = err == nil
					return client.IgnoreNotFound(err)
				})
				return there
			}
			c.eventually("wait for finalizers", func() (bool, string) {
				return exists() && slices.ContainsFunc(namespace.Status.Conditions, func(condition corev1.NamespaceCondition) bool {
					return condition.Type == corev1.NamespaceFinalizersRemaining && condition.Status == corev1.ConditionTrue &&
						strings.Contains(condition.Message, v1alpha1.FinalizerSettle)
				}), fmt.Sprint(namespace.Status.Conditions)
			})
			if !reachable {
				redis.Kill()
			}
			began := time.Now()
			o = c.launch("--leader-elect=false")
			c.eventually("end of the namespace", func() (bool, string) {
				there := exists()
				return !there, fmt.Sprint(namespace.Status.Conditions)
			})
			t.Logf("the namespace went %v after the operator was started", time.Since(began).Round(time.Second))
			if !reachable {
				c.eventually("word of what became of the items", func() (bool, string) {
					return strings.Contains(o.log.String(), "stay claimed"), o.log.String()
				})
				redis.Restart()
			}
			stats, err := queuetest.Open(redis.Client(), "work").Stats(t.Context())
			want := queue.Stats{Ready: 5}
			if !reachable {
				want = queue.Stats{Ready: 2, Claimed: 3}
			}
			if err != nil || stats.Ready != want.Ready || stats.Claimed != want.Claimed || stats.Done+stats.Retry+stats.Dead > 0 {
				t.Errorf("the queue has %+v, %v, want %+v", stats, err, want)
			}
			reply := redis.Do("LRANGE", "work", "0", "-1")
			if got, err := reply.AsStrSlice(); reachable && (err != nil || !slices.Equal(got, []string{"a", "b", "c", "d", "e"})) {
				t.Errorf("the list holds %q, %v", got, err)
			}
		})
	}
}

// running names the Pods of the test's namespace that run.
func (c *cluster) running() (names []string) {
	c.t.Helper()
	var list corev1.PodList
	c.list(&list)
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil && metav1.GetControllerOf(pod) != nil {
			names = append(names, pod.Name)
		}
	}
	return names
}
