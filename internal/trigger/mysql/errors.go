package mysql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/trigger/database"
)

// explain says which server failed, what that means, and what would be right. The error holds no password and no
// values of rows.
func (s *server) explain(err error) error {
	return fmt.Errorf("mysql at %s %s", s.config.Addr, s.hint(err))
}

func (s *server) hint(err error) string {
	var reply *mysql.MySQLError
	if errors.As(err, &reply) {
		return s.replyHint(reply)
	}
	const trust = "have the system trust it, or give a connectionString with tls=skip-verify"
	if reached := database.Reach(err, trust); reached != "" {
		return reached
	}
	switch {
	case errors.Is(err, mysql.ErrNoTLS):
		return "speaks no TLS; leave out tls in connectionString, or set it up there"
	case errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, driver.ErrBadConn):
		return "closed the connection"
	default:
		return "does not answer as expected: " + database.Shorten(err.Error(), s.config.Passwd)
	}
}

// Numbers of errors (https://mariadb.com/kb/en/mariadb-error-codes/).
const (
	errTooManyConnections = 1040
	errDatabaseDenied     = 1044
	errAccessDenied       = 1045
	errNoDatabase         = 1046
	errUnknownDatabase    = 1049
	errHostBlocked        = 1129
	errHostDenied         = 1130
	errTableDenied        = 1142
	errColumnDenied       = 1143
	errNoTable            = 1146
	errUnknownVariable    = 1193
	errInterrupted        = 1317
	errStatementTime      = 1969 // MariaDB
	errExecutionTime      = 3024 // MySQL
	errInsecureTransport  = 3159
	errInsecureMariaDB    = 4150
	errTruncated          = 1292
)

// replyHint says what an error that the server reports means, by its number.
func (s *server) replyHint(reply *mysql.MySQLError) string {
	message := fmt.Sprintf("%s (error %d)", database.Shorten(reply.Message, s.config.Passwd), reply.Number)
	switch reply.Number {
	case errAccessDenied:
		advice := "correct username and password"
		if s.config.TLSConfig == "" || s.config.TLSConfig == "false" {
			// MariaDB says the same to a user who has to use TLS.
			advice += ", or give a connectionString with tls=true if it takes connections with TLS only"
		}
		return fmt.Sprintf("does not accept user %q with this password; %s: %s", s.config.User, advice, message)
	case errDatabaseDenied, errTableDenied, errColumnDenied:
		return fmt.Sprintf("denies user %q what the query reads; allow it with GRANT: %s", s.config.User, message)
	case errUnknownDatabase, errNoDatabase:
		return "does not have the database; correct dbName: " + message
	case errNoTable:
		return "does not know a table of the query; correct the query or dbName: " + message
	case errTooManyConnections:
		return "takes no more connections; raise its max_connections: " + message
	case errHostBlocked, errHostDenied:
		return "takes no connections from this host: " + message
	case errInsecureTransport, errInsecureMariaDB:
		return "takes connections with TLS only; give a connectionString with tls=true: " + message
	case errInterrupted, errStatementTime, errExecutionTime:
		return "ended the query before it had an answer: " + message
	}
	// The class says that the message is of the values that the query met.
	if state := string(reply.SQLState[:]); reply.Number == errTruncated || strings.HasPrefix(state, "22") ||
		strings.HasPrefix(state, "23") {
		return fmt.Sprintf("cannot compute the query with the values that there are (error %d)", reply.Number)
	}
	return "does not run the query: " + message
}
