// Package postgresqlqueue hands out the rows of a PostgreSQL table. A claim moves a row, in one transaction, from the
// user's table to a table of records, offboard_items in the same schema; what goes back is put into the user's table
// again, as the same row under the same key and so at its old place. Whoever only knows the user's table goes on
// working next to it: a row that another transaction has locked (FOR UPDATE SKIP LOCKED) is left to it, and a claimed
// row is not there.
//
// Every operation is one transaction, so an item is in one place at any time, and a crash, whether of the client, of
// the server or of the connection, leads to one of two states: as if the operation had not been, or as if its answer
// had been read. Claims then tells which; a settlement that is repeated changes nothing, because it names the attempt,
// which each claim counts up. A transaction that is left open by a client that is gone ends after openTime; until then,
// whoever claims from the same table waits.
//
// It knows how to speak of items and not how to reach a server: that is Conn.
package postgresqlqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Conn runs transactions on a server.
type Conn interface {
	// Do runs work in a transaction that begins with TxOptions, and commits it. It may run work again, in another one,
	// while the one before is certain not to have been committed.
	Do(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error
}

// openTime is how long the server waits for the next statement of a transaction.
const openTime = "10s"

// TxOptions are those of all transactions. What is answered holds, also where the user's other transactions may be lost
// in a crash, and values have one form as text, whatever the user's settings are.
var TxOptions = pgx.TxOptions{BeginQuery: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; " +
	"SET LOCAL idle_in_transaction_session_timeout = '" + openTime + "'; SET LOCAL datestyle = 'ISO'; " +
	"SET LOCAL extra_float_digits = 1; " +
	"SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"}

// Options say which rows are items.
type Options struct {
	// Table is the table's name as SQL has it; see ParseName.
	Table string
	// Key is the name of the column whose order is the queue's, and Item that of the item's bytes.
	Key, Item string
	// Where is a condition in SQL that is true of rows which may be claimed; empty means all.
	Where string
	// Channel is notified when items are back or wait; empty means none.
	Channel string
}

// Queue is the rows of one table.
type Queue struct {
	conn    Conn
	options Options
}

var _ queue.Queue = (*Queue)(nil)

// New returns the rows of a table.
func New(conn Conn, options Options) *Queue { return &Queue{conn, options} }

// Name implements queue.Queue.
func (q *Queue) Name() string { return q.options.Table }

// Errors that say what there is not.
var (
	errLeases = queue.Unsupported("items of a table in PostgreSQL have no leases, since only a Job gets them")
	errLater  = queue.Unsupported("a row of a table in PostgreSQL cannot be pushed for later or only once; " +
		"insert it when it is due, or let claimWhere compare a time")
)

// do runs work in a transaction, with what the table is like.
func (q *Queue) do(ctx context.Context, work func(ctx context.Context, tx pgx.Tx, t *table) error) error {
	return q.conn.Do(ctx, func(ctx context.Context, tx pgx.Tx) error {
		t, err := q.describe(ctx, tx)
		if err != nil {
			return err
		}
		return work(ctx, tx, t)
	})
}

// withRecords runs work in a transaction if there are any records.
func (q *Queue) withRecords(ctx context.Context, work func(ctx context.Context, tx pgx.Tx, t *table) error) error {
	return q.do(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		if !t.Records {
			return nil
		}
		return work(ctx, tx, t)
	})
}

// where is the condition as a part of a statement: the user's text cannot end it, by a comment for example.
func (q *Queue) where() string {
	if q.options.Where == "" {
		return "true"
	}
	return "(\n" + q.options.Where + "\n)"
}

// notify tells who watches the channel.
func (q *Queue) notify(ctx context.Context, tx pgx.Tx) error {
	if q.options.Channel == "" {
		return nil
	}
	_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", q.options.Channel)
	return err
}

// Extend implements queue.Queue.
func (q *Queue) Extend(context.Context, string, int, time.Duration) (bool, error) {
	return false, errLeases
}

// Sweep implements queue.Queue. It also forgets what is known of rows that others have taken out of the table.
func (q *Queue) Sweep(ctx context.Context) (swept queue.Swept, err error) {
	swept.Next = -1
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		if err := q.find(t); err != nil {
			return err
		}
		if swept.Returned, err = q.returnDue(ctx, tx, t); err != nil {
			return err
		}
		if err := t.forget(ctx, tx); err != nil {
			return err
		}
		if swept.Next, err = t.next(ctx, tx); err != nil || swept.Returned == 0 {
			return err
		}
		return q.notify(ctx, tx)
	})
	return swept, err
}

// forget drops what is known of rows that are not in the table any more.
func (t *table) forget(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `DELETE FROM `+t.items()+` AS i WHERE queue = $1 AND state = 'ready'
AND NOT EXISTS (SELECT FROM `+t.quoted()+` AS t WHERE t.`+t.key.quoted()+` = i.key::`+t.key.Type+`)`, t.Name)
	return err
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, owner string) (released int, err error) {
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		ids, err := lock(ctx, tx, t, "state = 'claimed' AND ($2 = '' OR owner = $2)", "FOR UPDATE", owner)
		if err != nil {
			return err
		}
		released = len(ids)
		if _, err := q.putBack(ctx, tx, t, ids); err != nil || released == 0 {
			return err
		}
		return q.notify(ctx, tx)
	})
	return released, err
}

// Push implements queue.Queue. All columns but the item's get their defaults.
func (q *Queue) Push(ctx context.Context, o queue.PushOptions, items ...[]byte) (pushed queue.Pushed, err error) {
	if o.Delay > 0 || !o.At.IsZero() || o.Unique != "" {
		return pushed, errLater
	}
	err = q.do(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		if err := q.find(t); err != nil {
			return err
		}
		value := "item"
		if t.item.Type != typeBytes {
			value = "convert_from(item, 'UTF8')::" + t.item.Type
			for i, item := range items {
				if !utf8.Valid(item) || strings.ContainsRune(string(item), 0) {
					return refused("takes no item %d: column %q is of type %s, and the item is no text; push text, or let the column "+
						"be of type bytea", i+1, t.item.Name, t.item.Type)
				}
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO `+t.quoted()+` (`+t.item.quoted()+`) SELECT `+value+`
FROM unnest($1::bytea[]) WITH ORDINALITY AS i (item, n) ORDER BY n`, items); err != nil {
			return t.refusal(err)
		}
		if err := q.notify(ctx, tx); err != nil {
			return err
		}
		pushed.Length, err = q.ready(ctx, tx, t)
		return err
	})
	return pushed, err
}

// refusal returns the error of an insert. The server's words on values that do not fit show these.
func (t *table) refusal(err error) error {
	var reply *pgconn.PgError
	switch {
	case !errors.As(err, &reply):
	case strings.HasPrefix(reply.Code, "22"):
		return refused("takes none of these items: column %q is of type %s, which one of them does not fit (SQLSTATE %s)",
			t.item.Name, t.item.Type, reply.Code)
	case strings.HasPrefix(reply.Code, "23"):
		return refused("takes none of these items: a row with nothing but column %q given breaks a rule of table %s "+
			"(SQLSTATE %s)", t.item.Name, t.Name, reply.Code)
	}
	return err
}

// ready counts what can be claimed.
func (q *Queue) ready(ctx context.Context, tx pgx.Tx, t *table) (n int64, err error) {
	err = tx.QueryRow(ctx, "SELECT count(*) FROM "+t.quoted()+" WHERE "+q.where()).Scan(&n)
	return n, err
}

// RetryDead implements queue.Queue. An item whose row the table does not take stays dead.
func (q *Queue) RetryDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, ids, func(ctx context.Context, tx pgx.Tx, t *table, dead []int64) ([]int64, error) {
		if _, err := tx.Exec(ctx, `UPDATE `+t.items()+` SET failures = 0 WHERE queue = $1 AND claim = ANY($2::bigint[])`,
			t.Name, dead); err != nil {
			return nil, err
		}
		back, err := q.putBack(ctx, tx, t, dead)
		if err != nil {
			return nil, err
		}
		return back, q.notify(ctx, tx)
	})
}

// DropDead implements queue.Queue.
func (q *Queue) DropDead(ctx context.Context, ids ...string) ([]string, error) {
	return q.dead(ctx, ids, func(ctx context.Context, tx pgx.Tx, t *table, dead []int64) ([]int64, error) {
		if _, err := tx.Exec(ctx, `DELETE FROM `+t.items()+` WHERE queue = $1 AND claim = ANY($2::bigint[])`,
			t.Name, dead); err != nil {
			return nil, err
		}
		return dead, t.count(ctx, tx, counts{dropped: len(dead)})
	})
}

// dead does something with those of the ids that are dead, if any is, and returns those of which it was done.
func (q *Queue) dead(
	ctx context.Context, ids []string, do func(ctx context.Context, tx pgx.Tx, t *table, dead []int64) ([]int64, error),
) ([]string, error) {
	var done []int64
	err := q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		done = nil
		dead, err := lock(ctx, tx, t, "state = 'dead' AND claim = ANY($2::bigint[])", "FOR UPDATE", parseIDs(ids))
		if err != nil || len(dead) == 0 {
			return err
		}
		done, err = do(ctx, tx, t, dead)
		return err
	})
	if err != nil {
		return nil, err
	}
	return formatIDs(done), nil
}

// Stats implements queue.Queue. Rates and ages are not known.
func (q *Queue) Stats(ctx context.Context) (stats queue.Stats, err error) {
	err = q.do(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		stats = queue.Stats{}
		if err := q.find(t); err != nil {
			return err
		}
		if stats.Ready, err = q.ready(ctx, tx, t); err != nil {
			return err
		}
		if stats.Ready > 0 {
			stats.Oldest = -1
		}
		if !t.Records {
			return nil
		}
		return tx.QueryRow(ctx, `
SELECT count(*) FILTER (WHERE state = 'claimed'), count(*) FILTER (WHERE state = 'retry'),
  count(*) FILTER (WHERE state = 'dead'),
  coalesce(max(q.done), 0), coalesce(max(q.buried), 0), coalesce(max(q.dropped), 0)
FROM `+t.queues()+` AS q
LEFT JOIN `+t.items()+` AS i ON i.queue = q.queue AND i.part = 1 AND i.state <> 'ready' WHERE q.queue = $1`, t.Name).
			Scan(&stats.Claimed, &stats.Retry, &stats.Dead, &stats.Done, &stats.Buried, &stats.Dropped)
	})
	return stats, err
}

// Claimed returns how many claims there are, whosever they are.
func (q *Queue) Claimed(ctx context.Context) (n int64, err error) {
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM `+t.items()+`
WHERE queue = $1 AND state = 'claimed' AND part = 1`, t.Name).Scan(&n)
	})
	return n, err
}

// formatID writes an id as the contract has it; parseID reads it, or returns 0, which is none.
func formatID(id int64) string { return fmt.Sprintf("%016x", id) }

func parseID(text string) int64 {
	id, err := strconv.ParseInt(text, 16, 64)
	if err != nil || formatID(id) != text {
		return 0
	}
	return id
}

func formatIDs(ids []int64) []string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = formatID(id)
	}
	return texts
}

func parseIDs(texts []string) []int64 {
	ids := make([]int64, len(texts))
	for i, text := range texts {
		ids[i] = parseID(text)
	}
	return ids
}
