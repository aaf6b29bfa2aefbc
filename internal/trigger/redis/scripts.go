package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// scriptTimeout bounds one script, waiting for a connection included.
const scriptTimeout = 10 * time.Second

// scripts runs the scripts that hand out items, over a connection of their own, which is made when the first one runs:
// most triggers only measure.
type scripts struct {
	// source is the kind of key that items are taken from.
	source  string
	acquire func() (server, func())

	mu     sync.Mutex
	server server
	end    func()
	ended  bool
}

var _ redisqueue.Conn = (*scripts)(nil)

// newScripts runs scripts on the server that is measured. What is copied here is kept by each of thousands of triggers.
func newScripts(clients *Clients, measured server, cfg trigger.Config, source string) *scripts {
	interval, log := cfg.PollingInterval, cfg.Log
	return &scripts{source: source, acquire: func() (server, func()) {
		s := measured.reach()
		s.scripts, s.polled = true, false
		return clients.acquire(s, interval, log)
	}}
}

// shared returns the server.
func (s *scripts) shared() (server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errClosed
	}
	if s.server == nil {
		s.server, s.end = s.acquire()
	}
	return s.server, nil
}

// release ends the connection when nobody else uses it.
func (s *scripts) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.end != nil {
		s.end()
	}
}

// Eval implements redisqueue.Conn. A script that was on its way when the connection broke is not sent again.
func (s *scripts) Eval(ctx context.Context, script redisqueue.Script, keys, args []string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()
	shared, err := s.shared()
	if err != nil {
		return nil, err
	}
	var answer any
	err = shared.write(ctx, keys[0], func(opened *session) error {
		build, count := opened.client.B(), int64(len(keys))
		answer, err = opened.do(ctx, build.Evalsha().Sha1(script.SHA1).Numkeys(count).Key(keys...).Arg(args...).
			Build())[0].ToAny()
		if hasReply(err, "NOSCRIPT") {
			answer, err = opened.do(ctx, build.Eval().Script(script.Body).Numkeys(count).Key(keys...).Arg(args...).
				Build())[0].ToAny()
		}
		if hasReply(err, "WRONGTYPE") {
			return keyError{
				message: fmt.Sprintf("is no %s, and only a %s hands out items", s.source, s.source), cause: err,
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}
