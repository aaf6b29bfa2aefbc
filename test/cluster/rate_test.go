package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestNoThrottle compares the operator with plain parallel writers on the same control plane. What makes it slower than a
// small multiple of them, five times in a row, is no noise: client-go's own limits of 5 or 20 requests a second are ten
// times as slow and more. It does not run beside other tests.
func TestNoThrottle(t *testing.T) {
	const (
		jobs    = 200
		writers = 32
		slower  = 4
		rounds  = 5
	)
	c, redis := onShared(t), redistest.Start(t, redistest.Options{})
	c.start()
	var told []string
	for round := range rounds {
		name := fmt.Sprint("work", round)
		// Nobody runs these Jobs: what is measured is how fast they are made.
		c.apply(strings.Replace(manifest{name: name, redis: redis.Addr(), shell: "true",
			spec: fmt.Sprintf("  scalingStrategy: {strategy: accurate}\n  maxReplicaCount: %d", jobs)}.String(),
			"  jobTargetRef:\n", "  jobTargetRef:\n    managedBy: example.org/nobody\n", 1), "apply", "-f", "-")
		c.condition(name, v1alpha1.ConditionReady, metav1.ConditionTrue)

		plain := c.writePlainly(c.scaledJob(name), jobs, writers)
		items := make([]string, jobs)
		for i := range items {
			items[i] = fmt.Sprint(i)
		}
		all := c.await(name, jobs)
		began := time.Now()
		push(t, redis, name, items...)
		took := (<-all).Sub(began)
		told = append(told, fmt.Sprintf("%d Jobs took %v, plain writers %v", jobs, took, plain))
		if took <= slower*plain {
			t.Log(told)
			return
		}
	}
	t.Errorf("the operator is more than %d times slower than plain writers: %q", slower, told)
}

// await watches the Jobs of a ScaledJob that has none yet, and tells when there are that many.
func (c *cluster) await(name string, jobs int) <-chan time.Time {
	c.t.Helper()
	options := metav1.ListOptions{LabelSelector: v1alpha1.LabelScaledJob + "=" + name}
	existing, err := c.Client().BatchV1().Jobs(c.namespace).List(c.t.Context(), options)
	if err != nil {
		c.t.Fatal(err)
	}
	watcher, err := toolswatch.NewRetryWatcherWithContext(c.t.Context(), existing.ResourceVersion, &toolscache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, from metav1.ListOptions) (watch.Interface, error) {
			from.LabelSelector = options.LabelSelector
			return c.Client().BatchV1().Jobs(c.namespace).Watch(ctx, from)
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	all := make(chan time.Time, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer close(all)
		for found := 0; found < jobs; {
			select {
			case event, open := <-watcher.ResultChan():
				if !open {
					c.t.Errorf("the watch of %s ended with %d of %d Jobs", name, found, jobs)
					return
				}
				if event.Type == watch.Added {
					found++
				}
			case <-time.After(patience):
				c.t.Errorf("%d of %d Jobs of %s were made", found, jobs, name)
				return
			}
		}
		all <- time.Now()
	})
	c.t.Cleanup(func() { watcher.Stop(); watching.Wait() })
	return all
}

// writePlainly makes Jobs like those of the ScaledJob with parallel writers, and returns how long that took.
func (c *cluster) writePlainly(sj *v1alpha1.ScaledJob, jobs, writers int) time.Duration {
	c.t.Helper()
	queue := make(chan struct{}, jobs)
	for range jobs {
		queue <- struct{}{}
	}
	close(queue)
	began := time.Now()
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range queue {
				job := &batchv1.Job{
					ObjectMeta: metav1.ObjectMeta{GenerateName: "plain-", Labels: map[string]string{"plain": "true"}},
					Spec:       *sj.Spec.JobTargetRef.DeepCopy(),
				}
				if _, err := c.Client().BatchV1().Jobs(c.namespace).Create(c.t.Context(), job, metav1.CreateOptions{}); err != nil {
					c.t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	return time.Since(began)
}
