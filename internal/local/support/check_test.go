package support

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares what is said about each Job in testdata with the lines in its golden file.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("files = %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var spec batchv1.JobSpec
			if err := yaml.UnmarshalStrict(data, &spec); err != nil {
				t.Fatal(err)
			}
			user := host{os: "linux", user: 1000, group: 1000}
			if filepath.Base(file) == "root.yaml" {
				user.user, user.group = 0, 0
			}
			text := lines(check(&spec, field.NewPath("spec"), user))
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", text, want)
			}
		})
	}
}

func lines(refused field.ErrorList, ignored []Notice) string {
	var text strings.Builder
	for _, err := range refused {
		fmt.Fprintf(&text, "refused %s: %s\n", err.Field, err.Detail)
	}
	for _, notice := range ignored {
		fmt.Fprintf(&text, "ignored %s: %s\n", notice.Path, notice.Message)
	}
	return text.String()
}

// TestEveryFieldIsClassified fails when a new version of Kubernetes brings a field that nobody has thought about.
func TestEveryFieldIsClassified(t *testing.T) {
	t.Parallel()
	seen := map[reflect.Type]bool{}
	var visit func(t1 reflect.Type)
	visit = func(structure reflect.Type) {
		if seen[structure] {
			return
		}
		seen[structure] = true
		table, known := classified[structure]
		if !known {
			t.Errorf("%s has no rules", structure)
			return
		}
		fields := map[string]bool{}
		for i := range structure.NumField() {
			name, _ := jsonName(structure.Field(i))
			fields[name] = true
			judge := table[name]
			if judge == nil {
				t.Errorf("field %s of %s has no rule", name, structure)
				continue
			}
			element := structure.Field(i).Type
			for element.Kind() == reflect.Pointer || element.Kind() == reflect.Slice {
				element = element.Elem()
			}
			switch {
			case same(judge, deeper) || same(judge, podSpec):
				visit(element)
			case same(judge, honoured) && element.Kind() == reflect.Struct && structure != reflect.TypeFor[metav1.ObjectMeta]():
				t.Errorf("field %s of %s is honoured as a whole, but what is in it may grow", name, structure)
			}
		}
		for name := range table {
			if !fields[name] {
				t.Errorf("%s has a rule for %s, which is no field of it", structure, name)
			}
		}
	}
	visit(reflect.TypeFor[batchv1.JobSpec]())
	for structure := range classified {
		if !seen[structure] {
			t.Errorf("%s has rules, but nothing leads to it", structure)
		}
	}
}

func same(a, b rule) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }

// TestUnclassifiedIsRefused makes sure of what happens to a field that no table knows.
func TestUnclassifiedIsRefused(t *testing.T) {
	t.Parallel()
	type novel struct {
		Known string   `json:"known"`
		New   []string `json:"new"`
	}
	c := &checker{said: map[string]bool{}}
	c.walk(field.NewPath("spec"), reflect.ValueOf(novel{New: []string{}}))
	if len(c.refused) != 0 {
		t.Errorf("an empty list was refused: %v", c.refused)
	}
	c.walk(field.NewPath("spec"), reflect.ValueOf(novel{New: []string{"a"}}))
	if len(c.refused) != 1 || c.refused[0].Field != "spec.new" {
		t.Errorf("refused: %v", c.refused)
	}
}

// TestCheckLooksAtThisMachine runs Check itself once: a command alone runs anywhere.
func TestCheckLooksAtThisMachine(t *testing.T) {
	t.Parallel()
	var spec batchv1.JobSpec
	if err := yaml.Unmarshal([]byte(`{template: {spec: {containers: [{name: a, command: [a]}]}}}`), &spec); err != nil {
		t.Fatal(err)
	}
	if refused, ignored := Check(&spec, field.NewPath("spec")); refused != nil || ignored != nil {
		t.Error(lines(refused, ignored))
	}
}
