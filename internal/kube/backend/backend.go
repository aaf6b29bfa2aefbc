// Package backend is a cluster as the commands see it: it implements control.Backend with what a user of the cluster
// may read and write through its API.
//
// It knows nothing of the operator and keeps nothing: all that it tells comes from the API server at the moment, and
// what only the operator knows, such as the reason of its last decision, it does not tell.
package backend

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	batchclient "k8s.io/client-go/kubernetes/typed/batch/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// requestTimeout bounds each request to the API server but those that stream.
const requestTimeout = 30 * time.Second

// Need is what only some commands need.
type Need struct {
	// Events asks for the events of ScaledJobs, which cost the cluster further requests.
	Events bool
	// ClusterNamespace is where the Secrets of ClusterTriggerAuthentications are, for Push; empty means the namespace of
	// the ScaledJob.
	ClusterNamespace string
}

// Config is what a Backend works with.
type Config struct {
	Cluster
	Need
	// TriggerTypes are the types of triggers whose queues items can be pushed to.
	TriggerTypes []trigger.Type
	Log          *slog.Logger

	// resolves replaces the question whether this machine knows the address of a host.
	resolves resolver
}

// Backend asks a cluster.
type Backend struct {
	Config
	core  coreclient.CoreV1Interface
	batch batchclient.BatchV1Interface
	keda  rest.Interface

	mu       sync.Mutex
	queues   map[control.Queue]trigger.Pusher
	triggers []trigger.Trigger
	forwards []*forward
}

var _ control.Backend = (*Backend)(nil)

// New returns a Backend, which connects when it is first asked. Close releases it.
func New(config Config) (*Backend, error) {
	if config.resolves == nil {
		config.resolves = lookUp(net.DefaultResolver)
	}
	b := &Backend{Config: config, queues: map[control.Queue]trigger.Pusher{}}
	b.REST = rest.CopyConfig(b.REST)
	b.REST.UserAgent = "offboard"
	b.REST.WarningHandler = rest.NoWarnings{} // they are for those who write manifests
	b.REST.QPS = -1                           // the server has its own limits, which are the same for everybody
	client, err := rest.HTTPClientFor(b.REST)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig of %s: %w", b.Name, err)
	}
	if b.core, err = coreclient.NewForConfigAndClient(b.REST, client); err != nil {
		return nil, fmt.Errorf("use the kubeconfig of %s: %w", b.Name, err)
	}
	if b.batch, err = batchclient.NewForConfigAndClient(b.REST, client); err != nil {
		return nil, fmt.Errorf("use the kubeconfig of %s: %w", b.Name, err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the types of %s: %w", v1alpha1.GroupVersion, err)
	}
	keda := rest.CopyConfig(b.REST)
	keda.APIPath, keda.GroupVersion = "/apis", &v1alpha1.GroupVersion
	keda.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if b.keda, err = rest.RESTClientForConfigAndClient(keda, client); err != nil {
		return nil, fmt.Errorf("use the kubeconfig of %s: %w", b.Name, err)
	}
	return b, nil
}

// Close ends connections and goroutines.
func (b *Backend) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.triggers {
		t.Close()
	}
	for _, f := range b.forwards {
		f.close()
	}
	b.triggers, b.forwards, b.queues = nil, nil, map[control.Queue]trigger.Pusher{}
	if client, ok := b.core.RESTClient().(*rest.RESTClient); ok {
		client.Client.CloseIdleConnections()
	}
}
