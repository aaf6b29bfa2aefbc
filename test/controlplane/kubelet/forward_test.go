package kubelet_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// dialers are the ways in which clients ask the API server for a forwarded port.
func (e *env) dialers(pod string) map[string]httpstream.Dialer {
	e.t.Helper()
	url := e.Client().CoreV1().RESTClient().Post().Resource("pods").Namespace(e.namespace).Name(pod).
		SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(e.Config())
	if err != nil {
		e.t.Fatal(err)
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialer(url, e.Config())
	if err != nil {
		e.t.Fatal(err)
	}
	return map[string]httpstream.Dialer{
		"SPDY":      spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		"websocket": websocket,
	}
}

// forward forwards a port until end is closed, and returns the address to connect to and how it will have ended.
func forward(
	t *testing.T, dialer httpstream.Dialer, port int, end <-chan struct{},
) (address string, done <-chan error) {
	t.Helper()
	ready, ended := make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)},
		end, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), ended
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.pod("pod", template("exec sleep 1000"))
	e.untilPhase("pod", corev1.PodRunning)

	// The ports of this machine are the Pod's: a server that answers when it has read everything.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			content, _ := io.ReadAll(connection)
			_, _ = fmt.Fprintf(connection, "got %d bytes", len(content))
			_ = connection.Close()
		}
	}()
	defer func() {
		_ = listener.Close()
		<-served
	}()
	port := listener.Addr().(*net.TCPAddr).Port

	for name, dialer := range e.dialers("pod") {
		end := make(chan struct{})
		address, done := forward(t, dialer, port, end)
		for range 3 {
			if got := exchange(t, address, strings.Repeat("x", 200_000)); got != "got 200000 bytes" {
				t.Errorf("%s: got %q", name, got)
			}
		}
		close(end)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}

		// Nothing listens on port 1. The client gives up at the first such error.
		address, done = forward(t, dialer, 1, nil)
		if got := exchange(t, address, ""); got != "" {
			t.Errorf("%s: got %q from a port that nobody listens on", name, got)
		}
		if err := <-done; !errors.Is(err, portforward.ErrLostConnectionToPod) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// exchange sends a text, says that this was all, and returns the answer.
func exchange(t *testing.T, address, text string) string {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	_, _ = io.WriteString(connection, text) // the answer tells what has arrived
	_ = connection.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(connection)
	return string(answer)
}
