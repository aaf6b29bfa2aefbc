package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// addSeeds adds the files in testdata and small texts that are hard to read.
func addSeeds(f *testing.F) {
	f.Helper()
	files, err := Files("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range hostileTexts() {
		f.Add([]byte(text))
	}
	for _, text := range agreeingTexts {
		f.Add([]byte(text))
	}
}

// FuzzRead reads and validates anything: no panic, no hang, and every problem with a place within the file.
func FuzzRead(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		watch := startWatch()
		set := Parse("fuzz.yaml", data)
		problems := Validate(set, nil)
		if took := watch.took(); took > 10*time.Second {
			t.Errorf("reading %d bytes took %v", len(data), took)
		}
		for _, p := range problems {
			if p.Message == "" || p.File != "fuzz.yaml" || p.Line < 1 || p.Column < 1 {
				t.Errorf("problem without message or place: %+v", p)
			}
		}
		if _, err := json.Marshal(problems); err != nil {
			t.Error(err)
		}
	})
}

// FuzzDecodeAgrees decodes what is accepted, and compares it with what sigs.k8s.io/yaml makes of it.
func FuzzDecodeAgrees(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) { checkAgrees(t, data) })
}

// FuzzValue puts a text where each type of value stands, as key and as value, and compares as FuzzDecodeAgrees does.
func FuzzValue(f *testing.F) {
	texts := append(slices.Clone(scalarTexts), "", `"5"`, "'5'", "! 5", "!!str 5", "&a 5", "[]", "{}", "|\n  5", "# 5",
		"1Gi", "2006-01-02T15:04:05Z", "1m30s", "1.", "-0", "1e400", "0.1")
	for _, text := range texts {
		f.Add(text)
	}
	const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  "
	const scaledJob = "apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {name: a}\n"
	const spec = scaledJob + "spec:\n  jobTargetRef: {template: {spec: {containers: []}}}\n  "
	const container = scaledJob + "spec:\n  triggers: []\n  jobTargetRef:\n    template:\n      spec:\n" +
		"        containers:\n        - name: a\n          "
	objects := []string{
		configMap + "deletionGracePeriodSeconds: ",
		configMap + "managedFields:\n  - fieldsV1:\n      key: ",
		scaledJob + "status:\n  lastActiveTime: ",
		spec + "triggers: []\n  pollingInterval: ",
		spec + "triggers: []\n  delivery:\n    backoff:\n      factor: ",
		spec + "triggers: []\n  delivery:\n    backoff:\n      max: ",
		spec + "triggers:\n  - type: a\n    metadata: {}\n    useCachedMetrics: ",
		spec + "triggers:\n  - type: a\n    metadata:\n      key: ",
		spec + "triggers:\n  - type: a\n    metadata:\n      ",
		container + "image: ",
		container + "args:\n          - ",
		container + "resources:\n            limits:\n              cpu: ",
		container + "livenessProbe:\n            tcpSocket:\n              port: ",
	}
	check := func(t testing.TB, object, text string) (accepted bool) {
		t.Helper()
		for _, rest := range []string{"\n", ": 5\n", ": text\n"} {
			accepted = checkAgrees(t, []byte(object+text+rest)) || accepted
		}
		return accepted
	}
	for _, object := range objects {
		if !slices.ContainsFunc(texts, func(text string) bool { return check(f, object, text) }) {
			f.Fatalf("no text is accepted after\n%s", object)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, object := range objects {
			check(t, object, text)
		}
	})
}

// checkAgrees tells whether the data holds one known object that was accepted, and fails when sigs.k8s.io/yaml reads it
// differently.
func checkAgrees(t testing.TB, data []byte) (accepted bool) {
	t.Helper()
	set := Parse("fuzz.yaml", data)
	if set.Problems.HasErrors() || len(set.Documents) != 1 || set.Documents[0].Object == nil {
		return false
	}
	// Unmarshal reads the first document only, and does not take lists apart.
	documents, _ := splitDocuments(data)
	text := bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(documents) != 1 || len(chunks(text)) != 1 || set.Documents[0].listed {
		return false
	}
	want := reflect.New(reflect.TypeOf(set.Documents[0].Object).Elem()).Interface().(runtime.Object)
	unmarshal := func() error { return yaml.Unmarshal(data, want) }
	if json.Valid(text) {
		unmarshal = func() error { return json.Unmarshal(text, want) }
	}
	if err := unmarshal(); err != nil {
		t.Fatalf("sigs.k8s.io/yaml refuses what was accepted: %v\n%q", err, data)
	}
	meta := want.(metav1.Object)
	if meta.GetNamespace() == "" {
		meta.SetNamespace(metav1.NamespaceDefault)
	}
	if set.Documents[0].Kind == "ClusterTriggerAuthentication" {
		meta.SetNamespace("")
	}
	mergeStringData(want)
	if got := set.Documents[0].Object; !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %s\nwant %s\nof %q", asJSON(t, got), asJSON(t, want), data)
	}
	return true
}

func asJSON(t testing.TB, object any) []byte {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzScalar compares the meaning of unquoted scalars with what sigs.k8s.io/yaml makes of them.
func FuzzScalar(f *testing.F) {
	for _, text := range scalarTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		roots, err := parseChunk([]byte(text))
		if err != nil || len(roots) != 1 || roots[0].Value != text || roots[0].Style != 0 {
			return // not one plain scalar
		}
		want, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return
		}
		got, err := json.Marshal(resolvePlain(text))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	})
}
