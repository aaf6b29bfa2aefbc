// Package local makes one machine enough: manifest files in the place of an API server, processes in the place of
// containers, a Redis of its own when none is configured, and the same controller as on a cluster. It wires the parts,
// which are in the packages below it.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/local/jobs"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/local/redisserver"
	"github.com/offboard-dev/offboard/internal/local/support"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/podenv"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// Options say what an Engine works on.
type Options struct {
	// DataDir is the folder for all state; it is made when it is missing.
	DataDir string
	// Paths are the manifest files and folders.
	Paths []string
	// Grace is how long Jobs that run may go on after the Engine was told to stop.
	Grace time.Duration
	// MemoryRedis makes the Redis that the Engine serves live in memory even where a server program is installed.
	MemoryRedis bool
	// AuthFiles is the folder from which ClusterTriggerAuthentications may take files; empty means that none may.
	AuthFiles string
	// Limits are as in scaledjob.Config.
	Limits  limits.Limits
	Version string
	Log     *slog.Logger
}

// Engine runs the Jobs of ScaledJobs on this machine.
type Engine struct {
	opts       Options
	lock       *os.File
	types      []trigger.Type
	store      *objects.Store
	events     events
	keeper     *process.Keeper
	jobs       *jobs.Controller
	pods       *podCounter
	runner     *pods.Runner
	controller *scaledjob.Controller
	listener   net.Listener

	mu    sync.Mutex
	redis *redisserver.Server
}

// ErrManifests tells that there are problems with the manifests that keep the Engine from starting.
var ErrManifests = errors.New("the manifests have errors")

// Open takes the data folder, reads the manifests, ends what a previous run has left running and takes its Jobs up
// again. Problems of the manifests are returned with ErrManifests, and when there are only warnings without it.
// The caller ends the Engine with Run.
func Open(ctx context.Context, opts Options) (_ *Engine, problems manifest.Problems, err error) {
	e := &Engine{opts: opts, types: all.Types()}
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the data folder: %w", err)
	}
	if e.lock, err = lockDir(opts.DataDir); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	e.store, problems, err = objects.Open(objects.Options{
		Paths: opts.Paths, Dir: e.dir("scaledjobs"), Validate: e.validate, Log: opts.Log,
	})
	if err != nil {
		return nil, problems, err
	}
	if problems.HasErrors() {
		return nil, problems, ErrManifests
	}
	e.events.exists = func(key types.NamespacedName) bool {
		_, err := e.store.ScaledJob(context.Background(), key)
		return err == nil
	}
	if err := process.BecomeSubreaper(); err != nil {
		opts.Log.Warn("Processes that leave their container's group may survive it", "error", err)
	}
	// Before the Jobs look how their containers have ended.
	if e.keeper, err = process.OpenKeeper(ctx, e.dir("keeper")); err != nil {
		return nil, problems, err
	}
	e.jobs, err = jobs.Open(ctx, jobs.Config{
		Dir: opts.DataDir, KillLeftovers: process.KillLeftovers, Clock: clock.RealClock{}, Log: opts.Log,
		OnChange: func(key types.NamespacedName) {
			e.controller.Changed(key)
			e.pods.changed(key.Namespace)
		},
		OnRemove: e.count,
	})
	if err != nil {
		return nil, problems, err
	}
	if err := e.deleteUnowned(ctx); err != nil {
		return nil, problems, err
	}
	e.pods = newPodCounter(e.jobs.Active)
	e.controller = scaledjob.New(scaledjob.Config{
		Jobs: ownedJobs{e.jobs, e.store}, Objects: e.store, Events: &e.events, TriggerTypes: e.types, Local: e.local,
		Pods: e.pods, AuthFiles: opts.AuthFiles, Version: opts.Version, Log: opts.Log, Limits: opts.Limits,
	})
	for _, sj := range e.store.List() {
		if err := e.serveRedisFor(ctx, sj); err != nil {
			return nil, problems, err
		}
	}
	commands := commands{
		objects: e.store, env: func() []podenv.Variable { return e.local().Env },
		annotations: e.jobAnnotations, item: e.jobs.ItemPath, inherited: inherited(), log: opts.Log,
	}
	e.runner, err = pods.New(pods.Config{
		Command: commands.of, LogPath: e.jobs.LogPath, ReportPath: e.jobs.ReportPath, RecordStart: e.jobs.RecordStart,
		Keeper: e.keeper, ExitPath: e.jobs.ExitPath, Log: opts.Log,
	})
	if err != nil {
		return nil, problems, err
	}
	e.listener, err = control.Listen(opts.DataDir)
	return e, problems, err
}

func (e *Engine) dir(name string) string { return filepath.Join(e.opts.DataDir, name) }

// validate returns what is wrong with manifests for use on this machine.
func (e *Engine) validate(set *manifest.Set) manifest.Problems {
	return Validate(set, e.types)
}

// Validate returns what is wrong with manifests for use on one machine: what is wrong anywhere, and what processes
// cannot honour.
func Validate(set *manifest.Set, types []trigger.Type) manifest.Problems {
	problems := manifest.Validate(set, types)
	for document, a := range manifest.All[*v1alpha1.TriggerAuthentication](set) {
		problems = append(problems, serviceAccounts(document, &a.Spec)...)
	}
	for document, a := range manifest.All[*v1alpha1.ClusterTriggerAuthentication](set) {
		problems = append(problems, serviceAccounts(document, &a.Spec)...)
	}
	for document, sj := range manifest.All[*v1alpha1.ScaledJob](set) {
		if sj.ClaimsItems() && sj.Spec.Delivery.File != "" {
			problems = append(problems, document.Problem(manifest.Warning, field.NewPath("spec", "delivery", "file"), nil,
				"on one machine the item is in a file of Offboard's own, since processes share all files: "+
					"read the path from the variable "+v1alpha1.ItemVariableFile+", which names it on a cluster, too"))
		}
		if sj.Spec.JobTargetRef == nil {
			continue
		}
		refused, ignored := support.Check(sj.Spec.JobTargetRef, field.NewPath("spec", "jobTargetRef"))
		problems = append(problems, document.FieldProblems(manifest.Error, refused)...)
		for _, notice := range ignored {
			problems = append(problems, document.Problem(manifest.Warning, notice.Path, nil, notice.Message))
		}
	}
	return set.Sort(problems)
}

// serviceAccounts refuses what needs service accounts.
func serviceAccounts(document *manifest.Document, spec *v1alpha1.TriggerAuthenticationSpec) manifest.Problems {
	var problems manifest.Problems
	for _, path := range auth.ServiceAccounts(spec) {
		at := field.NewPath("spec").Child(path.String())
		problems = append(problems, document.Problem(manifest.Error, at, nil, objects.NoServiceAccounts))
	}
	return problems
}

// serveRedisFor starts the Redis of this machine when the ScaledJob has a trigger of Redis for which no address is
// configured, and none runs yet. A ScaledJob whose triggers cannot be made for another reason is the controller's to
// tell of. It is called by one goroutine at a time.
func (e *Engine) serveRedisFor(ctx context.Context, sj *v1alpha1.ScaledJob) error {
	if e.local().Redis != "" {
		return nil
	}
	triggers, err := e.controller.OpenTriggers(ctx, sj, scaledjob.Local{})
	for _, t := range triggers {
		t.Close()
	}
	if !errors.Is(err, trigger.ErrNoServer) {
		return nil
	}
	// Loading a long queue takes a while, during which everything else goes on.
	started, err := redisserver.Start(ctx, redisserver.Options{
		Dir: e.dir("redis"), Log: e.opts.Log, InMemory: e.opts.MemoryRedis,
	})
	if err != nil {
		return fmt.Errorf("start a Redis, since ScaledJob %s/%s names none: %w", sj.Namespace, sj.Name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.redis = started
	return nil
}

// local is what this process offers to triggers and containers.
func (e *Engine) local() scaledjob.Local {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.redis == nil {
		return scaledjob.Local{}
	}
	host, port, err := net.SplitHostPort(e.redis.Addr())
	if err != nil {
		return scaledjob.Local{}
	}
	return scaledjob.Local{
		Redis: e.redis.Addr(),
		Env:   []podenv.Variable{{Name: "REDIS_HOST", Value: host}, {Name: "REDIS_PORT", Value: port}},
	}
}

func (e *Engine) jobAnnotations(namespace, name string) map[string]string {
	job, err := e.jobs.Get(namespace, name)
	if err != nil {
		return nil
	}
	return job.Annotations
}

// count adds a Job that leaves the history to the totals of its ScaledJob.
func (e *Engine) count(job *batchv1.Job) {
	var totals objects.Totals
	switch how, _ := scaledjob.Finished(job); how {
	case batchv1.JobComplete:
		totals.Succeeded = 1
	case batchv1.JobFailed:
		totals.Failed = 1
	default:
		return
	}
	for _, owner := range job.OwnerReferences {
		key := scaledJobOf(job)
		if err := e.store.Count(key, owner.UID, totals); err != nil {
			e.opts.Log.Error("The totals of a ScaledJob miss a Job", "scaledjob", key.String(), "job", job.Name, "error", err)
		}
	}
}

// Run works until ctx ends. Then no more Jobs are started; those that run may end for as long as Options.Grace and
// until hurry ends, and are then stopped. It returns when nothing of the Engine runs any more.
func (e *Engine) Run(ctx, hurry context.Context) error {
	serving, stopServing := context.WithCancel(context.Background())
	defer stopServing()
	var answering, working sync.WaitGroup
	var serveErr, watchErr error
	answering.Go(func() { serveErr = e.serve(serving) })
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	e.jobs.Start(e.runner)
	var keys []types.NamespacedName
	for _, sj := range e.store.List() {
		keys = append(keys, sj.Key())
	}
	e.controller.Adopt(ctx, keys)
	working.Go(func() { e.controller.Run(ctx) })
	working.Go(func() {
		if watchErr = e.store.Watch(ctx, func(change objects.Change) { e.changed(ctx, change) }); watchErr != nil {
			stop()
		}
	})
	working.Wait()

	grace, cancel := context.WithTimeout(hurry, e.opts.Grace)
	defer cancel()
	drained := make(chan struct{})
	answering.Go(func() {
		select {
		case <-drained:
		case <-grace.Done():
			if active := e.Active(); len(active) > 0 {
				e.opts.Log.Warn("Jobs are ended before they are done; the next `offboard up` takes them up again",
					"jobs", strings.Join(active, ", "))
			}
		}
	})
	drainErr := e.jobs.Drain(grace)
	close(drained)
	stopServing()
	answering.Wait()
	return errors.Join(watchErr, serveErr, drainErr, e.close())
}

// changed brings what a reload of the manifests has led to to the controller.
func (e *Engine) changed(ctx context.Context, change objects.Change) {
	for _, sj := range change.Removed {
		key := sj.Key()
		e.opts.Log.Info("ScaledJob is gone; its Jobs are ended", "scaledjob", key.String())
		if err := e.jobs.DeleteOwned(context.WithoutCancel(ctx), sj.UID); err != nil {
			e.opts.Log.Error("Jobs of a ScaledJob that is gone are not deleted", "scaledjob", key.String(), "error", err)
		}
		e.events.forget(key)
		e.controller.Changed(key)
	}
	touched := change.Changed
	if change.References {
		touched = touched[:0:0]
		for _, sj := range e.store.List() {
			touched = append(touched, sj.Key())
		}
	}
	for _, key := range touched {
		sj, err := e.store.ScaledJob(ctx, key)
		if err != nil {
			continue // gone again
		}
		if sj.DeletionTimestamp != nil && !change.References {
			e.opts.Log.Info("ScaledJob is removed; what it holds is released first", "scaledjob", key.String())
			e.controller.Changed(key)
			continue
		}
		if err := e.serveRedisFor(ctx, sj); err != nil && ctx.Err() == nil {
			e.opts.Log.Error("A ScaledJob has no Redis", "scaledjob", key.String(), "error", err)
		}
		if change.References {
			e.controller.Refresh(key)
		} else {
			e.opts.Log.Info("ScaledJob is in force", "scaledjob", key.String(), "generation", sj.Generation)
			e.controller.Changed(key)
		}
	}
}

// close gives back what Open took.
func (e *Engine) close() error {
	var errs []error
	if e.listener != nil {
		if err := e.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if e.keeper != nil {
		errs = append(errs, e.keeper.Close())
	}
	if e.redis != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		errs = append(errs, e.redis.Stop(ctx))
	}
	return errors.Join(append(errs, e.lock.Close())...)
}

// Active names the Jobs that have processes which run.
func (e *Engine) Active() []string {
	var names []string
	for _, job := range e.jobs.Active() {
		names = append(names, job.Name)
	}
	return names
}
