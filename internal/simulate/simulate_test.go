package simulate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/offboard-dev/offboard/internal/scaling"
)

func run(t testing.TB, config Config, arrivals []Arrival) Result {
	t.Helper()
	result, err := Run(context.Background(), config, arrivals)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// plain is a ScaledJob whose Jobs begin at once and take one item each.
func plain(strategy string, limit int64) Config {
	return Config{
		Rule: scaling.Rule{Strategy: strategy, Max: &limit}, Claim: strategy == "claim", Reaction: Push,
		Polling: 30 * time.Second, Target: 1, Take: 1,
	}
}

// at returns items with that many seconds of work that come at these seconds.
func at(work float64, seconds ...float64) (arrivals []Arrival) {
	for _, s := range seconds {
		arrivals = append(arrivals, Arrival{
			At: time.Duration(s * float64(time.Second)), Work: time.Duration(work * float64(time.Second)),
		})
	}
	return arrivals
}

// TestByHand compares with what a pencil gives.
func TestByHand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		config   Config
		change   func(*Config)
		arrivals []Arrival
		want     Result
	}{
		{
			name: "one slot, three items at once", config: plain("claim", 1), arrivals: at(10, 0, 0, 0),
			want: Result{
				Arrivals: 3, Jobs: 3, MostJobs: 1, LongestQueue: 3, Wait: Wait{Mean: 10, P50: 10, P95: 20, P99: 20, Max: 20},
				Done: 30 * time.Second, SlotUse: 1, JobUse: 1,
			},
		},
		{
			name: "two slots, and Jobs that take 5 seconds to start", config: plain("claim", 2), arrivals: at(10, 0, 1, 2),
			change: func(c *Config) { c.Start = Constant(5 * time.Second) },
			// 0 to 15 and 1 to 16; the third from 15, when the first slot is free, to 30.
			want: Result{
				Arrivals: 3, Jobs: 3, MostJobs: 2, LongestQueue: 3, Wait: Wait{Mean: 28.0 / 3, P50: 5, P95: 18, P99: 18, Max: 18},
				Done: 30 * time.Second, SlotUse: 0.5, JobUse: 30.0 / 45,
			},
		},
		{
			name: "accurate starts one Job for each item at once", config: plain("accurate", 5), arrivals: at(10, 0, 1, 2),
			want: Result{
				Arrivals: 3, Jobs: 3, MostJobs: 3, LongestQueue: 1, Done: 12 * time.Second, SlotUse: 0.5, JobUse: 1,
			},
		},
		{
			name: "default lets an item wait while as many Jobs run", config: plain("default", 5), arrivals: at(10, 0, 1, 2),
			// 1 runs: 1 waiting - 1 running = 0; at 2 there are 2 waiting, so one starts; at 10, 1 waits and 1 runs; at 12
			// none runs.
			want: Result{
				Arrivals: 3, Jobs: 3, MostJobs: 2, LongestQueue: 2, Wait: Wait{Mean: 11.0 / 3, P50: 1, P95: 10, P99: 10, Max: 10},
				Done: 22 * time.Second, SlotUse: 30.0 / 110, JobUse: 1,
			},
		},
		{
			name: "a poll each 30 seconds, the first after 15", config: plain("accurate", 5), arrivals: at(1, 0, 20, 50),
			change: func(c *Config) { c.Reaction = Poll },
			want: Result{
				Arrivals: 3, Jobs: 3, MostJobs: 1, LongestQueue: 1, Wait: Wait{Mean: 65.0 / 3, P50: 25, P95: 25, P99: 25, Max: 25},
				Done: 76 * time.Second, SlotUse: 3.0 / 380, JobUse: 1,
			},
		},
		{
			name: "polls that come again before Jobs have begun start some twice", config: plain("default", 9),
			change: func(c *Config) {
				c.Reaction, c.Start, c.Rule.Strategy = Poll, Constant(40*time.Second), "custom"
				c.Rule.RunningPercentage = "0"
			},
			arrivals: at(10, 0),
			// Created at 15 and again at 45; the first takes the item at 55, the second finds none at 85.
			want: Result{
				Arrivals: 1, Jobs: 2, Surplus: 1, MostJobs: 2, LongestQueue: 1, Wait: Wait{Mean: 55, P50: 55, P95: 55, P99: 55, Max: 55},
				Done: 65 * time.Second, SlotUse: 10.0 / (9 * 65), JobUse: 10.0 / 90,
			},
		},
		{
			name: "a Job that takes up to three", config: plain("default", 5), arrivals: at(10, 0, 0, 0, 0),
			change: func(c *Config) { c.Take, c.Target = 3, 3 },
			// Two Jobs for ⌈4/3⌉: each takes one after the other.
			want: Result{
				Arrivals: 4, Jobs: 2, MostJobs: 2, LongestQueue: 4, Wait: Wait{Mean: 5, P50: 0, P95: 10, P99: 10, Max: 10},
				Done: 20 * time.Second, SlotUse: 0.4, JobUse: 1,
			},
		},
		{
			name: "a claim of three at once", config: plain("claim", 5), arrivals: at(10, 0, 0, 0, 0),
			change: func(c *Config) { c.Target = 3 },
			want: Result{
				Arrivals: 4, Jobs: 2, MostJobs: 2, LongestQueue: 4, Wait: Wait{Mean: 7.5, P50: 0, P95: 20, P99: 20, Max: 20},
				Done: 30 * time.Second, SlotUse: 40.0 / 150, JobUse: 1,
			},
		},
		{
			name: "what is not above the activation threshold waits for ever", config: plain("default", 5),
			change:   func(c *Config) { c.Activation = 2 },
			arrivals: at(10, 0, 1),
			want:     Result{Arrivals: 2, LongestQueue: 2, Left: 2},
		},
		{
			name: "no limit, no Job", config: plain("default", 0), arrivals: at(10, 0),
			want: Result{Arrivals: 1, LongestQueue: 1, Left: 1},
		},
		{name: "no arrivals", config: plain("default", 5), want: Result{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.change != nil {
				tt.change(&tt.config)
			}
			got := run(t, tt.config, tt.arrivals)
			got.History = History{}
			if fmt.Sprintf("%.9v", got) != fmt.Sprintf("%.9v", tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestErlangC compares the mean waiting time with the formula for many servers, Poisson arrivals and exponential work
// (M/M/c). What else Offboard's delivery by claim does, it is such a queue.
func TestErlangC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		servers int
		load    float64 // of each server
	}{{1, 0.5}, {1, 0.8}, {4, 0.7}, {25, 0.9}} {
		t.Run(fmt.Sprintf("%d servers at %v", tt.servers, tt.load), func(t *testing.T) {
			t.Parallel()
			const work = 10.0 // seconds on average
			offered := tt.load * float64(tt.servers)
			// The probability to wait, by Erlang's recursion for the probability of blocking.
			blocking := 1.0
			for c := 1; c <= tt.servers; c++ {
				blocking = offered * blocking / (float64(c) + offered*blocking)
			}
			waits := blocking / (1 - tt.load*(1-blocking))
			want := waits * work / (float64(tt.servers) * (1 - tt.load))
			got := steady(t, plain("claim", int64(tt.servers)), offered/work, "exp:10s")
			closeTo(t, "mean wait", got.Wait.Mean, want, 0.06)
			closeTo(t, "utilisation", got.SlotUse, tt.load, 0.01)
			if got.JobUse < 0.999999 {
				t.Errorf("Jobs that begin at once were busy for %v of their time", got.JobUse)
			}
		})
	}
}

// TestPollaczekKhinchine does so for one server and work of any distribution (M/G/1).
func TestPollaczekKhinchine(t *testing.T) {
	t.Parallel()
	const rate = 0.07
	for work, moments := range map[string]struct{ first, second float64 }{
		"10s":     {10, 100},
		"4s..16s": {10, 112}, // the variance of an even distribution is the twelfth of its width's square
		"exp:10s": {10, 200},
	} {
		t.Run(work, func(t *testing.T) {
			t.Parallel()
			want := rate * moments.second / 2 / (1 - rate*moments.first)
			closeTo(t, "mean wait", steady(t, plain("claim", 1), rate, work).Wait.Mean, want, 0.06)
		})
	}
}

// steady plays 300,000 Poisson arrivals, for which the mean wait has a standard deviation of some 2 %.
func steady(t *testing.T, config Config, rate float64, work string) Result {
	t.Helper()
	spread, err := ParseSpread(work)
	if err != nil {
		t.Fatal(err)
	}
	arrivals, err := Generator{
		Rate: rate, For: time.Duration(300_000 / rate * float64(time.Second)), Work: spread, Seed: 1,
	}.Arrivals()
	if err != nil {
		t.Fatal(err)
	}
	result := run(t, config, arrivals)
	if result.Left != 0 || result.Surplus != 0 || result.Jobs != len(arrivals) {
		t.Errorf("%d left, %d surplus, %d Jobs for %d items", result.Left, result.Surplus, result.Jobs, len(arrivals))
	}
	return result
}

func closeTo(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s is %v, want %v ± %v%%", what, got, want, 100*tolerance)
	}
}

// TestPollWaitsHalfAnInterval holds where there are slots enough: arrivals at random meet a poll as good as any other.
func TestPollWaitsHalfAnInterval(t *testing.T) {
	t.Parallel()
	config := plain("accurate", 1000)
	config.Reaction = Poll
	polled := steady(t, config, 0.5, "1s")
	closeTo(t, "mean wait", polled.Wait.Mean, 15, 0.01)
	closeTo(t, "median", polled.Wait.P50, 15, 0.02)
	closeTo(t, "longest wait", polled.Wait.Max, 30, 0.001)
	config.Reaction = Push
	if pushed := steady(t, config, 0.5, "1s"); pushed.Wait.Max != 0 {
		t.Errorf("who reacts at once lets items wait for %v seconds", pushed.Wait.Max)
	}
}

// TestPromises states what holds for every strategy, every load and every ScaledJob, when decisions are Offboard's.
func TestPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 12).Draw(t, "limit")
		deduction := rapid.Int64Range(0, 5).Draw(t, "deduction")
		least := rapid.Int64Range(0, 3).Draw(t, "minReplicaCount")
		strategy := rapid.SampledFrom([]string{"default", "custom", "accurate", "eager", "claim"}).Draw(t, "strategy")
		config := Config{
			Rule: scaling.Rule{
				Strategy: strategy, Deduction: &deduction, Max: &limit, Min: &least,
				RunningPercentage: rapid.SampledFrom([]string{"", "0", "0.5", "1"}).Draw(t, "share"),
			},
			Claim:    strategy == "claim",
			Reaction: Push,
			Polling:  time.Duration(rapid.IntRange(1, 60).Draw(t, "polling")) * time.Second,
			Target:   float64(rapid.IntRange(1, 3).Draw(t, "target")),
			Take:     rapid.IntRange(1, 3).Draw(t, "take"),

			Activation: float64(rapid.IntRange(0, 2).Draw(t, "activation")),
			Start: Spread{
				kind: rapid.SampledFrom([]string{constant, exponential, uniform}).Draw(t, "start"),
				low:  2 * time.Second, high: 4 * time.Second,
			},
		}
		if strategy != "claim" && rapid.Bool().Draw(t, "poll") {
			config.Reaction = Poll
		}
		arrivals := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Arrival {
			return Arrival{
				At:   time.Duration(rapid.IntRange(0, 30).Draw(t, "gap")) * time.Second, // since the one before
				Work: time.Duration(rapid.IntRange(0, 100_000).Draw(t, "work")) * time.Millisecond,
			}
		}), 1, 60).Draw(t, "arrivals")
		for i := range arrivals[1:] {
			arrivals[i+1].At += arrivals[i].At
		}
		w := newWorld(config, arrivals)
		for steps := 0; w.step(); steps++ {
			if w.running > limit {
				t.Fatalf("%d Jobs at %v, the limit is %d", w.running, w.now, limit)
			}
			begun := len(w.waits)
			if w.waiting+begun != w.next || w.finished > begun || w.waiting < w.ready() {
				t.Fatalf("of %d items that came, %d wait and %d have begun, of which %d have ended", w.next, w.waiting, begun,
					w.finished)
			}
			if steps > 1_000_000 {
				t.Fatal("it does not end")
			}
		}
		got := w.result()
		switch {
		case got.Left > int(config.Activation) || w.finished+got.Left != len(arrivals) || w.running != 0 || w.pending != 0:
			t.Fatalf("%d stranded, %d Jobs run and %d are pending at the end", got.Left, w.running, w.pending)
		case got.MostJobs > int(limit) || got.SlotUse > 1+1e-9 || got.JobUse > 1+1e-9:
			t.Fatalf("%+v", got)
		case config.Take == 1 && config.Target == 1 && got.Jobs-got.Surplus != len(arrivals)-got.Left:
			t.Fatalf("%d Jobs of which %d found nothing, for %d items", got.Jobs, got.Surplus, len(arrivals))
		case config.Claim && got.Surplus != 0:
			t.Fatalf("%d Jobs for a claim found nothing", got.Surplus)
		}
	})
}

// TestRepeatable is what --seed promises.
func TestRepeatable(t *testing.T) {
	t.Parallel()
	play := func(seed uint64) string {
		work, err := ParseSpread("exp:3s")
		if err != nil {
			t.Fatal(err)
		}
		arrivals, err := Generator{Rate: 1, For: time.Hour, Work: work, Seed: seed}.Arrivals()
		if err != nil {
			t.Fatal(err)
		}
		config := plain("custom", 7)
		config.Start, config.Seed = work, seed
		return fmt.Sprint(run(t, config, arrivals))
	}
	first := play(1)
	if again := play(1); again != first {
		t.Errorf("the same seed gives another course: %s, then %s", first, again)
	}
	if other := play(2); other == first {
		t.Error("another seed gives the same course")
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, plain("claim", 1), at(1, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestEnds plays what would take longer than can be told.
func TestEnds(t *testing.T) {
	t.Parallel()
	var arrivals []Arrival
	for range 100 {
		arrivals = append(arrivals, Arrival{Work: MaxDuration})
	}
	config := plain("claim", 1)
	config.Start = Constant(MaxDuration)
	if got := run(t, config, arrivals); got.Left < 85 || got.Left > 95 {
		t.Errorf("%d of 100 are left after 200 years of 20 each", got.Left)
	}
}

// TestIdlePollsAreSkipped plays a decade with a poll each second.
func TestIdlePollsAreSkipped(t *testing.T) {
	t.Parallel()
	config := plain("default", 1)
	config.Polling, config.Reaction = time.Second, Poll
	arrivals := at(1, 0.25, MaxDuration.Seconds()-0.25)
	w := newWorld(config, arrivals)
	steps := 0
	for ; w.step(); steps++ {
	}
	if got := w.result(); got.Left != 0 || got.Wait.Max != 0.75 || got.Wait.Mean != 0.5 || steps > 20 {
		t.Errorf("%d steps; %+v", steps, got.Wait)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	var h History
	h.add(0, 1, 0, 0)
	h.add(500*time.Millisecond, 7, 2, 1)
	h.add(501*time.Millisecond, 0, 2, 2)
	for i := range 10_000 {
		h.add(time.Hour+time.Duration(i)*time.Second, 3, 1, 1)
	}
	got := h.until(3 * time.Hour)
	if len(got.Buckets) > buckets || len(got.Buckets) < buckets/2 {
		t.Errorf("%d buckets", len(got.Buckets))
	}
	if got.Buckets[0] != (Bucket{7, 2, 2}) {
		t.Errorf("a peak is lost: %+v", got.Buckets[0])
	}
	if before := got.Buckets[int(30*time.Minute/got.Width)]; before != (Bucket{0, 2, 2}) {
		t.Errorf("what there was last is not there still: %+v", before)
	}
	if last := got.Buckets[len(got.Buckets)-1]; last != (Bucket{3, 1, 1}) {
		t.Errorf("the end is %+v", last)
	}
}

func TestPlot(t *testing.T) {
	t.Parallel()
	result := run(t, plain("default", 2), at(60, 0, 10, 20, 30, 900))
	got := string(Plot(`a<b & "c"`, "five items", []Panel{{Title: "first", Limit: 2, Result: result}, {Title: "second", Limit: 2}}))
	for _, want := range []string{
		"<title>a&lt;b &amp; &#34;c&#34;</title>", "five items", "first", "second", "minutes from the start", ">items<", ">Jobs<",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	checkXML(t, got)
}
