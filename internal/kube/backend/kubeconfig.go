package backend

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// ErrNoKubeconfig tells that there is no kubeconfig, nor does this process run in a Pod of a cluster.
var ErrNoKubeconfig = errors.New("there is no kubeconfig: name one with --kubeconfig FILE or the variable KUBECONFIG")

// Kubeconfig says where a cluster's address and credentials are found. What it leaves open follows the rules of
// kubectl.
type Kubeconfig struct {
	// File is the one that the user names, which must exist; empty for Files.
	File string
	// Files are those of the usual places, which need not exist and are merged.
	Files []string
	// Context is the context to use; empty for the current one.
	Context string
}

func (k Kubeconfig) rules() *clientcmd.ClientConfigLoadingRules {
	return &clientcmd.ClientConfigLoadingRules{ExplicitPath: k.File, Precedence: k.Files}
}

// Cluster is how to reach a cluster.
type Cluster struct {
	// REST are address and credentials.
	REST *rest.Config
	// Name names the cluster for people.
	Name string
	// Namespace is where objects are unless the user names another namespace.
	Namespace string
}

// Load reads the kubeconfig. Without one, a process in a Pod gets the cluster of that Pod; the error is
// ErrNoKubeconfig when there is no cluster at all.
func Load(k Kubeconfig) (Cluster, error) {
	if err := CheckContext(k); err != nil {
		return Cluster{}, err
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		k.rules(), &clientcmd.ConfigOverrides{CurrentContext: k.Context})
	config, err := loaded.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return Cluster{}, ErrNoKubeconfig
	}
	if err != nil {
		return Cluster{}, fmt.Errorf("read the kubeconfig: %w", err)
	}
	namespace, _, err := loaded.Namespace()
	if err != nil {
		return Cluster{}, fmt.Errorf("read the namespace of the kubeconfig: %w", err)
	}
	name := "cluster " + config.Host
	if raw, err := loaded.RawConfig(); err == nil {
		if context := contextName(raw, k.Context); context != "" {
			name = "context " + context
		}
	}
	return Cluster{REST: config, Name: name, Namespace: namespace}, nil
}

func contextName(raw api.Config, chosen string) string {
	if chosen != "" {
		return chosen
	}
	return raw.CurrentContext
}

// CheckContext returns an error when the kubeconfig lacks the context that is asked for, and names those that it has.
// Whether there is a kubeconfig it does not say.
func CheckContext(k Kubeconfig) error {
	names := Contexts(k)
	if k.Context == "" || len(names) == 0 || slices.Contains(names, k.Context) {
		return nil
	}
	return fmt.Errorf("context %q does not exist in the kubeconfig, which has %s", k.Context, strings.Join(names, ", "))
}

// Contexts returns the names of the kubeconfig's contexts; none when it cannot be read.
func Contexts(k Kubeconfig) []string {
	raw, err := k.rules().Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}
