package mysql

import (
	"fmt"
	"slices"
	"strings"

	driver "github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "mysql"

// Parameter names.
const (
	paramConnection = "connectionString"
	paramUsername   = "username"
	paramPassword   = "password"
	paramHost       = "host"
	paramPort       = "port"
	paramDBName     = "dbName"
	paramQuery      = "query"
	paramTarget     = "queryValue"
	paramActivation = "activationQueryValue"
	paramMetricName = "metricName"
)

// connectionGroup holds the parameters of which none is required by itself.
const connectionGroup = "connection"

// parts are the parameters that stand in for a connection string.
var parts = []string{paramHost, paramPort, paramUsername, paramPassword, paramDBName}

// params declares the parameters in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/mysql_scaler.go.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	metadataBeforeAuth := []trigger.Source{trigger.FromMetadata, trigger.FromAuth}
	authBeforeEnv := []trigger.Source{trigger.FromAuth, trigger.FromEnv}
	return []trigger.Param{
		{
			Name: paramConnection, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true,
			Sources: authBeforeEnv,
			Doc:     "The connection string, as USER:PASSWORD@tcp(HOST:PORT)/DATABASE?tls=true; it wins over host and the rest.",
		},
		{
			Name: paramUsername, Kind: trigger.String, Optional: true, Group: connectionGroup,
			Sources: []trigger.Source{trigger.FromMetadata, trigger.FromAuth, trigger.FromEnv},
			Doc:     "The user.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true,
			Sources: authBeforeEnv,
			Doc:     "The user's password; none unless given.",
		},
		{
			Name: paramHost, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: metadataBeforeAuth,
			Doc: "The server's host; required without connectionString.",
		},
		{
			Name: paramPort, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: metadataBeforeAuth,
			Doc: "The server's port; required without connectionString.",
		},
		{
			Name: paramDBName, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: metadataBeforeAuth,
			Doc: "The database; needed unless the query names it.",
		},
		{
			Name: paramQuery, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The query that measures; it returns one row with one number.",
		},
		{
			Name: paramTarget, Kind: trigger.Float, Positive: true, Sources: metadataOnly,
			Doc: "How much of the query's result one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Default: "0", Sources: metadataOnly,
			Doc: "The result above which the trigger is active.",
		},
		{
			Name: paramMetricName, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "Without effect, as in KEDA, which makes the name of the value itself.",
		},
	}
}

// check finds what is missing and what contradicts.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	find := func(name, message string, warning bool) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message, Warning: warning})
	}
	if values.Known(paramConnection) && !values.Has(paramConnection) {
		for _, name := range []string{paramHost, paramPort} {
			if values.Known(name) && !values.Has(name) {
				find(name, fmt.Sprintf("is required where no connectionString is given; give %s in metadata or in a "+
					"TriggerAuthentication, or connectionStringFromEnv, or connectionString in a TriggerAuthentication", name), false)
			}
		}
	}
	if port := values.String(paramPort); port != "" && !validPort(port) {
		find(paramPort, "is not a port; give a number from 1 to 65535", false)
	}
	if host := values.String(paramHost); strings.ContainsAny(host, "/@() \t\r\n\x00") {
		find(paramHost, "is not a host; give a name or an address without a port", false)
	}
	if values.Has(paramConnection) {
		for _, name := range parts {
			if values.Has(name) {
				find(name, "has no effect because connectionString is given too and wins; remove one of them", true)
			}
		}
	}
	return findings
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramTarget), Activation: values.Float(paramActivation)}
}

// metricName is KEDA's name for the trigger's value: of a connection string, it has what follows the last slash. One
// that is none, which might end in a password, has no part in it.
func metricName(values trigger.Values) string {
	name := values.String(paramDBName)
	if text := values.String(paramConnection); text != "" {
		name = ""
		if _, err := driver.ParseDSN(text); err == nil {
			elements := strings.Split(text, "/")
			name = elements[len(elements)-1]
		}
	}
	return typeName + "-" + name
}

// isURL tells whether a connection string has the form that other clients take.
func isURL(text string) bool {
	return slices.ContainsFunc([]string{"mysql://", "mariadb://", "jdbc:"}, func(prefix string) bool {
		return strings.HasPrefix(text, prefix)
	})
}
