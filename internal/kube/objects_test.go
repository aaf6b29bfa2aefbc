package kube

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// TestNewsInAnAnswer has a ScaledJob changed by its owner while this program writes its status. The answer holds that
// change, and the watch shows it afterwards: it must be noticed, or a ScaledJob that is paused would stay so.
func TestNewsInAnAnswer(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	sj := aScaledJob(plane.Namespace(t), "paused")
	sj.Annotations = map[string]string{v1alpha1.AnnotationPaused: "true"}
	if err := direct.Create(t.Context(), sj); err != nil {
		t.Fatal(err)
	}
	o := &objects{writer: direct, may: always, scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{}}
	o.show(sj.DeepCopy())

	changed := sj.DeepCopy()
	delete(changed.Annotations, v1alpha1.AnnotationPaused)
	if err := direct.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	write := func(reason string) {
		t.Helper()
		known, err := o.ScaledJob(t.Context(), sj.Key())
		if err != nil {
			t.Fatal(err)
		}
		after := known.DeepCopy()
		after.Status.Conditions.Set(v1alpha1.Condition{
			Type: v1alpha1.ConditionPaused, Status: metav1.ConditionTrue, Reason: reason,
		})
		if err := o.UpdateStatus(t.Context(), after); err != nil {
			t.Fatal(err)
		}
	}
	write("First")
	if !o.show(changed) {
		t.Error("what the answer to the status held is no news when the watch shows it")
	}
	write("Second")
	known, _ := o.ScaledJob(t.Context(), sj.Key())
	if got := known.Status.Conditions.Get(v1alpha1.ConditionPaused).Reason; got != "Second" {
		t.Errorf("an own write is not known at once: reason %q", got)
	}
	if o.show(changed) {
		t.Error("an older version is news")
	}
}

// TestFinalizers takes KEDA's finalizer off an object that has another one as well.
func TestFinalizers(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	sj := aScaledJob(plane.Namespace(t), "adopted")
	sj.Finalizers = []string{kedaFinalizer, "example.org/another"}
	if err := direct.Create(t.Context(), sj); err != nil {
		t.Fatal(err)
	}
	f := newFinalizers(direct, always, quiet)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx)
	}()
	f.look(v1alpha1.KindScaledJob, kedaFinalizer, sj, true)
	if err := direct.Delete(t.Context(), sj.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	now := &v1alpha1.ScaledJob{}
	if err := direct.Get(t.Context(), client.ObjectKeyFromObject(sj), now); err != nil {
		t.Fatal(err)
	}
	if len(now.Finalizers) != 2 {
		t.Fatalf("taken off before it was looked at: %v", now.Finalizers)
	}
	f.look(v1alpha1.KindScaledJob, kedaFinalizer, now, true)
	eventually(t, "only the other finalizer is left", func() bool {
		now := &v1alpha1.ScaledJob{}
		return direct.Get(t.Context(), client.ObjectKeyFromObject(sj), now) == nil && len(now.Finalizers) == 1 &&
			now.Finalizers[0] == "example.org/another"
	})
	stop()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it does not end")
	}
	now = &v1alpha1.ScaledJob{}
	if err := direct.Get(t.Context(), client.ObjectKeyFromObject(sj), now); err != nil {
		t.Fatal(err)
	}
	now.Finalizers = nil
	if err := direct.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

// TestSetFinalizer puts the finalizer on a ScaledJob that others change meanwhile, and takes it off again.
func TestSetFinalizer(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	sj := aScaledJob(plane.Namespace(t), "claims")
	if err := direct.Create(t.Context(), sj); err != nil {
		t.Fatal(err)
	}
	o := &objects{
		reader: direct, writer: direct, may: always, scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{},
	}
	o.show(sj.DeepCopy())
	known := func() *v1alpha1.ScaledJob {
		t.Helper()
		known, err := o.ScaledJob(t.Context(), sj.Key())
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	stored := func() *v1alpha1.ScaledJob {
		t.Helper()
		now := &v1alpha1.ScaledJob{}
		if err := direct.Get(t.Context(), client.ObjectKeyFromObject(sj), now); err != nil {
			t.Fatal(err)
		}
		return now
	}
	set := func(present bool, want ...string) {
		t.Helper()
		if err := o.SetFinalizer(t.Context(), known(), present); err != nil {
			t.Fatal(err)
		}
		if got := stored().Finalizers; !slices.Equal(got, want) {
			t.Errorf("set to %t, the finalizers are %v, want %v", present, got, want)
		}
		if got := known().Finalizers; !slices.Equal(got, want) {
			t.Errorf("set to %t, the known finalizers are %v, want %v", present, got, want)
		}
	}
	set(true, v1alpha1.FinalizerSettle)
	if now := stored(); known().ResourceVersion != now.ResourceVersion {
		t.Error("the answer is not taken for the newest version")
	}
	set(true, v1alpha1.FinalizerSettle)
	set(false)
	// The watch is late: others have changed the list, and more.
	changed := stored()
	changed.Finalizers = []string{"example.org/another"}
	changed.Annotations = map[string]string{v1alpha1.AnnotationPaused: "true"}
	if err := direct.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	set(true, "example.org/another", v1alpha1.FinalizerSettle)
	if !o.show(stored()) {
		t.Error("the change of others is no news when the watch shows it")
	}
	// It is on the server, and the watch is late again.
	set(false, "example.org/another")
	changed = stored()
	changed.Finalizers = append(changed.Finalizers, v1alpha1.FinalizerSettle)
	if err := direct.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	set(false, "example.org/another")

	o.may = func(types.NamespacedName) error { return errLost }
	if err := o.SetFinalizer(t.Context(), known(), true); !errors.Is(err, errLost) || len(stored().Finalizers) != 1 {
		t.Errorf("of what is another replica's: %v", err)
	}
	o.may = always
	another := known().DeepCopy()
	another.UID = "another"
	if err := o.SetFinalizer(t.Context(), another, true); err != nil || len(stored().Finalizers) != 1 {
		t.Errorf("of a ScaledJob of that name that is gone: %v, %v", err, stored().Finalizers)
	}
	changed = stored()
	changed.Finalizers = nil
	if err := direct.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if err := direct.Delete(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if err := o.SetFinalizer(t.Context(), known(), true); err != nil {
		t.Errorf("of one that is gone: %v", err)
	}
}
