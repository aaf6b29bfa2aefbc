package redis

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNodeThatIsNotNeededAnyMore lets all slots go to another node.
func TestNodeThatIsNotNeededAnyMore(t *testing.T) {
	t.Parallel()
	const first, second = "127.0.0.1:1", "127.0.0.1:2"
	c := newCluster(settings{topology: clusterTopology, addresses: first}, slog.New(slog.DiscardHandler))
	defer c.stop()
	c.learn([]slotRange{{0, 16383, first}})
	left := c.nodes[first]
	c.learn([]slotRange{{0, 16383, second}})
	if len(c.nodes) != 2 {
		t.Errorf("%d nodes are kept, want both while something may be under way", len(c.nodes))
	}
	c.needed[first] = time.Now().Add(-2 * nodeGrace)
	c.learn([]slotRange{{0, 16383, second}})
	if len(c.nodes) != 1 || c.nodes[second] == nil {
		t.Errorf("%v are kept, want the second", c.nodes)
	}
	if err := left.current().err; !errors.Is(err, errClosed) {
		t.Errorf("the node that was left: %v, want %v", err, errClosed)
	}
	if trouble := c.learn([]slotRange{{0, 100, second}}); !trouble {
		t.Error("slots that no node serves are no trouble")
	}
}

func TestParseSlots(t *testing.T) {
	t.Parallel()
	entry := func(first, last int64, node ...any) any {
		return []any{first, last, node, []any{"10.0.0.9", int64(7)}}
	}
	got, err := parseSlots([]any{
		entry(0, 5, "10.0.0.1", int64(7000), "id", []any{}), entry(6, 6, nil, int64(7001)), entry(7, 16383, "", int64(7002)),
		entry(7, 7, "::1", int64(7003)),
	}, "redis.example:6379")
	want := []slotRange{
		{0, 5, "10.0.0.1:7000"}, {6, 6, "redis.example:7001"}, {7, 16383, "redis.example:7002"}, {7, 7, "[::1]:7003"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for text, answer := range map[string]any{
		"no list":      int64(1),
		"no entry":     []any{"x"},
		"short":        []any{[]any{int64(0), int64(1)}},
		"not a number": []any{[]any{"0", int64(1), []any{"a", int64(1)}}},
		"reversed":     []any{entry(2, 1, "a", int64(1))},
		"too far":      []any{entry(0, 16384, "a", int64(1))},
		"below zero":   []any{entry(-1, 1, "a", int64(1))},
		"no node":      []any{[]any{int64(0), int64(1), "a"}},
		"no port":      []any{entry(0, 1, "a")},
		"port 0":       []any{entry(0, 1, "a", int64(0))},
		"bad host":     []any{entry(0, 1, "a b", int64(1))},
		"unknown host": []any{entry(0, 1, "?", int64(1))},
	} {
		if got, err := parseSlots(answer, "redis.example:6379"); err == nil || strings.Contains(err.Error(), "a b") {
			t.Errorf("%s: got %v, %v, want an error", text, got, err)
		}
	}
}
