package scaling

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestVectors compares with 4,000 answers of KEDA's own decision functions, after the two corrections that Offboard
// makes to them.
func TestVectors(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/scaling-vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines, corrected := 0, 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		lines++
		var vector struct {
			Rule
			State
			Create int64 `json:"create"`
		}
		if err := json.Unmarshal(scanner.Bytes(), &vector); err != nil {
			t.Fatalf("line %d: %v", lines, err)
		}
		want := vector.Create
		if want == 0 && vector.Running == 0 && combine(vector.Rule, vector.Readings).value > 0 {
			want = 1
		}
		want = min(want, max(0, vector.Limit()-vector.Running))
		if want != vector.Create {
			corrected++
		}
		if got := Decide(vector.Rule, vector.State); got.Create != want {
			t.Errorf("line %d: create %d (%s), want %d: %s", lines, got.Create, got.Reason, want, scanner.Text())
		}
	}
	if lines != 4000 {
		t.Errorf("compared %d vectors, want 4000", lines)
	}
	t.Logf("%d vectors, of which %d corrected", lines, corrected)
}

func TestDecide(t *testing.T) {
	t.Parallel()
	int64p := func(v int64) *int64 { return &v }
	blog := Rule{Strategy: "custom", Deduction: int64p(1), RunningPercentage: "0.5", Max: int64p(25)}
	waiting := func(n float64) []Reading { return []Reading{{Value: n, Target: 1, Active: n > 0}} }
	for _, tt := range []struct {
		name   string
		rule   Rule
		state  State
		create int64
		reason string
	}{
		{"the blog's six items", blog, State{Readings: waiting(6)}, 5, "custom: 6 for the work waiting - 1 deducted"},
		{"the sixth is not stranded", blog, State{Readings: waiting(1)}, 1, "nothing runs"},
		{"the sixth waits for the five", blog, State{Running: 5, Readings: waiting(1)}, 0, "custom"},
		{"no second Job for an item not yet taken", blog, State{Running: 5, Untaken: 5, Readings: waiting(8)}, 3, "yet to take"},
		{"no successor at once for a Job that took nothing", blog, State{Untaken: 1, Readings: waiting(1)}, 0, "without taking"},
		{"all taken", blog, State{Running: 5, Readings: waiting(8)}, 5, "custom"},
		{"empty", Rule{}, State{Readings: waiting(0)}, 0, "nothing waits"},
		{"below activation", Rule{}, State{Readings: []Reading{{Value: 3, Target: 1}}}, 0, "activation threshold"},
		{"unknown", Rule{}, State{}, 0, "could be measured"},
		{"unknown, with a floor", Rule{Min: int64p(2)}, State{}, 0, "could be measured"},
		{"limit", Rule{Strategy: "accurate", Max: int64p(3)}, State{Running: 4, Readings: waiting(9)}, 0, "accurate"},
		{"limit of custom", blog, State{Running: 10, Readings: waiting(100)}, 15, "leaves room for 15"},
		{"floor", Rule{Min: int64p(2)}, State{Readings: waiting(0)}, 2, "minReplicaCount 2"},
		{"a strategy nobody knows", Rule{Strategy: "x"}, State{Readings: waiting(4)}, 4, "default"},
		{"hostile numbers", Rule{Strategy: "custom", Deduction: int64p(-1 << 63), RunningPercentage: "-1e300", Max: int64p(7)},
			State{Running: 5, Readings: []Reading{{Value: 1e300, Target: 1e-300, Active: true}}}, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Decide(tt.rule, tt.state)
			if got.Create != tt.create || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("Decide = %d (%s), want %d and a reason with %q", got.Create, got.Reason, tt.create, tt.reason)
			}
		})
	}
}

// TestInvariants states what holds for every rule and every state.
func TestInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		optional := func(label string, low, high int64) *int64 {
			if rapid.Bool().Draw(t, label+" set") {
				v := rapid.Int64Range(low, high).Draw(t, label)
				return &v
			}
			return nil
		}
		rule := Rule{
			Strategy:          rapid.SampledFrom([]string{"", "default", "custom", "accurate", "eager", "?"}).Draw(t, "strategy"),
			Deduction:         optional("deduction", -1<<62, 1<<62),
			RunningPercentage: rapid.SampledFrom([]string{"", "0", "0.5", "1", "-3", "1e308", "NaN", "Inf", "x"}).Draw(t, "share"),
			Calculation:       rapid.SampledFrom([]string{"", "max", "min", "avg", "sum"}).Draw(t, "calculation"),
			Min:               optional("min", 0, 200),
			Max:               optional("max", 1, 200),
		}
		state := State{Running: rapid.Int64Range(0, 300).Draw(t, "running")}
		state.Pending = rapid.Int64Range(0, state.Running).Draw(t, "pending")
		state.Untaken = rapid.Int64Range(0, state.Running+20).Draw(t, "untaken")
		for range rapid.IntRange(0, 4).Draw(t, "triggers") {
			state.Readings = append(state.Readings, Reading{
				Value:  rapid.Float64Range(0, 1e12).Draw(t, "value"),
				Target: rapid.Float64Range(0.001, 100).Draw(t, "target"),
				Active: rapid.Bool().Draw(t, "active"),
			})
		}
		got := Decide(rule, state)
		if got.Create < 0 {
			t.Fatalf("negative: %+v", got)
		}
		if got.Create > 0 && state.Running+got.Create > rule.Limit() {
			t.Fatalf("above the limit of %d: %+v", rule.Limit(), got)
		}
		if work := combine(rule, state.Readings); work.value > 0 && state.Running+state.Untaken == 0 && got.Create == 0 {
			t.Fatalf("stranded: %+v", got)
		} else if state.Untaken > 0 && state.Running >= rule.Floor() && got.Create > max(0, work.jobs-state.Untaken) {
			t.Fatalf("a second Job for the same work (%d wanted, %d untaken): %+v", work.jobs, state.Untaken, got)
		}
		if got.Reason == "" {
			t.Fatal("no reason")
		}
		rule.Unexplained = true
		if silent := Decide(rule, state); silent.Create != got.Create || silent.Floor != got.Floor {
			t.Fatalf("without reasons %+v, with them %+v", silent, got)
		}
	})
}
