// Package triggertest holds what the tests of trigger types have in common. It is imported by tests only.
package triggertest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

const (
	// Patience is how long a condition may take that is expected to come true soon.
	Patience = 3 * time.Minute
	// MostMeasureTime is how long one measurement may take, with room for a busy machine: what has no limit of its own
	// takes longer, half a minute or for ever.
	MostMeasureTime = trigger.MeasureTimeout + 20*time.Second
	// Canary is what passwords and tokens of tests hold, and no error may.
	Canary = "hunter2"
)

// Measure measures, which must not fail.
func Measure(tb testing.TB, made trigger.Trigger) trigger.Measurement {
	tb.Helper()
	measured, err := Try(tb, made)
	if err != nil {
		tb.Fatal(err)
	}
	return measured
}

// Try measures, again where a server that is to answer does not do so in time: on a busy machine that takes longer now
// and then.
func Try(tb testing.TB, made trigger.Trigger) (measured trigger.Measurement, err error) {
	tb.Helper()
	err = Again(func() (err error) {
		measured, err = made.Measure(tb.Context())
		return err
	})
	return measured, err
}

// Again asks a server, once more where it does not answer in time, as Try does.
func Again(ask func() error) error {
	for deadline := time.Now().Add(Patience); ; {
		if err := ask(); !late(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// Quickly does what takes less than the limit when the machine is not busy. It returns how long it took, that at the
// least: what takes longer each time does so by itself.
func Quickly(limit time.Duration, do func()) (took time.Duration) {
	took = limit
	for deadline := time.Now().Add(Patience); took >= limit && time.Now().Before(deadline); {
		since := time.Now()
		do()
		took = min(took, time.Since(since))
	}
	return took
}

// measureInTime measures, which must not take long.
func measureInTime(tb testing.TB, made trigger.Trigger) (trigger.Measurement, error) {
	tb.Helper()
	since := time.Now()
	measured, err := made.Measure(tb.Context())
	if took := time.Since(since); took > MostMeasureTime {
		tb.Errorf("a measurement took %v, want at most %v", took, MostMeasureTime)
	}
	return measured, err
}

// Refusal measures and returns the text of the error, which must come in time, in one line and without the Canary.
// Where words are given that it is to hold, a server that does not answer in time is asked again, as by Try.
func Refusal(tb testing.TB, made trigger.Trigger, want ...string) string {
	tb.Helper()
	measured, err := refused(tb, made, want)
	if err == nil {
		tb.Errorf("measured %+v, want an error", measured)
		return ""
	}
	if strings.Contains(err.Error(), Canary) || strings.Contains(err.Error(), "\n") {
		tb.Errorf("error %q shows a password or has several lines", err)
	}
	return err.Error()
}

// refused measures, again where a server does not answer in time and these are not the words that are wanted.
func refused(tb testing.TB, made trigger.Trigger, want []string) (measured trigger.Measurement, err error) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); ; {
		measured, err = measureInTime(tb, made)
		if !late(err) || holdsAll(err.Error(), want) || time.Now().After(deadline) {
			return measured, err
		}
	}
}

// holdsAll tells whether the text holds all of the words.
func holdsAll(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}

// Fails measures, which must fail in time, in these words, and without the secrets; again as Refusal does.
func Fails(tb testing.TB, made trigger.Trigger, want string, secrets ...string) {
	tb.Helper()
	measured, err := refused(tb, made, []string{want})
	if err == nil || !strings.Contains(err.Error(), want) {
		tb.Errorf("measured %v, error %v, want an error with %q", measured, err, want)
	}
	hides(tb, err, secrets)
}

// late tells whether a server has not answered in time.
func late(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "does not answer in time") ||
		strings.Contains(err.Error(), context.DeadlineExceeded.Error()))
}

// InOutage measures once and tells whether that failed; it must never take long, show a secret, nor see another value.
func InOutage(tb testing.TB, made trigger.Trigger, want float64, secrets ...string) (failed bool) {
	tb.Helper()
	measured, err := measureInTime(tb, made)
	if err == nil && measured.Value != want {
		tb.Errorf("measured %v in an outage, want %v or an error", measured.Value, want)
	}
	hides(tb, err, secrets)
	return err != nil
}

// hides checks that the error shows none of the secrets.
func hides(tb testing.TB, err error, secrets []string) {
	tb.Helper()
	for _, secret := range secrets {
		if err != nil && strings.Contains(err.Error(), secret) {
			tb.Errorf("error %q shows a secret", err)
		}
	}
}

// WaitFor waits until the condition holds.
func WaitFor(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// With returns the parameters with further ones: keys and values in turn.
func With(base map[string]string, more ...string) map[string]string {
	all := Merge(base)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// Merge returns the first parameters with what the others have on top.
func Merge(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, one := range all {
		maps.Copy(merged, one)
	}
	return merged
}
