package trigger

import (
	"slices"
	"strings"
)

// Source is a place that a parameter may be read from.
type Source string

// The places that a parameter may be read from.
const (
	// FromMetadata is the trigger's metadata in the manifest.
	FromMetadata Source = "metadata"
	// FromEnv is a variable of the Job's container, named by the metadata key <name>FromEnv.
	FromEnv Source = "env"
	// FromAuth is the TriggerAuthentication that authenticationRef names.
	FromAuth Source = "auth"
)

// envSuffix is appended to a parameter's name to form the metadata key that names an environment variable.
const envSuffix = "FromEnv"

// Kind is the type of a parameter's value.
type Kind string

// The types of a parameter's value.
const (
	String Kind = "string"
	// Int is a whole number of 64 bits in decimal notation.
	Int Kind = "int"
	// Bool is what strconv.ParseBool takes: 1, t, true, 0, f, false and their capitalised forms.
	Bool Kind = "bool"
	// List is separated by commas; space around an element is dropped.
	List Kind = "list"
)

// Param declares one parameter of a trigger type.
type Param struct {
	// Name is the key in metadata and in a TriggerAuthentication.
	Name string
	// Aliases are further keys with the same meaning. Within one source the name is looked up first, then these in
	// their order.
	Aliases []string
	// Kind is the type of the value.
	Kind Kind
	// Default is used when no source gives a value; empty means that there is none.
	Default string
	// Optional tells that a value may be missing.
	Optional bool
	// Group names a set of parameters of which none is required by itself; Type.Check says which must come together.
	// Empty means that the parameter stands alone.
	Group string
	// Secret tells that a value must never be shown, wherever it came from.
	Secret bool
	// Allowed lists the only values that are allowed; empty means any.
	Allowed []string
	// Min is the smallest allowed value of an Int; nil means any.
	Min *int64
	// Sources lists where the value may come from; the first that has it wins.
	Sources []Source
	// Doc is one sentence that says meaning and unit.
	Doc string
}

// Required tells whether a trigger cannot be made without a value.
func (p Param) Required() bool {
	return !p.Optional && p.Default == "" && p.Group == ""
}

// Keys returns the name and the aliases, in the order in which they are looked up.
func (p Param) Keys() []string {
	return append([]string{p.Name}, p.Aliases...)
}

// From tells whether the value may come from the source.
func (p Param) From(source Source) bool {
	return slices.Contains(p.Sources, source)
}

// places says in words where a value may be given, for error messages.
func (p Param) places() string {
	var places []string
	for _, source := range p.Sources {
		switch source {
		case FromMetadata:
			places = append(places, p.Name+" in metadata")
		case FromEnv:
			places = append(places, p.Name+envSuffix+" in metadata")
		case FromAuth:
			places = append(places, p.Name+" in a TriggerAuthentication")
		}
	}
	return strings.Join(places, " or ")
}
