package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

var (
	_ trigger.Pusher  = (*itemsOfTable)(nil)
	_ trigger.Claimer = (*itemsOfTable)(nil)
)

// itemsOfTable is what a trigger can do besides whose user has named a table of items.
type itemsOfTable struct {
	server  *server
	options postgresqlqueue.Options
}

// newItems returns nil where the user has named no table.
func newItems(opened *server, values trigger.Values) *itemsOfTable {
	if !values.Has(paramClaimTable) {
		return nil
	}
	return &itemsOfTable{opened, postgresqlqueue.Options{
		Table: values.String(paramClaimTable), Key: values.String(paramClaimKey), Item: values.String(paramClaimItem),
		Where: values.String(paramClaimWhere), Channel: values.String(paramChannel),
	}}
}

func (t *itemsOfTable) open(name string) *postgresqlqueue.Queue {
	options := t.options
	options.Table = cmp.Or(name, options.Table)
	return postgresqlqueue.New(transactions{t.server}, options)
}

// Items implements trigger.Claimer.
func (t *itemsOfTable) Items(name string) queue.Queue { return t.open(name) }

// Claimed implements trigger.Claimer.
func (t *itemsOfTable) Claimed(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	return t.open("").Claimed(ctx)
}

// Queue implements trigger.Pusher.
func (t *itemsOfTable) Queue() string { return t.options.Table }

// Push implements trigger.Pusher: it inserts rows.
func (t *itemsOfTable) Push(ctx context.Context, items ...[]byte) (int64, error) {
	if len(items) == 0 {
		return 0, nil
	}
	pushed, err := t.open("").Push(ctx, queue.PushOptions{}, items...)
	if err != nil {
		return 0, fmt.Errorf("push to table %s: %w", t.options.Table, err)
	}
	return pushed.Length, nil
}

// transactionTimeout bounds one transaction, waiting for a connection included.
const transactionTimeout = 10 * time.Second

// transactionTries is how often a transaction is begun at the most of which the server has done nothing.
const transactionTries = 3

// transactions runs transactions on the connections that measure.
type transactions struct{ *server }

var _ postgresqlqueue.Conn = transactions{}

// Do implements postgresqlqueue.Conn. A transaction that the server has ended before it was to be committed, because
// the connection was lost or others were in its way, runs again.
func (s transactions) Do(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	for try := 1; ; try++ {
		worked := false
		err := pgx.BeginTxFunc(ctx, s.pool, postgresqlqueue.TxOptions, func(tx pgx.Tx) error {
			err := work(ctx, tx)
			worked = err == nil
			return err
		})
		var table postgresqlqueue.TableError
		var connecting *pgconn.ConnectError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &table):
			return fmt.Errorf("postgresql at %s %w", s.address, err)
		case try < transactionTries && ctx.Err() == nil && inTheWay(err):
			continue
		case try < transactionTries && ctx.Err() == nil && !worked && isLost(err) && !errors.As(err, &connecting):
			s.pool.Reset() // the others are likely to be lost as well
			continue
		}
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		if worked {
			return fmt.Errorf("%w; it is not known whether the transaction was committed", s.explain(err))
		}
		return s.explain(err)
	}
}

// inTheWay tells that the server has rolled the transaction back because of another one.
func inTheWay(err error) bool {
	var reply *pgconn.PgError
	return errors.As(err, &reply) && (reply.Code == "40001" || reply.Code == "40P01")
}
