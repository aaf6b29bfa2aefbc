package trigger

// SchemaParam describes one key of a trigger type in the form of KEDA's schema file, in which an alias is a parameter
// of its own and every value is a string.
type SchemaParam struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Optional     bool     `json:"optional,omitempty"`
	Default      string   `json:"default,omitempty"`
	AllowedValue []string `json:"allowedValue,omitempty"`
	// MetadataReadable tells that trigger metadata may hold the value.
	MetadataReadable bool `json:"metadataVariableReadable,omitempty"`
	// EnvReadable tells that metadata may name an environment variable, under the key <name>FromEnv.
	EnvReadable bool `json:"envVariableReadable,omitempty"`
	// AuthReadable tells that a TriggerAuthentication may hold the value.
	AuthReadable bool `json:"triggerAuthenticationVariableReadable,omitempty"`
}

// Schema returns the type's parameters in KEDA's form, in the order of their declaration.
func (t Type) Schema() []SchemaParam {
	var schema []SchemaParam
	for _, param := range t.Params {
		for _, key := range param.Keys() {
			schema = append(schema, SchemaParam{
				Name:             key,
				Type:             "string",
				Optional:         param.Optional,
				Default:          param.Default,
				AllowedValue:     param.Allowed,
				MetadataReadable: param.From(FromMetadata),
				EnvReadable:      param.From(FromEnv),
				AuthReadable:     param.From(FromAuth),
			})
		}
	}
	return schema
}
