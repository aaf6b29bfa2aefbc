package queuetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Chaos is a run of items in which things fail at random: what pushes the items, and what must hold in the end.
type Chaos struct {
	// Items is how many there are, and Producers from how many sides they come.
	Items, Producers int
	// Seed makes the run the same again as far as the machine lets it; the variable CHAOS_SEED replaces it.
	Seed uint64

	t       *testing.T
	pushing sync.RWMutex
	wait    sync.WaitGroup
}

// ChaosScript is what each item's run does, in a shell: one run in twenty is killed before it has done anything; the
// others note their item in the ledger as the last thing that they do.
func ChaosScript(ledger string) string {
	return `case $(( $$ % 20 )) in 0) kill -9 $$;; esac; ` +
		`echo "$OFFBOARD_ITEM/$OFFBOARD_ITEM_ID/$OFFBOARD_ATTEMPT" >> ` + ledger
}

// mostKills is how often the controller is killed at the most: on a slow machine it would else take most of its time to
// start again. It takes longer than all of the pushes.
const mostKills = 60

// MoreKills tells whether the controller is to be killed again after so many times. It always is where CHAOS_ITEMS is
// set.
func (c *Chaos) MoreKills(kills int) bool { return kills < mostKills || os.Getenv("CHAOS_ITEMS") != "" }

// ChaosItems returns how many items a chaos test has, of which there is one for each kind of queue: 500, so that all of
// them together take minutes. The variable CHAOS_ITEMS replaces that number.
func ChaosItems(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CHAOS_ITEMS")
	if text == "" {
		return 500
	}
	items, err := strconv.Atoi(text)
	if err != nil || items < 100 {
		t.Fatalf("CHAOS_ITEMS is %q, want a number of at least 100", text)
	}
	return items
}

// Start begins to push. The test must call Wait.
func (c *Chaos) Start(t *testing.T, source *Source) {
	t.Helper()
	c.t = t
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CHAOS_SEED: %v", err)
		}
		c.Seed = seed
	}
	for p := range c.Producers {
		c.wait.Go(func() { c.produce(source, p) })
	}
}

func (c *Chaos) produce(source *Source, producer int) {
	random := c.Random(uint64(producer))
	each := c.Items / c.Producers
	// All of them take about a minute whatever their number, since things should fail while items come: 10.5 items are
	// pushed at once on average, and half a pause is made then.
	pause := 21 * time.Minute / time.Duration(each)
	for i := 0; i < each; {
		var items []string
		for range min(1+random.IntN(20), each-i) {
			items = append(items, item(producer, i))
			i++
		}
		c.pushing.RLock()
		err := source.Push(c.t.Context(), items...)
		c.pushing.RUnlock()
		if err != nil {
			c.t.Errorf("push %q: %v", items, err)
			return
		}
		time.Sleep(time.Duration(random.Int64N(int64(pause))))
	}
}

func item(producer, number int) string { return fmt.Sprintf("%d-%d", producer, number) }

// Random returns a source of its own for each number.
func (c *Chaos) Random(number uint64) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, number)) }

// WithoutPushes does something while nobody pushes: a push that is interrupted may have happened or not.
func (c *Chaos) WithoutPushes(do func()) {
	c.pushing.Lock()
	defer c.pushing.Unlock()
	do()
}

// Wait waits until all items are pushed.
func (c *Chaos) Wait() { c.wait.Wait() }

// Check checks the ledger: each item has had exactly one run that succeeded. It returns how many attempts these were.
//
// An item that was noted twice need not have succeeded twice: a run notes its item before it exits, and may be ended
// between the two. So excuse looks for a reason in those runs, which are ID/ATTEMPT.
func (c *Chaos) Check(ledger string, excuse func(run, next string) (reason string)) (attempts int) {
	c.t.Helper()
	ran := map[string][]string{} // the runs of each item, as ID/ATTEMPT
	for line := range strings.Lines(ledger) {
		fields := strings.Split(strings.TrimSpace(line), "/")
		if len(fields) != 3 {
			c.t.Fatalf("a line of the ledger is %q", line)
		}
		attempt, err := strconv.Atoi(fields[2])
		if err != nil {
			c.t.Fatal(err)
		}
		ran[fields[0]] = append(ran[fields[0]], fields[1]+"/"+fields[2])
		attempts += attempt
	}
	for p := range c.Producers {
		for i := range c.Items / c.Producers {
			runs, reason := ran[item(p, i)], ""
			if len(runs) == 2 {
				reason = excuse(runs[0], runs[1])
			}
			switch {
			case len(runs) == 1:
			case reason != "":
				c.t.Logf("item %s was noted twice, %v: %s", item(p, i), runs, reason)
			default:
				c.t.Errorf("item %s has succeeded %d times: %v", item(p, i), len(runs), runs)
			}
		}
	}
	return attempts
}

// IsNext tells whether a run, as ID/ATTEMPT, is the next attempt of the same item.
func IsNext(run, next string) bool {
	id, attempt, _ := strings.Cut(run, "/")
	n, err := strconv.Atoi(attempt)
	return err == nil && next == fmt.Sprintf("%s/%d", id, n+1)
}
