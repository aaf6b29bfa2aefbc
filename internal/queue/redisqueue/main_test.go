package redisqueue

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// conn runs scripts with a rueidis client.
type conn struct{ client rueidis.Client }

func (c conn) Eval(ctx context.Context, script Script, keys, args []string) (any, error) {
	build := c.client.B()
	answer, err := c.client.Do(ctx, build.Evalsha().Sha1(script.SHA1).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).
		Build()).ToAny()
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		answer, err = c.client.Do(ctx, build.Eval().Script(script.Body).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).
			Build()).ToAny()
	}
	return answer, err
}

// start starts a server and returns a queue on it.
func start(t *testing.T, list string) (*Queue, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	return New(conn{server.Client()}, list), server
}
