package objects

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// folder is a folder with manifests, and one for the records.
type folder struct {
	t              *testing.T
	manifests, dir string
	log            lockedLog
}

// lockedLog collects what is logged.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	dir := t.TempDir()
	f := &folder{t: t, manifests: filepath.Join(dir, "manifests"), dir: filepath.Join(dir, "records")}
	if err := os.Mkdir(f.manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *folder) path(name string) string { return filepath.Join(f.manifests, name) }

func (f *folder) write(name, content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) remove(name string) {
	f.t.Helper()
	if err := os.Remove(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) options(paths ...string) Options {
	if len(paths) == 0 {
		paths = []string{f.manifests}
	}
	return Options{
		Paths: paths, Dir: f.dir, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		Validate: func(set *manifest.Set) manifest.Problems { return manifest.Validate(set, all.Types()) },
	}
}

func (f *folder) open(paths ...string) *Store {
	f.t.Helper()
	store, problems, err := Open(f.options(paths...))
	if err != nil || store == nil {
		f.t.Fatalf("Open: %v, problems %v", err, problems)
	}
	return store
}

func (f *folder) reload(s *Store) Change {
	f.t.Helper()
	change, err := s.Reload()
	if err != nil {
		f.t.Fatal(err)
	}
	return change
}

// work is a manifest of a ScaledJob with that name and limit.
func work(name, limit string) string {
	return `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: ` + name + `}
spec:
  maxReplicaCount: ` + limit + `
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: i, command: ["true"]}]}}}
  triggers: [{type: redis, metadata: {listName: l, address: "127.0.0.1:1"}}]
`
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: name}
}

func scaledJob(t *testing.T, s *Store, name string) *v1alpha1.ScaledJob {
	t.Helper()
	sj, err := s.ScaledJob(t.Context(), key(name))
	if err != nil {
		t.Fatal(err)
	}
	return sj
}

func names(s *Store) (names []string) {
	for _, sj := range s.List() {
		names = append(names, sj.Name)
	}
	return names
}

// TestRecords reopens the folder: a ScaledJob stays the same one, and is another generation when its specification is.
func TestRecords(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	first := scaledJob(t, s, "a")
	if first.UID == "" || first.Generation != 1 || first.CreationTimestamp.IsZero() || first.Annotations[AnnotationFolder] != f.manifests {
		t.Fatalf("new: %+v", first.ObjectMeta)
	}
	status := first.DeepCopy()
	status.Status.Conditions.Set(v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: "True", Reason: "Ready"})
	if err := s.UpdateStatus(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	for _, more := range []Totals{{Succeeded: 2}, {Failed: 1}} {
		if err := s.Count(key("a"), first.UID, more); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Count(key("a"), "another", Totals{Failed: 9}); err != nil {
		t.Fatal(err)
	}

	check := func(when string, s *Store, generation int64) {
		t.Helper()
		sj := scaledJob(t, s, "a")
		if sj.UID != first.UID || sj.Generation != generation || !sj.CreationTimestamp.Equal(&first.CreationTimestamp) {
			t.Errorf("%s: %+v, want generation %d of %s", when, sj.ObjectMeta, generation, first.UID)
		}
		if sj.Status.Conditions.Get(v1alpha1.ConditionReady).Status != "True" || s.Totals(key("a")) != (Totals{2, 1}) {
			t.Errorf("%s: status %+v, totals %+v", when, sj.Status, s.Totals(key("a")))
		}
	}
	check("reopened", f.open(), 1)
	f.write("a.yaml", work("a", "2"))
	check("edited in between", f.open(), 2)
	check("reopened again", f.open(), 2)

	s = f.open()
	f.write("a.yaml", "# only a comment\n"+work("a", "2"))
	if change := f.reload(s); len(change.Changed) != 0 {
		t.Errorf("a comment is a change: %+v", change)
	}
	f.write("a.yaml", strings.Replace(work("a", "2"), "{name: a}", `{name: a, annotations: {autoscaling.keda.sh/paused: ""}}`, 1))
	if change := f.reload(s); !slices.Equal(change.Changed, []types.NamespacedName{key("a")}) {
		t.Errorf("an annotation is no change: %+v", change)
	}
	check("annotated", s, 2)
	f.write("a.yaml", work("a", "3"))
	f.reload(s)
	check("edited", s, 3)
}

func TestBrokenRecordIsSetAside(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"cut off": `{"uid": "x`, "empty": "", "no identity": "{}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.write("a.yaml", work("a", "1"))
			before := scaledJob(t, f.open(), "a").UID
			record := filepath.Join(f.dir, "default", "a.json")
			if err := os.WriteFile(record, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			sj := scaledJob(t, f.open(), "a")
			if sj.UID == "" || sj.UID == before || sj.Generation != 1 {
				t.Errorf("read from a broken record: %+v", sj.ObjectMeta)
			}
			if aside, err := os.ReadFile(record + ".broken"); err != nil || string(aside) != content {
				t.Errorf("set aside: %q, %v", aside, err)
			}
			if scaledJob(t, f.open(), "a").UID != sj.UID {
				t.Error("the new identity was not kept")
			}
		})
	}
}

// TestLeftoversOfACrash finds a record that was being written.
func TestLeftoversOfACrash(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	uid := scaledJob(t, f.open(), "a").UID
	leftover := filepath.Join(f.dir, "default", "a.json.123.tmp")
	if err := os.WriteFile(leftover, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if scaledJob(t, f.open(), "a").UID != uid {
		t.Error("the identity changed")
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
}

// TestBrokenFiles breaks one of two files in several ways; what it held stays in force, and the other is edited freely.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]string{
		"not YAML":      "{",
		"not valid":     strings.Replace(work("a", "1"), "maxReplicaCount", "maxReplicaCounts", 1),
		"empty":         "",
		"only comments": "# nothing\n---\n",
		"a duplicate":   work("b", "7"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.write("b.yaml", work("b", "1"))
			f.write("c.yaml", work("a", "1")) // after b, so that a duplicate is its fault
			s := f.open()
			uid := scaledJob(t, s, "a").UID

			f.write("c.yaml", broken)
			f.write("b.yaml", work("b", "2"))
			change := f.reload(s)
			if !slices.Equal(change.Changed, []types.NamespacedName{key("b")}) || len(change.Removed) != 0 {
				t.Errorf("change = %+v, want b only", change)
			}
			if a := scaledJob(t, s, "a"); a.UID != uid || a.Generation != 1 {
				t.Errorf("a = %+v", a.ObjectMeta)
			}
			f.reload(s)
			if told := strings.Count(f.log.String(), "Manifest is broken"); told != 1 || !strings.Contains(f.log.String(), "c.yaml") {
				t.Errorf("told %d times:\n%s", told, &f.log)
			}

			f.write("c.yaml", work("a", "5"))
			if change := f.reload(s); !slices.Equal(change.Changed, []types.NamespacedName{key("a")}) {
				t.Errorf("mended: %+v", change)
			}
			if !strings.Contains(f.log.String(), "Manifest is good again") {
				t.Errorf("its end is not told:\n%s", &f.log)
			}
		})
	}
}

func TestBrokenAtFirst(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	f.write("b.yaml", work("a", "2"))
	if store, problems, err := Open(f.options()); store != nil || err != nil || !problems.HasErrors() {
		t.Errorf("Open with a duplicate = %v, %v, %v; want problems", store, problems, err)
	}
	f.remove("b.yaml")
	if store, problems, err := Open(f.options(filepath.Join(f.manifests, "no"))); store != nil || err != nil || !problems.HasErrors() {
		t.Errorf("Open of nothing = %v, %v, %v; want problems", store, problems, err)
	}
}

// TestGivenTwice gives a file by itself and with its folder, under another name.
func TestGivenTwice(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open(f.manifests, f.manifests+"/./a.yaml")
	f.reload(s)
	if got := names(s); !slices.Equal(got, []string{"a"}) || f.log.String() != "" {
		t.Errorf("in force: %v, log:\n%s", got, &f.log)
	}
}

func TestRemoved(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	f.write("b.yaml", work("b", "1"))
	s := f.open()
	a := scaledJob(t, s, "a")
	f.remove("a.yaml")
	change := f.reload(s)
	if len(change.Removed) != 1 || change.Removed[0].UID != a.UID || len(change.Changed) != 0 {
		t.Errorf("change = %+v", change)
	}
	if _, err := s.ScaledJob(t.Context(), key("a")); !apierrors.IsNotFound(err) {
		t.Errorf("ScaledJob: %v", err)
	}
	if err := s.UpdateStatus(t.Context(), a); !apierrors.IsNotFound(err) {
		t.Errorf("UpdateStatus: %v", err)
	}
	if err := s.Count(key("a"), a.UID, Totals{Succeeded: 1}); err != nil {
		t.Errorf("Count: %v", err)
	}
	if known, err := s.Known(key("a")); known || err != nil {
		t.Errorf("Known = %v, %v", known, err)
	}
	f.write("a.yaml", work("a", "1"))
	f.reload(s)
	if again := scaledJob(t, s, "a"); again.UID == a.UID || again.Generation != 1 {
		t.Errorf("the same again: %+v", again.ObjectMeta)
	}
	if err := s.UpdateStatus(t.Context(), a); !apierrors.IsNotFound(err) {
		t.Errorf("UpdateStatus of the former: %v", err)
	}
}

// TestMovedToAnotherFile keeps a ScaledJob that one reload finds in another file.
func TestMovedToAnotherFile(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	uid := scaledJob(t, s, "a").UID
	if err := os.Rename(f.path("a.yaml"), f.path("z.yml")); err != nil {
		t.Fatal(err)
	}
	if change := f.reload(s); len(change.Removed) != 0 || scaledJob(t, s, "a").UID != uid {
		t.Errorf("change = %+v", change)
	}
}

// TestFolderIsAway keeps what a folder held while it cannot be read.
func TestFolderIsAway(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	away := f.manifests + "-away"
	if err := os.Rename(f.manifests, away); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if change := f.reload(s); len(change.Removed) != 0 {
			t.Fatalf("change = %+v", change)
		}
	}
	if told := strings.Count(f.log.String(), "cannot be read"); told != 1 {
		t.Errorf("told %d times:\n%s", told, &f.log)
	}
	if err := os.Rename(away, f.manifests); err != nil {
		t.Fatal(err)
	}
	f.remove("a.yaml")
	if change := f.reload(s); len(change.Removed) != 1 {
		t.Errorf("back and empty: %+v", change)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.write("a.yaml", work("a", "1"))
	s := f.open()
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: "
	f.write("s.yaml", secret+"one}\n")
	if change := f.reload(s); !change.References || len(change.Changed) != 0 {
		t.Errorf("a new Secret: %+v", change)
	}
	if change := f.reload(s); change.References {
		t.Errorf("nothing changed: %+v", change)
	}
	f.write("s.yaml", secret+"two}\n")
	if change := f.reload(s); !change.References {
		t.Errorf("another value: %+v", change)
	}
	if got, err := s.Secret(t.Context(), key("s")); err != nil || string(got.Data["k"]) != "two" {
		t.Errorf("Secret = %v, %v", got, err)
	}
	f.remove("s.yaml")
	if change := f.reload(s); !change.References {
		t.Errorf("gone: %+v", change)
	}
}

// TestIdentitySurvivesEditors changes a manifest in ways in which it is gone for a moment.
func TestIdentitySurvivesEditors(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(f *folder, content string){
		"renamed away and written anew": func(f *folder, content string) {
			if err := os.Rename(f.path("a.yaml"), f.path("a.yaml~")); err != nil {
				f.t.Error(err)
			}
			f.write("a.yaml", content)
			f.remove("a.yaml~")
		},
		"removed and written anew": func(f *folder, content string) {
			f.remove("a.yaml")
			f.write("a.yaml", content)
		},
	} {
		for _, given := range []string{"", "a.yaml"} {
			t.Run(name+", given as "+filepath.Join("folder", given), func(t *testing.T) {
				t.Parallel()
				f := newFolder(t)
				f.write("a.yaml", work("a", "1"))
				s := f.open(filepath.Join(f.manifests, given))
				s.settle = 2 * time.Second // a busy machine takes its time between two steps
				uid := scaledJob(t, s, "a").UID
				ctx, cancel := context.WithCancel(context.Background())
				var watching sync.WaitGroup
				watching.Go(func() {
					if err := s.Watch(ctx, func(Change) {}); err != nil {
						t.Error(err)
					}
				})
				defer watching.Wait()
				defer cancel()
				for _, limit := range []string{"2", "3"} {
					replace(f, work("a", limit))
					awaitLimit(t, s, int32(limit[0]-'0'))
				}
				if got := scaledJob(t, s, "a"); got.UID != uid || got.Generation != 3 {
					t.Errorf("in force: %+v, want generation 3 of %s", got.ObjectMeta, uid)
				}
			})
		}
	}
}

// awaitLimit waits until the ScaledJob a that is in force has the limit.
func awaitLimit(t *testing.T, s *Store, want int32) {
	t.Helper()
	var limit int32
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if sj, err := s.ScaledJob(t.Context(), key("a")); err == nil {
			if limit = *sj.Spec.MaxReplicaCount; limit == want {
				return
			}
		}
	}
	t.Fatalf("limit %d, want %d", limit, want)
}
