package process

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// KillLeftovers ends, with SIGKILL, the process groups of the recorded main processes that still live, and returns when
// they are gone. Other processes' environments cannot be read here, so that labels are of no use. A process that merely
// has a recorded pid is not touched.
//
// The error says which processes are still there when ctx ends.
func KillLeftovers(ctx context.Context, _ []string, recorded []Recorded) error {
	var groups []int
	for _, r := range recorded {
		if r.matches() {
			groups = append(groups, r.PID)
		}
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		var left []int
		for _, group := range groups {
			if syscall.Kill(-group, syscall.SIGKILL) == nil {
				left = append(left, group)
			}
		}
		if len(left) == 0 {
			return nil
		}
		groups = left
		select {
		case <-ctx.Done():
			return fmt.Errorf("process groups %v of a previous run do not end: %w", left, ctx.Err())
		case <-time.After(pause):
		}
	}
}
