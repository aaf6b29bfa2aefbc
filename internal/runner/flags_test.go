package runner

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	var o Options
	if !o.Parse([]string{"--lease=1m", "--attempts", "5", "--backoff=0", "--wait", "2s", "--", "a", "--", "-b"}) ||
		o.Lease != time.Minute || o.Attempts != 5 || o.Backoff != 0 || o.Wait != 2*time.Second || o.Pop ||
		!slices.Equal(o.Command, []string{"a", "--", "-b"}) {
		t.Errorf("got %+v", o)
	}
	o = Options{}
	if !o.Parse([]string{"--"}) || len(o.Command) != 0 || o.Lease != DefaultLease || o.Attempts != DefaultAttempts ||
		o.Backoff != DefaultBackoff || o.Wait != 0 || o.Pop {
		t.Errorf("got %+v", o)
	}
	// The command line makes something of these, or says what is wrong.
	for _, args := range [][]string{
		nil, {"a"}, {"a", "--", "b"}, {"--help", "--", "a"}, {"-h"}, {"-lease=1m", "--", "a"}, {"--lease", "--", "a"},
		{"--unknown", "--", "a"}, {"--lease=x", "--", "a"}, {"--lease=1m", "a"},
	} {
		if (&Options{}).Parse(args) {
			t.Errorf("%q was parsed", args)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		set  func(*Options)
		want string
	}{
		"lease":    {func(o *Options) { o.Lease = 10 * time.Millisecond }, "--lease is 10ms: it must be 1s or more"},
		"attempts": {func(o *Options) { o.Attempts = 0 }, "--attempts is 0: it must be 1 or more"},
		"backoff":  {func(o *Options) { o.Backoff = -1 }, "--backoff is -1ns: it must be 0 or more"},
		"wait":     {func(o *Options) { o.Wait = -1 }, "--wait is -1ns: it must be 0 or more"},
		"pop":      {func(o *Options) { o.Pop, o.Attempts = true, 7 }, "--pop cannot be used with other flags"},
	} {
		o := newOptions(t, target{"1"}.env("l"), "true")
		test.set(&o)
		if got := runOptions(t, o); got.code != ExitUsage || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%s: got %+v, want %s", name, got, test.want)
		}
	}
}

// TestDocumentation holds docs/runner.md to the flags with their defaults, to the variables and to the exit codes of the
// help.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	rows := map[string]string{} // the column of the default, by the flag's name
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| (.*?) \\| ").FindAllStringSubmatch(page, -1) {
		rows[row[1]] = row[2]
	}
	new(Options).Flags().VisitAll(func(f *flag.Flag) {
		if want := "`" + f.DefValue + "`"; rows[f.Name] != want {
			t.Errorf("docs/runner.md says that the default of --%s is %s, but it is %s", f.Name, rows[f.Name], want)
		}
		delete(rows, f.Name)
	})
	for name := range rows {
		t.Errorf("docs/runner.md has a row for --%s, which does not exist", name)
	}
	column := func(pattern, text string) []string {
		var all []string
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, match[1])
		}
		return all
	}
	variables := column(`(?m)^  (REDIS_[A-Z]+) `, Help)
	for _, name := range append(variables, ItemVariable, IDVariable, AttemptVariable, FileVariable, ReportVariable) {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("docs/runner.md has no row for %s", name)
		}
	}
	_, codes, _ := strings.Cut(Help, "Exit codes:\n")
	inHelp, inPage := column(`(?m)^  ([0-9]+(?:\+n)?) +`, codes), column("(?m)^\\| ([0-9]+(?:\\+n)?) \\| of the runner", page)
	if len(inHelp) != 6 || !slices.Equal(inHelp, inPage) {
		t.Errorf("the exit codes of the help are %q, those of docs/runner.md %q", inHelp, inPage)
	}
	for _, code := range []string{"0", "65", "75"} {
		if !strings.Contains(Help, "\n  exit code "+code+" ") || !strings.Contains(page, "\n| "+code+" | of the command |") {
			t.Errorf("the exit code %s of the command is not explained", code)
		}
	}
	if !strings.Contains(page, scriptRights) {
		t.Errorf("docs/runner.md does not tell of the rights %s", scriptRights)
	}
}

// TestStartsWithLittle keeps what costs time to initialize, and memory while the command runs, out of the runner.
func TestStartsWithLittle(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".", "../../cmd/offboard/early").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dependency := range strings.Lines(string(out)) {
		dependency = strings.TrimSpace(dependency)
		for _, costly := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/redis/", "github.com/spf13/", "net/http"} {
			if strings.HasPrefix(dependency, costly) {
				t.Errorf("the runner depends on %s", dependency)
			}
		}
	}
	if !strings.Contains(string(out), "internal/queue/redisqueue\n") {
		t.Errorf("the dependencies are incomplete: %s", out)
	}
}
