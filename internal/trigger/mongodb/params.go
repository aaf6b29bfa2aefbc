package mongodb

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// typeName is the trigger's type in manifests.
const typeName = "mongodb"

// Parameter names.
const (
	paramConnection = "connectionString"
	paramScheme     = "scheme"
	paramHost       = "host"
	paramPort       = "port"
	paramUsername   = "username"
	paramPassword   = "password"
	paramDatabase   = "dbName"
	paramCollection = "collection"
	paramQuery      = "query"
	paramValue      = "queryValue"
	paramActivation = "activationQueryValue"
	paramTLS        = "tls"
)

// tlsEnable is the value of parameter tls that turns TLS on; tlsDisable leaves it to the connection string.
const (
	tlsEnable  = "enable"
	tlsDisable = "disable"
)

// The schemes of a connection string. With the second, the servers are those that DNS names for the host.
const (
	schemePlain = "mongodb"
	schemeDNS   = "mongodb+srv"
)

// connectionGroup holds the parameters of which none is required by itself.
const connectionGroup = "connection"

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadata := []trigger.Source{trigger.FromMetadata}
	auth := []trigger.Source{trigger.FromAuth}
	both := []trigger.Source{trigger.FromAuth, trigger.FromMetadata}
	all := []trigger.Source{trigger.FromAuth, trigger.FromMetadata, trigger.FromEnv}
	list := []trigger.Param{
		{
			Name: paramConnection, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true, Sources: all,
			Doc: "Where and how to connect, as mongodb://user:password@host:port/database?options; " +
				"it wins over scheme, host, port, username and password.",
		},
		{
			Name: paramScheme, Kind: trigger.String, Default: schemePlain, Sources: both,
			Doc: "Either mongodb, or mongodb+srv where DNS names the servers of the host.",
		},
		{
			Name: paramHost, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: both,
			Doc: "The server's host, or those of a replica set, separated by commas, of which the last has the port and the " +
				"others 27017; required without a connectionString.",
		},
		{
			Name: paramPort, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: both,
			Doc: "The server's port; required without a connectionString, and of no use with scheme mongodb+srv.",
		},
		{
			Name: paramUsername, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: both,
			Doc: "The user, whom the database dbName knows; required without a connectionString.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true, Sources: all,
			Doc: "The user's password; required without a connectionString.",
		},
		{
			Name: paramDatabase, Kind: trigger.String, Sources: both,
			Doc: "The database that holds the collection.",
		},
		{
			Name: paramCollection, Kind: trigger.String, Sources: metadata,
			Doc: "The collection whose documents are counted.",
		},
		{
			Name: paramQuery, Kind: trigger.String, Sources: metadata,
			Doc: `Which documents count: a filter in MongoDB's extended JSON, for example {"state": "waiting"}.`,
		},
		{
			Name: paramValue, Kind: trigger.Float, Positive: true, Sources: metadata,
			Doc: "How many documents one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadata,
			Doc: "The number of documents above which the trigger is active.",
		},
		{
			Name: paramTLS, Kind: trigger.String, Default: tlsDisable, Allowed: []string{tlsEnable, tlsDisable}, Sources: auth,
			Doc: "Whether to connect with TLS by ca, cert and key, of which at least one is required then; " +
				"otherwise the connection string decides.",
		},
	}
	return slices.Concat(list, network.CertParams(), []trigger.Param{network.CAParam()})
}

// settings is all that makes one client differ from another.
type settings struct {
	uri    string
	tls    network.TLS
	useTLS bool
}

func newSettings(values trigger.Values) (settings, error) {
	made := settings{uri: connectionString(values), useTLS: values.String(paramTLS) == tlsEnable}
	if made.useTLS {
		made.tls = network.TLSOf(values)
		if _, err := made.tls.Config(); err != nil {
			return settings{}, err
		}
	}
	return made, nil
}

// connectionString returns what is given, or what the single parameters amount to. The database in it is the one that
// knows the user.
func connectionString(values trigger.Values) string {
	if values.Has(paramConnection) {
		return values.String(paramConnection)
	}
	made := url.URL{
		Scheme: values.String(paramScheme),
		User:   url.UserPassword(values.String(paramUsername), values.String(paramPassword)),
		Host:   values.String(paramHost),
		Path:   "/" + values.String(paramDatabase),
	}
	if made.Scheme != schemeDNS {
		made.Host = net.JoinHostPort(strings.Trim(made.Host, "[]"), values.String(paramPort))
	}
	return made.String()
}

// check finds what is wrong with values that are more than texts, and what contradicts.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	find := func(name, message string, warning bool) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message, Warning: warning})
	}
	if text := values.String(paramQuery); text != "" {
		if _, err := parseQuery(text); err != nil {
			find(paramQuery, err.Error(), false)
		}
	}
	switch {
	case values.Has(paramConnection):
		if checkURI(values.String(paramConnection)) != nil {
			find(paramConnection, "is not a connection string of MongoDB; give mongodb://user:password@host:port/database "+
				"with options that there are, and with user and password percent-encoded", false)
		}
	case values.Known(paramConnection):
		findings = append(findings, checkParts(values)...)
	}
	return append(findings, checkTLS(values)...)
}

// checkURI tells whether the driver takes a connection string. The error may hold parts of it. What DNS says about one
// is found when it is used.
func checkURI(uri string) error {
	if strings.HasPrefix(uri, schemeDNS+"://") {
		return nil
	}
	return options.Client().ApplyURI(uri).Validate()
}

// checkParts looks at the parameters that make a connection string.
func checkParts(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	refuse := func(name, message string) {
		finding := trigger.ParamError{Key: values.Key(name), Message: message}
		if values.Source(name) == trigger.FromMetadata && !strings.Contains(values.String(name), "@") {
			finding.Value = values.String(name)
		}
		findings = append(findings, finding)
	}
	scheme := values.String(paramScheme)
	for _, name := range []string{paramHost, paramPort, paramUsername, paramPassword} {
		known := values.Known(name) && values.Known(paramScheme)
		if known && !values.Has(name) && (name != paramPort || scheme != schemeDNS) {
			refuse(name, "is required without a connectionString; "+
				"give it, or connectionString in a TriggerAuthentication")
		}
	}
	if values.Known(paramScheme) && scheme != schemePlain && scheme != schemeDNS {
		refuse(paramScheme, "is not a scheme; give mongodb or mongodb+srv")
	}
	host := strings.Trim(values.String(paramHost), "[]")
	hosts := strings.Split(host, ",")
	several := len(hosts) > 1 && scheme == schemePlain && !strings.Contains(host, ":") && !slices.Contains(hosts, "")
	if strings.ContainsAny(host, "/@[]?# \t\r\n") || len(hosts) > 1 && !several ||
		strings.Contains(host, ":") && net.ParseIP(host) == nil {
		refuse(paramHost, "is not a host; give the name or the address of a server, and its port as port")
	}
	if port := values.String(paramPort); port != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			refuse(paramPort, "is not a port; give a number from 1 to 65535")
		}
	}
	return findings
}

func checkTLS(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	if !values.Known(paramTLS) {
		return nil
	}
	ca, cert, key := values.Has(network.ParamCA), values.Has(network.ParamCert), values.Has(network.ParamKey)
	if values.String(paramTLS) == tlsEnable {
		switch {
		case !ca && !cert && !key:
			findings = append(findings, trigger.ParamError{Key: paramTLS, Message: "needs ca, or cert and key; " +
				"with neither, leave it out and put tls=true into the connection string"})
		case cert != key:
			findings = append(findings, trigger.ParamError{
				Key: network.ParamCert, Message: "and key make a client certificate together; one of them is missing",
			})
		}
		return findings
	}
	for _, name := range []string{network.ParamCA, network.ParamCert, network.ParamKey} {
		if values.Has(name) {
			findings = append(findings, trigger.ParamError{
				Key: values.Key(name), Message: `has no effect without tls "enable"`, Warning: true,
			})
		}
	}
	return findings
}

// parseQuery reads a filter in MongoDB's extended JSON
// (https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/).
func parseQuery(text string) (bson.D, error) {
	var query bson.D
	if bson.UnmarshalExtJSON([]byte(text), true, &query) != nil {
		return nil, errors.New(`is not a filter in MongoDB's extended JSON; give an object such as {"state": "waiting"}`)
	}
	if len(query) == 0 {
		return nil, errors.New(`says nothing; for all documents give {"_id": {"$exists": true}}`)
	}
	return query, nil
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramValue), Activation: values.Float(paramActivation)}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, values.String(paramCollection))
}
