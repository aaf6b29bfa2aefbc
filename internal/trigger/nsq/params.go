package nsq

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "nsq"

// Parameter names.
const (
	paramLookupds   = "nsqLookupdHTTPAddresses"
	paramTopic      = "topic"
	paramChannel    = "channel"
	paramDepth      = "depthThreshold"
	paramActivation = "activationDepthThreshold"
	paramHTTPS      = "useHttps"
	paramUnsafeSSL  = "unsafeSsl"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	sources := []trigger.Source{trigger.FromMetadata, trigger.FromEnv}
	zero, one := int64(0), int64(1)
	return []trigger.Param{
		{
			Name: paramLookupds, Kind: trigger.List, Sources: sources,
			Doc: "The nsqlookupds, separated by commas, each as host:port of its HTTP interface.",
		},
		{
			Name: paramTopic, Kind: trigger.String, Sources: sources,
			Doc: "The topic that the channel belongs to.",
		},
		{
			Name: paramChannel, Kind: trigger.String, Sources: sources,
			Doc: "The channel whose depth is measured.",
		},
		{
			Name: paramDepth, Kind: trigger.Int, Default: "10", Min: &one, Sources: sources,
			Doc: "How many messages one Job takes; the target for the depth.",
		},
		{
			Name: paramActivation, Kind: trigger.Int, Default: "0", Min: &zero, Sources: sources,
			Doc: "The depth above which the trigger is active.",
		},
		{
			Name: paramHTTPS, Kind: trigger.Bool, Default: "false", Sources: sources,
			Doc: "Whether nsqlookupds and nsqds are asked with HTTPS.",
		},
		{
			Name: paramUnsafeSSL, Kind: trigger.Bool, Default: "false", Sources: sources,
			Doc: "Whether to accept any certificate of the servers.",
		},
	}
}

// settings is all that makes the connections of one trigger differ from another's.
type settings struct{ https, insecure bool }

func newSettings(values trigger.Values) settings {
	chosen := settings{https: values.Bool(paramHTTPS)}
	chosen.insecure = chosen.https && values.Bool(paramUnsafeSSL)
	return chosen
}

// nameForm is what NSQ takes as the name of a topic or a channel; ephemeral ones end in #ephemeral
// (https://nsq.io/clients/tcp_protocol_spec.html).
var nameForm = regexp.MustCompile(`^[.a-zA-Z0-9_-]+(#ephemeral)?$`)

// maxName is how many bytes such a name may have.
const maxName = 64

// check finds what is wrong with values that are more than texts, and what contradicts.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	find := func(name, value, message string, warning bool) {
		finding := trigger.ParamError{Key: values.Key(name), Message: message, Warning: warning}
		if values.Source(name) == trigger.FromMetadata && !strings.Contains(value, "@") {
			finding.Value = value
		}
		findings = append(findings, finding)
	}
	for _, address := range values.List(paramLookupds) {
		if problem := checkAddress(address); problem != "" {
			find(paramLookupds, address, problem, false)
		}
	}
	if values.Known(paramLookupds) && values.Has(paramLookupds) && len(values.List(paramLookupds)) == 0 {
		find(paramLookupds, "", "holds no address; give host:port", false)
	}
	for _, name := range []string{paramTopic, paramChannel} {
		text := values.String(name)
		if text != "" && (len(text) > maxName || !nameForm.MatchString(text)) {
			find(name, text, fmt.Sprintf("is not the name of a %s; give at most %d letters, digits, dots, dashes and "+
				"underscores, with #ephemeral at the end where it is meant", name, maxName), false)
		}
	}
	if values.Known(paramHTTPS) && values.Bool(paramUnsafeSSL) && !values.Bool(paramHTTPS) {
		find(paramUnsafeSSL, "", `has no effect without HTTPS; give useHttps "true"`, true)
	}
	return findings
}

// checkAddress takes what can stand between https:// and a path; "" when nothing is wrong.
func checkAddress(address string) (problem string) {
	if strings.Contains(address, "://") {
		return `is a URL; give host:port, and useHttps "true" for HTTPS`
	}
	parsed, err := url.Parse("http://" + address)
	if err != nil || parsed.Host != address || parsed.Hostname() == "" || parsed.Port() == "0" {
		return "is not an address; give host:port, for example nsqlookupd.example:4161"
	}
	return ""
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{
		Target: float64(values.Int(paramDepth)), Activation: float64(values.Int(paramActivation)),
	}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s-%s", typeName, values.String(paramTopic), values.String(paramChannel))
}
