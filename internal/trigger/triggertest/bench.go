package triggertest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Compare measures by turns with the trigger and with what bare does: the same question to the same server by a client
// alone. It reports the medians, and their ratio, which is how much the trigger adds to the server's own answer time;
// on a machine with other work the medians differ from run to run, the ratio hardly.
func Compare(b *testing.B, made trigger.Trigger, bare func() error) {
	b.Helper()
	var ours, theirs []time.Duration
	for b.Loop() {
		since := time.Now()
		if err := bare(); err != nil {
			b.Fatal(err)
		}
		asked := time.Now()
		if _, err := made.Measure(b.Context()); err != nil {
			b.Fatal(err)
		}
		theirs, ours = append(theirs, asked.Sub(since)), append(ours, time.Since(asked))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	our, their := ours[len(ours)/2], theirs[len(theirs)/2]
	b.ReportMetric(0, "ns/op") // it would be of both together
	b.ReportMetric(float64(our.Nanoseconds())/1e3, "trigger-µs")
	b.ReportMetric(float64(their.Nanoseconds())/1e3, "bare-µs")
	b.ReportMetric(float64(our)/float64(their), "ratio")
}

// Getter returns what asks with GET for an address and reads the answer with Go's packages alone: as JSON into a
// value, or, where that is nil, to its end.
func Getter(tb testing.TB) func(address string, into any) error {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	return func(address string, into any) error {
		answer, err := client.Get(address)
		if err != nil {
			return err
		}
		if into != nil {
			err = json.NewDecoder(answer.Body).Decode(into)
		}
		_, rest := io.Copy(io.Discard, answer.Body)
		return errors.Join(err, rest, answer.Body.Close())
	}
}
