// Package shared lets triggers with equal connection settings use one client, which ends with the last of them.
package shared

import "sync"

// Clients holds clients by their settings. One per source and process is enough.
type Clients[S comparable, C any] struct {
	close func(C)

	mu     sync.Mutex
	shared map[S]*entry[C]
}

// entry is a client and how many use it.
type entry[C any] struct {
	client C
	users  int
}

// New returns an empty set. It needs no closing: a client is closed when nobody uses it any more.
func New[S comparable, C any](close func(C)) *Clients[S, C] {
	return &Clients[S, C]{close: close, shared: map[S]*entry[C]{}}
}

// Acquire returns the client for the settings, made by open where there is none, which does not wait for the network.
// release must be called at the end; calling it again does nothing.
func (c *Clients[S, C]) Acquire(settings S, open func() C) (client C, release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := c.shared[settings]
	if used == nil {
		used = &entry[C]{client: open()}
		c.shared[settings] = used
	}
	used.users++
	return used.client, sync.OnceFunc(func() {
		c.mu.Lock()
		used.users--
		last := used.users == 0
		if last {
			delete(c.shared, settings)
		}
		c.mu.Unlock()
		if last {
			c.close(used.client)
		}
	})
}

// Len returns how many clients there are.
func (c *Clients[S, C]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.shared)
}
