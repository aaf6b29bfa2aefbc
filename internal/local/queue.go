package local

import (
	"context"
	"fmt"
	"slices"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Push implements control.Backend: it appends to the queue of a ScaledJob's trigger.
func (e *Engine) Push(ctx context.Context, to control.Queue, items [][]byte) (result control.PushResult, err error) {
	err = e.withTrigger(ctx, to, func(pusher trigger.Pusher) error {
		length, err := pusher.Push(ctx, items...)
		result.Length = length
		return control.QueueError(err)
	})
	return result, err
}

// PushWith implements control.Backend.
func (e *Engine) PushWith(
	ctx context.Context, to control.Queue, options queue.PushOptions, items [][]byte,
) (pushed queue.Pushed, err error) {
	err = e.withQueue(ctx, to, func(q queue.Queue) (err error) {
		pushed, err = control.Later(ctx, q, options, items)
		return err
	})
	return pushed, err
}

// Stats implements control.Backend.
func (e *Engine) Stats(ctx context.Context, of control.Queue) (stats queue.Stats, err error) {
	err = e.withQueue(ctx, of, func(q queue.Queue) (err error) {
		stats, err = control.Count(ctx, q)
		return err
	})
	return stats, err
}

// Items implements control.Backend.
func (e *Engine) Items(
	ctx context.Context, of control.Queue, selection control.Selection,
) (records []queue.Record, err error) {
	err = e.withQueue(ctx, of, func(q queue.Queue) (err error) {
		records, err = control.Select(ctx, q, selection)
		return err
	})
	return records, err
}

// Change implements control.Backend.
func (e *Engine) Change(
	ctx context.Context, of control.Queue, operation control.Operation, items []control.ItemRef,
) (changed []string, err error) {
	err = e.withQueue(ctx, of, func(q queue.Queue) (err error) {
		changed, err = control.Apply(ctx, q, operation, items)
		return err
	})
	return changed, err
}

// withQueue calls do with the items of the queue.
func (e *Engine) withQueue(ctx context.Context, of control.Queue, do func(queue.Queue) error) error {
	return e.withTrigger(ctx, of, func(pusher trigger.Pusher) error {
		claimer, ok := pusher.(trigger.Claimer)
		if !ok {
			return control.NoItems(of)
		}
		return do(claimer.Items(""))
	})
}

// withTrigger calls do with the trigger of a ScaledJob whose queue it is. Several ScaledJobs may read one queue; where
// triggers of different types have queues of that name, these are not the same, and the user must say which is meant.
func (e *Engine) withTrigger(ctx context.Context, of control.Queue, do func(trigger.Pusher) error) error {
	var known, unready []string
	var found trigger.Pusher
	var kind string
	var whose *v1alpha1.ScaledJob
	for _, sj := range e.store.List() {
		if of.Namespace != "" && of.Namespace != sj.Namespace || of.ScaledJob != "" && of.ScaledJob != sj.Name {
			continue
		}
		differs := func(t v1alpha1.ScaleTriggers) bool { return t.Type != kind }
		if found != nil && !slices.ContainsFunc(sj.Spec.Triggers, differs) {
			continue
		}
		triggers, err := e.controller.OpenTriggers(ctx, sj, e.local())
		if err != nil {
			unready = append(unready, fmt.Sprintf("ScaledJob %s is not ready: %v", sj.Name, err))
			continue
		}
		defer func() {
			for _, t := range triggers {
				t.Close()
			}
		}()
		for i, t := range triggers {
			pusher, ok := t.(trigger.Pusher)
			if !ok {
				continue
			}
			known = append(known, pusher.Queue())
			switch {
			case pusher.Queue() != of.Name:
			case found == nil:
				found, kind, whose = pusher, sj.Spec.Triggers[i].Type, sj
			case kind != sj.Spec.Triggers[i].Type && whose != sj:
				return control.Errorf(control.BadRequest, "ScaledJobs %s and %s read queues of the name %q on different "+
					"servers; say which is meant with -n, and --scaledjob", whose.Key(), sj.Key(), of.Name)
			}
		}
	}
	if found == nil {
		return control.NoQueue(of, known, unready)
	}
	return do(found)
}
