package jetstream

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "nats-jetstream"

// Parameter names that are used in more than one place.
const (
	paramAccount      = "account"
	paramAccountID    = "accountID"
	paramStream       = "stream"
	paramConsumer     = "consumer"
	paramLagThreshold = "lagThreshold"
	paramActivation   = "activationLagThreshold"
	paramUseHTTPS     = "useHttps"
	paramEndpoint     = "natsServerMonitoringEndpoint"
	paramServer       = "natsServer"
	paramCredentials  = "natsCredentials"
)

// Params declares the parameters in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/nats_jetstream_scaler.go. The last two are our own.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	authFirst := []trigger.Source{trigger.FromAuth, trigger.FromMetadata}
	one := int64(1)
	return []trigger.Param{
		{
			Name: paramAccount, Kind: trigger.String, Optional: true, Sources: authFirst,
			Doc: "The account that has the stream, by its name; $G where the server has no accounts. One of account and " +
				"accountID must be given.",
		},
		{
			Name: paramAccountID, Kind: trigger.String, Optional: true, Sources: authFirst,
			Doc: "The account by its public key, which servers with decentralized authentication know it by.",
		},
		{
			Name: paramStream, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The stream.",
		},
		{
			Name: paramConsumer, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The consumer of the stream that the Jobs take messages from.",
		},
		{
			Name: paramLagThreshold, Kind: trigger.Int, Default: "10", Min: &one, Sources: metadataOnly,
			Doc: "How many messages one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Int, Default: "0", Sources: metadataOnly,
			Doc: "The number of messages above which the trigger is active.",
		},
		{
			Name: paramUseHTTPS, Kind: trigger.Bool, Optional: true, Default: "false", Sources: metadataOnly,
			Doc: "Whether the monitoring endpoint is asked with HTTPS.",
		},
		{
			Name: paramEndpoint, Kind: trigger.String, Sources: authFirst,
			Doc: "The monitoring endpoint of a server as host:port. In a cluster the others are asked at the same port.",
		},
		{
			Name: paramServer, Kind: trigger.String, Optional: true, Secret: true, Unlisted: true,
			Sources: []trigger.Source{trigger.FromMetadata, trigger.FromEnv, trigger.FromAuth},
			Doc: "Where clients connect, nats://user:password@host:4222 or tls://…, several separated by commas; new " +
				"messages are then noticed at once. Needed for delivery by claim. KEDA does not have it.",
		},
		{
			Name: paramCredentials, Kind: trigger.String, Optional: true, Secret: true, Unlisted: true,
			Sources: []trigger.Source{trigger.FromAuth},
			Doc:     "The content of the .creds file that logs in to natsServer. KEDA does not have it.",
		},
	}
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message})
	}
	if values.Known(paramAccount) && values.Known(paramAccountID) &&
		!values.Has(paramAccount) && !values.Has(paramAccountID) {
		fail(paramAccount, `is not given, nor is accountID; give account "$G" where the server has no accounts`)
	}
	if values.Known(paramEndpoint) && values.Has(paramEndpoint) {
		if _, problem := newMonitorSettings(values); problem != "" {
			fail(paramEndpoint, problem)
		}
	}
	if values.Known(paramServer) && values.Has(paramServer) {
		if _, problem := newClientSettings(values); problem != "" {
			fail(paramServer, problem)
		}
	}
	if values.Known(paramServer) && !values.Has(paramServer) && values.Has(paramCredentials) {
		findings = append(findings, trigger.ParamError{
			Key: paramCredentials, Message: "has no effect without natsServer", Warning: true,
		})
	}
	return findings
}

// checkClaims finds what delivery by claim needs besides.
func checkClaims(values trigger.Values) []trigger.ParamError {
	if !values.Known(paramServer) || values.Has(paramServer) {
		return nil
	}
	return []trigger.ParamError{{
		Key: values.Key(paramServer), Message: "is not given, which delivery by claim needs: the monitoring endpoint hands " +
			"out no messages; give nats://host:4222, with user and password in a TriggerAuthentication",
	}}
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{
		Target: float64(values.Int(paramLagThreshold)), Activation: float64(values.Int(paramActivation)),
	}
}

// newMonitorSettings reads the endpoint and the account.
func newMonitorSettings(values trigger.Values) (settings monitorSettings, problem string) {
	scheme := "http"
	if values.Bool(paramUseHTTPS) {
		scheme = "https"
	}
	const form = "give host:port of the server's monitoring, for example nats.example:8222"
	endpoint := values.String(paramEndpoint)
	if strings.Contains(endpoint, "://") {
		return monitorSettings{}, `is a URL; give host:port, and useHttps "true" for HTTPS`
	}
	parsed, err := url.Parse(scheme + "://" + endpoint)
	if err != nil || parsed.Hostname() == "" || strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" {
		return monitorSettings{}, "is not an address; " + form
	}
	account := values.String(paramAccountID)
	if account == "" {
		account = values.String(paramAccount)
	}
	settings = monitorSettings{scheme: scheme, host: parsed.Host, account: account}
	if parsed.User != nil {
		settings.user = parsed.User.Username()
		settings.password, _ = parsed.User.Password()
	}
	return settings, ""
}

// newClientSettings reads how to connect as a client.
func newClientSettings(values trigger.Values) (settings clientSettings, problem string) {
	for _, server := range values.List(paramServer) {
		parsed, err := url.Parse(server)
		if err != nil || parsed.Hostname() == "" ||
			parsed.Scheme != "nats" && parsed.Scheme != "tls" && parsed.Scheme != "ws" && parsed.Scheme != "wss" {
			return clientSettings{}, "is not a URL of a NATS server; give nats://user:password@host:4222 or tls://…, with " +
				"characters such as # / @ in a password written as %23 %2F %40"
		}
	}
	return clientSettings{servers: values.String(paramServer), credentials: values.String(paramCredentials)}, ""
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, values.String(paramStream))
}
