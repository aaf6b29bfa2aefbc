package scaledjob

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/decider"
	"github.com/offboard-dev/offboard/internal/scaling"
)

// create makes the Jobs that were decided on, several at a time, until one fails: they are all alike, so the others
// would as well. What the server said is told once.
func (c *Controller) create(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, decision scaling.Decision, m measured, noticed time.Time,
	report *report,
) error {
	if decision.Create == 0 {
		report.noneCreated(m.queue())
		return nil
	}
	var mu sync.Mutex
	var created []*batchv1.Job
	var refused atomic.Bool
	failures := c.parallel(int(decision.Create), func(int) error {
		if refused.Load() {
			return nil
		}
		job, err := c.Jobs.Create(ctx, newJob(sj, c.Version), nil)
		if err != nil {
			refused.Store(true)
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		created = append(created, job)
		return nil
	})
	if len(created) > 0 {
		var reaction time.Duration
		if !noticed.IsZero() {
			reaction = time.Since(noticed)
		}
		c.Metrics.Created(r.key, len(created), reaction)
	}

	uids := make([]types.UID, len(created))
	for i, job := range created {
		uids[i] = job.UID
	}
	r.decider.Created(decider.Waiting{Amount: m.queue(), Target: m.target()}, uids...)
	report.jobsCreated(len(created), decision.Reason)
	if len(failures) == 0 {
		report.createSucceeded()
		return nil
	}
	report.createFailed(ctx, failures)
	return fmt.Errorf("create Jobs of %s: %w", r.key, failures[0])
}

// isRefusal tells whether an error is the server's answer that it does not want the Job. One that it gives because it
// is busy, or because it was asked for two things at once, is none, and neither is an error within the server or on the
// way.
func isRefusal(err error) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// rollOut deletes the unfinished Jobs of older generations when the ScaledJob asks for that, and in any case those of
// which nothing runs or has run: because they are suspended, or because the cluster refuses their Pods. While they
// count as unfinished, no Job of the new version takes their work.
func (c *Controller) rollOut(
	ctx context.Context, sj *v1alpha1.ScaledJob, r *record, jobs []Job, report *report,
) error {
	var old []Job
	for _, job := range jobs {
		how, _ := Finished(job.Job)
		idle := ptr.Deref(job.Spec.Suspend, false) && job.Status.Active == 0 ||
			job.PodsRefused != "" && job.Status.Failed == 0
		if (sj.ReplacesRunningJobs() || idle) &&
			how == "" && job.DeletionTimestamp == nil && !ofGeneration(job, sj.Generation) {
			old = append(old, job)
		}
	}
	if len(old) == 0 {
		return nil
	}
	propagation := metav1.DeletePropagationBackground
	if sj.Spec.Rollout.PropagationPolicy == v1alpha1.PropagationForeground {
		propagation = metav1.DeletePropagationForeground
	}
	if _, again := r.failing[rollingOut]; !again {
		report.event(normal, reasonRolloutStarted, fmt.Sprintf("Deleting %d Jobs of an older version", len(old)))
	}
	failures := c.parallel(len(old), func(i int) error {
		job := old[i]
		if err := c.Jobs.Delete(ctx, job.Namespace, job.Name, job.UID, propagation); err != nil {
			return fmt.Errorf("delete Job %s/%s of an older version: %w", job.Namespace, job.Name, err)
		}
		return nil
	})
	for _, job := range old {
		r.decider.Deleted(job.UID)
	}
	if len(failures) > 0 {
		if c.fails(ctx, sj, r, rollingOut, failures[0]) {
			report.event(warning, reasonRolloutFailed, sentence(failures[0].Error()))
		}
		return failures[0]
	}
	c.works(r, rollingOut)
	report.event(normal, reasonRolloutCompleted, fmt.Sprintf("Deleted %d Jobs of an older version", len(old)))
	return nil
}

// parallel does the same to each of n things, as many at a time as Config.CreateParallel has room for, and returns what
// went wrong. One that fails does not keep the others from being done.
func (c *Controller) parallel(n int, do func(i int) error) []error {
	var mu sync.Mutex
	var failures []error
	var doing sync.WaitGroup
	for i := range n {
		c.acting <- struct{}{}
		doing.Go(func() {
			defer func() { <-c.acting }()
			if err := do(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, err)
			}
		})
	}
	doing.Wait()
	return failures
}
