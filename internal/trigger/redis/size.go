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

// kindError tells that a key holds something whose size is no amount of work.
type kindError struct{ name string }

func (e kindError) Error() string {
	return fmt.Sprintf("holds a %s; a list, a set, a sorted set or a hash is needed", e.name)
}

// size reads how many elements a key holds; 0 when there is no such key. The remembered kind saves asking for the type
// each time. An answer may come from memory if it is no older than age and the server has told of no change.
func (s *session) size(
	ctx context.Context, key string, remembered *atomic.Pointer[kind], age time.Duration,
) (int64, error) {
	for {
		using := remembered.Load()
		size, err := s.cached(ctx, key, using, age)
		if !isWrongType(err) {
			return size, err
		}
		name, err := s.client.Do(ctx, s.client.B().Type().Key(key).Build()).ToString()
		if err != nil {
			return 0, err
		}
		next := kindOf(name)
		if next == nil {
			return 0, kindError{name: name}
		}
		// When the key is of the kind that was assumed after all, it has just been replaced: read again.
		remembered.Store(next)
	}
}

// cached runs the size command through rueidis's cache. The form that rueidis calls static does not fetch the key's
// time to live along with it, which takes three commands more: the server tells of an expired key as of any other
// change.
func (s *session) cached(ctx context.Context, key string, using *kind, age time.Duration) (int64, error) {
	for {
		size, err := s.client.DoCache(ctx, using.command(s.client, key).ToStaticTTL(), age).AsInt64()
		canceled := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if canceled && ctx.Err() == nil {
			continue // another trigger asked for the same key, and gave up waiting for the answer
		}
		return size, err
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
