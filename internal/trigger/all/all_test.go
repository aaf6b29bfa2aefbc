package all_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// schemaFile is KEDA's schema, which lies next to the module where it is present.
const schemaFile = "shared/keda/scalers-schema.json"

// stricter lists where a declaration says more than KEDA's schema, because KEDA's code checks what its schema omits.
var stricter = map[string]func(*trigger.SchemaParam){
	"redis.tls": func(p *trigger.SchemaParam) { p.AllowedValue = nil },
}

func TestTypesMatchKEDASchema(t *testing.T) {
	t.Parallel()
	path := findSchema(t)
	if path == "" {
		t.Logf("%s is not next to the module: nothing to compare the declared types with", schemaFile)
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Scalers []struct {
			Type       string                `json:"type"`
			Parameters []trigger.SchemaParam `json:"parameters"`
		} `json:"scalers"`
	}
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	want := map[string][]trigger.SchemaParam{}
	for _, scaler := range schema.Scalers {
		want[scaler.Type] = scaler.Parameters
	}
	for _, declared := range all.Types() {
		t.Run(declared.Name, func(t *testing.T) {
			t.Parallel()
			expected, found := want[declared.Name]
			if !found {
				t.Fatalf("KEDA has no trigger type %q", declared.Name)
			}
			compare(t, declared, expected)
		})
	}
}

func compare(t *testing.T, declared trigger.Type, expected []trigger.SchemaParam) {
	t.Helper()
	got := map[string]trigger.SchemaParam{}
	for _, param := range declared.Schema() {
		if relax := stricter[declared.Name+"."+param.Name]; relax != nil {
			relax(&param)
		}
		if _, twice := got[param.Name]; twice {
			t.Errorf("%s is declared twice", param.Name)
		}
		got[param.Name] = param
	}
	for _, param := range expected {
		have, found := got[param.Name]
		delete(got, param.Name)
		switch {
		case !found:
			t.Errorf("%s is not declared; KEDA has %+v", param.Name, param)
		case have.Type != param.Type, have.Optional != param.Optional, have.Default != param.Default,
			!slices.Equal(have.AllowedValue, param.AllowedValue), have.MetadataReadable != param.MetadataReadable,
			have.EnvReadable != param.EnvReadable, have.AuthReadable != param.AuthReadable:
			t.Errorf("%s is declared as %+v; KEDA has %+v", param.Name, have, param)
		}
	}
	for name := range got {
		t.Errorf("%s is declared; KEDA does not have it", name)
	}
}

// findSchema walks up to the folder that holds go.mod and returns the schema's path next to it; "" when there is none.
func findSchema(t *testing.T) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			t.Fatal("no go.mod above this package")
		}
		folder = parent
	}
	path := filepath.Join(filepath.Dir(folder), schemaFile)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

func TestTypesDescribeThemselves(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, declared := range all.Types() {
		if declared.Name == "" || declared.Doc == "" || declared.Build == nil || declared.MetricName == nil {
			t.Errorf("type %q lacks a name, a sentence, Build or MetricName", declared.Name)
		}
		if names[declared.Name] {
			t.Errorf("type %q is listed twice", declared.Name)
		}
		names[declared.Name] = true
		for _, param := range declared.Params {
			if param.Doc == "" || param.Kind == "" || len(param.Sources) == 0 {
				t.Errorf("%s.%s lacks a sentence, a kind or a source", declared.Name, param.Name)
			}
		}
		if found, ok := trigger.Find(all.Types(), declared.Name); !ok || found.Name != declared.Name {
			t.Errorf("Find(%q) = %q, %t", declared.Name, found.Name, ok)
		}
	}
	if _, ok := trigger.Find(all.Types(), "no such type"); ok {
		t.Error("Find finds a type that does not exist")
	}
}
