package kube

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// claimed creates a Job with an item in a file, of which nothing runs.
func claimed(t *testing.T, c client.Client, owner types.NamespacedName, uid types.UID, name string) *batchv1.Job {
	t.Helper()
	job := aNamedJob(owner, name)
	job.Finalizers = []string{v1alpha1.FinalizerSettle}
	job.Annotations = map[string]string{v1alpha1.AnnotationItemID: "id-of-" + name, v1alpha1.AnnotationQueue: "list"}
	job.OwnerReferences[0].UID, job.OwnerReferences[0].BlockOwnerDeletion = uid, nil
	job.Spec.Suspend = ptr.To(true)
	stored, err := jobsOn(c).Create(t.Context(), job, &scaledjob.ItemFile{Content: []byte("item")})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// exists tells whether there is a Job, and whether it has the finalizer.
func exists(t *testing.T, c client.Client, job *batchv1.Job) (there, held bool) {
	t.Helper()
	now := &batchv1.Job{}
	err := c.Get(t.Context(), client.ObjectKeyFromObject(job), now)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	return err == nil, len(now.Finalizers) > 0
}

// TestAbandonedJobs has Jobs that nobody can settle let go, before the operator is there and while it is, and leaves
// alone those of a ScaledJob that another operator looks after, and those that are not being deleted.
func TestAbandonedJobs(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	remove := func(job *batchv1.Job) {
		t.Helper()
		err := c.Delete(t.Context(), job.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationBackground))
		if err != nil {
			t.Fatal(err)
		}
	}
	others := aScaledJob(namespace, "others")
	if err := c.Create(t.Context(), others); err != nil {
		t.Fatal(err)
	}
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: namespace, Name: name} }
	before := claimed(t, c, key("gone"), "gone", "before")
	remove(before)
	foreign := claimed(t, c, others.Key(), others.UID, "foreign")
	remove(foreign)
	r := start(t, Options{Config: plane.Config(), Namespaces: []string{namespace}, Selector: labels.SelectorFromSet(labels.Set{"a": "b"})})
	letGo := func(job *batchv1.Job) {
		t.Helper()
		eventually(t, "Job "+job.Name+" is gone", func() bool { there, _ := exists(t, c, job); return !there })
		if secretOf(t, c, namespace, job.Name) != nil {
			t.Errorf("the Secret of Job %s is left", job.Name)
		}
		eventually(t, "it is told", func() bool { return strings.Contains(r.String(), "id-of-"+job.Name) })
	}
	letGo(before)
	after := claimed(t, c, key("gone"), "gone", "after")
	remove(after)
	letGo(after)
	if there, held := exists(t, c, foreign); !there || !held {
		t.Error("a Job of a ScaledJob that somebody else looks after was let go")
	}
	if err := jobsOn(c).Settled(t.Context(), scaledjob.Job{Job: foreign}); err != nil {
		t.Fatal(err)
	}
}

// TestScaledJobGoes has the ScaledJob go before its Job, which the operator has left to its controller until then.
func TestScaledJobGoes(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	sj := aScaledJob(plane.Namespace(t), "work")
	sj.Spec.MinReplicaCount = nil
	sj.Finalizers = []string{"example.org/another"}
	if err := c.Create(t.Context(), sj); err != nil {
		t.Fatal(err)
	}
	job := claimed(t, c, sj.Key(), sj.UID, "one")
	if err := c.Delete(t.Context(), job.DeepCopy(), client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Config: plane.Config(), Namespaces: []string{sj.Namespace}})
	eventually(t, "the ScaledJob is looked after", func() bool {
		return conditionOf(t, c, sj, v1alpha1.ConditionReady).Status != metav1.ConditionUnknown
	})
	if there, held := exists(t, c, job); !there || !held {
		t.Fatal("a Job was let go whose ScaledJob is there")
	}
	if err := c.Delete(t.Context(), sj.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	if err := c.Patch(t.Context(), sj.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Job is gone", func() bool { there, _ := exists(t, c, job); return !there })
}

// TestDeletedNamespace has a namespace deleted while no operator is there. When one comes, the namespace is let go.
func TestDeletedNamespace(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	claimed(t, c, types.NamespacedName{Namespace: namespace, Name: "gone"}, "gone", "one")
	unreadable := broken(t, namespace)
	unreadable.SetFinalizers([]string{v1alpha1.FinalizerSettle})
	if err := c.Create(t.Context(), unreadable); err != nil {
		t.Fatal(err)
	}
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := c.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace waits for what is in it", func() bool {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			t.Fatal(err)
		}
		for _, condition := range object.Status.Conditions {
			if condition.Type == corev1.NamespaceFinalizersRemaining && condition.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	})
	start(t, Options{Config: plane.Config(), Namespaces: []string{namespace}})
	eventually(t, "the namespace is gone", func() bool {
		return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(object), object))
	})
}

// broken is a ScaledJob that the definition lets pass and that the Go type cannot hold.
func broken(t *testing.T, namespace string) *unstructured.Unstructured {
	t.Helper()
	object, err := k8sruntime.DefaultUnstructuredConverter.ToUnstructured(aScaledJob(namespace, "broken"))
	if err != nil {
		t.Fatal(err)
	}
	broken := &unstructured.Unstructured{Object: object}
	broken.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
	if err := unstructured.SetNestedField(broken.Object, int64(3_000_000_000), "spec", "pollingInterval"); err != nil {
		t.Fatal(err)
	}
	return broken
}

// TestUnreadableScaledJobLeaves has a ScaledJob deleted that cannot be read any more: its last good version, which is
// known to be deleted now, stays until the finalizer is off.
func TestUnreadableScaledJobLeaves(t *testing.T) {
	t.Parallel()
	o := &objects{scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{}}
	good := aScaledJob("shop", "broken")
	good.UID, good.ResourceVersion, good.Finalizers = "uid", "1", []string{v1alpha1.FinalizerSettle}
	bad := broken(t, "shop")
	bad.SetUID("uid")
	bad.SetResourceVersion("2")
	bad.SetDeletionTimestamp(ptr.To(metav1.Now()))
	bad.SetFinalizers([]string{v1alpha1.FinalizerSettle})
	if o.leaves(bad) {
		t.Error("it stays although nothing is known of it")
	}
	o.show(good)
	if !o.leaves(bad) {
		t.Fatal("the last good version does not stay")
	}
	known, err := o.ScaledJob(t.Context(), good.Key())
	if err != nil || known.DeletionTimestamp == nil || known.ResourceVersion != "2" || good.DeletionTimestamp != nil {
		t.Errorf("got %v, %v", known, err)
	}
	bad.SetFinalizers(nil)
	if o.leaves(bad) {
		t.Error("it stays although nothing holds it")
	}
}
