package cli

import (
	"bytes"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/internal/crds"
)

func TestCRDs(t *testing.T) {
	t.Parallel()
	got := execute(t, "", "", "crds")
	if got.code != exitOK || got.err != "" {
		t.Fatalf("got exit code %d, %q", got.code, got.err)
	}
	var names, want []string
	for document := range bytes.SplitSeq([]byte(got.out), []byte("---\n")) {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		if object.Kind != "" {
			names = append(names, object.Kind+" "+object.Metadata.Name)
		}
	}
	for _, definition := range crds.Definitions() {
		want = append(want, "CustomResourceDefinition "+definition.Name)
	}
	if !slices.Equal(names, want) || len(want) != 3 {
		t.Errorf("got %q, want %q", names, want)
	}
	if got := execute(t, "", "", "crds", "x"); got.code != exitUsage {
		t.Errorf("an argument: got %+v", got)
	}
}
