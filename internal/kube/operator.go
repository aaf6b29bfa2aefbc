// Package kube is the adapter to a Kubernetes cluster: the controller's ports over the API server, and the operator
// that puts them together with the replicas' sharing of work, metrics, health checks and the admission webhook.
//
// It decides nothing about Jobs; that is done by package scaledjob, as on one machine.
package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/metrics"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger"
)

const (
	// unreadInterval is how often it is looked whether everything has been read, and unreadWarning when it is told what
	// has not.
	unreadInterval = 20 * time.Millisecond
	unreadWarning  = 10 * time.Second
)

// Options are what the operator works with.
type Options struct {
	// Config says which cluster, and as whom.
	Config *rest.Config
	// Namespaces are those whose ScaledJobs are looked after; none means all.
	Namespaces []string
	// Selector takes the ScaledJobs that are looked after by their labels; nil means all.
	Selector labels.Selector
	// MetricsAddress, HealthAddress and ProfilingAddress are where to listen (host:port); "0" means nowhere.
	MetricsAddress, HealthAddress, ProfilingAddress string
	// LeaderElection shares the ScaledJobs out over all replicas; without it, this process is the only one. The replicas'
	// Leases are in LeaderElectionNamespace. Identity is this replica's name there; no two processes have the same.
	LeaderElection          bool
	LeaderElectionNamespace string
	Identity                string
	// Webhook describes the admission webhook; nil means none.
	Webhook *Webhook
	// InstallCRDs creates or updates the CustomResourceDefinitions first.
	InstallCRDs bool
	// TriggerTypes are the types that ScaledJobs may use.
	TriggerTypes []trigger.Type
	// ClusterNamespace is where the Secrets of ClusterTriggerAuthentications are; empty means the ScaledJob's own.
	ClusterNamespace string
	// AuthFiles is the folder from which ClusterTriggerAuthentications may take files; empty means that none may.
	AuthFiles string
	// ItemImage is an image whose entry point is this program. It puts items together that are too large for one Secret;
	// empty means that there are none so large.
	ItemImage string
	// Workers and CreateParallel are as in scaledjob.Config.
	Workers, CreateParallel int
	// Limits are as in scaledjob.Config.
	Limits limits.Limits
	// ReleaseAll makes Run release what has been claimed for all ScaledJobs, take all finalizers off, and return; see
	// scaledjob.Config. It returns an error when it ends before. No webhook is served then, and that of Webhook is made to
	// let everything pass, since nobody may be left who answers.
	ReleaseAll bool
	// StopDeployment is what is scaled to 0 before, so that its replicas end; no name means nothing.
	StopDeployment types.NamespacedName
	// Version is this program's.
	Version string
	Log     *slog.Logger
}

// operator is one running operator.
type operator struct {
	Options
	recorder *metrics.Recorder
	client   client.Client // reads from the server itself
	cache    cache.Cache
	store    *store
	objects  *objects
	jobs     *jobs
	events   *events
	members  *members // nil when this replica is the only one
	pods     *podCounter
	rations  *rations // nil unless several replicas keep limits together
	// may returns an error unless this process may write about the object now.
	may     func(types.NamespacedName) error
	watched []watchedKind
	// parts run beside the work, from before it begins until after it has ended.
	parts []func(context.Context) error
	ready map[string]healthz.Checker
	// controller is that of the term under way; nil while there is none.
	controller atomic.Pointer[scaledjob.Controller]
	finalizers *finalizers
	abandoned  *abandoned
	// end ends the work, and released tells that it has ended because everything is released.
	end      context.CancelFunc
	released bool
}

// watchedKind is a kind of objects that is watched.
type watchedKind struct {
	kind string
	// synced tells whether all that there was at the beginning has been taken in.
	synced toolscache.InformerSynced
}

// Run works until ctx ends, or until something is wrong that trying again does not help.
func Run(ctx context.Context, options Options) error {
	config := rest.CopyConfig(options.Config)
	// The server's own API Priority and Fairness says when it is too much; a bound here would be a guess.
	config.QPS = -1
	if config.UserAgent == "" {
		config.UserAgent = component + "/" + options.Version
		if options.Identity != "" {
			// The server's audit log then tells which replica has written what.
			config.UserAgent += " (" + options.Identity + ")"
		}
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("register the API types: %w", err)
	}
	if options.InstallCRDs {
		if err := installCRDs(ctx, config, options.Log); err != nil {
			return err
		}
	}
	o := &operator{Options: options, recorder: metrics.New(options.Version), store: newStore(), may: always,
		ready: map[string]healthz.Checker{}}
	o.recorder.SetLimits(options.Limits)
	mapper, err := newMapper(config)
	if err != nil {
		return fmt.Errorf("connect to the cluster %s: %w", config.Host, err)
	}
	if err := knowsScaledJobs(mapper); err != nil {
		if options.ReleaseAll && errors.As(err, new(noScaledJobs)) {
			return o.releaseJobs(ctx, config, scheme, mapper)
		}
		return err
	}
	if err := o.build(config, scheme, mapper); err != nil {
		return err
	}
	defer o.events.close()
	if err := o.watch(ctx, o.cache); err != nil {
		return err
	}
	if err := o.serveAll(); err != nil {
		return err
	}
	return o.run(ctx)
}

func always(types.NamespacedName) error { return nil }

func nothing(types.NamespacedName) bool { return false }

// build makes what the work is done with.
func (o *operator) build(config *rest.Config, scheme *runtime.Scheme, mapper meta.RESTMapper) (err error) {
	connecting := func(err error) error { return fmt.Errorf("connect to the cluster %s: %w", config.Host, err) }
	if o.client, err = client.New(config, client.Options{Scheme: scheme, Mapper: mapper}); err != nil {
		return connecting(err)
	}
	cached := caches(o.Namespaces, o.Selector)
	cached.Scheme, cached.Mapper = scheme, mapper
	if o.LeaderElection {
		cached.ByObject[&coordinationv1.Lease{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{o.LeaderElectionNamespace: {}}, Label: ofReplicas(),
		}
	}
	if o.sharesLimits() {
		cached.ByObject[&corev1.ConfigMap{}] = cache.ByObject{
			Namespaces: map[string]cache.Config{o.LeaderElectionNamespace: {}},
			Field:      fields.OneTermEqualSelector(metav1.ObjectNameField, rationsName),
		}
	}
	if o.cache, err = cache.New(config, cached); err != nil {
		return connecting(err)
	}
	o.parts = append(o.parts, o.cache.Start)
	binary := rest.CopyConfig(config)
	binary.ContentType = runtime.ContentTypeProtobuf // which costs less than JSON
	typed, err := typedcorev1.NewForConfig(binary)
	if err != nil {
		return connecting(err)
	}
	writer := o.client
	if o.LeaderElection {
		o.members = newMembers(o)
		o.may = o.members.may
		// What may says is checked once more as a request is sent. A Lease is written without: see ownLease.
		options := client.Options{Scheme: scheme, Mapper: mapper}
		if writer, err = client.New(fenced(config, o.members.lease.left), options); err != nil {
			return connecting(err)
		}
	}
	o.events = newEvents(scheme, typed, o.may, o.Log)
	o.jobs = &jobs{store: o.store, writer: writer, reader: o.client, pods: typed, may: o.may,
		itemImage: o.ItemImage}
	o.pods = newPodCounter(typed, o.Log)
	o.finalizers = newFinalizers(writer, o.may, o.Log)
	o.finalizers.releaseAll = o.ReleaseAll
	o.objects = &objects{
		cached: o.cache, reader: o.client, writer: writer, may: o.may,
		scaledJobs: map[types.NamespacedName]*v1alpha1.ScaledJob{},
	}
	if o.sharesLimits() {
		o.rations = newRations(o)
		o.jobs.creator = o.rations.creator
	}
	o.abandoned = newAbandoned(o.jobs, o.objects, o.Log)
	o.abandoned.releaseAll, o.abandoned.selector = o.ReleaseAll, o.Selector
	return nil
}

// run works until ctx ends or a part fails. The parts end last: while anything is done, the servers answer and the
// caches are current.
func (o *operator) run(ctx context.Context) error {
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var running sync.WaitGroup
	for _, part := range o.parts {
		running.Go(func() {
			if err := part(beside); err != nil {
				stop(fmt.Errorf("run the operator: %w", err))
			}
		})
	}
	err := o.work(working)
	end()
	running.Wait()
	if ctx.Err() == nil {
		err = cmp.Or(err, context.Cause(working))
	}
	if o.ReleaseAll && !o.released {
		err = cmp.Or(err, errUnreleased)
	}
	return err
}

// work works until ctx ends.
func (o *operator) work(ctx context.Context) error {
	if !o.waitForAll(ctx) {
		return nil
	}
	ctx, o.end = context.WithCancel(ctx)
	defer o.end()
	if o.ReleaseAll {
		if err := o.prepareRelease(ctx); err != nil {
			return err
		}
	}
	if o.members != nil {
		o.members.run(ctx, o.serve)
	} else if o.catchUp(ctx) {
		o.serve(ctx, func(context.Context) {
			o.recorder.SetLeader(true)
			o.recorder.SetReplicas(1)
			o.taken(ctx, nothing)
		})
	}
	return nil
}

// waitForAll waits until everything that is watched has been read once; false when ctx has ended before.
func (o *operator) waitForAll(ctx context.Context) bool {
	warn, look := time.NewTimer(unreadWarning), time.NewTicker(unreadInterval)
	defer warn.Stop()
	defer look.Stop()
	for {
		err := o.unread()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-warn.C:
			o.Log.Warn("cannot begin yet", "error", err)
		case <-look.C:
		}
	}
}

// unread returns an error that names the kinds that have not been read yet.
func (o *operator) unread() error {
	var kinds []string
	for _, w := range o.watched {
		if !w.synced() {
			kinds = append(kinds, w.kind)
		}
	}
	if len(kinds) > 0 {
		return fmt.Errorf("the cluster's objects have not been read yet, as list and watch of these kinds do not work: %s",
			strings.Join(kinds, ", "))
	}
	return nil
}

func installCRDs(ctx context.Context, config *rest.Config, log *slog.Logger) error {
	foreign, err := crds.Install(ctx, config)
	if err != nil {
		return err
	}
	for _, definition := range foreign {
		log.Info(definition.String())
	}
	return nil
}

// newMapper returns what knows the kinds of the cluster, asking for them when it must.
func newMapper(config *rest.Config) (meta.RESTMapper, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return apiutil.NewDynamicRESTMapper(config, httpClient)
}

// noScaledJobs is the error when the cluster does not know a kind.
type noScaledJobs struct{ kind string }

func (e noScaledJobs) Error() string {
	return fmt.Sprintf("the cluster does not know the kind %s of %s: start the operator with --install-crds, or "+
		"install the definitions with `offboard crds | kubectl apply --server-side -f -`", e.kind, v1alpha1.GroupVersion)
}

// knowsScaledJobs returns an error unless the cluster has the CustomResourceDefinitions.
func knowsScaledJobs(mapper meta.RESTMapper) error {
	for _, kind := range []string{
		v1alpha1.KindScaledJob, v1alpha1.KindTriggerAuthentication, v1alpha1.KindClusterTriggerAuthentication,
	} {
		gk := v1alpha1.GroupVersion.WithKind(kind).GroupKind()
		if _, err := mapper.RESTMapping(gk, v1alpha1.GroupVersion.Version); meta.IsNoMatchError(err) {
			return noScaledJobs{kind}
		} else if err != nil {
			return fmt.Errorf("ask the cluster for the kind %s: %w", kind, err)
		}
	}
	return nil
}

// serve works until ctx ends. Beside it runs share, which says what the work is about.
func (o *operator) serve(ctx context.Context, share func(context.Context)) {
	config := scaledjob.Config{
		Jobs: o.jobs, Objects: o.objects, Events: o.events, Metrics: o.recorder, TriggerTypes: o.TriggerTypes, Pods: o.pods,
		ClusterNamespace: o.ClusterNamespace, AuthFiles: o.AuthFiles, Version: o.Version, Log: o.Log, Mine: o.holds,
		Endpoints: endpoints{o.objects.reader}, Workers: o.Workers, CreateParallel: o.CreateParallel, Limits: o.Limits,
		ReleaseAll: o.ReleaseAll,
	}
	if o.rations != nil {
		o.rations.begin()
		config.CreatedHere, config.Short = o.rations.createdHere, o.rations.poke
	}
	controller := scaledjob.New(config)
	o.controller.Store(controller)
	defer o.controller.Store(nil)
	defer o.recorder.SetLeader(false)
	defer o.recorder.Alive(0)
	var working sync.WaitGroup
	working.Go(func() { o.finalizers.run(ctx) })
	working.Go(func() { o.abandoned.run(ctx) })
	working.Go(func() { controller.Run(ctx) })
	working.Go(func() { share(ctx) })
	if o.rations != nil {
		working.Go(func() { o.rations.run(ctx, controller) })
	}
	if o.ReleaseAll {
		working.Go(func() { o.untilReleased(ctx) })
	}
	working.Wait()
	if o.rations != nil {
		o.rations.leave(context.WithoutCancel(ctx))
	}
}

// sharesLimits tells whether several replicas keep limits together.
func (o *operator) sharesLimits() bool { return o.LeaderElection && o.Limits.Any() && !o.ReleaseAll }

// holds tells whether this replica looks after the object.
func (o *operator) holds(key types.NamespacedName) bool {
	return o.members == nil || o.members.holds(key)
}

// letGo ends what is done about objects that this replica does not look after any more, and returns when nothing of
// it is under way.
func (o *operator) letGo() {
	o.finalizers.letGo()
	o.abandoned.letGo()
	if lost := o.controller.Load().LetGo(); lost > 0 {
		o.Log.Info("this replica has let ScaledJobs go", "scaledjobs", lost)
	}
}

// taken begins to work on what is in the share now and was not before.
func (o *operator) taken(ctx context.Context, before func(types.NamespacedName) bool) {
	isNew := func(sj *v1alpha1.ScaledJob) bool { return o.holds(sj.Key()) && !before(sj.Key()) }
	gained := o.objects.all(isNew)
	o.controller.Load().Adopt(ctx, gained)
	o.finalizers.resume()
	o.abandoned.resume()
	if len(gained) > 0 {
		o.Log.Info("this replica has taken ScaledJobs", "scaledjobs", len(gained))
	}
}

// catchUp reads the Jobs that exist, until that succeeds; false when ctx has ended before.
func (o *operator) catchUp(ctx context.Context) bool {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := o.jobs.catchUp(ctx, o.Namespaces)
		if err == nil {
			return true
		}
		if ctx.Err() == nil {
			o.Log.Warn("cannot begin yet", "error", err)
		}
		if !wait(ctx, pause) {
			return false
		}
	}
}

// changed tells the controller, if there is one, that a ScaledJob or something of it has changed.
func (o *operator) changed(key types.NamespacedName) {
	if controller := o.controller.Load(); controller != nil {
		controller.Changed(key)
	}
}

// refresh tells the controller, if there is one, that an authentication has changed; namespace is empty for one of the
// whole cluster.
func (o *operator) refresh(namespace, kind, name string) {
	controller := o.controller.Load()
	if controller == nil {
		return
	}
	keys := o.objects.all(func(sj *v1alpha1.ScaledJob) bool {
		return (namespace == "" || namespace == sj.Namespace) &&
			slices.ContainsFunc(sj.Spec.Triggers, func(trigger v1alpha1.ScaleTriggers) bool {
				ref := trigger.AuthenticationRef
				return ref != nil && ref.Name == name &&
					cmp.Or(ref.Kind, v1alpha1.KindTriggerAuthentication) == kind
			})
	})
	for _, key := range keys {
		controller.Refresh(key)
	}
}
