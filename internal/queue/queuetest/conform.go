package queuetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Fixture is an empty queue at a source for Conform.
type Fixture struct {
	// Open opens the queue as a process of its own would, and returns what ends that process without a word, as SIGKILL
	// does. Only one is open at a time.
	Open func(t *testing.T) (q queue.Queue, crash func())
	// Push appends items as an application does that knows nothing of Offboard.
	Push func(t *testing.T, items ...string)
	// Leases tells that claims can have leases, Delays that pushes can be for later and unique. Where they cannot,
	// errors.ErrUnsupported is the answer.
	Leases, Delays bool
}

// Conform checks that a source does what queue.Queue says. Each test gets a fixture of its own.
func Conform(t *testing.T, fixture func(t *testing.T) Fixture) {
	tests := []struct {
		name string
		run  func(*conforming)
	}{
		{"claims in order", (*conforming).claimsInOrder},
		{"ack", (*conforming).ack},
		{"put off", (*conforming).putOff},
		{"bury", (*conforming).bury},
		{"drop", (*conforming).drop},
		{"give back", (*conforming).giveBack},
		{"release", (*conforming).release},
		{"release everybody's", (*conforming).releaseAll},
		{"several parts", (*conforming).severalParts},
		{"holds", (*conforming).holds},
		{"bytes", (*conforming).bytes},
		{"any bytes", (*conforming).anyBytes},
		{"unknown", (*conforming).unknown},
		{"crash", (*conforming).crashes},
		{"crash of one who put off and buried", (*conforming).crashesLater},
		{"several at once", (*conforming).severalAtOnce},
		{"push", (*conforming).pushes},
		{"push for later", (*conforming).pushesLater},
		{"lease", (*conforming).lease},
		{"pages", (*conforming).pages},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &conforming{T: t, f: fixture(t)}
			c.q, c.crash = c.f.Open(t)
			t.Cleanup(func() { c.crash() })
			test.run(c)
		})
	}
}

type conforming struct {
	*testing.T
	f     Fixture
	q     queue.Queue
	crash func()
}

const (
	// conformOwner claims in these tests.
	conformOwner = "shop/work"
	// noItem is the id of no item.
	noItem = "00000000000000ff"
)

func (c *conforming) push(items ...string) {
	c.Helper()
	c.f.Push(c.T, items...)
}

func (c *conforming) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// claim claims and wants claims of these items, each of one part.
func (c *conforming) claim(o queue.ClaimOptions, want ...string) []queue.Claim {
	c.Helper()
	if o.Owner == "" {
		o.Owner = conformOwner
	}
	result, err := c.q.Claim(c.Context(), o)
	c.must(err)
	var got []string
	for _, claim := range result.Claims {
		got = append(got, textOf(claim))
		if claim.Owner != o.Owner || claim.Attempt < 1 || claim.ID == "" || claim.First.IsZero() || claim.Since.IsZero() {
			c.Errorf("got the claim %+v", claim)
		}
	}
	if !slices.Equal(got, want) {
		c.Fatalf("got claims of %q, want %q", got, want)
	}
	return result.Claims
}

func textOf(claim queue.Claim) string {
	var parts []string
	for _, part := range claim.Parts {
		parts = append(parts, string(part))
	}
	return strings.Join(parts, "+")
}

// until waits until it holds.
func (c *conforming) until(what string, holds func() bool) {
	c.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited in vain until %s", what)
		}
	}
}

// sweep sweeps once.
func (c *conforming) sweep() queue.Swept {
	c.Helper()
	swept, err := c.q.Sweep(c.Context())
	c.must(err)
	return swept
}

// eventually claims when nothing waits any more.
func (c *conforming) eventually(o queue.ClaimOptions, want ...string) []queue.Claim {
	c.Helper()
	c.until("nothing waits", func() bool {
		stats, err := c.q.Stats(c.Context())
		c.must(err)
		c.sweep()
		return stats.Retry+stats.Leased+stats.Delayed == 0
	})
	return c.claim(o, want...)
}

// settle settles a claim and wants that it was held, or was not.
func (c *conforming) settle(s queue.Settlement, held bool) {
	c.Helper()
	got, err := c.q.Settle(c.Context(), []queue.Settlement{s})
	c.must(err)
	if len(got) != 1 || got[0] != held {
		c.Errorf("%s of %s/%d: held is %v, want %v", s.Verb, s.ID, s.Attempt, got, held)
	}
}

func settlement(claim queue.Claim, verb queue.Verb) queue.Settlement {
	return queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: verb}
}

// counts wants how many items are in each state.
func (c *conforming) counts(ready, claimed, retry, dead int64) {
	c.Helper()
	s, err := c.q.Stats(c.Context())
	c.must(err)
	if got, want := [4]int64{s.Ready, s.Claimed, s.Retry, s.Dead}, [4]int64{ready, claimed, retry, dead}; got != want {
		c.Errorf("ready, claimed, retry and dead are %v, want %v", got, want)
	}
}

func (c *conforming) list(state queue.State, want ...string) []queue.Record {
	c.Helper()
	records, err := c.q.List(c.Context(), state, 0, 100)
	c.must(err)
	var got []string
	for _, record := range records {
		got = append(got, textOf(record.Claim))
		if record.State != state {
			c.Errorf("an item in the list of those that are %s is %s", state, record.State)
		}
	}
	if !slices.Equal(got, want) {
		c.Errorf("%s are %q, want %q", state, got, want)
	}
	return records
}

// reopen is a crash and the process that follows.
func (c *conforming) reopen() {
	c.Helper()
	c.crash()
	c.q, c.crash = c.f.Open(c.T)
}

func (c *conforming) claimsInOrder() {
	c.push("1", "2", "3", "4", "5")
	c.counts(5, 0, 0, 0)
	c.list(queue.Ready, "1", "2", "3", "4", "5")
	first := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	second := c.claim(queue.ClaimOptions{Most: 2, Owner: "shop/other"}, "3", "4")
	c.counts(1, 4, 0, 0)
	all := slices.Concat(first, second)
	for i, claim := range all {
		if claim.Attempt != 1 || claim.Failures != 0 {
			c.Errorf("a first claim is %+v", claim)
		}
		if i > 0 && (all[i-1].ID >= claim.ID || len(all[i-1].ID) != len(claim.ID)) {
			c.Errorf("the id %s is followed by %s", all[i-1].ID, claim.ID)
		}
		if strings.Trim(claim.ID, "0123456789abcdef") != "" {
			c.Errorf("the id %q is not hexadecimal", claim.ID)
		}
	}
	of := map[string][]queue.Claim{conformOwner: first, "shop/other": second, "": all, "shop/wor": nil}
	for owner, want := range of {
		claims, err := c.q.Claims(c.Context(), owner)
		c.must(err)
		if len(claims) != len(want) {
			c.Fatalf("claims of %q are %+v, want %+v", owner, claims, want)
		}
		for i, claim := range claims {
			if claim.ID != want[i].ID || claim.Attempt != 1 || claim.Owner != want[i].Owner || len(claim.Parts) > 0 {
				c.Errorf("claim %d of %q is %+v, want %+v without parts", i, owner, claim, want[i])
			}
		}
	}
	c.list(queue.Claimed, "1", "2", "3", "4")
	record, err := c.q.Get(c.Context(), second[0].ID)
	if err != nil || record.State != queue.Claimed || textOf(record.Claim) != "3" || record.Attempt != 1 {
		c.Errorf("got %+v, %v", record, err)
	}
	c.claim(queue.ClaimOptions{Most: 2}, "5")
	c.claim(queue.ClaimOptions{Most: 2})
}

func (c *conforming) ack() {
	c.push("1", "2")
	claims := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	wrong := settlement(claims[0], queue.Ack)
	wrong.Attempt++
	c.settle(wrong, false)
	held, err := c.q.Settle(c.Context(), []queue.Settlement{
		settlement(claims[1], queue.Ack), {ID: noItem, Attempt: 1, Verb: queue.Ack}, settlement(claims[0], queue.Ack),
	})
	if err != nil || !slices.Equal(held, []bool{true, false, true}) {
		c.Errorf("got %v, %v", held, err)
	}
	c.settle(settlement(claims[0], queue.Ack), false)
	c.settle(settlement(claims[0], queue.GiveBack), false)
	c.counts(0, 0, 0, 0)
	if s, err := c.q.Stats(c.Context()); err != nil || s.Done != 2 {
		c.Errorf("got %+v, %v", s, err)
	}
	c.claim(queue.ClaimOptions{Most: 2})
}

var code = 3

func failure(reason string) *queue.Failure {
	return &queue.Failure{
		Reason: reason, Message: "it \"failed\"\n", ExitCode: &code, Job: "work-1", Log: "bye\n",
		At: time.UnixMilli(1_700_000_000_123),
	}
}

func (c *conforming) putOff() {
	c.push("1", "2", "3")
	claims := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	s := settlement(claims[0], queue.PutOff)
	s.Wait, s.Failure = time.Hour, failure("First")
	c.settle(s, true)
	c.settle(s, false)
	c.counts(1, 1, 1, 0)
	record := c.list(queue.Retry, "1")[0]
	if record.LastFailure == nil || record.LastFailure.Reason != "First" || time.Until(record.At) < 50*time.Minute {
		c.Errorf("got %+v", record)
	}
	s = settlement(claims[1], queue.PutOff)
	s.Wait = 50 * time.Millisecond
	c.settle(s, true)
	var swept queue.Swept
	c.until("only the other one waits", func() bool {
		swept = c.sweep()
		stats, err := c.q.Stats(c.Context())
		c.must(err)
		return stats.Retry == 1
	})
	if swept.Next < 50*time.Minute {
		c.Errorf("after its wait: %+v", swept)
	}
	// Ahead of those that are ready, and not counted as a failure.
	again := c.claim(queue.ClaimOptions{Most: 2}, "2", "3")[0]
	if again.ID != claims[1].ID || again.Attempt != 2 || again.Failures != 0 {
		c.Errorf("got %+v after %+v", again, claims[1])
	}
	s = settlement(again, queue.PutOff)
	s.Wait, s.Failure = time.Millisecond, failure("Second")
	c.settle(s, true)
	var third queue.Claim
	c.until("the item comes back", func() bool {
		result, err := c.q.Claim(c.Context(), queue.ClaimOptions{Owner: conformOwner, Most: 1})
		c.must(err)
		if len(result.Claims) > 0 {
			third = result.Claims[0]
		}
		return len(result.Claims) > 0
	})
	if textOf(third) != "2" || third.ID != again.ID || third.Attempt != 3 || third.Failures != 1 {
		c.Errorf("got %+v after %+v", third, again)
	}
}

func (c *conforming) bury() {
	c.push("1", "2", "3")
	claims := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	for i, claim := range claims {
		s := settlement(claim, queue.Bury)
		s.Failure = failure("Failed" + fmt.Sprint(i))
		c.settle(s, true)
		c.settle(s, false)
	}
	c.counts(1, 0, 0, 2)
	dead := c.list(queue.Dead, "1", "2")
	first := dead[0]
	if first.ID != claims[0].ID || first.Attempt != 1 || first.Total != 1 || first.FirstFailure == nil ||
		first.At.IsZero() {
		c.Fatalf("got %+v", first)
	}
	if got, want := *first.FirstFailure, *failure("Failed0"); got.Reason != want.Reason || got.Message != want.Message ||
		got.ExitCode == nil || *got.ExitCode != 3 || got.Job != want.Job || got.Log != want.Log || !got.At.Equal(want.At) {
		c.Errorf("the failure is %+v, want %+v", got, want)
	}
	whole, err := c.q.Get(c.Context(), first.ID)
	if err != nil || whole.State != queue.Dead || textOf(whole.Claim) != "1" {
		c.Errorf("got %+v, %v", whole, err)
	}
	ids, err := c.q.RetryDead(c.Context(), noItem, first.ID)
	if err != nil || !slices.Equal(ids, []string{first.ID}) {
		c.Errorf("retried %q, %v", ids, err)
	}
	again := c.claim(queue.ClaimOptions{Most: 2}, "1", "3")[0]
	if again.ID != first.ID || again.Attempt != 2 || again.Failures != 0 {
		c.Errorf("retried is %+v", again)
	}
	s := settlement(again, queue.Bury)
	s.Failure = failure("Last")
	c.settle(s, true)
	whole, err = c.q.Get(c.Context(), first.ID)
	if err != nil || whole.Total != 2 || whole.FirstFailure.Reason != "Failed0" || whole.LastFailure.Reason != "Last" {
		c.Errorf("got %+v, %v", whole, err)
	}
	ids, err = c.q.DropDead(c.Context(), dead[1].ID, noItem)
	if err != nil || !slices.Equal(ids, []string{dead[1].ID}) {
		c.Errorf("dropped %q, %v", ids, err)
	}
	c.list(queue.Dead, "1")
	if s, err := c.q.Stats(c.Context()); err != nil || s.Buried != 3 || s.Dropped != 1 {
		c.Errorf("got %+v, %v", s, err)
	}
}

func (c *conforming) drop() {
	c.push("1")
	claim := c.claim(queue.ClaimOptions{Most: 1}, "1")[0]
	s := settlement(claim, queue.Drop)
	s.Failure = failure("Failed")
	c.settle(s, true)
	c.settle(s, false)
	c.counts(0, 0, 0, 0)
	c.claim(queue.ClaimOptions{Most: 1})
}

func (c *conforming) giveBack() {
	c.push("1", "2", "3", "4", "5")
	claims := c.claim(queue.ClaimOptions{Most: 4}, "1", "2", "3", "4")
	failed := settlement(claims[0], queue.GiveBack)
	failed.Failure = failure("Failed")
	held, err := c.q.Settle(c.Context(), []queue.Settlement{settlement(claims[2], queue.GiveBack), failed})
	if err != nil || !slices.Equal(held, []bool{true, true}) {
		c.Fatalf("got %v, %v", held, err)
	}
	c.counts(3, 2, 0, 0)
	c.list(queue.Ready, "1", "3", "5")
	again := c.claim(queue.ClaimOptions{Most: 3}, "1", "3", "5")
	if again[0].ID != claims[0].ID || again[0].Attempt != 2 || again[0].Failures != 1 {
		c.Errorf("got %+v after %+v", again[0], claims[0])
	}
	if again[1].ID == claims[2].ID && again[1].Attempt == 1 || again[1].Failures != 0 {
		c.Errorf("got %+v after %+v", again[1], claims[2])
	}
	c.settle(settlement(claims[2], queue.Ack), false)
	c.settle(settlement(again[1], queue.Ack), true)
}

func (c *conforming) release() {
	c.push("1", "2", "3", "4", "5", "6")
	ours := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	theirs := c.claim(queue.ClaimOptions{Most: 1, Owner: "shop/other"}, "3")
	c.claim(queue.ClaimOptions{Most: 1}, "4")
	if n, err := c.q.Release(c.Context(), conformOwner); err != nil || n != 3 {
		c.Errorf("released %d, %v", n, err)
	}
	if n, err := c.q.Release(c.Context(), conformOwner); err != nil || n != 0 {
		c.Errorf("released %d, %v once more", n, err)
	}
	c.settle(settlement(ours[0], queue.Ack), false)
	c.claim(queue.ClaimOptions{Most: 4}, "1", "2", "4", "5")
	c.settle(settlement(theirs[0], queue.Ack), true)
}

func (c *conforming) releaseAll() {
	c.push("1", "2", "3")
	c.claim(queue.ClaimOptions{Most: 1}, "1")
	c.claim(queue.ClaimOptions{Most: 1, Owner: "shop/other"}, "2")
	if n, err := c.q.Release(c.Context(), ""); err != nil || n != 2 {
		c.Errorf("released %d, %v", n, err)
	}
	c.claim(queue.ClaimOptions{Most: 3}, "1", "2", "3")
}

func (c *conforming) severalParts() {
	c.push("1", "2", "3", "4", "5")
	claims := c.claim(queue.ClaimOptions{Most: 2, Parts: 3}, "1+2+3", "4+5")
	c.counts(0, 2, 0, 0)
	if record, err := c.q.Get(c.Context(), claims[0].ID); err != nil || textOf(record.Claim) != "1+2+3" {
		c.Errorf("got %+v, %v", record, err)
	}
	c.settle(settlement(claims[1], queue.GiveBack), true)
	c.list(queue.Ready, "4", "5")
	c.settle(settlement(claims[0], queue.Ack), true)
	c.claim(queue.ClaimOptions{Most: 2}, "4", "5")
}

func (c *conforming) holds() {
	c.push("1", "2", "3", "4", "5")
	claims := c.claim(queue.ClaimOptions{Most: 2, Holds: 3}, "1", "2")
	c.claim(queue.ClaimOptions{Most: 2, Holds: 3}, "3")
	c.claim(queue.ClaimOptions{Most: 2, Holds: 3})
	c.claim(queue.ClaimOptions{Most: 1, Holds: 3, Owner: "shop/other"}, "4")
	c.settle(settlement(claims[1], queue.Ack), true)
	c.claim(queue.ClaimOptions{Most: 2, Holds: 3}, "5")
}

func (c *conforming) bytes() {
	c.push("12345", "67890", "3", "4")
	c.claim(queue.ClaimOptions{Most: 4, Bytes: 6}, "12345", "67890")
	c.claim(queue.ClaimOptions{Most: 4, Bytes: 1}, "3")
}

func (c *conforming) anyBytes() {
	large := strings.Repeat("0123456789abcdef", 20<<10)
	items := []string{"a\x00b", "\xff\xfe", "'\"`\\\n$(x)", " ", large}
	c.push(items...)
	var ids []string
	for _, claim := range c.claim(queue.ClaimOptions{Most: 10}, items...) {
		ids = append(ids, claim.ID)
	}
	for i, id := range ids {
		if record, err := c.q.Get(c.Context(), id); err != nil || textOf(record.Claim) != items[i] {
			c.Errorf("item %d comes back as %d bytes, %v", i, record.Size, err)
		}
	}
}

func (c *conforming) unknown() {
	if _, err := c.q.Get(c.Context(), noItem); !errors.Is(err, queue.ErrNotFound) {
		c.Errorf("got %v", err)
	}
	c.settle(queue.Settlement{ID: noItem, Attempt: 1, Verb: queue.Ack}, false)
	c.settle(queue.Settlement{ID: "x", Attempt: 1, Verb: queue.PutOff}, false)
	if _, err := c.q.Claim(c.Context(), queue.ClaimOptions{Most: 1}); err == nil {
		c.Error("a claim without an owner is not refused")
	}
	if _, err := c.q.List(c.Context(), queue.Done, 0, 10); err == nil {
		c.Error("a list of what is done is not refused")
	}
	c.list(queue.Dead)
	c.counts(0, 0, 0, 0)
	if swept, err := c.q.Sweep(c.Context()); err != nil || swept.Returned != 0 || swept.Next >= 0 {
		c.Errorf("got %+v, %v", swept, err)
	}
}

func (c *conforming) crashes() {
	c.push("1", "2", "3", "4")
	before := c.claim(queue.ClaimOptions{Most: 3}, "1", "2", "3")
	c.settle(settlement(before[1], queue.Ack), true)
	for range 2 {
		c.reopen()
		claims, err := c.q.Claims(c.Context(), conformOwner)
		c.must(err)
		if len(claims) != 2 || claims[0].ID != before[0].ID || claims[1].ID != before[2].ID || claims[1].Attempt != 1 {
			c.Fatalf("after a crash there are the claims %+v, want the first and the last of %+v", claims, before)
		}
		if record, err := c.q.Get(c.Context(), before[2].ID); err != nil || textOf(record.Claim) != "3" {
			c.Errorf("got %+v, %v", record, err)
		}
	}
	// What is claimed is claimed by nobody else.
	c.claim(queue.ClaimOptions{Most: 4, Owner: "shop/other"}, "4")
	c.settle(settlement(before[0], queue.Ack), true)
	c.settle(settlement(before[1], queue.Ack), false)
	c.settle(settlement(before[2], queue.GiveBack), true)
	c.reopen()
	c.claim(queue.ClaimOptions{Most: 4}, "3")
}

func (c *conforming) crashesLater() {
	c.push("1", "2", "3")
	claims := c.claim(queue.ClaimOptions{Most: 2}, "1", "2")
	s := settlement(claims[0], queue.Bury)
	s.Failure = failure("Failed")
	c.settle(s, true)
	s = settlement(claims[1], queue.PutOff)
	s.Failure, s.Wait = failure("Failed"), 100*time.Millisecond
	c.settle(s, true)
	c.reopen()
	c.list(queue.Dead, "1")
	again := c.eventually(queue.ClaimOptions{Most: 1}, "2")[0]
	if again.ID != claims[1].ID || again.Attempt != 2 || again.Failures != 1 {
		c.Errorf("got %+v after %+v", again, claims[1])
	}
}

// severalAtOnce has several that claim and settle at random. Each item is acknowledged once.
func (c *conforming) severalAtOnce() {
	const items, workers = 120, 4
	var all []string
	for i := range items {
		all = append(all, fmt.Sprint(i))
	}
	c.push(all...)
	var mu sync.Mutex
	acked, claimed := map[string]int{}, map[string]bool{}
	var working sync.WaitGroup
	for worker := range workers {
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		owner := fmt.Sprintf("shop/work%d", worker)
		working.Go(func() {
			for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
				result, err := c.q.Claim(c.Context(), queue.ClaimOptions{Owner: owner, Most: 1 + random.IntN(8)})
				if err != nil {
					c.Error(err)
					return
				}
				var settlements []queue.Settlement
				for _, claim := range result.Claims {
					name := fmt.Sprintf("%s/%d", claim.ID, claim.Attempt)
					mu.Lock()
					if claimed[name] {
						c.Errorf("the claim %s was made twice", name)
					}
					claimed[name] = true
					mu.Unlock()
					verb := []queue.Verb{queue.Ack, queue.Ack, queue.GiveBack, queue.PutOff}[random.IntN(4)]
					settlements = append(settlements, settlement(claim, verb))
				}
				held, err := c.q.Settle(c.Context(), settlements)
				if err != nil {
					c.Error(err)
					return
				}
				mu.Lock()
				for i, s := range settlements {
					if !held[i] {
						c.Errorf("the claim %s/%d was lost", s.ID, s.Attempt)
					}
					if s.Verb == queue.Ack {
						acked[textOf(result.Claims[i])]++
					}
				}
				done := len(acked) == items
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	working.Wait()
	for _, item := range all {
		if acked[item] != 1 {
			c.Errorf("item %s was acknowledged %d times", item, acked[item])
		}
	}
	c.counts(0, 0, 0, 0)
}

func (c *conforming) pushes() {
	c.push("1")
	pushed, err := c.q.Push(c.Context(), queue.PushOptions{}, []byte("2"), []byte("3"))
	if err != nil || pushed.Length != 3 {
		c.Errorf("got %+v, %v", pushed, err)
	}
	c.claim(queue.ClaimOptions{Most: 4}, "1", "2", "3")
}

func (c *conforming) pushesLater() {
	if !c.f.Delays {
		for _, o := range []queue.PushOptions{{Delay: time.Second}, {Unique: "a", UniqueFor: time.Second}} {
			if _, err := c.q.Push(c.Context(), o, []byte("1")); !errors.Is(err, errors.ErrUnsupported) {
				c.Errorf("got %v", err)
			}
		}
		c.counts(0, 0, 0, 0)
		return
	}
	unique := queue.PushOptions{Unique: "a", UniqueFor: time.Hour, Delay: time.Hour}
	first, err := c.q.Push(c.Context(), unique, []byte("1"))
	if err != nil || len(first.IDs) != 1 {
		c.Fatalf("got %+v, %v", first, err)
	}
	c.list(queue.Delayed, "1")
	if again, err := c.q.Push(c.Context(), unique, []byte("2")); err != nil || again.HeldBy != first.IDs[0] {
		c.Errorf("got %+v, %v", again, err)
	}
	soon, err := c.q.Push(c.Context(), queue.PushOptions{Delay: 100 * time.Millisecond}, []byte("3"))
	if err != nil || len(soon.IDs) != 1 {
		c.Fatalf("got %+v, %v", soon, err)
	}
	c.until("it is ready", func() bool {
		c.sweep()
		stats, err := c.q.Stats(c.Context())
		c.must(err)
		return stats.Ready == 1
	})
	if claim := c.claim(queue.ClaimOptions{Most: 2}, "3")[0]; claim.ID != soon.IDs[0] || claim.Attempt != 1 {
		c.Errorf("got %+v, want the id %s", claim, soon.IDs[0])
	}
	c.list(queue.Delayed, "1")
}

func (c *conforming) lease() {
	if !c.f.Leases {
		o := queue.ClaimOptions{Owner: conformOwner, Most: 1, Lease: time.Second}
		if _, err := c.q.Claim(c.Context(), o); !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("got %v", err)
		}
		if _, err := c.q.Extend(c.Context(), noItem, 1, time.Second); !errors.Is(err, errors.ErrUnsupported) {
			c.Errorf("got %v", err)
		}
		return
	}
	c.push("1", "2", "3")
	o := queue.ClaimOptions{Most: 2, Lease: time.Hour}
	claims := c.claim(o, "1", "2")
	if held, err := c.q.Extend(c.Context(), claims[0].ID, 2, time.Hour); err != nil || held {
		c.Errorf("another attempt: %v, %v", held, err)
	}
	if held, err := c.q.Extend(c.Context(), claims[0].ID, 1, 50*time.Millisecond); err != nil || !held {
		c.Errorf("got %v, %v", held, err)
	}
	c.until("the lease is lost", func() bool { return c.sweep().Returned == 1 })
	if held, err := c.q.Extend(c.Context(), claims[0].ID, 1, time.Hour); err != nil || held {
		c.Errorf("after its end: %v, %v", held, err)
	}
	c.settle(settlement(claims[0], queue.Ack), false)
	c.settle(settlement(claims[1], queue.Ack), true)
	o.Lease, o.Attempts = 50*time.Millisecond, 2
	again := c.claim(o, "1", "3")[0]
	if again.ID != claims[0].ID || again.Attempt != 2 || again.Failures != 1 {
		c.Errorf("got %+v after %+v", again, claims[0])
	}
	c.until("it is buried", func() bool { return c.sweep().Buried == 1 })
	dead := c.list(queue.Dead, "1")[0]
	if dead.Total != 2 || dead.LastFailure.Reason != "LeaseLost" {
		c.Errorf("got %+v", dead)
	}
}

func (c *conforming) pages() {
	var items []string
	for i := range 30 {
		items = append(items, fmt.Sprintf("%02d", i))
	}
	c.push(items...)
	page := func(state queue.State, skip, limit int, want ...string) {
		c.Helper()
		records, err := c.q.List(c.Context(), state, skip, limit)
		c.must(err)
		var got []string
		for _, record := range records {
			got = append(got, textOf(record.Claim))
		}
		if !slices.Equal(got, want) {
			c.Errorf("%s from %d are %q, want %q", state, skip, got, want)
		}
	}
	page(queue.Ready, 28, 10, "28", "29")
	page(queue.Ready, 3, 2, "03", "04")
	claims := c.claim(queue.ClaimOptions{Most: 20}, items[:20]...)
	page(queue.Claimed, 18, 10, "18", "19")
	page(queue.Claimed, 0, 1, "00")
	page(queue.Ready, 0, 1, "20")
	page(queue.Claimed, 0, 0)
	for _, claim := range claims[:5] {
		s := settlement(claim, queue.Bury)
		s.Failure = failure("Failed")
		c.settle(s, true)
	}
	page(queue.Dead, 3, 10, "03", "04")
}
