package etcd

// ParseNumber reads what a key holds.
var ParseNumber = parseNumber

// Connections returns how many clients are kept.
func (c *Clients) Connections() int { return c.connections.Len() }
