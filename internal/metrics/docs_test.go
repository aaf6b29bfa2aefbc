package metrics

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

const docs = "../../docs/metrics.md"

// TestDocs holds the tables of the documentation against what is published.
func TestDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	families := gather(t, busy())
	documented := string(text)
	for _, prefix := range []string{"keda_", "offboard_"} {
		begin, end := "<!-- generated from what is published: "+prefix+" -->\n", "<!-- end -->"
		before, rest, found := strings.Cut(documented, begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s lacks %q or %q", docs, begin, end)
		}
		documented = before + begin + table(families, prefix) + end + after
	}
	golden(t, docs, []byte(documented))
}

// TestAllPublished tells when busy leaves out a family, and the documentation with it.
func TestAllPublished(t *testing.T) {
	t.Parallel()
	if n := len(gather(t, busy())); n != len(families)+1 { // and the histogram
		t.Errorf("%d families are published, want %d", n, len(families)+1)
	}
}

// table is that of the families whose names begin with the prefix.
func table(families []*dto.MetricFamily, prefix string) string {
	var out strings.Builder
	out.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		var labels []string
		for _, pair := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+pair.GetName()+"`")
		}
		slices.Sort(labels)
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n",
			f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	return out.String()
}
