package cron_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/cron"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func build(t testing.TB, timezone, start, end string) trigger.Trigger {
	t.Helper()
	made, err := cron.Type().New(t.Context(), trigger.Config{PollingInterval: time.Minute, Metadata: config{
		"timezone": timezone, "start": start, "end": end, "desiredReplicas": "10",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

func active(t testing.TB, made trigger.Trigger) bool {
	t.Helper()
	got, err := made.Measure(t.Context())
	want := trigger.Measurement{Target: 1, Holds: time.Minute}
	if got.Active {
		want.Value, want.Active = 10, true
	}
	if err != nil || got != want {
		t.Errorf("at %v: got %+v, %v; want %+v", time.Now().UTC(), got, err, want)
	}
	return got.Active
}

// period is a line of the table of changes: what is measured from a time on, until the next line.
type period struct {
	from   string // RFC 3339
	active bool
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timezone, start, end string
		periods              []period
	}{
		"within a day": {"Asia/Kolkata", "0 6 * * *", "30 20 * * *", []period{
			{"2000-01-02T00:00:00+05:30", false}, {"2000-01-02T06:00:00+05:30", true}, {"2000-01-02T20:30:00+05:30", false},
			{"2000-01-03T06:00:00+05:30", true},
		}},
		"over midnight": {"America/New_York", "0 22 * * *", "0 6 * * *", []period{
			{"2000-01-02T06:00:00-05:00", false}, {"2000-01-02T22:00:00-05:00", true}, {"2000-01-03T06:00:00-05:00", false},
		}},
		"on working days": {"UTC", "0 8 * * 1-5", "0 18 * * 1-5", []period{
			// The 3rd is a Monday.
			{"2000-01-02T00:00:00Z", false}, {"2000-01-03T08:00:00Z", true}, {"2000-01-03T18:00:00Z", false},
			{"2000-01-07T08:00:00Z", true}, {"2000-01-07T18:00:00Z", false}, {"2000-01-10T08:00:00Z", true},
		}},
		"from Friday to Monday": {"UTC", "0 18 * * FRI", "0 8 * * MON", []period{
			{"2000-01-03T08:00:00Z", false}, {"2000-01-07T18:00:00Z", true}, {"2000-01-10T08:00:00Z", false},
		}},
		"the first of a month": {"UTC", "0 0 1 * *", "0 0 2 * *", []period{
			{"2000-01-02T00:00:00Z", false}, {"2000-02-01T00:00:00Z", true}, {"2000-02-02T00:00:00Z", false},
		}},
		// KEDA looks at what comes next only: of several starts before one end, the last counts.
		"two starts": {"UTC", "0 6,12 * * *", "0 14 * * *", []period{
			{"2000-01-01T14:00:00Z", false}, {"2000-01-02T12:00:00Z", true}, {"2000-01-02T14:00:00Z", false},
		}},
		// An end at the time of a start is no end.
		"start and end at one time": {"UTC", "0 6,12 * * *", "0 12 * * *", []period{
			{"2000-01-01T06:00:00Z", true}, {"2000-01-01T12:00:00Z", false}, {"2000-01-02T06:00:00Z", true},
		}},
		"a time zone of its own": {"UTC", "TZ=Asia/Tokyo 0 6 * * *", "CRON_TZ=Asia/Tokyo 0 7 * * *", []period{
			{"2000-01-02T00:00:00Z", false}, {"2000-01-02T21:00:00Z", true}, {"2000-01-02T22:00:00Z", false},
		}},
		// On the 26th of March it is 3 o'clock at once after 1:59, on the 29th of October 2 o'clock twice.
		"over the hour that is missing": {"Europe/Berlin", "0 1 * * *", "0 4 * * *", []period{
			{"2000-03-25T04:00:00+01:00", false}, {"2000-03-26T01:00:00+01:00", true}, {"2000-03-26T04:00:00+02:00", false},
		}},
		"over the hour that comes twice": {"Europe/Berlin", "0 1 * * *", "0 4 * * *", []period{
			{"2000-10-28T04:00:00+02:00", false}, {"2000-10-29T01:00:00+02:00", true}, {"2000-10-29T04:00:00+01:00", false},
		}},
		// The end that does not come is that of the next day.
		"until the hour that is missing": {"Europe/Berlin", "0 1 * * *", "30 2 * * *", []period{
			{"2000-03-25T02:30:00+01:00", false}, {"2000-03-26T01:00:00+01:00", false}, {"2000-03-27T01:00:00+02:00", true},
			{"2000-03-27T02:30:00+02:00", false},
		}},
		"from the hour that is missing": {"Europe/Berlin", "30 2 * * *", "0 5 * * *", []period{
			{"2000-03-25T02:30:00+01:00", true}, {"2000-03-26T05:00:00+02:00", false}, {"2000-03-27T02:30:00+02:00", true},
		}},
		"from the hour that comes twice": {"Europe/Berlin", "30 2 * * *", "0 5 * * *", []period{
			{"2000-10-28T05:00:00+02:00", false}, {"2000-10-29T02:30:00+01:00", true}, {"2000-10-29T05:00:00+01:00", false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				made := build(t, test.timezone, test.start, test.end)
				for i, p := range test.periods {
					from, err := time.Parse(time.RFC3339, p.from)
					if err != nil {
						t.Fatal(err)
					}
					if i > 0 {
						time.Sleep(time.Until(from) - 1)
						if got := active(t, made); got != test.periods[i-1].active {
							t.Errorf("just before %v: active is %t, want %t", p.from, got, !got)
						}
					}
					time.Sleep(time.Until(from))
					if got := active(t, made); got != p.active {
						t.Errorf("at %v: active is %t, want %t", p.from, got, p.active)
					}
				}
			})
		})
	}
}

func TestWatchTellsWhenTimesCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		made := build(t, "Europe/Berlin", "0 6 * * *", "0 20 * * *")
		var told []string
		stop := made.(trigger.Watcher).Watch(func() {
			told = append(told, fmt.Sprint(time.Now().UTC().Format("2 15:04:05.999999999")))
		})
		time.Sleep(2*24*time.Hour + time.Hour)
		stop()
		stop() // twice does no harm
		// At once, then at each start and end, and never else.
		want := "1 00:00:00,1 05:00:00,1 19:00:00,2 05:00:00,2 19:00:00"
		if got := strings.Join(told, ","); got != want {
			t.Errorf("told at %s, want %s", got, want)
		}
		time.Sleep(24 * time.Hour)
		if len(told) != 5 {
			t.Errorf("told after the end: %s", told[5:])
		}
	})
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ key, value, want string }{
		{"start", "", "start: is required"},
		{"end", "", "end: is required"},
		{"timezone", "", "timezone: is required"},
		{"desiredReplicas", "", "desiredReplicas: is required"},
		{"start", "6", `start "6": is not a cron schedule: expected exactly 5 fields`},
		{"end", "0 25 * * *", `end "0 25 * * *": is not a cron schedule`},
		{"start", "@daily", "is not a cron schedule"},
		{"start", "0 0 6 * * *", "is not a cron schedule"},
		{"start", "TZ=UTC", "is not a cron schedule: nothing follows the time zone"},
		{"start", "0 0 30 2 *", "is a time that never comes"},
		{"end", "0 6 * * *", "end \"0 6 * * *\": is the same as start"},
		{"timezone", "Berlin", `timezone "Berlin": is not a time zone`},
		{"desiredReplicas", "0", "is too small; give at least 1"},
		{"desiredReplicas", "1.5", "is not a whole number"},
	} {
		metadata := config{"timezone": "UTC", "start": "0 6 * * *", "end": "0 7 * * *", "desiredReplicas": "1"}
		metadata[test.key] = test.value
		_, err := cron.Type().New(t.Context(), trigger.Config{Metadata: metadata})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: error %v, want %q", test.key, test.value, err, test.want)
		}
	}
	metadata := config{"timezone": "Europe/Berlin", "start": "*/5 6,7 * * ?", "end": "0 20 * * *"}
	want := "s0-cron-Europe-Berlin-xSl56Cm7xxQm-020xxx"
	if name := cron.Type().ExternalMetricName(0, trigger.Config{Metadata: metadata}); name != want {
		t.Errorf("metric name %s, want %s", name, want)
	}
	if got, _ := cron.Type().ThresholdOf(metadata); got != (trigger.Threshold{Target: 1}) {
		t.Errorf("threshold %+v", got)
	}
}

func FuzzSchedules(f *testing.F) {
	f.Add("UTC", "0 6 * * *", "0 20 * * 1-5")
	f.Add("Europe/Berlin", "TZ=Asia/Tokyo 0 6 * * *", "*/5 6,7 1 JAN ?")
	f.Add("../etc", "TZ=", "CRON_TZ=UTC")
	f.Fuzz(func(t *testing.T, timezone, start, end string) {
		made, err := cron.Type().New(t.Context(), trigger.Config{Metadata: config{
			"timezone": timezone, "start": start, "end": end, "desiredReplicas": "3",
		}})
		if err != nil {
			return
		}
		if got, err := made.Measure(t.Context()); err != nil || (got.Value != 0 && got.Value != 3) {
			t.Fatalf("%+v, %v", got, err)
		}
		made.(trigger.Watcher).Watch(func() {})()
	})
}

func BenchmarkMeasure(b *testing.B) {
	made := build(b, "Europe/Berlin", "0 6 * * 1-5", "0 20 * * 1-5")
	for b.Loop() {
		if _, err := made.Measure(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
