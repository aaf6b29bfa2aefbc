package ration

import (
	"fmt"
	"math"
	"testing"

	"github.com/offboard-dev/offboard/internal/limits"
)

// wants is an entry that wants so many Jobs for each weight.
func wants(namespace string, ceilings map[string]Ceiling, of ...limits.Want) Entry {
	return Entry{Ceilings: ceilings, Wants: map[string][]limits.Want{namespace: of}}
}

func want(weight float64, jobs, waiting int) limits.Want {
	return limits.Want{Weight: weight, Jobs: jobs, Waiting: waiting}
}

// TestTargets has what each replica is due: weighted max-min fair shares, and what nobody wants in equal parts.
func TestTargets(t *testing.T) {
	t.Parallel()
	turn := func(turn int) map[string]Ceiling { return map[string]Ceiling{Jobs: {Turn: turn}} }
	for _, test := range []struct {
		name    string
		limits  limits.Limits
		entries map[string]Entry
		left    Amounts
		want    map[string]Amounts
	}{
		{"by weight, whoever has how many ScaledJobs", limits.Limits{Jobs: 12}, map[string]Entry{
			"a": wants("", nil, want(1, 12, 0), want(2, 12, 0)), "b": wants("", nil, want(1, 12, 0)),
		}, nil, map[string]Amounts{"a": {Jobs: 9}, "b": {Jobs: 3}}},
		{"what one does not want the others get", limits.Limits{Jobs: 12}, map[string]Entry{
			"a": wants("", nil, want(100, 2, 0)), "b": wants("", nil, want(1, 12, 0)), "c": {},
		}, nil, map[string]Amounts{"a": {Jobs: 2}, "b": {Jobs: 10}, "c": {Jobs: 0}}},
		{"what nobody wants each gets", limits.Limits{Jobs: 13}, map[string]Entry{
			"a": wants("", nil, want(1, 2, 0)), "b": {},
		}, Amounts{Jobs: 2}, map[string]Amounts{"a": {Jobs: 2 + 5}, "b": {Jobs: 4}}},
		{"who has nothing comes first, however small its weight", limits.Limits{Jobs: 10}, map[string]Entry{
			"a": wants("", nil, want(1e6, 10, 0)), "b": wants("", nil, want(1e-6, 10, 0)),
		}, nil, map[string]Amounts{"a": {Jobs: 9}, "b": {Jobs: 1}}},
		{"fewer slots than replicas: who had one the longest ago", limits.Limits{Jobs: 2}, map[string]Entry{
			"a": wants("", turn(7), want(1, 10, 0)), "b": wants("", turn(3), want(1, 10, 0)),
			"c": wants("", turn(5), want(1, 10, 0)),
		}, nil, map[string]Amounts{"a": {Jobs: 0}, "b": {Jobs: 1}, "c": {Jobs: 1}}},
		{"in a namespace first, then of all", limits.Limits{Jobs: 5, JobsPerNamespace: 3}, map[string]Entry{
			"a": wants("x", nil, want(2, 3, 0)), "b": wants("x", nil, want(1, 3, 0)), "c": wants("y", nil, want(3, 3, 0)),
		}, nil, map[string]Amounts{"a": {Jobs: 2, "x": 2}, "b": {Jobs: 1, "x": 1}, "c": {Jobs: 2, "y": 2}}},
		{"the rate by who waits, and a little for everyone who does", limits.Limits{JobsPerSecond: 10}, map[string]Entry{
			"a": wants("", nil, want(3, 50, 10)), "b": wants("", nil, want(1, 50, 10)), "c": wants("", nil, want(1, 50, 0)),
		}, nil, map[string]Amounts{"a": {Rate: 25_000 + 712_500}, "b": {Rate: 25_000 + 237_500}, "c": {Rate: 0}}},
	} {
		got := targets(test.limits, Table{Entries: test.entries}, test.left)
		for term, due := range got {
			for what := range due {
				if due[what] == 0 {
					delete(due, what)
				}
			}
			for what, n := range test.want[term] {
				if due[what] != n {
					t.Errorf("%s: %s is due %d of %s, want %d", test.name, term, due[what], what, n)
				}
			}
		}
	}
}

// TestFillIsThePool compares with what a limits.Pool comes to, which gives slot by slot.
func TestFillIsThePool(t *testing.T) {
	t.Parallel()
	for seed := range 300 {
		var inOne, bySlot []*claimant
		for i := range 1 + seed%5 {
			c := claimant{
				term: fmt.Sprint(i), weight: math.Pow(1.7, float64((seed*(i+3))%9)), wants: (seed * (i + 1)) % 40, turn: (seed * i) % 7,
			}
			one, other := c, c
			inOne, bySlot = append(inOne, &one), append(bySlot, &other)
		}
		available := seed % 60
		spare := fill(available, inOne)
		for range available {
			var next *claimant
			for _, c := range bySlot {
				if c.gets < c.wants && (next == nil || c.holds() < next.holds()) {
					next = c
				}
			}
			if next == nil {
				break
			}
			next.gets++
			available--
		}
		if spare != available {
			t.Errorf("seed %d: %d are left, want %d", seed, spare, available)
		}
		for i := range inOne {
			if diff := inOne[i].gets - bySlot[i].gets; diff < -1 || diff > 1 {
				t.Errorf("seed %d: %+v gets %d, slot by slot %d", seed, *inOne[i], inOne[i].gets, bySlot[i].gets)
			}
		}
	}
}

// TestLone has one replica: it takes the whole in its first write, and writes nothing else, whatever it uses.
func TestLone(t *testing.T) {
	t.Parallel()
	l := limits.Limits{Jobs: 10, JobsPerNamespace: 5, JobsPerSecond: 3}
	r := NewReplica(l, "replica", "term")
	first := r.Next(Table{}, State{Complete: true})
	if first.Table == nil || !first.Table.Entries["term"].Whole || first.Now.Alive() != 0 || first.Now.Final() {
		t.Fatalf("first, it does %+v", first)
	}
	r.Sent(first)
	first.Table.Version = "1"
	r.Stored(first, "1")
	for _, left := range []Amounts{nil, {Jobs: 4, "a": 3}, {}} {
		step := r.Next(*first.Table, State{Complete: true, Left: left, Usage: limits.Usage{
			Jobs: 6, Namespaces: map[string]int{"a": 2}, Wants: map[string][]limits.Want{"a": {want(1, 10, 3)}},
		}})
		all, inA, rate := 10-left[Jobs], 5-left["a"], 3.0
		if left == nil {
			all, inA, rate = 0, 0, 0
		}
		if step.Table != nil || step.Now.Alive() != all || step.Now.AliveIn("a") != inA || step.Now.PerSecond() != rate {
			t.Errorf("with %v left over it does %+v", left, step)
		}
	}
}
