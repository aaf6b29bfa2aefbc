package redis

import (
	"fmt"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "redis"

// Parameter names that are used in more than one place.
const (
	paramAddress       = "address"
	paramHost          = "host"
	paramPort          = "port"
	paramUsername      = "username"
	paramPassword      = "password"
	paramListName      = "listName"
	paramListLength    = "listLength"
	paramActivation    = "activationListLength"
	paramDatabaseIndex = "databaseIndex"
	paramEnableTLS     = "enableTLS"
	paramTLS           = "tls"
	paramUnsafeSSL     = "unsafeSsl"
	paramCA            = "ca"
	paramCert          = "Cert"
	paramKey           = "key"
	paramKeyPassword   = "keyPassword"
)

// tlsEnable is the value of parameter tls that turns TLS on; tlsDisable leaves it off.
const (
	tlsEnable  = "enable"
	tlsDisable = "disable"
)

// connectionGroup holds the parameters of which none is required by itself: the embedded Redis needs none.
const connectionGroup = "connection"

// Params declares the parameters in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/redis_scaler.go.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	authOnly := []trigger.Source{trigger.FromAuth}
	envBeforeAuth := []trigger.Source{trigger.FromMetadata, trigger.FromEnv, trigger.FromAuth}
	authBeforeEnv := []trigger.Source{trigger.FromMetadata, trigger.FromAuth, trigger.FromEnv}
	zero, one := int64(0), int64(1)
	list := []trigger.Param{
		{
			Name: paramListLength, Kind: trigger.Int, Default: "5", Min: &one, Sources: metadataOnly,
			Doc: "How many items one Job takes; the target for the length of the list.",
		},
		{
			Name: paramActivation, Kind: trigger.Int, Optional: true, Sources: metadataOnly,
			Doc: "The length above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramListName, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The key of the list; a set, a sorted set or a hash is measured by its size as well.",
		},
		{
			Name: paramDatabaseIndex, Kind: trigger.Int, Optional: true, Min: &zero, Sources: metadataOnly,
			Doc: "The number of the database that holds the list; 0 unless given.",
		},
		{
			Name: paramEnableTLS, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether to connect with TLS; false unless given.",
		},
		{
			Name: paramTLS, Kind: trigger.String, Optional: true, Allowed: []string{tlsEnable, tlsDisable}, Sources: authOnly,
			Doc: "Whether to connect with TLS, as enableTLS, of which only one may be given.",
		},
	}
	connection := []trigger.Param{
		{
			Name: paramAddress, Aliases: []string{"addresses"}, Kind: trigger.List, Sources: authBeforeEnv,
			Doc: "The server as host:port (port 6379 unless given) or as the path of a unix socket; of several, " +
				"separated by commas, the first that answers is used.",
		},
		{
			Name: paramUsername, Kind: trigger.String, Sources: envBeforeAuth,
			Doc: "The ACL user; the default user unless given. Used together with a password only.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Secret: true, Sources: envBeforeAuth,
			Doc: "The password of the user.",
		},
		{
			Name: "sentinelUsername", Kind: trigger.String, Sources: authBeforeEnv,
			Doc: "The user at the sentinels; of use to trigger type redis-sentinel only.",
		},
		{
			Name: "sentinelPassword", Kind: trigger.String, Secret: true, Sources: authBeforeEnv,
			Doc: "The password at the sentinels; of use to trigger type redis-sentinel only.",
		},
		{
			Name: "sentinelMaster", Kind: trigger.String, Sources: authBeforeEnv,
			Doc: "The name of the master at the sentinels; of use to trigger type redis-sentinel only.",
		},
		{
			Name: paramHost, Aliases: []string{"hosts"}, Kind: trigger.List, Sources: envBeforeAuth,
			Doc: "The server's host; of several, separated by commas, the first that answers is used.",
		},
		{
			Name: paramPort, Aliases: []string{"ports"}, Kind: trigger.List, Sources: envBeforeAuth,
			Doc: "The server's port, one for each host; 6379 unless given.",
		},
		{
			Name: paramUnsafeSSL, Kind: trigger.Bool, Default: "false", Sources: metadataOnly,
			Doc: "Whether to accept any certificate of the server.",
		},
		{
			Name: paramCert, Aliases: []string{"cert"}, Kind: trigger.String, Sources: authOnly,
			Doc: "The client's certificate, PEM.",
		},
		{
			Name: paramKey, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The client certificate's private key, PEM.",
		},
		{
			Name: paramKeyPassword, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The password that the private key is encrypted with.",
		},
		{
			Name: paramCA, Kind: trigger.String, Sources: authOnly,
			Doc: "Certificates, PEM, of authorities that are trusted besides the system's.",
		},
	}
	for i := range connection {
		connection[i].Group = connectionGroup
	}
	return append(list, connection...)
}

// check finds what contradicts among the parameters. Where KEDA tolerates it, it is a warning.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message})
	}
	warn := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message, Warning: true})
	}
	known := func(names ...string) bool {
		for _, name := range names {
			if !values.Known(name) {
				return false
			}
		}
		return true
	}

	if _, err := addresses(values); err != nil {
		findings = append(findings, *err)
	}
	if known(paramAddress, paramHost) && !values.Has(paramAddress) && !values.Has(paramHost) {
		message := "is not given, nor is host, so that only the embedded Redis of `offboard up` can be used"
		if values.Has(paramPort) {
			message = "is not given, nor is host, and port has no effect without; " +
				"only the embedded Redis of `offboard up` can be used"
		}
		warn(paramAddress, message)
	}
	if values.Has(paramEnableTLS) && values.Has(paramTLS) {
		fail(paramTLS, "is given in the TriggerAuthentication and enableTLS in metadata; give only one of them")
	}
	if known(paramPassword) && values.Has(paramUsername) && !values.Has(paramPassword) {
		warn(paramUsername, "has no effect without a password; give passwordFromEnv or a TriggerAuthentication")
	}
	if known(paramCert, paramKey) && values.Has(paramCert) != values.Has(paramKey) {
		warn(paramCert, "makes a client certificate together with key only; one of them is missing, so none is presented")
	}
	if known(paramTLS) && !enablesTLS(values) {
		if values.Bool(paramUnsafeSSL) {
			warn(paramUnsafeSSL, `has no effect without TLS; give enableTLS "true"`)
		}
		if values.Has(paramCA) {
			warn(paramCA, `has no effect without TLS; give enableTLS "true" or tls "enable"`)
		}
	}
	for _, name := range []string{"sentinelUsername", "sentinelPassword", "sentinelMaster"} {
		if values.Has(name) {
			warn(name, "has no effect on trigger type redis; use type redis-sentinel")
		}
	}
	return findings
}

// enablesTLS tells whether the connection is to use TLS.
func enablesTLS(values trigger.Values) bool {
	return values.Bool(paramEnableTLS) || values.String(paramTLS) == tlsEnable
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, strings.TrimSpace(values.String(paramListName)))
}
