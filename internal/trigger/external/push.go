package external

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// Delays between attempts to open the stream.
const (
	retryFirst = 200 * time.Millisecond
	retryMost  = 30 * time.Second
)

// pushTrigger is told by the server when there is work.
type pushTrigger struct{ *serverTrigger }

var _ trigger.Watcher = (*pushTrigger)(nil)

// Watch implements trigger.Watcher with StreamIsActive. It calls changed whenever the server tells anything, and when
// the stream has been opened again, since something may have been missed. Not every change of the value is told, so
// that no measurement holds for longer than usual.
func (t *pushTrigger) Watch(changed func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { t.watch(ctx, changed) })
	return func() {
		cancel()
		watching.Wait()
	}
}

func (t *pushTrigger) watch(ctx context.Context, changed func()) {
	retry, told := network.Backoff{First: retryFirst, Most: retryMost}, false
	for {
		heard, err := t.listen(ctx, changed)
		if ctx.Err() != nil {
			return
		}
		if heard {
			retry, told = network.Backoff{First: retryFirst, Most: retryMost}, false
		}
		if !told {
			told = true // once for each outage
			t.log.Warn("The server does not tell of changes, so that it is polled until it does again",
				"error", t.explain(err))
		}
		if status.Code(err) == codes.Unimplemented {
			retry.First = retryMost
		}
		if !network.Sleep(ctx, retry.Next()) {
			return
		}
	}
}

// listen opens the stream and calls changed until it ends. heard tells whether the server has said anything.
func (t *pushTrigger) listen(ctx context.Context, changed func()) (heard bool, err error) {
	stream, err := t.server.StreamIsActive(ctx, t.ref)
	if err != nil {
		return false, err
	}
	for {
		changed()
		if _, err := stream.Recv(); err != nil {
			return heard, err
		}
		heard = true
	}
}
