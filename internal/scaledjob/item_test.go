package scaledjob

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/offboard-dev/offboard/internal/queue"
)

const anID = "1a21854e24c00003"

func TestItemJobName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	names := map[string]bool{}
	for _, name := range []string{"a", "usertask", long, long[:62] + "b", strings.Repeat("a.", 31) + "a", strings.Repeat("a-", 31) + "a",
		long[:43], long[:44], long[:45]} {
		for _, attempt := range []int{1, 2, 99, 100_000} {
			got := itemJobName(name, anID, attempt)
			if errs := validation.IsDNS1123Subdomain(got); len(errs) > 0 || len(got) > validation.DNS1123LabelMaxLength {
				t.Errorf("%s, attempt %d: %s: %v", name, attempt, got, errs)
			}
			if names[got] {
				t.Errorf("%s, attempt %d: %s is the name of another", name, attempt, got)
			}
			names[got] = true
		}
	}
	if got, want := itemJobName("usertask", anID, 2), "usertask-"+anID+"-2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestItemVariable(t *testing.T) {
	t.Parallel()
	parts := func(texts ...string) (parts [][]byte) {
		for _, text := range texts {
			parts = append(parts, []byte(text))
		}
		return parts
	}
	for name, test := range map[string]struct {
		parts [][]byte
		want  string
		fits  bool
		file  string
	}{
		"text":       {parts("a \"b\"\n'c'"), "a \"b\"\n'c'", true, "a \"b\"\n'c'"},
		"references": {parts("$(HOME) $HOME $$"), "$$(HOME) $$HOME $$$$", true, "$(HOME) $HOME $$"},
		"empty":      {parts(""), "", true, ""},
		"NUL":        {parts("a\x00"), "", false, "a\x00"},
		"no UTF-8":   {parts("\xff"), "", false, "\xff"},
		"several": {
			parts(`{"a":1}`, "text", "{\n \"b\": 2\n}", "\xff", ""), `[{"a":1},"text",{"b":2},{"base64":"/w=="},""]`, true,
			"{\"a\":1}\n\"text\"\n{\"b\":2}\n{\"base64\":\"/w==\"}\n\"\"\n",
		},
	} {
		got, fits := itemVariable(test.parts)
		if got != test.want || fits != test.fits {
			t.Errorf("%s: got %q, %v, want %q, %v", name, got, fits, test.want, test.fits)
		}
		if file := string(itemFile(test.parts)); file != test.file {
			t.Errorf("%s: the file holds %q, want %q", name, file, test.file)
		}
	}
	if _, fits := itemVariable(parts(strings.Repeat("x", maxItemVariable))); !fits {
		t.Error("what just fits does not")
	}
	if _, fits := itemVariable(parts(strings.Repeat("x", maxItemVariable+1))); fits {
		t.Error("what does not fit does")
	}
}

func TestQueueOf(t *testing.T) {
	t.Parallel()
	world := newPlant(t, nil)
	for _, name := range []string{"work", `"quoted"`, "a\nb", "\xff", " ", `\`, "ä"} {
		job, _ := newItemJob(world.scaledJob, "v", name, queue.Claim{ID: anID, Attempt: 3, Parts: [][]byte{{}}})
		if got := queueOf(job); got != name {
			t.Errorf("got %q, want %q", got, name)
		}
		if id, attempt := claimOf(job); id != anID || attempt != 3 {
			t.Errorf("got %s, %d", id, attempt)
		}
	}
}

// FuzzItems hands any elements of a queue to a Job: the array in the variable and the lines in the file hold each of
// them, as one line of JSON.
func FuzzItems(f *testing.F) {
	f.Add([]byte("a"), []byte(`{"b": 1}`))
	f.Add([]byte("\xff\n"), []byte("{\n}"))
	f.Add([]byte(""), []byte("\"\\u0000\""))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		parts := [][]byte{a, b}
		lines := bytes.Split(bytes.TrimSuffix(itemFile(parts), []byte("\n")), []byte("\n"))
		if len(lines) != len(parts) {
			t.Fatalf("%d lines for %d items: %q", len(lines), len(parts), lines)
		}
		for _, line := range lines {
			if !json.Valid(line) {
				t.Errorf("%q is no JSON", line)
			}
		}
		if value, fits := itemVariable(parts); fits {
			var array []json.RawMessage
			if err := json.Unmarshal([]byte(strings.ReplaceAll(value, "$$", "$")), &array); err != nil || len(array) != len(parts) {
				t.Errorf("%q: %v", value, err)
			}
		}
		_ = itemText(parts)
	})
}
