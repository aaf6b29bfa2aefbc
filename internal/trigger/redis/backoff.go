package redis

import (
	"context"
	"math/rand/v2"
	"time"
)

// Delays between attempts to connect.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 10 * time.Second
	// retryLoading is the longest delay while a server that is up loads its data.
	retryLoading = 250 * time.Millisecond
	// retryReset is how long a session must have lasted for the next loss to be a new one.
	retryReset = time.Second
)

// backoff doubles the delay from one failure to the next.
type backoff struct{ delay time.Duration }

// next returns how long to wait after a failure. Half of it is random, so that many clients do not come back at once.
func (b *backoff) next(err error) time.Duration {
	b.delay = min(max(2*b.delay, retryFirst), retryMost)
	if isLoading(err) {
		b.delay = min(b.delay, retryLoading)
	}
	return b.delay/2 + rand.N(b.delay/2+1)
}

// sleep waits and tells whether ctx lasted.
func sleep(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
