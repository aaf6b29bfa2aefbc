package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// simulateFile writes a manifest of some ScaledJobs with what is added to their specs, and returns its path.
func simulateFile(t *testing.T, specs map[string]string) string {
	t.Helper()
	var documents []string
	for _, name := range []string{"usertask", "report"} {
		if spec, ok := specs[name]; ok {
			text := strings.Replace(goodManifest, "            IMAGE\n", "", 1)
			text = strings.Replace(text, "name: usertask", "name: "+name, 1)
			documents = append(documents, strings.Replace(text, "spec:\n", "spec:\n"+spec, 1))
		}
	}
	path := filepath.Join(t.TempDir(), "scaledjob.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(documents, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const customSpec = `  maxReplicaCount: 4
  pollingInterval: 10
  scalingStrategy:
    strategy: custom
    customScalingQueueLengthDeduction: 1
    customScalingRunningJobPercentage: "0.5"
`

func TestSimulate(t *testing.T) {
	t.Parallel()
	file := simulateFile(t, map[string]string{"usertask": customSpec, "report": "  delivery: {mode: claim}\n"})
	got := execute(t, "", "0,10\n1,10\n1,10\n", "simulate", "usertask", "-f", file, "--trace", "-", "--take", "1",
		"--limit", "4,2")
	lines := strings.Split(got.out, "\n")
	if got.code != 0 || got.err != "" || len(lines) != 2+1+2*9+1 ||
		lines[0] != "3 arrivals in 1s, with work for 30 Jobs at once on average" {
		t.Fatalf("got %+v", got)
	}
	rows := map[string][]string{}
	for _, line := range lines[3:] {
		if f := strings.Fields(line); len(f) > 0 {
			rows[strings.Join(f[:3], " ")] = f[3:]
		}
	}
	// The trigger says five items a Job. With delivery by claim one Job has the item of 0 and works from 2 to 12, another
	// the two of 1, from 3 to 13 and to 23. custom deducts all that it would start, so there is one Job after the other:
	// from 2, 14 and 26 on.
	for row, want := range map[string]string{
		"claim 4 push":   "2 0 2s 12s 12s 12s 3 33% 88% 23s 0",
		"claim 2 push":   "2 0 2s 12s 12s 12s 3 65% 88% 23s 0",
		"custom* 4 push": "3 0 13s 25s 25s 25s 3 21% 83% 36s 0",
		"custom 2 push":  "3 0 13s 25s 25s 25s 3 42% 83% 36s 0",
	} {
		if joined := strings.Join(rows[row], " "); joined != want {
			t.Errorf("%s: got %s, want %s", row, joined, want)
		}
	}
	if len(rows) != 18 {
		t.Errorf("got %d rows, want 18: %s", len(rows), got.out)
	}
}

func TestSimulateJSON(t *testing.T) {
	t.Parallel()
	file := simulateFile(t, map[string]string{"report": "  delivery: {mode: claim}\n"})
	svg := filepath.Join(t.TempDir(), "plot.svg")
	args := []string{"simulate", "-f", file, "--rate", "2/s", "--for", "1m", "--work", "1s..3s", "--svg", svg, "-o", "json"}
	got := execute(t, "", "", args...)
	var printed struct {
		Namespace, ScaledJob string
		Arrivals             int
		Runs                 []struct {
			Manifest           bool
			Strategy, Reaction string
			MaxReplicaCount    int
			Jobs, SurplusJobs  int
			Arrivals, Left     int
			WaitSeconds        struct{ P50, Max float64 }
			DoneSeconds        float64
		}
	}
	if err := json.Unmarshal([]byte(got.out), &printed); err != nil || got.code != 0 || got.err != "" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if printed.Namespace != "default" || printed.ScaledJob != "report" || len(printed.Runs) != 9 {
		t.Errorf("got %+v", printed)
	}
	for _, run := range printed.Runs {
		if run.Manifest != (run.Strategy == "claim") || run.MaxReplicaCount != 100 || run.Arrivals != printed.Arrivals ||
			run.Jobs == 0 || run.Left != 0 || run.WaitSeconds.Max < run.WaitSeconds.P50 || run.DoneSeconds < 60 {
			t.Errorf("got %+v", run)
		}
	}
	plot, err := os.ReadFile(svg)
	if err != nil || !strings.Contains(string(plot), "claim, limit 100, push: ") ||
		!strings.Contains(string(plot), strconv.Itoa(printed.Arrivals)+" arrivals in ") {
		t.Errorf("got %s, %v", plot, err)
	}
	if again := execute(t, "", "", args...); again != got {
		t.Error("the same flags give another course")
	}
	if other := execute(t, "", "", append(args, "--seed", "2")...); other.code != 0 || other.out == got.out {
		t.Error("another seed gives the same course")
	}
}

func TestSimulateTrace(t *testing.T) {
	t.Parallel()
	file := simulateFile(t, map[string]string{"usertask": ""})
	trace := filepath.Join(t.TempDir(), "trace.jsonl")
	if err := os.WriteFile(trace, []byte(`{"time": 3}`+"\n"+`{"time": 1, "work": "1m"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := execute(t, "", "", "simulate", "-f", file, "--trace", trace, "--work", "5", "--strategy", "eager")
	if got.code != exitUsage || !strings.Contains(got.err, `--work: "5" is no duration; a duration is 30s, or exp:30s`) {
		t.Errorf("got %+v", got)
	}
	got = execute(t, "", "", "simulate", "-f", file, "--trace", trace, "--work", "5s", "--strategy", "eager", "--reaction", "push")
	if got.code != 0 || got.err != "offboard: "+trace+": sorted, since lines have an earlier time than one above them: 1\n" ||
		strings.Count(got.out, "\n") != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestSimulateRefuses(t *testing.T) {
	t.Parallel()
	one := simulateFile(t, map[string]string{"usertask": ""})
	two := simulateFile(t, map[string]string{"usertask": "", "report": ""})
	rate := []string{"--rate", "1/s", "--work", "1s"}
	for name, test := range map[string]struct {
		args []string
		code int
		err  string
	}{
		"no file":        {rate, exitUsage, "there is no manifest: name one with -f FILE"},
		"no such file":   {append([]string{"-f", one + "x"}, rate...), exitUsage, "cannot be read: no such file"},
		"no arrivals":    {[]string{"-f", one}, exitUsage, "there are no arrivals: give --trace FILE, or --rate 5/s"},
		"both":           {[]string{"-f", one, "--rate", "1/s", "--trace", "x"}, exitUsage, "--trace and --rate exclude each other"},
		"both from -":    {[]string{"-f", "-", "--trace", "-"}, exitUsage, "standard input cannot be both"},
		"trace and for":  {[]string{"-f", one, "--trace", "x", "--for", "1m"}, exitUsage, "--for and --arrivals are for --rate"},
		"no work":        {[]string{"-f", one, "--rate", "1/s"}, exitUsage, "--rate needs --work"},
		"rate":           {[]string{"-f", one, "--rate", "1", "--work", "1s"}, exitUsage, `--rate: "1" is no rate: write how many`},
		"too many":       {[]string{"-f", one, "--rate", "1e9/s", "--work", "1s"}, exitUsage, "at most 10000000 are simulated"},
		"none":           {append([]string{"-f", one, "--for", "0s"}, rate...), exitUsage, "--rate 1/s brings no item in 0s"},
		"start":          {append([]string{"-f", one, "--start", "x"}, rate...), exitUsage, `--start: "x" is no duration`},
		"take":           {append([]string{"-f", one, "--take", "0"}, rate...), exitUsage, "--take is 0, must be 1 or more"},
		"limit":          {append([]string{"-f", one, "--limit", "5,0"}, rate...), exitUsage, "--limit: 0 is not between 1 and 1000000"},
		"strategy":       {append([]string{"-f", one, "--strategy", "acurate"}, rate...), exitUsage, `--strategy: "acurate" must be one of default, custom`},
		"reaction":       {append([]string{"-f", one, "--reaction", "x"}, rate...), exitUsage, `--reaction: "x" must be one of push, poll`},
		"claim and poll": {append([]string{"-f", one, "--strategy", "claim", "--reaction", "poll"}, rate...), exitUsage, "there is nothing to compare"},
		"arrivals":       {append([]string{"-f", one, "--arrivals", "odd"}, rate...), exitUsage, "must be one of poisson, even"},
		"which":          {append([]string{"-f", two}, rate...), exitUsage, "there are 2 ScaledJobs: name one of usertask, report"},
		"another name":   {append([]string{"usertsk", "-f", two}, rate...), exitNotFound, `there is no ScaledJob "usertsk" in ` + two + "; did you mean usertask?"},
		"another space":  {append([]string{"usertask", "-n", "x", "-f", two}, rate...), exitNotFound, "there is no ScaledJob in " + two},
		"two names":      {append([]string{"usertask", "report", "-f", two}, rate...), exitUsage, "see: offboard simulate --help"},
		"no trace":       {[]string{"-f", one, "--trace", one + "x"}, exitUsage, "read the trace: open "},
		"bad trace":      {[]string{"-f", one, "--trace", "-"}, exitUsage, `standard input: line 2: time: "soon\x1b[2J" is no time`},
		"bad manifest":   {append([]string{"-f", "-"}, rate...), exitUsage, "<stdin>:"},
		"no folder":      {append([]string{"-f", one, "--svg", one + "/plot.svg"}, rate...), exitFailure, "write the plot: open "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := execute(t, "", "0,1\nsoon\x1b[2J,1\n", append([]string{"simulate"}, test.args...)...)
			if got.code != test.code || !strings.Contains(got.err, test.err) || got.out != "" {
				t.Errorf("got %+v, want code %d and %q", got, test.code, test.err)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got := executeContext(ctx, "", "", append([]string{"simulate", "-f", one}, rate...)...); got.code != exitFailure {
		t.Errorf("cancelled: got %+v", got)
	}
}

func TestShortDuration(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{
		0: "0s", 0.0454: "45ms", 2.3149: "2.31s", 45.678: "45.7s", 845.4: "14m5s", 12001: "3h20m", 356_400: "4d3h", 86_399.9: "24h0m",
	} {
		if got := shortDuration(seconds); got != want {
			t.Errorf("%v: got %s, want %s", seconds, got, want)
		}
	}
}
