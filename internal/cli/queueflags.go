package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
	"github.com/offboard-dev/offboard/internal/queue"
)

// queueHelp documents how a queue is found.
const queueHelp = `QUEUE is the name of the queue, for Redis that of the list, among the triggers of the ScaledJobs.
On a cluster those of the namespace are looked at, or with -A all; on this machine all, or with -n those of a namespace.
--scaledjob tells ScaledJobs apart that read queues of the same name on different servers. On a cluster the server is
reached as "offboard push" reaches it, with the rights to read the ScaledJob and the Secrets that it refers to.`

// queueFlags are the flags of commands about the items of one queue.
type queueFlags struct {
	where
	allNamespaces bool
	scaledJob     string
	need          backend.Need
}

func (f *queueFlags) add(a *app, cmd *cobra.Command) {
	a.whereVar(cmd, &f.where)
	cmd.Flags().BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "look for the queue in all namespaces")
	cmd.Flags().StringVarP(&f.scaledJob, "scaledjob", "s", "", "the queue is that of this ScaledJob")
	complete(cmd, "scaledjob", a.completeFrom(&f.where, scaledJobNames))
	clusterNamespaceVar(cmd, &f.need)
}

// authFilesVar adds the flag that says where files of ClusterTriggerAuthentications are. KEDA's operator has it too.
func authFilesVar(f *pflag.FlagSet, folder *string) {
	f.StringVar(folder, "filepath-auth-root-path", "",
		"folder of the files that filePath of ClusterTriggerAuthentications may name (default: none may)")
}

// clusterNamespaceVar adds the flag that says where the Secrets of ClusterTriggerAuthentications are.
func clusterNamespaceVar(cmd *cobra.Command, need *backend.Need) {
	cmd.Flags().StringVar(&need.ClusterNamespace, "cluster-object-namespace", "",
		"namespace of the Secrets of ClusterTriggerAuthentications (default the ScaledJob's)")
}

// check returns what contradicts itself among the flags and the queue's name.
func (f *queueFlags) check(name string) error {
	switch {
	case name == "":
		return usageErrorf("the name of the queue must not be empty")
	case f.allNamespaces && f.namespace != "":
		return usageErrorf("-n and -A exclude each other")
	case f.allNamespaces && f.scaledJob != "":
		return usageErrorf("a ScaledJob belongs to one namespace: use -n NAMESPACE with --scaledjob, not -A")
	}
	return nil
}

// source is a queue and who knows of it.
type source struct {
	*target
	queue control.Queue
}

// name is the queue's, for people.
func (s source) name() string { return printable(s.queue.Name, 0) }

// withQueue calls do with the queue of that name where the flags say.
func (a *app) withQueue(ctx context.Context, f *queueFlags, name string, do func(source) error) error {
	if err := f.check(name); err != nil {
		return err
	}
	wanted := control.Queue{Name: name, Namespace: f.namespace, ScaledJob: scaledJobName(f.scaledJob)}
	return a.withTarget(ctx, &f.where, f.need, func(t *target) error {
		if t.cluster != "" && !f.allNamespaces {
			wanted.Namespace = f.namespace
		}
		return do(source{t, wanted})
	})
}

// pageSize is how many records one request asks for. Those of dead items hold texts too.
const pageSize = 100

// records returns up to limit records of a state, oldest first; all when limit is 0.
func (s source) records(ctx context.Context, state queue.State, limit int) ([]queue.Record, error) {
	var all []queue.Record
	for {
		n := pageSize
		if limit > 0 {
			n = min(n, limit-len(all))
		}
		page, err := s.Items(ctx, s.queue, control.Selection{State: state, Skip: len(all), Limit: n})
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < n || len(all) == limit {
			return all, nil
		}
	}
}

// changeAtOnce is how many items one request changes.
const changeAtOnce = 1000

// change applies the operation and returns the ids of those items for which it took effect, in their order. The last
// ones go first: what is put to the head of the queue later is ahead of it.
func (s source) change(ctx context.Context, operation control.Operation, items []control.ItemRef) ([]string, error) {
	var done []string
	for len(items) > 0 {
		from := (len(items) - 1) / changeAtOnce * changeAtOnce
		page, err := s.Change(ctx, s.queue, operation, items[from:])
		if err != nil {
			return done, err
		}
		done, items = append(page, done...), items[:from]
	}
	return done, nil
}

// queueParams are the parameters by which triggers name a queue that items can be handed out from: a list or a stream
// of Redis, a queue of RabbitMQ, a table of PostgreSQL. A stream of NATS JetStream has the consumer in its name.
var queueParams = []string{"listName", "stream", "queueName", "claimTable"}

// queueNames returns the names of queues that manifests tell.
func queueNames(ctx context.Context, t *target, namespace string) ([]string, error) {
	infos, err := t.ScaledJobs(ctx, namespace)
	var names []string
	for _, info := range infos {
		for _, trigger := range info.Object.Spec.Triggers {
			for _, parameter := range queueParams {
				name := trigger.Metadata[parameter]
				if consumer := trigger.Metadata["consumer"]; consumer != "" && name != "" {
					name += "/" + consumer
				}
				if name != "" {
					names = append(names, name)
				}
			}
		}
	}
	return names, err
}

// deadIDs completes the ids of dead items after the name of the queue.
func (a *app) deadIDs(f *queueFlags, one bool) completer {
	names := a.completeFrom(&f.where, queueNames)
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return names(cmd, args, begun)
		case one && len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ids := func(ctx context.Context, t *target, namespace string) ([]string, error) {
			of := control.Queue{Name: args[0], ScaledJob: scaledJobName(f.scaledJob)}
			if t.cluster != "" && !f.allNamespaces {
				of.Namespace = namespace
			}
			records, err := source{t, of}.records(ctx, queue.Dead, pageSize)
			var ids []string
			for _, record := range records {
				if strings.HasPrefix(record.ID, begun) {
					ids = append(ids, record.ID)
				}
			}
			return ids, err
		}
		return a.completeFrom(&f.where, ids)(cmd, args[1:], begun)
	}
}
