package kafka

import (
	"testing"
	"time"
)

func TestPersistentLagNeedsAnInterval(t *testing.T) {
	t.Parallel()
	r := rule{threshold: 10, excludePersistent: true, interval: 30 * time.Second}
	begin := time.Now()
	known := seen{}
	for _, step := range []struct {
		after          time.Duration
		committed, end int64
		value, lag     int64
	}{
		{0, 5, 9, 4, 4},
		{time.Millisecond, 5, 9, 4, 4}, // measured again, because a Job has ended
		{26 * time.Second, 5, 12, 7, 7},
		{29 * time.Second, 5, 12, 0, 7}, // a poll that is a little early
		{60 * time.Second, 5, 12, 0, 7},
		{61 * time.Second, 6, 12, 6, 6}, // it moves
		{62 * time.Second, 6, 12, 6, 6},
		{91 * time.Second, 6, 12, 0, 6},
	} {
		value, lag := r.evaluate([]partition{{"topic", 0, step.committed, step.end}}, known, begin.Add(step.after))
		if value != step.value || lag != step.lag {
			t.Errorf("after %v: %d of %d, want %d of %d", step.after, value, lag, step.value, step.lag)
		}
	}
}

func TestEvenConsumers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ lag, partitions, threshold, want int64 }{
		{1, 10, 10, 1}, {10, 10, 10, 1}, {11, 10, 10, 2}, {21, 10, 10, 5}, {51, 10, 10, 10}, {1000, 10, 10, 10},
		{30, 7, 10, 7}, {5, 1, 10, 1}, {100, 1, 10, 1},
	} {
		if got := evenConsumers(test.lag, test.partitions, test.threshold); got != test.want {
			t.Errorf("a lag of %d in %d partitions, %d for each: %d, want %d", test.lag, test.partitions, test.threshold, got, test.want)
		}
	}
}
