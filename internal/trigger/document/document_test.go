package document_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger/document"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// formats are the formats by name.
var formats = map[string]func([]byte, string) (any, error){
	"json": document.JSON, "yaml": document.YAML, "xml": document.XML,
}

// number returns what is at the path, as text.
func number(format, content, path string) string {
	value, err := formats[format]([]byte(content), path)
	if err == nil {
		value, err = document.Number(value)
	}
	switch {
	case errors.Is(err, document.ErrFormat):
		return "format"
	case errors.Is(err, document.ErrNothing):
		return "nothing"
	case errors.Is(err, document.ErrNoNumber):
		return "no number"
	default:
		return fmt.Sprint(value)
	}
}

func TestFindsNumbers(t *testing.T) {
	t.Parallel()
	const (
		asJSON = `{"a": {"b": [{"c": 1}, {"c": "500m"}]}, "big": 12345678901, "x.y": 3, "no": true, "null": null, "s": "two"}`
		asYAML = "a: {b: [{c: 1}, {c: 500m}]}\nbig: 12345678901\n7: {8: 9}\nno: true\nnull: ~\ns: two\nf: 2.5\nnan: .nan\n"
		asXML  = `<?xml version="1.0"?><r x="9"><a><b><c>1</c></b><b><c> 500m </c></b></a><one>2.5</one><s>two</s><e/></r>`
	)
	for _, test := range []struct{ format, content, path, want string }{
		{"json", asJSON, "a.b.0.c", "1"},
		{"json", asJSON, "a.b.1.c", "0.5"},
		{"json", asJSON, "a.b.#", "2"},
		{"json", asJSON, `a.b.#(c==1).c`, "1"},
		{"json", asJSON, `x\.y`, "3"},
		{"json", asJSON, "big", "1.2345678901e+10"},
		{"json", asJSON, "a.z", "nothing"},
		{"json", asJSON, "a.b", "no number"},
		{"json", asJSON, "no", "no number"},
		{"json", asJSON, "null", "no number"},
		{"json", asJSON, "s", "no number"},
		{"json", "5", "@this", "5"},
		{"json", "{\"a\":1}\n{\"a\":2}", "..1.a", "2"},
		{"json", `{"a": 1`, "a", "format"},
		{"json", "", "a", "format"},
		{"json", strings.Repeat("[", 1<<20), "a", "format"},

		{"yaml", asYAML, "a.b.0.c", "1"},
		{"yaml", asYAML, "a.b.1.c", "0.5"},
		{"yaml", asYAML, "a.b.0.c.more", "1"},
		{"yaml", asYAML, "7.8", "9"},
		{"yaml", asYAML, "f", "2.5"},
		{"yaml", asYAML, "nan", "NaN"},
		{"yaml", asYAML, "big", "1.2345678901e+10"},
		{"yaml", "[18446744073709551615]", "0", "1.8446744073709552e+19"},
		{"yaml", asYAML, "a.b.2.c", "nothing"},
		{"yaml", asYAML, "a.b.-1", "nothing"},
		{"yaml", asYAML, "a.b", "no number"},
		{"yaml", asYAML, "no", "no number"},
		{"yaml", asYAML, "s", "no number"},
		{"yaml", "a: [", "a", "format"},
		{"yaml", "a: &a [*a]", "a", "format"},
		{"yaml", strings.Repeat("[", 1<<20), "a", "format"},
		{"yaml", "", "a", "no number"},

		{"xml", asXML, "r.a.b.0.c", "1"},
		{"xml", asXML, "r.a.b.1.c", "0.5"},
		{"xml", asXML, "r.one", "2.5"},
		{"xml", asXML, "r.s", "no number"},
		{"xml", asXML, "r.e", "no number"},
		{"xml", asXML, "r.a", "no number"},
		{"xml", asXML, "one", "nothing"},
		{"xml", asXML, "r.x", "nothing"},
		{"xml", "<a>1</b>", "a", "format"},
		{"xml", "<a>1", "a", "format"},
		{"xml", "", "a", "format"},
		{"xml", `<!DOCTYPE a [<!ENTITY e "5">]><a>&e;</a>`, "a", "format"},
		{"xml", strings.Repeat("<a>", 1<<18) + strings.Repeat("</a>", 1<<18), "a", "format"},
	} {
		if got := number(test.format, test.content, test.path); got != test.want {
			t.Errorf("%s %.100s at %s: got %s, want %s", test.format, test.content, test.path, got, test.want)
		}
	}
}

func TestQuantity(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"12": 12, "1.5": 1.5, "-3": -3, "+3": 3, "500m": 0.5, "2k": 2000, "2Ki": 2048, "1e3": 1000, "5E": 5e18, "1M": 1e6, ".5": 0.5,
		"1n": 1e-9,
	} {
		if got, err := document.Quantity(text); err != nil || math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " 1", "1 ", "1,5", "NaN", "Inf", "0x10", "1_0", "one", "1kB", "1e", "e3", "1..2",
		// These would take hours.
		"12345678901234567890123e-100000000", "1e1000000000", strings.Repeat("1", 1<<20),
	} {
		if got, err := document.Quantity(text); !errors.Is(err, document.ErrNoNumber) {
			t.Errorf("%.50s: got %v, %v; want an error", text, got, err)
		}
	}
}

func FuzzNumber(f *testing.F) {
	f.Add("json", `{"a": {"b": "5m"}}`, "a.b")
	f.Add("yaml", "a: [{b: 1}]", "a.0.b")
	f.Add("xml", "<a><b>1</b></a>", "a.b")
	f.Add("yaml", "a: 12345678901234567890123e-999", "a")
	f.Fuzz(func(_ *testing.T, format, content, path string) {
		if formats[format] != nil {
			number(format, content, path)
		}
	})
}
