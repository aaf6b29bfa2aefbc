package queue_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
)

// TestStatesAreDocumented compares the picture in docs/queue.md with what can follow what.
func TestStatesAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	_, picture, found := strings.Cut(string(doc), "```mermaid\nstateDiagram-v2\n")
	picture, _, closed := strings.Cut(picture, "```\n")
	if !found || !closed {
		t.Fatal("docs/queue.md has no picture of the states")
	}
	arrow := regexp.MustCompile(`^  (\S+) --> (\S+)(: \S.*)?$`)
	drawn := map[queue.State][]queue.State{}
	var begins, ends []queue.State
	for line := range strings.Lines(picture) {
		parts := arrow.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if parts == nil {
			t.Errorf("%q is no arrow", line)
			continue
		}
		from, to := queue.State(parts[1]), queue.State(parts[2])
		switch {
		case from == "[*]":
			begins = append(begins, to)
		case to == "[*]":
			ends = append(ends, from)
		case slices.Contains(drawn[from], to):
			t.Errorf("%s --> %s is drawn twice", from, to)
		default:
			drawn[from] = append(drawn[from], to)
		}
	}
	for from := range drawn {
		if !from.Known() {
			t.Errorf("there is no state %q", from)
		}
	}
	for _, from := range queue.States() {
		for _, to := range queue.States() {
			if can, is := from.CanBecome(to), slices.Contains(drawn[from], to); can != is {
				t.Errorf("%s --> %s: it is %t that it can be, and %t that it is drawn", from, to, can, is)
			}
		}
		if len(from.Next()) != len(drawn[from]) {
			t.Errorf("after %s come %q, drawn are %q", from, from.Next(), drawn[from])
		}
	}
	if want := []queue.State{queue.Ready, queue.Delayed}; !slices.Equal(begins, want) {
		t.Errorf("items begin as %q, want %q", begins, want)
	}
	if want := []queue.State{queue.Done}; !slices.Equal(ends, want) {
		t.Errorf("items end as %q, want %q", ends, want)
	}
}
