package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/database"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients holds the connections that triggers share. One per process is enough; the zero value is not usable.
type Clients struct {
	servers *shared.Clients[settings, *server]
}

// NewClients returns an empty set. It needs no closing: connections end with the last trigger that uses them.
func NewClients() *Clients {
	return &Clients{shared.New[settings](func(s *server) { _ = s.db.Close() })}
}

// idleTime is how long a connection that nobody uses is kept; servers keep it for hours, what is between them may not.
const idleTime = 5 * time.Minute

// server is one MySQL or MariaDB server as one user sees it.
type server struct {
	config *mysql.Config
	db     *sql.DB
}

// newServer makes connections when they are first needed.
func newServer(config *mysql.Config, connector driver.Connector) *server {
	db := sql.OpenDB(boundedConnector{connector})
	db.SetMaxOpenConns(database.MaxConnections)
	db.SetMaxIdleConns(database.MaxConnections)
	db.SetConnMaxIdleTime(idleTime)
	return &server{config: config, db: db}
}

// boundedConnector makes connections on which the server itself ends a query that takes longer than a measurement may:
// it does not notice that nobody waits any more.
type boundedConnector struct{ driver.Connector }

// boundStatements are the same in the words of MariaDB and of MySQL, which take it in seconds and milliseconds.
var boundStatements = []string{
	fmt.Sprintf("SET SESSION max_statement_time=%g", trigger.MeasureTimeout.Seconds()),
	fmt.Sprintf("SET SESSION max_execution_time=%d", trigger.MeasureTimeout.Milliseconds()),
}

// Connect implements driver.Connector.
func (c boundedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range boundStatements {
		_, err = conn.(driver.ExecerContext).ExecContext(ctx, statement, nil)
		var reply *mysql.MySQLError
		if !errors.As(err, &reply) || reply.Number != errUnknownVariable {
			break
		}
		err = nil // the other one's, or one that is too old for either
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// number runs the query and returns the number that it gives. A connection that turns out to be lost is replaced once.
func (s *server) number(ctx context.Context, query string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		value, err := s.ask(ctx, query)
		if err == nil {
			return value, nil
		}
		var wrong database.ResultError
		if errors.As(err, &wrong) {
			return 0, fmt.Errorf("mysql at %s: %w", s.config.Addr, wrong.Err)
		}
		if attempt == 0 && ctx.Err() == nil && errors.Is(err, mysql.ErrInvalidConn) {
			continue
		}
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return 0, s.explain(err)
	}
}

// ask runs the query once.
func (s *server) ask(ctx context.Context, query string) (float64, error) {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return 0, err
		}
		return 0, database.ResultError{Err: database.ErrNoRow}
	}
	if err := database.OneColumn(len(columns)); err != nil {
		return 0, err
	}
	var value any
	if err := rows.Scan(&value); err != nil {
		return 0, err
	}
	// As in KEDA, the first row counts. What comes after it may still tell of a failure.
	if err := errors.Join(rows.Close(), rows.Err()); err != nil {
		return 0, err
	}
	number, err := parse(value)
	if err != nil {
		return 0, database.ResultError{Err: err}
	}
	return number, nil
}

// parse returns the number that a value of the driver is. As in KEDA, a text that is a number counts as one.
func parse(value any) (float64, error) {
	switch value := value.(type) {
	case nil:
		return 0, database.ErrNull
	case int64:
		return float64(value), nil
	case uint64:
		return float64(value), nil
	case float32:
		// The shortest decimal number that it stands for, which is what the database has.
		return parse([]byte(strconv.FormatFloat(float64(value), 'g', -1, 32)))
	case float64:
		return database.Number(value)
	case []byte:
		number, err := strconv.ParseFloat(string(value), 64)
		if err != nil {
			// The value itself may be a secret.
			return 0, errors.New("the query returns a text that is no number; convert it, for example with CAST(... AS SIGNED)")
		}
		return database.Number(number)
	default:
		return 0, fmt.Errorf("the query returns a value of type %T, which is no number", value)
	}
}
