package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// claims is the part of a trigger that hands out items.
type claims struct {
	*measured

	scripts *scripts
	// wakeKey is the key that tells when items come back by themselves; wakeless that the user may not read it.
	wakeKey  string
	wakeless atomic.Bool
	// claimedKey holds the claims.
	claimedKey string
	claimsKind atomic.Pointer[kind]
}

// newClaims uses the server for scripts and, by what is yet to be set of measured, for measurements. source is the kind
// of key that items are taken from.
func newClaims(clients *Clients, s settings, cfg trigger.Config, source, wakeKey, claimedKey string) *claims {
	used, release := clients.acquire(s, cfg.PollingInterval, cfg.Log)
	made := &claims{scripts: newScripts(clients, used, cfg, source), wakeKey: wakeKey, claimedKey: claimedKey}
	made.claimsKind.Store(&zsetKind)
	made.measured = &measured{server: used, release: sync.OnceFunc(func() {
		release()
		made.scripts.release()
	})}
	return made
}

// readWake adds to a reading when items come back by themselves.
func (c *claims) readWake(ctx context.Context, got reading) (reading, error) {
	if c.wakeless.Load() {
		return got, nil
	}
	var text string
	holds, err := c.server.read(ctx, c.wakeKey, func(opened *session, age time.Duration) error {
		var err error
		text, err = opened.text(ctx, c.wakeKey, age)
		return err
	})
	if replyText(err) != "" && !isPassing(err) {
		c.wakeless.Store(true) // the user may not read it, for example: then nobody has put items off with these rights
		return got, nil
	}
	got.wake, got.holds = &text, min(got.holds, holds)
	return got, err
}

func (c *claims) size(ctx context.Context, key string, remembered *atomic.Pointer[kind]) (got reading, err error) {
	got.holds, err = c.server.read(ctx, key, func(opened *session, age time.Duration) error {
		var err error
		got.size, err = opened.size(ctx, key, remembered, age)
		return err
	})
	return got, err
}

// Claimed implements trigger.Claimer.
func (c *claims) Claimed(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	got, err := c.size(ctx, c.claimedKey, &c.claimsKind)
	return got.size, err
}
