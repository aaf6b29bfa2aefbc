package trigger

import (
	"slices"
	"strings"
)

// Schema describes trigger types in the form of KEDA's schema file, schema/generated/scalers-schema.json.
type Schema struct {
	// KEDAVersion is the version of KEDA whose parameters the types have.
	KEDAVersion string `json:"kedaVersion"`
	// SchemaVersion is the version of the form.
	SchemaVersion int `json:"schemaVersion"`
	// Scalers are the types by name.
	Scalers []SchemaType `json:"scalers"`
}

// SchemaType describes one type.
type SchemaType struct {
	Type       string        `json:"type"`
	Parameters []SchemaParam `json:"parameters"`
}

// SchemaParam describes one key of a trigger type in the form of KEDA's schema file, in which an alias is a parameter
// of its own and every value is a string.
type SchemaParam struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Optional     bool     `json:"optional,omitempty"`
	Default      string   `json:"default,omitempty"`
	AllowedValue []string `json:"allowedValue,omitempty"`
	// ExclusiveSet holds elements of which a list may hold only one.
	ExclusiveSet []string `json:"exclusiveSet,omitempty"`
	// RangeSeparator stands between the first and the last number of a range.
	RangeSeparator string `json:"rangeSeparator,omitempty"`
	// MetadataReadable tells that trigger metadata may hold the value.
	MetadataReadable bool `json:"metadataVariableReadable,omitempty"`
	// EnvReadable tells that metadata may name an environment variable, under the key <name>FromEnv.
	EnvReadable bool `json:"envVariableReadable,omitempty"`
	// AuthReadable tells that a TriggerAuthentication may hold the value.
	AuthReadable bool `json:"triggerAuthenticationVariableReadable,omitempty"`
}

// SchemaOf returns the schema of the types, sorted by their names.
func SchemaOf(types []Type) Schema {
	schema := Schema{KEDAVersion: "main", SchemaVersion: 1}
	for _, t := range types {
		schema.Scalers = append(schema.Scalers, SchemaType{t.Name, t.schema()})
	}
	slices.SortFunc(schema.Scalers, func(a, b SchemaType) int { return strings.Compare(a.Type, b.Type) })
	return schema
}

// schema returns the type's parameters in KEDA's form, in the order of their declaration.
func (t Type) schema() []SchemaParam {
	var schema []SchemaParam
	for _, param := range t.Params {
		if param.Unlisted || param.Extension {
			continue
		}
		separator := ""
		if param.Kind == Numbers {
			separator = "-"
		}
		for _, key := range param.Keys() {
			schema = append(schema, SchemaParam{
				Name:             key,
				Type:             "string",
				Optional:         param.Optional,
				Default:          param.Default,
				AllowedValue:     param.Allowed,
				ExclusiveSet:     param.Exclusive,
				RangeSeparator:   separator,
				MetadataReadable: param.From(FromMetadata),
				EnvReadable:      param.From(FromEnv),
				AuthReadable:     param.From(FromAuth),
			})
		}
	}
	return schema
}
