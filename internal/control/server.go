package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	headerTimeout   = 10 * time.Second
	requestTimeout  = 30 * time.Second
	pushTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second

	// The trailers carry an error that came up after a stream had begun.
	trailerReason  = "Offboard-Error-Reason"
	trailerMessage = "Offboard-Error-Message"
)

// Server answers clients from an Up.
type Server struct {
	// Backend is asked for everything.
	Backend Up
	// Log receives what goes wrong in the server itself; errors of requests go to the client only.
	Log *slog.Logger
}

var errStopping = Errorf(Unavailable, "offboard up is stopping")

// Serve answers on the listener until ctx ends. Then it takes no new request, ends the streams of logs, lets other
// requests finish for a few seconds, and returns when no goroutine of it is left. The listener is closed in any case.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	streams, endStreams := context.WithCancelCause(context.Background())
	defer endStreams(errStopping)
	h := &handler{
		backend: s.Backend, streams: streams, memory: semaphore.NewWeighted(MaxPushBytes), whole: semaphore.NewWeighted(1),
	}
	server := &http.Server{
		Handler:           h.routes(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelError),
	}
	stopped := make(chan error, 1)
	serving, served := context.WithCancel(ctx)
	go func() {
		<-serving.Done()
		endStreams(errStopping)
		grace, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	}()
	err := server.Serve(l)
	served()
	shutdownErr := <-stopped
	h.stop()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	if shutdownErr != nil {
		return fmt.Errorf("stop the control socket: %w", shutdownErr)
	}
	return nil
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/info", h.info)
	mux.HandleFunc("GET /v1/scaledjobs", h.scaledJobs)
	mux.HandleFunc("GET /v1/jobs", h.jobs)
	mux.HandleFunc("GET /v1/job", h.job)
	mux.HandleFunc("GET /v1/log", h.logs)
	mux.HandleFunc("POST /v1/pause", h.pause)
	mux.HandleFunc("POST /v1/push", h.push)
	mux.HandleFunc("POST /v1/push-with", h.pushWith)
	mux.HandleFunc("GET /v1/queue/stats", h.stats)
	mux.HandleFunc("GET /v1/queue/items", h.items)
	mux.HandleFunc("POST /v1/queue/change", h.change)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, Errorf(BadRequest, "the running offboard up does not know the request %s %s; "+
			"use the same version of offboard for both", r.Method, r.URL.Path))
	})
	return h.untilStopped(mux)
}

func (h *handler) info(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	info, err := h.backend.Info(ctx)
	answer(w, info, err)
}

func (h *handler) scaledJobs(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	infos, err := h.backend.ScaledJobs(ctx, r.URL.Query().Get("namespace"))
	answer(w, infos, err)
}

func (h *handler) jobs(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	query := r.URL.Query()
	infos, err := h.backend.Jobs(ctx, query.Get("namespace"), query.Get("scaledJob"))
	answer(w, infos, err)
}

func (h *handler) job(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	query := r.URL.Query()
	info, err := h.backend.Job(ctx, query.Get("namespace"), query.Get("name"))
	answer(w, info, err)
}

// pauseAnswer is what a request to pause or resume leads to.
type pauseAnswer struct {
	Changed bool `json:"changed"`
}

func (h *handler) pause(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	query := r.URL.Query()
	paused, err := strconv.ParseBool(query.Get("paused"))
	if err != nil {
		writeError(w, Errorf(BadRequest, "paused: must be true or false, not %q", query.Get("paused")))
		return
	}
	changed, err := h.backend.SetPaused(ctx, query.Get("namespace"), query.Get("scaledJob"), paused)
	answer(w, pauseAnswer{changed}, err)
}

// answer writes the value as JSON, or the error.
func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	// Encoded before the first byte is sent: a value that JSON cannot hold becomes an error and not half an answer.
	body, err := json.Marshal(value)
	if err != nil {
		writeError(w, fmt.Errorf("encode the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error here means that the client has gone.
	_, _ = w.Write(body)
}

func writeError(w http.ResponseWriter, err error) {
	reason := ReasonOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(reason.status())
	_ = json.NewEncoder(w).Encode(errorBody{Reason: reason, Message: err.Error()})
}

func (h *handler) push(w http.ResponseWriter, r *http.Request) {
	h.takeItems(w, r, func(ctx context.Context, queue Queue, items [][]byte) (any, error) {
		return h.backend.Push(ctx, queue, items)
	})
}

// takeItems reads the queue and the items of a request, and answers with what push returns.
func (h *handler) takeItems(
	w http.ResponseWriter, r *http.Request, push func(context.Context, Queue, [][]byte) (any, error),
) {
	deadline := time.Now().Add(pushTimeout)
	if err := http.NewResponseController(w).SetReadDeadline(deadline); err != nil {
		writeError(w, fmt.Errorf("set the deadline of the push: %w", err))
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	queue, err := queueOf(r.URL.Query())
	size := r.ContentLength
	switch {
	case err != nil:
		writeError(w, err)
		return
	case size <= 0:
		writeError(w, Errorf(BadRequest, "a push needs at least one item, and the header Content-Length"))
		return
	case size > MaxPushBytes:
		writeError(w, Errorf(BadRequest, "the push has %d bytes; at most %d are allowed", size, MaxPushBytes))
		return
	}
	// Several large pushes at once wait for each other instead of adding up their memory.
	if err := h.memory.Acquire(ctx, size); err != nil {
		writeError(w, fmt.Errorf("wait for other pushes to end: %w", err))
		return
	}
	defer h.memory.Release(size)
	items, err := decodeItems(r.Body, size)
	if err != nil {
		writeError(w, Errorf(BadRequest, "read the items: %w", err))
		return
	}
	result, err := push(ctx, queue, items)
	answer(w, result, err)
}

func (h *handler) logs(w http.ResponseWriter, r *http.Request) {
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		writeError(w, err)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(h.streams, func() { cancel(errStopping) })()
	query := r.URL.Query()
	log, err := h.backend.Logs(ctx, query.Get("namespace"), query.Get("job"), opts)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Trailer", trailerReason+", "+trailerMessage)
	w.WriteHeader(http.StatusOK)
	if err := stream(ctx, http.NewResponseController(w), w, log); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		w.Header().Set(trailerReason, string(ReasonOf(err)))
		w.Header().Set(trailerMessage, url.QueryEscape(err.Error()))
	}
}

// stream copies log to w, passing on each piece at once, until it ends, as it does after ctx, or the client has gone.
func stream(ctx context.Context, control *http.ResponseController, w io.Writer, log io.ReadCloser) error {
	defer func() { _ = log.Close() }()
	buffer := make([]byte, 32<<10)
	if err := control.Flush(); err != nil {
		return err
	}
	for {
		n, err := log.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == io.EOF: // and not an error that wraps it
			return nil
		case err != nil:
			return err
		}
	}
}

// logOptions reads the options of a request for logs, the reverse of logQuery.
func logOptions(query url.Values) (LogOptions, error) {
	opts := LogOptions{Pod: query.Get("pod"), Container: query.Get("container")}
	for name, target := range map[string]*bool{"follow": &opts.Follow, "previous": &opts.Previous} {
		if text := query.Get(name); text != "" {
			value, err := strconv.ParseBool(text)
			if err != nil {
				return opts, Errorf(BadRequest, "%s: must be true or false, not %q", name, text)
			}
			*target = value
		}
	}
	if text := query.Get("tail"); text != "" {
		tail, err := strconv.ParseInt(text, 10, 64)
		if err != nil || tail < 0 {
			return opts, Errorf(BadRequest, "tail: must be a number of lines, 0 or more, not %q", text)
		}
		opts.Tail = &tail
	}
	return opts, nil
}
