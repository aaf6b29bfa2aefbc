package scaledjob

import (
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue"
)

// ready returns the items that wait, in their order.
func (p *plant) ready() []string {
	p.t.Helper()
	list, err := p.queue().List(p.t.Context(), queue.Ready, 0, 100)
	if err != nil {
		p.t.Fatal(err)
	}
	var items []string
	for _, item := range list {
		items = append(items, string(item.Parts[0]))
	}
	return items
}

// released waits until no finalizer is left.
func (p *plant) released() {
	p.t.Helper()
	p.eventually("released", func() bool {
		for _, job := range p.jobs {
			if unsettled(job) {
				return false
			}
		}
		return len(p.scaledJob.Finalizers) == 0
	})
}

// TestReleaseAll settles what has finished, ends the rest and gives it back in order, also of a ScaledJob that has lost
// its finalizer. A Job that was made for no claim goes on. Nothing begins, and a later controller goes on.
func TestReleaseAll(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	former := p.start()
	p.push("a", "b", "c", "d", "e", "f")
	p.eventually("5 Jobs", func() bool { return len(p.jobs) == 5 })
	former.stop()
	p.mu.Lock()
	names := p.unfinished()
	for _, name := range names[:4] {
		p.pods[p.jobs[name].UID] = corev1.PodRunning
	}
	p.endLocked(names[1], batchv1.JobComplete, queue.Failure{})
	p.endLocked(names[2], batchv1.JobFailed, queue.Failure{Reason: "BackoffLimitExceeded", ExitCode: ptr.To(65)})
	popped := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "popped", UID: "popped"}}
	p.jobs[popped.Name], p.pods[popped.UID] = popped, corev1.PodRunning
	p.scaledJob.Finalizers = nil
	p.mu.Unlock()
	life := p.release(0)
	p.released()
	if got, want := p.ready(), []string{"a", "d", "e", "f"}; !slices.Equal(got, want) {
		t.Errorf("the queue holds %q, want %q", got, want)
	}
	if stats := p.stats(); stats.Claimed != 0 || stats.Done != 1 || stats.Dead != 1 {
		t.Errorf("got %+v", stats)
	}
	p.push("g")
	life.controller.Changed(theKey)
	p.eventually("looked at again", func() bool {
		life.controller.mu.Lock()
		defer life.controller.mu.Unlock()
		return life.controller.queue.Len() == 0 && len(life.controller.records) == 0
	})
	life.stop()
	p.mu.Lock()
	if p.scaledJob == nil || p.jobs["popped"] == nil || p.jobs["popped"].DeletionTimestamp != nil || len(p.made) != 5 {
		t.Errorf("ScaledJob %v, Jobs %v, made %v", p.scaledJob, p.jobs, p.made)
	}
	delete(p.jobs, "popped")
	p.mu.Unlock()

	p.start()
	p.eventually("Jobs for all that was given back", func() bool { return len(p.unfinished()) == 5 })
}

// TestReleaseAllLeavesPop leaves alone what has delivery by pop.
func TestReleaseAllLeavesPop(t *testing.T) {
	t.Parallel()
	p := newPlant(t, func(sj *v1alpha1.ScaledJob) { sj.Spec.Delivery = nil })
	former := p.start()
	p.push("a", "b")
	p.mu.Lock()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "popped", UID: "popped"}}
	p.jobs[job.Name], p.pods[job.UID] = job, corev1.PodRunning
	p.mu.Unlock()
	p.eventually("Jobs", func() bool { return len(p.made) > 0 })
	former.stop()
	p.mu.Lock()
	jobs := len(p.jobs)
	p.mu.Unlock()
	life := p.release(0)
	p.eventually("looked at", func() bool {
		life.controller.mu.Lock()
		defer life.controller.mu.Unlock()
		return len(life.controller.records) == 0
	})
	life.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, job := range p.jobs {
		if job.DeletionTimestamp != nil {
			t.Errorf("Job %s is deleted", name)
		}
	}
	if len(p.jobs) != jobs || len(p.scaledJob.Finalizers) > 0 {
		t.Errorf("%d Jobs of %d are left, and the finalizers are %q", len(p.jobs), jobs, p.scaledJob.Finalizers)
	}
}

// TestReleaseAllWithoutQueue waits no longer than it must. What has finished stays finished, what runs is ended, and
// the controller that comes next settles the one and makes Jobs for the other.
func TestReleaseAllWithoutQueue(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	former := p.start()
	p.push("a", "b")
	p.eventually("2 Jobs", func() bool { return len(p.jobs) == 2 })
	former.stop()
	p.mu.Lock()
	names := p.unfinished()
	p.pods[p.jobs[names[1]].UID] = corev1.PodRunning
	p.endLocked(names[0], batchv1.JobComplete, queue.Failure{})
	p.mu.Unlock()
	p.down.Store(true)
	life := p.release(0)
	p.eventually("the end of what runs", func() bool { return p.jobs[names[1]].DeletionTimestamp != nil })
	p.mu.Lock()
	if len(p.scaledJob.Finalizers) == 0 {
		t.Error("it was let go too early")
	}
	p.mu.Unlock()
	life.stop()
	life = p.release(releaseWithin)
	p.released()
	life.stop()
	p.down.Store(false)
	if stats := p.stats(); stats.Claimed != 2 || stats.Ready != 0 {
		t.Errorf("got %+v, want both claims to stay recorded", stats)
	}
	p.mu.Lock()
	if p.jobs[names[0]] == nil || p.jobs[names[1]] != nil {
		t.Errorf("the Jobs are %v", p.jobs)
	}
	p.mu.Unlock()
	p.start()
	p.eventually("settled, and a Job again", func() bool {
		return p.settled["done"] == 1 && p.jobs[names[1]] != nil && p.made[names[1]] == 2
	})
}

// TestDeletedScaledJobWithoutSecret has what the triggers are made from go before the ScaledJob, as in a namespace that
// is deleted: those that there are do.
func TestDeletedScaledJobWithoutSecret(t *testing.T) {
	t.Parallel()
	p := newPlant(t, nil)
	p.start()
	p.push("a", "b")
	p.eventually("2 Jobs", func() bool { return len(p.jobs) == 2 })
	p.unmade.Store(true)
	p.mu.Lock()
	p.scaledJob.DeletionTimestamp = ptr.To(metav1.Now())
	p.scaledJob.Generation++
	p.mu.Unlock()
	p.tell()
	p.eventually("gone", func() bool { return p.scaledJob == nil })
	if got, want := p.ready(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("the queue holds %q, want %q", got, want)
	}
}
