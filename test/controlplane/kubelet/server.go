package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/local/logs"
)

// server answers what the API server passes on to a kubelet.
type server struct {
	http   *http.Server
	port   int
	done   chan struct{}
	cancel context.CancelFunc

	mu      sync.Mutex
	stopped bool
	active  sync.WaitGroup // the requests that are being answered; none is added after stopped
}

// serve starts the server on a free port.
func (k *Kubelet) serve() (*server, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for the API server: %w", err)
	}
	tcp, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen for the API server: got the address %v", listener.Addr()),
			listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.containerLogs)
	mux.HandleFunc("POST /portForward/{namespace}/{pod}", k.portForward)
	life, cancel := context.WithCancel(context.Background())
	s := &server{port: tcp.Port, done: make(chan struct{}), cancel: cancel}
	s.http = &http.Server{
		Handler:           s.counted(mux),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return life },
	}
	go func() {
		defer close(s.done)
		err := s.http.Serve(tls.NewListener(listener, k.options.TLS))
		if !errors.Is(err, http.ErrServerClosed) {
			k.log.Error("The kubelet's server ended", "node", k.options.NodeName, "error", err)
		}
	}()
	return s, nil
}

// counted makes stop wait for the requests, those included whose connections are the HTTP server's no more.
func (s *server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.stopped {
			s.mu.Unlock()
			return
		}
		s.active.Add(1)
		s.mu.Unlock()
		defer s.active.Done()
		next.ServeHTTP(w, r)
	})
}

// stop ends the server and what it is in the middle of.
func (s *server) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.cancel()
	_ = s.http.Close()
	<-s.done
	s.active.Wait()
}

// refusal is an answer other than the log.
type refusal struct {
	code    int
	message string
}

// Error implements error.
func (r *refusal) Error() string { return r.message }

func refuse(code int, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// containerLogs answers `kubectl logs`.
func (k *Kubelet) containerLogs(w http.ResponseWriter, r *http.Request) {
	reader, limit, err := k.openLog(r)
	if err != nil {
		code := http.StatusInternalServerError
		if refused, ok := errors.AsType[*refusal](err); ok {
			code = refused.code
		}
		http.Error(w, err.Error(), code)
		return
	}
	defer func() { _ = reader.Close() }()
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	// The client is to know at once that there is a log, also while that is empty.
	_ = flusher.Flush()
	buffer := make([]byte, 32<<10)
	for limit > 0 {
		n, err := reader.Read(buffer[:min(int64(len(buffer)), limit)])
		limit -= int64(n)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			_ = flusher.Flush()
		}
		if err != nil {
			return // the end, or the client is gone
		}
	}
}

// openLog opens the log that a request asks for, and returns how many bytes of it at most.
func (k *Kubelet) openLog(r *http.Request) (*logs.Reader, int64, error) {
	options, err := parseLogOptions(r.URL.Query())
	if err != nil {
		return nil, 0, err
	}
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	uid, status := k.container(key, r.PathValue("container"))
	if status == nil {
		return nil, 0, refuse(http.StatusNotFound, "container %q of pod %s is not known to this node",
			r.PathValue("container"), key)
	}
	restarts := status.RestartCount
	// A restarted container is counted as soon as it runs again; until then its last run is the current one.
	if options.previous {
		if restarts == 0 {
			return nil, 0, refuse(http.StatusBadRequest, "previous terminated container %q in pod %q not found",
				status.Name, key.Name)
		}
		restarts--
	} else if status.ContainerID == "" && status.State.Waiting != nil {
		return nil, 0, refuse(http.StatusBadRequest, "container %q in pod %q is waiting to start: %s",
			status.Name, key.Name, status.State.Waiting.Reason)
	}
	read := logs.Options{TailLines: options.tailLines}
	if options.follow && !options.previous {
		read.Follow = func() bool { return k.mayWrite(uid, status.Name, restarts) }
	}
	reader, err := logs.Open(r.Context(), k.logPath(uid, status.Name, restarts), read)
	return reader, options.limitBytes, err
}

// container returns the status of a container and the UID of its Pod; nil if there is none.
func (k *Kubelet) container(key types.NamespacedName, name string) (types.UID, *corev1.ContainerStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, state := range k.pods {
		if state.key != key {
			continue
		}
		if status := containerStatus(&state.status, name); status != nil {
			return uid, status.DeepCopy()
		}
	}
	return "", nil
}

func containerStatus(status *corev1.PodStatus, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		if i := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// mayWrite tells whether this run of the container may still write to its log.
func (k *Kubelet) mayWrite(uid types.UID, container string, restarts int32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	state := k.pods[uid]
	if state == nil || state.finished {
		return false
	}
	status := containerStatus(&state.status, container)
	return status != nil && status.RestartCount == restarts && status.State.Terminated == nil
}

// logOptions are what a request for a log may ask for.
type logOptions struct {
	follow, previous bool
	tailLines        *int64
	limitBytes       int64
}

// parseLogOptions reads the parameters, which the API server has validated already.
func parseLogOptions(query url.Values) (logOptions, error) {
	options := logOptions{limitBytes: int64(1) << 62}
	for name, target := range map[string]*bool{"follow": &options.follow, "previous": &options.previous} {
		if text := query.Get(name); text != "" {
			value, err := strconv.ParseBool(text)
			if err != nil {
				return logOptions{}, refuse(http.StatusBadRequest, "%s is %q; it must be true or false", name, text)
			}
			*target = value
		}
	}
	number := func(name string, set func(int64)) error {
		text := query.Get(name)
		if text == "" {
			return nil
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < 0 {
			return refuse(http.StatusBadRequest, "%s is %q; it must be a number that is not negative", name, text)
		}
		set(value)
		return nil
	}
	err := errors.Join(
		number("tailLines", func(n int64) { options.tailLines = &n }),
		number("limitBytes", func(n int64) { options.limitBytes = n }),
	)
	if err != nil {
		return logOptions{}, refuse(http.StatusBadRequest, "%v", err)
	}
	for _, name := range []string{"timestamps", "sinceSeconds", "sinceTime"} {
		if text := query.Get(name); text != "" && text != "false" {
			return logOptions{}, refuse(http.StatusBadRequest,
				"%s is not supported: the test kubelet does not keep when a line was written", name)
		}
	}
	return options, nil
}
