package redisqueue

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// documented returns the lines of docs/queue.md that push for later and only once.
func documented(t *testing.T) (later, once, text string) {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i, block := range strings.Split(string(doc), "```sh\n") {
		if line, _, _ := strings.Cut(block, "\n```\n"); i > 0 {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || strings.Contains(lines[0]+lines[1], "\n") {
		t.Fatalf("docs/queue.md has %d blocks of shell, want two of one line each", len(lines))
	}
	return lines[0], lines[1], string(doc)
}

// shell runs a line as a person would who has the server at the usual port. It returns what it prints.
func shell(t *testing.T, server *redistest.Server, line string) string {
	t.Helper()
	_, port, _ := strings.Cut(server.Addr(), ":")
	command := exec.CommandContext(t.Context(), "bash", "-c", `redis-cli() { command redis-cli -p `+port+` "$@"; }
`+line)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimRight(string(out), "\n") // an error is followed by an empty line
}

// forList replaces the name of the list in a documented line.
func forList(line, list string) string {
	return strings.Replace(line, " 1 usertask ", " 1 '"+list+"' ", 1)
}

var listNames = []string{"usertask", "shop{1}", "a{b", "{}", "x{{y}}", "a b:c"}

// TestDocumentedPushForLater runs the line as it is, without our script on the server, and then for other lists.
func TestDocumentedPushForLater(t *testing.T) {
	t.Parallel()
	line, _, _ := documented(t)
	for _, list := range listNames {
		q, server := start(t, list)
		if list == "{}" {
			if answer := shell(t, server, forList(line, list)); answer != "ERR for a list of this name use offboard push" {
				t.Errorf("%s: got %q", list, answer)
			}
			continue
		}
		var ids []string
		for range 3 {
			run := line
			if list != "usertask" {
				run = forList(line, list)
			}
			ids = append(ids, shell(t, server, run))
			pushed, err := q.Push(t.Context(), queue.PushOptions{Delay: 10 * time.Minute}, []byte("ours"))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, pushed.IDs...)
		}
		for i := range ids[1:] {
			if len(ids[i]) != 16 || ids[i] >= ids[i+1] {
				t.Errorf("%s: ids are %q", list, ids)
			}
		}
		records, err := q.List(t.Context(), queue.Delayed, 0, 10)
		if err != nil || len(records) != 6 {
			t.Fatalf("%s: got %+v, %v", list, records, err)
		}
		first := records[0]
		if wait := time.Until(first.At); first.ID != ids[0] || string(first.Parts[0]) != `{"user": 1}` || first.Attempt != 0 ||
			wait < 9*time.Minute || wait > 10*time.Minute || time.Since(first.First) > time.Minute {
			t.Errorf("%s: got %+v", list, first)
		}
		if swept, err := q.Sweep(t.Context()); err != nil || swept.Returned != 0 || swept.Next < 9*time.Minute {
			t.Errorf("%s: too early: %+v, %v", list, swept, err)
		}
		q.now = func() time.Time { return time.Now().Add(11 * time.Minute) }
		if swept, err := q.Sweep(t.Context()); err != nil || swept.Returned != 6 {
			t.Errorf("%s: got %+v, %v", list, swept, err)
		}
		checkClaims(t, q, ids)
	}
}

// checkClaims claims items of these ids and acknowledges them.
func checkClaims(t *testing.T, q *Queue, ids []string) {
	t.Helper()
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 10})
	if err != nil || len(result.Claims) != len(ids) {
		t.Fatalf("%s: got %+v, %v", q.Name(), result, err)
	}
	for i, claim := range result.Claims {
		if claim.ID != ids[i] || claim.Attempt != 1 || claim.Failures != 0 || len(claim.Parts) != 1 {
			t.Errorf("%s: got %+v, want the id %s", q.Name(), claim, ids[i])
		}
		held, err := q.Settle(t.Context(), []queue.Settlement{{ID: claim.ID, Attempt: 1, Verb: queue.Ack}})
		if err != nil || !held[0] {
			t.Errorf("%s: got %v, %v", q.Name(), held, err)
		}
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready+stats.Claimed+stats.Delayed+stats.Retry != 0 {
		t.Errorf("%s: left is %+v, %v", q.Name(), stats, err)
	}
}

// TestDocumentedUniquePush runs the line twice, and mixes it with pushes of ours.
func TestDocumentedUniquePush(t *testing.T) {
	t.Parallel()
	_, line, _ := documented(t)
	for _, list := range listNames {
		if list == "{}" {
			continue
		}
		q, server := start(t, list)
		run := line
		if list != "usertask" {
			run = forList(line, list)
		}
		id := shell(t, server, run)
		if again := shell(t, server, run); again != "HELD "+id {
			t.Errorf("%s: got %q after %q", list, again, id)
		}
		o := queue.PushOptions{Unique: "daily-report", UniqueFor: time.Hour}
		if pushed, err := q.Push(t.Context(), o, []byte("x")); err != nil || pushed.HeldBy != id {
			t.Errorf("%s: got %+v, %v", list, pushed, err)
		}
		// The same bytes under another key are another item.
		o.Unique = "other"
		pushed, err := q.Push(t.Context(), o, []byte(`{"report": "daily"}`))
		if err != nil || len(pushed.IDs) != 1 {
			t.Fatalf("%s: got %+v, %v", list, pushed, err)
		}
		if got := shell(t, server, strings.Replace(run, " daily-report ", " other ", 1)); got != "HELD "+pushed.IDs[0] {
			t.Errorf("%s: got %q", list, got)
		}
		third := shell(t, server, strings.Replace(run, " daily-report 3600000", " 'a key' 1", 1))
		records, err := q.List(t.Context(), queue.Ready, 0, 10)
		if err != nil || len(records) != 3 || records[0].ID != id || string(records[0].Parts[0]) != `{"report": "daily"}` {
			t.Errorf("%s: got %+v, %v", list, records, err)
		}
		checkClaims(t, q, []string{id, pushed.IDs[0], third})
	}
}

// TestKeysAreDocumented looks for the name of each key.
func TestKeysAreDocumented(t *testing.T) {
	t.Parallel()
	_, _, doc := documented(t)
	for _, key := range append(keys("usertask"), uniqueKey(Prefix("usertask"), "KEY")) {
		if !strings.Contains(doc, "| `"+key+"` | ") {
			t.Errorf("docs/queue.md does not tell of the key %s", key)
		}
	}
	for _, code := range []int{65, 75} {
		if !strings.Contains(doc, "\n| "+strconv.Itoa(code)+" | ") {
			t.Errorf("docs/queue.md does not tell of the exit code %d", code)
		}
	}
	if got := keys("shop{1}")[1]; !strings.Contains(doc, "`"+got+"`") {
		t.Errorf("docs/queue.md does not name %s", got)
	}
}
