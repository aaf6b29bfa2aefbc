package simulate

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func checkXML(t *testing.T, text string) {
	t.Helper()
	for decoder := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseTrace(t *testing.T) {
	t.Parallel()
	fixed := Constant(7 * time.Second)
	const s = time.Second
	for _, tt := range []struct {
		name, text string
		work       *Spread
		want       []Arrival
		unsorted   int
	}{
		{"CSV of seconds", "0,1\n1.5,2m\n 10 , 3.25 \n", nil, []Arrival{{0, s}, {1500 * time.Millisecond, 120 * s}, {10 * s, 3250 * time.Millisecond}}, 0},
		{"a title, comments, empty lines", "Time,work\r\n# peak\r\n\r\n4,1\r\n", nil, []Arrival{{4 * s, s}}, 0},
		{"without an end", "4,1", nil, []Arrival{{4 * s, s}}, 0},
		{"without work", "1\n2,9\n3", &fixed, []Arrival{{s, 7 * s}, {2 * s, 9 * s}, {3 * s, 7 * s}}, 0},
		{"dates", "2026-03-04T12:00:00Z,1\n2026-03-04T14:00:00.5+01:00,1", nil, []Arrival{{0, s}, {3600*s + 500*time.Millisecond, s}}, 0},
		{"dates that are not sorted", "2026-03-04T12:00:05Z,1\n2026-03-04T12:00:00Z,2\n2026-03-04T12:00:01Z,3", nil, []Arrival{{0, 2 * s}, {s, 3 * s}, {5 * s, s}}, 2},
		{"JSON", `{"time": 1, "work": "1m"}` + "\n" + `{"work": 2.5, "time": "2"}` + "\n" + `{"time": "3"}`, &fixed,
			[]Arrival{{s, 60 * s}, {2 * s, 2500 * time.Millisecond}, {3 * s, 7 * s}}, 0},
		{"JSON dates", `{"time": "1970-01-01T00:00:00Z", "work": 0}`, nil, []Arrival{{0, 0}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseTrace(strings.NewReader(tt.text), tt.work, 1)
			if err != nil || !slices.Equal(got.Arrivals, tt.want) || got.Unsorted != tt.unsorted {
				t.Errorf("got %v, %v, want %v with %d not sorted", got, err, tt.want, tt.unsorted)
			}
		})
	}
}

func TestParseTraceRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                            "holds no arrival",
		"time,work\n":                 "holds no arrival",
		"0,1\nx,1":                    `line 2: time: "x" is no time: want one in RFC 3339, as 2026-01-02T15:04:05Z, or seconds`,
		"0,1\n\n-1,1":                 `line 3: time: "-1" is no time`,
		"NaN,1":                       `line 1: time: "NaN"`,
		"1e300,1":                     `line 1: time: "1e300"`,
		"0,1\n2026-03-04T12:00:00Z,1": "line 2: time: 2026-03-04T12:00:00Z is of another kind than the time on the first line",
		"1969-12-31T00:00:00Z,1":      "line 1: time: 1969-12-31T00:00:00Z is not in the years",
		"2020-01-01T00:00:00Z,1\n2031-01-01T00:00:00Z,1": "spans",
		"0":                                    "line 1: says not how long the work takes",
		"0,":                                   "line 1: has a comma and no work after it",
		"0,1,2":                                "line 1: has 3 fields: want TIME or TIME,WORK",
		"0,soon":                               `line 1: work: "soon" is no duration: want one as 90s or 1h30m, or seconds`,
		"0,-1s":                                `line 1: work: "-1s" is no duration`,
		"0,1\ntime,work":                       `line 2: time: "time" is no time`,
		`{"time": 1, "work": 1, "wrok": 2}`:    `line 1: want {"time": TIME} or {"time": TIME, "work": WORK}: unknown field "wrok"`,
		`{"time": 1`:                           "line 1: want",
		`{"work": 1}`:                          "line 1: time: is required",
		`{"time": [1], "work": 1}`:             "line 1: time: must be a text or a number, not [1]",
		`{"time": null, "work": 1}`:            "line 1: time: must be a text or a number, not null",
		`{"time": 1, "work": true}`:            "line 1: work: must be a text or a number, not true",
		`{"time": 1, "work": ""}`:              "line 1: work: must not be empty",
		"0,1\n" + strings.Repeat("9", maxLine): "line 2: is longer than 4096 bytes",
	} {
		if got, err := ParseTrace(strings.NewReader(text), nil, 1); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: got %v, %v, want %q", text, got, err, want)
		}
	}
	broken := iotest.ErrReader(errors.New("gone"))
	if _, err := ParseTrace(io.MultiReader(strings.NewReader("0,1\n"), broken), nil, 1); err == nil ||
		err.Error() != "read line 2: gone" {
		t.Errorf("got %v", err)
	}
}

// FuzzTrace reads anything: no panic, arrivals in order and within bounds, and errors of one line that name theirs.
func FuzzTrace(f *testing.F) {
	for _, text := range []string{
		"0,1\n1.5,2m\n", "time,work\n2026-03-04T12:00:00Z,90s\n2026-03-04T11:00:00+02:00,1", `{"time": 1, "work": "1m"}`,
		`{"time":"2026-03-04T12:00:00Z"}` + "\n# x\n\n", "1\n0\n", "1e9,1e-9", "0,0x1p3", "0,", "{", "\x00,\xff", "-0,+0",
	} {
		f.Add(text)
	}
	work := Constant(time.Second)
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := ParseTrace(strings.NewReader(text), &work, 1)
		if err != nil {
			return
		}
		if len(trace.Arrivals) == 0 {
			t.Error("no arrivals, and no error")
		}
		var last time.Duration
		for i, a := range trace.Arrivals {
			if a.At < last || a.At > MaxDuration || a.Work < 0 || a.Work > MaxDuration {
				t.Errorf("arrival %d is %+v after one at %v", i, a, last)
			}
			last = a.At
		}
		if len(trace.Arrivals) > 100 {
			return
		}
		// What is written as this program would write it is read as the same.
		var again strings.Builder
		for _, a := range trace.Arrivals {
			fmt.Fprintf(&again, "%.9f,%v\n", a.At.Seconds(), a.Work)
		}
		reread, err := ParseTrace(strings.NewReader(again.String()), nil, 1)
		if err != nil || !slices.EqualFunc(reread.Arrivals, trace.Arrivals, func(a, b Arrival) bool {
			return (a.At-b.At).Abs() < time.Microsecond && a.Work == b.Work // seconds have 53 bits
		}) {
			t.Errorf("%q is read as %v, %v, want %v", again.String(), reread.Arrivals, err, trace.Arrivals)
		}
	})
}

func TestParseSpread(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0s", "30s", "exp:1m30s", "1s..1m40s", "2s..2s"} {
		if got, err := ParseSpread(text); err != nil || got.String() != text {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":           `"" is no duration; a duration is 30s, or exp:30s for`,
		"30":         `"30" is no duration`,
		"exp:":       `"" is no duration`,
		"9s..1s":     "1s is less than 9s: write the shorter one first",
		"1s..x":      `"x" is no duration`,
		"-1s":        "-1s is not between 0 and 87600h0m0s",
		"exp:99999h": "99999h0m0s is not between",
	} {
		if got, err := ParseSpread(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"5/s": 5, "300/m": 5, "1800/h": 0.5, "0.25/s": 0.25} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "5/", "/s", "5/d", "0/s", "-1/s", "NaN/s", "Inf/s", "5 /s"} {
		if got, err := ParseRate(text); err == nil || !strings.Contains(err.Error(), "as 5/s, 300/m or 0.5/h") {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestGenerator(t *testing.T) {
	t.Parallel()
	even, err := Generator{Rate: 2, For: 2 * time.Second, Even: true, Work: Constant(time.Second)}.Arrivals()
	want := []Arrival{{0, time.Second}, {500 * time.Millisecond, time.Second}, {time.Second, time.Second}, {1500 * time.Millisecond, time.Second}}
	if err != nil || !slices.Equal(even, want) {
		t.Errorf("got %v, %v", even, err)
	}
	poisson, err := Generator{Rate: 100, For: 1000 * time.Second, Work: Constant(0)}.Arrivals()
	if err != nil || len(poisson) < 99_000 || len(poisson) > 101_000 ||
		!slices.IsSortedFunc(poisson, func(a, b Arrival) int { return int(a.At - b.At) }) {
		t.Errorf("got %d arrivals, %v", len(poisson), err)
	}
	if _, err := (Generator{Rate: 1e6, For: time.Hour}).Arrivals(); err == nil ||
		err.Error() != "1e+06 a second for 1h0m0s are 3.6e+09 arrivals; at most 10000000 are simulated" {
		t.Errorf("got %v", err)
	}
	if _, err := (Generator{Rate: 1, For: -1}).Arrivals(); err == nil {
		t.Error("a negative time is no error")
	}
}
