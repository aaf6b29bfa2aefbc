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
	// Params declares every parameter.
	Params []Param
	// Build makes a trigger from decoded parameters. It must not block on the network.
	Build func(ctx context.Context, cfg Config, values Values) (Trigger, error)
	// MetricName returns the name under which KEDA publishes the trigger's value, without prefix and normalization.
	MetricName func(values Values) string
	// Check looks at the parameters as a whole and returns what contradicts; nil when nothing does. In a static check
	// values.Known tells what can be judged. A nil Check finds nothing.
	Check func(values Values) []ParamError
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
	return fmt.Sprintf("s%d-%s", index, NormalizeMetricName(name))
}

// NormalizeMetricName replaces the characters / . : % ( ) by dashes, as KEDA does in metric names.
func NormalizeMetricName(name string) string {
	return strings.NewReplacer("/", "-", ".", "-", ":", "-", "%", "-", "(", "-", ")", "-").Replace(name)
}
