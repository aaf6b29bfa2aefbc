// Package charts tests the Helm charts, the plain manifests and the Dockerfile with the real helm, the real program and
// a real control plane: what is rendered for many values, what is refused, and what a cluster says of it.
package charts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The charts.
const (
	operatorChart = "../../charts/offboard"
	runnerChart   = "../../charts/runner"
)

// commandTimeout is how long one command may take, on a machine that does much else at the same time: helm waits for
// hooks, and go compiles.
const commandTimeout = 10 * time.Minute

// The programs that the tests use, built by TestMain.
var program, helmProgram string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "offboard-charts-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "offboard")
		build := exec.Command("go", "build", "-o", program, "../../cmd/offboard")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, output)
			return 1
		}
		tool := exec.Command("../../scripts/tool", "helm")
		tool.Stderr = os.Stderr
		path, err := tool.Output()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build helm: %v\n", err)
			return 1
		}
		helmProgram = strings.TrimSpace(string(path))
		return m.Run()
	}())
}

// run runs a command and returns what it has written to its standard output; the error holds the rest.
func run(t *testing.T, input string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), env...)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// helmHome is a home of helm's without anybody's repositories and plugins. Helm only reads it.
var helmHome = sync.OnceValue(func() string { return filepath.Join(filepath.Dir(program), "helm") })

// helm runs helm, without a cluster unless the arguments name a kubeconfig.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	home := helmHome()
	return run(t, "", []string{
		"KUBECONFIG=" + os.DevNull, "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home,
	}, helmProgram, args...)
}

// values writes values into a file and returns the arguments that give it to helm.
func values(t *testing.T, yaml string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--values", file}
}

// template renders a chart for release "r" in namespace "ns".
func template(t *testing.T, chart, yaml string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "r", chart, "--namespace", "ns"}, values(t, yaml)...)...)
}

// mustTemplate renders a chart and returns its objects.
func mustTemplate(t *testing.T, chart, yaml string) objects {
	t.Helper()
	text, err := template(t, chart, yaml)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// refused wants a command to fail with all of the words in its message.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("got error %v, want a refusal that says %q", err, words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the message lacks %q: %v", word, err)
		}
	}
}
