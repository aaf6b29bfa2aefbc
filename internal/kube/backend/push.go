package backend

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Push implements control.Backend.
func (b *Backend) Push(ctx context.Context, queue control.Queue, items [][]byte) (control.PushResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	pusher, err := b.pusher(ctx, queue)
	if err != nil {
		return control.PushResult{}, err
	}
	length, err := pusher.Push(ctx, items...)
	return control.PushResult{Length: length}, control.QueueError(err)
}

// pusher returns the trigger whose queue it is, made as the operator makes it, from what the user may read. A queue is
// looked for once; further requests go to where it was found. The caller holds mu.
func (b *Backend) pusher(ctx context.Context, queue control.Queue) (trigger.Pusher, error) {
	if pusher := b.queues[queue]; pusher != nil {
		return pusher, nil
	}
	pusher, err := b.find(ctx, queue)
	if err != nil {
		return nil, b.explain(err)
	}
	b.queues[queue] = pusher
	return pusher, nil
}

// candidate is one trigger of one ScaledJob.
type candidate struct {
	scaledJob *v1alpha1.ScaledJob
	index     int
}

// find returns the trigger whose queue it is. Several ScaledJobs may read one queue; when those of that name are on
// different servers, the user must say which is meant, since an item on the wrong one would be lost.
func (b *Backend) find(ctx context.Context, queue control.Queue) (trigger.Pusher, error) {
	likely, others, err := b.candidates(ctx, queue)
	if err != nil {
		return nil, err
	}
	var known, unready []string
	for _, candidates := range [][]candidate{likely, others} {
		var found trigger.Pusher
		var where string
		var whose candidate
		for _, c := range candidates {
			opened, server, err := b.open(ctx, c)
			if err != nil {
				unready = append(unready, fmt.Sprintf("ScaledJob %s is not ready: %v", c.scaledJob.Name, b.explain(err)))
				continue
			}
			pusher, ok := opened.(trigger.Pusher)
			if !ok {
				continue
			}
			switch name := pusher.Queue(); {
			case name != queue.Name:
				if !slices.Contains(known, name) {
					known = append(known, name)
				}
			case found == nil:
				found, where, whose = pusher, server, c
			case server != where && queue.Namespace == "":
				return nil, control.Errorf(control.BadRequest, "ScaledJobs %s and %s read queues of the name %q on different "+
					"servers; say which is meant with -n, and --scaledjob", whose.scaledJob.Key(), c.scaledJob.Key(), queue.Name)
			case server != where:
				return nil, control.Errorf(control.BadRequest, "ScaledJobs %s and %s read queues of the name %q on different "+
					"servers; say which is meant with --scaledjob", whose.scaledJob.Name, c.scaledJob.Name, queue.Name)
			}
		}
		if found != nil {
			if len(unready) > 0 {
				b.Log.Warn("Not every ScaledJob could be looked at", "reason", strings.Join(unready, "; "))
			}
			return found, nil
		}
	}
	return nil, control.NoQueue(queue, known, unready)
}

// candidates returns the triggers that the queue may be of: first those that have its name among their parameters.
func (b *Backend) candidates(ctx context.Context, queue control.Queue) (likely, others []candidate, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var found []v1alpha1.ScaledJob
	if queue.ScaledJob != "" {
		sj, err := b.getScaledJob(ctx, queue.Namespace, queue.ScaledJob)
		if err != nil && (!apierrors.IsNotFound(err) || isUnknownResource(err)) {
			return nil, nil, err
		}
		if err != nil {
			return nil, nil, control.Errorf(control.NotFound, "ScaledJob %q does not exist in namespace %s",
				queue.ScaledJob, queue.Namespace)
		}
		found = append(found, *sj)
	} else if found, err = b.listScaledJobs(ctx, queue.Namespace); err != nil {
		return nil, nil, err
	} else if len(found) == 0 {
		if err := b.checkNamespace(ctx, queue.Namespace); err != nil {
			return nil, nil, err
		}
	}
	for i := range found {
		for index, t := range found[i].Spec.Triggers {
			c := candidate{&found[i], index}
			if named(t.Metadata, queue.Name) {
				likely = append(likely, c)
			} else {
				others = append(others, c)
			}
		}
	}
	return likely, others, nil
}

func named(metadata map[string]string, queue string) bool {
	for _, value := range metadata {
		if strings.TrimSpace(value) == queue {
			return true
		}
	}
	return false
}

// open makes the trigger, which Close closes. It returns what tells its server from others as well.
func (b *Backend) open(ctx context.Context, c candidate) (opened trigger.Trigger, server string, err error) {
	one := c.scaledJob.DeepCopy()
	one.Spec.Triggers = one.Spec.Triggers[c.index : c.index+1]
	if t := &one.Spec.Triggers[0]; t.Name == "" {
		t.Name = "#" + strconv.Itoa(c.index) // its place in the manifest, for errors
	}
	types := make([]trigger.Type, len(b.TriggerTypes))
	for i, t := range b.TriggerTypes {
		types[i] = b.routed(t, one.Namespace, &server)
	}
	// Only the controller knows how a trigger follows from a ScaledJob. This one is asked that and never runs.
	controller := &scaledjob.Controller{Config: scaledjob.Config{
		Objects: objects{b}, TriggerTypes: types, ClusterNamespace: b.ClusterNamespace, Log: b.Log,
	}}
	triggers, err := controller.OpenTriggers(ctx, one, scaledjob.Local{})
	if err != nil {
		return nil, "", err
	}
	b.triggers = append(b.triggers, triggers...)
	return triggers[0], server, nil
}
