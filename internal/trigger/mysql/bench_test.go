package mysql_test

import (
	"database/sql"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest/mariadbtest"
	"github.com/offboard-dev/offboard/internal/trigger/mysql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// BenchmarkMeasure compares a measurement with the same query on a client of its own.
func BenchmarkMeasure(b *testing.B) {
	server := mariadbtest.Start(b, mariadbtest.Options{})
	server.Exec("CREATE TABLE items (id int, state varchar(20))",
		"INSERT INTO items SELECT seq, 'waiting' FROM seq_1_to_1000")
	const text = "SELECT count(*) FROM items WHERE state = 'waiting'"
	db, err := sql.Open("mysql", server.DSN())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	triggertest.Compare(b, query(b, mysql.NewClients(), server.DSN(), text), func() error {
		var value float64
		return db.QueryRowContext(b.Context(), text).Scan(&value)
	})
}
