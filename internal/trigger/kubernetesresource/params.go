package kubernetesresource

import (
	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "kubernetes-resource"

// Parameter names that are used in more than one place.
const (
	paramKind       = "resourceKind"
	paramName       = "resourceName"
	paramKey        = "key"
	paramFormat     = "format"
	paramLocation   = "valueLocation"
	paramType       = "valueType"
	paramTarget     = "targetValue"
	paramActivation = "activationTargetValue"
)

// Formats of what is under the key.
const (
	formatNumber = "number"
	formatJSON   = "json"
	formatYAML   = "yaml"
)

// Types of the value.
const (
	typeFloat    = "float64"
	typeInt      = "int64"
	typeQuantity = "quantity"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	return []trigger.Param{
		{
			Name: paramKind, Kind: trigger.String, Allowed: []string{trigger.ConfigMap, trigger.Secret}, Sources: metadataOnly,
			Doc: "The kind of the object that holds the value.",
		},
		{
			Name: paramName, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The name of the object, which is in the ScaledJob's namespace.",
		},
		{
			Name: paramKey, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The key of the object's data under which the value is.",
		},
		{
			Name: paramFormat, Kind: trigger.String, Default: formatNumber,
			Allowed: []string{formatNumber, formatJSON, formatYAML}, Sources: metadataOnly,
			Doc: "Whether the value is all that is under the key, or in a document.",
		},
		{
			Name: paramLocation, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "Where in the document the value is: a GJSON path for json; names, and positions in lists, separated by dots," +
				" for yaml. Required for both.",
		},
		{
			Name: paramType, Kind: trigger.String, Default: typeFloat,
			Allowed: []string{typeFloat, typeInt, typeQuantity}, Sources: metadataOnly,
			Doc: "How the value is written: as a number, a whole number, or an amount such as 500m or 2Ki.",
		},
		{
			Name: paramTarget, Kind: trigger.Float, Positive: true, Sources: metadataOnly,
			Doc: "How much of the value one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadataOnly,
			Doc: "The value above which the trigger is active.",
		},
	}
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	inDocument := values.String(paramFormat) != formatNumber
	switch {
	case inDocument && !values.Has(paramLocation):
		return []trigger.ParamError{{
			Key: paramLocation, Message: "is required with " + paramFormat + " " + values.String(paramFormat),
		}}
	case !inDocument && values.Has(paramLocation):
		return []trigger.ParamError{{
			Key: paramLocation, Message: "needs a document; give " + paramFormat + " json or yaml",
		}}
	}
	return nil
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramTarget), Activation: values.Float(paramActivation)}
}
