package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	input := strings.Join([]string{
		`{"strategy":"custom","customScalingQueueLengthDeduction":1,"customScalingRunningJobPercentage":"0.5","maxReplicaCount":25,"running":0,"triggers":[{"value":6,"target":1,"active":true}],"create":5}`,
		``,
		`{"running":3,"triggers":[{"value":0,"target":1,"active":false}]}`,
		`{"running":"three"}`,
		`{"runing":3}`,
		`{"Running":3}`,
		`{"running":1,"running":2}`,
		`not JSON`,
		`[]`,
		`{"running":}`,
		`{"strategy":"accurat","running":-1,"pending":-1,"triggers":[{"value":1,"target":0,"active":true}]}`,
		`{"running":1,"pending":2}`,
		`{"triggers":[{"value":1,"target":"\u001b[2J"}]}`,
		`{"maxReplicaCount":-1,"minReplicaCount":-1}`,
		`  {"triggers":[{"value":6,"target":1,"active":true}]}  `,
		`{"triggers":[{"name":"a","value":6},{"name":"b","value":1}],"advanced":{"scalingModifiers":{"formula":"a - b","target":"2"}}}`,
		`{"triggers":[{"name":"a","value":6}],"advanced":{"scalingModifiers":{"formula":"a - bb","target":"2"}}}`,
		`{"triggers":[{"name":"a","failures":1}],"advanced":{"scalingModifiers":{"formula":"a","target":"2"}}}`,
		`{"running":1,"runningBefore":4,"triggers":[{"failures":2}],"fallback":{"failureThreshold":1,"replicas":2,"behavior":"currentReplicas"}}`,
		`{"triggers":[{"failures":-1}],"fallback":{"failureThreshold":-1,"replicas":-2,"behavior":"never"},"runningBefore":-1}`,
	}, "\n")
	golden(t, "decide", execute(t, "", input, "decide"))
	if got := execute(t, "", "", "decide"); got != (result{}) {
		t.Errorf("no input: got %+v", got)
	}
	if got := execute(t, "", `{"running":0}`, "decide"); got.code != 0 || strings.Count(got.out, "\n") != 1 {
		t.Errorf("one line without an end: got %+v", got)
	}
	if got := execute(t, "", "", "decide", "x"); got.code != exitUsage {
		t.Errorf("an argument: got %+v", got)
	}
}

const goodManifest = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  name: usertask
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: main
            IMAGE
            command: ["true"]
  triggers:
    - type: redis
      metadata:
        listName: usertask
        address: 127.0.0.1:6379
`

func TestValidate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", strings.Replace(goodManifest, "            IMAGE\n", "", 1))
	warned := write("warned.yaml", strings.Replace(goodManifest, "IMAGE", "image: busybox", 1))
	remote := write("remote.yaml", strings.NewReplacer("IMAGE", "image: busybox", `            command: ["true"]`+"\n", "").
		Replace(goodManifest))
	bad := write("bad.yaml", strings.NewReplacer("            IMAGE\n", "", "listName", "listNam").Replace(goodManifest))
	for name, test := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"good":              {[]string{good}, exitOK, []string{"1 ScaledJob: valid"}},
		"flag":              {[]string{"-f", good}, exitOK, []string{"1 ScaledJob: valid"}},
		"warning":           {[]string{warned}, exitOK, []string{"warned.yaml:12:", ": warning: ", "valid, 1 warning\n"}},
		"strict":            {[]string{warned, "--strict"}, exitUsage, []string{"1 ScaledJob: not valid, 1 warning\n"}},
		"local":             {[]string{remote}, exitUsage, []string{"remote.yaml:11:", "command", "not valid, 1 error"}},
		"cluster":           {[]string{remote, "--for", "cluster", "--strict"}, exitOK, []string{"1 ScaledJob: valid\n"}},
		"bad":               {[]string{bad}, exitUsage, []string{"bad.yaml:", "listName", "not valid"}},
		"missing":           {[]string{filepath.Join(dir, "none")}, exitUsage, []string{"none: cannot be read: no such file"}},
		"standard input":    {[]string{"-"}, exitUsage, []string{"<stdin>:"}},
		"JSON":              {[]string{remote, "--for", "cluster", "-o", "json"}, exitOK, []string{`"valid": true`, `"problems": []`}},
		"JSON with errors":  {[]string{bad, "-o", "json"}, exitUsage, []string{`"valid": false`, `"field": "spec.triggers[0].metadata`}},
		"several, in order": {[]string{"-f", remote, warned}, exitUsage, []string{"2 ScaledJobs: not valid, 2 errors, 1 warning"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := execute(t, "", "kind: x\n", append([]string{"validate"}, test.args...)...)
			if got.code != test.code || got.err != "" {
				t.Errorf("got %+v, want exit code %d", got, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(got.out, want) {
					t.Errorf("got %q, want %q in it", got.out, want)
				}
			}
		})
	}
	if got := execute(t, "", "", "validate"); got.code != exitUsage || !strings.Contains(got.err, "there is nothing to check") {
		t.Errorf("no path: got %+v", got)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	dataDir, _ := (&fakeUp{}).start(t)
	if got := execute(t, dataDir, "", "--version"); got != (result{0, "offboard v1.2.3\n", ""}) {
		t.Errorf("got %+v", got)
	}
	got := execute(t, dataDir, "", "version")
	want := "up v9, pid 42\n  data folder  /data\n  manifests    a.yaml, b/\n  redis        127.0.0.1:6379\n"
	if got.code != 0 || !strings.HasPrefix(got.out, "offboard v1.2.3 (go") || !strings.HasSuffix(got.out, want) {
		t.Errorf("got %+v", got)
	}
	got = execute(t, t.TempDir(), "", "version")
	if got.code != 0 || strings.Count(got.out, "\n") != 1 || got.err != "" {
		t.Errorf("nothing is up: got %+v", got)
	}
}

func TestRunner(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"runner"}, {"runner", "--"}, {"runner", "true"}, {"runner", "--", "true", "--help"}, {"--no-color", "runner", "true", "-h"},
	} {
		got := execute(t, "", "", args...)
		if got.code != 2 || !strings.HasPrefix(got.err, "offboard runner: ") {
			t.Errorf("%q: got %+v", args, got)
		}
	}
	if got := execute(t, "", "", "runner", "--help"); got.code != 0 || !strings.Contains(got.out, "REDIS_HOST") {
		t.Errorf("got %+v", got)
	}
}

func TestNotRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := result{exitUnavailable, "", "offboard: offboard up is not running (no socket at " + dir +
		"/control.sock); start it with: offboard up -f DIR; or name a cluster with --kubeconfig FILE\n"}
	for _, args := range [][]string{{"get"}, {"jobs"}, {"logs", "x"}, {"push", "q", "a"}, {"get", "--watch"}, {"pause", "a"}} {
		if got := execute(t, dir, "", args...); got != want {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		err  string
	}{
		{[]string{"gte"}, `unknown command "gte"; did you mean get?; see: offboard --help`},
		{[]string{"--nope"}, "unknown flag: --nope; see: offboard --help"},
		{[]string{"get", "--nope"}, "unknown flag: --nope; see: offboard get --help"},
		{[]string{"completion", "bash", "x"}, "see: offboard completion bash --help"},
		{[]string{"version", "x"}, "see: offboard version --help"},
		{[]string{"validate", "--for", "moon", "x"}, "must be one of local, cluster"},
		{[]string{"\x1b[2J"}, `unknown command "\x1b[2J"`},
	} {
		got := execute(t, "", "", test.args...)
		if got.code != exitUsage || !strings.Contains(got.err, test.err) || got.out != "" {
			t.Errorf("%q: got %+v, want %q", test.args, got, test.err)
		}
		if strings.Count(got.err, "\n") != 1 || !strings.HasPrefix(got.err, "offboard: ") || strings.Contains(got.err, "\x1b") {
			t.Errorf("%q: got %q", test.args, got.err)
		}
	}
}

func TestDataDir(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		flag string
		env  []string
		want string
	}{
		{"/flag", []string{"OFFBOARD_DATA_DIR=/env", "XDG_STATE_HOME=/xdg", "HOME=/home"}, "/flag"},
		{"", []string{"OFFBOARD_DATA_DIR=/env", "XDG_STATE_HOME=/xdg", "HOME=/home"}, "/env"},
		{"", []string{"OFFBOARD_DATA_DIR=", "XDG_STATE_HOME=/xdg", "HOME=/home"}, "/xdg/offboard"},
		{"", []string{"XDG_STATE_HOME=relative", "HOME=/home"}, "/home/.local/state/offboard"},
		{"", nil, ""},
	} {
		a := &app{Options: Options{Environ: test.env}, dataDirFlag: test.flag}
		got, err := a.dataDir()
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
}

func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	a := &app{log: new(slog.LevelVar)}
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks a short text, a long one or an example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(strings.TrimSuffix(line, "\n")) > 120 {
				t.Errorf("%s: a line of its help has more than 120 characters: %s", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(a.root())
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	up := someJobs()
	up.scaledJobs = append(up.scaledJobs, someScaledJobs().scaledJobs[0])
	dataDir, _ := up.start(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"get", ""}, "usertask\nbroken\n:4\n"},
		{[]string{"get", "usertask", ""}, "broken\n:4\n"},
		{[]string{"jobs", "--scaledjob", ""}, "usertask\nbroken\n:4\n"},
		{[]string{"jobs", "-n", ""}, "default\n:4\n"},
		{[]string{"get", "-o", ""}, "json\nyaml\nwide\nname\n:4\n"},
		{[]string{"logs", "usertask-a"}, "usertask-aaaaa\n:4\n"},
		{[]string{"logs", "usertask-aaaaa", ""}, ":4\n"},
		{[]string{"logs", "usertask-bbbbb", "--pod", ""}, "usertask-bbbbb-1\nusertask-bbbbb-2\n:4\n"},
		{[]string{"logs", "usertask-bbbbb", "-c", ""}, "main\nprepare\n:4\n"},
		{[]string{"validate", "--for", ""}, "local\ncluster\n:4\n"},
		{[]string{"version", ""}, ":4\n"},
	} {
		got := execute(t, dataDir, "", append([]string{"__complete"}, test.args...)...)
		if got.code != 0 || got.out != test.want {
			t.Errorf("%q: got %+v, want %q", test.args, got, test.want)
		}
	}
	if got := execute(t, t.TempDir(), "", "__complete", "get", ""); got.code != 0 || got.out != ":4\n" {
		t.Errorf("nothing is up: got %+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := execute(t, "", "", "completion", shell); got.code != 0 || len(got.out) < 1000 {
			t.Errorf("%s: got %+v", shell, got)
		}
	}
}
