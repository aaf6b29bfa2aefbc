// Package queue is what becomes of an item from its claim to its end: the states that it can be in, and the interface
// of a source that can hand items out so that none is lost and none is done twice. Each source is a package below it.
//
// It knows nothing of Jobs, runners and controllers, which use it.
package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Queue hands out items and takes back what became of them. All of its methods are atomic, also against those of other
// processes, and may be called from several goroutines. After an error it is unknown whether the operation took effect
// when the connection broke while the server worked: Claims tells what was claimed, and a settlement may be repeated.
type Queue interface {
	// Name is the queue's, for example that of a Redis list. It may hold any bytes.
	Name() string
	// Claim takes items off the head of the queue, first those whose wait is over.
	Claim(ctx context.Context, options ClaimOptions) (ClaimResult, error)
	// Settle says what became of claims, all or none of them at once. For each it returns whether the claim was held
	// until then; one that was not, because it was settled before or its lease is lost, changes nothing.
	Settle(ctx context.Context, settlements []Settlement) (held []bool, err error)
	// Extend renews the lease of a claim. It returns false when the claim is not held any more.
	Extend(ctx context.Context, id string, attempt int, lease time.Duration) (held bool, err error)
	// Claims returns the claims that the owner holds, or all when owner is empty, in the order of their ids. Their Parts,
	// which may be large, are left out: Get has them.
	Claims(ctx context.Context, owner string) ([]Claim, error)
	// Sweep puts items whose wait is over and those whose lease is lost back to the head of the queue. Claim does so too.
	Sweep(ctx context.Context) (Swept, error)
	// Release gives all claims of the owner back to the head of the queue in their order, or those of everybody when
	// owner is empty, and returns how many.
	Release(ctx context.Context, owner string) (int, error)
	// Push appends items, at once or for later.
	Push(ctx context.Context, options PushOptions, items ...[]byte) (Pushed, error)
	// List returns records of one state, which is Ready, Delayed, Claimed, Retry or Dead, oldest first, at most limit
	// of them after the first skip.
	List(ctx context.Context, state State, skip, limit int) ([]Record, error)
	// Get returns the record of one item whole. It returns ErrNotFound when the queue knows no such item.
	Get(ctx context.Context, id string) (Record, error)
	// RetryDead puts dead items back to the head of the queue, with their history and with all their attempts before
	// them; DropDead removes them. Both return the ids that were dead until then.
	RetryDead(ctx context.Context, ids ...string) ([]string, error)
	DropDead(ctx context.Context, ids ...string) ([]string, error)
	// Stats counts.
	Stats(ctx context.Context) (Stats, error)
}

// ErrNotFound tells that the queue has no record of an item.
var ErrNotFound = errors.New("the queue has no such item")

// Unsupported returns the error of what a source cannot do, in these words alone; errors.Is finds errors.ErrUnsupported
// in it. To ask again changes nothing.
func Unsupported(format string, args ...any) error { return unsupported(fmt.Sprintf(format, args...)) }

type unsupported string

func (u unsupported) Error() string { return string(u) }

func (u unsupported) Unwrap() error { return errors.ErrUnsupported }

// ErrNoOwner refuses a claim that says not for whom.
var ErrNoOwner = errors.New("claim items: the owner is missing")

// NotKept is the error of a list of items in a state of which nothing is kept.
func NotKept(state State) error {
	return fmt.Errorf("items that are %s are not kept: want ready, delayed, claimed, retry or dead", state)
}

// ClaimOptions say what to claim for whom.
type ClaimOptions struct {
	// Owner is who claims: a ScaledJob as NAMESPACE/NAME, or a runner. Not empty.
	Owner string
	// Most is how many claims to make at the most.
	Most int
	// Holds is how many claims the owner may hold altogether, those it has before included; 0 means any number.
	Holds int
	// Parts is how many elements of the queue make one claim, as far as there are so many; 0 means 1.
	Parts int
	// Bytes is the size of all items in bytes after which no more are claimed; 0 means any. At least one is.
	Bytes int64
	// Lease is how long the claim lasts unless it is extended; 0 means until it is settled.
	Lease time.Duration
	// Attempts is how many failures an item may have, one whose lease is lost included, before it is buried when the
	// lease is lost; 0 means any number. Used with Lease only: others decide when they settle.
	Attempts int
	// Drop tells that an item whose last attempt's lease is lost is dropped, not buried.
	Drop bool
}

// ClaimResult is the answer to Claim.
type ClaimResult struct {
	Claims []Claim
	// Ready is how many elements the queue still has.
	Ready int64
	// Next is how long until an item's wait is over or a lease may be lost; negative when there is none.
	Next time.Duration
}

// Claim is an item, or several that share their fate, in the hands of one owner.
type Claim struct {
	// ID names the item. IDs sort by arrival, are of one length and consist of lower-case hexadecimal digits.
	ID string
	// Attempt counts the claims of the item, from 1. No two claims share both ID and Attempt.
	Attempt int
	// Failures is how many of the attempts before failed.
	Failures int
	// Parts are the elements of the queue, at least one.
	Parts [][]byte
	// Owner is who claimed it.
	Owner string
	// First is when the item was first seen, Since when it was claimed, by the clock of the server.
	First, Since time.Time
}

// Verb is what becomes of a claim.
type Verb string

// The verbs.
const (
	// Ack: the run has succeeded; the item is done.
	Ack Verb = "ack"
	// PutOff: the item is claimed again after a wait.
	PutOff Verb = "retry"
	// Bury: the item is dead and kept.
	Bury Verb = "bury"
	// Drop: the item is given up and not kept.
	Drop Verb = "drop"
	// GiveBack: the item goes back to the head of the queue, as if it had not been claimed.
	GiveBack Verb = "release"
)

// Settlement says what became of one claim.
type Settlement struct {
	ID      string
	Attempt int
	Verb    Verb
	// Wait is the time until a PutOff item is claimed again.
	Wait time.Duration
	// Failure is why the run did not succeed. With PutOff and GiveBack, nil means that the attempt does not count as a
	// failure.
	Failure *Failure
}

// Failure is why a run did not succeed.
type Failure struct {
	// Reason is one CamelCase word, for example BackoffLimitExceeded, DeadlineExceeded, JobDeleted or LeaseLost.
	Reason string `json:"reason"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// ExitCode is that of the command; nil when it is not known.
	ExitCode *int `json:"exitCode,omitempty"`
	// Signal is the name of the signal that ended the command; empty when none did.
	Signal string `json:"signal,omitempty"`
	// Job is the name of the Job, empty when there was none.
	Job string `json:"job,omitempty"`
	// At is when it happened.
	At time.Time `json:"at"`
	// Log is the tail of what the run printed last.
	Log string `json:"log,omitempty"`
}

// MaxFailureText is how many bytes of Message and of the end of Log are kept.
const MaxFailureText = 4 << 10

// Cut returns the failure with its texts cut to what is kept.
func (f Failure) Cut() Failure {
	f.Message = f.Message[:min(len(f.Message), MaxFailureText)]
	f.Log = f.Log[max(0, len(f.Log)-MaxFailureText):]
	return f
}

// Swept is what Sweep did.
type Swept struct {
	// Returned is how many items went back to the queue, Buried how many of those whose lease was lost were given up.
	Returned, Buried int
	// Next is as in ClaimResult.
	Next time.Duration
}

// PushOptions say how to push.
type PushOptions struct {
	// Delay is how long the items stay out of the queue; 0 means not at all.
	Delay time.Duration
	// At is the time until which they do, by the clock of the server; zero means none. Only one of Delay and At is used.
	At time.Time
	// Unique refuses the push when there was another with the same key less than UniqueFor ago. It takes one item.
	Unique string
	// UniqueFor is how long Unique refuses others; above zero where Unique is given.
	UniqueFor time.Duration
}

// Pushed is what a push led to.
type Pushed struct {
	// Length is how many elements the queue has.
	Length int64
	// IDs are those of the items, where they have any yet: with Delay, At or Unique.
	IDs []string
	// HeldBy is the id of the item that holds the unique key, when the push was refused for it; else empty.
	HeldBy string
}

// Record is what the queue knows of one item.
type Record struct {
	// Claim is the item. A ready item has no ID unless it had been claimed or pushed with one. List cuts each part.
	Claim
	State State
	// Size is the length of all parts in bytes.
	Size int64
	// Total counts the failures of all attempts, also of those before a person retried it.
	Total int
	// FirstFailure and LastFailure are nil when there was none.
	FirstFailure, LastFailure *Failure
	// At is when the wait of a Delayed or Retry item is over, when a lease is lost, or when the item died; else zero.
	At time.Time
}

// Stats counts the items of a queue.
type Stats struct {
	Ready, Delayed, Claimed, Leased, Retry, Dead int64
	// Done, Buried and Dropped count since the queue's records began.
	Done, Buried, Dropped int64
	// Oldest is about how long the item at the head of the queue has been ready; negative when that is not known.
	Oldest time.Duration
	// In and Out are how many items a second arrived and were done over the last Over; Over is zero when that is not
	// known yet.
	In, Out float64
	Over    time.Duration
}
