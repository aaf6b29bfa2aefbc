package trigger

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// Type describes a kind of trigger: its name, its parameters, and how one is made.
type Type struct {
	// Name is the type as manifests write it, for example redis.
	Name string
	// Doc is one sentence for `offboard explain` and the reference documentation.
	Doc string
	// Claims tells that the type can hand out items: its triggers implement Claimer, which delivery by claim needs.
	Claims bool
	// Watches tells that the type's triggers tell of changes: they implement Watcher.
	Watches bool
	// Params declares every parameter.
	Params []Param
	// OtherKeys tells that metadata may hold keys which no parameter has, because the source itself gives them a meaning,
	// as an external scaler does. None of them is a misspelling; Build finds them in its Config.
	OtherKeys bool
	// Example is a use of the type from which the documentation's manifest is made.
	Example Example
	// Build makes a trigger from decoded parameters. It must not block on the network.
	Build func(ctx context.Context, cfg Config, values Values) (Trigger, error)
	// MetricName returns the name under which KEDA publishes the trigger's value, without prefix and normalization.
	MetricName func(values Values) string
	// InNamespace tells that the ScaledJob's namespace follows that name, after a dash.
	InNamespace bool
	// Threshold returns what measurements are compared with. It needs no parameter but what metadata gives.
	Threshold func(values Values) Threshold
	// Check looks at the parameters as a whole and returns what contradicts; nil when nothing does. In a static check
	// values.Known tells what can be judged. A nil Check finds nothing.
	Check func(values Values) []ParamError
	// CheckClaims is like Check and looks for what delivery by claim needs besides.
	CheckClaims func(values Values) []ParamError
}

// Example holds the parameters of a trigger in a manifest that is valid as it stands.
type Example struct {
	// Metadata is the trigger's metadata.
	Metadata map[string]string
	// Auth holds what a TriggerAuthentication gives; empty when the example needs none. Whatever is secret belongs here.
	Auth map[string]string
}

// Threshold is what the measurements of a trigger are compared with.
type Threshold struct {
	// Target is how much work one Job takes; above zero.
	Target float64
	// Activation is the value above which the trigger is active.
	Activation float64
}

// Find returns the type of that name.
func Find(types []Type, name string) (Type, bool) {
	for _, t := range types {
		if t.Name == name {
			return t, true
		}
	}
	return Type{}, false
}

// New decodes the parameters and makes a trigger. It does not wait for the network. Metadata keys that the type does
// not have are ignored, and so is what is merely doubtful: Validate reports both. The error joins everything that is
// wrong, each a ParamError where a parameter is to blame.
func (t Type) New(ctx context.Context, cfg Config) (Trigger, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	values, findings := decoder{metadata: cfg.Metadata, env: cfg.Env, auth: cfg.Auth}.decode(t.Params)
	// A check of the whole means little while single values are wrong.
	if len(findings) == 0 && t.Check != nil {
		findings = t.Check(values)
	}
	if t.CheckClaims != nil && cfg.Claims && join(findings) == nil {
		findings = append(findings, t.CheckClaims(values)...)
	}
	if err := join(findings); err != nil {
		return nil, fmt.Errorf("trigger of type %s: %w", t.Name, err)
	}
	made, err := t.Build(ctx, cfg, values)
	if err != nil {
		return nil, fmt.Errorf("trigger of type %s: %w", t.Name, err)
	}
	return made, nil
}

// ExternalMetricName returns the name under which KEDA publishes the value of the trigger at the index of its
// ScaledJob's list, for example s0-redis-usertask. Values that are missing or wrong count as empty.
func (t Type) ExternalMetricName(index int, cfg Config) string {
	name := t.Name
	if t.MetricName != nil {
		values, _ := decoder{metadata: cfg.Metadata, env: cfg.Env, auth: cfg.Auth}.decode(t.Params)
		name = t.MetricName(values)
	}
	if t.InNamespace {
		name += "-" + cfg.Namespace
	}
	return fmt.Sprintf("s%d-%s", index, NormalizeMetricName(name))
}

// ThresholdOf returns the threshold of a trigger with that metadata, which must be valid; false where the type does not
// tell.
func (t Type) ThresholdOf(metadata map[string]string) (Threshold, bool) {
	if t.Threshold == nil {
		return Threshold{}, false
	}
	values, _ := decoder{metadata: metadata, static: true}.decode(t.Params)
	return t.Threshold(values), true
}

// NormalizeMetricName replaces the characters / . : % ( ) by dashes, as KEDA does in metric names.
func NormalizeMetricName(name string) string {
	return strings.NewReplacer("/", "-", ".", "-", ":", "-", "%", "-", "(", "-", ")", "-").Replace(name)
}
