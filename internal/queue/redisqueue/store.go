// Package redisqueue hands out the items of a Redis list, or of a stream as a consumer group reads it. What happens to
// an item is one run of one script, which the server does as a whole or not at all
// (https://redis.io/docs/latest/develop/programmability/eval-intro): no key is scanned, and all keys of a queue share
// one slot of a Redis Cluster. So there are no two steps of one operation between which something could crash, and the
// effects of a script are logged and replicated together; what is lost with a server is lost as a whole.
//
// It knows how to speak of items and not how to reach a server: that is Conn, of which the triggers and the runner have
// one each.
package redisqueue

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is the name under which Redis keeps a script
	_ "embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// The parts of the scripts.
var (
	//go:embed records.lua
	recordsPart string
	//go:embed list.lua
	listPart string
	//go:embed stream.lua
	streamPart string
	//go:embed ops.lua
	opsPart string
)

// Script is a script that a server may know already.
type Script struct {
	// Body is its text, SHA1 the name under which EVALSHA finds it.
	Body, SHA1 string
}

var listScript, streamScript = newScript(listPart), newScript(streamPart)

// newScript returns the script for a source.
func newScript(source string) Script {
	body := recordsPart + "\n" + source + "\n" + opsPart
	sum := sha1.Sum([]byte(body)) //nolint:gosec // as above
	return Script{Body: body, SHA1: hex.EncodeToString(sum[:])}
}

// Conn runs scripts on a server.
type Conn interface {
	// Eval runs the script, by its name first, and with its body where the server does not know it (NOSCRIPT). The answer
	// is nil, an int64, a string or an []any of these. A script must not be sent again after an error that leaves open
	// whether it ran.
	Eval(ctx context.Context, script Script, keys, args []string) (any, error)
}

// Limits of one run of the script, during which the server does nothing else.
const (
	maxParts  = 1000
	maxSettle = 500
	claimPage = 500
)

// Queue is the items of one list or one stream.
type Queue struct {
	conn   Conn
	script Script
	// list is the name.
	list   string
	prefix string
	keys   []string
	// stream is the stream; nil for a list.
	stream *Stream
	// now replaces the server's clock; nil means the server's.
	now func() time.Time
}

var _ queue.Queue = (*Queue)(nil)

// New returns the items of a list.
func New(conn Conn, list string) *Queue {
	return &Queue{conn: conn, script: listScript, list: list, prefix: Prefix(list), keys: keys(list)}
}

// Name implements queue.Queue.
func (q *Queue) Name() string { return q.list }

// run runs one operation.
func (q *Queue) run(ctx context.Context, keys []string, operation string, args ...string) (any, error) {
	all := make([]string, 0, len(args)+4)
	now := ""
	if q.now != nil {
		now = strconv.FormatInt(q.now().UnixMilli(), 10)
	}
	all = append(append(all, operation, now), args...)
	if q.stream != nil {
		if q.stream.Group == "" {
			return nil, errNoGroup
		}
		all = append(all, q.stream.Field, q.stream.Group)
	}
	return q.conn.Eval(ctx, q.script, keys, all)
}

func (q *Queue) ask(ctx context.Context, operation string, args ...string) (any, error) {
	return q.run(ctx, q.keys, operation, args...)
}

// Claim implements queue.Queue.
func (q *Queue) Claim(ctx context.Context, o queue.ClaimOptions) (queue.ClaimResult, error) {
	if o.Owner == "" {
		return queue.ClaimResult{}, queue.ErrNoOwner
	}
	drop := "0"
	if o.Drop {
		drop = "1"
	}
	answer, err := q.ask(ctx, "claim", o.Owner, strconv.Itoa(max(0, o.Most)), strconv.Itoa(o.Holds),
		strconv.Itoa(min(max(1, o.Parts), maxParts)), strconv.FormatInt(o.Bytes, 10), milliseconds(o.Lease),
		strconv.Itoa(o.Attempts), drop)
	if err != nil {
		return queue.ClaimResult{}, err
	}
	d := decoding{}
	fields := d.array(answer, 3)
	claimed := queue.ClaimResult{Next: d.until(fields[0]), Ready: d.integer(fields[1])}
	claims := d.array(fields[2], -1)
	claimed.Claims = make([]queue.Claim, 0, len(claims))
	for _, entry := range claims {
		claimed.Claims = append(claimed.Claims, d.claim(entry))
	}
	return claimed, d.err
}

// Settle implements queue.Queue. It settles at most maxSettle claims in one run of the script: more are not all or
// none.
func (q *Queue) Settle(ctx context.Context, settlements []queue.Settlement) ([]bool, error) {
	held := make([]bool, 0, len(settlements))
	for len(settlements) > 0 {
		n := min(len(settlements), maxSettle)
		args := make([]string, 0, 5*n)
		for _, s := range settlements[:n] {
			failure := ""
			if s.Failure != nil {
				failure = encodeFailure(s.Failure)
			}
			args = append(args, s.ID, strconv.Itoa(s.Attempt), string(s.Verb), milliseconds(s.Wait), failure)
		}
		answer, err := q.ask(ctx, "settle", args...)
		if err != nil {
			return held, err
		}
		d := decoding{}
		for _, was := range d.array(answer, n) {
			held = append(held, d.integer(was) == 1)
		}
		if d.err != nil {
			return held, d.err
		}
		settlements = settlements[n:]
	}
	return held, nil
}

// Extend implements queue.Queue.
func (q *Queue) Extend(ctx context.Context, id string, attempt int, lease time.Duration) (bool, error) {
	answer, err := q.ask(ctx, "extend", id, strconv.Itoa(attempt), milliseconds(lease))
	if err != nil {
		return false, err
	}
	d := decoding{}
	return d.integer(answer) == 1, d.err
}

// Claims implements queue.Queue.
func (q *Queue) Claims(ctx context.Context, owner string) ([]queue.Claim, error) {
	var claims []queue.Claim
	for after := ""; ; {
		answer, err := q.ask(ctx, "claims", owner, after, strconv.Itoa(claimPage))
		if err != nil {
			return nil, err
		}
		d := decoding{}
		fields := d.array(answer, 2)
		after = d.text(fields[0])
		for _, entry := range d.array(fields[1], -1) {
			claims = append(claims, d.claim(entry))
		}
		if d.err != nil || after == "" {
			return claims, d.err
		}
	}
}

// Sweep implements queue.Queue.
func (q *Queue) Sweep(ctx context.Context) (queue.Swept, error) {
	answer, err := q.ask(ctx, "sweep")
	if err != nil {
		return queue.Swept{}, err
	}
	d := decoding{}
	fields := d.array(answer, 3)
	return queue.Swept{
		Returned: int(d.integer(fields[0])), Buried: int(d.integer(fields[1])), Next: d.until(fields[2]),
	}, d.err
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, owner string) (int, error) {
	answer, err := q.ask(ctx, "release", owner)
	if err != nil {
		return 0, err
	}
	d := decoding{}
	return int(d.integer(answer)), d.err
}

// Push implements queue.Queue.
func (q *Queue) Push(ctx context.Context, o queue.PushOptions, items ...[]byte) (queue.Pushed, error) {
	delay, at, unique, keys := "", "", "", q.keys
	if o.Delay > 0 {
		delay = milliseconds(o.Delay)
	} else if !o.At.IsZero() {
		at = strconv.FormatInt(o.At.UnixMilli(), 10)
	}
	if o.Unique != "" {
		if len(items) != 1 {
			return queue.Pushed{}, fmt.Errorf("a unique key is for one item, and there are %d", len(items))
		}
		if o.UniqueFor < time.Millisecond {
			return queue.Pushed{}, fmt.Errorf("a unique key lasts for %s: it must be 1ms or more", o.UniqueFor)
		}
		unique = milliseconds(o.UniqueFor)
		keys = append(keys[:len(keys):len(keys)], uniqueKey(q.prefix, o.Unique))
	}
	args := make([]string, 0, len(items)+3)
	args = append(args, delay, at, unique)
	for _, item := range items {
		args = append(args, string(item))
	}
	answer, err := q.run(ctx, keys, "push", args...)
	if err != nil {
		return queue.Pushed{}, err
	}
	d := decoding{}
	fields := d.array(answer, 3)
	pushed := queue.Pushed{Length: d.integer(fields[0]), HeldBy: d.text(fields[1])}
	for _, id := range d.array(fields[2], -1) {
		pushed.IDs = append(pushed.IDs, d.text(id))
	}
	return pushed, d.err
}

// List implements queue.Queue.
func (q *Queue) List(ctx context.Context, state queue.State, skip, limit int) ([]queue.Record, error) {
	switch state {
	case queue.Ready, queue.Delayed, queue.Claimed, queue.Retry, queue.Dead:
	default:
		return nil, queue.NotKept(state)
	}
	if limit <= 0 {
		return nil, nil
	}
	answer, err := q.ask(ctx, "list", string(state), strconv.Itoa(max(0, skip)), strconv.Itoa(limit))
	if err != nil {
		return nil, err
	}
	d := decoding{}
	var records []queue.Record
	for _, entry := range d.array(answer, -1) {
		records = append(records, d.record(state, entry))
	}
	return records, d.err
}

// Get implements queue.Queue.
func (q *Queue) Get(ctx context.Context, id string) (queue.Record, error) {
	answer, err := q.ask(ctx, "get", id)
	if err != nil {
		return queue.Record{}, err
	}
	d := decoding{}
	fields := d.array(answer, 2)
	state := queue.State(d.text(fields[0]))
	if state == "" && d.err == nil {
		return queue.Record{}, fmt.Errorf("item %q of %q: %w", id, q.list, queue.ErrNotFound)
	}
	return d.record(state, fields[1]), d.err
}

// RetryDead implements queue.Queue.
func (q *Queue) RetryDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, "revive", ids)
}

// DropDead implements queue.Queue.
func (q *Queue) DropDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, "discard", ids)
}

func (q *Queue) dead(ctx context.Context, operation string, ids []string) ([]string, error) {
	var done []string
	// The last ones first, so that those of the first page are at the head in the end.
	for len(ids) > 0 {
		n := (len(ids) - 1) / maxSettle * maxSettle
		answer, err := q.ask(ctx, operation, ids[n:]...)
		if err != nil {
			return done, err
		}
		d := decoding{}
		var page []string
		for _, id := range d.array(answer, -1) {
			page = append(page, d.text(id))
		}
		done = append(page, done...)
		if d.err != nil {
			return done, d.err
		}
		ids = ids[:n]
	}
	return done, nil
}

// Stats implements queue.Queue.
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	answer, err := q.ask(ctx, "stats")
	if err != nil {
		return queue.Stats{}, err
	}
	d := decoding{}
	f := d.array(answer, 13)
	now, err := strconv.ParseInt(d.text(f[0]), 10, 64)
	d.note(err)
	stats := queue.Stats{
		Ready: d.integer(f[1]), Delayed: d.integer(f[2]), Claimed: d.integer(f[3]), Leased: d.integer(f[4]),
		Retry: d.integer(f[5]), Dead: d.integer(f[6]),
		Done: d.integer(f[9]), Buried: d.integer(f[10]), Dropped: d.integer(f[11]),
	}
	rates(&stats, d.samples(f[12]), now, d.integer(f[7]), d.integer(f[8]))
	return stats, d.err
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(0, d).Milliseconds(), 10) }
