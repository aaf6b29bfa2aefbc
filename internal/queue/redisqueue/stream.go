package redisqueue

import (
	"net/url"
	"strings"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Stream is a stream as one consumer group reads it. Each group has a queue of its own.
type Stream struct {
	// Key is the stream's, Group the name of the consumer group, which is made when it is not there.
	Key, Group string
	// Field is the field of an entry whose value is the item. The item of an entry without it, and of all where it is
	// empty, is the value of the only field, or a JSON object of the fields when there are several.
	Field string
}

// DefaultField is the field of entries that are pushed where Field is empty.
const DefaultField = "item"

// errNoGroup tells that a stream is read without a consumer group.
var errNoGroup = queue.Unsupported("items of a stream are handed out to a consumer group only; give consumerGroup")

// NewStream returns the items of a stream. It needs Redis 6.2 or later.
func NewStream(conn Conn, s Stream) *Queue {
	prefix := s.prefix()
	return &Queue{
		conn: conn, script: streamScript, list: s.Name(), prefix: prefix, stream: &s,
		keys: append(keysUnder(s.Key, prefix), s.BackKey()),
	}
}

// Name names the stream and the group, for example usertask/workers.
func (s Stream) Name() string { return url.PathEscape(s.Key) + "/" + url.PathEscape(s.Group) }

// Named returns the stream of that name, the reverse of Name, with the Field of this one. A text that Name does not
// give is taken for a stream that the same group reads.
func (s Stream) Named(name string) Stream {
	key, group, both := strings.Cut(name, "/")
	k, keyErr := url.PathUnescape(key)
	g, groupErr := url.PathUnescape(group)
	if !both || keyErr != nil || groupErr != nil {
		k, g = name, s.Group
	}
	return Stream{Key: k, Group: g, Field: s.Field}
}

// prefix is what the names of the queue's other keys begin with.
func (s Stream) prefix() string { return Prefix(s.Key) + "group:" + s.Group + ":" }

// BackKey is the key of the sorted set of what was read before and is ready again.
func (s Stream) BackKey() string { return s.prefix() + backSuffix }

// WakeKey is as the function of that name.
func (s Stream) WakeKey() string { return s.prefix() + wakeSuffix }

// ClaimedKey is as the function of that name.
func (s Stream) ClaimedKey() string { return s.prefix() + claimedSuffix }
