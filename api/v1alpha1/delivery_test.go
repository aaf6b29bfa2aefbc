package v1alpha1

import (
	"math"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func TestWait(t *testing.T) {
	t.Parallel()
	const half, almost = 0.5, 1 - 1e-9 // half changes nothing; random is below 1
	with := func(b Backoff) *Delivery { return &Delivery{Backoff: &b} }
	noJitter := func(b Backoff) *Delivery {
		b.Jitter = ptr.To(0.0)
		return with(b)
	}
	for name, test := range map[string]struct {
		delivery *Delivery
		failures int
		random   float64
		want     time.Duration
	}{
		"nil, first":              {nil, 1, half, 10 * time.Second},
		"nil, third":              {nil, 3, half, 40 * time.Second},
		"nil, at the most":        {nil, 7, half, 10 * time.Minute},
		"nil, shortest":           {nil, 1, 0, 8 * time.Second},
		"no backoff, second":      {&Delivery{}, 2, half, 20 * time.Second},
		"empty backoff, second":   {with(Backoff{}), 2, half, 20 * time.Second},
		"no failure counts as 1":  {nil, 0, half, 10 * time.Second},
		"fewer count as 1":        {nil, math.MinInt, half, 10 * time.Second},
		"huge number of failures": {nil, math.MaxInt, half, 10 * time.Minute},
		"own values": {
			noJitter(Backoff{Initial: duration(time.Second), Factor: ptr.To(1.5), Max: duration(time.Hour)}), 3, half,
			2250 * time.Millisecond,
		},
		"factor 1":                  {with(Backoff{Factor: ptr.To(1.0)}), 1000, half, 10 * time.Second},
		"factor 1, huge":            {with(Backoff{Factor: ptr.To(1.0)}), math.MaxInt, half, 10 * time.Second},
		"no jitter, shortest":       {noJitter(Backoff{}), 1, 0, 10 * time.Second},
		"no jitter, longest":        {noJitter(Backoff{}), 1, almost, 10 * time.Second},
		"full jitter, shortest":     {with(Backoff{Jitter: ptr.To(1.0)}), 1, 0, 0},
		"full jitter, in between":   {with(Backoff{Jitter: ptr.To(1.0)}), 1, 0.75, 15 * time.Second},
		"jitter applies to the max": {with(Backoff{Jitter: ptr.To(1.0)}), 99, 0.75, 15 * time.Minute},
		"the largest duration": {noJitter(Backoff{Initial: duration(math.MaxInt64), Max: duration(math.MaxInt64)}), 9, half,
			math.MaxInt64},
		"beyond the largest duration": {with(Backoff{Max: duration(math.MaxInt64), Jitter: ptr.To(1.0)}), math.MaxInt, almost,
			math.MaxInt64},
		// What validation refuses must not hurt either.
		"negative initial":         {with(Backoff{Initial: duration(-time.Second)}), 3, half, 0},
		"no initial, huge":         {with(Backoff{Initial: duration(0)}), math.MaxInt, half, 0},
		"negative max":             {with(Backoff{Max: duration(-time.Second)}), 3, half, 0},
		"jitter above 1, shortest": {with(Backoff{Jitter: ptr.To(3.0)}), 1, 0, 0},
		"factor is no number":      {with(Backoff{Factor: ptr.To(math.NaN())}), 2, half, 0},
	} {
		if got := test.delivery.Wait(test.failures, test.random); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	if got, want := (*Delivery)(nil).Wait(1, almost), 12*time.Second; got >= want || want-got > time.Millisecond {
		t.Errorf("the longest first wait is %v, want just below %v", got, want)
	}
}

func TestDeliveryDefaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		delivery *Delivery
		variable string
		attempts int
		keeps    bool
	}{
		"absent":       {nil, "OFFBOARD_ITEM", 1, true},
		"empty":        {&Delivery{}, "OFFBOARD_ITEM", 1, true},
		"file":         {&Delivery{File: "/item"}, "", 1, true},
		"env":          {&Delivery{Env: "ITEM"}, "ITEM", 1, true},
		"env and file": {&Delivery{Env: "ITEM", File: "/item"}, "ITEM", 1, true},
		"attempts":     {&Delivery{Attempts: ptr.To[int32](3)}, "OFFBOARD_ITEM", 3, true},
		"no attempts":  {&Delivery{Attempts: ptr.To[int32](0)}, "OFFBOARD_ITEM", 1, true},
		"dropped":      {&Delivery{DeadLetter: ptr.To(false)}, "OFFBOARD_ITEM", 1, false},
		"kept":         {&Delivery{DeadLetter: ptr.To(true)}, "OFFBOARD_ITEM", 1, true},
	} {
		d := test.delivery
		if d.Variable() != test.variable || d.AttemptLimit() != test.attempts || d.KeepsDead() != test.keeps {
			t.Errorf("%s: got %q, %d, %t", name, d.Variable(), d.AttemptLimit(), d.KeepsDead())
		}
	}
}

func TestClaimsItems(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]bool{"": false, DeliveryPop: false, DeliveryClaim: true, "Claim": false} {
		s := &ScaledJob{Spec: ScaledJobSpec{Delivery: &Delivery{Mode: mode}}}
		if s.ClaimsItems() != want {
			t.Errorf("mode %q: got %t", mode, !want)
		}
	}
	if (&ScaledJob{}).ClaimsItems() {
		t.Error("a ScaledJob without delivery claims")
	}
}
