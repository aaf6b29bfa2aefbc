package cli

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/fatih/color"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 0, ""},
		{`{"user": 1}`, 0, `{"user": 1}`},
		{"a\nb\tc\rd", 0, `a\nb\tc\rd`},
		{"\x00\x1b[31m\x7f\u0085", 0, `\x00\x1b[31m\x7f\x85`},
		{"\u202e\u200b\ufeff\u2028", 0, `\u202e\u200b\ufeff\u2028`},
		{"\U000e0041", 0, `\U000e0041`},
		{"a\xffb", 0, `a\xffb`},
		{"ünïcödé 日本 🙂", 0, "ünïcödé 日本 🙂"},
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abcde…"},
		{"abcd\n", 6, `abcd\n`},
		{"abcde\n", 6, "abcde…"},
		{"日本日本", 3, "日本…"},
		{"ab", 1, "…"},
	} {
		if got := printable(test.text, test.limit); got != test.want {
			t.Errorf("printable(%q, %d) = %q, want %q", test.text, test.limit, got, test.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"", "a", "\x1b[31m", "日本", "\xff\xfe", "\u202e", strings.Repeat("\n", 30)} {
		f.Add(seed, 10)
	}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		got := printable(text, limit)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q holds %q", got, r)
			}
		}
		if n := utf8.RuneCountInString(got); limit > 0 && n > limit {
			t.Fatalf("%q has %d characters, more than %d", got, n, limit)
		}
	})
}

func FuzzParseSituation(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"running":1,"triggers":[{"value":1e308,"target":0.1,"active":true}]}`, `{"running":"x"}`, `[`, `null`,
		`{"minReplicaCount":9223372036854775807,"maxReplicaCount":9223372036854775807,"running":9223372036854775807}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var out strings.Builder
		if line = bytes.TrimSpace(line); len(line) == 0 {
			return
		}
		if err := decideLine(&out, line); err == nil && strings.Count(out.String(), "\n") != 1 {
			t.Fatalf("%q gives %q", line, out.String())
		}
	})
}

func TestJSONHoldsNoControlCharacters(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	text := "a\x1b\x7f\u009bü<&日"
	if err := printObject(&out, outputJSON, []string{text}); err != nil {
		t.Fatal(err)
	}
	if want := "[\n  \"a\\u001b\\u007f\\u009bü<&日\"\n]\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	var back []string
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back[0] != text {
		t.Errorf("got back %q, %v", back, err)
	}
}

func TestSimilar(t *testing.T) {
	t.Parallel()
	names := []string{"usertask", "usertask-a", "usertask-b", "usertask-c", "mail", "male"}
	for name, want := range map[string][]string{
		"usertsk":    {"usertask", "usertask-a", "usertask-b"},
		"usertask-":  {"usertask-a", "usertask-b", "usertask-c"},
		"mial":       {"mail", "male"},
		"mali":       {"mail", "male"},
		"task":       {"usertask", "usertask-a", "usertask-b"},
		"":           {"usertask", "usertask-a", "usertask-b"},
		"zzzzzzzzzz": nil,
	} {
		if got := similar(name, names); !slices.Equal(got, want) {
			t.Errorf("similar(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	red := []color.Attribute{color.FgRed}
	table := table{header: []string{"NAME", "STATE", "AGE"}, coloured: true, moving: map[string]bool{"AGE": true}}
	first := row{"a", []cell{plain("ä"), {"Failed", red}, plain("1s")}}
	if err := table.print(&out, []row{first}); err != nil {
		t.Fatal(err)
	}
	if err := table.print(&out, []row{{"b", []cell{plain("longer name"), plain("-"), plain("2s")}}}); err != nil {
		t.Fatal(err)
	}
	want := "\x1b[1mNAME\x1b[22m   \x1b[1mSTATE\x1b[22m    \x1b[1mAGE\x1b[22m\n" +
		"ä      \x1b[31mFailed\x1b[0m   1s\n" +
		"longer name   -        2s\n"
	if got := out.String(); strings.ReplaceAll(got, "\x1b[0;22m", "\x1b[22m") != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	older := row{"a", []cell{plain("ä"), {"Failed", red}, plain("5s")}}
	if table.state(first) != table.state(older) {
		t.Error("an age counts as a change")
	}
}

func TestColours(t *testing.T) {
	t.Parallel()
	a := &app{}
	if a.colours(&strings.Builder{}) {
		t.Error("colours are used on what is no terminal")
	}
	if got := paint(false, "x", color.FgRed); got != "x" {
		t.Errorf("got %q", got)
	}
	if got := paint(true, "x", color.FgRed); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("got %q", got)
	}
}
