package ration

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/offboard-dev/offboard/internal/limits"
)

// smallestRate is the part of the rate that is shared out equally among those that want some, so that nobody waits for
// ever, however small its weight.
const smallestRate = wholeRate / 20

// claimant is who wants some of a thing.
type claimant struct {
	term   string
	weight float64
	wants  int
	turn   int
	gets   int
}

// holds is as in a limits.Pool: one that has nothing comes first.
func (c *claimant) holds() float64 {
	if c.gets == 0 {
		return 0
	}
	return (float64(c.gets) + 0.5) / c.weight
}

// fill gives the claimants their weighted max-min fair shares, in whole numbers: it is what a limits.Pool comes to,
// which gives each slot to who has the least for its weight. Of equals the one whose turn was the longest ago comes
// first. It returns what nobody wants.
func fill(available int, claimants []*claimant) (spare int) {
	inOrder := slices.SortedFunc(slices.Values(claimants), func(a, b *claimant) int {
		return cmp.Compare(float64(a.wants)/a.weight, float64(b.wants)/b.weight)
	})
	left, weight := float64(available), 0.0
	for _, c := range inOrder {
		weight += c.weight
	}
	spare = available
	for _, c := range inOrder {
		share := min(float64(c.wants), max(0, left*c.weight/weight))
		left, weight = left-share, weight-c.weight
		c.gets = min(int(share), spare) // what sums of fractions are off by must not make it more than there is
		spare -= c.gets
	}
	for spare > 0 {
		var next *claimant
		for _, c := range claimants {
			if c.gets < c.wants && (next == nil || cmp.Or(cmp.Compare(c.holds(), next.holds()),
				cmp.Compare(c.turn, next.turn), cmp.Compare(c.term, next.term)) < 0) {
				next = c
			}
		}
		if next == nil {
			break
		}
		next.gets++
		spare--
	}
	return spare
}

// targets returns what each replica is due by the wants of all, given what is left over. What nobody wants is shared
// out as well, so that what is wanted next need not wait.
func targets(l limits.Limits, t Table, left Amounts) map[string]Amounts {
	due := map[string]Amounts{}
	terms := slices.Sorted(maps.Keys(t.Entries))
	for _, term := range terms {
		due[term] = Amounts{}
	}
	give := func(what string, claimants []*claimant, spare int, among []string) {
		for _, c := range claimants {
			due[c.term][what] += c.gets
		}
		for i, term := range among {
			due[term][what] += spare / len(among)
			if i < spare%len(among) {
				due[term][what]++
			}
		}
	}
	// In the namespaces first: what one cannot have there, it does not want of all, and what one cannot have of all, it is
	// not due there.
	var all []*claimant
	inNamespace, spare := map[string][]*claimant{}, map[string]int{}
	for _, namespace := range namespaces(t) {
		var claimants []*claimant
		for _, term := range terms {
			for _, want := range t.Entries[term].Wants[namespace] {
				claimants = append(claimants, &claimant{
					term: term, weight: want.Weight, wants: want.Jobs, turn: t.Entries[term].Ceilings[namespace].Turn,
				})
			}
		}
		if l.JobsPerNamespace > 0 {
			spare[namespace] = fill(max(0, l.JobsPerNamespace-left[namespace]), claimants)
			for _, c := range claimants {
				c.wants = c.gets
			}
			inNamespace[namespace] = claimants
		}
		all = append(all, claimants...)
	}
	if l.Jobs > 0 {
		for _, c := range all {
			c.turn = t.Entries[c.term].Ceilings[Jobs].Turn
		}
		give(Jobs, all, fill(max(0, l.Jobs-left[Jobs]), all), terms)
	}
	for namespace, claimants := range inNamespace {
		var among []string
		for _, c := range claimants {
			among = append(among, c.term)
		}
		give(namespace, claimants, spare[namespace], slices.Compact(among))
	}
	if l.JobsPerSecond > 0 {
		slowest, rest := rates(l, t, terms)
		unused := fill(smallestRate, slowest)
		give(Rate, slowest, 0, nil)
		give(Rate, rest, fill(wholeRate-smallestRate+unused, rest), terms)
	}
	return due
}

// rates returns who wants some of the rate: each replica once, without weight, and what each wants by weight.
func rates(l limits.Limits, t Table, terms []string) (slowest, byWeight []*claimant) {
	for _, term := range terms {
		parts := 0
		for _, namespace := range slices.Sorted(maps.Keys(t.Entries[term].Wants)) {
			for _, want := range t.Entries[term].Wants[namespace] {
				wants := int(math.Ceil(min(wholeRate, float64(want.Waiting)/l.JobsPerSecond*wholeRate)))
				byWeight = append(byWeight, &claimant{term: term, weight: want.Weight, wants: wants})
				parts = min(wholeRate, parts+wants)
			}
		}
		slowest = append(slowest, &claimant{term: term, weight: 1, wants: parts})
	}
	return slowest, byWeight
}

// namespaces returns those in which anybody wants anything.
func namespaces(t Table) []string {
	all := map[string]bool{}
	for _, entry := range t.Entries {
		for namespace := range entry.Wants {
			all[namespace] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
