package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// killDelay is how long a command whose item is lost has to end after SIGTERM, until SIGKILL.
	killDelay = 5 * time.Second
	// settleMore is for how long a settlement is tried after the end of the lease: the claim lasts until somebody looks,
	// and while Redis is away nobody does. The work is done, so it would be a pity to do it again.
	settleMore = 10 * time.Minute
	// minTry and maxTry bound how long one try of a renewal or a settlement may take.
	minTry = 500 * time.Millisecond
	maxTry = 10 * time.Second
)

var (
	errNotHeld    = errors.New("the claim is not held any more: its lease was lost, or somebody released it")
	errNotRenewed = errors.New("the lease could not be renewed in time")
)

// step is the time between two renewals.
func (h *holding) step() time.Duration { return h.lease / 3 }

// try returns how long one try may take, so that there is time for another with a new connection.
func (h *holding) try() time.Duration { return min(max(h.step(), minTry), maxTry) }

// keeping is a goroutine that renews the lease while the command runs, and ends the command when it is lost.
type keeping struct {
	cancel context.CancelFunc
	done   chan struct{}
	lost   error
}

// keepFor begins to keep the item for the process. It says with complain that the process is ended, and why.
func (h *holding) keepFor(process *os.Process, complain func(error)) *keeping {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeping{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		if k.lost = h.keep(ctx); k.lost == nil {
			return
		}
		complain(fmt.Errorf("%s: %w: the command is ended", h, k.lost))
		// An error means that the process has ended.
		_ = process.Signal(syscall.SIGTERM)
		if pause(ctx, killDelay) == nil {
			_ = process.Kill()
		}
	}()
	return k
}

// stop ends the goroutine, waits for it and returns why the lease is lost; nil when it is not.
func (k *keeping) stop() error {
	k.cancel()
	<-k.done
	return k.lost
}

// keep renews the lease until ctx ends, and returns why it is lost.
func (h *holding) keep(ctx context.Context) error {
	for {
		if pause(ctx, time.Until(h.ends.Add(h.step()-h.lease))) != nil {
			return nil
		}
		switch err := h.keepOn(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// keepOn renews the lease once. It tries until that succeeds, the claim turns out not to be held, the lease must have
// ended or ctx ends.
func (h *holding) keepOn(ctx context.Context) error {
	last := error(nil)
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		began := time.Now()
		limit := min(h.try(), max(minTry, h.ends.Sub(began)))
		try, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit.Round(time.Millisecond)))
		held, err := h.queue.Extend(try, h.claim.ID, h.claim.Attempt, h.lease)
		cancel()
		switch {
		case err == nil && held:
			h.ends = began.Add(h.lease)
			return nil
		case err == nil:
			return errNotHeld
		}
		last = err
		if time.Until(h.ends) < delay {
			return fmt.Errorf("%w: redis at %s: %w", errNotRenewed, h.client.config.address(), last)
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// settle settles the claim. It tries for as long as the lease lasts, and for settleMore.
func (h *holding) settle(s queue.Settlement) error {
	s.ID, s.Attempt = h.claim.ID, h.claim.Attempt
	deadline := time.Now().Add(max(0, time.Until(h.ends)) + h.settleMore)
	unsure := false // an earlier try may have succeeded
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		try, cancel := context.WithTimeoutCause(context.Background(), h.try(), fmt.Errorf("no answer within %s", h.try()))
		held, err := h.queue.Settle(try, []queue.Settlement{s})
		cancel()
		switch {
		case err == nil && held[0]:
			return nil
		case err == nil && unsure && time.Now().Before(h.ends):
			return nil // nobody else could have
		case err == nil && unsure:
			return fmt.Errorf("%w, or its settlement took effect and the answer got lost", errNotHeld)
		case err == nil:
			return fmt.Errorf("%w: the item may be run once more", errNotHeld)
		}
		unsure = unsure || errors.Is(err, errUnknownOutcome)
		if time.Now().Add(delay).After(deadline) {
			return fmt.Errorf("what became of it could not be written down, and it returns when its lease ends: redis at %s: %w",
				h.client.config.address(), err)
		}
		_ = pause(context.Background(), delay)
	}
}
