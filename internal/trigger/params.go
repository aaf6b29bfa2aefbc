package trigger

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

// Param declares one parameter of a trigger type.
type Param struct {
	// Name is the key in metadata and in a TriggerAuthentication.
	Name string
	// Aliases are further keys with the same meaning.
	Aliases []string
	// Kind is the type of the value.
	Kind Kind
	// Default is used when no source gives a value; empty means that there is none.
	Default string
	// Optional tells that a value may be missing.
	Optional bool
	// Allowed lists the only values that are allowed; empty means any.
	Allowed []string
	// Min is the smallest allowed value of an Int; nil means any.
	Min *int64
	// Sources lists where the value may come from; the first that has it wins.
	Sources []Source
	// Doc is one sentence that says meaning and unit.
	Doc string
}

// Kind is the type of a parameter's value.
type Kind string

// The types of a parameter's value.
const (
	String Kind = "string"
	Int    Kind = "int"
	Bool   Kind = "bool"
	List   Kind = "list" // separated by commas
)

// Values are a trigger's decoded parameters by name.
type Values struct{ raw map[string]string }
