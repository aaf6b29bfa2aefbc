package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// kind is a type of key that has a size.
type kind struct {
	// name is what TYPE calls it.
	name string
	// command reads the size; the answer for an absent key is 0.
	command func(client rueidis.Client, key string) rueidis.Cacheable
}

var (
	listKind = kind{"list", func(c rueidis.Client, key string) rueidis.Cacheable { return c.B().Llen().Key(key).Cache() }}
	setKind  = kind{"set", func(c rueidis.Client, key string) rueidis.Cacheable { return c.B().Scard().Key(key).Cache() }}
	zsetKind = kind{"zset", func(c rueidis.Client, key string) rueidis.Cacheable { return c.B().Zcard().Key(key).Cache() }}
	hashKind = kind{"hash", func(c rueidis.Client, key string) rueidis.Cacheable { return c.B().Hlen().Key(key).Cache() }}
)

// size reads how many elements a key holds; 0 when there is no such key. The remembered kind saves asking for the type
// each time. An answer may come from memory if it is no older than age and the server has told of no change.
func (s *session) size(
	ctx context.Context, key string, remembered *atomic.Pointer[kind], age time.Duration,
) (int64, error) {
	for {
		using := remembered.Load()
		message, err := s.cached(ctx, using.command(s.client, key), age)
		if err == nil {
			return message.AsInt64()
		}
		if !isWrongType(err) {
			return 0, err
		}
		name, err := s.do(ctx, s.client.B().Type().Key(key).Build())[0].ToString()
		if err != nil {
			return 0, err
		}
		next := kindOf(name)
		if next == nil {
			return 0, keyError{message: fmt.Sprintf("holds a %s; a list, a set, a sorted set or a hash is needed", name)}
		}
		// When the key is of the kind that was assumed after all, it has just been replaced: read again.
		remembered.Store(next)
	}
}

// text reads a key that holds a text, from memory where that is no older than age; empty when there is no such key.
func (s *session) text(ctx context.Context, key string, age time.Duration) (string, error) {
	result, err := s.cached(ctx, s.client.B().Get().Key(key).Cache(), age)
	switch {
	case err == nil && result.IsString():
		return result.ToString()
	case rueidis.IsRedisNil(err):
		err = nil
	}
	return "", err
}

// cached runs a command through rueidis's cache. The form that rueidis calls static does not fetch the key's
// time to live along with it, which takes three commands more: the server tells of an expired key as of any other
// change.
func (s *session) cached(
	ctx context.Context, command rueidis.Cacheable, age time.Duration,
) (rueidis.RedisMessage, error) {
	if s.asking {
		return s.do(ctx, rueidis.Completed(command))[0].ToMessage()
	}
	// The command is given back with its answer, and may be asked for again.
	command = command.ToStaticTTL().Pin()
	for {
		message, err := s.client.DoCache(ctx, command, age).ToMessage()
		canceled := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if canceled && ctx.Err() == nil {
			continue // another trigger asked for the same key, and gave up waiting for the answer
		}
		return message, err
	}
}

// kindOf returns the kind that TYPE calls by the name; nil when it has no size. An absent key is measured as a list.
func kindOf(name string) *kind {
	switch name {
	case listKind.name, "none":
		return &listKind
	case setKind.name:
		return &setKind
	case zsetKind.name:
		return &zsetKind
	case hashKind.name:
		return &hashKind
	default:
		return nil
	}
}
