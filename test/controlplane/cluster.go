package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/test/controlplane/kubelet"
)

// NodeName is the name of the Node of Options.Kubelet.
const NodeName = "test-node"

// startTimeout is how long a control plane may take to answer, on a machine that does much else at the same time. It
// takes about 3 s where the machine is idle.
const startTimeout = 5 * time.Minute

// Options say what a control plane is to be like.
type Options struct {
	// Dir is the folder for data, keys and logs. It must exist, be empty and belong to this control plane alone; its
	// owner removes it. Empty means one in the temporary folder, which Stop removes.
	Dir string
	// APIServerFlags are added to those of the API server, for example "--enable-admission-plugins=AlwaysPullImages".
	APIServerFlags []string
	// Kubelet starts a test kubelet too, so that Pods run, as processes of this machine.
	Kubelet bool
	// PodEnv is what the containers of the kubelet find in their environment without having asked for it, as
	// "name=value", like that of an image; nil means PATH and HOME of this process. It needs Kubelet.
	PodEnv []string
	// Entrypoints are what the kubelet runs for images, by the name that a Pod gives them, where a container has no
	// command. It needs Kubelet.
	Entrypoints map[string][]string
	// Log is told what the kubelet has to say; nil means nobody.
	Log *slog.Logger
}

// Cluster is a control plane that runs. Its methods may be called from several goroutines.
type Cluster struct {
	options  Options
	dir      string
	ownDir   bool
	binaries string

	keys      *keys
	ports     ports
	etcd      *component
	apiServer *component
	others    []*component // the clients of the API server

	admin  *rest.Config
	client *kubernetes.Clientset

	mu      sync.Mutex
	kubelet *kubelet.Kubelet // nil while there is none

	stop    sync.Once
	stopErr error
}

// Start starts a control plane and returns when it is ready: the API server says so, and the default namespace has its
// service account, so that Pods can be created. With Options.Kubelet there is a Node that is ready for them, too.
//
// The context bounds the start, not the life of the control plane: the caller calls Stop, also when ctx has ended. When
// Start fails, nothing runs.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{options: options, dir: options.Dir}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a control plane: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.binaries, err = binaries(ctx); err != nil {
		return err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "offboard-controlplane-"); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		c.ownDir = true
	}
	if c.keys, err = newKeys(c.dir); err != nil {
		return err
	}
	if err := c.ports.reserve(); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if err := c.etcd.start(); err != nil {
		return err
	}
	if err := c.apiServer.start(); err != nil {
		return err
	}
	if err := c.until(ctx, "the API server is ready", c.apiServerReady); err != nil {
		return err
	}
	for _, other := range c.others {
		if err := other.start(); err != nil {
			return err
		}
	}
	if c.options.Kubelet {
		if err := c.StartKubelet(ctx); err != nil {
			return err
		}
	}
	return c.until(ctx, "the default namespace has its service account", c.defaultServiceAccount)
}

// Stop ends everything at once and without grace, since the data is not kept. The error says what had ended by itself
// before. Calling it again changes nothing and returns the same.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		failures := []error{c.StopKubelet()}
		for _, part := range c.components() {
			failures = append(failures, part.kill())
		}
		c.ports.release()
		if c.ownDir {
			failures = append(failures, os.RemoveAll(c.dir))
		}
		c.stopErr = errors.Join(failures...)
	})
	return c.stopErr
}

// components returns what has been configured, clients before servers.
func (c *Cluster) components() []*component {
	all := append([]*component{}, c.others...)
	for _, server := range []*component{c.apiServer, c.etcd} {
		if server != nil {
			all = append(all, server)
		}
	}
	return all
}

// StopAPIServer ends the API server with SIGKILL, as a crash would. Connections to it are refused from then on, until
// StartAPIServer.
func (c *Cluster) StopAPIServer() error {
	return c.apiServer.kill()
}

// StartAPIServer starts the API server again, with its data and at the same address, and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.apiServer.start(); err != nil {
		return err
	}
	return c.until(ctx, "the API server is ready again", c.apiServerReady)
}

// StartKubelet starts the kubelet of Options.Kubelet, also again after StopKubelet, and returns when Pods can be put on
// its Node. It does nothing if the kubelet runs.
func (c *Cluster) StartKubelet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kubelet != nil {
		return nil
	}
	tls, err := c.keys.kubeletTLS()
	if err != nil {
		return err
	}
	c.kubelet, err = kubelet.Start(ctx, kubelet.Options{
		Config: c.admin, NodeName: NodeName, Dir: c.dir, TLS: tls, Env: c.options.PodEnv, Log: c.options.Log,
		Entrypoints: c.options.Entrypoints,
	})
	if err != nil {
		return err
	}
	return c.until(ctx, "the node is ready for Pods", c.nodeReady)
}

// StopKubelet kills the containers and ends the kubelet without a word to the API server, as the end of its machine
// would.
func (c *Cluster) StopKubelet() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kubelet == nil {
		return nil
	}
	err := c.kubelet.Stop()
	c.kubelet = nil
	return err
}

// Dir returns the folder that holds data, keys and logs.
func (c *Cluster) Dir() string { return c.dir }

// LogTails returns the last lines of each component's log, for a person to read.
func (c *Cluster) LogTails(lines int) string {
	var text string
	for _, part := range c.components() {
		text += fmt.Sprintf("--- %s (%s)\n%s\n", part.name, part.logPath, part.logTail(lines))
	}
	return text
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }
