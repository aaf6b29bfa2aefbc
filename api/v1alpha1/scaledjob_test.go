package v1alpha1

import (
	"strings"
	"testing"
)

func TestPriority(t *testing.T) {
	t.Parallel()
	if weight, err := (&ScaledJob{}).Priority(); weight != 1 || err != nil {
		t.Errorf("without an annotation: %v, %v", weight, err)
	}
	of := func(text string) (float64, error) {
		sj := &ScaledJob{}
		sj.Annotations = map[string]string{AnnotationPriority: text}
		return sj.Priority()
	}
	for text, want := range map[string]float64{"1": 1, "0.25": 0.25, "10": 10, "1e6": 1e6} {
		if weight, err := of(text); weight != want || err != nil {
			t.Errorf("%q: %v, %v", text, weight, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "high", "NaN", "Inf", "1000001", "1,5", " 1"} {
		if _, err := of(text); err == nil || !strings.Contains(err.Error(), `"`+text+`", want a number above 0`) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
