package jobs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func testEntry(pods ...string) *entry {
	e := &entry{Version: stateVersion, Sequence: 3, Revision: 7, Job: newJob("a"), Status: &batchv1.JobStatus{Active: 1}}
	for _, p := range pods {
		e.Pods = append(e.Pods, podEntry{UID: types.UID(p), Name: p, Status: &corev1.PodStatus{Phase: corev1.PodPending}})
	}
	return e
}

func TestJournal(t *testing.T) {
	t.Parallel()
	f := &folders{root: t.TempDir()}
	j, err := f.create("default", "a", testEntry("p1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*entry{
		{Revision: 8, Pods: []podEntry{{UID: "p2", Name: "p2", Status: &corev1.PodStatus{}}}},
		{Revision: 9, Status: &batchv1.JobStatus{Failed: 1}, Retry: &retryState{Failures: 1}, Pods: []podEntry{
			{UID: "p1", Name: "p1", Status: &corev1.PodStatus{Phase: corev1.PodFailed}, Counted: true},
		}},
		{Revision: 10, Dropped: []types.UID{"p1", "unknown"}},
	} {
		if err := j.append(e, e.Revision == 9); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		got, size, err := readState(j.path())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if size != j.size || got.Revision != 10 || got.Sequence != 3 || got.Status.Failed != 1 || got.Retry.Failures != 1 ||
			len(got.Pods) != 1 || got.Pods[0].UID != "p2" || got.Job.Name != "a" {
			t.Errorf("%s: %+v of %d bytes, want %d", when, got, size, j.size)
		}
	}
	check("after appending")
	whole, _, err := readState(j.path())
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, j.path(), `{"revision":11,"status":{"failed":99`)
	check("after a write that was cut short")
	if err := j.replace(whole); err != nil {
		t.Fatal(err)
	}
	check("after replacing")
	appendTo(t, j.path(), `{"revision":11,"status":{"failed":99`)
	j.torn = true
	if err := j.append(&entry{Revision: 10}, false); err != nil {
		t.Fatal(err)
	}
	check("after appending to a torn file")
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(text)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFoldersAreUsedAgain(t *testing.T) {
	t.Parallel()
	f := &folders{root: t.TempDir()}
	long := testEntry(strings.Repeat("p", 1000))
	j, err := f.create("default", "a", long, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.dir, "p.main.0.log"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.create("default", "a", testEntry(), nil); err == nil {
		t.Fatal("a second folder of the same name was made")
	}
	if got, _, err := readState(j.path()); err != nil || len(got.Pods) != 1 {
		t.Fatalf("the first Job's state = %+v, %v", got, err)
	}
	if err := f.remove("default", j); err != nil {
		t.Fatal(err)
	}
	if err := f.remove("default", j); err == nil {
		t.Error("a folder could be removed twice")
	}
	j, err = f.create("default", "b", testEntry("short"), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(j.path())
	if err != nil || int64(len(data)) != j.size || bytes.Count(data, []byte("\n")) != 1 {
		t.Errorf("the state of a folder that was used before: %s, %v", data, err)
	}
	names, err := os.ReadDir(filepath.Join(f.root, "default"))
	if err != nil || len(names) != 1 {
		t.Errorf("folders = %v, %v; want b only", names, err)
	}
	files, err := os.ReadDir(j.dir)
	if err != nil || len(files) != 1 {
		t.Errorf("files = %v, %v; want the state only", files, err)
	}
}

func TestSparesAreBounded(t *testing.T) {
	t.Parallel()
	f := &folders{root: t.TempDir(), kept: maxSpares}
	j, err := f.create("default", "a", testEntry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.remove("default", j); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(filepath.Join(f.root, "default")); err != nil || len(names) != 0 {
		t.Errorf("folders = %v, %v; want none", names, err)
	}
}

// FuzzParseState checks that no state file makes the program fail, and that what is accepted can be written and read
// again.
func FuzzParseState(f *testing.F) {
	var buf bytes.Buffer
	if err := testEntry("p1", "p2").encode(&buf); err != nil {
		f.Fatal(err)
	}
	first := buf.String()
	for _, seed := range []string{
		"", "\n", "{}\n", "null\n", first, first + first[:40], first + `{"revision":9,"dropped":["p1"]}` + "\n", first + "x\n",
		`{"version":2,"job":{},"status":{}}` + "\n", `{"version":1,"job":{},"status":{},"pods":[{"status":null}]}` + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		state, size, err := parseState(data)
		if err != nil {
			return
		}
		if size > len(data) || (size > 0 && data[size-1] != '\n') {
			t.Fatalf("%d bytes accepted of %d, not up to the end of a line", size, len(data))
		}
		var again bytes.Buffer
		if err := state.encode(&again); err != nil {
			t.Fatalf("encode what was read: %v", err)
		}
		if _, _, err := parseState(again.Bytes()); err != nil {
			t.Fatalf("read what was encoded: %v\n%s", err, again.Bytes())
		}
	})
}
