package network_test

import (
	"context"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

func TestBackoffDoubles(t *testing.T) {
	t.Parallel()
	retry := network.Backoff{First: 100, Most: 500}
	check := func(got, want time.Duration) {
		t.Helper()
		if got < want/2 || got > want {
			t.Errorf("delay %d, want %d to %d", got, want/2, want)
		}
	}
	for _, want := range []time.Duration{100, 200, 400, 500, 500} {
		check(retry.Next(), want)
	}
	check(retry.NextAtMost(80), 80)
	check(retry.Next(), 160)
	check(retry.NextAtMost(1000), 320)
	retry.Reset()
	check(retry.Next(), 100)
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	if !network.Sleep(t.Context(), time.Millisecond) {
		t.Error("a context that lasts is said not to")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if network.Sleep(ctx, time.Hour) {
		t.Error("a context that has ended is said to last")
	}
}
