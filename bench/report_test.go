package main

import (
	"strings"
	"testing"
	"time"
)

func TestRow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		figure figure
		target target
		want   string
	}{
		{ms(9 * time.Millisecond), atMost(10), "9.0 ms      ≤ 10 ms"},
		{ms(10_040 * time.Microsecond), atMost(10), "10.0 ms      ≤ 10 ms"}, // what is printed counts
		{ms(10_100 * time.Microsecond), atMost(10), "10.1 ms      ≤ 10 ms  MISSED"},
		{figure{80, "%", 0}, atLeast(80), "80 %       ≥ 80 %"},
		{figure{79, "%", 0}, atLeast(80), "79 %       ≥ 80 %  MISSED"},
		{figure{1.51, "", 2}, atMost(1.5), "1.51        ≤ 1.5  MISSED"},
		{mb(12_340_000), target{}, "12.3 MB"},
	} {
		var line strings.Builder
		writeRow(&line, "what", test.figure, test.target)
		if got, found := strings.CutPrefix(line.String(), "what "); !found || strings.TrimSpace(got) != test.want {
			t.Errorf("got %q, want %q", line.String(), test.want)
		}
	}
}
