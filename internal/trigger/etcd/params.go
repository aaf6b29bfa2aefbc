package etcd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// typeName is the trigger's type in manifests.
const typeName = "etcd"

// Parameter names.
const (
	paramEndpoints  = "endpoints"
	paramKey        = "watchKey"
	paramValue      = "value"
	paramActivation = "activationValue"
	paramProgress   = "watchProgressNotifyInterval"
	paramUsername   = "username"
	paramPassword   = "password"
	paramTLS        = "tls"
)

// tlsEnable is the value of parameter tls that turns TLS on; tlsDisable leaves it to the endpoints.
const (
	tlsEnable  = "enable"
	tlsDisable = "disable"
)

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadata := []trigger.Source{trigger.FromMetadata}
	auth := []trigger.Source{trigger.FromAuth}
	credentials := []trigger.Source{trigger.FromAuth, trigger.FromEnv}
	one := int64(1)
	list := []trigger.Param{
		{
			Name: paramEndpoints, Kind: trigger.List, Sources: metadata,
			Doc: "The members of the cluster, separated by commas, each as host:port, http://host:port or https://host:port; " +
				"whether the first is reached with TLS counts for all.",
		},
		{
			Name: paramKey, Kind: trigger.String, Sources: metadata,
			Doc: "The key that holds the number; to measure fails while there is no such key or it holds no number.",
		},
		{
			Name: paramValue, Kind: trigger.Float, Positive: true, Sources: metadata,
			Doc: "How much of the number one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadata,
			Doc: "The number above which the trigger is active.",
		},
		{
			Name: paramProgress, Kind: trigger.Int, Default: "600", Min: &one, Sources: metadata,
			Doc: "The seconds after which the servers tell that nothing has changed; " +
				"a watch that is silent for twice that time is made anew.",
		},
		{
			Name: paramUsername, Kind: trigger.String, Optional: true, Sources: credentials,
			Doc: "The user, whose role must allow to read the key; none unless given.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Optional: true, Secret: true, Sources: credentials,
			Doc: "The user's password.",
		},
		{
			Name: paramTLS, Kind: trigger.String, Default: tlsDisable, Allowed: []string{tlsEnable, tlsDisable}, Sources: auth,
			Doc: "Whether to connect with TLS to endpoints that do not begin with http:// or https://, " +
				"and whether ca, cert and key are used.",
		},
	}
	return slices.Concat(list, network.CertParams(), []trigger.Param{network.CAParam()})
}

// settings is all that makes one client differ from another.
type settings struct {
	endpoints string // separated by commas
	username  string
	password  string
	tls       network.TLS
	useTLS    bool
}

func newSettings(values trigger.Values) (settings, error) {
	made := settings{
		endpoints: strings.Join(values.List(paramEndpoints), ","),
		username:  values.String(paramUsername),
		password:  values.String(paramPassword),
		useTLS:    values.String(paramTLS) == tlsEnable,
	}
	if made.useTLS {
		made.tls = network.TLSOf(values)
		if _, err := made.tls.Config(); err != nil {
			return settings{}, err
		}
	}
	return made, nil
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	find := func(name, message string, warning bool) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message, Warning: warning})
	}
	for _, endpoint := range values.List(paramEndpoints) {
		if err := checkEndpoint(endpoint); err != nil {
			finding := trigger.ParamError{Key: values.Key(paramEndpoints), Message: err.Error()}
			if !strings.Contains(endpoint, "@") {
				finding.Value = endpoint
			}
			findings = append(findings, finding)
		}
	}
	if values.Known(paramUsername) && values.Known(paramPassword) {
		switch {
		case values.Has(paramUsername) && !values.Has(paramPassword):
			find(paramUsername, "needs a password; give passwordFromEnv, or password in a TriggerAuthentication", false)
		case values.Has(paramPassword) && !values.Has(paramUsername):
			find(paramPassword, "needs a user; give usernameFromEnv, or username in a TriggerAuthentication", false)
		}
	}
	if !values.Known(paramTLS) {
		return findings
	}
	if values.String(paramTLS) == tlsEnable {
		if values.Has(network.ParamCert) != values.Has(network.ParamKey) {
			find(network.ParamCert, "and key make a client certificate together; one of them is missing", false)
		}
		return findings
	}
	for _, name := range []string{network.ParamCA, network.ParamCert, network.ParamKey} {
		if values.Has(name) {
			find(name, `has no effect without tls "enable"`, true)
		}
	}
	return findings
}

// checkEndpoint takes what the client takes: host:port, or a URL without a path.
func checkEndpoint(endpoint string) error {
	for _, scheme := range []string{"unix:", "unixs:"} {
		if strings.HasPrefix(endpoint, scheme) {
			return nil
		}
	}
	host := endpoint
	if scheme, _, found := strings.Cut(endpoint, "://"); found {
		parsed, err := url.Parse(endpoint)
		switch {
		case scheme != "http" && scheme != "https":
			return errors.New("does not begin with http:// or https://")
		case err != nil || strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" || parsed.Fragment != "":
			return errors.New("is no address of a server; give https://host:port and nothing behind it")
		case parsed.User != nil:
			return errors.New("holds credentials; give username and password as parameters of their own")
		}
		host = parsed.Host
	}
	name, port, err := net.SplitHostPort(host)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || number == 0 || name == "" || strings.ContainsAny(name, "/@ \t\r\n\x00") {
		return errors.New("is no address of a server; give host:port, for example etcd.example:2379")
	}
	return nil
}

// silence is for how long a watch may tell nothing: twice as long as the servers do at most, as in KEDA.
func silence(seconds int64) time.Duration {
	const most = int64(100 * 365 * 24 * time.Hour / time.Second) // what a time.Duration can hold, and more than enough
	return 2 * time.Duration(min(seconds, most)) * time.Second
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramValue), Activation: values.Float(paramActivation)}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, values.String(paramKey))
}
