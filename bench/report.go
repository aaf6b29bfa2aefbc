package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
)

// figure is something measured, in a unit, as it is printed: with so many digits after the point.
type figure struct {
	value  float64
	unit   string
	digits int
}

func (f figure) String() string {
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", f.digits, f.value, f.unit))
}

func ms(d time.Duration) figure { return figure{float64(d) / float64(time.Millisecond), "ms", 1} }

func mb(bytes int64) figure { return figure{float64(bytes) / 1e6, "MB", 1} }

// target is what was promised of a figure, in the figure's unit; the zero value is that nothing was.
type target struct {
	limit    float64
	relation string
}

func atMost(limit float64) target { return target{limit, "≤"} }

func atLeast(limit float64) target { return target{limit, "≥"} }

// missed tells whether the figure, as it is printed, is not what was promised.
func (t target) missed(f figure) bool {
	scale := math.Pow10(f.digits)
	printed := math.Round(f.value*scale) / scale
	return t.relation == "≤" && printed > t.limit || t.relation == "≥" && printed < t.limit
}

// in returns the target in words.
func (t target) in(unit string) string {
	if t.relation == "" {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%s %g %s", t.relation, t.limit, unit))
}

func header(part string) { fmt.Printf("%-58s %12s %12s\n", part, "measured", "target") }

// row prints a figure beside its target.
func row(what string, f figure, t target) { writeRow(os.Stdout, what, f, t) }

func writeRow(to io.Writer, what string, f figure, t target) {
	mark := ""
	if t.missed(f) {
		mark = "  MISSED"
	}
	line := fmt.Sprintf("%-58s %12s %12s%s", what, f, t.in(f.unit), mark)
	fmt.Fprintln(to, strings.TrimRight(line, " "))
}
