package pods

import (
	"testing"
	"time"
)

func TestCrashBackoff(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var b crashBackoff
	for i, test := range []struct{ ran, want time.Duration }{
		{0, 0},
		{0, 10 * time.Second},
		{time.Minute, 20 * time.Second},
		{10 * time.Minute, 40 * time.Second},
		{10*time.Minute + 1, 0},
		{0, 10 * time.Second},
		{0, 20 * time.Second},
		{0, 40 * time.Second},
		{0, 80 * time.Second},
		{0, 160 * time.Second},
		{0, 5 * time.Minute},
		{0, 5 * time.Minute},
	} {
		now = now.Add(test.ran)
		got := b.next(now)
		if got != test.want {
			t.Errorf("end %d, after a run of %v: got %v, want %v", i, test.ran, got, test.want)
		}
		now = now.Add(got)
	}
}

func TestConfigBackoff(t *testing.T) {
	t.Parallel()
	var b configBackoff
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := b.next(); got != want*time.Second {
			t.Errorf("try %d: got %v, want %v s", i, got, want)
		}
	}
}
