package objects

import (
	"errors"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// annotated is work with the annotation that pauses.
func annotated(name, value string) string {
	return strings.Replace(work(name, "1"), "{name: "+name+"}",
		"{name: "+name+`, annotations: {autoscaling.keda.sh/paused: "`+value+`"}}`, 1)
}

func setPaused(t *testing.T, s *Store, name string, paused, changed bool) {
	t.Helper()
	got, err := s.SetPaused(key(name), paused)
	if err != nil || got != changed {
		t.Fatalf("SetPaused(%t): got %t, %v, want %t", paused, got, err, changed)
	}
	if sj := scaledJob(t, s, name); sj.PausedByAnnotation() != paused {
		t.Fatalf("SetPaused(%t): the annotations are %v", paused, sj.Annotations)
	}
}

// TestPause pauses what its manifest does not: that outlasts a restart and an edit, and the file stays as it was.
func TestPause(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	setPaused(t, s, "a", false, false)
	setPaused(t, s, "a", true, true)
	setPaused(t, s, "a", true, false)
	if content, err := os.ReadFile(f.path("a.yaml")); err != nil || string(content) != work("a", "1") {
		t.Errorf("the manifest is now %q, %v", content, err)
	}

	s = f.open()
	if sj := scaledJob(t, s, "a"); !sj.PausedByAnnotation() || sj.Generation != 1 {
		t.Errorf("after a restart: %v, generation %d", sj.Annotations, sj.Generation)
	}
	f.write("a.yaml", work("a", "2"))
	f.reload(s)
	setPaused(t, s, "a", true, false)
	setPaused(t, s, "a", false, true)
	if _, found := scaledJob(t, s, "a").Annotations[v1alpha1.AnnotationPaused]; found {
		t.Error("the annotation is left")
	}
	s = f.open()
	setPaused(t, s, "a", false, false)

	f.write("a.yaml", annotated("a", "false"))
	f.reload(s)
	setPaused(t, s, "a", true, true)
	setPaused(t, s, "a", false, true)
	if value := scaledJob(t, s, "a").Annotations[v1alpha1.AnnotationPaused]; value != "false" {
		t.Errorf("the manifest's own annotation is %q now", value)
	}

	setPaused(t, s, "a", true, true)
	f.remove("a.yaml")
	f.reload(s)
	f.write("a.yaml", work("a", "1"))
	f.reload(s)
	if scaledJob(t, s, "a").PausedByAnnotation() {
		t.Error("another ScaledJob of that name is paused")
	}
	if _, err := s.SetPaused(key("b"), true); !apierrors.IsNotFound(err) {
		t.Errorf("one that does not exist: got %v", err)
	}
}

func TestPausedByManifest(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	setPaused(t, s, "a", true, true)
	f.write("a.yaml", annotated("a", "yes"))
	f.reload(s)
	setPaused(t, s, "a", true, false)
	for _, changed := range []bool{true, false} { // the user's own wish is gone after the first
		got, err := s.SetPaused(key("a"), false)
		var byManifest *PausedByManifestError
		if !errors.As(err, &byManifest) || byManifest.File != f.path("a.yaml") || got != changed {
			t.Fatalf("got %t, %v", got, err)
		}
		if want := `remove the annotation autoscaling.keda.sh/paused: "yes" from ` + f.path("a.yaml"); !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	f.write("a.yaml", work("a", "1"))
	f.reload(s)
	setPaused(t, s, "a", false, false)
}

// TestPauseThatCannotBeKept fails to write the record, so nothing is paused.
func TestPauseThatCannotBeKept(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.dir, nil, 0o600); err != nil { // no folder can be made here
		t.Fatal(err)
	}
	if changed, err := s.SetPaused(key("a"), true); err == nil || changed {
		t.Errorf("got %t, %v", changed, err)
	}
	if scaledJob(t, s, "a").PausedByAnnotation() {
		t.Error("it is paused all the same")
	}
}
