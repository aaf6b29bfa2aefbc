package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

const (
	// workers is how many Pods are brought in line with the API server at once.
	workers = 32
	// The delays between tries when the API server does not do what it is asked.
	retryFirst, retryLast = 10 * time.Millisecond, time.Second
	// stopTimeout is how long killed processes may take to be gone.
	stopTimeout = 30 * time.Second
)

// Options say what a kubelet is to be like. All fields are required but those whose comment says otherwise.
type Options struct {
	// Config is of a client that may do everything with Nodes, Leases and Pods, and read Secrets and ConfigMaps.
	Config *rest.Config
	// NodeName is the name of the Node.
	NodeName string
	// Dir is the folder for the Pods' folders and logs. Its owner removes it.
	Dir string
	// TLS is what the logs are served with: a certificate that the API server trusts and the demand for that of the API
	// server.
	TLS *tls.Config
	// Env is what containers find in their environment without having asked for it, as "name=value", like that of an
	// image; nil means PATH and HOME of this process.
	Env []string
	// Entrypoints are the commands of images, by the name that a Pod gives them; nil means that none has any.
	Entrypoints map[string][]string
	// Log is told what goes wrong; nil means nobody.
	Log *slog.Logger
}

// Kubelet runs the Pods of one Node.
type Kubelet struct {
	options  Options
	log      *slog.Logger
	client   kubernetes.Interface
	runner   *pods.Runner
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
	server   *server
	node     node

	mu   sync.Mutex
	pods map[types.UID]*podState

	cancel   context.CancelFunc
	running  sync.WaitGroup
	stopOnce sync.Once
	stopErr  error
}

// Start starts a kubelet and returns when its Node is registered; the Node lifecycle controller then still has to find
// it ready. The context bounds the start: the caller ends the kubelet with Stop.
func Start(ctx context.Context, options Options) (*Kubelet, error) {
	k, err := newKubelet(options)
	if err != nil {
		return nil, fmt.Errorf("start kubelet %q: %w", options.NodeName, err)
	}
	if err := k.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start kubelet %q: %w", options.NodeName, err), k.Stop())
	}
	return k, nil
}

func newKubelet(options Options) (*Kubelet, error) {
	if options.Config == nil || options.NodeName == "" || options.Dir == "" || options.TLS == nil {
		return nil, errors.New("the options Config, NodeName, Dir and TLS are required")
	}
	config := rest.CopyConfig(options.Config)
	config.UserAgent = "offboard-test-kubelet"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if options.Env == nil {
		options.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	}
	k := &Kubelet{
		options: options,
		log:     options.Log,
		client:  client,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryFirst, retryLast)),
		pods: map[types.UID]*podState{},
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.node = node{name: options.NodeName, client: client, log: k.log}
	k.runner, err = pods.New(pods.Config{
		Command: k.command,
		LogPath: func(pod *corev1.Pod, container string, restarts int32) string {
			return k.logPath(pod.UID, container, restarts)
		},
		Log: k.log,
	})
	if err != nil {
		return nil, err
	}
	watch := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", corev1.NamespaceAll,
		fields.OneTermEqualSelector("spec.nodeName", options.NodeName))
	k.informer = cache.NewSharedIndexInformer(watch, &corev1.Pod{}, 0, cache.Indexers{})
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingObjectToName(object); err == nil {
			k.queue.Add(types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
		}
	}
	_, err = k.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }, DeleteFunc: enqueue,
	})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	return k, nil
}

func (k *Kubelet) start(ctx context.Context) error {
	// The kubelet's life, which the context of its start does not bound.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	var err error
	if k.server, err = k.serve(); err != nil {
		return err
	}
	k.node.port = k.server.port
	if err := k.node.register(ctx); err != nil {
		return err
	}
	k.running.Go(func() { k.node.heartbeat(life) })
	k.running.Go(func() { k.informer.RunWithContext(life) })
	for range workers {
		k.running.Go(func() { k.work(life) })
	}
	return nil
}

// Stop kills the containers and ends the kubelet without a word to the API server, as the end of a machine would.
// Calling it again changes nothing and returns the same. The error says that processes are still there.
func (k *Kubelet) Stop() error {
	k.stopOnce.Do(func() {
		k.cancel()
		k.queue.ShutDown()
		k.running.Wait()
		if k.server != nil {
			k.server.stop()
		}
		for _, uid := range k.runner.Running() {
			k.runner.Stop(uid, pods.Stop{Grace: new(time.Duration)})
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := k.runner.Wait(ctx); err != nil {
			k.stopErr = fmt.Errorf("stop kubelet %q: %w", k.options.NodeName, err)
		}
	})
	return k.stopErr
}

// podDir is the folder of a Pod.
func (k *Kubelet) podDir(uid types.UID) string {
	return filepath.Join(k.options.Dir, "pods", string(uid))
}

// workDir is the folder that the containers of a Pod work in.
func (k *Kubelet) workDir(uid types.UID) string { return filepath.Join(k.podDir(uid), "work") }

func (k *Kubelet) logPath(uid types.UID, container string, restarts int32) string {
	return filepath.Join(k.podDir(uid), container, strconv.Itoa(int(restarts))+".log")
}
