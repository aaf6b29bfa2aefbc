package redisqueue

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// errReply tells that a server does not answer as the script does.
var errReply = errors.New("the server's answer is not the script's")

// decoding reads an answer of the script. After a first error, which it keeps, everything reads as nothing.
type decoding struct{ err error }

func (d *decoding) note(err error) {
	if d.err == nil && err != nil {
		d.err = err
	}
}

func (d *decoding) wrong(value any, want string) {
	d.note(fmt.Errorf("%w: got a %T, want %s", errReply, value, want))
}

// array returns a list of length n; any length when n is negative.
func (d *decoding) array(value any, n int) []any {
	list, ok := value.([]any)
	if !ok || n >= 0 && len(list) != n {
		d.wrong(value, fmt.Sprintf("a list of %d", n))
		return make([]any, max(0, n))
	}
	return list
}

func (d *decoding) integer(value any) int64 {
	n, ok := value.(int64)
	if !ok && d.err == nil {
		d.wrong(value, "a number")
	}
	return n
}

func (d *decoding) text(value any) string {
	text, ok := value.(string)
	if !ok && d.err == nil {
		d.wrong(value, "a text")
	}
	return text
}

// until reads a number of milliseconds, of which a negative one means never.
func (d *decoding) until(value any) time.Duration {
	n := d.integer(value)
	if n < 0 {
		return -1
	}
	return time.Duration(n) * time.Millisecond
}

// meta is what the script notes of an item; its comment explains the letters.
type meta struct {
	Attempt  int    `json:"a"`
	Failures int    `json:"f"`
	Total    int    `json:"t"`
	First    int64  `json:"q"`
	Owner    string `json:"o"`
	Since    int64  `json:"c"`
	Error1   string `json:"e1"`
	Error2   string `json:"e2"`
}

func (d *decoding) meta(value any) (m meta) {
	text := d.text(value)
	if d.err == nil && text != "" {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			d.note(fmt.Errorf("%w: %w", errReply, err))
		}
	}
	return m
}

func (d *decoding) claim(value any) queue.Claim {
	fields := d.array(value, 3)
	return d.makeClaim(d.text(fields[0]), d.meta(fields[1]), fields[2])
}

func (d *decoding) makeClaim(id string, m meta, elements any) queue.Claim {
	claim := queue.Claim{ID: id, Attempt: m.Attempt, Failures: m.Failures, Owner: m.Owner, First: instant(m.First),
		Since: instant(m.Since)}
	for _, element := range d.array(elements, -1) {
		claim.Parts = append(claim.Parts, []byte(d.text(element)))
	}
	return claim
}

func (d *decoding) record(state queue.State, value any) queue.Record {
	fields := d.array(value, 5)
	m := d.meta(fields[1])
	record := queue.Record{
		Claim: d.makeClaim(d.text(fields[0]), m, fields[2]), State: state, Size: d.integer(fields[3]), Total: m.Total,
		FirstFailure: d.failure(m.Error1), LastFailure: d.failure(m.Error2),
	}
	if at := d.text(fields[4]); at != "" {
		when, err := strconv.ParseFloat(at, 64)
		d.note(err)
		record.At = instant(int64(when))
	}
	return record
}

// instant returns the time that milliseconds since 1970 stand for; none for 0.
func instant(milliseconds int64) time.Time {
	if milliseconds == 0 {
		return time.Time{}
	}
	return time.UnixMilli(milliseconds)
}

// failure is queue.Failure with its time in milliseconds, as the script can write it.
type failure struct {
	queue.Failure
	At int64 `json:"at"`
}

func encodeFailure(f *queue.Failure) string {
	text, err := json.Marshal(failure{f.Cut(), f.At.UnixMilli()})
	if err != nil {
		panic(err) // it consists of texts and numbers
	}
	return string(text)
}

func (d *decoding) failure(text string) *queue.Failure {
	if text == "" {
		return nil
	}
	var f failure
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		d.note(fmt.Errorf("%w: a failure: %w", errReply, err))
		return nil
	}
	f.Failure.At = instant(f.At)
	return &f.Failure
}

// sample is how much had arrived and was done at one time.
type sample struct{ at, arrived, done int64 }

func (d *decoding) samples(value any) []sample {
	var rows [][3]float64
	text := d.text(value)
	if d.err != nil {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		d.note(fmt.Errorf("%w: the samples: %w", errReply, err))
	}
	samples := make([]sample, 0, len(rows))
	for _, row := range rows {
		samples = append(samples, sample{int64(row[0]), int64(row[1]), int64(row[2])})
	}
	return samples
}

// rateWindow is over how long rates are averaged, as far as there are samples.
const rateWindow = time.Minute

// rates works out what the samples tell. taken is how many elements were taken off the list, done how many are done.
func rates(stats *queue.Stats, samples []sample, now, taken, done int64) {
	stats.Oldest = -1
	if stats.Ready == 0 {
		stats.Oldest = 0
	}
	var from *sample
	for i := range samples {
		s := &samples[i]
		if s.at > now {
			continue // the clock was set back
		}
		// The head arrived after the last sample at which no more had arrived than are taken by now.
		if stats.Ready > 0 && s.arrived <= taken {
			stats.Oldest = time.Duration(now-s.at) * time.Millisecond
		}
		if from == nil || now-s.at >= rateWindow.Milliseconds() {
			from = s
		}
	}
	if from == nil || now-from.at < time.Second.Milliseconds() {
		return
	}
	stats.Over = time.Duration(now-from.at) * time.Millisecond
	stats.In = float64(max(0, taken+stats.Ready-from.arrived)) / stats.Over.Seconds()
	stats.Out = float64(max(0, done-from.done)) / stats.Over.Seconds()
}
