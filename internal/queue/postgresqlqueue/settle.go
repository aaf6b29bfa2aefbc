package postgresqlqueue

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/offboard-dev/offboard/internal/queue"
)

// Settle implements queue.Queue.
func (q *Queue) Settle(ctx context.Context, settlements []queue.Settlement) (held []bool, err error) {
	held = make([]bool, len(settlements))
	if len(settlements) == 0 {
		return held, nil
	}
	wanted := make([]int64, len(settlements))
	for i, s := range settlements {
		switch s.Verb {
		case queue.Ack, queue.PutOff, queue.Bury, queue.Drop, queue.GiveBack:
		default:
			return held, fmt.Errorf("settle item %s: unknown verb %q", s.ID, s.Verb)
		}
		wanted[i] = parseID(s.ID)
	}
	err = q.withRecords(ctx, func(ctx context.Context, tx pgx.Tx, t *table) error {
		clear(held)
		attempts, err := t.claimed(ctx, tx, wanted)
		if err != nil {
			return err
		}
		var now settling
		for i, s := range settlements {
			if attempt, found := attempts[wanted[i]]; found && attempt == s.Attempt {
				held[i] = true
				now.add(wanted[i], s)
				delete(attempts, wanted[i]) // the same claim may be settled twice at once
			}
		}
		if len(now.ids) == 0 {
			return nil
		}
		if err := now.apply(ctx, tx, t); err != nil {
			return err
		}
		slices.Sort(now.back)
		if _, err := q.putBack(ctx, tx, t, now.back); err != nil {
			return err
		}
		if now.waits || len(now.back) > 0 {
			if err := q.notify(ctx, tx); err != nil {
				return err
			}
		}
		return t.count(ctx, tx, now.counts)
	})
	if err != nil {
		clear(held)
	}
	return held, err
}

// claimed locks those of the ids that are claimed, and returns the attempts.
func (t *table) claimed(ctx context.Context, tx pgx.Tx, ids []int64) (map[int64]int, error) {
	rows, err := tx.Query(ctx, `SELECT claim, attempts FROM `+t.items()+`
WHERE queue = $1 AND claim = ANY($2::bigint[]) AND part = 1 AND state = 'claimed'
ORDER BY claim FOR UPDATE`, t.Name, ids)
	if err != nil {
		return nil, err
	}
	attempts := map[int64]int{}
	var id int64
	var attempt int
	_, err = pgx.ForEachRow(rows, []any{&id, &attempt}, func() error {
		attempts[id] = attempt
		return nil
	})
	return attempts, err
}

// settling are settlements of claims that are held and locked.
type settling struct {
	ids      []int64
	verbs    []string
	delays   []int64
	failures [][]byte
	// back are the ids of those that go back to the table; waits tells that there is one that waits.
	back   []int64
	waits  bool
	counts counts
}

func (s *settling) add(id int64, of queue.Settlement) {
	s.ids, s.verbs = append(s.ids, id), append(s.verbs, string(of.Verb))
	s.delays, s.failures = append(s.delays, max(0, of.Wait).Microseconds()), append(s.failures, encodeFailure(of.Failure))
	switch of.Verb {
	case queue.Ack:
		s.counts.done++
	case queue.PutOff:
		s.waits = true
	case queue.Bury:
		s.counts.buried++
	case queue.Drop:
		s.counts.dropped++
	case queue.GiveBack:
		s.back = append(s.back, id)
	}
}

// apply notes in the records what becomes of them. Those that go back are still claimed then.
func (s *settling) apply(ctx context.Context, tx pgx.Tx, t *table) error {
	_, err := tx.Exec(ctx, `
WITH s AS (
  SELECT * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bytea[]) AS s (claim, verb, wait, failure)
), gone AS (
  DELETE FROM `+t.items()+` AS i USING s WHERE i.queue = $1 AND i.claim = s.claim AND s.verb IN ('ack', 'drop')
)
UPDATE `+t.items()+` AS i SET
  state = CASE s.verb WHEN 'retry' THEN 'retry' WHEN 'bury' THEN 'dead' ELSE 'claimed' END,
  at = now() + s.wait * interval '1 microsecond', owner = NULL,
  failures = failures + (s.failure IS NOT NULL)::int, total = total + (s.failure IS NOT NULL)::int,
  first_failure = coalesce(i.first_failure, s.failure), last_failure = coalesce(s.failure, i.last_failure)
FROM s WHERE i.queue = $1 AND i.claim = s.claim AND s.verb NOT IN ('ack', 'drop')`,
		t.Name, s.ids, s.verbs, s.delays, s.failures)
	return err
}
