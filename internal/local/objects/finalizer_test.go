package objects

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func setFinalizer(t *testing.T, s *Store, sj *v1alpha1.ScaledJob, present bool) {
	t.Helper()
	for range 2 {
		if err := s.SetFinalizer(t.Context(), sj, present); err != nil {
			t.Fatal(err)
		}
	}
}

func settles(sj *v1alpha1.ScaledJob) bool {
	return slices.Contains(sj.Finalizers, v1alpha1.FinalizerSettle)
}

// TestFinalizer is about a ScaledJob that stays among the manifests.
func TestFinalizer(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	// It was copied from a cluster.
	copied := strings.Replace(work("a", "1"), "{name: a}", "{name: a, finalizers: [offboard.dev/settle, a.dev/b], "+
		"deletionTimestamp: \"2026-01-01T00:00:00Z\", deletionGracePeriodSeconds: 0}", 1)
	f.write("a.yaml", copied)
	s := f.open()
	a := scaledJob(t, s, "a")
	if !slices.Equal(a.Finalizers, []string{"a.dev/b"}) || a.DeletionTimestamp != nil {
		t.Errorf("as its manifest says: %+v", a.ObjectMeta)
	}
	for _, present := range []bool{true, false, true} {
		setFinalizer(t, s, a, present)
		if settles(a) {
			t.Error("an object that was returned has changed")
		}
		if change := f.reload(s); len(change.Changed)+len(change.Removed) > 0 || change.References {
			t.Errorf("finalizer %v: a reload changes %+v", present, change)
		}
		for _, s := range []*Store{s, f.open()} {
			got := scaledJob(t, s, "a")
			if settles(got) != present || got.Generation != 1 || got.UID != a.UID || got.Finalizers[0] != "a.dev/b" {
				t.Errorf("finalizer %v: %+v", present, got.ObjectMeta)
			}
		}
	}
	status := scaledJob(t, s, "a").DeepCopy()
	status.Status.Conditions.Set(v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: "True", Reason: "Ready"})
	if err := s.UpdateStatus(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetPaused(key("a"), true); err != nil {
		t.Fatal(err)
	}
	f.write("a.yaml", strings.Replace(copied, "maxReplicaCount: 1", "maxReplicaCount: 2", 1))
	f.reload(s)
	if got := scaledJob(t, s, "a"); !settles(got) || got.Generation != 2 {
		t.Errorf("after changes: %+v", got.ObjectMeta)
	}

	another := a.DeepCopy()
	another.UID = "another"
	if err := s.SetFinalizer(t.Context(), another, true); !apierrors.IsNotFound(err) {
		t.Errorf("another one of that name: %v", err)
	}
	if err := s.SetFinalizer(t.Context(), another, false); err != nil {
		t.Errorf("another one of that name: %v", err)
	}
	if got := scaledJob(t, s, "a"); !settles(got) {
		t.Errorf("after a call for another one: %+v", got.ObjectMeta)
	}
}

// TestDeleted removes a ScaledJob that has the finalizer, alone or with its file, and takes that off.
func TestDeleted(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(f *folder){
		"the file":     func(f *folder) { f.remove("a.yaml") },
		"the document": func(f *folder) { f.write("a.yaml", work("b", "1")) },
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newFolder(t)
				f.write("a.yaml", work("a", "5")+"---\n"+work("b", "1"))
				f.write("c.yaml", work("c", "1"))
				s := f.open()
				a := scaledJob(t, s, "a")
				setFinalizer(t, s, a, true)
				remove(f)
				change := f.reload(s)
				if !slices.Contains(change.Changed, key("a")) || len(change.Changed) != 1 {
					t.Errorf("change = %+v, want a", change)
				}
				for _, gone := range change.Removed {
					if gone.Name != "b" {
						t.Errorf("%s was removed", gone.Name)
					}
				}
				for range 2 {
					if change := f.reload(s); len(change.Changed)+len(change.Removed) > 0 {
						t.Errorf("once more: %+v", change)
					}
				}
				before := scaledJob(t, s, "a")
				status := before.DeepCopy()
				status.Status.Conditions.Set(v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: "False", Reason: "Deleted"})
				if err := s.UpdateStatus(t.Context(), status); err != nil {
					t.Fatal(err)
				}
				if restarted {
					s = f.open()
				}
				got := scaledJob(t, s, "a")
				if got.UID != a.UID || got.Generation != 1 || got.DeletionTimestamp == nil || !settles(got) ||
					!got.DeletionTimestamp.Equal(before.DeletionTimestamp) || *got.Spec.MaxReplicaCount != 5 ||
					got.Annotations[AnnotationFolder] != f.manifests ||
					got.Status.Conditions.Get(v1alpha1.ConditionReady).Reason != "Deleted" {
					t.Errorf("deleted: %+v, status %+v", got.ObjectMeta, got.Status)
				}
				if !slices.Contains(names(s), "a") {
					t.Errorf("listed are %v", names(s))
				}
				if known, err := s.Known(key("a")); !known || err != nil {
					t.Errorf("Known = %v, %v", known, err)
				}

				setFinalizer(t, s, got, false)
				if _, err := s.ScaledJob(t.Context(), key("a")); !apierrors.IsNotFound(err) {
					t.Errorf("released: %v", err)
				}
				change = f.reload(s)
				if len(change.Removed) != 1 || change.Removed[0].UID != a.UID || len(change.Changed) != 0 {
					t.Errorf("change = %+v, want a removed", change)
				}
				if change := f.reload(s); len(change.Removed) != 0 {
					t.Errorf("once more: %+v", change)
				}
				if known, err := f.open().Known(key("a")); known || err != nil {
					t.Errorf("Known after a restart = %v, %v", known, err)
				}
			})
		}
	}
}

// TestDeletedAndBack has the ScaledJob in the manifests again before the deleted one is released, while it is watched.
func TestDeletedAndBack(t *testing.T) {
	t.Parallel()
	for name, restarted := range map[string]bool{"at once": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.write("a.yaml", work("a", "1"))
			f.write("b.yaml", work("b", "1"))
			s := f.open()
			old := scaledJob(t, s, "a")
			setFinalizer(t, s, old, true)
			f.remove("a.yaml")
			f.reload(s)
			f.write("a.yaml", work("a", "2"))
			if restarted {
				s = f.open()
			}
			var mu sync.Mutex
			var removed, changed []string
			ctx, cancel := context.WithCancel(context.Background())
			var watching sync.WaitGroup
			watching.Go(func() {
				err := s.Watch(ctx, func(change Change) {
					mu.Lock()
					defer mu.Unlock()
					for _, sj := range change.Removed {
						removed = append(removed, string(sj.UID))
					}
					for _, key := range change.Changed {
						changed = append(changed, key.Name)
					}
				})
				if err != nil {
					t.Error(err)
				}
			})
			defer watching.Wait()
			defer cancel()
			f.write("b.yaml", work("b", "2"))
			until(t, "the other one is changed", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Contains(changed, "b")
			})
			got := scaledJob(t, s, "a")
			if got.UID != old.UID || *got.Spec.MaxReplicaCount != 1 || got.DeletionTimestamp == nil {
				t.Errorf("before it is released: %+v", got.ObjectMeta)
			}
			if told := strings.Count(f.log.String(), "comes into force when"); told != 1 {
				t.Errorf("told %d times:\n%s", told, &f.log)
			}

			setFinalizer(t, s, scaledJob(t, s, "a"), false)
			awaitLimit(t, s, 2)
			got = scaledJob(t, s, "a")
			if got.UID == old.UID || got.Generation != 1 || settles(got) || got.DeletionTimestamp != nil {
				t.Errorf("the new one: %+v", got.ObjectMeta)
			}
			until(t, "both are told", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Equal(removed, []string{string(old.UID)}) && slices.Contains(changed, "a")
			})
			if err := s.SetFinalizer(t.Context(), old, true); !apierrors.IsNotFound(err) {
				t.Errorf("the former one: %v", err)
			}
		})
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestDeletedKeepsItsReferences removes a ScaledJob together with what it refers to.
func TestDeletedKeepsItsReferences(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1")+"---\n"+secret("one"))
	f.write("other.yaml", strings.ReplaceAll(secret("one"), "{name: s}", "{name: s, namespace: other}"))
	s := f.open()
	setFinalizer(t, s, scaledJob(t, s, "a"), true)
	f.remove("a.yaml")
	f.remove("other.yaml")
	change := f.reload(s)
	if !slices.Equal(change.Changed, []types.NamespacedName{key("a")}) || !change.References {
		t.Errorf("change = %+v", change)
	}
	if _, err := s.Secret(t.Context(), key("s")); err != nil {
		t.Errorf("the Secret of the deleted ScaledJob: %v", err)
	}
	if _, err := s.Secret(t.Context(), types.NamespacedName{Namespace: "other", Name: "s"}); !apierrors.IsNotFound(err) {
		t.Errorf("a Secret of another namespace: %v", err)
	}
	setFinalizer(t, s, scaledJob(t, s, "a"), false)
	if change := f.reload(s); !change.References || len(change.Removed) != 1 {
		t.Errorf("released: %+v", change)
	}
	if _, err := s.Secret(t.Context(), key("s")); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret afterwards: %v", err)
	}
}

// TestDeletedWithoutDisk removes two ScaledJobs while the record of one cannot be written.
func TestDeletedWithoutDisk(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	inOther := strings.Replace(work("b", "1"), "{name: b}", "{name: b, namespace: other}", 1)
	f.write("a.yaml", work("a", "1")+"---\n"+inOther)
	s := f.open()
	other := types.NamespacedName{Namespace: "other", Name: "b"}
	b, err := s.ScaledJob(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	setFinalizer(t, s, scaledJob(t, s, "a"), true)
	setFinalizer(t, s, b, true)
	away := filepath.Join(f.dir, "away")
	if err := os.Rename(filepath.Join(f.dir, "other"), away); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.SetFinalizer(t.Context(), b, false); err == nil {
		t.Error("SetFinalizer has returned without an error")
	}
	f.remove("a.yaml")
	for range 3 {
		if _, err := s.Reload(); err == nil {
			t.Error("Reload has returned without an error")
		}
	}
	if err := os.Remove(filepath.Join(f.dir, "other")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, filepath.Join(f.dir, "other")); err != nil {
		t.Fatal(err)
	}
	if change := f.reload(s); len(change.Changed) != 2 || len(change.Removed) != 0 {
		t.Errorf("change = %+v, want both", change)
	}
	for _, key := range []types.NamespacedName{key("a"), other} {
		for _, s := range []*Store{s, f.open()} {
			if got, err := s.ScaledJob(t.Context(), key); err != nil || got.DeletionTimestamp == nil || !settles(got) {
				t.Errorf("%s: %+v, %v", key, got, err)
			}
		}
	}
}

// TestBrokenRecordsOfDeleted opens a folder with records that are not to be believed.
func TestBrokenRecordsOfDeleted(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	f.open()
	for name, content := range map[string]string{
		"broken":  "{",
		"another": `{"uid":"u","settles":true,"deleted":{"metadata":{"name":"other","namespace":"default","uid":"u"}}}`,
		"uid":     `{"uid":"u","settles":true,"deleted":{"metadata":{"name":"uid","namespace":"default","uid":"v"}}}`,
		"alive":   `{"uid":"u","settles":true,"deleted":{"metadata":{"name":"alive","namespace":"default","uid":"u"}}}`,
	} {
		if err := os.WriteFile(filepath.Join(f.dir, "default", name+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(f.open()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("in force are %v", got)
	}
}
