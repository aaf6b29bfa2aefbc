package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/offboard-dev/offboard/internal/trigger/database"
)

// explain says which server failed, what that means, and what would be right. The error holds no password and no
// values of rows.
func (s *server) explain(err error) error {
	return fmt.Errorf("postgresql at %s %s", s.address, s.hint(err))
}

func (s *server) hint(err error) string {
	var reply *pgconn.PgError
	if errors.As(err, &reply) {
		return s.replyHint(reply)
	}
	const trust = "give a connection whose sslrootcert names the file of its certificate"
	if reached := database.Reach(err, trust); reached != "" {
		return reached
	}
	switch text := err.Error(); {
	case strings.Contains(text, "server refused TLS connection"):
		return "speaks no TLS; give sslmode disable, or set it up there"
	case errors.Is(err, pgconn.ErrConnClosed):
		return "closed the connection"
	default:
		return "does not answer as expected: " + database.Shorten(text, s.config.ConnConfig.Password)
	}
}

// replyHint says what a reply of the server means, by its SQLSTATE
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func (s *server) replyHint(reply *pgconn.PgError) string {
	connection := s.config.ConnConfig
	message := fmt.Sprintf("%s (SQLSTATE %s)", database.Shorten(reply.Message, connection.Password), reply.Code)
	switch reply.Code {
	case "28P01":
		if strings.Contains(connection.Password, `\`) || strings.Contains(string(s.settings), `\`) {
			return fmt.Sprintf("does not accept user %q with this password; a backslash in it is written twice in a connection "+
				"that is no URL, and once in password: %s", connection.User, message)
		}
		return fmt.Sprintf("does not accept user %q with this password; correct userName and password: %s",
			connection.User, message)
	case "28000":
		return "does not accept the user, the database or the kind of connection; see its pg_hba.conf: " + message
	case "3D000":
		return fmt.Sprintf("has no database %q; correct dbName: %s", connection.Database, message)
	case "42P01", "3F000":
		return "does not know a table or a schema of the query; correct the query or dbName: " + message
	case "42501":
		return fmt.Sprintf("denies user %q what the query reads; allow it with GRANT: %s", connection.User, message)
	case "53300":
		return "takes no more connections; raise its max_connections: " + message
	case "57014":
		return "ended the query before it had an answer: " + message
	case "57P03":
		return "is starting or ending: " + message
	case "57P01", "57P02", "57P05":
		return "ended the connection: " + message
	}
	// The class says that the message is of the values that the query met.
	if strings.HasPrefix(reply.Code, "22") || strings.HasPrefix(reply.Code, "23") {
		return fmt.Sprintf("cannot compute the query with the values that there are (SQLSTATE %s)", reply.Code)
	}
	return "does not run the query: " + message
}

// isLost tells whether the query may be repeated on another connection: this one is gone, or what it had prepared no
// longer fits. A caller that gave up, and other replies, are none of that.
func isLost(err error) bool {
	var reply *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &reply):
		switch reply.Code {
		case "57P01", "57P02", "57P05", "26000", "0A000":
			return true
		}
		return strings.HasPrefix(reply.Code, "08")
	default:
		return !errors.Is(err, pgx.ErrNoRows) && !errors.As(err, new(database.ResultError))
	}
}
