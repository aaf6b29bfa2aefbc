package postgresql

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/database"
)

// settings is all that makes one server's connections differ from another's: a connection string. Triggers with equal
// settings share connections.
type settings string

// Limits of connections.
const (
	// poolConnections leaves one of all connections to what listens.
	poolConnections = database.MaxConnections - 1
	// connectTimeout bounds an attempt to connect, for which no measurement need wait any longer.
	connectTimeout = 5 * time.Second
	// idleTime is how long a connection that nobody uses is kept.
	idleTime = 10 * time.Minute
	// applicationName is how connections call themselves, in pg_stat_activity for example.
	applicationName = "offboard"
)

// newSettings decides where and how to connect, and refuses what is no connection string.
func newSettings(values trigger.Values) (settings, *pgxpool.Config, error) {
	if !values.Has(paramConnection) {
		made := fromParts(values)
		config, err := made.config()
		if err != nil {
			return "", nil, partError(values, err)
		}
		return made, config, nil
	}
	made := settings(values.String(paramConnection))
	if err := made.misread(); err != nil {
		return "", nil, err
	}
	made = made.escaped()
	config, err := made.config()
	if err != nil {
		return "", nil, trigger.ParamError{Key: values.Key(paramConnection), Message: connectionProblem(err)}
	}
	return made, config, nil
}

// fromParts writes a connection string. Whatever a part holds stands for itself, as in KEDA since 2.20; before, a
// backslash in it stood for the character after it.
func fromParts(values trigger.Values) settings {
	var text strings.Builder
	for _, part := range []struct{ keyword, name string }{
		{"host", paramHost}, {"port", paramPort}, {"user", paramUserName}, {"dbname", paramDBName},
		{"sslmode", paramSSLMode}, {"password", paramPassword},
	} {
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(values.String(part.name))
		text.WriteString(part.keyword + "='" + quoted + "' ")
	}
	return settings(text.String())
}

// config returns the configuration of a pool. Its errors may show what the string holds.
func (s settings) config() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(string(s))
	if err != nil {
		return nil, err
	}
	config.MaxConns = min(config.MaxConns, poolConnections)
	config.MinConns = min(config.MinConns, config.MaxConns)
	config.MinIdleConns = min(config.MinIdleConns, config.MaxConns)
	config.MaxConnIdleTime = min(config.MaxConnIdleTime, idleTime)
	// A connection that is lost is found by the query itself, which is then repeated on another.
	config.ShouldPing = func(_ context.Context, _ pgxpool.ShouldPingParams) bool { return false }
	connection := &config.ConnConfig.Config
	if connection.ConnectTimeout == 0 || connection.ConnectTimeout > connectTimeout {
		connection.ConnectTimeout = connectTimeout
	}
	if connection.RuntimeParams["application_name"] == "" {
		connection.RuntimeParams["application_name"] = applicationName
	}
	return config, nil
}

// authority returns the part of a URL between :// and its path or query; false for a string of keywords.
func (s settings) authority() (begin, end int, ok bool) {
	scheme, rest, isURL := strings.Cut(string(s), "://")
	if !isURL || strings.ContainsAny(scheme, " =") {
		return 0, 0, false
	}
	begin = len(scheme) + len("://")
	if length := strings.IndexAny(rest, "/?"); length >= 0 {
		return begin, begin + length, true
	}
	return begin, len(s), true
}

// misread refuses a URL of which a part of the password would be taken for the host or the database, and then be shown.
func (s settings) misread() error {
	begin, end, isURL := s.authority()
	if !isURL {
		return nil
	}
	before, after := strings.Count(string(s[begin:end]), "@"), strings.Count(string(s[end:]), "@")
	if before != 1 && after > 0 {
		return trigger.ParamError{Key: paramConnection, Message: "is a URL whose user or password holds / or ? as such; " +
			"write %2F or %3F, and %40 for @"}
	}
	return nil
}

// escaped returns a URL in which the user and the password hold no @ as such. As in KEDA, the last one ends them; the
// driver would take the first.
func (s settings) escaped() settings {
	begin, end, isURL := s.authority()
	last := strings.LastIndex(string(s[begin:end]), "@")
	if !isURL || last < 0 {
		return s
	}
	credentials := strings.ReplaceAll(string(s[begin:begin+last]), "@", "%40")
	return s[:begin] + settings(credentials) + s[begin+last:]
}

// connectionProblem says what is wrong with a connection string, and shows nothing of it.
func connectionProblem(err error) string {
	const form = "; give postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE, " +
		"or host=HOST port=PORT user=USER password=PASSWORD dbname=DATABASE sslmode=MODE"
	for text, problem := range map[string]string{
		"invalid port":                    "holds a port that is none" + form,
		"sslmode is invalid":              "holds an sslmode that is none; give " + strings.Join(sslModes, ", "),
		"unable to read CA file":          "names a file of certificates, sslrootcert, that cannot be read",
		"unable to add CA":                "names a file of certificates, sslrootcert, that holds none",
		"unable to read sslkey":           "names a file of a key, sslkey, that cannot be read",
		"unable to load cert":             "names files sslcert and sslkey that make no client certificate",
		"failed to read service":          "names a service that cannot be read",
		"unknown target_session_attrs":    "holds target_session_attrs that are unknown",
		"invalid connect_timeout":         "holds a connect_timeout that is no number of seconds",
		"could not match":                 "holds numbers of hosts and ports that do not fit each other",
		"invalid default_query_exec_mode": "holds a default_query_exec_mode that is unknown",
		"cannot parse pool_":              "holds a pool_ option that is none",
		"pool_max_conns too small":        "holds a pool_max_conns that is too small; give at least 1",
		"both \"sslcert\" and \"sslkey\"": "names only one of sslcert and sslkey; give both",
	} {
		if strings.Contains(err.Error(), text) {
			return problem
		}
	}
	return "is no connection string of PostgreSQL" + form
}

// partError names the parameter that is wrong.
func partError(values trigger.Values, err error) trigger.ParamError {
	switch problem := err.Error(); {
	case strings.Contains(problem, "invalid port"), strings.Contains(problem, "could not match"):
		return trigger.ParamError{Key: values.Key(paramPort), Message: "is not a port; give a number from 1 to 65535"}
	default:
		return trigger.ParamError{Key: values.Key(paramHost), Message: "and the parameters with it " + connectionProblem(err)}
	}
}

// address names the server for messages.
func address(config *pgconn.Config) string {
	if strings.HasPrefix(config.Host, "/") {
		return config.Host
	}
	first := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	for _, other := range config.Fallbacks {
		if other.Host != config.Host || other.Port != config.Port {
			return first + " or another"
		}
	}
	return first
}
