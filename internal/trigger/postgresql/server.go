package postgresql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

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
	return &Clients{shared.New[settings]((*server).stop)}
}

// server is one PostgreSQL server as one user sees it.
type server struct {
	settings settings
	config   *pgxpool.Config
	address  string
	pool     *pgxpool.Pool
	listener *listener
}

// acquire returns the server of the settings and their configuration. The log is used when this is its first user.
// release must be called once; it ends the connections when no one else uses them.
func (c *Clients) acquire(s settings, config *pgxpool.Config, log *slog.Logger) (used *server, release func()) {
	return c.servers.Acquire(s, func() *server { return newServer(s, config, log) })
}

// newServer makes connections when they are first needed.
func newServer(s settings, config *pgxpool.Config, log *slog.Logger) *server {
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		panic("postgresql: a pool without connections") // it fails for no other reason
	}
	made := &server{settings: s, config: config, address: address(&config.ConnConfig.Config), pool: pool}
	made.listener = newListener(made, log)
	return made
}

// closePatience is how long the end of connections is waited for.
const closePatience = time.Second

// stop ends all connections. It does not wait for those that a server which does not answer keeps: pgx ends them
// within 15 seconds.
func (s *server) stop() {
	s.listener.stop()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closePatience):
	}
}

// number runs the query and returns the number that it gives. A connection that turns out to be lost is replaced once.
// When ctx ends first, the query is cancelled on the server.
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
			return 0, fmt.Errorf("postgresql at %s: %w", s.address, wrong.Err)
		}
		var lost lostError
		if attempt == 0 && ctx.Err() == nil && errors.As(err, &lost) {
			s.pool.Reset() // the others are likely to be lost as well
			continue
		}
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return 0, s.explain(err)
	}
}

// lostError tells that a connection was lost that had been good.
type lostError struct{ error }

// Unwrap returns why.
func (e lostError) Unwrap() error { return e.error }

// ask runs the query once.
func (s *server) ask(ctx context.Context, query string) (float64, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	value, err := read(ctx, conn.Conn(), query)
	if isLost(err) {
		return 0, lostError{err}
	}
	return value, err
}

func read(ctx context.Context, conn *pgx.Conn, query string) (float64, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns := rows.FieldDescriptions()
	if !rows.Next() {
		rows.Close()
		if err := rows.Err(); err != nil {
			return 0, err
		}
		return 0, database.ResultError{Err: database.ErrNoRow}
	}
	if err := database.OneColumn(len(columns)); err != nil {
		return 0, err
	}
	var value *float64
	if err := rows.Scan(&value); err != nil {
		return 0, database.ResultError{Err: errNoNumber(conn.TypeMap(), columns[0].DataTypeOID)}
	}
	// As in KEDA, the first row counts. What comes after it may still tell of a failure.
	rows.Close()
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if value == nil {
		return 0, database.ResultError{Err: database.ErrNull}
	}
	number, err := database.Number(*value)
	if err != nil {
		return 0, database.ResultError{Err: err}
	}
	return number, nil
}

// errNoNumber says of which type the result is; the value itself may be a secret.
func errNoNumber(types *pgtype.Map, oid uint32) error {
	name := fmt.Sprintf("a type (OID %d)", oid)
	if known, found := types.TypeForOID(oid); found {
		name = "type " + known.Name
	}
	return fmt.Errorf("the query returns a value of %s, which is no number; "+
		"convert it, for example with CAST(... AS bigint)", name)
}
