package postgresqlqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/offboard-dev/offboard/internal/queue"
)

// reasonRefused is why an item is dead whose row the table does not take back.
const reasonRefused = "RowRefused"

// refusedError tells that the table does not take a row back.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// putBack puts the rows of claims, which the transaction has locked, back into the table. An item whose row the table
// does not take is dead instead. It returns the ids of those that are back.
func (q *Queue) putBack(ctx context.Context, tx pgx.Tx, t *table, ids []int64) (back []int64, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return t.insert(ctx, tx, ids) })
	var refused refusedError
	switch {
	case err == nil:
		return ids, nil
	case !errors.As(err, &refused):
		return nil, err
	case len(ids) == 1:
		return nil, q.refuse(ctx, tx, t, ids[0], refused)
	}
	for _, id := range ids {
		one, err := q.putBack(ctx, tx, t, []int64{id})
		if err != nil {
			return nil, err
		}
		back = append(back, one...)
	}
	return back, nil
}

// insert puts rows back. A column that the table did not have when the row was taken gets its default.
func (t *table) insert(ctx context.Context, tx pgx.Tx, ids []int64) error {
	columns := t.kept()
	names, values := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.quoted()
		values[i] = fmt.Sprintf("(fields->>n[%d])::%s", i+1, c.Type)
		if c.Default != "" {
			values[i] = fmt.Sprintf("CASE WHEN fields ? n[%d] THEN %s ELSE %s END", i+1, values[i], c.Default)
		}
	}
	var inserted, noted int
	err := tx.QueryRow(ctx, `
WITH back AS (
  SELECT id, fields, $3::text[] AS n FROM `+t.items()+`
  WHERE queue = $1 AND claim = ANY($2::bigint[]) AND state <> 'ready'
), inserted AS (
  INSERT INTO `+t.quoted()+` (`+strings.Join(names, ", ")+`) OVERRIDING SYSTEM VALUE
  SELECT `+strings.Join(values, ", ")+` FROM back ORDER BY id RETURNING 1
), noted AS (
  UPDATE `+t.items()+` AS i SET state = 'ready', claim = i.id, part = 1, owner = NULL, since = NULL, at = NULL,
    item = NULL, fields = NULL
  FROM back WHERE i.queue = $1 AND i.id = back.id RETURNING 1
)
SELECT (SELECT count(*) FROM inserted), (SELECT count(*) FROM noted)`,
		t.Name, ids, namesOf(columns)).Scan(&inserted, &noted)
	var reply *pgconn.PgError
	if errors.As(err, &reply) {
		switch reply.Code[:2] {
		case "22", "23", "44", "P0": // data, constraints, WITH CHECK OPTION, and what triggers raise
			return refusedError(refusal(reply))
		}
	}
	if err == nil && inserted != noted {
		return refusedError("a trigger or a rule of the table keeps it out")
	}
	return err
}

// refusal says why the table does not take a row, without the values that are in the row.
func refusal(reply *pgconn.PgError) string {
	if reply.ConstraintName != "" {
		return fmt.Sprintf("it violates %s (SQLSTATE %s)", reply.ConstraintName, reply.Code)
	}
	return "SQLSTATE " + reply.Code
}

// refuse makes an item dead.
func (q *Queue) refuse(ctx context.Context, tx pgx.Tx, t *table, id int64, why refusedError) error {
	failure := encodeFailure(&queue.Failure{
		Reason: reasonRefused, Message: "the table " + t.Name + " does not take the row back: " + string(why), At: time.Now(),
	})
	done, err := tx.Exec(ctx, `UPDATE `+t.items()+` SET state = 'dead', total = total + 1, owner = NULL, at = now(),
  first_failure = coalesce(first_failure, $3), last_failure = $3
WHERE queue = $1 AND claim = $2 AND state <> 'dead'`, t.Name, id, failure)
	if err != nil || done.RowsAffected() == 0 { // it was dead before
		return err
	}
	return t.count(ctx, tx, counts{buried: 1})
}

// returnDue puts the items back whose wait is over, and returns how many that were.
func (q *Queue) returnDue(ctx context.Context, tx pgx.Tx, t *table) (int, error) {
	ids, err := lock(ctx, tx, t, "state = 'retry' AND at <= now()", "LIMIT 1000 FOR UPDATE SKIP LOCKED")
	if err != nil {
		return 0, err
	}
	back, err := q.putBack(ctx, tx, t, ids)
	return len(back), err
}

// lock locks the claims that the condition is true of, in the order of their ids, and returns these. The arguments of
// the condition are those from $2 on.
func lock(ctx context.Context, tx pgx.Tx, t *table, condition, how string, args ...any) ([]int64, error) {
	rows, err := tx.Query(ctx, `SELECT claim FROM `+t.items()+` WHERE queue = $1 AND part = 1 AND `+condition+
		` ORDER BY claim `+how, append([]any{t.Name}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// counts is what to add to the counters.
type counts struct{ done, buried, dropped int }

// count adds to the counters. It comes late in a transaction, since all transactions of the queue write the same row.
func (t *table) count(ctx context.Context, tx pgx.Tx, add counts) error {
	if add == (counts{}) {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO `+t.queues()+` AS q (queue, done, buried, dropped) VALUES ($1, $2, $3, $4)
ON CONFLICT (queue) DO UPDATE
SET done = q.done + excluded.done, buried = q.buried + excluded.buried, dropped = q.dropped + excluded.dropped`,
		t.Name, add.done, add.buried, add.dropped)
	return err
}

// encodeFailure returns the failure as JSON; nil for none.
func encodeFailure(f *queue.Failure) []byte {
	if f == nil {
		return nil
	}
	text, err := json.Marshal(f.Cut())
	if err != nil {
		panic(err) // it consists of texts, numbers and a time
	}
	return text
}

func decodeFailure(text []byte) (*queue.Failure, error) {
	if text == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	f := &queue.Failure{}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("a failure in %s is not what was written: %w", itemsTable, err)
	}
	return f, nil
}
