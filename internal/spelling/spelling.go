// Package spelling finds what was probably meant by a name that does not exist.
package spelling

import "strings"

// longest is the length in bytes of a name above which nothing is compared: no name of ours comes near it, and the
// effort grows with the square.
const longest = 256

// Nearest returns the candidate of which the name is most likely a misspelling, whatever the case of its letters; ""
// when none is close.
func Nearest(name string, candidates []string) string {
	best, distance := "", 1+max(1, min(3, len(name)/3))
	for _, candidate := range candidates {
		if d := Distance(strings.ToLower(name), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// Distance is the number of characters to insert, delete, replace or swap with their neighbour to get from a to b
// (optimal string alignment). Very long strings are far from everything.
func Distance(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return len(a) + len(b)
	}
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
