package redis

import (
	"log/slog"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients holds the servers that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	servers *shared.Clients[settings, server]
}

// NewClients returns an empty set. It needs no closing: a server is left with the last trigger that uses it.
func NewClients() *Clients {
	return &Clients{shared.New[settings](server.stop)}
}

// acquire returns the server for the settings, to which there may be no connection yet. The log is used by it when this
// is its first user. release must be called once; it ends the connections when no one else uses them.
func (c *Clients) acquire(s settings, interval time.Duration, log *slog.Logger) (used server, release func()) {
	used, leave := c.servers.Acquire(s, func() server {
		if s.topology == clusterTopology {
			return newCluster(s, log)
		}
		return newConnection(s, log, newUsage())
	})
	forget := used.use(interval)
	return used, func() {
		forget()
		leave()
	}
}
