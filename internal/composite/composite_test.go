package composite_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/composite"
	"github.com/offboard-dev/offboard/internal/scaling"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// decision is one case of testdata/decisions.jsonl.
type decision struct {
	scaling.Rule
	Name     string
	Running  int64
	Before   int64
	Triggers []struct {
		scaling.Reading
		Name     string
		Failures int64
	}
	Fallback  *v1alpha1.Fallback
	Modifiers *v1alpha1.ScalingModifiers
	Create    int64
	Reason    string // a part of it
	Err       string // a part of it
	Fallen    []int
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/decisions.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	count := 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); count++ {
		var d decision
		decoder := json.NewDecoder(strings.NewReader(scanner.Text()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&d); err != nil {
			t.Fatalf("%v: %s", err, scanner.Text())
		}
		t.Run(d.Name, func(t *testing.T) {
			t.Parallel()
			var names []string
			var answers []composite.Answer
			for _, trigger := range d.Triggers {
				names = append(names, trigger.Name)
				answers = append(answers, composite.Answer{
					Name: trigger.Name, Reading: trigger.Reading, Failures: trigger.Failures,
				})
			}
			rule, err := composite.NewRule(d.Fallback, &v1alpha1.Advanced{ScalingModifiers: d.Modifiers}, names)
			if err != nil {
				t.Fatal(err)
			}
			result := rule.Combine(answers)
			state := scaling.State{Running: d.Running, Readings: result.Readings}
			if result.Fallback {
				jobs := rule.Jobs(d.Before)
				state.Fallback = &jobs
			}
			got := scaling.Decide(d.Rule, state)
			if got.Create != d.Create || !strings.Contains(got.Reason, d.Reason) {
				t.Errorf("got %+v, want %d because of %q", got, d.Create, d.Reason)
			}
			if (result.Err != nil) != (d.Err != "") || d.Err != "" && !strings.Contains(result.Err.Error(), d.Err) {
				t.Errorf("got the error %v, want %q", result.Err, d.Err)
			}
			if !slices.Equal(result.Fallen, d.Fallen) {
				t.Errorf("fallen are %v, want %v", result.Fallen, d.Fallen)
			}
		})
	}
	if count < 30 {
		t.Errorf("there are %d cases, want at least 30", count)
	}
}

func TestRuleOf(t *testing.T) {
	t.Parallel()
	sj := &v1alpha1.ScaledJob{}
	sj.Spec.Triggers = []v1alpha1.ScaleTriggers{{Name: "queue"}, {}}
	modifiers := &v1alpha1.ScalingModifiers{Formula: "queue", Target: "5"}
	if rule, err := composite.RuleOf(sj); err != nil || rule.Formula() != nil || rule.Jobs(7) != 0 {
		t.Errorf("a ScaledJob without either: got %+v, %v", rule, err)
	}
	sj.Spec.Advanced = &v1alpha1.Advanced{ScalingModifiers: modifiers}
	if rule, err := composite.RuleOf(sj); err != nil || !rule.Formula().Uses("queue") || rule.Formula().Uses("") {
		t.Errorf("a formula: got %+v, %v", rule, err)
	}
	for _, test := range []struct {
		field string
		edit  func()
		want  string
	}{
		{"formula", func() { modifiers.Formula = "quue" }, "column 1: unknown name quue; did you mean queue?"},
		{"target", func() { modifiers.Target = "many" }, `got "many", want a number such as "5"`},
		{"target", func() { modifiers.Target = "" }, `got "", want a number`},
		{"target", func() { modifiers.Target = "0" }, `got "0", want a number above 0`},
		{"target", func() { modifiers.Target = "NaN" }, `got "NaN", want a number`},
		{"activationTarget", func() { modifiers.ActivationTarget = "x" }, `got "x", want a number`},
	} {
		*modifiers = v1alpha1.ScalingModifiers{Formula: "queue", Target: "5"}
		test.edit()
		_, err := composite.RuleOf(sj)
		var field composite.FieldError
		if !errors.As(err, &field) || field.Field != test.field || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.field, err, test.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	names := []string{"queue", "backlog"}
	for text, want := range map[string]string{
		"":                                   "is empty; give an expression over the names of triggers",
		" \n":                                "is empty",
		"quue":                               "column 1: unknown name quue; did you mean queue?",
		"1 + xyzxyz":                         "column 5: unknown name xyzxyz: want a trigger's name (queue, backlog) or a function",
		"queue +\n  bcklog":                  "line 2, column 3: unknown name bcklog; did you mean backlog?",
		"queue +":                            "column 7: unexpected token EOF",
		"queue > 1":                          "gives a bool, want a number",
		`"5"`:                                "gives a string, want a number",
		"[queue]":                            "want a number",
		"now()":                              "unknown name now",
		`date("2026-01-01").Unix()`:          "unknown name date",
		"queue.size":                         "column 7: type float64 has no field size",
		`queue + "1"`:                        "column 7: invalid operation: + (mismatched types float64 and string)",
		"sum(map([queue], {sum([#], {#})}))": "holds a list's function within another one's braces",
		strings.Repeat("-", 1000) + "queue":  "exceeds maximum allowed",
		strings.Repeat(" ", 5000) + "queue":  "has 5005 bytes, want 4096 or less",
	} {
		_, err := composite.Compile(text, names)
		var wrong composite.FormulaError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: got %v, want %q in one line", text, err, want)
		}
	}
	if _, err := composite.Compile("queue", nil); err == nil || !strings.Contains(err.Error(), "no trigger has a name") {
		t.Errorf("without names: got %v", err)
	}
}

// TestFormulaIsBounded evaluates what would take very long.
func TestFormulaIsBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"count(1..100000000, {# > 1})", "len(map(1..9000, {#})) + len(map(1..9000, {#}))"} {
		f, err := composite.Compile(text, nil)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, _, err := f.Evaluate(nil); err == nil || !strings.Contains(err.Error(), "memory budget exceeded") {
			t.Errorf("%q: got %v, want that it exceeds its budget", text, err)
		}
	}
}

// TestCombineKeepsPromises holds for answers of any kind: no fallback without failures, nothing from ignorance.
func TestCombineKeepsPromises(t *testing.T) {
	t.Parallel()
	formulas := []string{"", "a", "a + b", "a ?? b", "a ?? b ?? 3", "max([a, b])", "a / b", "b > 1 ? a : nil"}
	behaviors := []string{"", "static", "currentReplicas", "scalingModifiers"}
	rapid.Check(t, func(t *rapid.T) {
		fallback := &v1alpha1.Fallback{
			FailureThreshold: rapid.Int32Range(0, 3).Draw(t, "threshold"),
			Replicas:         rapid.Int32Range(0, 9).Draw(t, "replicas"),
			Behavior:         rapid.SampledFrom(behaviors).Draw(t, "behavior"),
		}
		if rapid.Bool().Draw(t, "none") {
			fallback = nil
		}
		var advanced *v1alpha1.Advanced
		if formula := rapid.SampledFrom(formulas).Draw(t, "formula"); formula != "" {
			advanced = &v1alpha1.Advanced{ScalingModifiers: &v1alpha1.ScalingModifiers{Formula: formula, Target: "2"}}
		}
		rule, err := composite.NewRule(fallback, advanced, []string{"a", "b"})
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		var answers []composite.Answer
		for _, name := range []string{"a", "b"} {
			answer := composite.Answer{Name: name, Failures: rapid.Int64Range(0, 4).Draw(t, "failures")}
			if answer.Failures == 0 {
				value := float64(rapid.IntRange(0, 20).Draw(t, "value"))
				answer.Reading = scaling.Reading{Value: value, Target: 1, Active: value > 0}
			} else {
				failed++
			}
			answers = append(answers, answer)
		}
		result := rule.Combine(answers)
		switch {
		case result.Fallback && (fallback == nil || len(result.Fallen) == 0):
			t.Errorf("a fallback without a reason: %+v", result)
		case failed == 0 && (result.Fallback || len(result.Fallen) > 0):
			t.Errorf("a fallback although nothing failed: %+v", result)
		case advanced != nil && len(result.Readings) == 0 && !result.Fallback && result.Err == nil:
			t.Errorf("nothing is known, and nothing says why: %+v", result)
		case result.Err != nil && len(result.Readings) > 0:
			t.Errorf("an error with readings: %+v", result)
		}
		for _, reading := range result.Readings {
			if reading.Target <= 0 {
				t.Errorf("a reading without a target: %+v", reading)
			}
		}
	})
}

func FuzzFormula(f *testing.F) {
	for _, text := range []string{
		"a + b", "a > 2 ? a + b : 1", "count([a, b], {# > 1}) > 1 ? 5 : 0", "a ?? b ?? 8", "let x = a * 2; x + b",
		`$env["a"]`, "max([a, b]) / 0", "1..5", "a %", "sum(1..1000000)", "\xff", "reduce([a, b], {#acc + #}, 0)", "'a' in {a: 1}",
		"a ** b", "{#}", "a not in [b]", "first(filter([a], {# > 3}))", "\"a\" matches \"(\"", "// a\na", "nil",
	} {
		f.Add(text, 1.5, true)
	}
	f.Fuzz(func(t *testing.T, text string, value float64, known bool) {
		formula, err := composite.Compile(text, []string{"a", "b"})
		if err != nil {
			if !errors.As(err, new(composite.FormulaError)) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error %q is no FormulaError of one line", text, err)
			}
			return
		}
		values := map[string]float64{"a": value}
		if known {
			values["b"] = 2
		}
		got, _, err := formula.Evaluate(values)
		if err == nil && (got != got || got-got != 0) {
			t.Errorf("%q gives %v", text, got)
		}
	})
}
