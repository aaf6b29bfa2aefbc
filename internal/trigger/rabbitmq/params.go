package rabbitmq

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// typeName is the trigger's type in manifests.
const typeName = "rabbitmq"

// Parameter names that are used in more than one place.
const (
	paramQueueName     = "queueName"
	paramMode          = "mode"
	paramQueueLength   = "queueLength"
	paramValue         = "value"
	paramActivation    = "activationValue"
	paramHost          = "host"
	paramProtocol      = "protocol"
	paramVhostName     = "vhostName"
	paramUseRegex      = "useRegex"
	paramExcludeUnack  = "excludeUnacknowledged"
	paramPageSize      = "pageSize"
	paramOperation     = "operation"
	paramTimeout       = "timeout"
	paramUsername      = "username"
	paramPassword      = "password"
	paramTLS           = "tls"
	paramUnsafeSSL     = "unsafeSsl"
	paramWorkloadIdent = "workloadIdentityResource"
	paramTokenURI      = "oauthTokenURI"
)

// Values of parameters.
const (
	modeUnknown  = "Unknown"
	protocolAMQP = "amqp"
	protocolHTTP = "http"
	protocolAuto = "auto"
	tlsEnable    = "enable"
	tlsDisable   = "disable"
	// defaultTarget is how many messages one Job takes where nothing says so.
	defaultTarget = 20
	// mostPageSize is what the management API takes at most.
	mostPageSize = 500
)

// Params declares the parameters in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/rabbitmq_scaler.go.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	authOnly := []trigger.Source{trigger.FromAuth}
	metadataAndAuth := []trigger.Source{trigger.FromMetadata, trigger.FromAuth}
	authBeforeEnv := []trigger.Source{trigger.FromAuth, trigger.FromEnv}
	zero, one := int64(0), int64(1)
	list := []trigger.Param{
		{
			Name: paramQueueName, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The queue; with useRegex a regular expression that the names of several match.",
		},
		{
			Name: paramMode, Kind: trigger.String, Optional: true, Default: modeUnknown, Sources: metadataOnly,
			Doc: "What is measured: QueueLength (messages), MessageRate (published in a second), DeliverGetRate " +
				"(delivered in a second), PublishedToDeliveredRatio, or ExpectedQueueConsumptionTime (seconds); all but " +
				"QueueLength need the protocol http. QueueLength with a value of 20 when nothing else is given.",
		},
		{
			Name: paramQueueLength, Kind: trigger.Float, Optional: true, Min: &zero, Sources: metadataOnly,
			Doc: "How many messages one Job takes; an older form of mode QueueLength and value, given instead of both.",
		},
		{
			Name: paramValue, Kind: trigger.Float, Optional: true, Min: &zero, Sources: metadataOnly,
			Doc: "How much of what mode measures one Job takes; above 0, and given together with mode.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Optional: true, Sources: metadataOnly,
			Doc: "The value above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramHost, Kind: trigger.String, Secret: true,
			Sources: []trigger.Source{trigger.FromMetadata, trigger.FromAuth, trigger.FromEnv},
			Doc: "The server as a URL: amqp://user:password@host:5672/vhost, amqps://…, or that of its management API, " +
				"http://user:password@host:15672/path/vhost or https://…; without a virtual host it is /.",
		},
		{
			Name: paramProtocol, Kind: trigger.String, Default: protocolAuto, Sources: metadataAndAuth,
			Doc: "How to ask: amqp counts messages that are ready; http, the management API, also those that are " +
				"delivered and not acknowledged; auto takes what the host's URL says.",
		},
		{
			Name: paramVhostName, Kind: trigger.String, Optional: true, Sources: metadataAndAuth,
			Doc: "The virtual host, in place of the one in host.",
		},
		{
			Name: paramUseRegex, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether queueName is a regular expression (PCRE); false unless given. Needs the protocol http.",
		},
		{
			Name: paramExcludeUnack, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether to leave out messages that are delivered and not acknowledged; false unless given. Needs the " +
				"protocol http; amqp never counts them.",
		},
		{
			Name: paramPageSize, Kind: trigger.Int, Default: "100", Min: &one, Sources: metadataOnly,
			Doc: "How many queues are read with one request where useRegex is true, from 1 to 500; all are read, whatever " +
				"it is.",
		},
		{
			Name: paramOperation, Kind: trigger.String, Default: string(operationSum), Sources: metadataOnly,
			Doc: "What makes one value of several queues where useRegex is true: sum, max or avg.",
		},
		{
			Name: paramTimeout, Kind: trigger.Duration, Optional: true, Sources: metadataOnly,
			Doc: "How long a measurement by http may take; 5s unless given.",
		},
		{
			Name: paramUsername, Kind: trigger.String, Optional: true, Sources: authBeforeEnv,
			Doc: "The user, in place of the one in host; given together with password.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Optional: true, Secret: true, Sources: authBeforeEnv,
			Doc: "The password of username.",
		},
		network.CAParam(),
	}
	list = append(list, network.CertParams()...)
	return append(list, []trigger.Param{
		{
			Name: paramTLS, Kind: trigger.String, Default: tlsDisable, Sources: authOnly,
			Doc: "Whether the client's certificate also logs in (enable) by AMQP, where neither host nor username and " +
				"password name a user; enable or disable. TLS itself is on where host begins with amqps:// or https://.",
		},
		{
			Name: paramUnsafeSSL, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether to accept any certificate of the server; false unless given.",
		},
		{
			Name: paramWorkloadIdent, Kind: trigger.String, Optional: true, Sources: authOnly,
			Doc: "The application that Azure AD Workload Identity logs in to, which is not supported.",
		},
		{
			Name: paramTokenURI, Kind: trigger.String, Optional: true, Unlisted: true, Sources: authOnly,
			Doc: "The URL that gives tokens of OAuth 2.0, which is not supported.",
		},
	}...)
}

// check finds what contradicts among the parameters, by KEDA's rules.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	fail := func(name, message string) {
		finding := trigger.ParamError{Key: values.Key(name), Message: message}
		if name != paramHost && values.Source(name) == trigger.FromMetadata {
			finding.Value = values.String(name)
		}
		findings = append(findings, finding)
	}
	warn := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message, Warning: true})
	}
	oneOf := func(name string, allowed ...string) {
		if values.Known(name) && !slices.Contains(allowed, values.String(name)) {
			fail(name, "is not allowed; give "+strings.Join(allowed, " or "))
		}
	}

	oneOf(paramProtocol, protocolAMQP, protocolHTTP, protocolAuto)
	oneOf(paramTLS, tlsEnable, tlsDisable)
	oneOf(paramMode, append([]string{modeUnknown}, modes...)...)
	if values.Bool(paramUseRegex) { // else neither has an effect, as in KEDA
		oneOf(paramOperation, string(operationSum), string(operationMax), string(operationAvg))
		if values.Int(paramPageSize) > mostPageSize {
			fail(paramPageSize, "is too large; give at most "+strconv.Itoa(mostPageSize))
		}
	}
	together := func(one, other string) {
		if values.Known(one) && values.Known(other) && values.Has(one) != values.Has(other) {
			fail(one, "and "+other+" must be given together; one of them is missing")
		}
	}
	together(paramUsername, paramPassword)
	together(network.ParamCert, network.ParamKey)
	if values.Has(paramWorkloadIdent) {
		fail(paramWorkloadIdent, "is given, but Azure AD Workload Identity is not supported; give username and password")
	}
	if values.Has(paramTokenURI) {
		fail(paramTokenURI, "is given, but OAuth 2.0 is not supported for rabbitmq; give username and password")
	}

	hasMode, hasValue := values.String(paramMode) != modeUnknown, values.Float(paramValue) != 0
	switch {
	case values.Float(paramQueueLength) != 0 && (hasMode || hasValue):
		fail(paramQueueLength, "is an older form of mode and value, of which none may be given with it; leave it out")
	case hasMode && !hasValue:
		fail(paramValue, "must be given with mode, above 0")
	case hasValue && !hasMode:
		fail(paramMode, "must be given with value; give one of "+strings.Join(modes, ", "))
	}

	protocol := protocolOf(values)
	if protocol == "" {
		if values.Known(paramHost) && values.Has(paramHost) && values.Known(paramProtocol) {
			fail(paramHost, "is no URL that begins with amqp://, amqps://, http:// or https://; "+
				"give one, with characters such as # / @ in a password written as %23 %2F %40")
		}
		return findings
	}
	if values.Known(paramHost) && values.Known(paramVhostName) {
		if problem := hostProblem(values, protocol); problem != "" {
			fail(paramHost, problem)
		}
	}
	if protocol == protocolHTTP {
		return findings
	}
	if hasMode && modeOf(values) != queueLength {
		fail(paramMode, "needs the protocol http; give the URL of the management API in host")
	}
	for _, name := range []string{paramUseRegex, paramExcludeUnack} {
		if values.Bool(name) {
			fail(name, "needs the protocol http; give the URL of the management API in host")
		}
	}
	if values.Has(paramTimeout) {
		warn(paramTimeout, "has no effect with the protocol amqp")
	}
	return findings
}

// checkClaims finds what delivery by claim cannot do.
func checkClaims(values trigger.Values) []trigger.ParamError {
	if protocolOf(values) != protocolHTTP {
		return nil
	}
	name := paramHost
	if values.String(paramProtocol) == protocolHTTP {
		name = paramProtocol
	}
	return []trigger.ParamError{{Key: values.Key(name), Message: "is for the protocol http, by which no message can be " +
		"claimed; give the URL amqp://user:password@host:5672/vhost or amqps://… in host, and the protocol amqp or none"}}
}

// hostProblem says what is wrong with the host; "" when nothing is.
func hostProblem(values trigger.Values, protocol string) string {
	var problem string
	if protocol == protocolAMQP {
		_, problem = parseAMQP(values)
	} else {
		_, problem = newQuery(values)
	}
	return problem
}

// protocolOf returns amqp or http; "" when it cannot be told.
func protocolOf(values trigger.Values) string {
	if protocol := values.String(paramProtocol); protocol != protocolAuto {
		return protocol
	}
	parsed, err := url.Parse(values.String(paramHost))
	if err != nil {
		return ""
	}
	switch parsed.Scheme {
	case "amqp", "amqps":
		return protocolAMQP
	case "http", "https":
		return protocolHTTP
	default:
		return ""
	}
}

// modeOf returns what is measured.
func modeOf(values trigger.Values) mode {
	if named := values.String(paramMode); named != modeUnknown {
		return mode(named)
	}
	return queueLength
}

func threshold(values trigger.Values) trigger.Threshold {
	target := values.Float(paramValue)
	if length := values.Float(paramQueueLength); length != 0 {
		target = length
	}
	if target == 0 {
		target = defaultTarget
	}
	return trigger.Threshold{Target: target, Activation: values.Float(paramActivation)}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, url.QueryEscape(values.String(paramQueueName)))
}
