package manifest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/spelling"
)

// suggest returns a half sentence that helps to correct got: the candidate that was probably meant, or all of them when
// they are few; empty when there is nothing to say.
func suggest(got string, candidates []string) string {
	const fewest = 14
	if near := spelling.Nearest(got, candidates); near != "" {
		return "did you mean " + strconv.Quote(near) + "?"
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
