// Package queuetest opens the items of a list for tests that look at them from outside. It is imported by tests only.
package queuetest

import (
	"context"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
)

// Conn runs scripts with a rueidis client.
type Conn struct{ Client rueidis.Client }

var _ redisqueue.Conn = Conn{}

// Eval implements redisqueue.Conn. It sends the script's text each time, and so finds it after a restart too.
func (c Conn) Eval(ctx context.Context, script redisqueue.Script, keys, args []string) (any, error) {
	return c.Client.Do(ctx, c.Client.B().Eval().Script(script.Body).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).
		Build()).ToAny()
}

// Open returns the items of a list.
func Open(client rueidis.Client, list string) *redisqueue.Queue {
	return redisqueue.New(Conn{client}, list)
}
