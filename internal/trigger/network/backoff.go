package network

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles the delay from one failure to the next.
type Backoff struct {
	// First is the delay after the first failure, and Most the longest.
	First, Most time.Duration

	delay time.Duration
}

// Next returns how long to wait after a failure. Half of it is random, so that many clients do not come back at once.
func (b *Backoff) Next() time.Duration { return b.NextAtMost(b.Most) }

// NextAtMost is as Next, with another longest delay for this failure and as the basis of the next one.
func (b *Backoff) NextAtMost(most time.Duration) time.Duration {
	b.delay = min(max(2*b.delay, b.First), b.Most, most)
	return b.delay/2 + rand.N(b.delay/2+1)
}

// Reset makes the next failure the first one.
func (b *Backoff) Reset() { b.delay = 0 }

// Sleep waits and tells whether ctx lasted.
func Sleep(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
