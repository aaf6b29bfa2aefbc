package redis

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

var (
	_ trigger.Watcher = (*streamTrigger)(nil)
	_ trigger.Pusher  = (*streamTrigger)(nil)
	_ trigger.Claimer = (*streamTrigger)(nil)
)

// streamTrigger measures one stream, or what a consumer group has before it.
//
// Redis tells of entries that are added or deleted, but not of what consumer groups do: XREADGROUP, XACK and XGROUP
// change no key in its eyes (watched with Redis 7.0). So what is remembered is the length alone. The entries that wait
// for a group are counted anew each time, and a new one is noticed at once; how many are pending is left to the poll.
type streamTrigger struct {
	*claims

	key, group string
	stream     redisqueue.Stream
	// claimed tells that items are handed out by claim.
	claimed  bool
	backKind atomic.Pointer[kind]
}

func newStreamTrigger(clients *Clients, s settings, cfg trigger.Config, values trigger.Values) trigger.Trigger {
	stream := redisqueue.Stream{
		Key: values.String(paramStream), Group: values.String(paramGroup), Field: values.String(paramItemField),
	}
	made := &streamTrigger{
		claims: newClaims(clients, s, cfg, "stream", stream.WakeKey(), stream.ClaimedKey()),
		key:    stream.Key, group: stream.Group, stream: stream, claimed: cfg.Claims,
	}
	made.backKind.Store(&zsetKind)
	made.threshold, made.watched = streamThreshold(values), []string{made.key}
	made.read = map[factor]func(context.Context) (reading, error){
		byLength: made.readLength, byPending: made.readPending, byLag: made.readLag,
	}[factorOf(values)]
	if cfg.Claims {
		made.watched = append(made.watched, made.wakeKey, stream.BackKey())
		made.read = made.readClaimable
	}
	return made
}

// factor is what of a stream is measured.
type factor int

const (
	byLength factor = iota
	byPending
	byLag
)

// factorOf decides as KEDA does.
func factorOf(values trigger.Values) factor {
	switch {
	case values.String(paramGroup) == "":
		return byLength
	case values.Int(paramLag) == 0:
		return byPending
	default:
		return byLag
	}
}

// targetOf returns the parameter that says how much of what is measured one Job takes.
func targetOf(chosen factor) string {
	return map[factor]string{byLength: paramStreamLength, byPending: paramPending, byLag: paramLag}[chosen]
}

func streamThreshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{
		Target: float64(values.Int(targetOf(factorOf(values)))), Activation: float64(values.Int(paramStreamActivation)),
	}
}

func (t *streamTrigger) readLength(ctx context.Context) (got reading, err error) {
	got.holds, err = t.server.read(ctx, t.key, func(opened *session, age time.Duration) error {
		message, err := opened.cached(ctx, rueidis.Cacheable(opened.client.B().Xlen().Key(t.key).Build()), age)
		if err == nil {
			got.size, err = number(message)
		}
		return t.explain(err)
	})
	return got, err
}

func (t *streamTrigger) readPending(ctx context.Context) (got reading, err error) {
	_, err = t.server.read(ctx, t.key, func(opened *session, _ time.Duration) error {
		answer, err := opened.do(ctx, opened.client.B().Xpending().Key(t.key).Group(t.group).Build())[0].ToArray()
		if err == nil && len(answer) == 0 {
			err = errShape
		}
		if err == nil {
			got.size, err = number(answer[0])
		}
		return t.explain(err)
	})
	return got, err
}

func (t *streamTrigger) readLag(ctx context.Context) (got reading, err error) {
	_, err = t.server.read(ctx, t.key, func(opened *session, _ time.Duration) error {
		var err error
		got.size, err = opened.lag(ctx, t.key, t.group)
		return t.explain(err)
	})
	return got, err
}

// readClaimable counts what can be claimed: what the group has not read, and what was read before and is back.
func (t *streamTrigger) readClaimable(ctx context.Context) (got reading, err error) {
	_, err = t.server.read(ctx, t.key, func(opened *session, _ time.Duration) error {
		var err error
		got.size, err = opened.unread(ctx, t.key, t.group)
		return t.explain(err)
	})
	if err != nil {
		return got, err
	}
	back, err := t.size(ctx, t.stream.BackKey(), &t.backKind)
	if err != nil {
		return got, err
	}
	got.size += back.size
	return t.readWake(ctx, got)
}

// Items implements trigger.Claimer.
func (t *streamTrigger) Items(name string) queue.Queue {
	stream := t.stream
	if name != "" {
		stream = stream.Named(name)
	}
	return redisqueue.NewStream(t.scripts, stream)
}

// Push implements trigger.Pusher with XADD. It returns what can be claimed then, or the length of the stream where
// items are not handed out or that cannot be measured.
func (t *streamTrigger) Push(ctx context.Context, items ...[]byte) (int64, error) {
	length, err := push(ctx, t.server, t.key, items, t.xadd)
	if err != nil {
		return 0, fmt.Errorf("push to %q: %w", t.key, err)
	}
	if t.claimed && len(items) > 0 {
		if got, err := t.bounded(ctx); err == nil {
			length = got.size
		}
	}
	return length, nil
}

// xadd appends to the stream, and asks for its length.
func (t *streamTrigger) xadd(build rueidis.Builder, key string, items [][]byte) []rueidis.Completed {
	commands := make([]rueidis.Completed, 0, len(items)+1)
	for _, item := range items {
		commands = append(commands, build.Xadd().Key(key).Id("*").FieldValue().
			FieldValue(cmp.Or(t.stream.Field, redisqueue.DefaultField), rueidis.BinaryString(item)).Build())
	}
	return append(commands, build.Xlen().Key(key).Build())
}

// Queue implements trigger.Pusher.
func (t *streamTrigger) Queue() string { return t.key }

// explain says what an error reply means for a stream.
func (t *streamTrigger) explain(err error) error {
	switch replyWord(err) {
	case "WRONGTYPE":
		return keyError{message: "holds no stream", cause: err}
	case "NOGROUP":
		return keyError{message: fmt.Sprintf("has no consumer group %q, or there is no such stream; create both with "+
			"XGROUP CREATE and MKSTREAM", t.group), cause: err}
	default:
		return err
	}
}

// number returns the number that a server answers.
func number(message rueidis.RedisMessage) (int64, error) {
	count, err := message.AsInt64()
	if err != nil {
		return 0, errShape
	}
	return count, nil
}

// lagPage is how many entries are counted one by one where the server does not know how many wait.
const lagPage = 100

// lag returns how many entries of the stream the group has not read yet, and asks the server to tell of changes.
//
// As with KEDA a stream that does not exist has none, and for a group that does not exist all are new. Where the server
// does not know the number, because entries were deleted or the group began in the middle, KEDA takes it for -1, so
// that nothing is started and the number stays unknown; here those entries are counted, up to lagPage.
func (s *session) lag(ctx context.Context, key, group string) (int64, error) {
	found, err := s.group(ctx, key, group)
	switch {
	case err != nil:
		return 0, err
	case found == nil:
		return s.do(ctx, s.client.B().Xlen().Key(key).Build())[0].AsInt64()
	case !found.told:
		return 0, errNoLag
	case found.lag != nil:
		return *found.lag, nil
	}
	return s.count(ctx, key, found.last, lagPage)
}

// group returns what the server tells of the group, and asks it to tell of changes of the stream; nil when there is no
// such group or no stream.
func (s *session) group(ctx context.Context, key, group string) (*streamGroup, error) {
	answer, err := s.told(ctx, s.client.B().XinfoGroups().Key(key).Build()).ToAny()
	if err != nil {
		if strings.HasSuffix(replyText(err), "no such key") { // rueidis takes ERR off
			return nil, nil //nolint:nilnil // that there is no stream is an answer, not a failure
		}
		return nil, err
	}
	return findGroup(answer, group)
}

// countMost is up to how many entries are counted one by one that can be claimed.
const countMost = 100 * lagPage

// unread returns how many entries of the stream the group has not read, as the script of redisqueue counts them: what
// the server says is certain only if it has counted what the group has read, and also counts entries that were trimmed.
func (s *session) unread(ctx context.Context, key, group string) (int64, error) {
	found, err := s.group(ctx, key, group)
	if err != nil {
		return 0, err
	}
	length, err := s.do(ctx, s.client.B().Xlen().Key(key).Build())[0].AsInt64()
	switch {
	case err != nil, found == nil, found.last == "0-0":
		return length, err
	case found.counted && found.lag != nil:
		return min(*found.lag, length), nil
	}
	return s.count(ctx, key, found.last, countMost)
}

// count counts the entries after one of them, up to most.
func (s *session) count(ctx context.Context, key, after string, most int64) (n int64, err error) {
	for n < most {
		page, err := s.do(ctx, s.client.B().Xrange().Key(key).Start("("+after).End("+").Count(lagPage).Build())[0].AsXRange()
		if err != nil {
			return 0, err
		}
		n += int64(len(page))
		if len(page) < lagPage {
			break
		}
		after = page[len(page)-1].ID
	}
	return n, nil
}

// told runs a command that reads a key, which the server is to tell of when it changes.
func (s *session) told(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	if s.tracked {
		return s.do(ctx, s.client.B().ClientCaching().Yes().Build(), command)[1]
	}
	return s.do(ctx, command)[0]
}

// streamGroup is what XINFO GROUPS tells of one group.
type streamGroup struct {
	// last is the id of the entry that was last read.
	last string
	// lag is how many entries are new to the group; nil where the server does not know. told tells that it says so much,
	// counted that it has counted those that are not.
	lag           *int64
	told, counted bool
}

// errNoLag tells that the server is too old.
const errNoLag = answerError("does not tell how many entries a group has not read, which Redis does since 7.0: " +
	"leave out lagCount and give pendingEntriesCount")

// findGroup returns the group out of an answer of XINFO GROUPS (https://redis.io/docs/latest/commands/xinfo-groups);
// nil when there is none of that name. Each group is a map, or a list of names and values in RESP2.
func findGroup(answer any, name string) (*streamGroup, error) {
	groups, ok := answer.([]any)
	if !ok {
		return nil, errShape
	}
	for _, entry := range groups {
		fields, ok := asMap(entry)
		if !ok {
			return nil, errShape
		}
		if fields["name"] != name {
			continue
		}
		last, ok := fields["last-delivered-id"].(string)
		if !ok {
			return nil, errShape
		}
		lag, told := fields["lag"]
		number, known := lag.(int64)
		if lag != nil && !known {
			return nil, errShape
		}
		found := &streamGroup{last: last, told: told, counted: fields["entries-read"] != nil}
		if known {
			found.lag = &number
		}
		return found, nil
	}
	return nil, nil //nolint:nilnil // that there is no such group is an answer, not a failure
}

func asMap(answer any) (map[string]any, bool) {
	if fields, ok := answer.(map[string]any); ok {
		return fields, true
	}
	list, ok := answer.([]any)
	if !ok || len(list)%2 != 0 {
		return nil, false
	}
	fields := map[string]any{}
	for i := 0; i < len(list); i += 2 {
		name, ok := list[i].(string)
		if !ok {
			return nil, false
		}
		fields[name] = list[i+1]
	}
	return fields, true
}
