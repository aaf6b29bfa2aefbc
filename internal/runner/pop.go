package runner

import (
	"context"
	"errors"
	"fmt"
)

// With --pop the item is taken with LPOP, by which any client takes one: it is nobody's but the runner's from then on.

// take connects and takes the item at the head of the list; a nil item without an error means that the list is empty.
// The end of ctx is heeded as long as no item can be taken.
func (r *run) take(ctx context.Context, c config) (*link, []byte, error) {
	var (
		l    *link
		item []byte
	)
	err := reach(ctx, c, r.patience, func() (err error) {
		l, item, err = tryTake(ctx, c)
		return err
	})
	return l, item, err
}

func tryTake(ctx context.Context, c config) (*link, []byte, error) {
	l, err := connect(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		l.close()
		return nil, nil, err
	}
	item, err := l.do("LPOP", c.list)
	if err != nil {
		l.close()
		return nil, nil, c.explain("take an item from", err)
	}
	return l, item, nil
}

// pop takes an item and runs the command with it.
func (r *run) pop(path string, c config, signals *signals) (int, error) {
	l, item, err := r.take(signals.untilEnd, c)
	if end := (endSignal)(0); errors.As(err, &end) {
		return exitSignal + int(end), fmt.Errorf("%w: no item was taken", err)
	}
	if err != nil {
		return ExitFailure, err
	}
	defer l.close()
	r.noteUnusedPassword(l)
	if item == nil {
		r.say("nothing to do")
		return ExitOK, nil
	}
	if end, is := stopped(signals.untilEnd); is {
		return exitSignal + int(end), r.pushBack(l, item, end)
	}
	signals.starting.Store(true)
	command, err := r.start(path, item, nil)
	if err != nil {
		return startCode(err), r.pushBack(l, item, fmt.Errorf("start the command: %w", err))
	}
	l.close()
	ended, err := command.finish(signals)
	return ended.code, err
}

// pushBack puts the item back to the head of the list because of reason, and returns the error to show.
func (r *run) pushBack(l *link, item []byte, reason error) error {
	err := l.pushBack(item)
	if err != nil {
		// The connection may have broken in the meantime. An item twice is better than an item lost.
		again, connectErr := connect(context.Background(), l.config)
		if connectErr != nil {
			err = errors.Join(err, connectErr)
		} else {
			err = again.pushBack(item)
			again.close()
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n%w\nthe item could not be given back to the list and is in this message only: %q",
			reason, err, item)
	}
	r.unreport()
	return fmt.Errorf("%w: the item was given back to the head of the list", reason)
}

func (l *link) pushBack(item []byte) error {
	if _, err := l.do("LPUSH", l.config.list, string(item)); err != nil {
		return l.config.explain("give the item back to", err)
	}
	return nil
}
