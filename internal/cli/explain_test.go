package cli

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/reference"
)

func TestTriggers(t *testing.T) {
	t.Parallel()
	redis, found := trigger.Find(triggerTypes(), "redis")
	if !found {
		t.Fatal("there is no trigger type redis")
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"TYPE ", " CAN ", " MEASURES\n", "\nredis ", " watch, claim ", redis.Doc + "\n"}},
		{[]string{"-o", "name"}, []string{"redis\n"}},
		{[]string{"-o", "yaml"}, []string{"triggers:\n", "  type: redis\n", "  watches: true\n"}},
		{[]string{"--schema"}, []string{`"schemaVersion": 1`, `"type": "redis"`, `"name": "addresses"`}},
		{[]string{"--schema", "-o", "json"}, []string{`"schemaVersion": 1`}},
	} {
		got := execute(t, "", "", append([]string{"triggers"}, test.args...)...)
		if got.code != exitOK || got.err != "" {
			t.Errorf("%q: got %+v", test.args, got)
		}
		for _, want := range test.want {
			if !strings.Contains(got.out, want) {
				t.Errorf("%q: got %q, want %q in it", test.args, got.out, want)
			}
		}
	}
	var listed struct{ Triggers []listedType }
	got := execute(t, "", "", "triggers", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &listed); err != nil || len(listed.Triggers) != len(triggerTypes()) {
		t.Errorf("got %+v, %v, want %d types", got, err, len(triggerTypes()))
	}
	// internal/trigger/all compares the schema with KEDA's.
	var schema trigger.Schema
	got = execute(t, "", "", "triggers", "--schema")
	err := json.Unmarshal([]byte(got.out), &schema)
	if want := trigger.SchemaOf(triggerTypes()); err != nil || !reflect.DeepEqual(schema, want) {
		t.Errorf("--schema prints %+v, %v, want %+v", schema, err, want)
	}
	for _, args := range [][]string{{"triggers", "redis"}, {"triggers", "--schema", "-o", "yaml"}, {"triggers", "-o", "wide"}} {
		if got := execute(t, "", "", args...); got.code != exitUsage || got.out != "" {
			t.Errorf("%q: got %+v, want exit code %d", args, got, exitUsage)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"redis"}, []string{"redis: ", "\nPARAMETERS\n", "  listName: string; required\n      given in metadata\n",
			"  listLength: int; default 5; at least 1\n", "\n  address or addresses: list; depends\n",
			"; secret\n", "given in metadata, passwordFromEnv, TriggerAuthentication\n", "\nEXAMPLE\n  apiVersion: "}},
		{[]string{"redis.tls"}, []string{"tls: string; optional; one of enable, disable\n    given in TriggerAuthentication\n"}},
		{[]string{"redis.addresses"}, []string{"address or addresses: list"}},
		{[]string{"redis.cert", "-o", "json"}, []string{`"name": "Cert"`, `"auth"`}},
		{[]string{"redis", "-o", "yaml"}, []string{"type: redis\n", "example: |\n"}},
	} {
		got := execute(t, "", "", append([]string{"explain"}, test.args...)...)
		if got.code != exitOK || got.err != "" {
			t.Errorf("%q: got %+v", test.args, got)
		}
		for _, want := range test.want {
			if !strings.Contains(got.out, want) {
				t.Errorf("%q: got %q, want %q in it", test.args, got.out, want)
			}
		}
	}
	for _, declared := range triggerTypes() {
		got := execute(t, "", "", "explain", declared.Name, "-o", "json")
		var described reference.Type
		if err := json.Unmarshal([]byte(got.out), &described); err != nil || len(described.Params) != len(declared.Params) {
			t.Errorf("%s: got %+v, %v, want %d parameters", declared.Name, got, err, len(declared.Params))
		}
		example := execute(t, "", "", "explain", declared.Name, "--example")
		if example.code != exitOK || example.out != described.Example {
			t.Errorf("%s: got %+v, want %q", declared.Name, example, described.Example)
		}
		validateExample(t, declared.Name, example.out)
	}
}

// validateExample accepts no warning, but that one machine does not pull the image which a cluster needs.
func validateExample(t *testing.T, name, text string) {
	t.Helper()
	const imageIgnored = "image: ignored on one machine: the command is started as a process"
	got := execute(t, "", text, "validate", "-", "--for", "cluster", "--strict")
	if got.code != exitOK {
		t.Errorf("%s: its example is not valid on a cluster: %+v\n%s", name, got, text)
	}
	got = execute(t, "", text, "validate", "-")
	image, summary, _ := strings.Cut(got.out, "\n")
	if got.code != exitOK || !strings.HasSuffix(image, imageIgnored) || summary != "1 ScaledJob: valid, 1 warning\n" {
		t.Errorf("%s: its example is not valid on one machine: %+v\n%s", name, got, text)
	}
}

func TestExplainRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"rediss"}, exitNotFound, `unknown trigger type "rediss"`},
		{[]string{"rediss"}, exitNotFound, `did you mean "redis"?`},
		{[]string{"azure-pipelines"}, exitNotFound, "KEDA has trigger type azure-pipelines, but Offboard does not yet"},
		{[]string{""}, exitNotFound, `unknown trigger type ""`},
		{[]string{"redis.listNmae"}, exitNotFound, `trigger type redis has no parameter "listNmae"; did you mean listName?`},
		{[]string{"redis."}, exitNotFound, `no parameter ""`},
		{nil, exitUsage, "accepts 1 arg(s)"},
		{[]string{"redis", "listName"}, exitUsage, "accepts 1 arg(s)"},
		{[]string{"redis.listName", "--example"}, exitUsage, "name it without a parameter: redis"},
		{[]string{"redis", "--example", "-o", "json"}, exitFailure, "[example output]"},
	} {
		got := execute(t, "", "", append([]string{"explain"}, test.args...)...)
		if got.code != test.code || got.out != "" || !strings.Contains(got.err, test.want) {
			t.Errorf("%q: got %+v, want exit code %d and %q", test.args, got, test.code, test.want)
		}
	}
}

func TestExplainCompletion(t *testing.T) {
	t.Parallel()
	for begun, want := range map[string]string{
		"redi": "redis\t", "redis.listL": "redis.listLength\t", "redis.x": ":4\n", "nothing.": ":4\n",
	} {
		if got := execute(t, "", "", cobraComplete, "explain", begun); got.code != 0 || !strings.HasPrefix(got.out, want) {
			t.Errorf("%q: got %+v, want %q first", begun, got, want)
		}
	}
	if got := execute(t, "", "", cobraComplete, "explain", "redis", ""); got.out != ":4\n" {
		t.Errorf("a second argument: got %+v, want none", got)
	}
}
