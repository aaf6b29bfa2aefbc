package redis

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// guardedConn is the connection under a rueidis client. It tells when it is closed, which rueidis does whenever it
// gives a connection up, for whatever reason; and it lets nothing through that no Redis would send.
type guardedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
	// failed tells that reading or writing failed before the connection was closed.
	failed atomic.Bool
	// sent counts commands. It is ahead of what the server has seen, never behind.
	sent     atomic.Int64
	outgoing frames
	incoming frames
}

func newGuardedConn(conn net.Conn) *guardedConn {
	return &guardedConn{Conn: conn, closed: make(chan struct{}), outgoing: frames{unlimited: true}}
}

// Read reads from the connection.
func (c *guardedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		wrong := c.incoming.feed(p[:n])
		if wrong == nil && int64(c.incoming.complete) > c.sent.Load() {
			wrong = errors.New("answers what it was not asked")
		}
		if wrong != nil {
			n, err = 0, wrong
		}
	}
	c.note(err)
	return n, err
}

// Write writes to the connection.
func (c *guardedConn) Write(p []byte) (int, error) {
	if err := c.outgoing.feed(p); err != nil {
		return 0, err
	}
	c.sent.Store(int64(c.outgoing.complete))
	n, err := c.Conn.Write(p)
	c.note(err)
	return n, err
}

// note keeps that the connection failed by itself; a deadline does not count as that.
func (c *guardedConn) note(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.failed.Store(true)
	}
}

// Close closes the connection.
func (c *guardedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
