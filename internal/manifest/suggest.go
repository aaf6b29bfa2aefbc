package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// suggest returns a half sentence that helps to correct got: the candidate that was probably meant, or all of them when
// they are few; empty when there is nothing to say.
func suggest(got string, candidates []string) string {
	const longest, fewest = 64, 12
	if len(got) <= longest {
		best, distance := "", 1+max(1, min(3, len(got)/3))
		for _, candidate := range candidates {
			if strings.EqualFold(got, candidate) {
				return "did you mean " + strconv.Quote(candidate) + "?"
			}
			if d := editDistance(strings.ToLower(got), strings.ToLower(candidate)); d < distance {
				best, distance = candidate, d
			}
		}
		if best != "" {
			return "did you mean " + strconv.Quote(best) + "?"
		}
	}
	if len(candidates) > 0 && len(candidates) <= fewest {
		return "want one of " + list(candidates)
	}
	return ""
}

// list returns the names sorted and separated by commas.
func list(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

// editDistance is the number of characters to insert, delete, replace or swap with their neighbour to get from a to b
// (optimal string alignment).
func editDistance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			replace := last[j-1]
			if s[i-1] != t[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
