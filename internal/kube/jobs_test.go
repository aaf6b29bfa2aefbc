package kube

import (
	"context"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// TestLostAnswers cuts the connections to the API server again and again while Jobs are created, so that it is often
// unknown whether a request took effect. In the end there is one Job for each call that succeeded and none for the
// others, and the store knows them all although no watch has shown it any.
func TestLostAnswers(t *testing.T) {
	plane := controlplane.ForTest(t, controlplane.Options{})
	namespace := plane.Namespace(t)
	owner := types.NamespacedName{Namespace: namespace, Name: "work"}
	server, err := url.Parse(plane.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := servertest.StartProxy(t, server.Host)
	throughProxy := plane.Config()
	throughProxy.Host = "https://" + proxy.Addr()
	flaky, direct := aClient(t, throughProxy), aClient(t, plane.Config())
	j := &jobs{store: newStore(), writer: flaky, reader: flaky, may: always}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	const creators, each = 8, 25
	var mu sync.Mutex
	made, failed := map[types.UID]bool{}, 0
	var creating sync.WaitGroup
	for range creators {
		creating.Go(func() {
			for range each {
				job, err := j.Create(ctx, aPlainJob(owner), nil)
				mu.Lock()
				if err == nil {
					made[job.UID] = true
				} else {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	cut, stopCutting := context.WithCancel(ctx)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		random := rand.New(rand.NewPCG(1, 2))
		for cut.Err() == nil {
			proxy.Cut()
			time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		}
	})
	creating.Wait()
	stopCutting()
	cutting.Wait()

	deadline := time.Now().Add(patience)
	listed, err := j.List(ctx, owner)
	for err != nil {
		if time.Now().After(deadline) {
			t.Fatalf("List still fails: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
		listed, err = j.List(ctx, owner)
	}
	var exist batchv1.JobList
	if err := direct.List(ctx, &exist, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	known := map[types.UID]bool{}
	for _, job := range listed {
		known[job.UID] = true
	}
	for _, job := range exist.Items {
		if !known[job.UID] {
			t.Errorf("Job %s exists and is not known", job.Name)
		}
		delete(made, job.UID)
	}
	if len(made) > 0 || len(listed) != len(exist.Items) {
		t.Errorf("%d Jobs exist, %d are known, %d were said to have been made and do not exist",
			len(exist.Items), len(listed), len(made))
	}
	if total := creators * each; len(exist.Items) < total-failed || len(exist.Items) > total {
		t.Errorf("%d Jobs exist for %d calls of which %d failed", len(exist.Items), total, failed)
	}
	t.Logf("%d calls, %d failed, %d Jobs", creators*each, failed, len(exist.Items))
}

// TestCatchUp has who takes a ScaledJob over learn of Jobs that no watch has shown it.
func TestCatchUp(t *testing.T) {
	plane := controlplane.ForTest(t, controlplane.Options{})
	namespace := plane.Namespace(t)
	owner := types.NamespacedName{Namespace: namespace, Name: "work"}
	direct := aClient(t, plane.Config())
	before := &jobs{store: newStore(), writer: direct, reader: direct, may: always}
	for range 5 {
		if _, err := before.Create(t.Context(), aPlainJob(owner), nil); err != nil {
			t.Fatal(err)
		}
	}
	after := &jobs{store: newStore(), writer: direct, reader: direct, may: always}
	if err := after.catchUp(t.Context(), []string{namespace}); err != nil {
		t.Fatal(err)
	}
	if listed, err := after.List(t.Context(), owner); err != nil || len(listed) != 5 {
		t.Errorf("%d Jobs known, %v", len(listed), err)
	}
	if all := (&jobs{store: newStore(), writer: direct, reader: direct, may: always}); true {
		if err := all.catchUp(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if listed, err := all.List(t.Context(), owner); err != nil || len(listed) != 5 {
			t.Errorf("of all namespaces: %d Jobs known, %v", len(listed), err)
		}
	}

	// Whoever does not look after it any more writes nothing.
	after.may = func(types.NamespacedName) error { return errLost }
	if _, err := after.Create(t.Context(), aPlainJob(owner), nil); err == nil {
		t.Error("a Job was created for another replica's ScaledJob")
	}
	listed, err := after.List(t.Context(), owner)
	if err != nil || len(listed) != 5 {
		t.Errorf("afterwards %d Jobs known, %v", len(listed), err)
	}
	if err := after.Delete(t.Context(), namespace, listed[0].Name, listed[0].UID, metav1.DeletePropagationBackground); err == nil {
		t.Error("a Job of another replica's ScaledJob was deleted")
	}
	// Another Job of that name is not deleted, and one that is gone is no error.
	if err := before.Delete(t.Context(), namespace, listed[0].Name, "another", metav1.DeletePropagationBackground); err != nil {
		t.Error(err)
	}
	if err := direct.Get(t.Context(), client.ObjectKeyFromObject(listed[0].Job), &batchv1.Job{}); err != nil {
		t.Error(err)
	}
	if err := before.Delete(t.Context(), namespace, "gone", "gone", metav1.DeletePropagationBackground); err != nil {
		t.Error(err)
	}
}

func aClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unknown is a group that the garbage collector cannot ask for: it would delete what has an owner that does not exist.
var unknown = schema.GroupVersion{Group: "test.example.org", Version: "v1"}

func aPlainJob(owner types.NamespacedName) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.Namespace, GenerateName: owner.Name + "-",
			Labels: map[string]string{v1alpha1.LabelScaledJob: owner.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(
				&metav1.ObjectMeta{Name: owner.Name, UID: "owner"}, unknown.WithKind(v1alpha1.KindScaledJob))},
		},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "registry.example/work:1", Command: []string{"true"}}},
		}}},
	}
}
