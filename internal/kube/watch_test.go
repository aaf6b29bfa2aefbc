package kube

import (
	"context"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// handlers are informers that a test feeds.
type handlers struct {
	cache.Informers
	of map[string]toolscache.ResourceEventHandler
}

type handler struct {
	cache.Informer
	add func(toolscache.ResourceEventHandler)
}

func (h handlers) GetInformer(_ context.Context, object client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return handler{add: func(handler toolscache.ResourceEventHandler) {
		switch object.(type) {
		case *batchv1.Job:
			h.of["Job"] = handler
		case *corev1.Pod:
			h.of["Pod"] = handler
		}
	}}, nil
}

func (h handler) AddEventHandler(
	add toolscache.ResourceEventHandler,
) (toolscache.ResourceEventHandlerRegistration, error) {
	h.add(add)
	return registration{}, nil
}

type registration struct {
	toolscache.ResourceEventHandlerRegistration
}

func (registration) HasSynced() bool { return true }

// TestMovedObjects has a Job given to another ScaledJob by its label, and a Pod orphaned: nothing may be left behind of
// what they were.
func TestMovedObjects(t *testing.T) {
	t.Parallel()
	o := &operator{store: newStore(), objects: &objects{scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{}}}
	o.abandoned = newAbandoned(&jobs{store: o.store}, o.objects, quiet)
	h := handlers{of: map[string]toolscache.ResourceEventHandler{}}
	if err := o.watch(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	job := aJob("one", 1)
	h.of["Job"].OnAdd(job, false)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "pod", OwnerReferences: []metav1.OwnerReference{
		{Kind: "Job", UID: job.UID, Controller: ptr.To(true)},
	}}}
	h.of["Pod"].OnAdd(pod, false)

	moved, another := aJob("one", 2), types.NamespacedName{Namespace: theOwner.Namespace, Name: "another"}
	moved.Labels[v1alpha1.LabelScaledJob] = another.Name
	h.of["Job"].OnUpdate(job, moved)
	if list, _ := o.store.list(theOwner, time.Now()); len(list) != 0 {
		t.Errorf("the Job still counts for the ScaledJob that it had: %v", list)
	}
	if list, _ := o.store.list(another, time.Now()); len(list) != 1 || len(list[0].Pods) != 1 {
		t.Errorf("the Job does not count for its new ScaledJob: %v", list)
	}
	orphan := pod.DeepCopy()
	orphan.OwnerReferences = nil
	h.of["Pod"].OnUpdate(pod, orphan)
	h.of["Pod"].OnDelete(orphan)
	h.of["Job"].OnDelete(moved)
	if len(o.store.jobs)+len(o.store.owners)+len(o.store.pods) != 0 {
		t.Errorf("left behind: %v %v %v", o.store.jobs, o.store.owners, o.store.pods)
	}
}
