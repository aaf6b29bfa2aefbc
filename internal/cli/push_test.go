package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/control"
)

func TestPush(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "items")
	if err := os.WriteFile(file, []byte("one\n\ntwo \r\nthree"), 0o600); err != nil {
		t.Fatal(err)
	}
	many := make([]string, batchItems+1)
	for i := range many {
		many[i] = fmt.Sprintf("item %d", i)
	}
	binary := "\x00\xff\n\n,:" + strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		args  []string
		stdin string
		want  []string
		out   string
	}{
		"one":               {[]string{`{"user": 1}`}, "", []string{`{"user": 1}`}, "pushed 1 item to QUEUE, which holds 1 now\n"},
		"several":           {[]string{"a", "", "b"}, "", []string{"a", "", "b"}, "pushed 3 items to QUEUE, which holds 3 now\n"},
		"standard input":    {[]string{"-"}, binary, []string{binary}, "pushed 1 item to QUEUE, which holds 1 now\n"},
		"between":           {[]string{"a", "-", "b"}, "x\ny\n", []string{"a", "x\ny\n", "b"}, ""},
		"empty":             {[]string{"-"}, "", []string{""}, "pushed 1 item to QUEUE, which holds 1 now\n"},
		"lines":             {[]string{"--lines", "-"}, "x\n\n y\t\nz", []string{"x", " y\t", "z"}, ""},
		"no lines":          {[]string{"--lines", "-"}, "\n\n", nil, "pushed no item: there was no line that is not empty\n"},
		"file":              {[]string{"--from-file", file}, "", []string{"one\n\ntwo \r\nthree"}, ""},
		"lines of a file":   {[]string{"--from-file", file, "--lines"}, "", []string{"one", "two \r", "three"}, ""},
		"file of -":         {[]string{"--from-file", "-", "--lines"}, "a\nb", []string{"a", "b"}, ""},
		"more than a batch": {[]string{"--lines", "-"}, strings.Join(many, "\n"), many, "pushed 10001 items to QUEUE, which holds 10001 now\n"},
		"item like a flag":  {[]string{"--", "-v", "--lines"}, "", []string{"-v", "--lines"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := &fakeUp{}
			dataDir, _ := up.start(t)
			queue := "a queue\x1b\n"
			args := append([]string{"push", queue}, test.args...)
			if test.args[0] == "--" {
				args = append([]string{"push", "--", queue}, test.args[1:]...)
			}
			got := execute(t, dataDir, test.stdin, args...)
			want := strings.ReplaceAll(test.out, "QUEUE", `a queue\x1b\n`)
			if got.code != 0 || got.err != "" || test.out != "" && got.out != want {
				t.Errorf("got %+v, want the output %q", got, want)
			}
			if pushed := up.pushed[queue]; !slices.Equal(pushed, test.want) {
				t.Errorf("pushed %.200q, want %.200q", pushed, test.want)
			}
		})
	}
}

func TestPushErrors(t *testing.T) {
	t.Parallel()
	up := &fakeUp{}
	dataDir, _ := up.start(t)
	for name, test := range map[string]struct {
		args []string
		code int
		err  string
	}{
		"no queue":     {nil, exitUsage, "requires at least 1 arg(s), only received 0"},
		"empty queue":  {[]string{"", "a"}, exitUsage, "the name of the queue must not be empty"},
		"no item":      {[]string{"q"}, exitUsage, "there is no item to push"},
		"twice stdin":  {[]string{"q", "-", "-"}, exitUsage, ""},
		"stdin twice":  {[]string{"q", "-", "--from-file", "-"}, exitUsage, "standard input can be read once only"},
		"no stream":    {[]string{"q", "a", "--lines"}, exitUsage, "--lines needs --from-file FILE or an item of -"},
		"missing file": {[]string{"q", "--from-file", "/no/such/file"}, exitUsage, "read the items: open /no/such/file: no such file"},
		"long queue":   {[]string{strings.Repeat("q", control.MaxQueueName+1), "a"}, exitUsage, "the name of the queue has 65537 bytes"},
	} {
		got := execute(t, dataDir, "x", append([]string{"push"}, test.args...)...)
		if got.code != test.code || !strings.Contains(got.err, test.err) || got.out != "" {
			t.Errorf("%s: got %+v, want exit code %d and %q", name, got, test.code, test.err)
		}
	}
	if len(up.pushed) != 0 {
		t.Errorf("pushed %q", up.pushed)
	}
	for code, err := range map[int]error{
		exitUnavailable: control.Errorf(control.Unavailable, "redis is down"),
		exitUsage:       control.Errorf(control.BadRequest, "wrong type"),
		exitFailure:     errors.New("who knows"),
	} {
		up.change(func() { up.pushErr = err })
		if got := execute(t, dataDir, "", "push", "q", "a"); got.code != code || got.err != "offboard: "+err.Error()+"\n" {
			t.Errorf("got %+v, want exit code %d and %v", got, code, err)
		}
	}
}
