// Package reference says in words what the declarations of trigger types hold: for `offboard explain`, and as the pages
// below docs/triggers. What it says comes from the declarations alone, so that it is never out of date.
package reference

import (
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Type describes a trigger type. Its JSON form is what `offboard explain TYPE -o json` prints.
type Type struct {
	Name string `json:"type"`
	Doc  string `json:"description"`
	// Watches tells that triggers of the type tell when something changed.
	Watches bool `json:"watches"`
	// Claims tells that the type's source can hand out items, which delivery by claim needs.
	Claims bool `json:"claims"`
	// OtherKeys tells that the source may give further metadata keys a meaning.
	OtherKeys bool    `json:"otherKeys,omitempty"`
	Params    []Param `json:"parameters"`
	// Example is a manifest, YAML.
	Example string `json:"example"`
}

// Param describes one parameter.
type Param struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	// Kind is the type of the value; KindDoc says what each takes.
	Kind trigger.Kind `json:"kind"`
	// Required tells that there is no trigger without a value.
	Required bool `json:"required"`
	// Group names a set of parameters of which some must be given together; empty for most.
	Group     string   `json:"group,omitempty"`
	Default   string   `json:"default,omitempty"`
	Allowed   []string `json:"allowed,omitempty"`
	Exclusive []string `json:"exclusive,omitempty"`
	// Minimum is the smallest value of a number; nil means any.
	Minimum *int64 `json:"minimum,omitempty"`
	// Positive tells that a number must be above 0.
	Positive bool `json:"positive,omitempty"`
	Secret   bool `json:"secret,omitempty"`
	// Sources lists where a value may be given: metadata, env or auth. The first that has one wins.
	Sources []trigger.Source `json:"sources"`
	Doc     string           `json:"description"`
}

// Of describes a type.
func Of(t trigger.Type) Type {
	described := Type{
		Name: t.Name, Doc: t.Doc, Watches: t.Watches, Claims: t.Claims, OtherKeys: t.OtherKeys, Example: Manifest(t),
	}
	for _, p := range t.Params {
		described.Params = append(described.Params, Param{
			Name: p.Name, Aliases: p.Aliases, Kind: p.Kind, Required: p.Required(), Group: p.Group, Default: p.Default,
			Allowed: p.Allowed, Exclusive: p.Exclusive, Minimum: p.Min, Positive: p.Positive, Secret: p.Secret,
			Sources: p.Sources, Doc: p.Doc,
		})
	}
	return described
}

// Need says whether a value must be given.
func (p Param) Need() string {
	switch {
	case p.Required:
		return "required"
	case p.Default != "":
		return "default " + p.Default
	case p.Group != "":
		return "depends"
	}
	return "optional"
}

// Places says where a value may be given, in the order in which they win.
func (p Param) Places() []string {
	var places []string
	for _, source := range p.Sources {
		switch source {
		case trigger.FromMetadata:
			places = append(places, "metadata")
		case trigger.FromEnv:
			places = append(places, p.Name+trigger.EnvSuffix)
		case trigger.FromAuth:
			places = append(places, "TriggerAuthentication")
		}
	}
	return places
}

// Limits says which values the kind alone would allow and the parameter does not; empty when there are none.
func (p Param) Limits() string {
	var limits []string
	if len(p.Allowed) > 0 {
		limits = append(limits, "one of "+strings.Join(p.Allowed, ", "))
		if p.Kind == trigger.List {
			limits[0] = "elements of " + strings.Join(p.Allowed, ", ")
		}
	}
	if len(p.Exclusive) > 0 {
		limits = append(limits, "at most one of "+strings.Join(p.Exclusive, ", "))
	}
	switch {
	case p.Positive:
		limits = append(limits, "above 0")
	case p.Minimum != nil:
		limits = append(limits, "at least "+number(*p.Minimum))
	}
	return strings.Join(limits, "; ")
}

// Abilities says what triggers of the type can do besides measuring, a sentence each.
func (t Type) Abilities() []string {
	changes := "Changes are found by polling, every `pollingInterval`."
	if t.Watches {
		changes = "Changes are noticed at once; `pollingInterval` is the fallback."
	}
	items := "Delivery is by pop: a Job's program takes its item itself."
	if t.Claims {
		items = "Items can be handed out, each to one Job: `delivery: {mode: claim}`."
	}
	abilities := []string{changes, items}
	if t.OtherKeys {
		abilities = append(abilities, "Further metadata keys are passed on to the source.")
	}
	return abilities
}

// kind is a kind of values with what each takes.
type kind struct {
	Kind trigger.Kind
	Doc  string
}

var kinds = []kind{
	{trigger.String, "any text; space around it is dropped"},
	{trigger.Int, "a whole number of 64 bits in decimal digits"},
	{trigger.Float, "a number, for example `0.5`"},
	{trigger.Bool, "`true` or `false`"},
	{trigger.Duration, "a length of time such as `1m30s`, or a number of milliseconds"},
	{trigger.List, "texts, separated by commas"},
	{trigger.Map, "`key=value`, separated by commas"},
	{trigger.Query, "the query of an URL, `a=1&b=2`"},
	{trigger.Numbers, "whole numbers and ranges of them, `1-4,7`"},
}

// KindDoc says what a value of that kind is; empty for a kind that does not exist.
func KindDoc(wanted trigger.Kind) string {
	for _, k := range kinds {
		if k.Kind == wanted {
			return k.Doc
		}
	}
	return ""
}
