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

// EnvSuffix is appended to a parameter's name to form the metadata key that names an environment variable.
const EnvSuffix = "FromEnv"

// Kind is the type of a parameter's value.
type Kind string

// The types of a parameter's value.
const (
	String Kind = "string"
	// Int is a whole number of 64 bits in decimal notation.
	Int Kind = "int"
	// Float is a number in decimal notation, with or without a fraction or an exponent.
	Float Kind = "float"
	// Bool is what strconv.ParseBool takes: 1, t, true, 0, f, false and their capitalised forms.
	Bool Kind = "bool"
	// List is separated by commas; space around an element is dropped.
	List Kind = "list"
	// Duration is a length of time in Go's notation, for example 1m30s, or a number of milliseconds; 0 or longer.
	Duration Kind = "duration"
	// Map is a list of key=value; space around keys and values is dropped, and a value may hold further equals signs.
	Map Kind = "map"
	// Query is an URL's query, for example a=1&b=2.
	Query Kind = "query"
	// Numbers are whole numbers of 32 bits and ranges of them, 0 or above, for example 1-4,7; space around a number is
	// dropped.
	Numbers Kind = "numbers"
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
	// Allowed lists the only values, or elements of a List, that are allowed; empty means any.
	Allowed []string
	// Min is the smallest allowed value of an Int or a Float; nil means any.
	Min *int64
	// Positive tells that a Float must be above zero.
	Positive bool
	// Exclusive lists elements of a List of which it may hold only one.
	Exclusive []string
	// Unlisted tells that KEDA's schema file leaves the parameter out, because KEDA reads it without saying so or does not
	// have it; Schema leaves it out too.
	Unlisted bool
	// Extension tells that KEDA does not have the parameter, which Doc says as well; Schema leaves it out.
	Extension bool
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
			places = append(places, p.Name+EnvSuffix+" in metadata")
		case FromAuth:
			places = append(places, p.Name+" in a TriggerAuthentication")
		}
	}
	return strings.Join(places, " or ")
}
