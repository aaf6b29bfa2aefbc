package jobs

import "time"

// Delays before a failed Pod is replaced: the first, doubled with each further failure in a row up to the longest, as
// Kubernetes' Job controller has them.
const (
	firstRetryDelay   = 10 * time.Second
	longestRetryDelay = 10 * time.Minute
)

// retryState is what the delay before the next Pod depends on.
type retryState struct {
	// Failures is the number of Pods that have failed since one last succeeded.
	Failures int32 `json:"failures,omitempty"`
	// Last is when the last of them ended.
	Last time.Time `json:"last,omitzero"`
}

// after returns the state when these Pods, not seen before, have ended.
func (r retryState) after(succeeded, failed []*podState) retryState {
	var lastSuccess time.Time
	if len(succeeded) > 0 {
		r = retryState{}
		for _, p := range succeeded {
			lastSuccess = latest(lastSuccess, p.endTime())
		}
	}
	for _, p := range failed {
		end := p.endTime()
		if len(succeeded) > 0 && !end.After(lastSuccess) {
			continue
		}
		r.Failures++
		r.Last = latest(r.Last, end)
	}
	return r
}

// wait returns how long to wait from now until the next Pod may be created.
func (r retryState) wait(now time.Time) time.Duration {
	if r.Failures == 0 {
		return 0
	}
	delay := longestRetryDelay
	// The seventh failure reaches the longest delay; a larger shift would overflow.
	if doublings := r.Failures - 1; doublings < 7 {
		delay = min(longestRetryDelay, firstRetryDelay<<doublings)
	}
	return max(0, delay-elapsed(r.Last, now))
}

// endTime is when the Pod ended; for one that is being stopped, when that was asked for.
func (p *podState) endTime() time.Time {
	switch {
	case !p.finishedAt.IsZero():
		return p.finishedAt
	case p.pod.DeletionTimestamp != nil:
		return p.pod.DeletionTimestamp.Add(-gracePeriod(p.pod))
	default:
		return p.pod.CreationTimestamp.Time
	}
}

// elapsed is the time from then to now, never negative: a time that was read back from disk may lie in the future when
// the wall clock was set back.
func elapsed(then, now time.Time) time.Duration { return max(0, now.Sub(then)) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
