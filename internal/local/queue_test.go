package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestQueueOfOneMachine pushes, looks, buries, retries and drops through what the commands ask.
func TestQueueOfOneMachine(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	dir, err := os.MkdirTemp("", "oq") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	manifest := strings.NewReplacer(
		"metadata: {name: work}", "metadata: {name: work, annotations: {autoscaling.keda.sh/paused: \"true\"}}",
		"{listName: list}", `{listName: list, address: "`+server.Addr()+`"}`,
		"pollingInterval: 1", "delivery: {mode: claim}\n  pollingInterval: 1",
	).Replace(pausable)
	write(t, filepath.Join(dir, "work.yaml"), manifest)
	e, _ := engine(t, dir)
	ctx, list := t.Context(), control.Queue{Name: "list"}

	if result, err := e.Push(ctx, list, [][]byte{[]byte("a"), []byte("b")}); err != nil || result.Length != 2 {
		t.Fatalf("got %+v, %v", result, err)
	}
	unique := queue.PushOptions{Delay: time.Hour, Unique: "k", UniqueFor: time.Hour}
	pushed, err := e.PushWith(ctx, list, unique, [][]byte{{0, 0xff}})
	if err != nil || len(pushed.IDs) != 1 || pushed.HeldBy != "" {
		t.Fatalf("got %+v, %v", pushed, err)
	}
	again, err := e.PushWith(ctx, list, unique, [][]byte{{1}})
	if err != nil || again.HeldBy != pushed.IDs[0] {
		t.Errorf("got %+v, %v", again, err)
	}
	record, err := e.Items(ctx, list, control.Selection{ID: pushed.IDs[0]})
	if err != nil || record[0].State != queue.Delayed || string(record[0].Parts[0]) != "\x00\xff" {
		t.Errorf("got %+v, %v", record, err)
	}

	// A claim that nobody settles, as a ScaledJob leaves it behind whose queue could not be reached.
	var claims []queue.Claim
	if err := e.withQueue(ctx, list, func(q queue.Queue) error {
		result, err := q.Claim(ctx, queue.ClaimOptions{Owner: "default/gone", Most: 2})
		claims = result.Claims
		return err
	}); err != nil || len(claims) != 2 {
		t.Fatalf("got %+v, %v", claims, err)
	}
	done, err := e.Change(ctx, list, control.GiveBack, []control.ItemRef{
		{ID: claims[1].ID, Attempt: 1}, {ID: claims[0].ID, Attempt: 1}, {ID: claims[0].ID, Attempt: 2},
	})
	if want := []string{claims[0].ID, claims[1].ID}; err != nil || !slices.Equal(done, want) {
		t.Errorf("got %q, %v, want %q", done, err, want)
	}
	ready, err := e.Items(ctx, list, control.Selection{State: queue.Ready, Limit: 10})
	if err != nil || len(ready) != 2 || string(ready[0].Parts[0]) != "a" || string(ready[1].Parts[0]) != "b" {
		t.Errorf("got %+v, %v", ready, err)
	}
	if stats, err := e.Stats(ctx, list); err != nil || stats.Ready != 2 || stats.Delayed != 1 || stats.Claimed != 0 {
		t.Errorf("got %+v, %v", stats, err)
	}
	for operation, refs := range map[control.Operation][]control.ItemRef{
		control.RetryDead: {{ID: pushed.IDs[0]}}, control.DropDead: {{ID: "none"}},
	} {
		if done, err := e.Change(ctx, list, operation, refs); err != nil || len(done) != 0 {
			t.Errorf("%s of what is not dead: got %q, %v", operation, done, err)
		}
	}
	if _, err := e.Items(ctx, list, control.Selection{ID: "none"}); control.ReasonOf(err) != control.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := e.Stats(ctx, control.Queue{Name: "other"}); control.ReasonOf(err) != control.NotFound ||
		!strings.Contains(err.Error(), `there is "list"`) {
		t.Errorf("got %v", err)
	}
	server.Kill()
	if _, err := e.Stats(ctx, list); control.ReasonOf(err) != control.Unavailable {
		t.Errorf("got %v", err)
	}
}

// TestQueuesOfOneName has a list and a stream of one name on two servers.
func TestQueuesOfOneName(t *testing.T) {
	t.Parallel()
	lists, streams := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	dir, err := os.MkdirTemp("", "oq") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	one := strings.NewReplacer(
		"metadata: {name: work}", "metadata: {name: work, annotations: {autoscaling.keda.sh/paused: \"true\"}}",
		"{listName: list}", `{listName: list, address: "`+lists.Addr()+`"}`,
	).Replace(pausable)
	other := strings.NewReplacer(
		"name: work,", "name: other,", "type: redis,", "type: redis-streams,",
		"listName: list", "stream: list, consumerGroup: g, pendingEntriesCount: \"1\"", lists.Addr(), streams.Addr(),
	).Replace(one)
	write(t, filepath.Join(dir, "work.yaml"), one+"---\n"+other)
	e, _ := engine(t, dir)
	items := [][]byte{[]byte("a")}
	_, err = e.Push(t.Context(), control.Queue{Name: "list"}, items)
	if control.ReasonOf(err) != control.BadRequest || !strings.Contains(err.Error(), "--scaledjob") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"work", "other"} {
		if _, err := e.Push(t.Context(), control.Queue{Name: "list", ScaledJob: name}, items); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
