package kubernetesworkload

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "kubernetes-workload"

// Parameter names.
const (
	paramSelector   = "podSelector"
	paramValue      = "value"
	paramActivation = "activationValue"
	paramByNode     = "groupByNode"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	return []trigger.Param{
		{
			Name: paramSelector, Kind: trigger.String, Sources: metadataOnly,
			Doc: "Which Pods count, by their labels: requirements such as app=encoder, tier in (batch, bulk) or !canary, " +
				"separated by commas, all of which a Pod must meet. It should not take the Pods of the ScaledJob's own Jobs, " +
				"which would then be work for more of them.",
		},
		{
			// The default, which is KEDA's, is no value that check accepts.
			Name: paramValue, Kind: trigger.Float, Default: "0", Positive: true, Sources: metadataOnly,
			Doc: "For how many Pods, or nodes, there is one Job; it must be given.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadataOnly,
			Doc: "The number of Pods, or nodes, above which the trigger is active.",
		},
		{
			Name: paramByNode, Kind: trigger.Bool, Default: "false", Sources: metadataOnly,
			Doc: "Whether to count the nodes on which the Pods are instead of the Pods; a Pod that has no node yet counts for " +
				"nothing.",
		},
	}
}

// check finds what no declaration tells of the parameters.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	if text := values.String(paramSelector); text != "" {
		if _, err := labels.Parse(text); err != nil {
			findings = append(findings, trigger.ParamError{Key: paramSelector, Value: text, Message: fmt.Sprintf(
				`is no label selector (%v); give requirements such as "app=encoder, tier in (batch, bulk)"`, err)})
		}
	}
	if !values.Has(paramValue) {
		findings = append(findings, trigger.ParamError{
			Key: paramValue, Message: "is required; give a number above 0 in metadata",
		})
	}
	return findings
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramValue), Activation: values.Float(paramActivation)}
}
