package jobs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
)

const (
	// firstSaveRetry and longestSaveRetry bound the delay before a failed write is tried again.
	firstSaveRetry   = 100 * time.Millisecond
	longestSaveRetry = 10 * time.Second
	// durableAfter is how long a Job must have run for its outcome to be written so that it outlives a loss of power.
	// That costs about a millisecond: nothing to such a Job, but as much as the whole run of a very short one, which
	// is as quickly done again.
	durableAfter = time.Second
)

// sync takes one Job from what is known of it to what should be: receive, decide, stop, save, start. It is called when
// something happened to the Job or its time has come.
func (c *Controller) sync(r *record) {
	r.mu.Lock()
	ended := c.syncLocked(r)
	announce := r.unannounced
	r.unannounced = false
	job, forgotten := r.job, r.gone && !r.forgotten
	r.forgotten = r.gone
	scaledJob, labelled := scaledJobOf(job)
	r.mu.Unlock()

	if forgotten && c.cfg.OnRemove != nil {
		c.cfg.OnRemove(job)
	}
	if announce && labelled && c.cfg.OnChange != nil {
		c.cfg.OnChange(scaledJob)
	}
	c.pods.Add(-ended)
}

// syncLocked returns how many Pods with processes have ended.
func (c *Controller) syncLocked(r *record) (ended int) {
	now := c.cfg.Clock.Now()
	ended = c.receive(r, now)
	if r.removed {
		return ended
	}
	var requeue time.Duration
	if !r.gone {
		requeue = c.advance(r, now)
	}
	c.stopPods(r)
	if r.leaves() {
		if err := c.remove(r); err != nil {
			c.saveFailed(r, err)
		}
	}
	if !r.removed && c.save(r) && !r.gone {
		c.startPods(r)
	}
	c.wake(r, requeue)
	return ended
}

// receive applies the news and returns how many Pods have ended by it.
func (c *Controller) receive(r *record, now time.Time) (ended int) {
	for _, n := range r.inbox.take() {
		p := r.find(n.uid)
		if p == nil || p.ended() {
			continue
		}
		if n.status == nil {
			processes := maps.Clone(p.shell.processes)
			if processes == nil {
				processes = map[string]process.Recorded{}
			}
			processes[n.container] = n.process
			p.shell.processes, p.shell.unsaved = processes, true
			continue
		}
		p.setStatus(n.status, now)
		if p.ended() {
			c.running.Delete(n.uid)
			ended++
		}
	}
	return ended
}

// advance decides until there is no more to do at this moment.
func (c *Controller) advance(r *record, now time.Time) (requeue time.Duration) {
	hold := c.draining.Load()
	if hold {
		r.dropUnstarted()
	}
	for {
		d := decide(observed{job: r.job, pods: r.pods, retry: r.retry, hold: hold}, now)
		if d.remove {
			r.markDeleted(now)
			return 0
		}
		if !d.acts() {
			return d.requeue
		}
		wasFinished := Finished(r.job) != nil
		r.apply(&d, now)
		if !wasFinished && Finished(r.job) != nil && r.job.Status.StartTime != nil {
			r.durable = elapsed(r.job.Status.StartTime.Time, now) >= durableAfter
		}
	}
}

// stopPods asks the Pod runner to end what is to end. It does not depend on the disk: a deadline holds on a full one.
func (c *Controller) stopPods(r *record) {
	for _, p := range r.pods {
		if p.shell.started && !p.ended() && (r.gone || p.pod.DeletionTimestamp != nil) {
			c.stop(p, r.stopReason(p))
		}
	}
}

func (c *Controller) stop(p *podState, why pods.Stop) {
	if !p.shell.stopping {
		p.shell.stopping = true
		c.runner.Stop(p.pod.UID, why)
	}
}

// stopReason says, for the Pod's status, why the Job stops it.
func (r *record) stopReason(p *podState) pods.Stop {
	outcome := interimOutcome(r.job)
	switch {
	case r.gone || r.job.DeletionTimestamp != nil:
		return pods.Stop{Reason: "JobDeleted", Message: "The Job was deleted"}
	case outcome != nil && !p.excluded:
		return pods.Stop{Reason: outcome.Reason, Message: outcome.Message}
	case ptr.Deref(r.job.Spec.Suspend, false):
		return pods.Stop{Reason: "JobSuspended", Message: "The Job was suspended"}
	default:
		return pods.Stop{Reason: "ParallelismReduced", Message: "The Job wants fewer Pods"}
	}
}

// startPods gives the Pod runner the Pods that it does not have yet. They are on disk.
func (c *Controller) startPods(r *record) {
	for _, p := range r.pods {
		if p.shell.started || p.ended() {
			continue
		}
		if !c.beginPod() {
			return // the next turn, at the latest Drain's own, forgets the Pod
		}
		p.shell.started = true
		uid := p.pod.UID
		c.running.Store(uid, r)
		err := c.runner.Start(p.pod, func(s corev1.PodStatus) { c.tell(r, news{uid: uid, status: &s}) })
		if err != nil {
			c.tell(r, news{uid: uid, status: &corev1.PodStatus{
				Phase: corev1.PodFailed, Reason: "StartError", Message: err.Error(),
			}})
		}
	}
}

func (c *Controller) tell(r *record, n news) {
	r.inbox.put(n)
	c.queue.add(r)
}

// beginPod counts a Pod that is about to be started, unless the program is about to end.
func (c *Controller) beginPod() bool {
	c.starting.RLock()
	defer c.starting.RUnlock()
	if c.draining.Load() {
		return false
	}
	c.pods.Add(1)
	return true
}

// save brings the disk up to date and then shows the state to readers. It tells whether the disk is up to date.
func (c *Controller) save(r *record) bool {
	unsaved, changed := r.outdated()
	if !changed {
		return true
	}
	revision, text := c.nextRevision()
	if !unsaved {
		r.publish(text)
		return true
	}
	var err error
	if r.journal.needsCompaction() {
		err = r.journal.replace(r.whole(revision))
	} else {
		err = r.journal.append(r.changes(revision), r.durable)
	}
	if err != nil {
		c.saveFailed(r, err)
		return false
	}
	if r.saveFailures > 0 {
		c.cfg.Log.Info("The state of a Job can be written again", "namespace", r.key.Namespace, "job", r.key.Name)
	}
	r.saveFailures, r.saveError, r.durable = 0, nil, false
	r.publish(text)
	c.removeDropped(r)
	return true
}

// saveFailed notes that the disk is behind; it is said once, not at each attempt.
func (c *Controller) saveFailed(r *record, err error) {
	if r.saveFailures == 0 {
		c.cfg.Log.Error("The state of a Job cannot be written; its outcome stays unknown to others until it can",
			"namespace", r.key.Namespace, "job", r.key.Name, "error", err)
	}
	r.saveFailures++
	r.saveError = fmt.Errorf("job %s: %w", r.key, err)
}

// removeDropped deletes the files of Pods that are forgotten.
func (c *Controller) removeDropped(r *record) {
	if len(r.droppedNames) == 0 {
		return
	}
	files, err := os.ReadDir(r.journal.dir)
	errs := []error{err}
	for _, file := range files {
		for _, pod := range r.droppedNames {
			if isPodFile(file.Name(), pod) {
				errs = append(errs, removeIfThere(filepath.Join(r.journal.dir, file.Name())))
			}
		}
	}
	r.droppedNames = nil
	if err := errors.Join(errs...); err != nil {
		c.cfg.Log.Warn("Files of old Pods cannot be removed", "folder", r.journal.dir, "error", err)
	}
}

// wake sees to it that the Job has a turn when its time has come or its state may be written again.
func (c *Controller) wake(r *record, requeue time.Duration) {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if r.saveError != nil {
		retry := min(longestSaveRetry, firstSaveRetry<<min(r.saveFailures-1, 10))
		if requeue == 0 || retry < requeue {
			requeue = retry
		}
	}
	if requeue > 0 && !r.removed {
		r.timer = c.cfg.Clock.AfterFunc(requeue, func() { c.queue.add(r) })
	}
}

// markDeleted notes that the Job is to go.
func (r *record) markDeleted(now time.Time, finalizers ...string) {
	if r.job.DeletionTimestamp != nil {
		return
	}
	job := *r.job
	job.DeletionTimestamp = ptr.To(metav1.NewTime(now))
	job.DeletionGracePeriodSeconds = ptr.To[int64](0)
	job.Finalizers = append(job.Finalizers[:len(job.Finalizers):len(job.Finalizers)], finalizers...)
	r.job = &job
	r.unsavedSpec = true
}

// leaves tells whether nothing keeps a deleted Job any more. Of a gone Job only the folder is left.
func (r *record) leaves() bool {
	running := r.running()
	if r.gone {
		return !running
	}
	if r.job.DeletionTimestamp == nil {
		return false
	}
	for _, f := range r.job.Finalizers {
		if f != metav1.FinalizerDeleteDependents || running {
			return false
		}
	}
	return true
}

// remove takes the Job out of everybody's sight. Its folder is deleted, or moved aside while processes have to end.
func (c *Controller) remove(r *record) error {
	if !r.running() {
		if err := c.folders.remove(r.key.Namespace, r.journal); err != nil {
			return fmt.Errorf("remove the folder of a Job: %w", err)
		}
		r.removed = true
		r.saveError = nil
	} else {
		aside := c.removedDir(r.uid)
		err := os.Rename(r.journal.dir, aside)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(aside), 0o700); err == nil {
				err = os.Rename(r.journal.dir, aside)
			}
		}
		if err != nil {
			return fmt.Errorf("move the folder of a Job aside: %w", err)
		}
		r.journal.dir = aside
		c.departing.Store(r, nil)
	}
	if !r.gone {
		c.index.remove(r, r.job)
		r.unannounced = true
	} else {
		c.departing.Delete(r)
	}
	r.gone = true
	c.stopPods(r)
	return nil
}

func (c *Controller) removedDir(uid types.UID) string {
	return filepath.Join(c.cfg.Dir, removedDir, string(uid))
}
