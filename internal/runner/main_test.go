package runner

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asRunner makes the test's own binary behave as `offboard runner`, for what needs a process of its own.
const asRunner = "RUNNER_TEST_AS_RUNNER"

func TestMain(m *testing.M) {
	if os.Getenv(asRunner) != "" {
		os.Exit(Run(Options{Command: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}))
	}
	// The signal package keeps its goroutine for the life of the process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.loop"))
}
