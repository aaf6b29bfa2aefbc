package kafka

import (
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// rule says what the lag of partitions comes to. It is that of KEDA's pkg/scalers/kafka_scaler.go, but for a lag below
// zero, of a group that is ahead of a topic which was made anew: that is none here, so that it hides no other.
type rule struct {
	threshold, activation int64
	// partitions are those that count; all when it is empty.
	partitions map[int32]bool
	// earliest tells that a consumer without a committed offset begins with the first message.
	earliest bool
	// ignoreInvalid tells that a partition without a committed offset has no lag.
	ignoreInvalid bool
	// excludePersistent leaves partitions out whose offset has not moved for an interval.
	excludePersistent bool
	interval          time.Duration
	// idle, limitToLag and even say how many consumers are of use.
	idle, limitToLag, even bool
}

func newRule(values trigger.Values, interval time.Duration) rule {
	made := rule{
		threshold: values.Int(paramLagThreshold), activation: values.Int(paramActivation),
		earliest:      values.String(paramReset) == resetEarliest,
		ignoreInvalid: values.Bool(paramInvalid), excludePersistent: values.Bool(paramPersistent), interval: interval,
		idle: values.Bool(paramIdle), limitToLag: values.Bool(paramLimit), even: values.Bool(paramEven),
	}
	if numbers := values.Numbers(paramPartitions); len(numbers) > 0 {
		made.partitions = map[int32]bool{}
		for _, number := range numbers {
			made.partitions[number] = true
		}
	}
	return made
}

// partition is what a broker tells of one.
type partition struct {
	topic  string
	number int32
	// committed is the offset of the group, or none.
	committed int64
	// end is the offset of the next message that comes.
	end int64
}

// none is the committed offset of a group that has committed none.
const none = -1

// seen holds since when a partition's committed offset is what it is.
type seen map[partitionName]since

type partitionName struct {
	topic  string
	number int32
}

type since struct {
	committed int64
	at        time.Time
}

// evaluate returns how much work waits, at most what consumers of use can take, and the lag that decides whether the
// trigger is active, in which what persists is counted too.
func (r rule) evaluate(partitions []partition, seen seen, now time.Time) (value, lag int64) {
	withLag := int64(0)
	for _, p := range partitions {
		counted, all := r.lag(p, seen, now)
		value += counted
		lag += all
		if counted > 0 {
			withLag++
		}
	}
	if value == 0 || r.idle && !r.limitToLag && !r.even {
		return value, lag
	}
	most := int64(len(partitions))
	if r.even {
		value = evenConsumers(value, most, r.threshold) * r.threshold
	}
	if r.limitToLag {
		most = withLag
	}
	if value/r.threshold > most {
		value = most * r.threshold
	}
	return value, lag
}

// lag returns how many messages of the partition wait, and how many there are with those that do not count because they
// persist.
func (r rule) lag(p partition, seen seen, now time.Time) (counted, all int64) {
	if p.committed == none {
		switch {
		case r.ignoreInvalid:
			return 0, 0
		case r.earliest:
			return p.end, p.end
		default:
			return 1, 1 // so that there is a consumer, which commits one
		}
	}
	all = max(p.end-p.committed, 0)
	if r.excludePersistent && r.persists(p, seen, now) {
		return 0, all
	}
	return all, all
}

// persists tells whether the group's offset has not moved since an interval ago, as KEDA does from one poll to the
// next. Measurements also come in between here, and those do not count.
func (r rule) persists(p partition, seen seen, now time.Time) bool {
	name := partitionName{p.topic, p.number}
	last, found := seen[name]
	if !found || last.committed != p.committed {
		seen[name] = since{p.committed, now}
		return false
	}
	return now.Sub(last.at) >= r.interval*9/10 // a poll may be a little early
}

// evenConsumers returns the least number of consumers that can take the lag and among which the partitions are shared
// out evenly.
func evenConsumers(lag, partitions, threshold int64) int64 {
	for consumers := int64(1); consumers < partitions; consumers++ {
		if partitions%consumers == 0 && consumers*threshold >= lag {
			return consumers
		}
	}
	return partitions
}
