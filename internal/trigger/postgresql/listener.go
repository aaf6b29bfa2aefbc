package postgresql

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// How a listening connection is kept.
const (
	// checkEvery is how long a connection may be silent before the server is asked whether it is still there.
	checkEvery = 3 * time.Second
	// answerTime is how long the server may take for an answer on it.
	answerTime = 3 * time.Second
	// Delays between attempts to connect; half of each is random, so that many do not come back at once.
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// listener hears notifications on all channels that anyone watches, over one connection, which there is only as long as
// anyone does. Its goroutine starts with the first watcher and ends with stop.
type listener struct {
	server *server
	log    *slog.Logger

	startOnce sync.Once
	cancel    context.CancelFunc
	done      chan struct{}

	// mu guards what follows. It is held for reading while watchers are called, so that none is called after its removal.
	mu       sync.RWMutex
	watchers map[string]map[*watcher]struct{}

	// awaken tells the goroutine that the channels have changed.
	awaken chan struct{}
}

// watcher is told of notifications on a channel.
type watcher struct{ changed func() }

func newListener(s *server, log *slog.Logger) *listener {
	return &listener{
		server: s, log: log, done: make(chan struct{}), watchers: map[string]map[*watcher]struct{}{},
		awaken: make(chan struct{}, 1),
	}
}

// watch calls changed at each notification on the channel, and whenever one may have been missed, until remove is
// called; after remove it is not called.
func (l *listener) watch(channel string, changed func()) (remove func()) {
	l.startOnce.Do(func() {
		// It outlives the context of the trigger that happens to be the first.
		ctx, cancel := context.WithCancel(context.Background())
		l.cancel = cancel
		go l.run(ctx)
	})
	added := &watcher{changed}
	l.mu.Lock()
	if l.watchers[channel] == nil {
		l.watchers[channel] = map[*watcher]struct{}{}
	}
	l.watchers[channel][added] = struct{}{}
	others := len(l.watchers[channel]) - 1
	l.mu.Unlock()
	if others == 0 {
		l.wake()
	} else {
		changed() // the channel may be listened to already, and what came before was told to the others only
	}
	return func() {
		l.mu.Lock()
		delete(l.watchers[channel], added)
		last := len(l.watchers[channel]) == 0
		if last {
			delete(l.watchers, channel)
		}
		l.mu.Unlock()
		if last {
			l.wake()
		}
	}
}

func (l *listener) wake() {
	select {
	case l.awaken <- struct{}{}:
	default:
	}
}

// stop ends the goroutine and waits for it.
func (l *listener) stop() {
	l.startOnce.Do(func() { close(l.done) })
	if l.cancel != nil {
		l.cancel()
	}
	<-l.done
}

// channels returns what is watched.
func (l *listener) channels() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Sorted(maps.Keys(l.watchers))
}

// tell calls the watchers of the channels.
func (l *listener) tell(channels ...string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, channel := range channels {
		for w := range l.watchers[channel] {
			w.changed()
		}
	}
}

// run listens, and begins anew after each failure, until ctx ends.
func (l *listener) run(ctx context.Context) {
	defer close(l.done)
	retry := network.Backoff{First: retryFirst, Most: retryMost}
	outage := false
	for ctx.Err() == nil {
		if len(l.channels()) == 0 {
			select {
			case <-ctx.Done():
			case <-l.awaken:
			}
			continue
		}
		began := time.Now()
		err := l.listen(ctx, func() {
			if outage {
				outage = false
				l.log.DebugContext(ctx, "PostgreSQL tells of changes again", "address", l.server.address)
			}
		})
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !outage {
			outage = true
			// That the server cannot be reached, measurements tell; a refusal to listen, nobody else.
			level := slog.LevelDebug
			if errors.As(err, new(*pgconn.PgError)) {
				level = slog.LevelWarn
			}
			l.log.Log(ctx, level, "PostgreSQL does not tell of changes, which are noticed by polling until it does",
				"error", l.server.explain(err))
		}
		l.tell(l.channels()...) // measurements are likely to fail as well
		if time.Since(began) > retryMost {
			retry.Reset()
		}
		network.Sleep(ctx, retry.Next())
	}
}

// listen hears notifications over a connection of its own until nobody watches any more, which is no error. ready is
// called when the server has taken all channels.
func (l *listener) listen(ctx context.Context, ready func()) error {
	conn, err := pgx.ConnectConfig(ctx, l.server.config.ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		// What ended the connection has been told already.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
		defer cancel()
		_ = conn.Close(closing)
	}()
	heard := map[string]bool{}
	for {
		wanted := l.channels()
		if len(wanted) == 0 {
			return nil
		}
		added, err := adjust(ctx, conn, heard, wanted)
		if err != nil {
			return err
		}
		ready()
		l.tell(added...) // what changed before was not heard
		if err := l.hear(ctx, conn); err != nil {
			return err
		}
	}
}

// adjust makes the connection listen to what is wanted and to nothing else, and returns what is new.
func adjust(ctx context.Context, conn *pgx.Conn, heard map[string]bool, wanted []string) (added []string, err error) {
	var statements []string
	for _, channel := range wanted {
		if !heard[channel] {
			added = append(added, channel)
			statements = append(statements, "LISTEN "+pgx.Identifier{channel}.Sanitize())
		}
	}
	for channel := range heard {
		if !slices.Contains(wanted, channel) {
			delete(heard, channel)
			statements = append(statements, "UNLISTEN "+pgx.Identifier{channel}.Sanitize())
		}
	}
	if len(statements) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := conn.PgConn().Exec(ctx, strings.Join(statements, ";")).ReadAll(); err != nil {
		return nil, err
	}
	for _, channel := range added {
		heard[channel] = true
	}
	return added, nil
}

// hear tells of notifications until the channels have changed.
func (l *listener) hear(ctx context.Context, conn *pgx.Conn) error {
	for {
		notification, woken, err := l.next(ctx, conn)
		switch {
		case err != nil:
			return err
		case notification != nil:
			l.tell(notification.Channel)
		case woken:
			return nil
		default:
			if err := checkAlive(ctx, conn); err != nil {
				return err
			}
		}
	}
}

// next waits for a notification, for no longer than until the channels change or the connection is to be checked.
func (l *listener) next(ctx context.Context, conn *pgx.Conn) (told *pgconn.Notification, woken bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, checkEvery)
	defer cancel()
	over := make(chan struct{})
	awoken := make(chan bool, 1)
	go func() {
		select {
		case <-l.awaken:
			cancel()
			awoken <- true
		case <-over:
			awoken <- false
		}
	}()
	told, err = conn.WaitForNotification(waiting)
	close(over)
	woken = <-awoken
	if woken && told != nil {
		l.wake() // the notification first
	}
	if err != nil && ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed() {
		err = nil // nothing came
	}
	return told, woken, err
}

// checkAlive asks the server for an answer.
func checkAlive(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return conn.Ping(ctx)
}
