package pods

import "time"

// The kubelet's back-off of containers that keep ending.
const (
	crashInitial = 10 * time.Second
	crashMax     = 5 * time.Minute
	crashReset   = 2 * crashMax
)

// crashBackoff says how long a container waits before it is started again: the first time not at all, then 10 s,
// doubling up to 5 minutes. A container that ran for longer than 10 minutes since its last start begins anew.
type crashBackoff struct {
	delay     time.Duration
	restarted time.Time
}

func (b *crashBackoff) next(ended time.Time) time.Duration {
	wait := b.delay
	if wait == 0 || ended.Sub(b.restarted) > crashReset {
		wait, b.delay = 0, crashInitial
	} else {
		b.delay = min(2*wait, crashMax)
	}
	b.restarted = ended.Add(wait)
	return wait
}

const (
	configInitial = time.Second
	configMax     = 10 * time.Second
)

// configBackoff says how long a container whose start failed for a reason outside of it waits for the next try.
type configBackoff struct{ last time.Duration }

func (b *configBackoff) next() time.Duration {
	b.last = min(max(2*b.last, configInitial), configMax)
	return b.last
}
