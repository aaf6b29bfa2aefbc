package runner

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
)

// client runs scripts on the server, with a new connection after each error. It is used by one goroutine at a time.
type client struct {
	config config
	link   *link // nil when there is no connection
}

// connect makes a connection unless there is one.
func (c *client) connect(ctx context.Context) error {
	if c.link != nil {
		return nil
	}
	l, err := connect(ctx, c.config)
	if err != nil {
		return err
	}
	c.link = l
	return nil
}

func (c *client) close() {
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
}

// Eval implements redisqueue.Conn.
func (c *client) Eval(ctx context.Context, script redisqueue.Script, keys, args []string) (any, error) {
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	ended := context.AfterFunc(ctx, c.link.close)
	answer, err := c.eval("EVALSHA", script.SHA1, keys, args)
	if errorCode(err) == "NOSCRIPT" {
		answer, err = c.eval("EVAL", script.Body, keys, args)
	}
	if inTime := ended(); err != nil || !inTime {
		c.close() // another one may lead to a server that can do it
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return answer, err
}

func (c *client) eval(command, script string, keys, args []string) (any, error) {
	all := make([]string, 0, 3+len(keys)+len(args))
	all = append(all, command, script, strconv.Itoa(len(keys)))
	return c.link.doAny(append(append(all, keys...), args...)...)
}

// explainScript is explain for an error of a script.
func (c config) explainScript(what string, err error) error {
	text := ""
	if errorCode(err) != "" {
		text = err.Error()
	}
	advice := ""
	switch {
	case errorCode(err) == "NOPERM", strings.Contains(text, "can't run this command"):
		advice = fmt.Sprintf("allow the user what the runner's script needs: %s ~%s ~%s*", scriptRights, c.list,
			redisqueue.Prefix(c.list))
	case strings.Contains(text, "unknown command"), strings.Contains(text, "non deterministic"):
		advice = "a server that runs scripts and is of Redis 5 or later is needed"
	default:
		return c.explain(what, err)
	}
	return fmt.Errorf("%s the list %q: %w (%s; or use --pop, with which the item of a runner that dies is lost)",
		what, c.list, err, advice)
}

// scriptRights are the commands that a user must be allowed, as ACL SETUSER takes them.
const scriptRights = "+evalsha +eval +time +exists +del +get +set +@list +@hash +@sortedset"
