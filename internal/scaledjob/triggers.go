package scaledjob

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/composite"
	"github.com/offboard-dev/offboard/internal/podenv"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// liveTriggers are the triggers of one generation of a ScaledJob, and what watches them.
type liveTriggers struct {
	generation int64
	triggers   []liveTrigger
	// rule says what they tell together.
	rule composite.Rule
	stop []func() // end what watches the triggers
	// until is when what the triggers are made from is to be read again; zero when only a change or a failure is a reason.
	until time.Time
}

// rereadAfter is how long it is waited until what could not be read again in time is tried once more.
const rereadAfter = time.Minute

// rereading is what fails when what working triggers are made from cannot be read again.
const rereading = "reading the credentials again"

// liveTrigger is one trigger with its names.
type liveTrigger struct {
	trigger.Trigger
	// label is for people: the type, and the name or else the index.
	label string
	// metric is the name under which KEDA publishes the value.
	metric string
	ref    TriggerRef
	config trigger.Config
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
	current := live != nil && live.generation == sj.Generation
	if current && !stale && !live.due() {
		return live, nil
	}
	configs, until, err := c.triggerConfigs(ctx, sj, resolving{local: c.Local(), doubted: stale, aside: c.aside})
	if err != nil && current && !stale {
		// The triggers work. That a server of secrets is down for a while should not stop them.
		c.fails(ctx, sj, r, rereading, err)
		live.until = time.Now().Add(rereadAfter)
		return live, nil
	}
	if err != nil {
		return nil, err
	}
	c.works(r, rereading)
	if current && live.madeFrom(configs) {
		live.until = until
		return live, nil // what it refers to has been read again and is the same
	}
	fresh, err := c.build(ctx, sj, configs)
	if err != nil {
		return nil, err
	}
	fresh.until = until
	c.closeTriggers(r)
	if !equality.Semantic.DeepEqual(r.measures, sj.Spec.Triggers) ||
		!equality.Semantic.DeepEqual(r.advanced, sj.Spec.Advanced) {
		// Values of other triggers say nothing about what was taken since the last measurement.
		r.decider.Interrupted()
		r.measures, r.advanced = sj.Spec.Triggers, sj.Spec.Advanced
	}
	r.items.known = false // it may be another queue that the claims are to be on
	c.watch(r, fresh)
	r.mu.Lock()
	r.live = fresh
	r.mu.Unlock()
	c.Events.Event(sj, normal, reasonScalersStarted, "Watching the triggers: "+fresh.labels())
	return fresh, nil
}

func (l *liveTriggers) labels() string {
	labels := make([]string, len(l.triggers))
	for i, t := range l.triggers {
		labels[i] = t.label
	}
	return strings.Join(labels, ", ")
}

// OpenTriggers makes the triggers of the ScaledJob for a use outside its reconciles, as if this process offered what
// local says. The caller closes each of them.
func (c *Controller) OpenTriggers(
	ctx context.Context, sj *v1alpha1.ScaledJob, local Local,
) ([]trigger.Trigger, error) {
	configs, _, err := c.triggerConfigs(ctx, sj, resolving{local: local})
	if err != nil {
		return nil, err
	}
	live, err := c.build(ctx, sj, configs)
	if err != nil {
		return nil, err
	}
	triggers := make([]trigger.Trigger, len(live.triggers))
	for i, t := range live.triggers {
		triggers[i] = t.Trigger
	}
	return triggers, nil
}

// build makes the triggers that the ScaledJob describes from what their parameters are; none when one of them cannot be
// made.
func (c *Controller) build(
	ctx context.Context, sj *v1alpha1.ScaledJob, configs []trigger.Config,
) (*liveTriggers, error) {
	live := &liveTriggers{generation: sj.Generation}
	var err error
	if live.rule, err = composite.RuleOf(sj); err != nil {
		return nil, fmt.Errorf("spec.%w", err)
	}
	for i, config := range configs {
		t := &sj.Spec.Triggers[i]
		kind, _ := trigger.Find(c.TriggerTypes, t.Type)
		built, err := kind.New(ctx, config)
		if err != nil {
			live.close()
			return nil, triggerError(sj, i, err)
		}
		metric := kind.ExternalMetricName(i, config)
		live.triggers = append(live.triggers, liveTrigger{
			Trigger: built,
			label:   t.Type + " " + nameOf(sj, i),
			metric:  metric,
			ref:     TriggerRef{ScaledJob: sj.Key(), Type: t.Type, Name: t.Name, Index: i, Metric: metric},
			config:  config,
		})
	}
	return live, nil
}

// nameOf names a trigger to people.
func nameOf(sj *v1alpha1.ScaledJob, index int) string {
	return cmp.Or(sj.Spec.Triggers[index].Name, "#"+strconv.Itoa(index))
}

func triggerError(sj *v1alpha1.ScaledJob, index int, err error) error {
	return fmt.Errorf("trigger %s (%s): %w", nameOf(sj, index), sj.Spec.Triggers[index].Type, err)
}

// madeFrom tells whether the triggers were made from the same parameters.
func (l *liveTriggers) madeFrom(configs []trigger.Config) bool {
	return slices.EqualFunc(l.triggers, configs, func(t liveTrigger, config trigger.Config) bool {
		config.Log = t.config.Log // a logger says where to, not what
		return reflect.DeepEqual(t.config, config)
	})
}

// due tells that what the triggers are made from is to be read again.
func (l *liveTriggers) due() bool { return !l.until.IsZero() && !time.Now().Before(l.until) }

// left returns for how long nothing needs to be read again, given how long nothing else is to be done.
func (l *liveTriggers) left(again time.Duration) time.Duration {
	const least = time.Second
	if l.until.IsZero() {
		return again
	}
	return min(again, max(time.Until(l.until), least))
}

// resolving is how what triggers refer to is resolved.
type resolving struct {
	local Local
	// doubted tells that the triggers do not work, or that what they refer to has changed.
	doubted bool
	// aside runs what waits for a server; nil outside a reconcile.
	aside func(func())
}

// triggerConfigs resolves everything that the parameters of the ScaledJob's triggers refer to. It returns as well when
// that is to be done again; zero when it need not be.
func (c *Controller) triggerConfigs(
	ctx context.Context, sj *v1alpha1.ScaledJob, how resolving,
) (configs []trigger.Config, until time.Time, err error) {
	configs = make([]trigger.Config, len(sj.Spec.Triggers))
	for i := range sj.Spec.Triggers {
		t := &sj.Spec.Triggers[i]
		var due time.Time
		if _, found := trigger.Find(c.TriggerTypes, t.Type); !found {
			err = trigger.UnknownType(c.TriggerTypes, t.Type)
		} else if t.MetricType != "" {
			err = fmt.Errorf("metricType %q cannot be set in a ScaledJob; remove it", t.MetricType)
		} else {
			configs[i], due, err = c.triggerConfig(ctx, sj, t, how)
		}
		if err != nil {
			return nil, time.Time{}, triggerError(sj, i, err)
		}
		if !due.IsZero() && (until.IsZero() || due.Before(until)) {
			until = due
		}
	}
	return configs, until, nil
}

// triggerConfig resolves everything that the trigger's parameters refer to, and says until when that holds.
func (c *Controller) triggerConfig(
	ctx context.Context, sj *v1alpha1.ScaledJob, t *v1alpha1.ScaleTriggers, how resolving,
) (config trigger.Config, until time.Time, err error) {
	env := func(container string) (map[string]string, error) {
		template := &sj.Spec.JobTargetRef.Template
		e, err := podenv.ForTemplate(ctx, c.Objects, sj.Namespace, template, container, how.local.Env)
		if err != nil {
			return nil, err
		}
		return e.Map(), nil
	}
	config = trigger.Config{
		Namespace:       sj.Namespace,
		Name:            sj.Name,
		Metadata:        t.Metadata,
		PollingInterval: sj.Polling(),
		Claims:          sj.ClaimsItems(),
		Objects:         data{c.Objects, sj.Namespace},
		Endpoints:       c.Endpoints,
		Pods:            c.Pods,
		EmbeddedRedis:   how.local.Redis,
		Log:             c.Log.With("scaledjob", sj.Namespace+"/"+sj.Name, "trigger", t.Type),
	}
	if config.Env, err = env(sj.Spec.EnvSourceContainerName); err != nil {
		return config, until, err
	}
	if t.AuthenticationRef == nil {
		return config, until, nil
	}
	params, err := c.auth.Resolve(ctx, auth.Request{
		Ref: t.AuthenticationRef, Objects: c.Objects, Env: env, Files: c.AuthFiles, Doubted: how.doubted, Aside: how.aside,
		Namespaces: auth.Namespaces{Own: sj.Namespace, Cluster: cmp.Or(c.ClusterNamespace, sj.Namespace)},
	})
	config.Auth = params.Values
	return config, params.Until, err
}

// watch makes each trigger that can tell of changes ask for a reconcile.
func (c *Controller) watch(r *record, live *liveTriggers) {
	changed := func() {
		r.notice()
		c.queue.Add(r.key)
	}
	for _, t := range live.triggers {
		if watcher, ok := t.Trigger.(trigger.Watcher); ok {
			live.stop = append(live.stop, watcher.Watch(changed))
		}
	}
}

// doubt makes the next reconcile read again what the triggers' parameters refer to.
func (r *record) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale = true
}

// stopTriggers closes the ScaledJob's triggers, since it is not to be scaled any more, and tells so.
func (c *Controller) stopTriggers(r *record) {
	if c.closeTriggers(r) {
		c.Events.Event(r.object(), normal, reasonScalersStopped, "The triggers are no longer watched")
	}
}

// closeTriggers ends the ScaledJob's triggers and returns whether there were any.
func (c *Controller) closeTriggers(r *record) bool {
	r.mu.Lock()
	live := r.live
	r.live = nil
	r.mu.Unlock()
	if live != nil {
		live.close()
	}
	return live != nil
}

func (l *liveTriggers) close() {
	for _, stop := range l.stop {
		stop()
	}
	for _, t := range l.triggers {
		t.Close()
	}
}
