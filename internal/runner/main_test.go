package runner

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asRunner makes the test's own binary behave as `offboard runner`, for what needs a process of its own.
const asRunner = "RUNNER_TEST_AS_RUNNER"

// settleFor replaces for how long it tries to settle after the end of the lease.
const settleFor = "RUNNER_TEST_SETTLE_FOR"

// patience replaces the time for which Redis may be unreachable at first.
const patience = "RUNNER_TEST_PATIENCE"

func TestMain(m *testing.M) {
	if os.Getenv(asRunner) != "" {
		o := Options{Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
		if !o.Parse(os.Args[1:]) {
			panic("no arguments of the runner")
		}
		for name, replaced := range map[string]*time.Duration{settleFor: &o.settleMore, patience: &o.patience} {
			if text := os.Getenv(name); text != "" {
				var err error
				if *replaced, err = time.ParseDuration(text); err != nil {
					panic(err)
				}
			}
		}
		os.Exit(Run(o))
	}
	if signal.Ignored(syscall.SIGHUP) {
		// Started with nohup. What the tests start would ignore it, too; not if it is handled here.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	// The signal package keeps its goroutine for the life of the process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.loop"))
}
