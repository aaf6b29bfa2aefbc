package simulate

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	strictjson "sigs.k8s.io/json"
)

// maxLine bounds the length of a line of a trace, in bytes.
const maxLine = 4096

// Trace is a recorded one.
type Trace struct {
	// Arrivals are sorted by time.
	Arrivals []Arrival
	// Unsorted counts those that came before the one on a line above.
	Unsorted int
}

// ParseTrace reads a trace, one arrival a line: when it came, and optionally how long the work on it took. As CSV that
// is TIME or TIME,WORK; as JSON {"time": TIME, "work": WORK}. A time is in RFC 3339, and then the earliest is the start
// of the simulation, or it is a number of seconds from the start; all must be of the same kind. Work is a Go duration
// or a number of seconds; where a line has none, it is drawn from work, and is an error when work is nil. Empty lines,
// those that begin with #, and a first line "time" or "time,work" are skipped. An error names the line.
func ParseTrace(reader io.Reader, work *Spread, seed uint64) (Trace, error) {
	p := parser{work: work, random: rand.New(rand.NewPCG(seed, 0))}
	lines := bufio.NewScanner(reader)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	number := 0
	for lines.Scan() {
		number++
		if err := p.line(bytes.TrimSpace(lines.Bytes())); err != nil {
			return Trace{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Trace{}, fmt.Errorf("line %d: is longer than %d bytes", number+1, maxLine)
	case err != nil:
		return Trace{}, fmt.Errorf("read line %d: %w", number+1, err)
	}
	return p.trace()
}

// parser holds what has been read.
type parser struct {
	work   *Spread
	random *rand.Rand

	arrivals []Arrival // while dated, their times are since epoch
	dated    bool
	seen     bool // whether there was a line that is not skipped
	latest   time.Duration
	unsorted int
}

func (p *parser) line(line []byte) error {
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	first := !p.seen
	p.seen = true
	var at, work string
	if line[0] == '{' {
		var err error
		if at, work, err = fields(line); err != nil {
			return err
		}
	} else {
		var more bool
		at, work, more = strings.Cut(string(line), ",")
		at, work = strings.TrimSpace(at), strings.TrimSpace(work)
		switch {
		case first && strings.EqualFold(at, "time"):
			return nil
		case strings.Contains(work, ","):
			return fmt.Errorf("has %d fields: want TIME or TIME,WORK", strings.Count(string(line), ",")+1)
		case more && work == "":
			return errors.New("has a comma and no work after it: want TIME or TIME,WORK")
		}
	}
	if len(p.arrivals) == MaxArrivals {
		return fmt.Errorf("is one too many: at most %d arrivals are simulated", MaxArrivals)
	}
	a, err := p.arrival(at, work)
	if err != nil {
		return err
	}
	if len(p.arrivals) > 0 && a.At < p.latest {
		p.unsorted++
	} else {
		p.latest = a.At
	}
	p.arrivals = append(p.arrivals, a)
	return nil
}

// fields returns time and work of a JSON object as CSV would have them.
func fields(line []byte) (at, work string, err error) {
	var object struct {
		Time json.RawMessage `json:"time"`
		Work json.RawMessage `json:"work"`
	}
	strict, err := strictjson.UnmarshalStrict(line, &object)
	if err = errors.Join(err, errors.Join(strict...)); err != nil {
		return "", "", fmt.Errorf(`want {"time": TIME} or {"time": TIME, "work": WORK}: %w`, err)
	}
	if object.Time == nil {
		return "", "", errors.New("time: is required")
	}
	if at, err = scalar("time", object.Time); err != nil || object.Work == nil {
		return at, "", err
	}
	if work, err = scalar("work", object.Work); err == nil && work == "" {
		err = errors.New("work: must not be empty")
	}
	return at, work, err
}

func scalar(name string, raw json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err == nil && raw[0] == '"' {
		return text, nil
	}
	var number json.Number
	if err := json.Unmarshal(raw, &number); err == nil && raw[0] != '"' && number != "" {
		return number.String(), nil
	}
	return "", fmt.Errorf("%s: must be a text or a number, not %s", name, raw)
}

func (p *parser) arrival(at, work string) (a Arrival, err error) {
	date, dateErr := time.Parse(time.RFC3339, at)
	dated := dateErr == nil
	switch {
	case dated:
		if y := date.Year(); y < 1970 || y > 2200 {
			return a, fmt.Errorf("time: %s is not in the years 1970 to 2200", at)
		}
		a.At = date.Sub(epoch)
	default:
		if a.At, err = seconds(at); err != nil {
			return a, fmt.Errorf("time: %q is no time: want one in RFC 3339, as 2026-01-02T15:04:05Z, "+
				"or seconds from the start, from 0 to %.0f", at, MaxDuration.Seconds())
		}
	}
	if len(p.arrivals) == 0 {
		p.dated = dated
	}
	if p.dated != dated {
		return a, fmt.Errorf("time: %s is of another kind than the time on the first line: want all in RFC 3339, or all in "+
			"seconds from the start", at)
	}
	switch {
	case work == "" && p.work == nil:
		return a, errors.New("says not how long the work takes: add it to the line, or give --work for all such lines")
	case work == "":
		a.Work = p.work.draw(p.random)
	default:
		if a.Work, err = seconds(work); err != nil {
			a.Work, err = parseDuration(work)
		}
		if err != nil {
			return a, fmt.Errorf("work: %q is no duration: want one as 90s or 1h30m, or seconds, from 0 to %v",
				work, MaxDuration)
		}
	}
	return a, nil
}

// seconds reads a number of seconds from 0 to MaxDuration.
func seconds(text string) (time.Duration, error) {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !(number >= 0) || number > MaxDuration.Seconds() {
		return 0, cmp.Or(err, strconv.ErrRange)
	}
	return time.Duration(math.Round(number * float64(time.Second))), nil
}

func (p *parser) trace() (Trace, error) {
	if len(p.arrivals) == 0 {
		return Trace{}, errors.New("holds no arrival")
	}
	if p.unsorted > 0 {
		slices.SortStableFunc(p.arrivals, func(a, b Arrival) int { return cmp.Compare(a.At, b.At) })
	}
	first, last := p.arrivals[0].At, p.arrivals[len(p.arrivals)-1].At
	if p.dated {
		if last-first > MaxDuration {
			return Trace{}, fmt.Errorf("spans %v from the first to the last arrival; at most %v are simulated",
				last-first, MaxDuration)
		}
		for i := range p.arrivals {
			p.arrivals[i].At -= first
		}
	}
	return Trace{Arrivals: p.arrivals, Unsorted: p.unsorted}, nil
}
