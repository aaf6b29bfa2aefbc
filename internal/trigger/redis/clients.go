package redis

import (
	"log/slog"
	"sync"
	"time"
)

// Clients holds the connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	mu     sync.Mutex
	shared map[settings]*shared
}

// shared is a connection and who uses it.
type shared struct {
	connection *connection
	users      int
}

// NewClients returns an empty set. It needs no closing: a connection ends with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared: map[settings]*shared{}}
}

// acquire returns the connection for the settings, which may not be established yet. The log is used by the connection
// when this is its first user. release must be called once; it ends the connection when no one else uses it.
func (c *Clients) acquire(s settings, interval time.Duration, log *slog.Logger) (conn *connection, release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.shared[s]
	if entry == nil {
		entry = &shared{connection: newConnection(s, log)}
		c.shared[s] = entry
	}
	entry.users++
	forget := entry.connection.limitAge(interval)
	return entry.connection, func() {
		forget()
		c.mu.Lock()
		entry.users--
		last := entry.users == 0
		if last {
			delete(c.shared, s)
		}
		c.mu.Unlock()
		if last {
			entry.connection.stop()
		}
	}
}
