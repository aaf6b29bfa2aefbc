package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// writeKubeconfig writes one whose contexts lead to a server and its namespace `shop`.
func writeKubeconfig(t *testing.T, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	content := `apiVersion: v1
kind: Config
current-context: first
contexts:
  - {name: first, context: {cluster: c, namespace: shop}}
  - {name: second, context: {cluster: c}}
clusters: [{name: c, cluster: {server: "` + server + `"}}]
`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// emptyCluster is an API server on which every list is empty. It writes down what is asked.
func emptyCluster(t *testing.T) (kubeconfig string, asked func() string) {
	t.Helper()
	var paths syncBuffer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = paths.Write([]byte(r.URL.Path + "\n"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{%s, "metadata": {}, "items": []}`, map[string]string{
			"scaledjobs": `"kind": "ScaledJobList", "apiVersion": "keda.sh/v1alpha1"`,
			"jobs":       `"kind": "JobList", "apiVersion": "batch/v1"`,
			"pods":       `"kind": "PodList", "apiVersion": "v1"`,
			"shop":       `"kind": "Namespace", "apiVersion": "v1"`, "default": `"kind": "Namespace", "apiVersion": "v1"`,
			"n": `"kind": "Namespace", "apiVersion": "v1"`,
		}[path.Base(r.URL.Path)])
	}))
	t.Cleanup(server.Close)
	return writeKubeconfig(t, server.URL), paths.String
}

// TestWhere has both an offboard up and a cluster.
func TestWhere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		program string
		args    []string
		down    bool // no `offboard up` answers
		nowhere bool // there is no kubeconfig
		want    string
		code    int
	}{
		"up answers":           {args: []string{"get"}, want: "usertask"},
		"local":                {args: []string{"get", "--local"}, want: "usertask"},
		"namespace":            {args: []string{"get", "-n", "other"}, want: "hostile"},
		"context":              {args: []string{"get", "--context", "first"}, want: "/namespaces/shop/scaledjobs"},
		"context without one":  {args: []string{"get", "--context", "second"}, want: "/namespaces/default/scaledjobs"},
		"context, namespace":   {args: []string{"get", "--context", "second", "-n", "n"}, want: "/namespaces/n/scaledjobs"},
		"context, all":         {args: []string{"get", "--context", "second", "-A"}, want: "/apis/keda.sh/v1alpha1/scaledjobs"},
		"plugin":               {program: "/bin/kubectl-offboard", args: []string{"get"}, want: "/namespaces/shop/scaledjobs"},
		"plugin, local":        {program: "kubectl-offboard", args: []string{"get", "--local"}, want: "usertask"},
		"plugin, no cluster":   {program: "kubectl-offboard", args: []string{"get"}, nowhere: true, want: "there is no kubeconfig: name one", code: exitUsage},
		"nothing answers":      {args: []string{"get"}, down: true, want: "/namespaces/shop/scaledjobs"},
		"local, nothing there": {args: []string{"get", "--local"}, down: true, want: "offboard up is not running", code: exitUnavailable},
		"neither":              {args: []string{"get"}, down: true, nowhere: true, want: "offboard up -f DIR; or name a cluster with --kubeconfig FILE", code: exitUnavailable},
		"both":                 {args: []string{"get", "--local", "--context", "first"}, want: "give only one of them", code: exitUsage},
		"no such context":      {args: []string{"get", "--context", "third"}, want: `context "third" does not exist in the kubeconfig, which has first, second`, code: exitUsage},
		"no such file":         {args: []string{"get", "--kubeconfig", "/no/such"}, want: "/no/such: no such file", code: exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dataDir := t.TempDir()
			if !test.down {
				dataDir, _ = someScaledJobs().start(t)
			}
			kubeconfig, asked := emptyCluster(t)
			if test.nowhere {
				kubeconfig = "/no/such/file"
			}
			var out, errOut syncBuffer
			o := options(dataDir, nil, &out, &errOut, test.args...)
			o.Program, o.Environ = test.program, append(o.Environ, "KUBECONFIG="+kubeconfig)
			code := Execute(t.Context(), o)
			if all := out.String() + errOut.String() + asked(); code != test.code || !strings.Contains(all, test.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, all, test.code, test.want)
			}
			if local := test.want == "usertask" || test.want == "hostile"; local && asked() != "" {
				t.Errorf("the cluster was asked as well: %s", asked())
			}
		})
	}
}

// TestDataDirIsThisMachine has --data-dir name an offboard up although kubectl calls.
func TestDataDirIsThisMachine(t *testing.T) {
	t.Parallel()
	dataDir, _ := someScaledJobs().start(t)
	var out, errOut syncBuffer
	o := options("/no/such", nil, &out, &errOut, "get", "--data-dir", dataDir)
	o.Program = pluginName
	if code := Execute(t.Context(), o); code != 0 || !strings.Contains(out.String(), "usertask") {
		t.Errorf("exit code %d, %s%s", code, out.String(), errOut.String())
	}
}

func TestPlugin(t *testing.T) {
	t.Parallel()
	run := func(program string, args ...string) result {
		var out, errOut syncBuffer
		o := options(t.TempDir(), nil, &out, &errOut, args...)
		o.Program = program
		code := Execute(t.Context(), o)
		return result{code, out.String(), errOut.String()}
	}
	got := run("/usr/bin/kubectl-offboard", "get", "--help")
	for _, want := range []string{"Usage:\n  kubectl offboard get [NAME...] [flags]", "\n  kubectl offboard get --watch\n", "kubectl offboard get -o json | jq"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("want %q in %s", want, got.out)
		}
	}
	if got := run("/usr/bin/kubectl-offboard", "gte"); got.err != "kubectl offboard: unknown command \"gte\"; did you mean get?; see: kubectl offboard --help\n" {
		t.Errorf("got %+v", got)
	}
	if got := run("/usr/bin/kubectl-offboard", "get", "--nope"); got.err != "kubectl offboard: unknown flag: --nope; see: kubectl offboard get --help\n" {
		t.Errorf("got %+v", got)
	}
	if got := run("/usr/bin/kubectl_complete-offboard", "pa"); got.code != 0 || got.out != "pause\tStart no new Jobs for ScaledJobs\n:4\n" {
		t.Errorf("got %+v", got)
	}
	if got := run("/usr/bin/offboard", "push", "--help"); strings.Contains(got.out, "kubectl offboard push") {
		t.Errorf("got %s", got.out)
	}
}

func TestPauseCommands(t *testing.T) {
	t.Parallel()
	dataDir, _ := someScaledJobs().start(t)
	for i, step := range []struct {
		args string
		want result
	}{
		{"resume usertask", result{0, "scaledjob.keda.sh/usertask is not paused\n", ""}},
		{"pause usertask sj/broken", result{0, "scaledjob.keda.sh/usertask paused\nscaledjob.keda.sh/broken paused\n", ""}},
		{"pause scaledjob.keda.sh/usertask", result{0, "scaledjob.keda.sh/usertask is already paused\n", ""}},
		{"resume usertask -n default", result{0, "scaledjob.keda.sh/usertask resumed\n", ""}},
		{"pause usertsk", result{exitNotFound, "", "offboard: ScaledJob \"usertsk\" does not exist in namespace default; did you mean usertask?\n"}},
		{"resume", result{exitUsage, "", "offboard: requires at least 1 arg(s), only received 0; see: offboard resume --help\n"}},
	} {
		if got := execute(t, dataDir, "", strings.Fields(step.args)...); got != step.want {
			t.Errorf("step %d, %s: got %+v, want %+v", i, step.args, got, step.want)
		}
	}
	got := execute(t, dataDir, "", "get")
	if paused := strings.Fields(strings.Split(got.out, "\n")[1]); paused[0] != "broken" || paused[7] != "True" {
		t.Errorf("got %s", got.out)
	}
}
