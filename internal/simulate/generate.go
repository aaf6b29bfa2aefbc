package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// MaxArrivals bounds the memory of a simulation, which grows with the number of its items.
const MaxArrivals = 10_000_000

// MaxDuration is how long work and the start of a Job may take at the most, and when the last arrival may come.
const MaxDuration = 10 * 365 * 24 * time.Hour

// Spread is a distribution of durations.
type Spread struct {
	kind      string
	low, high time.Duration // of a constant and of an exponential one, low is the mean
}

const (
	constant    = ""
	exponential = "exp"
	uniform     = "uniform"
)

// Constant is always the same duration.
func Constant(d time.Duration) Spread { return Spread{low: d} }

// ParseSpread reads a distribution: 30s is always the same, exp:30s exponential with that mean, 1s..100s uniform
// between the two.
func ParseSpread(text string) (Spread, error) {
	low, high, isRange := strings.Cut(text, "..")
	mean, isExponential := strings.CutPrefix(text, exponential+":")
	var s Spread
	var err error
	switch {
	case isRange:
		s.kind = uniform
		if s.low, err = parseDuration(low); err == nil {
			s.high, err = parseDuration(high)
		}
		if err == nil && s.high < s.low {
			err = fmt.Errorf("%s is less than %s: write the shorter one first", high, low)
		}
	case isExponential:
		s.kind = exponential
		s.low, err = parseDuration(mean)
	default:
		s.low, err = parseDuration(text)
	}
	if err != nil {
		return Spread{}, fmt.Errorf("%w; a duration is 30s, or exp:30s for an exponential distribution with that mean, "+
			"or 1s..100s for an even one between the two", err)
	}
	return s, nil
}

// String is what ParseSpread reads.
func (s Spread) String() string {
	switch s.kind {
	case uniform:
		return s.low.String() + ".." + s.high.String()
	case exponential:
		return exponential + ":" + s.low.String()
	}
	return s.low.String()
}

// draw returns one of the durations.
func (s Spread) draw(random *rand.Rand) time.Duration {
	switch s.kind {
	case uniform:
		return s.low + time.Duration(random.Int64N(int64(s.high-s.low)+1))
	case exponential:
		return min(time.Duration(random.ExpFloat64()*float64(s.low)), MaxDuration)
	}
	return s.low
}

// parseDuration reads a duration of 0 to MaxDuration.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration", text)
	}
	return d, checkDuration(d)
}

func checkDuration(d time.Duration) error {
	if d < 0 || d > MaxDuration {
		return fmt.Errorf("%v is not between 0 and %v", d, MaxDuration)
	}
	return nil
}

// ParseRate reads a rate such as 5/s, 300/m or 0.5/h, and returns how many that is a second.
func ParseRate(text string) (float64, error) {
	number, unit, _ := strings.Cut(text, "/")
	per, known := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	rate, err := strconv.ParseFloat(number, 64)
	if !known || err != nil || !(rate > 0) || math.IsInf(rate, 0) {
		return 0, fmt.Errorf("%q is no rate: write how many come a second, a minute or an hour, as 5/s, 300/m or 0.5/h", text)
	}
	return rate / per.Seconds(), nil
}

// Generator makes arrivals up.
type Generator struct {
	// Rate is how many come a second, For how long.
	Rate float64
	For  time.Duration
	// Even tells that the time between two is always the same. Else they come at random, independently of each other: a
	// Poisson process.
	Even bool
	Work Spread
	// Seed makes them repeatable.
	Seed uint64
}

// Arrivals returns them, sorted by time. There are at most MaxArrivals of them.
func (g Generator) Arrivals() ([]Arrival, error) {
	if err := checkDuration(g.For); err != nil {
		return nil, err
	}
	expected := g.Rate * g.For.Seconds()
	if expected > MaxArrivals {
		return nil, fmt.Errorf("%.4g a second for %v are %.3g arrivals; at most %d are simulated",
			g.Rate, g.For, expected, MaxArrivals)
	}
	random := rand.New(rand.NewPCG(g.Seed, 0))
	arrivals := make([]Arrival, 0, int(expected+4*math.Sqrt(expected))+1)
	at := 0.0
	for i := 0; len(arrivals) < MaxArrivals; i++ {
		if g.Even {
			at = float64(i) / g.Rate
		} else {
			at += random.ExpFloat64() / g.Rate
		}
		if at >= g.For.Seconds() {
			break
		}
		arrivals = append(arrivals, Arrival{At: time.Duration(at * float64(time.Second)), Work: g.Work.draw(random)})
	}
	return arrivals, nil
}
