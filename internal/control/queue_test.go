package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/queue"
)

// hostile is a queue whose name and namespace want to be somebody else's.
var hostile = Queue{Name: "a queue\n\x00\"'&=%ü\xff", Namespace: "n s", ScaledJob: "a&b"}

func TestPushWith(t *testing.T) {
	t.Parallel()
	var to Queue
	var got queue.PushOptions
	var items [][]byte
	client, _, _ := serve(t, fakeBackend{
		pushWith: func(q Queue, o queue.PushOptions, pushed [][]byte) (queue.Pushed, error) {
			to, got, items = q, o, pushed
			return queue.Pushed{Length: 7, IDs: []string{"1", "2"}, HeldBy: o.Unique}, nil
		},
	})
	at := time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)
	for _, o := range []queue.PushOptions{
		{}, {Delay: 90 * time.Second}, {At: at}, {Unique: "k\x00&\xff", UniqueFor: time.Hour, At: at},
	} {
		want := [][]byte{[]byte("a\x00,"), {}}
		if o.Unique != "" {
			want = want[:1]
		}
		pushed, err := client.PushWith(t.Context(), hostile, o, want)
		if err != nil || pushed.Length != 7 || len(pushed.IDs) != 2 || pushed.HeldBy != strings.ToValidUTF8(o.Unique, "\ufffd") {
			t.Errorf("%+v: got %+v, %v", o, pushed, err)
		}
		if to != hostile || !reflect.DeepEqual(got, o) || !reflect.DeepEqual(items, want) {
			t.Errorf("pushed %q to %q with %+v, want %+v", items, to, got, o)
		}
	}
	to = Queue{}
	for name, test := range map[string]struct {
		options queue.PushOptions
		items   int
	}{
		"no item":      {queue.PushOptions{}, 0},
		"both":         {queue.PushOptions{Delay: 1, At: at}, 1},
		"negative":     {queue.PushOptions{Delay: -1}, 1},
		"for no key":   {queue.PushOptions{UniqueFor: 1}, 1},
		"key for none": {queue.PushOptions{Unique: "k"}, 1},
		"key for two":  {queue.PushOptions{Unique: "k", UniqueFor: 1}, 2},
		"long key":     {queue.PushOptions{Unique: strings.Repeat("k", MaxUniqueKey+1), UniqueFor: 1}, 1},
	} {
		_, err := client.PushWith(t.Context(), hostile, test.options, make([][]byte, test.items))
		if ReasonOf(err) != BadRequest || to != (Queue{}) {
			t.Errorf("%s: got %v, pushed to %q", name, err, to)
		}
	}
}

// What a queue does not support is the fault of who asks, not of a server that does not answer.
func TestQueueErrorReason(t *testing.T) {
	t.Parallel()
	for want, err := range map[Reason]error{
		NotFound:    fmt.Errorf("item: %w", queue.ErrNotFound),
		BadRequest:  fmt.Errorf("for later: %w", errors.ErrUnsupported),
		Unavailable: errors.New("connection refused"),
	} {
		if got := QueueError(err); ReasonOf(got) != want {
			t.Errorf("%v: got %s, want %s", err, ReasonOf(got), want)
		}
	}
	if err := QueueError(nil); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestItemsAndStats(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	failure := &queue.Failure{Reason: "Error", Message: "m", ExitCode: ptr.To(3), Job: "j", At: at, Log: "line\n\x1b[2J"}
	record := queue.Record{
		Claim: queue.Claim{
			ID: "0a", Attempt: 2, Failures: 1, Owner: "n/s", First: at, Since: at, Parts: [][]byte{{0, 0xff, '\n'}, {}},
		},
		State: queue.Dead, Size: 3, Total: 4, FirstFailure: failure, LastFailure: failure, At: at,
	}
	stats := queue.Stats{Ready: 1, Leased: 2, Dropped: 3, Oldest: -1, In: 0.5, Over: time.Minute}
	var of []Queue
	var asked []Selection
	client, _, _ := serve(t, fakeBackend{
		stats: func(q Queue) (queue.Stats, error) {
			of = append(of, q)
			return stats, nil
		},
		items: func(_ context.Context, q Queue, s Selection) ([]queue.Record, error) {
			of, asked = append(of, q), append(asked, s)
			if s.ID == "none" {
				return nil, QueueError(fmt.Errorf("item: %w", queue.ErrNotFound))
			}
			return []queue.Record{record}, nil
		},
	})
	if got, err := client.Stats(t.Context(), hostile); err != nil || got != stats {
		t.Errorf("got %+v, %v", got, err)
	}
	selections := []Selection{{State: queue.Dead, Skip: 3, Limit: MaxRecords}, {ID: "&\x00"}}
	for _, s := range selections {
		if got, err := client.Items(t.Context(), hostile, s); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], record) {
			t.Errorf("%+v: got %+v, %v", s, got, err)
		}
	}
	if _, err := client.Items(t.Context(), hostile, Selection{ID: "none"}); ReasonOf(err) != NotFound {
		t.Errorf("got %v", err)
	}
	if want := append(selections, Selection{ID: "none"}); !slices.Equal(asked, want) ||
		!slices.Equal(of, slices.Repeat([]Queue{hostile}, 4)) {
		t.Errorf("asked %+v of %q", asked, of)
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	var got []ItemRef
	client, _, _ := serve(t, fakeBackend{
		change: func(of Queue, operation Operation, items []ItemRef) ([]string, error) {
			got = items
			return []string{of.Name[:1], string(operation)}, nil
		},
	})
	many := make([]ItemRef, MaxChanges)
	for i := range many {
		many[i] = ItemRef{ID: fmt.Sprintf("%016x", i), Attempt: 1 << 31}
	}
	for _, items := range [][]ItemRef{{{ID: "\x00&\"", Attempt: 3}}, {}, many} {
		done, err := client.Change(t.Context(), hostile, GiveBack, items)
		if err != nil || !slices.Equal(done, []string{"a", "release"}) || !slices.Equal(got, items) {
			t.Errorf("%d items: got %q, %v", len(items), done, err)
		}
	}
	got = nil
	if _, err := client.Change(t.Context(), hostile, DropDead, append(many, ItemRef{})); ReasonOf(err) != BadRequest {
		t.Errorf("too many: got %v", err)
	}
	if _, err := client.Change(t.Context(), hostile, "eat", nil); ReasonOf(err) != BadRequest || got != nil {
		t.Errorf("unknown: got %v", err)
	}
}

// TestQueueRequestsAreRefused sends what no client of ours sends. The backend is not asked: it would panic.
func TestQueueRequestsAreRefused(t *testing.T) {
	t.Parallel()
	client, _, _ := serve(t, fakeBackend{})
	long := url.QueryEscape(strings.Repeat("q", MaxQueueName+1))
	for _, test := range []struct{ method, target, body, want string }{
		{"GET", "/v1/queue/stats", "", "the name of the queue is missing"},
		{"GET", "/v1/queue/stats?queue=" + long, "", "the name of the queue has 65537 bytes"},
		{"GET", "/v1/queue/items?queue=q", "", `in the state ""`},
		{"GET", "/v1/queue/items?queue=q&state=running&limit=1", "", `in the state "running"`},
		{"GET", "/v1/queue/items?queue=q&state=dead", "", "the number of items is 0, must be from 1 to 500"},
		{"GET", "/v1/queue/items?queue=q&state=dead&limit=501", "", "the number of items is 501"},
		{"GET", "/v1/queue/items?queue=q&state=dead&limit=1&skip=-1", "", "must not be negative"},
		{"GET", "/v1/queue/items?queue=q&state=dead&limit=9999999999999999999", "", "limit: must be a number of items"},
		{"POST", "/v1/queue/change?operation=drop", "[]", "the name of the queue is missing"},
		{"POST", "/v1/queue/change?queue=q&operation=ack", "[]", `unknown operation "ack"`},
		{"POST", "/v1/queue/change?queue=q&operation=drop", "{}", "read the items: json: cannot unmarshal object"},
		{"POST", "/v1/queue/change?queue=q&operation=drop", "[", "read the items: unexpected end"},
		{"POST", "/v1/queue/change?queue=q&operation=drop", `["` + strings.Repeat("x", maxChangeBody) + `"]`, "request body too large"},
		{"POST", "/v1/queue/change?queue=q&operation=drop", "[" + strings.Repeat("{},", MaxChanges) + "{}]", "5001 items in one request"},
		{"POST", "/v1/push-with?queue=q&delay=x", "1:a,", `delay: must be a duration such as 1m30s, not "x"`},
		{"POST", "/v1/push-with?queue=q&at=noon", "1:a,", `at: must be a time as of RFC 3339, not "noon"`},
		{"POST", "/v1/push-with?queue=q&unique=k", "1:a,", "how long the unique key holds is 0s"},
		{"POST", "/v1/push-with?queue=q&unique=k&uniqueFor=1s", "1:a,1:b,", "a unique key is for one item"},
		{"POST", "/v1/push-with?queue=q&delay=1s&at=2026-03-04T05:06:07Z", "1:a,", "not both"},
		{"POST", "/v1/push-with?queue=q&delay=1s", "1:a", "read the items"},
		{"POST", "/v1/push-with?queue=q&delay=1s", "", "a push needs at least one item"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, "http://offboard"+test.target, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		err = client.do(request, nil)
		if ReasonOf(err) != BadRequest || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %.80s: got %v %v, want %s", test.method, test.target, ReasonOf(err), err, test.want)
		}
	}
}

// settled is a queue that notes what is settled.
type settled struct {
	queue.Queue
	settlements [][]string
}

func (s *settled) Settle(_ context.Context, settlements []queue.Settlement) ([]bool, error) {
	var ids []string
	held := make([]bool, len(settlements))
	for i, settlement := range settlements {
		ids = append(ids, settlement.ID)
		held[i] = settlement.Verb == queue.GiveBack && settlement.Attempt == 1
	}
	s.settlements = append(s.settlements, ids)
	return held, nil
}

// TestGiveBackKeepsTheOrder has more claims than one step settles.
func TestGiveBackKeepsTheOrder(t *testing.T) {
	t.Parallel()
	var items []ItemRef
	var want []string
	for i := range 2*settleAtOnce + 1 {
		items = append(items, ItemRef{ID: fmt.Sprintf("%016x", i), Attempt: 1 + i%2})
		if i%2 == 0 {
			want = append(want, items[i].ID)
		}
	}
	slices.Reverse(items)
	q := &settled{}
	done, err := Apply(t.Context(), q, GiveBack, items)
	if err != nil || !slices.Equal(done, want) {
		t.Errorf("got %d ids, %v", len(done), err)
	}
	if len(q.settlements) != 3 || q.settlements[0][0] != items[0].ID || q.settlements[2][0] != fmt.Sprintf("%016x", 0) {
		t.Errorf("settled in %d steps", len(q.settlements))
	}
}

func FuzzPushOptions(f *testing.F) {
	f.Add("delay=1m30s&unique=k&uniqueFor=1h")
	f.Add("at=2026-03-04T05:06:07.123456789Z")
	f.Add("at=2026-03-04T05:06:07%2b23:59")
	f.Add("at=9999-12-31T23:59:59-23:59")
	f.Add("delay=-1ns&uniqueFor=9223372036854775807ns")
	f.Add("queue=q&state=dead&limit=1&skip=2&id=%00")
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if of, s, err := selectionOf(query); err == nil && s.ID == "" && (of.Name == "" || s.Limit < 1 || s.Skip < 0) {
			t.Errorf("got %+v of %+v", s, of)
		}
		o, err := pushOptions(query)
		if err != nil || checkPush(o, 1) != nil {
			return
		}
		again, err := pushOptions(pushQuery(o))
		if err != nil || !again.At.Equal(o.At) || again.Delay != o.Delay || again.Unique != o.Unique || again.UniqueFor != o.UniqueFor {
			t.Errorf("%q was read as %+v and again as %+v, %v", text, o, again, err)
		}
	})
}
