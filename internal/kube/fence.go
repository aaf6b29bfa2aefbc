package kube

import (
	"context"
	"net"
	"time"

	"k8s.io/client-go/rest"
)

// fenced returns a configuration of connections that carry nothing once left is not positive any more. Between the
// check before a request and its sending there is much that takes time: it is encoded, waits for its turn on the
// connection, and for as long as a busy server has asked for, and the client sends it anew where the connection broke.
// A process that is stopped within that and goes on later would send what others no longer reckon with. So it is
// checked again at the last place there is, where bytes are given to the kernel.
func fenced(config *rest.Config, left func() time.Duration) *rest.Config {
	config = rest.CopyConfig(config)
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext // as the client's own
	}
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return fencedConn{conn, left}, nil
	}
	return config
}

// fencedConn is a connection on which nothing is written once left is not positive any more.
type fencedConn struct {
	net.Conn
	left func() time.Duration
}

// Write implements net.Conn. One that waits for room on the connection waits no longer than it may write.
func (c fencedConn) Write(b []byte) (int, error) {
	left := c.left()
	if left <= 0 {
		return 0, errLost
	}
	if err := c.SetWriteDeadline(time.Now().Add(left)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
