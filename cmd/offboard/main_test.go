package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestRunnerStartsEarly runs the runner as this test's own program, which initializes what the real one does, and looks
// at what Go says to have initialized until it ended.
func TestRunnerStartsEarly(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self, "runner", "--lease=1m", "--", "true")
	command.Env = []string{"GODEBUG=inittrace=1"}
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "the variable REDIS_HOST is not set") {
		t.Fatalf("the runner did not run: %v, %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, costly := range []string{"k8s.io/api/", "k8s.io/client-go/", "sigs.k8s.io/controller-runtime/pkg/client"} {
			if strings.HasPrefix(line, "init "+costly) {
				t.Errorf("the runner waits for %s", line)
			}
		}
	}
}
