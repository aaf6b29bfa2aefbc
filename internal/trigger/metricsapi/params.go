package metricsapi

import (
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/document"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
)

// typeName is the trigger's type in manifests.
const typeName = "metrics-api"

// Parameter names that are used in more than one place.
const (
	paramTarget      = "targetValue"
	paramActivation  = "activationTargetValue"
	paramURL         = "url"
	paramFormat      = "format"
	paramLocation    = "valueLocation"
	paramEndpoints   = "aggregateFromKubeServiceEndpoints"
	paramAggregation = "aggregationType"
)

// Formats of a document.
const (
	formatPrometheus = "prometheus"
	formatJSON       = "json"
	formatXML        = "xml"
	formatYAML       = "yaml"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	list := []trigger.Param{
		{
			Name: paramTarget, Kind: trigger.Float, Optional: true, Positive: true, Sources: metadataOnly,
			Doc: "How much of the value one Job takes; required although KEDA's schema calls it optional.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadataOnly,
			Doc: "The value above which the trigger is active.",
		},
		{
			Name: paramURL, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The URL of the document that holds the value, read with GET.",
		},
		{
			Name: paramFormat, Kind: trigger.String, Default: formatJSON,
			Allowed: []string{formatPrometheus, formatJSON, formatXML, formatYAML}, Sources: metadataOnly,
			Doc: "The format of the document.",
		},
		{
			Name: paramLocation, Kind: trigger.String, Sources: metadataOnly,
			Doc: "Where in the document the value is, a number or a text such as 500m or 2Ki: a GJSON path for json; names " +
				"and positions in lists, separated by dots, for yaml and xml (where they begin with the root element); a " +
				"metric with the labels to look for, as in PromQL, for prometheus.",
		},
		{
			Name: "unsafeSsl", Kind: trigger.Bool, Default: "false", Sources: metadataOnly,
			Doc: "Whether to accept any certificate of the server.",
		},
		{
			Name: paramEndpoints, Kind: trigger.Bool, Default: "false", Sources: metadataOnly,
			Doc: "Whether to read the document from each Pod that is ready behind the Service that the URL names as " +
				"SERVICE.NAMESPACE, at the URL's port; on a cluster only.",
		},
		{
			Name: paramAggregation, Kind: trigger.String, Default: "average",
			Allowed: []string{average, sum, highest, lowest}, Sources: metadataOnly,
			Doc: "How the values of several Pods make one; Pods that do not answer are left out as long as one does.",
		},
		{
			Name: "timeout", Kind: trigger.Duration, Optional: true, Sources: metadataOnly,
			Doc: "How long a request may take, for example 5s, or a number of milliseconds; 3 seconds unless given.",
		},
	}
	return append(list, httpget.AuthParams()...)
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	findings := httpget.Check(values)
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: name, Message: message})
	}
	if !values.Has(paramTarget) {
		fail(paramTarget, "is required; give "+paramTarget+" in metadata")
	}
	if values.Has(paramURL) {
		address, finding := httpget.URL(values, paramURL)
		if finding == nil && values.Bool(paramEndpoints) {
			_, _, finding = serviceName(address)
		}
		if finding != nil {
			findings = append(findings, *finding)
		}
	}
	if values.String(paramFormat) == formatPrometheus && values.Has(paramLocation) {
		if _, err := parseSelector(values.String(paramLocation)); err != nil {
			findings = append(findings, trigger.ParamError{
				Key: paramLocation, Value: values.String(paramLocation), Message: err.Error(),
			})
		}
	}
	return findings
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramTarget), Activation: values.Float(paramActivation)}
}

// reader returns what finds the value in a document. The values have been checked.
func reader(values trigger.Values) (func(content []byte) (float64, error), error) {
	location := values.String(paramLocation)
	switch values.String(paramFormat) {
	case formatPrometheus:
		selector, err := parseSelector(location)
		if err != nil {
			return nil, trigger.ParamError{Key: paramLocation, Message: err.Error()}
		}
		return selector.read, nil
	case formatYAML:
		return numberAt(document.YAML, location), nil
	case formatXML:
		return numberAt(document.XML, location), nil
	default:
		return numberAt(document.JSON, location), nil
	}
}

// numberAt makes a function that finds a value one that finds a number.
func numberAt(find func([]byte, string) (any, error), location string) func([]byte) (float64, error) {
	return func(content []byte) (float64, error) {
		value, err := find(content, location)
		if err != nil {
			return 0, err
		}
		return document.Number(value)
	}
}
