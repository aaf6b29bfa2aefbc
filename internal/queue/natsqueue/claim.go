package natsqueue

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/offboard-dev/offboard/internal/queue"
)

const (
	// fetchAtOnce is the most messages of one request.
	fetchAtOnce = 256
	// usualSize is how large items are thought to be while nothing is known.
	usualSize = 16 << 10
)

// claiming is one call of Claim.
type claiming struct {
	queue.ClaimOptions

	result queue.ClaimResult
	bytes  int64
	// fetched are messages that nobody has claimed yet.
	fetched  []message
	progress progress
	// dry tells that the consumer has had no more, and left how many it has.
	dry  bool
	left int64
}

// enough tells whether as many bytes are claimed as were asked for.
func (c *claiming) enough() bool { return c.Bytes > 0 && c.bytes >= c.Bytes }

// Claim implements queue.Queue. What it has claimed before something failed, it returns without an error.
func (q *Queue) Claim(ctx context.Context, o queue.ClaimOptions) (queue.ClaimResult, error) {
	switch {
	case o.Owner == "":
		return queue.ClaimResult{}, queue.ErrNoOwner
	case o.Lease > 0:
		return queue.ClaimResult{}, errLeases
	}
	o.Parts = max(1, o.Parts)
	c := &claiming{ClaimOptions: o}
	err := q.do(ctx, func(ctx context.Context) error {
		if err := q.maintain(ctx); err != nil {
			return err
		}
		defer q.putBack(c)
		for {
			more, err := q.claimSome(ctx, c)
			if err != nil {
				return err
			}
			if more {
				continue
			}
			if len(c.result.Claims) > 0 {
				return nil
			}
			// That there is nothing must be so by what is the latest.
			if changed, err := q.log.catchUp(ctx); err != nil || !changed {
				return err
			}
		}
	})
	if err != nil && len(c.result.Claims) == 0 {
		return queue.ClaimResult{}, err
	}
	return c.result, nil
}

// putBack lets the server deliver again what was fetched and is not claimed, and works out what is left.
func (q *Queue) putBack(c *claiming) {
	c.progress.end()
	for _, m := range c.fetched {
		_ = m.Nak() // else the server delivers it again after AckWait
	}
	ready := len(q.log.draft().all(queue.Ready))
	c.result.Ready = int64(ready+len(c.fetched)) + c.left
	c.result.Next = q.log.next(q.now())
}

// room returns a transaction in which items are ready whose wait is over, and how many claims may be made.
func (q *Queue) room(c *claiming) (d *draft, room int) {
	d = q.log.draft()
	d.returnDue(q.now())
	room = c.Most - len(c.result.Claims)
	if c.Holds > 0 {
		room = min(room, c.Holds-d.held(c.Owner))
	}
	if c.enough() {
		room = 0
	}
	return d, max(0, room)
}

// claimSome makes the claims of one transaction. It returns whether there may be more to claim.
func (q *Queue) claimSome(ctx context.Context, c *claiming) (more bool, err error) {
	d, room := q.room(c)
	if err := q.fetch(ctx, c, room*c.Parts-len(d.all(queue.Ready))-len(c.fetched)); err != nil {
		return false, err
	}
	d, room = q.room(c) // what was fetched may have told of changes
	claims, used, bytes, err := q.build(ctx, c, d, room)
	if err != nil {
		return false, err
	}
	if d.changes() {
		err = q.log.commit(ctx, d)
		if errors.Is(err, errConflict) {
			if _, err := q.log.catchUp(ctx); err != nil {
				return false, err
			}
			return true, q.known(ctx, c)
		}
		if err != nil {
			return false, err
		}
	}
	q.acknowledge(ctx, c.fetched[:used])
	c.fetched = c.fetched[used:]
	c.result.Claims = append(c.result.Claims, claims...)
	c.bytes += bytes
	// Where nothing came of what was fetched, because it is known, there may be others behind it.
	return len(claims) < room && !c.enough() && (len(claims) > 0 || !c.dry), nil
}

// build makes claims of what is ready and of what was fetched, of which it has used the first ones.
func (q *Queue) build(
	ctx context.Context, c *claiming, d *draft, room int,
) (claims []queue.Claim, used int, bytes int64, err error) {
	ready := d.all(queue.Ready)
	now := q.now()
	enough := func() bool { return c.Bytes > 0 && c.bytes+bytes >= c.Bytes }
	for len(claims) < room && !enough() && len(d.data) < q.log.frame {
		var items []record
		var parts [][]byte
		for len(items) < c.Parts && (len(items) == 0 || !enough()) {
			var item record
			var data []byte
			switch {
			case len(ready) > 0:
				item, ready = ready[0], ready[1:]
				if data, err = q.log.load(ctx, item.Parts[0]); err != nil {
					return nil, 0, 0, err
				}
			case used < len(c.fetched):
				m := c.fetched[used]
				used++
				data = m.Data
				taken := part{ID: newID(d.totals.Epoch, m.sequence), Stored: m.at.UnixNano()}
				item = record{First: m.at, Parts: []part{d.hold(taken, data)}}
			}
			if item.Parts == nil {
				break
			}
			items, parts = append(items, item), append(parts, data)
			bytes += int64(len(data))
		}
		if len(items) == 0 {
			break
		}
		claims = append(claims, d.join(items, c.Owner, now).claim(parts))
	}
	return claims, used, bytes, nil
}

// fetch gets up to n further messages from the consumer.
func (q *Queue) fetch(ctx context.Context, c *claiming, n int) error {
	if n <= 0 || c.dry {
		return nil
	}
	n = min(n, fetchAtOnce)
	if q.source.most > 0 {
		n = min(n, q.source.most)
	}
	if c.Bytes > 0 {
		n = min(n, int((c.Bytes-c.bytes)/cmp.Or(q.size, usualSize))+1)
	}
	got, left, err := q.source.fetch(ctx, q.nats, n)
	c.dry, c.left = len(got) < n, left
	c.fetched = append(c.fetched, got...)
	c.progress.add(got, q.source.ackWait)
	if err != nil {
		return err
	}
	if len(got) > 0 {
		size := int64(0)
		for _, m := range got {
			size += int64(len(m.Data))
		}
		q.size = max(1, size/int64(len(got)))
	}
	return q.known(ctx, c)
}

// known acknowledges what was fetched again although it is known, and leaves the rest, in the order of the stream.
func (q *Queue) known(ctx context.Context, c *claiming) error {
	if !slices.ContainsFunc(c.fetched, func(m message) bool { return q.log.messages[m.sequence].stored != 0 }) {
		sortMessages(c.fetched)
		return nil
	}
	// Perhaps it is another consumer by now, or another stream, which numbers its messages anew.
	if err := q.check(ctx); err != nil {
		return err
	}
	foreign := func(m message) bool { return q.log.foreign(m.sequence, m.at) }
	err := q.log.transact(ctx, func(d *draft) error {
		if slices.ContainsFunc(c.fetched, foreign) {
			d.totals.Epoch++
			d.totals.StreamEpoch, d.totals.Floor = d.totals.Epoch, 0
		}
		return nil
	})
	if err != nil {
		return err
	}
	var again []message
	c.fetched = slices.DeleteFunc(c.fetched, func(m message) bool {
		if q.log.has(m.sequence, m.at) {
			again = append(again, m)
			return true
		}
		return false
	})
	q.acknowledge(ctx, again)
	sortMessages(c.fetched)
	return nil
}

// sortMessages sorts by the order of the stream.
func sortMessages(messages []message) {
	slices.SortStableFunc(messages, func(a, b message) int { return cmp.Compare(a.sequence, b.sequence) })
}

// acknowledge tells the server that messages were taken over. A server that does not get it delivers them again, and
// they are acknowledged then. It handles what one connection sends in its order, so the answer to the last one does.
func (q *Queue) acknowledge(ctx context.Context, messages []message) {
	for i, m := range messages {
		if i < len(messages)-1 {
			_ = m.Ack()
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, request)
		_ = m.AckSync(nats.Context(ctx))
		cancel()
	}
}
