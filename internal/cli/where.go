package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// whereHelp documents how find chooses.
const whereHelp = `Where a command looks for ScaledJobs and Jobs:
  a cluster       with --kubeconfig or --context, and when called as "kubectl offboard"
  this machine    with --local or --data-dir
  otherwise       this machine if "offboard up" runs here, else the cluster of the kubeconfig, which is the one of
                  $KUBECONFIG or ~/.kube/config
The namespace is that of -n, else that of the kubeconfig's context, else "default".`

// where are the flags that say where a command looks for objects.
type where struct {
	kubeconfig, context string
	local               bool
	// namespace is the one of the flag; once the target is open, the one that is meant.
	namespace string
}

// whereVar adds the flags.
func (a *app) whereVar(cmd *cobra.Command, w *where) {
	flags := cmd.Flags()
	flags.StringVar(&w.kubeconfig, "kubeconfig", "", "ask a cluster, by this file")
	flags.StringVar(&w.context, "context", "", "ask a cluster, by this context of the kubeconfig")
	flags.BoolVar(&w.local, "local", false, "ask the offboard up of this machine")
	flags.StringVarP(&w.namespace, "namespace", "n", "", `namespace of the objects (default the context's, or "default")`)
	complete(cmd, "namespace", a.completeFrom(w, namespaces))
	complete(cmd, "context", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return backend.Contexts(a.kubeconfig(w)), cobra.ShellCompDirectiveNoFileComp
	})
}

// target is what answers a command: the `offboard up` of this machine, or a cluster.
type target struct {
	control.Backend
	// namespace is where objects are unless the user names another.
	namespace string
	// cluster names the cluster for people; empty on this machine.
	cluster string
	// pause is how often it may be asked again by a command that goes on.
	pause time.Duration
	close func()
}

// in says where a command has changed something, for the end of a sentence.
func (t *target) in() string {
	if t.cluster == "" {
		return ""
	}
	return " (" + t.cluster + ")"
}

const (
	// localPause and clusterPause are how often a command that goes on asks again. A cluster has others to serve.
	localPause   = 250 * time.Millisecond
	clusterPause = 2 * time.Second

	defaultNamespace = "default"
)

// withTarget calls do with what the flags choose, after it has completed them.
func (a *app) withTarget(ctx context.Context, w *where, need backend.Need, do func(*target) error) error {
	t, err := a.find(ctx, w, need)
	if err != nil {
		return err
	}
	defer t.close()
	if w.namespace == "" {
		w.namespace = t.namespace
	}
	return do(t)
}

func (a *app) find(ctx context.Context, w *where, need backend.Need) (*target, error) {
	cluster, local := w.kubeconfig != "" || w.context != "", w.local || a.dataDirFlag != ""
	switch {
	case cluster && local:
		return nil, usageErrorf("--kubeconfig and --context are about a cluster, --local and --data-dir about this " +
			"machine: give only one of them")
	case local:
		up, err := a.openUp()
		if err != nil {
			return nil, err
		}
		return thisMachine(up), nil
	case cluster || a.plugin():
		return a.openCluster(w, need)
	}
	up, err := a.openUp()
	if err == nil {
		if _, err = up.Info(ctx); control.ReasonOf(err) != control.NotRunning {
			return thisMachine(up), nil // it answers, or says by itself what is wrong with it
		}
		up.Close()
	}
	found, clusterErr := a.openCluster(w, need)
	if errors.Is(clusterErr, backend.ErrNoKubeconfig) {
		return nil, fmt.Errorf("%w; or name a cluster with --kubeconfig FILE", err)
	}
	return found, clusterErr
}

// openUp returns a client of the `offboard up` of this machine.
func (a *app) openUp() (*control.Client, error) {
	dataDir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	return control.NewClient(dataDir), nil
}

func thisMachine(up *control.Client) *target {
	return &target{Backend: up, namespace: defaultNamespace, pause: localPause, close: up.Close}
}

func (a *app) openCluster(w *where, need backend.Need) (*target, error) {
	cluster, err := backend.Load(a.kubeconfig(w))
	if err != nil {
		return nil, usageError{err}
	}
	b, err := backend.New(backend.Config{
		Cluster: cluster, Need: need, TriggerTypes: all.Types(), Log: a.liveLogger(newStatusLine(a.Err)),
	})
	if err != nil {
		return nil, err
	}
	return &target{
		Backend: b, namespace: cluster.Namespace, cluster: cluster.Name, pause: clusterPause, close: b.Close,
	}, nil
}

// kubeconfig says where the kubeconfig is, by the flags and the environment.
func (a *app) kubeconfig(w *where) backend.Kubeconfig {
	k := backend.Kubeconfig{File: w.kubeconfig, Context: w.context}
	if list := a.getenv("KUBECONFIG"); list != "" {
		k.Files = filepath.SplitList(list)
	} else if home := a.getenv("HOME"); filepath.IsAbs(home) {
		k.Files = []string{filepath.Join(home, ".kube", "config")}
	}
	return k
}
