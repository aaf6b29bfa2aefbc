package postgresql_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// BenchmarkMeasure compares a measurement with the same query on a client of its own.
func BenchmarkMeasure(b *testing.B) {
	server := postgrestest.Start(b, postgrestest.Options{})
	server.Exec("CREATE TABLE jobs (id int, state text)",
		"INSERT INTO jobs SELECT n, 'waiting' FROM generate_series(1, 1000) n", "ANALYZE jobs")
	const text = "SELECT count(*) FROM jobs WHERE state = 'waiting'"
	for name, ask := range map[string]func(*pgxpool.Pool) error{
		"bare": func(pool *pgxpool.Pool) error {
			var value float64
			return pool.QueryRow(b.Context(), text).Scan(&value)
		},
		// Waiting for an answer no longer than a while costs, whoever does it.
		"deadline": func(pool *pgxpool.Pool) error {
			ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
			defer cancel()
			var value float64
			return pool.QueryRow(ctx, text).Scan(&value)
		},
	} {
		b.Run(name, func(b *testing.B) {
			pool, err := pgxpool.New(b.Context(), server.URL())
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			triggertest.Compare(b, query(b, server, postgresql.NewClients(), text), func() error { return ask(pool) })
		})
	}
}
