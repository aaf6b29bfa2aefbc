package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// maxChangeBody is the largest request to change items in bytes. An id has 16 characters.
const maxChangeBody = 1 << 20

// queueOf reads the name of a queue, the reverse of Queue.query.
func queueOf(query url.Values) (Queue, error) {
	q := Queue{Name: query.Get("queue"), Namespace: query.Get("namespace"), ScaledJob: query.Get("scaledJob")}
	switch {
	case q.Name == "":
		return q, Errorf(BadRequest, "the name of the queue is missing")
	case len(q.Name) > MaxQueueName:
		return q, Errorf(BadRequest, "the name of the queue has %d bytes; at most %d are allowed", len(q.Name), MaxQueueName)
	}
	return q, nil
}

func (h *handler) pushWith(w http.ResponseWriter, r *http.Request) {
	options, err := pushOptions(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	h.takeItems(w, r, func(ctx context.Context, to Queue, items [][]byte) (any, error) {
		if err := checkPush(options, len(items)); err != nil {
			return nil, err
		}
		return h.backend.PushWith(ctx, to, options, items)
	})
}

// pushOptions reads the options of a push, the reverse of pushQuery.
func pushOptions(query url.Values) (o queue.PushOptions, err error) {
	for name, target := range map[string]*time.Duration{"delay": &o.Delay, "uniqueFor": &o.UniqueFor} {
		if text := query.Get(name); text != "" {
			if *target, err = time.ParseDuration(text); err != nil {
				return o, Errorf(BadRequest, "%s: must be a duration such as 1m30s, not %q", name, text)
			}
		}
	}
	if text := query.Get("at"); text != "" {
		if o.At, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return o, Errorf(BadRequest, "at: must be a time as of RFC 3339, not %q", text)
		}
	}
	o.Unique = query.Get("unique")
	return o, nil
}

func (h *handler) stats(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	of, err := queueOf(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	stats, err := h.backend.Stats(ctx, of)
	answer(w, stats, err)
}

func (h *handler) items(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	of, selection, err := selectionOf(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	if selection.ID != "" {
		if err := h.whole.Acquire(ctx, 1); err != nil {
			writeError(w, fmt.Errorf("wait for others to read their item: %w", err))
			return
		}
		defer h.whole.Release(1)
	}
	records, err := h.backend.Items(ctx, of, selection)
	answer(w, records, err)
}

// selectionOf reads what Client.Items writes.
func selectionOf(query url.Values) (of Queue, s Selection, err error) {
	if of, err = queueOf(query); err != nil {
		return of, s, err
	}
	s.ID, s.State = query.Get("id"), queue.State(query.Get("state"))
	for name, target := range map[string]*int{"skip": &s.Skip, "limit": &s.Limit} {
		if text := query.Get(name); text != "" {
			if *target, err = strconv.Atoi(text); err != nil {
				return of, s, Errorf(BadRequest, "%s: must be a number of items, not %q", name, text)
			}
		}
	}
	return of, s, s.check()
}

func (h *handler) change(w http.ResponseWriter, r *http.Request) {
	deadline := time.Now().Add(requestTimeout)
	if err := http.NewResponseController(w).SetReadDeadline(deadline); err != nil {
		writeError(w, fmt.Errorf("set the deadline of the request: %w", err))
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	of, err := queueOf(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	operation := Operation(r.URL.Query().Get("operation"))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChangeBody))
	if err != nil {
		writeError(w, Errorf(BadRequest, "read the items: %w", err))
		return
	}
	var items []ItemRef
	if err := json.Unmarshal(body, &items); err != nil {
		writeError(w, Errorf(BadRequest, "read the items: %w", err))
		return
	}
	if err := checkChange(operation, items); err != nil {
		writeError(w, err)
		return
	}
	changed, err := h.backend.Change(ctx, of, operation, items)
	answer(w, changed, err)
}
