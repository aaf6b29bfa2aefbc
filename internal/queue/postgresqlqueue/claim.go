package postgresqlqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Limits of one claim.
const (
	maxParts = 1000
	// countReady is up to how many rows that are left are counted.
	countReady = 1000
)

// Claim implements queue.Queue. ClaimResult.Ready counts up to 1,000. Claims from one table wait for each other.
func (q *Queue) Claim(ctx context.Context, o queue.ClaimOptions) (result queue.ClaimResult, err error) {
	if o.Owner == "" {
		return result, queue.ErrNoOwner
	}
	if o.Lease > 0 {
		return result, errLeases
	}
	parts := min(max(1, o.Parts), maxParts)
	most := max(0, o.Most)
	err = q.do(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		if err := q.find(t); err != nil {
			return err
		}
		if err := t.create(ctx, tx); err != nil {
			return err
		}
		base, err := t.reserve(ctx, tx, most*parts)
		if err != nil {
			return err
		}
		if _, err := q.returnDue(ctx, tx, t); err != nil {
			return err
		}
		if result.Claims, err = q.take(ctx, tx, t, o, most, parts, base); err != nil {
			return err
		}
		if result.Next, err = t.next(ctx, tx); err != nil {
			return err
		}
		return tx.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %d) AS ready`,
			t.quoted(), q.where(), countReady)).Scan(&result.Ready)
	})
	return result, err
}

// reserve returns the first of n ids. An id is the time in milliseconds since 1970 and 20 bits of a count, and never is
// less than one before, whatever the clock does. Whoever claims from the table waits until the transaction has ended.
func (t *table) reserve(ctx context.Context, tx pgx.Tx, n int) (first int64, err error) {
	err = tx.QueryRow(ctx, `
INSERT INTO `+t.queues()+` AS q (queue, last_id)
VALUES ($1, (floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint << 20) + $2::bigint)
ON CONFLICT (queue) DO UPDATE SET last_id = greatest(excluded.last_id, q.last_id + $2::bigint)
RETURNING last_id - $2::bigint + 1`, t.Name, n).Scan(&first)
	return first, err
}

// take moves rows from the table to the records, with what is known of them from before.
func (q *Queue) take(
	ctx context.Context, tx pgx.Tx, t *table, o queue.ClaimOptions, most, parts int, base int64,
) (claims []queue.Claim, err error) {
	fields := ""
	kept := t.kept()
	for i, c := range kept {
		if i > 0 {
			fields += ", "
		}
		fields += "t." + c.quoted() + "::text"
	}
	rows, err := tx.Query(ctx, `
WITH picked AS (
  SELECT `+t.key.quoted()+` AS k, octet_length(`+t.item.bytes()+`) AS size FROM `+t.quoted()+` WHERE `+q.where()+`
  ORDER BY `+t.key.quoted()+` FOR UPDATE SKIP LOCKED LIMIT $2::bigint * least($3::bigint, CASE WHEN $4::bigint > 0 THEN
    greatest(0, $4::bigint - (SELECT count(*) FROM `+t.items()+`
      WHERE queue = $1 AND state = 'claimed' AND part = 1 AND owner = $5))
    ELSE $3::bigint END)
), chosen AS (
  SELECT k, row_number() OVER w AS n,
    coalesce(sum(size) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS ahead
  FROM picked WINDOW w AS (ORDER BY k)
), taken AS (
  DELETE FROM `+t.quoted()+` AS t USING chosen
  WHERE t.`+t.key.quoted()+` = chosen.k AND ($6::bigint = 0 OR chosen.ahead < $6::bigint)
  RETURNING chosen.n, t.`+t.key.quoted()+`::text AS key, `+t.item.bytes()+` AS item,
    jsonb_object($8::text[], ARRAY[`+fields+`]) AS fields
), past AS (
  DELETE FROM `+t.items()+` AS i USING taken
  WHERE i.queue = $1 AND i.state = 'ready' AND i.key = taken.key RETURNING i.*
), counted AS (
  SELECT row_number() OVER (ORDER BY n) - 1 AS n, key, item, fields FROM taken
), known AS (
  SELECT c.n, c.n / $2::bigint AS g, c.key, c.item, c.fields, coalesce(p.id, $7::bigint + c.n) AS id,
    coalesce(p.attempts, 0) AS attempts, coalesce(p.failures, 0) AS failures, coalesce(p.total, 0) AS total,
    coalesce(p.seen, now()) AS seen, p.first_failure, p.last_failure
  FROM counted c LEFT JOIN past p ON p.key = c.key
), whole AS (
  SELECT n, id, first_value(id) OVER w AS claim, n % $2::bigint + 1 AS part, key, item, fields,
    max(attempts) OVER g + 1 AS attempts, max(failures) OVER g AS failures, total, min(seen) OVER g AS seen,
    first_failure, last_failure
  FROM known WINDOW w AS (PARTITION BY g ORDER BY n), g AS (PARTITION BY g)
), made AS (
  INSERT INTO `+t.items()+` (id, queue, key, state, claim, part, attempts, failures, total, seen, owner, since,
    first_failure, last_failure, item, fields)
  SELECT id, $1, key, 'claimed', claim, part, attempts, failures, total, seen, $5, now(),
    first_failure, last_failure, item, fields
  FROM whole
)
SELECT claim, part, attempts, failures, seen, now(), item FROM whole ORDER BY n`,
		t.Name, parts, most, o.Holds, o.Owner, o.Bytes, base, namesOf(kept))
	if err != nil {
		return nil, err
	}
	var id int64
	var part int
	var item []byte
	claim := queue.Claim{Owner: o.Owner}
	fill := []any{&id, &part, &claim.Attempt, &claim.Failures, &claim.First, &claim.Since, &item}
	_, err = pgx.ForEachRow(rows, fill, func() error {
		if part == 1 {
			claims = append(claims, claim)
			claims[len(claims)-1].ID = formatID(id)
		}
		last := &claims[len(claims)-1]
		last.Parts = append(last.Parts, item)
		item = nil
		return nil
	})
	return claims, err
}

// next returns how long until an item's wait is over; negative when none waits.
func (t *table) next(ctx context.Context, tx pgx.Tx) (time.Duration, error) {
	var seconds *float64
	err := tx.QueryRow(ctx, `SELECT extract(epoch FROM min(at) - clock_timestamp())::float8 FROM `+t.items()+`
WHERE queue = $1 AND state = 'retry'`, t.Name).Scan(&seconds)
	if err != nil || seconds == nil {
		return -1, err
	}
	return max(0, time.Duration(*seconds*float64(time.Second))), nil
}
