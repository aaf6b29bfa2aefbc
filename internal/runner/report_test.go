package runner

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTerminationReport(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ item, want string }{
		"text":      {`{"user": 1}`, "offboard item: {\"user\": 1}\n"},
		"empty":     {"", "offboard item: \n"},
		"quote":     {`"a"`, `offboard item: "\"a\""` + "\n"},
		"two lines": {"a\nb", `offboard item: "a\nb"` + "\n"},
		"bytes":     {"\x00\xff", `offboard item: "\x00\xff"` + "\n"},
		"unicode":   {"ünïcödé", "offboard item: ünïcödé\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := terminationReport([]byte(test.item)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got, found := ReportedItem(test.want + "more of the command\n"); !found || got != test.item {
				t.Errorf("got %q, %t", got, found)
			}
		})
	}
	if got, found := ReportedItem("out of disk"); found || got != "" {
		t.Errorf("of others: got %q, %t", got, found)
	}
}

func FuzzTerminationReport(f *testing.F) {
	for _, item := range []string{"", `{"user": 1}`, "\x00\xff\n", `"quoted`, strings.Repeat("ü", 4000), strings.Repeat("\x00", 5000)} {
		f.Add([]byte(item))
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		report := terminationReport(item)
		if len(report) > maxTermination || !utf8.ValidString(report) {
			t.Fatalf("%q is no termination message", report)
		}
		got, found := ReportedItem(report)
		if !found || !bytes.HasPrefix(item, []byte(got)) || len(item) <= maxTermination/8 && got != string(item) {
			t.Fatalf("%q became %q", item, got)
		}
	})
}

// TestReportsInTheTerminationMessage is a container of Kubernetes, in which the file is there.
func TestReportsInTheTerminationMessage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "termination-log")
	r := &run{Options{terminationLog: path}}
	r.report([]byte("a"))
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatal("a file was made where there is no container of Kubernetes")
	}
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if r.report([]byte("a")); read() != "offboard item: a\n" {
		t.Errorf("got %q", read())
	}
	if r.unreport(); read() != "" {
		t.Errorf("an item that was given back is still reported: %q", read())
	}
	file := filepath.Join(t.TempDir(), "report")
	r.Environ = []string{ReportVariable + "=" + file}
	if r.report([]byte("b")); read() != "" {
		t.Errorf("reported twice: %q", read())
	}
}
