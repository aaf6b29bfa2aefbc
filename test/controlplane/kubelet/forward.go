package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

// forwardProtocol is that of forwarded ports over SPDY: each connection is a pair of streams, one for its data and one
// for an error, which carry the port and share a request ID. The API server turns websockets into it.
const forwardProtocol = "portforward.k8s.io"

// portForward answers `kubectl port-forward`. The Pods' processes share this machine's ports, so that any port of its
// loopback interface can be reached through any Pod that runs.
func (k *Kubelet) portForward(w http.ResponseWriter, r *http.Request) {
	key := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	if !k.runs(key) {
		http.Error(w, fmt.Sprintf("pod %s does not run on this node", key), http.StatusNotFound)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{forwardProtocol}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	streams := make(chan httpstream.Stream)
	receive := func(stream httpstream.Stream, _ <-chan struct{}) error {
		select {
		case streams <- stream:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, receive)
	if connection == nil {
		return // it has said why
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer func() { _ = connection.Close() }()
	waiting := map[string]*forwarded{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-connection.CloseChan():
			return
		case stream := <-streams:
			id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			if waiting[id] == nil {
				waiting[id] = &forwarded{}
			}
			if f := waiting[id]; f.add(stream) {
				delete(waiting, id)
				running.Go(func() { f.run(ctx) })
			}
		}
	}
}

// runs tells whether something of the Pod may run.
func (k *Kubelet) runs(key types.NamespacedName) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, state := range k.pods {
		if state.key == key && !state.finished {
			return true
		}
	}
	return false
}

// forwarded is one connection that is forwarded.
type forwarded struct{ data, failure httpstream.Stream }

// add takes one of the connection's streams, and tells whether it has both now.
func (f *forwarded) add(stream httpstream.Stream) bool {
	if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
		f.failure = stream
	} else {
		f.data = stream
	}
	return f.data != nil && f.failure != nil
}

// run forwards until the Pod's side has closed the connection, or ctx ends.
func (f *forwarded) run(ctx context.Context) {
	err := f.connect(ctx, f.data.Headers().Get(corev1.PortHeader))
	if err != nil && ctx.Err() == nil {
		_, _ = io.WriteString(f.failure, err.Error())
	}
	// The other side waits for the end of both, and may be gone.
	_ = f.data.Close()
	_ = f.failure.Close()
}

func (f *forwarded) connect(ctx context.Context, text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("forward a port: %q is no port; it must be a number from 1 to 65535", text)
	}
	target := net.JoinHostPort(address, text)
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return fmt.Errorf("forward port %d: %w", port, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	defer stop()
	tcp, ok := connection.(*net.TCPConn)
	if !ok {
		return errors.Join(fmt.Errorf("forward port %d: got a connection of type %T", port, connection), connection.Close())
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		// What cannot be sent any more, the program in the Pod does not want to read.
		_, _ = io.Copy(tcp, f.data)
		_ = tcp.CloseWrite()
	})
	_, err = io.Copy(f.data, tcp)
	_ = tcp.Close()
	_ = f.data.Close()
	sending.Wait()
	if err != nil {
		return fmt.Errorf("forward port %d: %w", port, err)
	}
	return nil
}
