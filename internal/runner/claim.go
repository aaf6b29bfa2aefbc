package runner

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
)

// waitStep is the longest time between two looks at a list whose next item is waited for.
const waitStep = time.Second

// claim claims an item, runs the command with it while it renews the lease, and settles the claim.
func (r *run) claim(path string, c config, signals *signals) (int, error) {
	h := newHolding(c, r.Lease)
	h.settleMore = cmp.Or(r.settleMore, settleMore)
	defer h.client.close()
	found, err := r.seek(signals.untilEnd, h)
	if end := (endSignal)(0); errors.As(err, &end) {
		return exitSignal + int(end), fmt.Errorf("%w: no item was taken", err)
	}
	if err != nil {
		return ExitFailure, err
	}
	if l := h.client.link; l != nil {
		r.noteUnusedPassword(l)
	}
	if !found {
		r.say("nothing to do")
		return ExitOK, nil
	}
	if end, is := stopped(signals.untilEnd); is {
		return exitSignal + int(end), r.giveBack(h, end)
	}
	if err := h.refresh(); err != nil {
		return ExitFailure, fmt.Errorf("%s: the command was not started: %w", h, err)
	}
	signals.starting.Store(true)
	command, err := r.start(path, h.claim.Parts[0], []string{
		IDVariable + "=" + h.claim.ID, AttemptVariable + "=" + strconv.Itoa(h.claim.Attempt),
	})
	if err != nil {
		return startCode(err), r.giveBack(h, fmt.Errorf("start the command: %w", err))
	}
	keeping := h.keepFor(command.cmd.Process, r.complain)
	ended, err := command.finish(signals)
	lost := keeping.stop()
	if err != nil {
		return ended.code, fmt.Errorf("%s: %w: the item returns when its lease ends", h, err)
	}
	return r.settle(h, ended, lost)
}

// seek claims an item; it returns false when there is none. It heeds the end of ctx as long as no item can be taken.
func (r *run) seek(ctx context.Context, h *holding) (found bool, err error) {
	for deadline := time.Now().Add(r.Wait); ; {
		var result queue.ClaimResult
		err := reach(ctx, h.client.config, r.patience, func() (err error) {
			result, err = h.tryClaim(ctx, r.Attempts)
			return err
		})
		if err != nil || len(result.Claims) > 0 {
			return err == nil, err
		}
		if result.Next < 0 || time.Until(deadline) < result.Next {
			return false, nil
		}
		// It may come earlier, and a new one may come at any time.
		if err := pause(ctx, min(max(result.Next, lastDelay/100), waitStep)); err != nil {
			return false, err
		}
	}
}

// giveBack puts the item back to the head of the list because of reason, and returns the error to show.
func (r *run) giveBack(h *holding, reason error) error {
	if err := h.settle(queue.Settlement{Verb: queue.GiveBack}); err != nil {
		return fmt.Errorf("%w\n%s: give the item back: %w", reason, h, err)
	}
	r.unreport()
	return fmt.Errorf("%w: the item was given back to the head of the list", reason)
}

// settle says what has become of the item, unless its lease is lost, and returns the exit code.
func (r *run) settle(h *holding, ended ending, lost error) (int, error) {
	if lost != nil && ended.code != ExitOK {
		r.say("%s: %s", h, ended)
		return ExitFailure, fmt.Errorf("%s: it was ended because the item is somebody else's now, or will be", h)
	}
	settlement, fate := r.judge(h, ended)
	if err := h.settle(settlement); err != nil {
		r.say("%s: %s", h, ended)
		code := ended.code
		if lost != nil {
			code = ExitFailure
		}
		return code, fmt.Errorf("%s: %w", h, err)
	}
	r.say("%s: %s%s", h, ended, fate)
	return ended.code, nil
}

// holding is the claim of one item, while the runner holds it.
type holding struct {
	client *client
	queue  *redisqueue.Queue
	owner  string
	lease  time.Duration
	claim  queue.Claim
	// ends is when the lease ends by the clock of this machine: earlier than by the server's, whose time begins later.
	ends time.Time
	// settleMore is for how long a settlement is tried after that.
	settleMore time.Duration
}

func newHolding(c config, lease time.Duration) *holding {
	client := &client{config: c}
	return &holding{client: client, queue: redisqueue.New(client, c.list), owner: owner(), lease: lease}
}

// owner names this process among all that claim items.
func owner() string {
	host, _ := os.Hostname() // in a Pod, the Pod's name
	var unique [6]byte
	_, _ = rand.Read(unique[:]) // never fails
	return cmp.Or(host, "runner") + "/" + hex.EncodeToString(unique[:])
}

func (h *holding) String() string {
	return fmt.Sprintf("item %s attempt %d", h.claim.ID, h.claim.Attempt)
}

// tryClaim claims an item. The end of ctx is heeded before that.
func (h *holding) tryClaim(ctx context.Context, attempts int) (queue.ClaimResult, error) {
	if err := h.client.connect(ctx); err != nil {
		return queue.ClaimResult{}, err
	}
	if err := ctx.Err(); err != nil {
		return queue.ClaimResult{}, err
	}
	sent := time.Now()
	result, err := h.queue.Claim(context.Background(), queue.ClaimOptions{
		Owner: h.owner, Most: 1, Parts: 1, Lease: h.lease, Attempts: attempts,
	})
	if err == nil && len(result.Claims) > 0 && len(result.Claims[0].Parts) != 1 {
		err = errors.New("the server's claim is not of one item")
	}
	switch {
	case err == nil && len(result.Claims) > 0:
		h.claim, h.ends = result.Claims[0], sent.Add(h.lease)
	case err == nil:
	case errorCode(err) != "":
		err = h.client.config.explainScript("take an item from", err)
	default:
		if !errors.Is(err, errUnknownOutcome) {
			err = fmt.Errorf("%w; %w", err, errUnknownOutcome)
		}
		err = fmt.Errorf("%w: an item that was taken returns by itself within %s, the lease",
			h.client.config.explain("take an item from", err), h.lease)
	}
	return result, err
}

// refresh renews the lease if much of it has passed, so that the command begins with an item that is the runner's.
func (h *holding) refresh() error {
	if time.Until(h.ends) > h.lease-h.step() {
		return nil
	}
	return h.keepOn(context.Background())
}

// judge returns what is to become of the item after the command's end, and a word on that.
func (r *run) judge(h *holding, ended ending) (queue.Settlement, string) {
	failure := &queue.Failure{
		Reason: "ExitCode", ExitCode: &ended.code, At: time.Now(),
		Message: fmt.Sprintf("the command %s, run by %s", ended, h.owner),
	}
	if ended.signal != 0 {
		failure.Reason, failure.ExitCode, failure.Signal = "Signal", nil, ended.signalName()
	}
	failures := h.claim.Failures + 1
	switch {
	case ended.code == ExitOK:
		return queue.Settlement{Verb: queue.Ack}, ""
	case ended.code == ExitDataError:
		failure.Reason = "DataError"
		return queue.Settlement{Verb: queue.Bury, Failure: failure}, "; it is dead and not tried again"
	case ended.asked:
		return queue.Settlement{Verb: queue.GiveBack}, "; it was given back to the head of the list"
	case ended.code == ExitTempFailure:
		return putOff(backoff(r.Backoff, failures, mathrand.Float64()), nil, "not counted as a failure")
	case failures < r.Attempts:
		return putOff(backoff(r.Backoff, failures, mathrand.Float64()), failure,
			fmt.Sprintf("%d of %d attempts failed", failures, r.Attempts))
	}
	return queue.Settlement{Verb: queue.Bury, Failure: failure},
		fmt.Sprintf("; it is dead, %d of %d attempts failed", failures, r.Attempts)
}

func putOff(wait time.Duration, failure *queue.Failure, why string) (queue.Settlement, string) {
	if wait == 0 {
		return queue.Settlement{Verb: queue.GiveBack, Failure: failure},
			fmt.Sprintf("; it is back at the head of the list, %s", why)
	}
	return queue.Settlement{Verb: queue.PutOff, Wait: wait, Failure: failure},
		fmt.Sprintf("; it is tried again in %s, %s", wait.Round(100*time.Millisecond), why)
}

// What a backoff is made of, besides its initial wait. It is what spec.delivery.backoff is by default.
const (
	backoffFactor = 2
	backoffMax    = 10 * time.Minute
	backoffJitter = 0.2
)

// backoff returns how long an item waits after its failures-th failure, counted from 1: initial, doubled after each
// further one up to a limit, and made longer or shorter by random, which is in [0, 1).
func backoff(initial time.Duration, failures int, random float64) time.Duration {
	wait := float64(initial) * math.Pow(backoffFactor, float64(max(1, failures)-1))
	wait = min(float64(max(initial, backoffMax)), wait) * (1 + backoffJitter*(2*random-1))
	if math.IsNaN(wait) { // nothing times infinity
		return 0
	}
	if wait >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(wait)
}
