package local

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	exists := true
	e := events{exists: func(types.NamespacedName) bool { return exists }}
	sj := &v1alpha1.ScaledJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "work"}}
	e.Event(sj, "Normal", "KEDAJobsCreated", "Created 1 jobs")
	e.Event(sj, "Warning", "KEDAScalerFailed", "no answer")
	e.Event(sj, "Normal", "KEDAJobsCreated", "Created 1 jobs")
	if list := e.of(sj.Key()); len(list) != 2 || list[1].Reason != "KEDAJobsCreated" || list[1].Count != 2 {
		t.Errorf("got %+v", list)
	}
	exists = false
	e.forget(sj.Key())
	e.Event(sj, "Warning", "ScaledJobDeleted", "it is gone")
	if list := e.of(sj.Key()); len(list) != 0 {
		t.Errorf("kept of a ScaledJob that is gone: %+v", list)
	}
}
