package postgresqlqueue_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
)

func TestConform(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	queuetest.Conform(t, func(t *testing.T) queuetest.Fixture {
		name := pgx.Identifier{t.Name()}.Sanitize()
		server.Exec("CREATE TABLE " + name + " (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, item bytea)")
		conn := server.Connect()
		return queuetest.Fixture{
			Open: func(t *testing.T) (queue.Queue, func()) {
				pool := queuetest.OpenPostgreSQL(t, server)
				return postgresqlqueue.New(pool, postgresqlqueue.Options{Table: name, Key: "id", Item: "item"}), pool.Close
			},
			Push: func(t *testing.T, items ...string) {
				for _, item := range items {
					if _, err := conn.Exec(t.Context(), "INSERT INTO "+name+" (item) VALUES ($1)", []byte(item)); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	})
}
