package redisqueue

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// reader is a stream with a group, and what others do to it.
type reader struct {
	*testing.T
	server *redistest.Server
	q      *Queue
	ids    map[string]string // of entries, by item
}

func startStream(t *testing.T) *reader {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	return &reader{t, server, NewStream(conn{server.Client()}, Stream{Key: "work", Group: "workers"}), map[string]string{}}
}

func (r *reader) add(items ...string) {
	r.Helper()
	for _, item := range items {
		answer := r.server.Do("XADD", "work", "*", "any", item)
		id, err := answer.ToString()
		if err != nil {
			r.Fatal(err)
		}
		r.ids[item] = id
	}
}

// claim claims and wants these items.
func (r *reader) claim(most int, want ...string) []queue.Claim {
	r.Helper()
	result, err := r.q.Claim(r.Context(), queue.ClaimOptions{Owner: "o", Most: most})
	if err != nil {
		r.Fatal(err)
	}
	var got []string
	for _, claim := range result.Claims {
		for _, part := range claim.Parts {
			got = append(got, string(part))
		}
	}
	if !slices.Equal(got, want) {
		r.Fatalf("claimed %q, want %q", got, want)
	}
	return result.Claims
}

func (r *reader) settle(verb queue.Verb, claims ...queue.Claim) {
	r.Helper()
	for _, claim := range claims {
		s := queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: verb}
		if verb == queue.Bury {
			s.Failure = &queue.Failure{Reason: "R"}
		}
		if held, err := r.q.Settle(r.Context(), []queue.Settlement{s}); err != nil || !held[0] {
			r.Fatalf("%s: %v, %v", verb, held, err)
		}
	}
}

// pending wants these items to be pending for our consumer.
func (r *reader) pending(want ...string) {
	r.Helper()
	answer := r.server.Do("XPENDING", "work", "workers", "-", "+", "100", "offboard")
	rows, err := answer.ToArray()
	if err != nil {
		r.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		fields, _ := row.ToArray()
		id, _ := fields[0].ToString()
		got = append(got, id)
	}
	var ids []string
	for _, item := range want {
		ids = append(ids, r.ids[item])
	}
	if !slices.Equal(got, ids) {
		r.Errorf("pending are %q, want %q, which are %q", got, ids, want)
	}
}

func (r *reader) ready(want int64) {
	r.Helper()
	if stats, err := r.q.Stats(r.Context()); err != nil || stats.Ready != want {
		r.Errorf("ready are %+v, %v, want %d", stats, err, want)
	}
}

// TestEntriesArePendingUntilTheirEnd follows entries through everything that may become of an item.
func TestEntriesArePendingUntilTheirEnd(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	r.add("a", "b", "c", "d", "e", "f")
	claims := r.claim(5, "a", "b", "c", "d", "e")
	r.pending("a", "b", "c", "d", "e")
	r.settle(queue.Ack, claims[0])
	r.settle(queue.Bury, claims[1])
	r.settle(queue.Drop, claims[2])
	r.settle(queue.GiveBack, claims[3])
	r.settle(queue.PutOff, claims[4])
	r.pending("d", "e")
	r.ready(2)
	// What was buried is acknowledged, and its bytes are here.
	if ids, err := r.q.RetryDead(t.Context(), claims[1].ID); err != nil || len(ids) != 1 {
		t.Fatalf("%v, %v", ids, err)
	}
	r.server.Do("XTRIM", "work", "MAXLEN", "1")
	last := r.claim(9, "b", "d", "e", "f")
	r.pending("d", "e", "f")
	r.settle(queue.GiveBack, last...)
	r.settle(queue.Ack, r.claim(9, "b", "d", "e", "f")...)
	r.pending()
	answer := r.server.Do("KEYS", "{work}:offboard:*")
	left, err := answer.AsStrSlice()
	slices.Sort(left)
	if want := []string{"{work}:offboard:group:workers:state"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are the keys %q, %v, want %q", left, err, want)
	}
}

// TestWhatOthersTakeIsNotOurs lets other consumers acknowledge and claim entries while they are given back or put off.
func TestWhatOthersTakeIsNotOurs(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	r.add("a", "b", "c", "d", "e")
	r.settle(queue.GiveBack, r.claim(4, "a", "b", "c", "d")...)
	r.server.Do("XACK", "work", "workers", r.ids["a"])
	r.server.Do("XCLAIM", "work", "workers", "other", "0", r.ids["c"])
	r.server.Do("XDEL", "work", r.ids["d"]) // which takes it from nobody
	claims := r.claim(9, "b", "d", "e")
	if len(claims) != 3 || claims[0].Attempt != 2 {
		t.Errorf("got %+v", claims)
	}
	r.ready(0)
	// What others take while it runs is done when the run succeeds, and theirs when it does not.
	r.server.Do("XCLAIM", "work", "workers", "other", "0", r.ids["b"], r.ids["e"])
	r.settle(queue.Ack, claims[0], claims[1])
	r.settle(queue.GiveBack, claims[2])
	r.claim(9)
	answer := r.server.Do("XPENDING", "work", "workers")
	summary, err := answer.ToArray()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := summary[0].AsInt64(); err != nil || n != 2 {
		t.Errorf("%d are pending, %v, want c and e of the other consumer", n, err)
	}
	// And others read from the same group.
	r.add("f", "g")
	r.server.Do("XREADGROUP", "GROUP", "workers", "other", "COUNT", "1", "STREAMS", "work", ">")
	r.ready(1)
	r.claim(9, "g")
}

// TestGroupThatGoes lets the group and the stream be deleted and come back.
func TestGroupThatGoes(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	r.add("done", "back", "held", "buried", "new")
	claims := r.claim(4, "done", "back", "held", "buried")
	r.settle(queue.Ack, claims[0])
	r.settle(queue.Bury, claims[3])
	r.settle(queue.GiveBack, claims[1])
	r.server.Do("XGROUP", "DESTROY", "work", "workers")
	r.ready(2)
	// It begins where it was: what is done is not handed out again, and what was taken is not lost.
	r.claim(9, "back", "new")
	r.settle(queue.GiveBack, claims[2])
	r.claim(9, "held")
	r.pending("new")
	// The same holds where others make the group again, or delete our consumer of it.
	r.server.Do("XGROUP", "DELCONSUMER", "work", "workers", "offboard")
	if released, err := r.q.Release(t.Context(), ""); err != nil || released != 3 {
		t.Fatalf("released %d, %v", released, err)
	}
	r.settle(queue.GiveBack, r.claim(9, "back", "held", "new")...)
	r.server.Do("XGROUP", "DESTROY", "work", "workers")
	r.server.Do("XGROUP", "CREATE", "work", "workers", "$")
	r.claim(9, "back", "held", "new")
	// Another stream with ids from before begins at its beginning.
	r.server.Do("DEL", "work")
	r.server.Do("XADD", "work", "1-1", "any", "first")
	r.server.Do("XADD", "work", "1-2", "any", "second")
	r.ready(2)
	again := r.claim(1, "first")
	if ids, err := r.q.RetryDead(t.Context(), claims[3].ID); err != nil || len(ids) != 1 {
		t.Fatalf("%v, %v", ids, err)
	}
	r.settle(queue.GiveBack, again...)
	r.claim(9, "first", "buried", "second") // in the order of their ids
	// A group of others is used as it is.
	if _, err := r.q.Release(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	other := NewStream(conn{r.server.Client()}, Stream{Key: "work", Group: "late"})
	r.server.Do("XGROUP", "CREATE", "work", "late", "1-1")
	result, err := other.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 9})
	if err != nil || len(result.Claims) != 1 || string(result.Claims[0].Parts[0]) != "second" {
		t.Errorf("got %+v, %v", result, err)
	}
}

// TestPartsComeBackInTheOrderOfTheStream gives a claim of several entries back in several ways.
func TestPartsComeBackInTheOrderOfTheStream(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	var items []string
	for i := range 12 {
		items = append(items, fmt.Sprint(i))
	}
	r.add(items...)
	r.add("x", "y")
	whole, err := r.q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1, Parts: 12})
	if err != nil || len(whole.Claims) != 1 || len(whole.Claims[0].Parts) != 12 {
		t.Fatalf("%+v, %v", whole, err)
	}
	r.settle(queue.GiveBack, whole.Claims...)
	r.settle(queue.GiveBack, r.claim(3, "0", "1", "2")...)
	r.server.Do("XACK", "work", "workers", r.ids["3"])
	records, err := r.q.List(t.Context(), queue.Ready, 11, 9)
	if err != nil || len(records) != 3 || string(records[0].Parts[0]) != "11" || string(records[2].Parts[0]) != "y" {
		t.Errorf("got %+v, %v", records, err)
	}
	want := append(slices.Delete(slices.Clone(items), 3, 4), "x", "y")
	r.settle(queue.Ack, r.claim(99, want...)...)
	r.pending()
}

// TestKnownIDsThatOthersRead reads an entry whose id is known through another consumer: nothing is left of it.
func TestKnownIDsThatOthersRead(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	for _, item := range []string{"theirs", "ours"} {
		pushed, err := r.q.Push(t.Context(), queue.PushOptions{Unique: item, UniqueFor: time.Hour}, []byte(item))
		if err != nil || len(pushed.IDs) != 1 {
			t.Fatalf("%+v, %v", pushed, err)
		}
	}
	r.ready(2)
	r.server.Do("XGROUP", "CREATE", "work", "workers", "0")
	r.server.Do("XREADGROUP", "GROUP", "workers", "other", "COUNT", "1", "STREAMS", "work", ">")
	records, err := r.q.List(t.Context(), queue.Ready, 0, 9)
	if err != nil || len(records) != 1 || records[0].ID == "" {
		t.Errorf("got %+v, %v", records, err)
	}
	if claims := r.claim(9, "ours"); len(records) == 1 && claims[0].ID != records[0].ID {
		t.Errorf("got %+v, want the id %s", claims, records[0].ID)
	}
	answer := r.server.Do("EXISTS", "{work}:offboard:group:workers:past")
	if n, err := answer.AsInt64(); err != nil || n != 0 {
		t.Errorf("something is remembered of an entry that is gone: %d, %v", n, err)
	}
}

// TestNothingIsReadWithoutAllRights is TestNothingIsTakenWithoutAllRights for a stream.
func TestNothingIsReadWithoutAllRights(t *testing.T) {
	t.Parallel()
	r := startStream(t)
	r.add("a")
	for _, command := range []string{
		"evalsha", "eval", "time", "exists", "del", "hget", "hmget", "hset", "hdel", "hincrby", "zadd", "zrem", "zrange",
		"zrangebyscore", "zcard", "get", "set", "xreadgroup", "xgroup|create", "xgroup|createconsumer", "xgroup|setid", "xinfo|groups", "xinfo|stream",
		"xpending", "xack", "xadd", "xrange", "xlen",
	} {
		name, _, _ := strings.Cut(command, "|")
		r.server.Do("SCRIPT", "FLUSH")
		r.server.Do("ACL", "SETUSER", command, "on", ">p", "~work", "~{work}:offboard:*", "+@all", "-"+command)
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{r.server.Addr()}, Username: command, Password: "p", ForceSingleClient: true, DisableCache: true,
			ConnWriteTimeout: time.Minute, Dialer: net.Dialer{Timeout: time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		q := NewStream(conn{client}, Stream{Key: "work", Group: "workers"})
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1, Lease: 1e9})
		client.Close()
		if err == nil || !strings.Contains(err.Error(), "can't run this command") &&
			!strings.Contains(strings.ToUpper(err.Error()), strings.ToUpper(name)) {
			t.Errorf("without %s: %+v, %v", command, result, err)
		}
		answer := r.server.Do("EXISTS", "{work}:offboard:group:workers:meta")
		if n, err := answer.AsInt64(); err != nil || n != 0 {
			t.Fatalf("without %s: it was taken, %v", command, err)
		}
	}
}

func TestStreamWithoutAGroup(t *testing.T) {
	t.Parallel()
	q := NewStream(conn{}, Stream{Key: "work"})
	if _, err := q.Sweep(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func FuzzStreamName(f *testing.F) {
	for _, name := range []string{"", "/", "a/b", "a%2Fb/c", "%", "a/%zz", "a/b/c", "\xff\x00"} {
		f.Add(name, "group")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		s := Stream{Key: a, Group: b, Field: "f"}
		if got := (Stream{Group: "g", Field: "f"}).Named(s.Name()); got != s {
			t.Errorf("%q is read as %+v, want %+v", s.Name(), got, s)
		}
		// What it reads of any text has a name that reads the same.
		read := s.Named(a)
		if got := s.Named(read.Name()); got != read {
			t.Errorf("%q is read as %+v, want %+v", read.Name(), got, read)
		}
	})
}

// TestStreamKeysAreDocumented holds docs/queue-redis-streams.md to the keys and their types.
func TestStreamKeysAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/queue-redis-streams.md")
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, redistest.Options{})
	s := Stream{Key: "usertask", Group: "workers"}
	q := NewStream(conn{server.Client()}, s)
	r := &reader{t, server, q, map[string]string{}}
	for _, item := range []string{"dead", "due", "back", "claimed"} {
		server.Do("XADD", s.Key, "*", "any", item)
	}
	claims := r.claim(4, "dead", "due", "back", "claimed")
	r.settle(queue.Bury, claims[0])
	if held, err := q.Settle(t.Context(), []queue.Settlement{
		{ID: claims[1].ID, Attempt: 1, Verb: queue.PutOff, Wait: time.Hour},
	}); err != nil || !held[0] {
		t.Fatalf("%v, %v", held, err)
	}
	r.settle(queue.GiveBack, claims[3])
	leased, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1, Lease: time.Hour})
	if err != nil || len(leased.Claims) != 1 {
		t.Fatalf("%+v, %v", leased, err)
	}
	r.settle(queue.GiveBack, claims[2])
	for _, o := range []queue.PushOptions{{Delay: time.Hour}, {Unique: "KEY", UniqueFor: time.Hour}} {
		if _, err := q.Push(t.Context(), o, []byte("pushed")); err != nil {
			t.Fatal(err)
		}
	}
	types := map[string]string{"stream": "stream", "hash": "hash", "sorted set": "zset", "string": "string"}
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| ").FindAllStringSubmatch(string(doc), -1) {
		rows[row[1]] = types[row[2]]
	}
	want := append(slices.Clone(q.keys), uniqueKey(q.prefix, "KEY"))
	if len(rows) != len(want) {
		t.Errorf("the document has %d rows of keys, want %d", len(rows), len(want))
	}
	for _, key := range want {
		answer := server.Do("TYPE", key)
		if got, err := answer.ToString(); err != nil || got == "none" || got != rows[key] {
			t.Errorf("%s is a %s, %v, the document says %q", key, got, err, rows[key])
		}
	}
}

// TestDocumentedRights claims and settles as the user of docs/queue-redis-streams.md.
func TestDocumentedRights(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/queue-redis-streams.md")
	if err != nil {
		t.Fatal(err)
	}
	rights := regexp.MustCompile("needs these rights: `([^`]+)` and `([^`]+)`").FindStringSubmatch(string(doc))
	if rights == nil {
		t.Fatal("the document does not say which rights are needed")
	}
	server := redistest.Start(t, redistest.Options{})
	server.Do(slices.Concat([]string{"ACL", "SETUSER", "worker", "on", ">p"}, strings.Fields(rights[1]), strings.Fields(rights[2]))...)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr()}, Username: "worker", Password: "p", ForceSingleClient: true, DisableCache: true,
		ConnWriteTimeout: time.Minute, Dialer: net.Dialer{Timeout: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	q := NewStream(conn{client}, Stream{Key: "usertask", Group: "workers"})
	if _, err := q.Push(t.Context(), queue.PushOptions{}, []byte("a"), []byte("b"), []byte("c"), []byte("d")); err != nil {
		t.Fatal(err)
	}
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 4, Lease: time.Hour})
	if err != nil || len(result.Claims) != 4 {
		t.Fatalf("%+v, %v", result, err)
	}
	for i, verb := range []queue.Verb{queue.Ack, queue.PutOff, queue.Bury, queue.GiveBack} {
		held, err := q.Settle(t.Context(), []queue.Settlement{{ID: result.Claims[i].ID, Attempt: 1, Verb: verb}})
		if err != nil || !held[0] {
			t.Errorf("%s: %v, %v", verb, held, err)
		}
	}
	if _, err := q.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}
