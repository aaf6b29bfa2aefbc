package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// TestAgrees makes sure that the seeds of FuzzDecodeAgrees are accepted, so that it compares something.
func TestAgrees(t *testing.T) {
	t.Parallel()
	for _, text := range agreeingTexts {
		if !checkAgrees(t, []byte(text)) {
			t.Errorf("%s\nis not accepted:\n%v", text, Parse("a", []byte(text)).Problems.Err())
		}
	}
	usertask, err := os.ReadFile(filepath.Join("testdata", "usertask.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range bytes.Split(usertask, []byte("\n---\n")) {
		checkAgrees(t, document)
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		"": nil, "~": nil, "y": true, "off": false, "0x1f": int64(31), "017": int64(15), "1_000": int64(1000), "1e3": 1000.0,
		"18446744073709551615": uint64(18446744073709551615), "2001-01-01": "2001-01-01", "1:30": "1:30", "yess": "yess",
	} {
		if got := resolvePlain(text); got != want {
			t.Errorf("%q is %#v, want %#v", text, got, want)
		}
	}
}

// watch measures how long something takes: the time of the clock, or that of the processors where it is less, as it is
// on a machine that does something else meanwhile.
type watch struct {
	began time.Time
	used  time.Duration
}

func startWatch() watch { return watch{time.Now(), used()} }

func (w watch) took() time.Duration { return min(time.Since(w.began), used()-w.used) }

// used returns the time of the processors that this process has used.
func used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestHostileTextsEndSoon(t *testing.T) {
	t.Parallel()
	for i, text := range hostileTexts() {
		watch := startWatch()
		problems := Validate(Parse("hostile.yaml", []byte(text)), nil)
		if took := watch.took(); took > 5*time.Second {
			t.Errorf("text %d took %v", i, took)
		}
		if i < 2 && !strings.Contains(fmt.Sprint(problems), "aliases make this document far larger") {
			t.Errorf("text %d: %v", i, problems)
		}
	}
}

func TestLargeFiles(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprint(Parse("large.yaml", make([]byte, MaxFileSize+1)).Problems); !strings.Contains(got,
		"large.yaml: the file is larger than 4 MiB") {
		t.Error(got)
	}
	const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	for name, text := range map[string]string{
		"unknown fields": head + strings.Repeat("x: y\n", 30_000),
		"one key":        head + "data: {" + strings.Repeat("k", 500_000) + ": v}",
		"flow":           head + "data: [" + strings.Repeat("a,", 100_000) + "]",
		"documents":      strings.Repeat("---\n"+head, 20_000),
		"brackets":       strings.Repeat("[]\n", 100_000),
		"comments":       strings.Repeat("# x\n", 500_000),
		"markers":        strings.Repeat("---\n", 100_000),
		"scalars":        strings.Repeat("---\na\n", 20_000),
		"broken":         strings.Repeat("---\n[\n", 20_000),
	} {
		watch := startWatch()
		problems := Validate(Parse("large.yaml", []byte(text)), nil)
		if took := watch.took(); took > 20*time.Second {
			t.Errorf("%s: %d bytes took %v", name, len(text), took)
		}
		if len(problems) > maxDocuments+1 || len(problems) > maxProblems+1 && strings.Count(text, "---") < 2 {
			t.Errorf("%s: %d problems", name, len(problems))
		}
	}
}

func TestTextThatIsNoYAML(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: b\nc: \xff":       "f:2:4: byte 0xff is not UTF-8: save the file as UTF-8",
		"\xff\xfea\x00":       "f:1:1: the file is UTF-16: save it as UTF-8",
		"ä: \x01":             "f:1:4: control character U+0001: write it as an escape in double quotes",
		"a\ufeff":             "f:1:2: byte order mark in the middle of the file: remove it",
		"a:\n\tb: c":          "f:2:1: a tab in the indentation: YAML is indented with spaces only",
		"a: b\n---\nc: *nope": "f:3:4: alias *nope: no anchor &nope comes before it in this document",
		"a: [":                "f:1:1: not valid YAML: did not find expected node content",
	} {
		var found []string
		for _, p := range Parse("f", []byte(text)).Problems {
			found = append(found, p.Error())
		}
		if !slices.Contains(found, want) {
			t.Errorf("%q: %q, want %q", text, found, want)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	configMap := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
	}
	b := write("b.yml", configMap("b"))
	write("a.yaml", configMap("a")+"---\n"+configMap("b"))
	write("c.json", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}`)
	write("notes.txt", "not: [yaml")
	write(".hidden.yaml", "not: [yaml")
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(dir, "absent.yaml")

	set := Read(strings.NewReader(configMap("d")), b, dir, "-", absent, "-", os.DevNull)
	var names []string
	for document, configMap := range All[*corev1.ConfigMap](set) {
		names = append(names, filepath.Base(document.File)+" "+configMap.Name)
	}
	if want := []string{"b.yml b", "a.yaml a", "a.yaml b", "c.json c", "<stdin> d"}; !reflect.DeepEqual(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	var problems []string
	for _, p := range Validate(set, nil) {
		problems = append(problems, strings.ReplaceAll(p.Error(), dir+string(filepath.Separator), ""))
	}
	want := []string{
		"a.yaml:7:18: metadata.name: ConfigMap default/b is declared already at " + b + ":1: rename or remove one of them",
		"absent.yaml: cannot be read: no such file or directory",
		os.DevNull + ": cannot be read: it is neither a file nor a folder",
	}
	want[0] = strings.ReplaceAll(want[0], dir+string(filepath.Separator), "")
	if !reflect.DeepEqual(problems, want) {
		t.Errorf("got %q\nwant %q", problems, want)
	}
	if got := Read(nil, t.TempDir()).Problems; len(got) != 1 || got[0].Severity != Warning {
		t.Errorf("empty folder: %v", got)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	set := ReadFile(filepath.Join("testdata", "usertask.yaml"))
	if err := set.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	for document, scaledJob := range All[*v1alpha1.ScaledJob](set) {
		if document.String() != "ScaledJob default/usertask" || document.Line != 2 || *scaledJob.Spec.MaxReplicaCount != 25 {
			t.Errorf("%v at line %d: %+v", document, document.Line, scaledJob.Spec)
		}
	}
	for _, secret := range All[*corev1.Secret](set) {
		if string(secret.Data["password"]) != "new" || string(secret.Data["user"]) != "user" || secret.StringData != nil {
			t.Errorf("Secret: %+v", secret)
		}
	}
	if others := set.Others(); len(others) != 1 || others[0].String() != "Deployment web" {
		t.Errorf("others: %v", others)
	}
	if len(set.Documents) != 4 {
		t.Errorf("%d documents", len(set.Documents))
	}
}

func TestProblemsAreErrorsAndJSON(t *testing.T) {
	t.Parallel()
	problems := Validate(ReadFile(filepath.Join("testdata", "secret.yaml")), nil)
	var problem Problem
	if !errors.As(problems.Err(), &problem) || problem.Line != 7 || problem.Object != "Secret default/secret" {
		t.Errorf("first problem: %+v", problem)
	}
	data, err := json.Marshal(problems)
	if err != nil || bytes.Contains(data, []byte("hunter2")) || bytes.Contains(data, []byte("4711")) {
		t.Errorf("%s, %v", data, err)
	}
	if data, err := json.Marshal(Problems(nil)); err != nil || string(data) != "[]" {
		t.Errorf("%s, %v", data, err)
	}
	if Problems(nil).Err() != nil || (Problems{{Severity: Warning}}).Err() != nil {
		t.Error("an error without errors")
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	names := []string{"containers", "initContainers", "env", "envFrom"}
	for got, want := range map[string]string{
		"Containers": `did you mean "containers"?`, "contianers": `did you mean "containers"?`, "enf": `did you mean "env"?`,
		"volumes":                "want one of containers, env, envFrom, initContainers",
		strings.Repeat("x", 100): "want one of containers, env, envFrom, initContainers",
	} {
		if hint := suggest(got, names); hint != want {
			t.Errorf("suggest(%q) = %q, want %q", got, hint, want)
		}
	}
}

func TestUnsupportedSourcesAreRefusedInFiles(t *testing.T) {
	t.Parallel()
	const text = `{"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
"metadata": {"name": "a", "namespace": "b"},
"spec": {"podIdentity": {"provider": "none"}, "oauth2": {"type": "clientCredentials", "clientId": "c", "tokenUrl": "u"}}}`
	for name, test := range map[string]struct {
		problems Problems
		severity Severity
	}{
		"of a file":    {Validate(Parse("a.json", []byte(text)), nil), Error},
		"of a cluster": {ValidateObject([]byte(text), nil), Warning},
	} {
		if len(test.problems) != 1 || test.problems[0].Field != "spec.oauth2" ||
			test.problems[0].Severity != test.severity {
			t.Errorf("%s: got %v", name, test.problems)
		}
	}
}
