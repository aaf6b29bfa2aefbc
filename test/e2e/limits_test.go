package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

// TestLimits has three ScaledJobs share four Jobs, by weight, whether items are popped or claimed. A Job ends when the
// test says so, so that shares do not depend on how fast the machine is.
func TestLimits(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	names := []string{"pops", "claims", "other"}
	for i, name := range names {
		manifest := scaledJob("  maxReplicaCount: 25\n  scalingStrategy: {strategy: accurate}", "",
			"echo +"+name+".$$ >> ledger; until [ -e end.$$ ] || [ -e end ]; do sleep 0.02; done; echo -"+name+".$$ >> ledger")
		if name == "claims" {
			manifest = strings.Replace(manifest, "spec:\n", "spec:\n  delivery: {mode: claim}\n", 1)
			manifest = strings.Replace(manifest, "command: [offboard, runner, --, sh, -c,", "command: [sh, -c,", 1)
		}
		manifest = strings.ReplaceAll(manifest, "listName: work", "listName: "+name)
		manifest = strings.ReplaceAll(manifest, "value: work", "value: "+name)
		files[name+".yaml"] = strings.Replace(manifest, "{name: work}",
			fmt.Sprintf(`{name: %s, annotations: {%s: "%d"}}`, name, v1alpha1.AnnotationPriority, 1+i%2), 1)
	}
	// Weights 1, 2 and 1.
	m := newMachine(t, files)
	m.start("--max-jobs", "4")
	const items = 25
	for _, name := range names {
		all := make([]string, items)
		for i := range all {
			all[i] = strconv.Itoa(i)
		}
		m.push(name, all...)
	}
	infos := func() map[string]control.ScaledJobInfo {
		byName := map[string]control.ScaledJobInfo{}
		listed, err := m.client.ScaledJobs(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range listed {
			byName[info.Object.Name] = info
		}
		return byName
	}
	m.eventually("all three waiting for the limit", func() (bool, string) {
		waiting := 0
		for _, info := range infos() {
			if c := info.Object.Status.Conditions.Get(v1alpha1.ConditionLimited); c.Status == "True" && c.Reason == "MaxJobs" {
				waiting++
			}
		}
		return waiting == 3, fmt.Sprint(waiting, " wait")
	})
	if get := m.must("get", "-o", "wide"); !strings.Contains(get, "for the limits of all ScaledJobs") {
		t.Errorf("get does not say that Jobs wait:\n%s", get)
	}
	// The eldest Job ends, again and again. After four of them none is left that began while nobody else had work; from
	// then on the shares are those of the weights, whatever ends, as all of them have more work.
	const rounds = 16
	for round := range rounds {
		var running []string
		m.eventually("four Jobs at once", func() (bool, string) {
			running = m.running()
			return len(running) == 4, fmt.Sprint(running)
		})
		shares := map[string]int{}
		for _, job := range running {
			name, _, _ := strings.Cut(job, ".")
			shares[name]++
		}
		if want := map[string]int{"pops": 1, "claims": 2, "other": 1}; round >= 4 && !maps.Equal(shares, want) {
			t.Errorf("after %d Jobs have ended there are %v, want %v", round, shares, want)
		}
		_, pid, _ := strings.Cut(running[0], ".")
		m.write("end."+pid, "")
		m.eventually("its end", func() (bool, string) {
			return !slices.Contains(m.running(), running[0]), running[0] + " goes on"
		})
	}
	m.write("end", "")
	m.eventually("the end", func() (bool, string) {
		done := 0
		for _, info := range infos() {
			done += info.Succeeded
		}
		return done == 3*items, fmt.Sprint(done, " Jobs succeeded")
	})
	total, most := 0, 0
	for _, line := range m.lines("ledger") {
		if line[0] == '-' {
			total--
			continue
		}
		total++
		most = max(most, total)
	}
	if most != 4 {
		t.Errorf("there were %d Jobs at once, want 4", most)
	}
}

// running returns which Jobs have begun and not ended by the ledger, the eldest first.
func (m *machine) running() []string {
	m.t.Helper()
	var running []string
	for _, line := range m.lines("ledger") {
		if line[0] == '+' {
			running = append(running, line[1:])
		} else if i := slices.Index(running, line[1:]); i >= 0 {
			running = slices.Delete(running, i, i+1)
		}
	}
	return running
}
