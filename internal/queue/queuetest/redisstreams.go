package queuetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// addAll appends entries, all or none.
const addAll = "for _, item in ipairs(ARGV) do redis.call('XADD', KEYS[1], '*', 'user', item) end return 1"

// RedisStreams starts a Redis that has each command on its disk before it answers, with the stream work, which the
// group workers reads.
func RedisStreams(tb testing.TB) *Source {
	server := redistest.Start(tb, redistest.Options{AppendOnly: true})
	client := server.Client()
	return &Source{
		Trigger: fmt.Sprintf(`{type: redis-streams, metadata: {address: %q, stream: work, consumerGroup: workers, `+
			`pendingEntriesCount: "1"}}`, server.Addr()),
		Push: func(ctx context.Context, items ...string) error {
			return client.Do(ctx, client.B().Eval().Script(addAll).Numkeys(1).Key("work").Arg(items...).Build()).Error()
		},
		Queue: redisqueue.NewStream(Conn{client}, redisqueue.Stream{Key: "work", Group: "workers"}),
		Exact: true,
		Kill:  server.Kill,
		Restart: func() {
			server.Restart()
			server.Await(client)
		},
	}
}
