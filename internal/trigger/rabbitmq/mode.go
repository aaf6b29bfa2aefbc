package rabbitmq

import "github.com/offboard-dev/offboard/internal/trigger"

// mode says what is measured. The names and the formulas are those of KEDA.
type mode string

const (
	// queueLength is the number of messages.
	queueLength mode = "QueueLength"
	// messageRate is how many messages are published in a second.
	messageRate mode = "MessageRate"
	// deliverGetRate is how many messages are delivered in a second.
	deliverGetRate mode = "DeliverGetRate"
	// publishedToDelivered is the one rate divided by the other.
	publishedToDelivered mode = "PublishedToDeliveredRatio"
	// expectedTime is after how many seconds all messages are delivered.
	expectedTime mode = "ExpectedQueueConsumptionTime"
)

// modes lists all.
var modes = []string{
	string(queueLength), string(messageRate), string(deliverGetRate), string(publishedToDelivered), string(expectedTime),
}

// operation makes one reading of those of several queues.
type operation string

const (
	operationSum operation = "sum"
	operationMax operation = "max"
	operationAvg operation = "avg"
)

// reading is what the server tells of a queue.
type reading struct {
	messages float64
	// published and delivered are messages in a second; 0 by AMQP, which does not tell.
	published, delivered float64
}

// combine makes one reading of several; all are 0 without any. An average is not rounded down, as KEDA does: one
// message in two queues is not none.
func (o operation) combine(readings []reading) reading {
	var all reading
	for _, r := range readings {
		if o == operationMax {
			all.messages = max(all.messages, r.messages)
			all.published = max(all.published, r.published)
			all.delivered = max(all.delivered, r.delivered)
			continue
		}
		all.messages += r.messages
		all.published += r.published
		all.delivered += r.delivered
	}
	if count := float64(len(readings)); o == operationAvg && count > 0 {
		all = reading{all.messages / count, all.published / count, all.delivered / count}
	}
	return all
}

// evaluate returns the value of the mode, and whether it is active. Where messages wait or come and the formula gives
// none, because nothing is published or delivered any more, the value is one Job's worth: nobody would take them else.
func (m mode) evaluate(r reading, threshold trigger.Threshold) (value float64, active bool) {
	activation := threshold.Activation
	switch m {
	case queueLength:
		value = r.messages
		active = value > activation
	case messageRate:
		value = r.published
		active = value > activation || r.messages > activation
	case deliverGetRate:
		value = r.delivered
		active = value > activation
	case publishedToDelivered:
		stuck := r.published > 0 && r.delivered == 0
		switch {
		case stuck:
			value = activation
		case r.published > 0:
			value = r.published / r.delivered
		}
		active = value > activation || stuck
	case expectedTime:
		stuck := r.messages > 0 && r.delivered == 0
		switch {
		case stuck:
			value = activation
		case r.messages > 0:
			value = (r.published-r.delivered)/r.delivered + r.messages/r.delivered
		}
		active = value > activation || stuck
	}
	if active && value <= 0 && max(r.messages, r.published) > 0 {
		value = threshold.Target
	}
	return max(value, 0), active
}
