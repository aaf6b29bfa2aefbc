package all_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/all"
	"github.com/offboard-dev/offboard/internal/trigger/reference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// schemaFile is KEDA's schema, which lies next to the module where it is present.
const schemaFile = "shared/keda/scalers-schema.json"

// stricter lists where a declaration says more than KEDA's schema, because KEDA's code checks what its schema omits.
var stricter = map[string]func(*trigger.SchemaParam){
	"postgresql.targetQueryValue": func(p *trigger.SchemaParam) { p.Optional = true },
	"redis.tls":                   anyValue,
	"redis-cluster.tls":           anyValue,
	"redis-sentinel.tls":          anyValue,
	"redis-streams.tls":           anyValue,
	"redis-cluster-streams.tls":   anyValue,
	"redis-sentinel-streams.tls":  anyValue,
	"kafka.partitionLimitation":   func(p *trigger.SchemaParam) { p.RangeSeparator = "" },
	"etcd.tls":                    anyValue,
}

func anyValue(p *trigger.SchemaParam) { p.AllowedValue = nil }

// TestTypesMatchKEDASchema holds the declarations, in the form that `offboard triggers --schema` prints, to KEDA's schema
// file.
func TestTypesMatchKEDASchema(t *testing.T) {
	t.Parallel()
	// As `offboard triggers --schema` prints it.
	printed, err := json.Marshal(trigger.SchemaOf(all.Types()))
	if err != nil {
		t.Fatal(err)
	}
	declared := parseSchema(t, printed)
	if len(declared.Scalers) != len(all.Types()) {
		t.Errorf("got %d types, want %d", len(declared.Scalers), len(all.Types()))
	}
	path := findSchema(t)
	if path == "" {
		t.Logf("%s is not next to the module: nothing to compare the declared types with", schemaFile)
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expected := parseSchema(t, content)
	if declared.KEDAVersion != expected.KEDAVersion || declared.SchemaVersion != expected.SchemaVersion {
		t.Errorf("got version %s and schema version %d, want %s and %d",
			declared.KEDAVersion, declared.SchemaVersion, expected.KEDAVersion, expected.SchemaVersion)
	}
	want := map[string][]trigger.SchemaParam{}
	for _, scaler := range expected.Scalers {
		want[scaler.Type] = scaler.Parameters
	}
	last := ""
	for _, scaler := range declared.Scalers {
		if scaler.Type <= last {
			t.Errorf("%s comes after %s: the types are not in the order of their names", scaler.Type, last)
		}
		last = scaler.Type
		t.Run(scaler.Type, func(t *testing.T) {
			t.Parallel()
			expected, found := want[scaler.Type]
			if !found {
				t.Fatalf("KEDA has no trigger type %q", scaler.Type)
			}
			compare(t, scaler, expected)
		})
	}
}

// parseSchema reads a schema. Whatever else it held would be lost in the comparison, but for separators and the words
// on deprecated parameters, which no type of ours has.
func parseSchema(t *testing.T, content []byte) trigger.Schema {
	t.Helper()
	var schema trigger.Schema
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func compare(t *testing.T, declared trigger.SchemaType, expected []trigger.SchemaParam) {
	t.Helper()
	got := map[string]trigger.SchemaParam{}
	for _, param := range declared.Parameters {
		if relax := stricter[declared.Type+"."+param.Name]; relax != nil {
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
		case !reflect.DeepEqual(have, param):
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
		keys := map[string]bool{}
		for _, param := range declared.Params {
			if param.Doc == "" || param.Kind == "" || len(param.Sources) == 0 {
				t.Errorf("%s.%s lacks a sentence, a kind or a source", declared.Name, param.Name)
			}
			if param.Kind != "" && reference.KindDoc(param.Kind) == "" {
				t.Errorf("%s.%s is of kind %q, which the reference documentation does not explain",
					declared.Name, param.Name, param.Kind)
			}
			for _, key := range param.Keys() {
				if keys[key] {
					t.Errorf("%s.%s is declared twice", declared.Name, key)
				}
				keys[key] = true
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

// TestExamples makes a trigger of each type from its example. That the manifest with the example is valid is tested where
// `offboard validate` is.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, declared := range all.Types() {
		t.Run(declared.Name, func(t *testing.T) {
			t.Parallel()
			if len(declared.Example.Metadata) == 0 {
				t.Fatal("the type has no Example")
			}
			secret := slices.ContainsFunc(declared.Params, func(p trigger.Param) bool { return p.Secret })
			if secret && len(declared.Example.Auth) == 0 {
				t.Error("the type has secret parameters, but its Example shows no TriggerAuthentication")
			}
			for _, param := range declared.Params {
				for _, key := range param.Keys() {
					if param.Secret && declared.Example.Metadata[key] != "" {
						t.Errorf("the Example gives the secret %s in metadata: give it in Auth", key)
					}
					if declared.Example.Auth[key] != "" && !param.From(trigger.FromAuth) {
						t.Errorf("the Example gives %s in a TriggerAuthentication, which cannot hold it", key)
					}
				}
			}
			made, err := declared.New(t.Context(), trigger.Config{
				Metadata: declared.Example.Metadata, Auth: declared.Example.Auth, PollingInterval: time.Second,
				Claims: declared.Claims,
			})
			if err != nil {
				t.Fatalf("no trigger is made from the Example: %v", err)
			}
			defer made.Close()
			if _, watches := made.(trigger.Watcher); watches != declared.Watches {
				t.Errorf("Watches is %t, but that a trigger is a Watcher is %t", declared.Watches, watches)
			}
			if _, claims := made.(trigger.Claimer); claims != declared.Claims {
				t.Errorf("Claims is %t, but that a trigger is a Claimer is %t", declared.Claims, claims)
			}
		})
	}
}
