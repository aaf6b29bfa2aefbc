package redis

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/redis/rueidis"
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

// push appends the items in order, all or none, and returns the length of the list after it, as the server tells it: a
// reading right after it may come from memory, since the server tells of the change only after its answer.
func (c *connection) push(ctx context.Context, key string, items [][]byte) (int64, error) {
	if len(items) == 0 {
		return 0, nil
	}
	size := 0
	for _, item := range items {
		size += len(item)
	}
	ctx, cancel := context.WithTimeout(ctx, measureTimeout+time.Duration(size/pushSlowest)*time.Second)
	defer cancel()
	opened, err := c.established(ctx)
	if err != nil {
		return 0, err
	}
	if size > pushSharedBytes || len(items) > pushCommandItems {
		// No PING while the items are on their way: its answer would come after them.
		own, err := connect(ctx, c.settings, opened.address, rueidis.ClientOption{
			DisableCache: true, ConnWriteTimeout: -1, BlockingPipeline: math.MaxInt, AlwaysPipelining: true,
		})
		if err != nil {
			return 0, c.explain(err, opened.address)
		}
		defer own.close()
		opened = own
	}
	length, err := opened.push(ctx, key, items)
	if err != nil {
		if replyText(err) == "" {
			err = fmt.Errorf("it is unknown whether the items arrived: %w", err)
		}
		return 0, c.explain(err, opened.address)
	}
	return length, nil
}

// push sends one command, or several in a transaction.
func (s *session) push(ctx context.Context, key string, items [][]byte) (length int64, err error) {
	var commands []rueidis.Completed
	for len(items) > 0 {
		size, count := 0, 0
		elements := make([]string, 0, min(len(items), pushCommandItems))
		for count < len(items) && count < pushCommandItems && (count == 0 || size+len(items[count]) <= pushCommandBytes) {
			size += len(items[count])
			elements = append(elements, rueidis.BinaryString(items[count]))
			count++
		}
		commands = append(commands, s.client.B().Rpush().Key(key).Element(elements...).Build())
		items = items[count:]
	}
	if len(commands) == 1 {
		return s.client.Do(ctx, commands[0]).AsInt64()
	}
	commands = append([]rueidis.Completed{s.client.B().Multi().Build()}, commands...)
	commands = append(commands, s.client.B().Exec().Build())
	for _, result := range s.client.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil {
			return 0, err // the first names the cause; a refused command makes the server refuse the whole transaction
		}
		replies, err := result.ToArray()
		if err != nil {
			continue // OK of MULTI or QUEUED
		}
		for _, reply := range replies {
			if length, err = reply.AsInt64(); err != nil {
				return 0, err
			}
		}
	}
	return length, nil
}
