package podenv

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

func lookupIn(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, found := values[name]
		return value, found
	}
}

var expandValues = map[string]string{
	"A": "1", "B": "$(A)", "EMPTY": "", "with space": "w", "a.b-c": "d", "$": "dollar", "(": "open", "": "never",
}

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"A": "1", "B": "$(A)$$", "EMPTY": "", "a b": "space", "a.b-c": "dots", "(": "open"}
	tests := []struct{ value, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$(A)", "1"},
		{"x$(A)y$(A)", "x1y1"},
		{"$(NONE)", "$(NONE)"},
		{"$(EMPTY)", ""},
		{"$()", "$()"},
		{"$$(A)", "$(A)"},
		{"$$$(A)", "$1"},
		{"$$$$(A)", "$$(A)"},
		{"$$", "$"},
		{"$$$", "$$"},
		{"$", "$"},
		{"a$", "a$"},
		{"$A", "$A"},
		{"${A}", "${A}"},
		{"$x$(A)", "$x1"},
		{"$(B)", "$(A)$$"}, // a result is not expanded again
		{"$(a b)$(a.b-c)", "spacedots"},
		{"$(", "$("},
		{"$(A", "$(A"},
		{"$(A$$", "$(A$"}, // never closed, and still an escape
		{"$($(A))", "$($(A))"},
		{"$(()", "open"},
		{"$(A\n)", "$(A\n)"},
		{"\xff$(A)\xfe", "\xff1\xfe"},
		{"price: 5$ or $(A)$", "price: 5$ or 1$"},
	}
	for _, test := range tests {
		got, err := expand(test.value, lookupIn(values), 100)
		if err != nil || got != test.want {
			t.Errorf("expand(%q) = %q, %v; want %q", test.value, got, err, test.want)
		}
	}
}

func TestExpandKeepsItsLimit(t *testing.T) {
	t.Parallel()
	values := lookupIn(map[string]string{"X": strings.Repeat("x", 10)})
	if got, err := expand("$(X)$(X)", values, 20); err != nil || len(got) != 20 {
		t.Errorf("20 bytes under a limit of 20: %q, %v", got, err)
	}
	for _, value := range []string{"$(X)$(X).", "$(X)$(X)$(X)", strings.Repeat("y", 21), strings.Repeat("$(X)", 1000)} {
		if got, err := expand(value, values, 20); !errors.Is(err, errTooLong) {
			t.Errorf("expand(%.20q) under a limit of 20 = %d bytes, %v; want errTooLong", value, len(got), err)
		}
	}
}

// repeated is long enough that quadratic time, even at the speed of a memory scan, takes many seconds.
const repeated = 512 << 10

func checkLinear(t *testing.T, unit string) {
	t.Helper()
	value := strings.Repeat(unit, repeated/len(unit))
	start := time.Now()
	if _, err := expand(value, lookupIn(expandValues), 16*repeated); err != nil {
		t.Errorf("%q repeated: %v", unit, err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("%q repeated to %d bytes took %v", unit, len(value), took)
	}
}

func TestExpandIsLinear(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"$(", "$", "$$(", "$()", "$(A)", ")", "$((", "$(A$(", "($"} {
		checkLinear(t, unit)
	}
}

// modelReference matches an escape or a closed reference; what it does not match stands for itself.
var modelReference = regexp.MustCompile(`\$\$|\$\([^)]*\)`)

// model is the same rule, said in another way: a regular expression, matched from left to right.
func model(value string, lookup func(string) (string, bool)) string {
	return modelReference.ReplaceAllStringFunc(value, func(match string) string {
		if match == "$$" {
			return "$"
		}
		if known, found := lookup(match[2 : len(match)-1]); found {
			return known
		}
		return match
	})
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "$(A)", "$$(A)", "$$$(A)", "$(NONE)", "$(", "$(A", "$($(A))", "$()", "$", "a$", "$A", "$(B)$(EMPTY)",
		"$(with space)$(a.b-c)", "$(A\n)", "\xff$(A)", "$($)", "$(()", "$($$$(", "$x$$y$(z", "$($($($(", "$$$$$$$$$",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		lookup := lookupIn(expandValues)
		want := model(value, lookup)
		got, err := expand(value, lookup, max(len(want), len(value)))
		if err != nil || got != want {
			t.Fatalf("expand(%q) = %q, %v; the model says %q", value, got, err, want)
		}
		if len(want) > 0 {
			if _, err := expand(value, lookup, len(want)-1); !errors.Is(err, errTooLong) {
				t.Fatalf("expand(%q) under a limit of %d gave %v", value, len(want)-1, err)
			}
		}

		// A short text many times over; longer ones would make the fuzzing slow and tell no more.
		if value != "" && len(value) <= 5 {
			checkLinear(t, value)
		}
	})
}
