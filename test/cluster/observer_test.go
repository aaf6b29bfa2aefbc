package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// annotationCreator on a Job names the replica's namespace and the UID of its Lease.
const annotationCreator = "offboard.dev/creator"

// observer follows Jobs and their Pods as a watch from outside shows them, also over restarts of the API server.
type observer struct {
	mu      sync.Mutex
	created map[types.UID]bool
	// alive are the Jobs that have not ended, by their names, and most those of the first moment when there were the most.
	alive map[string]*batchv1.Job
	most  []*batchv1.Job
	// byName are those alive of each ScaledJob, and mostBy how many there were at the most.
	byName map[string]map[string]bool
	mostBy map[string]int
	// pods are those that each Job has had, by the Job's name and then its UID.
	pods map[string]map[types.UID]map[types.UID]bool
}

// observe watches the Jobs of the test's namespace, and their Pods, until the test ends.
func (c *cluster) observe() *observer {
	c.t.Helper()
	o := &observer{
		created: map[types.UID]bool{}, alive: map[string]*batchv1.Job{}, byName: map[string]map[string]bool{},
		mostBy: map[string]int{}, pods: map[string]map[types.UID]map[types.UID]bool{},
	}
	jobs, pods := c.Client().BatchV1().Jobs(c.namespace), c.Client().CoreV1().Pods(c.namespace)
	follow(c.t, jobs.List, jobs.Watch, func(list *batchv1.JobList) string {
		o.seeAll(list.Items)
		return list.ResourceVersion
	}, o.see)
	follow(c.t, pods.List, pods.Watch, func(list *corev1.PodList) string {
		for i := range list.Items {
			o.seePod(watch.Added, &list.Items[i])
		}
		return list.ResourceVersion
	}, o.seePod)
	return o
}

// follow lists and then watches until the test ends, and begins anew where a watch ends. What all takes is what there is,
// whose version it returns; it is called before follow returns.
func follow[L any, E runtime.Object](
	t *testing.T, list func(context.Context, metav1.ListOptions) (L, error),
	watcher func(context.Context, metav1.ListOptions) (watch.Interface, error),
	all func(L) (version string), one func(watch.EventType, E),
) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	begin := func() (watch.Interface, error) {
		listed, err := list(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return watcher(ctx, metav1.ListOptions{ResourceVersion: all(listed)})
	}
	events, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	var following sync.WaitGroup
	following.Go(func() {
		for ctx.Err() == nil {
			if events != nil {
				for event := range events.ResultChan() {
					if object, ok := event.Object.(E); ok {
						one(event.Type, object)
					}
				}
				events.Stop()
			}
			// The API server may be away.
			if events, err = begin(); err != nil {
				events = nil
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
	})
	t.Cleanup(func() { cancel(); following.Wait() })
}

// seeAll takes over which Jobs there are.
func (o *observer) seeAll(jobs []batchv1.Job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.alive)
	clear(o.byName)
	for i := range jobs {
		o.note(watch.Added, &jobs[i])
	}
	o.count()
}

func (o *observer) see(event watch.EventType, job *batchv1.Job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(event, job)
	o.count()
}

func (o *observer) note(event watch.EventType, job *batchv1.Job) {
	o.created[job.UID] = true
	owner := job.Labels[v1alpha1.LabelScaledJob]
	if o.byName[owner] == nil {
		o.byName[owner] = map[string]bool{}
	}
	if how, _ := scaledjob.Finished(job); how != "" || event == watch.Deleted {
		delete(o.alive, job.Name)
		delete(o.byName[owner], job.Name)
	} else {
		o.alive[job.Name] = job
		o.byName[owner][job.Name] = true
	}
}

func (o *observer) count() {
	if len(o.alive) > len(o.most) {
		o.most = slices.Collect(maps.Values(o.alive))
	}
	for owner, alive := range o.byName {
		o.mostBy[owner] = max(o.mostBy[owner], len(alive))
	}
}

func (o *observer) seePod(_ watch.EventType, pod *corev1.Pod) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pods[owner.Name] == nil {
		o.pods[owner.Name] = map[types.UID]map[types.UID]bool{}
	}
	if o.pods[owner.Name][owner.UID] == nil {
		o.pods[owner.Name][owner.UID] = map[types.UID]bool{}
	}
	o.pods[owner.Name][owner.UID][pod.UID] = true
}

// podsOf returns how many Pods each Job of the name has had, by the Jobs' UIDs.
func (o *observer) podsOf(job string) map[types.UID]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	counts := map[types.UID]int{}
	for uid, pods := range o.pods[job] {
		counts[uid] = len(pods)
	}
	return counts
}

// mostOf returns how many Jobs each ScaledJob had at once.
func (o *observer) mostOf() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.mostBy)
}

// atMost tells which Jobs were alive when there were the most, those that were made last at the end: who has made them,
// and when.
func (o *observer) atMost() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var text strings.Builder
	for _, job := range slices.SortedFunc(slices.Values(o.most), func(a, b *batchv1.Job) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	}) {
		fmt.Fprintf(&text, "\n%s of %s, made by %s at %s, version %s", job.Name, job.Labels[v1alpha1.LabelScaledJob],
			job.Annotations[annotationCreator], job.CreationTimestamp.UTC().Format(time.TimeOnly), job.ResourceVersion)
	}
	return text.String()
}

func (o *observer) counts() (created, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.created), len(o.most)
}

// twice finds out whether Kubernetes has started one Job twice, which it says that it may: where the API server has made
// a Pod and is killed before it says so, the controller of Jobs makes another. It was no second Job. Both Pods may succeed,
// or one fail and with it the Job, so that there is a next attempt.
func (o *observer) twice(run, next string) (reason string) {
	name := "work-" + strings.Replace(run, "/", "-", 1)
	pods := o.podsOf(name)
	if len(pods) != 1 || run != next && !queuetest.IsNext(run, next) {
		return ""
	}
	for _, n := range pods {
		if n > 1 {
			reason = fmt.Sprintf("Kubernetes has made %d Pods of the Job %s", n, name)
		}
	}
	return reason
}
