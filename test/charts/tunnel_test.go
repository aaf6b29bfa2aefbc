package charts

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// tunnel leads the API server's connections into the cluster: nothing routes to the addresses of Services here, where the
// operator runs beside the cluster and not in a Pod. The API server asks for a connection by the method CONNECT of HTTP
// (its egress selector), and the tunnel connects it to what serves the Service.
type tunnel struct {
	config string // the file of the API server's flag
	server *http.Server

	mu     sync.Mutex
	routes map[string]string // host:port of a Service to that of a process
}

// newTunnel serves until the test ends.
func newTunnel(t *testing.T) *tunnel {
	t.Helper()
	// The path of a unix socket is short, and t.TempDir holds the test's name.
	dir, err := os.MkdirTemp("", "tunnel-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	u := &tunnel{config: filepath.Join(dir, "egress.yaml"), routes: map[string]string{}}
	config := fmt.Sprintf(`apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
  - name: cluster
    connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: %q}}}
`, socket)
	if err := os.WriteFile(u.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	u.server = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1) // the server does not wait for connections that it has handed over
			defer running.Done()
			u.connect(ctx, w, r)
		}),
	}
	running.Go(func() { _ = u.server.Serve(listener) })
	t.Cleanup(func() {
		cancel()
		_ = u.server.Close()
		running.Wait()
	})
	return u
}

// lead connects those who ask for a Service with a process.
func (u *tunnel) lead(service, process string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.routes[service] = process
}

// connect serves one connection until either side or ctx ends it. What is no Service is connected as it is: a kubelet.
func (u *tunnel) connect(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	target, found := u.routes[r.Host]
	u.mu.Unlock()
	if !found {
		target = r.Host
	}
	upstream, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", target)
	if r.Method != http.MethodConnect || err != nil {
		http.Error(w, fmt.Sprintf("%s %s: %v", r.Method, r.Host, err), http.StatusBadGateway)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		upstream.Close()
		return
	}
	end := sync.OnceFunc(func() {
		upstream.Close()
		client.Close()
	})
	defer context.AfterFunc(ctx, end)()
	defer end()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		defer end()
		_, _ = io.Copy(upstream, buffered)
	})
	_, _ = io.Copy(client, upstream)
	end()
}
