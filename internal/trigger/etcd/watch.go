package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// The pauses between attempts to watch. A watch that has worked begins again with the shortest.
const (
	shortestPause = 500 * time.Millisecond
	longestPause  = 10 * time.Second
)

// Watch implements trigger.Watcher. It calls changed once etcd watches the key, because it may have changed since the
// last Measure, and then with each change.
//
// No change is missed. A watch that is lost goes on from the revision behind the last one that it has told of, so that
// what changed in between is told of then; the client does so by itself where only the connection was lost. Where etcd
// does not know that revision any more, since it was compacted, the watch begins anew, as the first one did.
func (t *keyTrigger) Watch(changed func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { t.watch(ctx, changed) })
	return func() { cancel(); watching.Wait() }
}

// watch watches until ctx ends.
func (t *keyTrigger) watch(ctx context.Context, changed func()) {
	var next int64 // the revision to go on from; 0 to begin anew
	pause := shortestPause
	for outage := false; ; {
		// A watch does not say when it is not allowed for want of a login, or for one that the servers have forgotten.
		login := t.connection.settings.username != "" && (outage || t.connection.token.Load() == nil)
		heard, err := t.watchOnce(ctx, login, &next, changed)
		if ctx.Err() != nil {
			return
		}
		if heard {
			pause = shortestPause
		}
		outage = !errors.Is(err, rpctypes.ErrCompacted)
		if !outage {
			next = 0
			continue
		}
		t.log.DebugContext(ctx, "the watch of etcd's key has ended and is made anew", "key", t.key, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}

// errSilent is the error of a watch that tells nothing for too long, not even that nothing has changed.
var errSilent = errors.New("no word from etcd for twice the progress interval")

// watchOnce watches from the next revision on, which it moves along, until the watch ends. It logs in first where that
// is asked for. heard tells that etcd answered.
func (t *keyTrigger) watchOnce(
	ctx context.Context, login bool, next *int64, changed func(),
) (heard bool, err error) {
	if login {
		if err := t.login(ctx); err != nil {
			return false, err
		}
	}
	// A member that has lost the others is left, as it does not learn of changes.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	answers := t.connection.client.Watch(ctx, t.key,
		clientv3.WithRev(*next), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	silent := time.NewTimer(t.silence)
	defer silent.Stop()
	for {
		select {
		case answer, open := <-answers:
			if !open {
				return heard, errors.New("it was ended")
			}
			if err := answer.Err(); err != nil {
				if *next == 0 || !errors.Is(err, rpctypes.ErrCompacted) {
					err = t.connection.settings.explain(ctx, err)
				}
				return heard, err
			}
			silent.Reset(t.silence)
			heard = true
			switch last := len(answer.Events) - 1; {
			case last >= 0:
				*next = answer.Events[last].Kv.ModRevision + 1
				changed()
			case *next == 0: // the watch is there; what changed before must be measured
				*next = answer.Header.GetRevision() + 1
				changed()
			case answer.IsProgressNotify():
				*next = answer.Header.GetRevision() + 1
			}
		case <-silent.C:
			return heard, errSilent
		}
	}
}

// login logs in anew, within the time that a measurement has.
func (t *keyTrigger) login(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	if err := t.connection.login(ctx, t.connection.token.Load()); err != nil {
		return t.connection.settings.explain(ctx, err)
	}
	return nil
}
