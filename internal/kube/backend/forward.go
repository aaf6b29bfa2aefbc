package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// serviceTarget is what is behind a port of a Service: a port of a Pod, or a host elsewhere.
type serviceTarget struct {
	namespace, pod string
	port           int32
	external       string
}

// serviceTarget returns where a port of a Service leads to: one of its ready Pods. It returns nil when there is no such
// Service.
func (b *Backend) serviceTarget(ctx context.Context, namespace, name, port string) (*serviceTarget, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	service, err := b.core.Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // that there is none is an answer, not a failure
	}
	if err != nil {
		return nil, err
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return &serviceTarget{external: service.Spec.ExternalName}, nil
	}
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		return strconv.Itoa(int(p.Port)) == port
	})
	if at < 0 {
		return nil, fmt.Errorf("it has no port %s", port)
	}
	if len(service.Spec.Selector) == 0 {
		return nil, errors.New("it selects no Pods, so there is none to forward a port to")
	}
	pods, err := b.core.Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set(service.Spec.Selector).String(),
	})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if number, ok := podPort(pod, &service.Spec.Ports[at]); ok && ready(pod) {
			return &serviceTarget{namespace: namespace, pod: pod.Name, port: number}, nil
		}
	}
	return nil, errors.New("none of its Pods is ready")
}

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning &&
		slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
}

// podPort returns the number of the Pod's port that a Service's port leads to.
func podPort(pod *corev1.Pod, port *corev1.ServicePort) (int32, bool) {
	switch {
	case port.TargetPort.Type == intstr.String:
		for _, container := range pod.Spec.Containers {
			for _, p := range container.Ports {
				if p.Name == port.TargetPort.StrVal {
					return p.ContainerPort, true
				}
			}
		}
		return 0, false
	case port.TargetPort.IntVal != 0:
		return port.TargetPort.IntVal, true
	}
	return port.Port, true
}

// forward is a port of this machine's loopback interface that leads to a port of a Pod.
type forward struct {
	stop chan struct{}
	done sync.WaitGroup
	// failure is why it ended; set before done.
	failure error
}

// forward opens a port that Close closes, and returns its number.
func (b *Backend) forward(ctx context.Context, target *serviceTarget) (string, error) {
	dialer, err := b.dialer(target)
	if err != nil {
		return "", err
	}
	f := &forward{stop: make(chan struct{})}
	opened, ended := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{loopbackAddress},
		[]string{"0:" + strconv.Itoa(int(target.port))}, f.stop, opened, io.Discard, io.Discard)
	if err != nil {
		return "", err
	}
	f.done.Go(func() {
		defer close(ended)
		f.failure = forwarder.ForwardPorts()
	})
	select {
	case <-opened:
	case <-ended:
		return "", fmt.Errorf("it ended: %w", f.failure)
	case <-ctx.Done():
		f.close()
		return "", ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		f.close()
		return "", err
	}
	b.forwards = append(b.forwards, f)
	return strconv.Itoa(int(ports[0].Local)), nil
}

func (f *forward) close() {
	close(f.stop)
	f.done.Wait()
}

// dialer connects to the API server by a websocket, and where a proxy or an older server does not take one, by SPDY.
func (b *Backend) dialer(target *serviceTarget) (httpstream.Dialer, error) {
	url := b.core.RESTClient().Post().Resource("pods").Namespace(target.namespace).Name(target.pod).
		SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(b.REST)
	if err != nil {
		return nil, err
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialer(url, b.REST)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialer(websocket, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}
