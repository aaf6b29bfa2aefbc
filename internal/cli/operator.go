package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube"
	"github.com/offboard-dev/offboard/internal/kube/backend"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// gcPercent is by how many percent the memory may grow with what is no longer needed, see runtime/debug.SetGCPercent.
const gcPercent = 25

// envPrefix begins the names of the variables that stand for flags of the operator.
const envPrefix = "OFFBOARD_"

// operatorFlags are the flags of `offboard operator` that are not options of the operator as they are.
type operatorFlags struct {
	kubeconfig, context string
	namespaces          []string
	selector            string
	webhook             bool
	webhookOptions      kube.Webhook
	stopDeployment      string
	logLevel, logFormat string
}

func (a *app) operatorCommand() *cobra.Command {
	var flags operatorFlags
	var options kube.Options
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Run the Jobs of a cluster's ScaledJobs until stopped",
		Long: `Watch the ScaledJobs of a Kubernetes cluster and their queues, and create a Job for each item, until stopped.

In a cluster it works as the Pod's service account; elsewhere by --kubeconfig, $KUBECONFIG or ~/.kube/config. Several
replicas share the ScaledJobs out among them; the others take the share of one over within seconds when it is stopped,
and within 15 seconds when it is lost.

With --release-all it does that for the last time: what Jobs with delivery by claim have finished is settled, those that
run are ended, their items go back to the queue, all of Offboard's finalizers are taken off, and it ends. Other replicas
stand by meanwhile; it waits until they are stopped.

KEDA's operator must not look after the same ScaledJobs: stop it first, or let one of them keep to other namespaces.

Each flag may also be given as a variable: OFFBOARD_ and its name in capitals with underscores, for example
OFFBOARD_LOG_LEVEL=debug. A flag on the command line counts more.

` + exitHelp,
		Example: `  offboard operator
  offboard operator --kubeconfig ~/.kube/config --leader-elect=false --webhook=false --install-crds
  offboard operator --namespaces shop,billing --selector tier=background
  offboard operator --release-all --stop-deployment offboard`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.flagsFromEnv(cmd.Flags()); err != nil {
				return err
			}
			return a.operator(cmd.Context(), flags, options)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.kubeconfig, "kubeconfig", "",
		"kubeconfig of the cluster (default: $KUBECONFIG, ~/.kube/config or the Pod's own service account)")
	f.StringVar(&flags.context, "context", "", "context of the kubeconfig (default: its current one)")
	f.StringSliceVar(&flags.namespaces, "namespaces", nil, "namespaces to look after, with commas between (default: all)")
	f.StringVar(&flags.selector, "selector", "", "label selector of the ScaledJobs to look after (default: all)")
	f.StringVar(&options.MetricsAddress, "metrics-bind-address", ":8080", `where to serve metrics; "0" for nowhere`)
	f.StringVar(&options.HealthAddress, "health-probe-bind-address", ":8081",
		`where to serve /healthz and /readyz; "0" for nowhere`)
	f.StringVar(&options.ProfilingAddress, "profiling-bind-address", "0",
		`where to serve profiles for "go tool pprof" below /debug/pprof/; "0" for nowhere`)
	f.BoolVar(&options.LeaderElection, "leader-elect", true,
		"share the work out over all replicas, by Leases; without it there must be one process only")
	f.StringVar(&options.LeaderElectionNamespace, "leader-election-namespace", "",
		"namespace of the replicas' Leases (default: the Pod's own)")
	f.BoolVar(&flags.webhook, "webhook", true, "serve the admission webhook that validates ScaledJobs")
	f.StringVar(&flags.webhookOptions.Address, "webhook-bind-address", ":9443", "where to serve the webhook")
	f.StringVar(&flags.webhookOptions.Service, "webhook-service", "offboard-webhook",
		"Service that leads to the webhook, in the Pod's own namespace")
	f.StringVar(&flags.webhookOptions.Configuration, "webhook-configuration", "offboard",
		"ValidatingWebhookConfiguration that is given the webhook's certificate authority")
	f.StringVar(&flags.webhookOptions.Secret, "webhook-secret", "offboard-webhook-cert",
		"Secret that keeps the webhook's certificate")
	f.BoolVar(&options.InstallCRDs, "install-crds", false, "create or update the CustomResourceDefinitions first")
	f.IntVar(&options.Workers, "workers", 16, "ScaledJobs that are reconciled at the same time")
	f.IntVar(&options.CreateParallel, "create-parallel", 32, "Jobs that are created at the same time")
	addLimits(f, &options.Limits)
	f.IntVar(&options.Limits.JobsPerNamespace, "max-jobs-per-namespace", 0,
		"Jobs that may be alive in each namespace (0: no limit)")
	f.StringVar(&options.ClusterNamespace, "cluster-object-namespace", "",
		"namespace of the Secrets of ClusterTriggerAuthentications (default: the Pod's own)")
	authFilesVar(f, &options.AuthFiles)
	f.StringVar(&options.ItemImage, "item-image", "",
		"image of this program, for Jobs that get items of more than 768 KiB as files (default: they are refused)")
	f.BoolVar(&options.ReleaseAll, "release-all", false,
		"settle or give back all claimed items, take off all finalizers, and end: for an uninstall")
	f.StringVar(&flags.stopDeployment, "stop-deployment", "",
		"with --release-all, Deployment of the operator in the Pod's own namespace that is scaled to 0 before")
	f.StringVar(&flags.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&flags.logFormat, "log-format", "json", "json or text")
	choices := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	complete(cmd, "log-level", choices("debug", "info", "warn", "error"))
	complete(cmd, "log-format", choices("json", "text"))
	return cmd
}

// flagsFromEnv sets the flags that were not given on the command line from their variables.
func (a *app) flagsFromEnv(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(flag *pflag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		value := a.getenv(name)
		if flag.Changed || value == "" {
			return
		}
		if err := flags.Set(flag.Name, value); err != nil {
			errs = append(errs, usageErrorf("variable %s is %q: %w", name, value, err))
		}
	})
	return errors.Join(errs...)
}

func (a *app) operator(ctx context.Context, flags operatorFlags, options kube.Options) (err error) {
	if options.Log, err = flags.logger(a.Err); err != nil {
		return err
	}
	if options.Workers < 1 || options.CreateParallel < 1 {
		return usageErrorf("--workers is %d and --create-parallel is %d: both must be 1 or more",
			options.Workers, options.CreateParallel)
	}
	if err := options.Limits.Check(); err != nil {
		return usageErrorf("%w", err)
	}
	if err := flags.addresses(options); err != nil {
		return err
	}
	if options.Selector, err = labels.Parse(flags.selector); err != nil {
		return usageErrorf("--selector %q: %w", flags.selector, err)
	}
	for _, namespace := range flags.namespaces {
		if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return usageErrorf("--namespaces: %q is no name of a namespace: %s", namespace, strings.Join(problems, "; "))
		}
	}
	options.Namespaces = flags.namespaces
	if err := flags.stops(options); err != nil {
		return err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = flags.kubeconfig
	err = backend.CheckContext(backend.Kubeconfig{
		File: flags.kubeconfig, Files: rules.Precedence, Context: flags.context,
	})
	if err != nil {
		return usageErrorf("there is no cluster to work on: %w", err)
	}
	loading := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: flags.context})
	if options.Config, err = loading.ClientConfig(); clientcmd.IsEmptyConfig(err) {
		return usageErrorf("there is no cluster to work on: this is no Pod, and there is no kubeconfig; " +
			"name one with --kubeconfig, or $KUBECONFIG")
	} else if err != nil {
		return usageErrorf("there is no cluster to work on: %w; name a kubeconfig with --kubeconfig", err)
	}
	// In a Pod that is the namespace of its service account, elsewhere that of the kubeconfig's context.
	own, _, err := loading.Namespace()
	if err != nil {
		return fmt.Errorf("find out the operator's own namespace: %w", err)
	}
	own = cmp.Or(a.getenv("POD_NAMESPACE"), own)
	options.LeaderElectionNamespace = cmp.Or(options.LeaderElectionNamespace, own)
	options.ClusterNamespace = cmp.Or(options.ClusterNamespace, own)
	if flags.stopDeployment != "" {
		options.StopDeployment = types.NamespacedName{Namespace: own, Name: flags.stopDeployment}
	}
	if flags.webhook {
		flags.webhookOptions.Namespace = own
		options.Webhook = &flags.webhookOptions
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this replica: %w", err)
	}
	if a.getenv("GOGC") == "" {
		// Most of what there is to remember stays, so that to collect garbage a little earlier costs little.
		debug.SetGCPercent(gcPercent)
	}
	options.Identity = host + "_" + rand.Text()
	options.TriggerTypes, options.Version = all.Types(), a.version()

	// The libraries log to where the rest does.
	klog.SetSlogLogger(options.Log)
	ctrllog.SetLogger(logr.FromSlogHandler(options.Log.Handler()))
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	options.Log.Info("offboard operator begins", "version", options.Version, "cluster", options.Config.Host)
	if err := kube.Run(ctx, options); err != nil {
		if _, unreachable := errorAs[*url.Error](err); unreachable {
			return control.Errorf(control.Unavailable, "%w", err)
		}
		return err
	}
	options.Log.Info("offboard operator has ended")
	return nil
}

// stops checks which Deployment is to be stopped.
func (f operatorFlags) stops(options kube.Options) error {
	if f.stopDeployment == "" {
		return nil
	}
	if !options.ReleaseAll {
		return usageErrorf("--stop-deployment is %q without --release-all: nobody would work then", f.stopDeployment)
	}
	if problems := validation.IsDNS1123Subdomain(f.stopDeployment); len(problems) > 0 {
		return usageErrorf("--stop-deployment: %q is no name of a Deployment: %s", f.stopDeployment,
			strings.Join(problems, "; "))
	}
	return nil
}

// addresses checks where to listen.
func (f operatorFlags) addresses(options kube.Options) error {
	for _, address := range []struct {
		flag, value string
		optional    bool
	}{
		{"--metrics-bind-address", options.MetricsAddress, true},
		{"--health-probe-bind-address", options.HealthAddress, true},
		{"--profiling-bind-address", options.ProfilingAddress, true},
		{"--webhook-bind-address", f.webhookOptions.Address, false},
	} {
		if address.optional && address.value == "0" {
			continue
		}
		_, port, err := net.SplitHostPort(address.value)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return usageErrorf("%s is %q, must be host:port or :port, for example :8080", address.flag, address.value)
		}
	}
	return nil
}

// logger makes the logger that the flags ask for.
func (f operatorFlags) logger(out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usageErrorf("--log-level is %q, must be debug, info, warn or error", f.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	}
	return nil, usageErrorf("--log-format is %q, must be json or text", f.logFormat)
}
