package redis

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// errClosed is the error of a connection that no trigger uses any more.
var errClosed = errors.New("the connection to Redis is closed")

// connection keeps a session to one server alive, which with sentinels is the master that they name, and tells watchers
// of changes. Its goroutine starts with the first use and ends with stop.
type connection struct {
	*usage

	settings settings
	log      *slog.Logger

	startOnce sync.Once
	cancel    context.CancelFunc
	done      chan struct{}

	mu    sync.Mutex
	state state

	// watchMu is held for reading while watchers are called, so that none is called after its removal.
	watchMu  sync.RWMutex
	watchers map[string][]*watcher
}

// state is the session, or why there is none; neither while the first attempt after a start or a loss is under way.
type state struct {
	session *session
	err     error
	// replaced is closed when another state has taken this one's place.
	replaced chan struct{}
}

// watcher is told of changes of a key.
type watcher struct{ changed func() }

func newConnection(s settings, log *slog.Logger, users *usage) *connection {
	return &connection{
		usage:    users,
		settings: s,
		log:      log,
		done:     make(chan struct{}),
		state:    state{replaced: make(chan struct{})},
		watchers: map[string][]*watcher{},
	}
}

// start lets the goroutine run; further calls do nothing.
func (c *connection) start() {
	c.startOnce.Do(func() {
		// The connection outlives the context of the trigger that happens to use it first.
		ctx, cancel := context.WithCancel(context.Background())
		c.cancel = cancel
		go c.run(ctx)
	})
}

// stop ends the goroutine and waits for it.
func (c *connection) stop() {
	c.startOnce.Do(func() { close(c.done) })
	if c.cancel != nil {
		c.cancel()
	}
	<-c.done
	c.replace(nil, errClosed)
}

// run connects, waits until the session is lost, and connects again, until ctx ends.
func (c *connection) run(ctx context.Context) {
	defer close(c.done)
	retry := network.Backoff{First: retryFirst, Most: retryMost}
	if c.settings.topology != singleTopology {
		retry.Most = retryMaster
	}
	var outage bool
	// fail lets measurements fail with the error, and tells watchers when that is news.
	fail := func(err error) {
		if c.replace(nil, err) {
			c.notifyAll()
		}
		if !outage {
			outage = true
			c.log.DebugContext(ctx, "Redis is not usable, trying again until it is", "error", err)
		}
	}
	for {
		opened, err := openFirst(ctx, c.settings, c.invalidated)
		if ctx.Err() != nil {
			opened.close()
			return
		}
		if err != nil {
			fail(err)
			if !network.Sleep(ctx, pause(&retry, err)) {
				return
			}
			continue
		}
		if outage {
			outage = false
			c.log.DebugContext(ctx, "Redis is usable again", "address", opened.address)
		}
		opened.explainUntracked(ctx, c.log, c.settings.polled || c.settings.scripts)
		since := time.Now()
		c.replace(opened, nil)
		c.notifyAll()
		replaced := c.await(ctx, opened)
		// After a loss measurements wait for one attempt to reconnect, which mostly takes milliseconds. Where the server
		// has been silent, that attempt is likely to take long as well, and they have waited long enough.
		c.replace(nil, nil)
		if ctx.Err() == nil && !replaced && opened.silent() {
			fail(c.explain(context.DeadlineExceeded, opened.address))
		}
		opened.close()
		// A server that drops each connection at once must not be hammered; any other deserves a try at once.
		if time.Since(since) > retryReset {
			retry.Reset()
		} else if !network.Sleep(ctx, retry.Next()) {
			return
		}
	}
}

// await waits until the session is lost, or ctx ends, or, with sentinels, until they name another master, in which case
// it returns true.
func (c *connection) await(ctx context.Context, opened *session) (replaced bool) {
	var checks <-chan time.Time
	if c.settings.topology == sentinelTopology {
		ticker := time.NewTicker(masterCheck)
		defer ticker.Stop()
		checks = ticker.C
	}
	for {
		select {
		case <-opened.lost():
			return false
		case <-ctx.Done():
			return false
		case <-checks:
			if otherMaster(ctx, c.settings, opened.address) {
				return true
			}
		}
	}
}

// replace sets the state and tells whether that is news: another session, or another error.
func (c *connection) replace(opened *session, err error) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.state
	news = old.session != opened || (old.err == nil) != (err == nil) || (err != nil && old.err.Error() != err.Error())
	c.state = state{session: opened, err: err, replaced: make(chan struct{})}
	close(old.replaced)
	return news
}

// current returns the state as it is.
func (c *connection) current() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// established returns a session. It waits while a first attempt is under way, and fails when the last one failed.
func (c *connection) established(ctx context.Context) (*session, error) {
	c.start()
	for {
		now := c.current()
		if now.session != nil || now.err != nil {
			return now.session, now.err
		}
		select {
		case <-now.replaced:
		case <-ctx.Done():
			return nil, c.explain(ctx.Err(), c.settings.addresses)
		}
	}
}

// read implements server. A session that is lost on the way is waited for once, since reading again is harmless.
func (c *connection) read(
	ctx context.Context, key string, do func(*session, time.Duration) error,
) (holds time.Duration, err error) {
	for attempt := 0; ; attempt++ {
		opened, err := c.established(ctx)
		if err != nil {
			return 0, err
		}
		if err = do(opened, c.age()); err == nil {
			if opened.tracked {
				holds = c.checked()
			}
			return holds, nil
		}
		if attempt == 0 && ctx.Err() == nil && isLost(err) && c.leave(ctx, opened) {
			continue
		}
		return 0, c.explainKey(err, opened.address, key)
	}
}

// write implements server.
func (c *connection) write(ctx context.Context, key string, do func(*session) error) error {
	opened, err := c.established(ctx)
	if err != nil {
		return err
	}
	if err := do(opened); err != nil {
		return c.explainKey(err, opened.address, key)
	}
	return nil
}

// leave waits until the session is no longer the current one.
func (c *connection) leave(ctx context.Context, opened *session) bool {
	for {
		now := c.current()
		if now.session != opened {
			return true
		}
		select {
		case <-now.replaced:
		case <-ctx.Done():
			return false
		}
	}
}

// reach implements server.
func (c *connection) reach() settings { return c.settings }

// watch implements server.
func (c *connection) watch(key string, changed func()) (remove func()) {
	c.start()
	added := &watcher{changed: changed}
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	c.watchers[key] = append(c.watchers[key], added)
	return func() {
		c.watchMu.Lock()
		defer c.watchMu.Unlock()
		left := slices.DeleteFunc(c.watchers[key], func(w *watcher) bool { return w == added })
		if c.watchers[key] = left; len(left) == 0 {
			delete(c.watchers, key)
		}
	}
}

// invalidated tells the watchers of the keys; nil keys mean all.
func (c *connection) invalidated(keys []string) {
	if keys == nil {
		c.notifyAll()
		return
	}
	c.watchMu.RLock()
	defer c.watchMu.RUnlock()
	for _, key := range keys {
		for _, w := range c.watchers[key] {
			w.changed()
		}
	}
}

// notifyAll tells every watcher.
func (c *connection) notifyAll() {
	c.watchMu.RLock()
	defer c.watchMu.RUnlock()
	for _, watchers := range c.watchers {
		for _, w := range watchers {
			w.changed()
		}
	}
}
