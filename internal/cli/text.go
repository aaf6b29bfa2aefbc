package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/offboard-dev/offboard/internal/spelling"
)

// printable makes text from elsewhere fit for a terminal and one line: whatever does not print is escaped, so that an
// item cannot move the cursor or change a title, and what is longer than limit characters is cut. A limit of 0 means no
// limit.
func printable(text string, limit int) string {
	var b strings.Builder
	count := 0
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		piece := text[:size]
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, text[0])
		case !unicode.IsPrint(r): // of blanks, only the plain one prints
			piece = escape(r)
		}
		n := utf8.RuneCountInString(piece)
		if limit > 0 && (count+n > limit || count+n == limit && len(text) > size) {
			b.WriteString("…")
			break
		}
		b.WriteString(piece)
		count += n
		text = text[size:]
	}
	return b.String()
}

func escape(r rune) string {
	switch r {
	case '\n':
		return `\n`
	case '\t':
		return `\t`
	case '\r':
		return `\r`
	}
	switch {
	case r < 0x100:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// safeText makes a text of several lines fit for a terminal.
func safeText(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = printable(line, 0)
	}
	return strings.Join(lines, "\n")
}

// similar returns up to three of the names that are most like the one that was asked for: those that begin with it or
// hold it, else those that are a few letters away.
func similar(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var candidates []candidate
	for _, other := range names {
		d := spelling.Distance(name, other)
		if strings.HasPrefix(other, name) {
			d = 0
		} else if strings.Contains(other, name) {
			d = 1
		}
		if d <= 1+len(name)/3 {
			candidates = append(candidates, candidate{other, d})
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var found []string
	for _, c := range candidates[:min(3, len(candidates))] {
		found = append(found, c.name)
	}
	return found
}

// didYouMean returns a question to append to an error, empty when nothing is similar.
func didYouMean(name string, names []string) string {
	found := similar(name, names)
	if len(found) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(found, " or ") + "?"
}

// plural returns "1 item" or "2 items".
func plural[N int | int64](n N, noun string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// errorAs is errors.As for a type that is known.
func errorAs[E error](err error) (E, bool) {
	var found E
	ok := errors.As(err, &found)
	return found, ok
}
