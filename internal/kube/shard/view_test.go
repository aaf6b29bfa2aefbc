package shard

import (
	"fmt"
	"slices"
	"testing"
)

func keys(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("namespace-%d/work-%d", i%7, i)
	}
	return all
}

// TestOnlyNeededMoves adds a member to a view: keys move to the new one only, and to each about the same number.
func TestOnlyNeededMoves(t *testing.T) {
	t.Parallel()
	const n = 10_000
	names := []string{"a"}
	for members := 2; members <= 6; members++ {
		before := NewView(names...)
		added := string(rune('a' + members - 1))
		names = append(names, added)
		after := NewView(names...)
		moved, owned := 0, map[string]int{}
		for _, key := range keys(n) {
			was, is := before.Owner(key), after.Owner(key)
			owned[is]++
			if was == is {
				continue
			}
			moved++
			if is != added {
				t.Fatalf("key %s moves from %s to %s, which was there before", key, was, is)
			}
		}
		fair := n / members
		for name, count := range owned {
			if count < fair*9/10 || count > fair*11/10 {
				t.Errorf("of %d members, %s owns %d of %d keys", members, name, count, n)
			}
		}
		if moved != owned[added] {
			t.Errorf("%d keys moved, and the new member owns %d", moved, owned[added])
		}
	}
}

// TestStableOwners pins whose a key is: replicas of two versions must agree.
func TestStableOwners(t *testing.T) {
	t.Parallel()
	view := NewView("offboard-operator-aaaaaaaa", "offboard-operator-bbbbbbbb", "offboard-operator-cccccccc")
	got := map[string]string{}
	for _, key := range keys(6) {
		owner := view.Owner(key)
		got[key] = owner[len(owner)-1:]
	}
	want := "map[namespace-0/work-0:b namespace-1/work-1:c namespace-2/work-2:c namespace-3/work-3:b" +
		" namespace-4/work-4:b namespace-5/work-5:c]"
	if fmt.Sprint(got) != want {
		t.Errorf("the owners are %v, were %s", got, want)
	}
}

func TestViewText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]View{
		"": {}, "b": {"b"}, "b,a": {"a", "b"}, "a,,b,a,": {"a", "b"},
	} {
		got := ParseView(text)
		if !slices.Equal(got, want) {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
		if again := ParseView(got.String()); !slices.Equal(again, got) {
			t.Errorf("%q is written and read as %q", got, again)
		}
	}
	if owner := NewView().Owner("key"); owner != "" {
		t.Errorf("of nobody, %q owns a key", owner)
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	a, b, c := Lease{Name: "a"}, Lease{Name: "b", Exclusive: true}, Lease{Name: "c", Exclusive: true}
	for _, each := range []struct {
		own    Lease
		others []Lease
		want   string
	}{
		{a, nil, "a"}, {a, []Lease{{Name: "d"}}, "a,d"}, {a, []Lease{b}, "b"}, {b, []Lease{a}, "b"},
		{b, []Lease{a, c}, "b,c"}, {a, []Lease{b, c}, "b,c"},
	} {
		if got := target(each.own, each.others).String(); got != each.want {
			t.Errorf("%v next to %v aims at %q, want %q", each.own, each.others, got, each.want)
		}
	}
}
