package rabbitmq

import (
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
)

func TestEvaluate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode       mode
		read       reading
		activation float64
		value      float64
		active     bool
	}{
		{queueLength, reading{messages: 3}, 0, 3, true},
		{queueLength, reading{messages: 3}, 3, 3, false},
		{queueLength, reading{}, 0, 0, false},
		{queueLength, reading{}, -1, 0, true},
		{messageRate, reading{published: 2.5}, 2, 2.5, true},
		{messageRate, reading{published: 2.5}, 2.5, 2.5, false},
		{messageRate, reading{published: 1, messages: 3}, 2, 1, true},
		{messageRate, reading{messages: 3}, 2, 10, true}, // published before, and none would take them
		{messageRate, reading{messages: 2}, 2, 0, false},
		{deliverGetRate, reading{delivered: 2.5, messages: 9}, 2, 2.5, true},
		{deliverGetRate, reading{messages: 9}, 0, 0, false},
		{publishedToDelivered, reading{published: 3, delivered: 2}, 1, 1.5, true},
		{publishedToDelivered, reading{published: 2, delivered: 2}, 1, 1, false},
		{publishedToDelivered, reading{published: 2}, 4, 4, true},
		{publishedToDelivered, reading{published: 2}, 0, 10, true},
		{publishedToDelivered, reading{delivered: 2}, 0, 0, false},
		{expectedTime, reading{messages: 10, published: 3, delivered: 2}, 0, 5.5, true},
		{expectedTime, reading{messages: 10, published: 3, delivered: 2}, 5.5, 5.5, false},
		{expectedTime, reading{messages: 10}, 4, 4, true},
		{expectedTime, reading{messages: 10}, 0, 10, true},
		{expectedTime, reading{published: 5, delivered: 5}, 0, 0, false},
		{expectedTime, reading{messages: 1, delivered: 5}, 0, 0, false}, // gone before a second is over
	} {
		value, active := test.mode.evaluate(test.read, trigger.Threshold{Target: 10, Activation: test.activation})
		if value != test.value || active != test.active {
			t.Errorf("%s of %+v, activation %v: %v, %t; want %v, %t",
				test.mode, test.read, test.activation, value, active, test.value, test.active)
		}
	}
}

func TestCombine(t *testing.T) {
	t.Parallel()
	readings := []reading{{messages: 1, published: 4, delivered: 1}, {published: 1, delivered: 3}}
	for combined, want := range map[operation]reading{
		operationSum: {1, 5, 4}, operationMax: {1, 4, 3}, operationAvg: {0.5, 2.5, 2},
	} {
		if got := combined.combine(readings); got != want {
			t.Errorf("%s: %+v, want %+v", combined, got, want)
		}
		if got := combined.combine(nil); got != (reading{}) {
			t.Errorf("%s of none: %+v", combined, got)
		}
	}
}
