package scaledjob

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/podenv"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// liveTriggers are the triggers of one generation of a ScaledJob, and the goroutines that watch them.
type liveTriggers struct {
	generation int64
	triggers   []liveTrigger
	stop       context.CancelFunc
	watching   sync.WaitGroup
}

// liveTrigger is one trigger with its names.
type liveTrigger struct {
	trigger.Trigger
	// label is for people: the type, and the name or else the index.
	label string
	// metric is the name under which KEDA publishes the value.
	metric string
}

func (l *liveTriggers) all() []liveTrigger {
	if l == nil {
		return nil
	}
	return l.triggers
}

// triggers returns the ScaledJob's triggers, built anew when the ScaledJob or what it refers to has changed.
func (c *Controller) triggers(ctx context.Context, sj *v1alpha1.ScaledJob, r *record) (*liveTriggers, error) {
	r.mu.Lock()
	live, stale := r.live, r.stale
	r.stale = false
	r.mu.Unlock()
	if live != nil && live.generation == sj.Generation && !stale {
		return live, nil
	}
	fresh, err := c.build(ctx, sj, c.Local())
	if err != nil {
		return nil, err
	}
	c.closeTriggers(r)
	if !equality.Semantic.DeepEqual(r.measures, sj.Spec.Triggers) {
		// Values of other triggers say nothing about what was taken since the last measurement.
		r.takeup.interrupted()
		r.measures = sj.Spec.Triggers
	}
	c.watch(r, fresh)
	r.mu.Lock()
	r.live = fresh
	r.mu.Unlock()
	return fresh, nil
}

// OpenTriggers makes the triggers of the ScaledJob for a use outside its reconciles, as if this process offered what
// local says. The caller closes each of them.
func (c *Controller) OpenTriggers(
	ctx context.Context, sj *v1alpha1.ScaledJob, local Local,
) ([]trigger.Trigger, error) {
	live, err := c.build(ctx, sj, local)
	if err != nil {
		return nil, err
	}
	triggers := make([]trigger.Trigger, len(live.triggers))
	for i, t := range live.triggers {
		triggers[i] = t.Trigger
	}
	return triggers, nil
}

// build makes the triggers that the ScaledJob describes; none when one of them cannot be made.
func (c *Controller) build(
	ctx context.Context, sj *v1alpha1.ScaledJob, local Local,
) (*liveTriggers, error) {
	live := &liveTriggers{generation: sj.Generation, stop: func() {}}
	for i := range sj.Spec.Triggers {
		t := &sj.Spec.Triggers[i]
		name := t.Name
		if name == "" {
			name = "#" + strconv.Itoa(i)
		}
		built, metric, err := c.buildOne(ctx, sj, i, local)
		if err != nil {
			live.close()
			return nil, fmt.Errorf("trigger %s (%s): %w", name, t.Type, err)
		}
		live.triggers = append(live.triggers, liveTrigger{
			Trigger: built,
			label:   t.Type + " " + name,
			metric:  metric,
		})
	}
	return live, nil
}

func (c *Controller) buildOne(
	ctx context.Context, sj *v1alpha1.ScaledJob, index int, local Local,
) (built trigger.Trigger, metric string, err error) {
	t := &sj.Spec.Triggers[index]
	kind, found := trigger.Find(c.TriggerTypes, t.Type)
	if !found {
		return nil, "", unknownType(c.TriggerTypes)
	}
	if t.MetricType != "" {
		return nil, "", fmt.Errorf("metricType %q cannot be set in a ScaledJob; remove it", t.MetricType)
	}
	config, err := c.triggerConfig(ctx, sj, t, local)
	if err != nil {
		return nil, "", err
	}
	built, err = kind.New(ctx, config)
	return built, kind.ExternalMetricName(index, config), err
}

func unknownType(known []trigger.Type) error {
	names := make([]string, len(known))
	for i, t := range known {
		names[i] = t.Name
	}
	return fmt.Errorf("unknown type; known are %s", strings.Join(names, ", "))
}

// triggerConfig resolves everything that the trigger's parameters refer to.
func (c *Controller) triggerConfig(
	ctx context.Context, sj *v1alpha1.ScaledJob, t *v1alpha1.ScaleTriggers, local Local,
) (config trigger.Config, err error) {
	env := func(container string) (map[string]string, error) {
		template := &sj.Spec.JobTargetRef.Template
		e, err := podenv.ForTemplate(ctx, c.Objects, sj.Namespace, template, container, local.Env)
		if err != nil {
			return nil, err
		}
		return e.Map(), nil
	}
	config = trigger.Config{
		Metadata:        t.Metadata,
		PollingInterval: sj.Polling(),
		EmbeddedRedis:   local.Redis,
		Log:             c.Log.With("scaledjob", sj.Namespace+"/"+sj.Name, "trigger", t.Type),
	}
	if config.Env, err = env(sj.Spec.EnvSourceContainerName); err != nil {
		return config, err
	}
	if t.AuthenticationRef != nil {
		namespaces := auth.Namespaces{Own: sj.Namespace, Cluster: cmp.Or(c.ClusterNamespace, sj.Namespace)}
		config.Auth, err = auth.Resolve(ctx, c.Objects, namespaces, t.AuthenticationRef, env)
	}
	return config, err
}

// watch makes each trigger that can tell of changes ask for a reconcile.
func (c *Controller) watch(r *record, live *liveTriggers) {
	ctx, stop := context.WithCancel(context.Background())
	live.stop = stop
	for _, t := range live.triggers {
		if watcher, ok := t.Trigger.(trigger.Watcher); ok {
			live.watching.Go(func() { watcher.Watch(ctx, func() { c.Changed(r.key) }) })
		}
	}
}

// closeTriggers ends the ScaledJob's triggers and waits for their goroutines.
func (c *Controller) closeTriggers(r *record) {
	r.mu.Lock()
	live := r.live
	r.live = nil
	r.mu.Unlock()
	if live != nil {
		live.close()
	}
}

func (l *liveTriggers) close() {
	l.stop()
	l.watching.Wait()
	for _, t := range l.triggers {
		t.Close()
	}
}
