package queuetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
)

// PostgreSQLConn runs transactions on a pool of connections.
type PostgreSQLConn struct{ *pgxpool.Pool }

var _ postgresqlqueue.Conn = PostgreSQLConn{}

// Do implements postgresqlqueue.Conn.
func (c PostgreSQLConn) Do(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, c.Pool, postgresqlqueue.TxOptions, func(tx pgx.Tx) error { return work(ctx, tx) })
}

// OpenPostgreSQL returns connections of the superuser, which end with the test at the latest.
func OpenPostgreSQL(tb testing.TB, server *postgrestest.Server) PostgreSQLConn {
	tb.Helper()
	pool, err := pgxpool.New(context.Background(), server.URL())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return PostgreSQLConn{pool}
}

// PostgreSQL starts a PostgreSQL with the table work.
func PostgreSQL(tb testing.TB) *Source {
	server := postgrestest.Start(tb, postgrestest.Options{Trust: true})
	server.Exec("CREATE TABLE work (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, item text)")
	conn := OpenPostgreSQL(tb, server)
	return &Source{
		Trigger: fmt.Sprintf(`{type: postgresql, metadata: {query: SELECT count(*) FROM work, targetQueryValue: "1", `+
			`claimTable: work, host: %q, port: %q, userName: %s, dbName: %s, sslmode: disable}}`,
			server.Host(), server.Port(), postgrestest.User, postgrestest.Database),
		Push: func(ctx context.Context, items ...string) error {
			_, err := conn.Exec(ctx, "INSERT INTO work (item) SELECT unnest($1::text[])", items)
			return err
		},
		Queue: postgresqlqueue.New(conn, postgresqlqueue.Options{Table: "work", Key: "id", Item: "item"}),
		Exact: true,
		Kill:  server.Kill,
		Restart: func() {
			server.Restart()
			conn.Reset() // its connections are those of before
		},
	}
}
