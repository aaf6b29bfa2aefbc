package prometheus

import (
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
)

// typeName is the trigger's type in manifests.
const typeName = "prometheus"

// Parameter names that are used in more than one place.
const (
	paramServer          = "serverAddress"
	paramQuery           = "query"
	paramQueryParameters = "queryParameters"
	paramThreshold       = "threshold"
	paramActivation      = "activationThreshold"
	paramNamespace       = "namespace"
	paramHeaders         = "customHeaders"
	paramIgnoreNull      = "ignoreNullValues"
	paramAWSRegion       = "awsRegion"
	paramIdentityOwner   = "identityOwner"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	list := []trigger.Param{
		{
			Name: paramServer, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The server's URL, to which /api/v1/query is added, for example http://prometheus:9090.",
		},
		{
			Name: paramQuery, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The PromQL query; its result must be a scalar or a single series.",
		},
		{
			Name: paramQueryParameters, Kind: trigger.Map, Optional: true, Sources: metadataOnly,
			Doc: "Further parameters of the request's URL, as name=value, separated by commas.",
		},
		{
			Name: paramThreshold, Kind: trigger.Float, Positive: true, Sources: metadataOnly,
			Doc: "How much of the query's value one Job takes; the target for the value.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Optional: true, Sources: metadataOnly,
			Doc: "The value above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramNamespace, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "The parameter namespace of the request's URL, which some servers before several Prometheus need.",
		},
		{
			Name: paramHeaders, Kind: trigger.Map, Optional: true, Sources: metadataOnly,
			Doc: "Headers of the request, as name=value, separated by commas; credentials belong into authModes.",
		},
		{
			Name: paramIgnoreNull, Kind: trigger.Bool, Default: "true", Sources: metadataOnly,
			Doc: "Whether a result that is empty or not a finite number counts as 0; otherwise it is an error.",
		},
		{
			Name: "unsafeSsl", Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether to accept any certificate of the server; false unless given.",
		},
		{
			Name: paramAWSRegion, Kind: trigger.String, Optional: true,
			Sources: []trigger.Source{trigger.FromMetadata, trigger.FromAuth},
			Doc:     "Without effect: requests are not signed for Amazon's managed Prometheus.",
		},
		{
			Name: "timeout", Kind: trigger.Duration, Optional: true, Sources: metadataOnly,
			Doc: "How long a request may take, for example 5s, or a number of milliseconds; 3 seconds unless given.",
		},
		{
			Name: paramIdentityOwner, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "Without effect: requests are not signed for Amazon's managed Prometheus.",
		},
	}
	return append(list, httpget.AuthParams()...)
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	findings := httpget.Check(values)
	if values.Has(paramServer) {
		server, finding := httpget.URL(values, paramServer)
		switch {
		case finding != nil:
			findings = append(findings, *finding)
		case server.RawQuery != "":
			findings = append(findings, trigger.ParamError{
				Key: paramServer, Message: "holds a query; give queryParameters instead",
			})
		}
	}
	for _, name := range []string{paramAWSRegion, paramIdentityOwner} {
		if values.Has(name) {
			findings = append(findings, trigger.ParamError{Key: name, Warning: true,
				Message: "has no effect: requests are not signed for Amazon's managed Prometheus; " +
					"give the address of a proxy that signs them"})
		}
	}
	return findings
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramThreshold), Activation: values.Float(paramActivation)}
}
