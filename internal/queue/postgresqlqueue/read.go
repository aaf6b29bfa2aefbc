package postgresqlqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/offboard-dev/offboard/internal/queue"
)

// shown is how many bytes of a part a list shows.
const shown = 4096

// Claims implements queue.Queue.
func (q *Queue) Claims(ctx context.Context, owner string) (claims []queue.Claim, err error) {
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		claims = nil
		rows, err := tx.Query(ctx, `SELECT claim, attempts, failures, owner, seen, since FROM `+t.items()+`
WHERE queue = $1 AND state = 'claimed' AND part = 1 AND ($2 = '' OR owner = $2) ORDER BY claim`, t.Name, owner)
		if err != nil {
			return err
		}
		var id int64
		var c queue.Claim
		_, err = pgx.ForEachRow(rows, []any{&id, &c.Attempt, &c.Failures, &c.Owner, &c.First, &c.Since}, func() error {
			c.ID = formatID(id)
			claims = append(claims, c)
			return nil
		})
		return err
	})
	return claims, err
}

// List implements queue.Queue.
func (q *Queue) List(ctx context.Context, state queue.State, skip, limit int) (records []queue.Record, err error) {
	order := "at, claim"
	switch state {
	case queue.Ready:
		return q.listReady(ctx, max(0, skip), max(0, limit))
	case queue.Delayed:
		return nil, nil
	case queue.Claimed:
		order = "claim"
	case queue.Retry, queue.Dead:
	default:
		return nil, queue.NotKept(state)
	}
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		records, err = t.records(ctx, tx, shown, "state = $3 ORDER BY "+order+" OFFSET $4 LIMIT $5",
			string(state), max(0, skip), max(0, limit))
		return err
	})
	return records, err
}

// Get implements queue.Queue. It knows claimed, put off and dead items.
func (q *Queue) Get(ctx context.Context, id string) (record queue.Record, err error) {
	var found []queue.Record
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		found, err = t.records(ctx, tx, 0, "state <> 'ready' AND claim = $3", parseID(id))
		return err
	})
	var of TableError
	switch {
	case errors.As(err, &of) && of.missing, err == nil && len(found) == 0:
		return record, fmt.Errorf("item %q of %q: %w", id, q.Name(), queue.ErrNotFound)
	case err != nil:
		return record, err
	}
	return found[0], nil
}

// records returns the records that the condition, with arguments from $3 on, is true of. Of each part it shows so many
// bytes; 0 means all.
func (t *table) records(
	ctx context.Context, tx pgx.Tx, most int, condition string, args ...any,
) (records []queue.Record, err error) {
	rows, err := tx.Query(ctx, `
SELECT claim, state, attempts, failures, total, coalesce(owner, ''), seen, since, at, first_failure, last_failure,
  (SELECT sum(octet_length(p.item)) FROM `+t.items()+` AS p WHERE p.queue = i.queue AND p.claim = i.claim),
  (SELECT array_agg(CASE WHEN $2 = 0 THEN p.item ELSE substring(p.item FOR $2) END ORDER BY p.part)
    FROM `+t.items()+` AS p WHERE p.queue = i.queue AND p.claim = i.claim)
FROM `+t.items()+` AS i WHERE queue = $1 AND part = 1 AND `+condition, append([]any{t.Name, most}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r queue.Record, err error) {
		var id int64
		var since, at *time.Time
		var size *int64
		var first, last []byte
		if err := row.Scan(&id, &r.State, &r.Attempt, &r.Failures, &r.Total, &r.Owner, &r.First, &since, &at, &first, &last,
			&size, &r.Parts); err != nil {
			return r, err
		}
		r.ID = formatID(id)
		if since != nil {
			r.Since = *since
		}
		if at != nil {
			r.At = *at
		}
		if size != nil {
			r.Size = *size
		}
		err = setFailures(&r, first, last)
		return r, err
	})
}

// listReady lists rows of the table, with what is known of those that were claimed before.
func (q *Queue) listReady(ctx context.Context, skip, limit int) (records []queue.Record, err error) {
	err = q.do(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		records = nil
		if err := q.find(t); err != nil {
			return err
		}
		past := `(SELECT NULL::text AS key, NULL::bigint AS id, NULL::int AS attempts, NULL::int AS failures,
  NULL::int AS total, NULL::timestamptz AS seen, NULL::bytea AS first_failure, NULL::bytea AS last_failure
  WHERE $1::text IS NULL)`
		if t.Records {
			past = "(SELECT * FROM " + t.items() + " WHERE queue = $1 AND state = 'ready')"
		}
		rows, err := tx.Query(ctx, `
SELECT r.size, substring(r.item FOR $2), p.id, coalesce(p.attempts, 0), coalesce(p.failures, 0),
  coalesce(p.total, 0), p.seen, p.first_failure, p.last_failure
FROM (SELECT `+t.key.quoted()+` AS k, octet_length(`+t.item.bytes()+`) AS size, `+t.item.bytes()+` AS item
  FROM `+t.quoted()+`  WHERE `+q.where()+` ORDER BY `+t.key.quoted()+` OFFSET $3 LIMIT $4) AS r
LEFT JOIN `+past+` AS p ON p.key = r.k::text ORDER BY r.k`, t.Name, shown, skip, limit)
		if err != nil {
			return err
		}
		records, err = pgx.CollectRows(rows, readyRecord)
		return err
	})
	return records, err
}

func readyRecord(row pgx.CollectableRow) (r queue.Record, err error) {
	r.State = queue.Ready
	var size, id *int64
	var item, first, last []byte
	var seen *time.Time
	if err := row.Scan(&size, &item, &id, &r.Attempt, &r.Failures, &r.Total, &seen, &first, &last); err != nil {
		return r, err
	}
	r.Parts = [][]byte{item}
	if size != nil {
		r.Size = *size
	}
	if id != nil {
		r.ID, r.First = formatID(*id), *seen
	}
	err = setFailures(&r, first, last)
	return r, err
}

func setFailures(r *queue.Record, first, last []byte) error {
	var errFirst, errLast error
	r.FirstFailure, errFirst = decodeFailure(first)
	r.LastFailure, errLast = decodeFailure(last)
	return errors.Join(errFirst, errLast)
}
