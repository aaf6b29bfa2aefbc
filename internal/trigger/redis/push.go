package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Limits of a push. What exceeds them goes over a connection of its own, so that it does not hold up measurements, nor
// make the connection look dead while it is only busy; and in several commands, so that the server need not take it in
// one piece.
const (
	pushSharedBytes  = 256 << 10
	pushCommandBytes = 8 << 20
	pushCommandItems = 4096
	// pushSlowest is the throughput in bytes per second below which a push is given up.
	pushSlowest = 256 << 10
)

// push appends the items in order, all or none, with the commands that these make, of which the last one answers with
// the length. It returns that: a reading right after it may come from memory, since the server tells of the change
// only after its answer.
func push(
	ctx context.Context, to server, key string, items [][]byte, commands appending,
) (length int64, err error) {
	if len(items) == 0 {
		return 0, nil
	}
	size := 0
	for _, item := range items {
		size += len(item)
	}
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout+time.Duration(size/pushSlowest)*time.Second)
	defer cancel()
	err = to.write(ctx, key, func(opened *session) error {
		if size > pushSharedBytes || len(items) > pushCommandItems {
			// No PING while the items are on their way: its answer would come after them.
			own, err := connect(ctx, opened.settings, opened.address, rueidis.ClientOption{
				DisableCache: true, ConnWriteTimeout: -1, AlwaysPipelining: true,
			})
			if err != nil {
				return err
			}
			defer own.close()
			own.asking = opened.asking
			opened = own
		}
		length, err = opened.push(ctx, commands(opened.client.B(), key, items))
		if err != nil && replyText(err) == "" {
			err = fmt.Errorf("it is unknown whether the items arrived: %w", err)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return length, nil
}

// appending makes the commands that append items to a key.
type appending func(build rueidis.Builder, key string, items [][]byte) []rueidis.Completed

// rpush appends to a list.
func rpush(build rueidis.Builder, key string, items [][]byte) []rueidis.Completed {
	var commands []rueidis.Completed
	for len(items) > 0 {
		size, count := 0, 0
		elements := make([]string, 0, min(len(items), pushCommandItems))
		for count < len(items) && count < pushCommandItems && (count == 0 || size+len(items[count]) <= pushCommandBytes) {
			size += len(items[count])
			elements = append(elements, rueidis.BinaryString(items[count]))
			count++
		}
		commands = append(commands, build.Rpush().Key(key).Element(elements...).Build())
		items = items[count:]
	}
	return commands
}

// push sends one command, or several in a transaction.
func (s *session) push(ctx context.Context, commands []rueidis.Completed) (length int64, err error) {
	if len(commands) == 1 {
		return s.do(ctx, commands[0])[0].AsInt64()
	}
	commands = append([]rueidis.Completed{s.client.B().Multi().Build()}, commands...)
	commands = append(commands, s.client.B().Exec().Build())
	for _, result := range s.do(ctx, commands...) {
		if err := result.Error(); err != nil {
			return 0, err // the first names the cause; a refused command makes the server refuse the whole transaction
		}
		replies, err := result.ToArray()
		if err != nil {
			continue // OK of MULTI or QUEUED
		}
		for _, reply := range replies {
			if err := reply.Error(); err != nil {
				return 0, err
			}
		}
		if len(replies) == 0 {
			return 0, errShape
		}
		if length, err = replies[len(replies)-1].AsInt64(); err != nil {
			return 0, err
		}
	}
	return length, nil
}
