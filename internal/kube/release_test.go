package kube

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// claiming is a ScaledJob with delivery by claim, whose item "quick" ends at once and every other one never.
func claiming(namespace, name string, redis *redistest.Server) *v1alpha1.ScaledJob {
	sj := aScaledJob(namespace, name)
	sj.Spec.MinReplicaCount = nil
	sj.Spec.Delivery = &v1alpha1.Delivery{Mode: v1alpha1.DeliveryClaim}
	pod := &sj.Spec.JobTargetRef.Template.Spec
	pod.TerminationGracePeriodSeconds = ptr.To[int64](1)
	pod.Containers[0].Command = []string{"sh", "-c", `test "$OFFBOARD_ITEM" = quick || exec sleep 600`}
	sj.Spec.Triggers = []v1alpha1.ScaleTriggers{{Type: "redis", Metadata: map[string]string{
		"address": redis.Addr(), "listName": name, "listLength": "1",
	}}}
	return sj
}

// ends waits until the operator has ended, and returns the error with which it has.
func (r *running) ends(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- nil // for the end of the test
		return err
	case <-time.After(patience):
		t.Fatal("the operator does not end")
		return nil
	}
}

// aDeployment makes a Deployment whose Pods run nothing, and waits for its Pod.
func aDeployment(t *testing.T, c client.Client, namespace string) *appsv1.Deployment {
	t.Helper()
	selector := map[string]string{"app": "offboard"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "offboard"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: selector},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: selector},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "registry.example/operator:1"}}},
			},
		},
	}
	if err := c.Create(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Deployment has a Pod", func() bool { return replicas(t, c, deployment) == 1 })
	return deployment
}

func replicas(t *testing.T, c client.Client, deployment *appsv1.Deployment) int32 {
	t.Helper()
	now := &appsv1.Deployment{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(deployment), now); err != nil {
		t.Fatal(err)
	}
	return now.Status.Replicas
}

// TestReleaseAll has an operator release all beside another one, which ends when its Deployment is scaled to 0.
// What is another operator's stays as it is, what cannot be read or has lost its ScaledJob is let go, and a webhook that
// does not answer is no hindrance.
func TestReleaseAll(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	redis := redistest.Start(t, redistest.Options{})
	ours := labels.Set{"team": "a"}
	create := func(object client.Object) {
		t.Helper()
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	sj := claiming(namespace, "work", redis)
	sj.Labels, sj.Spec.MaxReplicaCount = ours, ptr.To[int32](4)
	create(sj)
	options := Options{
		Config: plane.Config(), Namespaces: []string{namespace}, Selector: labels.SelectorFromSet(ours), LeaderElection: true,
		LeaderElectionNamespace: namespace, Identity: "worker",
	}
	worker := start(t, options)
	redis.Do("RPUSH", "work", "a", "quick", "b", "c", "d")
	jobs := func() []batchv1.Job {
		t.Helper()
		var list batchv1.JobList
		if err := c.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.LabelScaledJob: "work"}); err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	eventually(t, "there are Jobs for all items", func() bool { return len(jobs()) == 5 })

	unreadable := broken(t, namespace)
	unreadable.SetLabels(ours)
	unreadable.SetFinalizers([]string{v1alpha1.FinalizerSettle})
	create(unreadable)
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: namespace, Name: name} }
	letGo := []*batchv1.Job{
		claimed(t, c, key("broken"), unreadable.GetUID(), "unreadable"), claimed(t, c, key("gone"), "gone", "orphan"),
	}
	others := aScaledJob(namespace, "others")
	others.Finalizers = []string{v1alpha1.FinalizerSettle}
	create(others)
	foreign := claimed(t, c, others.Key(), others.UID, "foreign")
	deployment := aDeployment(t, c, namespace)
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "validate.offboard.dev", AdmissionReviewVersions: []string{"v1"},
			FailurePolicy:     ptr.To(admissionregistrationv1.Fail),
			SideEffects:       ptr.To(admissionregistrationv1.SideEffectClassNone),
			ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")},
			NamespaceSelector: metav1.SetAsLabelSelector(labels.Set{corev1.LabelMetadataName: namespace}),
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{"keda.sh"}, APIVersions: []string{"v1alpha1"}, Resources: []string{"scaledjobs"},
				},
			}},
		}},
	}
	create(configuration)
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), configuration); err != nil {
			t.Error(err)
		}
	})

	options.Identity, options.ReleaseAll, options.StopDeployment = "releaser", true, client.ObjectKeyFromObject(deployment)
	options.Webhook = &Webhook{Configuration: namespace, Address: "nowhere"}
	releaser := start(t, options)
	eventually(t, "the Deployment is scaled to 0", func() bool { return replicas(t, c, deployment) == 0 })
	worker.stop()
	if err := releaser.ends(t); err != nil {
		t.Errorf("the operator ended with %v", err)
	}
	for _, want := range []string{
		`msg=releasing`, `msg="a ScaledJob is released" scaledjob=` + namespace + `/work`, "everything is released",
	} {
		if !strings.Contains(releaser.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, job := range append(jobs(), *letGo[0], *letGo[1]) {
		if _, held := exists(t, c, &job); held {
			t.Errorf("Job %s has the finalizer", job.Name)
		}
	}
	for name, want := range map[string]bool{"work": false, "broken": false, "others": true} {
		meta := &metav1.PartialObjectMetadata{}
		meta.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
		if err := c.Get(t.Context(), key(name), meta); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(meta.Finalizers, v1alpha1.FinalizerSettle); got != want {
			t.Errorf("ScaledJob %s has the finalizer: %t, want %t", name, got, want)
		}
	}
	if there, held := exists(t, c, foreign); !there || !held {
		t.Error("a Job of a ScaledJob that somebody else looks after was let go")
	}
	reply := redis.Do("LRANGE", "work", "0", "-1")
	if got, err := reply.AsStrSlice(); err != nil || !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("the list holds %q, %v", got, err)
	}
	if err := jobsOn(c).Settled(t.Context(), scaledjob.Job{Job: foreign}); err != nil {
		t.Fatal(err)
	}
}

// TestReleaseAllInterrupted ends with an error, since something is left. Without an election, it waits for the end of the
// Deployment's Pods, which have nobody to end them here.
func TestReleaseAllInterrupted(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	deployment := aDeployment(t, c, namespace)
	var pods corev1.PodList
	if err := c.List(t.Context(), &pods, client.InNamespace(namespace)); err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d Pods, %v", len(pods.Items), err)
	}
	finalizers := func(text string) {
		t.Helper()
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":`+text+`}}`))
		if err := c.Patch(t.Context(), pods.Items[0].DeepCopy(), patch); err != nil {
			t.Fatal(err)
		}
	}
	finalizers(`["example.org/keep"]`)
	options := Options{
		Config: plane.Config(), Namespaces: []string{namespace}, ReleaseAll: true,
		StopDeployment: client.ObjectKeyFromObject(deployment),
	}
	r := start(t, options)
	eventually(t, "the Deployment is scaled to 0", func() bool { return replicas(t, c, deployment) == 0 })
	r.stop()
	if err := r.ends(t); err == nil || !strings.Contains(err.Error(), "before everything was released") {
		t.Errorf("it ended with %v", err)
	}
	finalizers("null")
	if err := start(t, options).ends(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if err := c.Delete(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	again := start(t, options)
	if err := again.ends(t); err != nil || !strings.Contains(again.String(), "no Deployment to be stopped") {
		t.Errorf("without a Deployment it ended with %v", err)
	}
}

// TestReleaseAllWithoutDefinitions has only Jobs left.
func TestReleaseAllWithoutDefinitions(t *testing.T) {
	t.Parallel()
	plane := controlplane.ForTest(t, controlplane.Options{})
	c := aClient(t, plane.Config())
	namespace := plane.Namespace(t)
	job := claimed(t, c, types.NamespacedName{Namespace: namespace, Name: "gone"}, "gone", "one")
	options := Options{
		Config: plane.Config(), LeaderElection: true, LeaderElectionNamespace: namespace, Identity: "releaser", ReleaseAll: true,
	}
	if err := start(t, options).ends(t); err != nil {
		t.Errorf("the operator ended with %v", err)
	}
	if _, held := exists(t, c, job); held {
		t.Error("the Job has the finalizer")
	}
	if secretOf(t, c, namespace, job.Name) != nil {
		t.Error("the Secret of the Job is left")
	}
}
