package postgresql

import (
	"fmt"
	"slices"
	"strings"

	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests, and KEDA's name for its value.
const typeName = "postgresql"

// Parameter names.
const (
	paramTarget     = "targetQueryValue"
	paramActivation = "activationTargetQueryValue"
	paramConnection = "connection"
	paramQuery      = "query"
	paramHost       = "host"
	paramPort       = "port"
	paramUserName   = "userName"
	paramDBName     = "dbName"
	paramSSLMode    = "sslmode"
	paramPassword   = "password"
	paramChannel    = "channel"
	paramClaimTable = "claimTable"
	paramClaimKey   = "claimKey"
	paramClaimItem  = "claimItem"
	paramClaimWhere = "claimWhere"
)

// parts are the parameters that stand in for a connection string; all of them are needed.
var parts = []string{paramHost, paramPort, paramUserName, paramDBName, paramSSLMode}

// connectionGroup holds the parameters of which none is required by itself.
const connectionGroup = "connection"

// sslModes are what PostgreSQL's own clients take.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// maxChannel is how long a channel's name may be, in bytes (NAMEDATALEN less one); PostgreSQL cuts longer ones.
const maxChannel = 63

// params declares the parameters in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/postgresql_scaler.go.
func params() []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	authBeforeMetadata := []trigger.Source{trigger.FromAuth, trigger.FromMetadata}
	authBeforeEnv := []trigger.Source{trigger.FromAuth, trigger.FromEnv}
	return []trigger.Param{
		{
			Name: paramTarget, Kind: trigger.Float, Positive: true, Sources: metadataOnly,
			Doc: "How much of the query's result one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Optional: true, Sources: metadataOnly,
			Doc: "The result above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramConnection, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true,
			Sources: authBeforeEnv,
			Doc: "The connection string, as postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE or as " +
				"host=HOST port=PORT user=USER password=PASSWORD dbname=DATABASE sslmode=MODE; it wins over host and the rest.",
		},
		{
			Name: paramQuery, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The query that measures; it returns one row with one number.",
		},
		{
			Name: paramHost, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: authBeforeMetadata,
			Doc: "The server's host, or the folder of its unix socket; required without connection.",
		},
		{
			Name: paramPort, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: authBeforeMetadata,
			Doc: "The server's port; required without connection.",
		},
		{
			Name: paramUserName, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: authBeforeMetadata,
			Doc: "The user; required without connection.",
		},
		{
			Name: paramDBName, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: authBeforeMetadata,
			Doc: "The database; required without connection.",
		},
		{
			Name: paramSSLMode, Kind: trigger.String, Optional: true, Group: connectionGroup, Sources: authBeforeMetadata,
			Doc: "Whether to use TLS and what to verify: disable, allow, prefer, require, verify-ca or verify-full; " +
				"required without connection.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Optional: true, Group: connectionGroup, Secret: true,
			Sources: authBeforeEnv,
			Doc:     "The user's password, as it is.",
		},
		{
			Name: paramChannel, Kind: trigger.String, Optional: true, Extension: true, Sources: metadataOnly,
			Doc: "The channel on which NOTIFY tells of changes, for example from a trigger on a table, so that they are " +
				"noticed at once and not with the next poll: its exact name, as pg_notify has it. " +
				"KEDA does not have this parameter. It needs a connection to the server itself; " +
				"through a pooler of transactions nothing is told.",
		},
		{
			Name: paramClaimTable, Kind: trigger.String, Optional: true, Extension: true, Sources: metadataOnly,
			Doc: "The table whose rows are items, as SQL names it, for example jobs or shop.jobs, for delivery by claim, " +
				"which requires it, and offboard push. A claim takes the row out of the table, so query is to count its rows. " +
				"KEDA does not have this parameter.",
		},
		{
			Name: paramClaimKey, Kind: trigger.String, Default: "id", Extension: true, Sources: metadataOnly,
			Doc: "The column that tells the rows of claimTable apart, and in whose order they are claimed: a primary key, or " +
				"NOT NULL and UNIQUE. KEDA does not have this parameter.",
		},
		{
			Name: paramClaimItem, Kind: trigger.String, Default: "item", Extension: true, Sources: metadataOnly,
			Doc: "The column of claimTable that is the item: the bytes of a bytea, or else the value as text, for example of " +
				"a jsonb. KEDA does not have this parameter.",
		},
		{
			Name: paramClaimWhere, Kind: trigger.String, Optional: true, Extension: true, Sources: metadataOnly,
			Doc: "A condition in SQL that is true of the rows of claimTable which may be claimed, for example " +
				"run_at <= now(); all may be unless given. KEDA does not have this parameter.",
		},
	}
}

// check finds what is missing and what contradicts.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message})
	}
	if mode := values.String(paramSSLMode); mode != "" && !slices.Contains(sslModes, mode) {
		fail(paramSSLMode, "is not allowed; give "+strings.Join(sslModes, ", "))
	}
	if channel := values.String(paramChannel); len(channel) > maxChannel || strings.ContainsRune(channel, 0) {
		fail(paramChannel, fmt.Sprintf("is no name of a channel; give one of at most %d bytes", maxChannel))
	}
	if table := values.String(paramClaimTable); table != "" {
		if name, err := postgresqlqueue.ParseName(table); err != nil {
			fail(paramClaimTable, err.Error())
		} else if len(name) > 2 {
			fail(paramClaimTable, "has more than a schema and a table; give for example shop.jobs")
		}
		for _, name := range []string{paramClaimKey, paramClaimItem} {
			if column, err := postgresqlqueue.ParseName(values.String(name)); err != nil || len(column) > 1 {
				fail(name, `is no name of a column as SQL has it; give for example job_id or "Job ID"`)
			}
		}
	}
	if values.Known(paramConnection) && !values.Has(paramConnection) {
		for _, name := range parts {
			if values.Known(name) && !values.Has(name) {
				fail(name, fmt.Sprintf("is required where no connection is given; give %s in metadata or in a "+
					"TriggerAuthentication, or connectionFromEnv, or connection in a TriggerAuthentication", name))
			}
		}
	}
	if values.Has(paramConnection) {
		for _, name := range append(slices.Clone(parts), paramPassword) {
			if values.Has(name) {
				findings = append(findings, trigger.ParamError{
					Key: values.Key(name), Message: "has no effect because connection is given too and wins; remove one of them",
					Warning: true,
				})
			}
		}
	}
	return findings
}

// checkClaims finds what delivery by claim needs besides.
func checkClaims(values trigger.Values) []trigger.ParamError {
	if values.Has(paramClaimTable) {
		return nil
	}
	return []trigger.ParamError{{
		Key: paramClaimTable, Message: "is required where delivery.mode is claim; give the table whose rows are items",
	}}
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramTarget), Activation: values.Float(paramActivation)}
}
