package redisqueue

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// everyState gives a list items in each state: 5 are ready, 3 claimed, 2 of these with leases, 1 is put off, 2 are delayed
// and 1 is dead. Every key exists then.
func everyState(t *testing.T, q *Queue, server *redistest.Server) {
	t.Helper()
	list := q.Name()
	server.Do("RPUSH", list, "dead", "known", "again", "handed", "leased", "leased too", "ready", "ready too", "ready as well")
	settle := func(claims []queue.Claim, settlement queue.Settlement) {
		t.Helper()
		for _, claim := range claims {
			settlement.ID, settlement.Attempt = claim.ID, claim.Attempt
			held, err := q.Settle(t.Context(), []queue.Settlement{settlement})
			if err != nil || !held[0] {
				t.Fatalf("%v, %v", held, err)
			}
		}
	}
	claim := func(most int, lease time.Duration) []queue.Claim {
		t.Helper()
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: most, Lease: lease})
		if err != nil || len(result.Claims) != most {
			t.Fatalf("%+v, %v", result, err)
		}
		return result.Claims
	}
	failure := &queue.Failure{Reason: "ExitCode", At: time.Now()}
	settle(claim(1, 0), queue.Settlement{Verb: queue.Bury, Failure: failure})
	known := claim(1, 0)
	settle(claim(1, 0), queue.Settlement{Verb: queue.PutOff, Wait: time.Hour, Failure: failure})
	claim(1, 0)
	claim(2, time.Hour)
	settle(known, queue.Settlement{Verb: queue.GiveBack, Failure: failure})
	for _, item := range []string{"later", "much later", "unique"} {
		o := queue.PushOptions{Delay: time.Hour}
		if item == "unique" {
			o = queue.PushOptions{Unique: "KEY", UniqueFor: time.Hour}
		}
		if _, err := q.Push(t.Context(), o, []byte(item)); err != nil {
			t.Fatal(err)
		}
	}
}

// measure returns the size of a key as triggers of type redis measure it, by the type of the key.
func measure(t *testing.T, server *redistest.Server, key string) int64 {
	t.Helper()
	kind := server.Do("TYPE", key)
	name, err := kind.ToString()
	if err != nil {
		t.Fatal(err)
	}
	command := map[string]string{"list": "LLEN", "none": "LLEN", "zset": "ZCARD", "set": "SCARD", "hash": "HLEN"}[name]
	if command == "" {
		t.Fatalf("%s is a %s, which has no size", key, name)
	}
	answer := server.Do(command, key)
	size, err := answer.ToInt64()
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// TestKeyTypes holds the types of the keys to docs/queue.md: others measure some of them.
func TestKeyTypes(t *testing.T) {
	t.Parallel()
	_, _, doc := documented(t)
	q, server := start(t, "usertask")
	everyState(t, q, server)
	types := map[string]string{"list": "list", "hash": "hash", "sorted set": "zset", "string": "string"}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| ").FindAllStringSubmatch(doc, -1)
	for _, row := range rows {
		kind := server.Do("TYPE", row[1])
		if got, err := kind.ToString(); err != nil || got != types[row[2]] {
			t.Errorf("%s is a %s, %v, want %s", row[1], got, err, types[row[2]])
		}
	}
	if want := len(keys("usertask")) + 1; len(rows) != want {
		t.Errorf("docs/queue.md has %d rows of keys, want %d", len(rows), want)
	}
}

// TestTriggersNextToKEDA measures what the manifest of docs/runner.md measures.
func TestTriggersNextToKEDA(t *testing.T) {
	t.Parallel()
	q, server := start(t, "usertask")
	for _, key := range documentedTriggers(t) {
		if size := measure(t, server, key); size != 0 {
			t.Errorf("of an empty queue, %s holds %d", key, size)
		}
	}
	everyState(t, q, server)
	var got []int64
	for _, key := range documentedTriggers(t) {
		got = append(got, measure(t, server, key))
	}
	if want := []int64{5, 2, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("the triggers measure %d, want %d: what is ready, leased, put off and delayed", got, want)
	}
}

// documentedTriggers returns the keys that the triggers of the manifest in docs/runner.md measure.
func documentedTriggers(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "```yaml\n")
	block, _, _ = strings.Cut(block, "```\n")
	var manifest v1alpha1.ScaledJob
	if err := yaml.UnmarshalStrict([]byte(block), &manifest); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, trigger := range manifest.Spec.Triggers {
		keys = append(keys, trigger.Metadata["listName"])
	}
	return keys
}
