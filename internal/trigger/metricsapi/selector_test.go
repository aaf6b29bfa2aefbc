package metricsapi

import (
	"fmt"
	"testing"
)

// exposition is a page of metrics.
const exposition = "# TYPE tasks gauge\n" +
	`tasks{queue="mail",zone="eu"} 1` + "\r\n" +
	`tasks{queue="video",zone="us"} 2` + "\n" +
	`tasks{queue="a\"b\\c\nd"} 3` + "\n" +
	"# TYPE done_total counter\ndone_total 7\n" +
	"plain 8 1700000000000\n" +
	"# TYPE took histogram\ntook_bucket{le=\"+Inf\"} 1\ntook_sum 2\ntook_count 3\n" +
	"# TYPE gone gauge\ngone NaN\n" +
	`{"with.dots",a="b"} 9` // without an end of line

func TestSelector(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`tasks`:                "1", // the first
		`tasks{queue="video"}`: "2",
		` tasks { queue = 'video' , zone="us", }`: "2",
		`tasks{zone=~"u."}`:                       "2",
		`tasks{zone=~"u"}`:                        "nothing", // a pattern is that of the whole value
		`tasks{zone!="eu"}`:                       "2",
		`tasks{zone!~"eu|us"}`:                    "3", // a label that is missing is empty
		`tasks{zone=""}`:                          "3",
		`tasks{"queue"="video"}`:                  "2",
		`tasks{queue="a\"b\\c\nd"}`:               "3",
		"tasks{queue=`video`}":                    "2",
		`{__name__="tasks",zone="us"}`:            "2",
		`{"with.dots"}`:                           "9",
		`{"with.dots", a="b"}`:                    "9",
		`done_total`:                              "7",
		`plain{}`:                                 "8",
		`gone`:                                    "NaN",
		`took`:                                    "nothing",
		`absent`:                                  "nothing",
		`tasks{queue="none"}`:                     "nothing",

		``: "refused", `{}`: "refused", `{queue="x"}`: "refused", `tasks{`: "refused", `tasks{queue}`: "refused",
		`tasks{queue=}`: "refused", `tasks{queue=video}`: "refused", `tasks{queue="video"`: "refused",
		`tasks{queue="video"}[5m]`: "refused", `sum(tasks)`: "refused", `tasks{queue=="video"}`: "refused",
		`tasks{queue=~"("}`: "refused", `tasks{queue="\q"}`: "refused", `tasks{queue="x" zone="y"}`: "refused",
		`tasks{__name__="other"}`: "refused", `{__name__=~"tasks"}`: "refused", `{"a","b"}`: "refused", `tasks{,}`: "refused",
		`with.dots`: "refused", `5`: "refused",
	} {
		selector, err := parseSelector(text)
		got := "refused"
		if err == nil {
			value, err := selector.read([]byte(exposition))
			got = fmt.Sprint(value)
			if err != nil {
				got = "nothing"
			}
		}
		if got != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
	if _, err := (selector{name: "a"}).read([]byte("not metrics at all\n")); err == nil {
		t.Error("a page that is no metrics gives no error")
	}
}

func FuzzSelector(f *testing.F) {
	f.Add(`tasks{queue="mail",zone=~"e."}`, exposition)
	f.Add(`{"with.dots",a!='b'}`, "a 1")
	f.Fuzz(func(t *testing.T, text, page string) {
		selector, err := parseSelector(text)
		if err != nil {
			return
		}
		if selector.name == "" {
			t.Fatalf("%q picks metrics without a name", text)
		}
		_, _ = selector.read([]byte(page))
	})
}
