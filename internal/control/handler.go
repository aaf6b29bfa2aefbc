package control

import (
	"context"
	"net/http"
	"sync"

	"golang.org/x/sync/semaphore"
)

// handler holds what the requests of one server share.
type handler struct {
	backend Up
	// streams ends when the server stops.
	streams context.Context
	// memory is the number of bytes that pushes may hold at once.
	memory *semaphore.Weighted
	// whole is held while one item is read whole, which may be as large as a push.
	whole *semaphore.Weighted
	// running is held for reading by each request under way; stopped is set under it when no more may begin.
	running sync.RWMutex
	stopped bool
}

// untilStopped keeps track of the requests under way, because http.Server.Close does not wait for them.
func (h *handler) untilStopped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.running.RLock()
		defer h.running.RUnlock()
		if h.stopped {
			writeError(w, errStopping)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// stop returns when no request is under way, and lets no other begin.
func (h *handler) stop() {
	h.running.Lock()
	defer h.running.Unlock()
	h.stopped = true
}
