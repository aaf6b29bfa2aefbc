package kube

import (
	"errors"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestSettled takes the finalizer off a Job that has another one, too, and that the watch shows late.
func TestSettled(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	asked := aNamedJob(owner, "one")
	asked.Finalizers = []string{"example.org/first", v1alpha1.FinalizerSettle, "example.org/last"}
	asked.Spec.Suspend = ptr.To(true)
	before, err := j.Create(t.Context(), asked, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Job controller has written its status", func() bool {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(before), before); err != nil {
			t.Fatal(err)
		}
		return len(before.Status.Conditions) > 0
	})
	j.store.show(owner, trimJob(before))
	listed := func() scaledjob.Job {
		t.Helper()
		list, err := j.List(t.Context(), owner)
		if err != nil || len(list) != 1 {
			t.Fatalf("listed: %v, %v", list, err)
		}
		return list[0]
	}
	if got := listed().Finalizers; len(got) != 1 || got[0] != v1alpha1.FinalizerSettle {
		t.Errorf("before, the finalizers are %v", got)
	}
	another := scaledjob.Job{Job: before.DeepCopy()}
	another.UID = "another"
	if err := j.Settled(t.Context(), another); err != nil {
		t.Errorf("of a Job of that name that is gone: %v", err)
	}
	if len(listed().Finalizers) != 1 {
		t.Error("it was taken off the Job that has the name now")
	}
	j.may = func(types.NamespacedName) error { return errLost }
	if err := j.Settled(t.Context(), listed()); !errors.Is(err, errLost) || len(listed().Finalizers) != 1 {
		t.Errorf("of what is another replica's: %v", err)
	}
	j.may = always
	if err := j.Settled(t.Context(), listed()); err != nil {
		t.Fatal(err)
	}
	if got := listed().Finalizers; len(got) != 0 {
		t.Errorf("afterwards, the finalizers are %v", got)
	}
	if j.store.show(owner, trimJob(before)); len(listed().Finalizers) != 0 {
		t.Error("an older version brings it back")
	}
	now := &batchv1.Job{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(before), now); err != nil {
		t.Fatal(err)
	}
	if len(now.Finalizers) != 2 || now.Finalizers[0] != "example.org/first" || now.Finalizers[1] != "example.org/last" {
		t.Errorf("the finalizers are %v", now.Finalizers)
	}
	if j.store.show(owner, trimJob(now)) {
		t.Error("an own write is news")
	}
	if err := j.Settled(t.Context(), scaledjob.Job{Job: aNamedJob(owner, "gone")}); err != nil {
		t.Errorf("of a Job that is gone: %v", err)
	}
	now.Finalizers = nil
	if err := c.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

// TestEndPods ends the Pods of a Job that is being deleted and is kept by its finalizer.
func TestEndPods(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	asked := aNamedJob(owner, "one")
	asked.Finalizers = []string{v1alpha1.FinalizerSettle}
	asked.Spec.Template.Spec.Containers[0].Command = []string{"sleep", "1000"}
	asked.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	job, err := j.Create(t.Context(), asked, nil)
	if err != nil {
		t.Fatal(err)
	}
	pods := func() []corev1.Pod {
		var list corev1.PodList
		if err := c.List(t.Context(), &list, client.InNamespace(owner.Namespace)); err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	eventually(t, "the Pod runs", func() bool {
		list := pods()
		return len(list) == 1 && list[0].Status.Phase == corev1.PodRunning
	})
	running := trimPod(&pods()[0])
	j.store.showPod(running)
	gonePod := running.DeepCopy()
	gonePod.Name, gonePod.UID = "gone", "gone"
	j.store.showPod(gonePod)
	ended := running.DeepCopy()
	ended.Name, ended.UID, ended.Status.Phase = "ended", "ended", corev1.PodSucceeded
	j.store.showPod(ended)
	if err := j.Delete(t.Context(), job.Namespace, job.Name, job.UID, metav1.DeletePropagationBackground); err != nil {
		t.Fatal(err)
	}
	list, err := j.List(t.Context(), owner)
	if err != nil || len(list) != 1 || list[0].DeletionTimestamp == nil || len(list[0].Pods) != 3 {
		t.Fatalf("listed: %v, %v", list, err)
	}
	for range 2 {
		if err := j.EndPods(t.Context(), list[0]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "there is no Pod", func() bool { return len(pods()) == 0 })
	now := &batchv1.Job{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(job), now); err != nil || now.DeletionTimestamp == nil {
		t.Errorf("the Job: %v, %v", now.DeletionTimestamp, err)
	}
	if err := j.Settled(t.Context(), list[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Job is gone", func() bool {
		return client.IgnoreNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(job), now)) == nil &&
			c.Get(t.Context(), client.ObjectKeyFromObject(job), now) != nil
	})
	list[0].Pods = nil
	if err := j.EndPods(t.Context(), list[0]); err != nil {
		t.Errorf("of a Job that is gone: %v", err)
	}
}

// TestStoreSettled takes the finalizer off in the store: no version of the Job brings it back, another Job does.
func TestStoreSettled(t *testing.T) {
	t.Parallel()
	now, store := time.Now(), newStore()
	withFinalizer := func(version int) *batchv1.Job {
		job := aJob("one", version)
		job.Finalizers = []string{v1alpha1.FinalizerSettle}
		return trimJob(job)
	}
	has := func() bool {
		list, _ := store.list(theOwner, now)
		return len(list) == 1 && len(list[0].Finalizers) == 1
	}
	if store.show(theOwner, withFinalizer(1)); !has() {
		t.Error("the finalizer is not shown")
	}
	listed, _ := store.list(theOwner, now)
	if store.settled("one", "uid-one"); has() || len(listed[0].Finalizers) != 1 {
		t.Error("the finalizer is shown still, or what was listed before has changed")
	}
	later := withFinalizer(2)
	later.Status.Active = 1
	if news := store.show(theOwner, later); !news || has() || len(later.Finalizers) != 1 {
		t.Error("a version from before the patch is no news, brings it back, or was changed")
	}
	if store.show(theOwner, func() *batchv1.Job { j := aJob("one", 3); j.Status.Active = 1; return trimJob(j) }()) {
		t.Error("the own patch is news")
	}
	another := withFinalizer(4)
	another.UID = "another"
	if store.show(theOwner, another); !has() {
		t.Error("the finalizer of another Job of that name is not shown")
	}
	store.settled("one", "uid-one")
	if !has() {
		t.Error("it was taken off another Job")
	}
}
