package jobs

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// keptPods is how many ended Pods of one Job are kept, with their logs. The Job's counters hold all.
const keptPods = 100

// record is one Job with everything that belongs to it. What is done for one Job is done one after the other, under mu;
// readers see the view only.
type record struct {
	key      types.NamespacedName
	uid      types.UID
	sequence uint64
	// item tells that the Job was created with the file of an item, which is there until the Job is settled.
	item bool
	// settles tells that the Job was created, or loaded, with v1alpha1.FinalizerSettle.
	settles bool

	// view is what readers see: a state that is on disk. Nil until the Job is there.
	view atomic.Pointer[scaledjob.Job]

	mu sync.Mutex
	// job is the newest state; it is shared with readers once published, so it is replaced, never modified.
	job     *batchv1.Job
	pods    []*podState
	retry   retryState
	journal *journal
	// dropped are Pods that the disk still knows.
	dropped []types.UID
	// droppedNames are the names of those whose files are still there.
	droppedNames []string
	// unsavedSpec and unsavedStatus tell that the state on disk is outdated, unannounced that OnChange is due.
	unsavedSpec, unsavedStatus, unannounced bool
	// forgotten tells that OnRemove was called.
	forgotten bool
	// durable tells that the next write must outlive a loss of power.
	durable bool
	// gone tells that the Job is deleted for everybody else, while its last processes may have to end.
	gone bool
	// removed tells that its folder is deleted too.
	removed bool
	// timer wakes the Job up when time changes what is to be done.
	timer clock.Timer
	// saveFailures counts failed writes in a row.
	saveFailures int
	// saveError is the last of them, nil after a success.
	saveError error

	inbox inbox

	// turn belongs to the queue.
	turn turn
}

// news is what the Pod runner said of a Pod: a new status, or that a container was started.
type news struct {
	uid       types.UID
	status    *corev1.PodStatus
	container string
	process   process.Recorded
}

// inbox holds news until the Job's turn comes.
type inbox struct {
	mu   sync.Mutex
	news []news
}

func (i *inbox) put(n news) {
	i.mu.Lock()
	i.news = append(i.news, n)
	i.mu.Unlock()
}

func (i *inbox) take() []news {
	i.mu.Lock()
	defer i.mu.Unlock()
	taken := i.news
	i.news = nil
	return taken
}

// scaledJobOf returns the ScaledJob that the Job's label names.
func scaledJobOf(job *batchv1.Job) (types.NamespacedName, bool) {
	name := job.Labels[v1alpha1.LabelScaledJob]
	return types.NamespacedName{Namespace: job.Namespace, Name: name}, name != ""
}

func (r *record) find(uid types.UID) *podState {
	for _, p := range r.pods {
		if p.pod.UID == uid {
			return p
		}
	}
	return nil
}

// apply carries out what a decision says about the state; processes are for later, when the state is on disk.
func (r *record) apply(d *decision, now time.Time) {
	for _, p := range d.count {
		p.counted, p.shell.unsaved = true, true
	}
	r.retry = d.retry
	if d.statusChanged {
		job := *r.job
		job.Status = d.status
		r.job = &job
	}
	r.unsavedStatus = r.unsavedStatus || d.statusChanged || len(d.count) > 0
	for _, p := range d.stop {
		p.markStopped(now)
		p.excluded = d.exclude
	}
	for range d.create {
		r.pods = append(r.pods, &podState{
			pod:   newPod(r.job, r.freePodName(), newUID(), now),
			shell: podShell{unsaved: true},
		})
	}
	r.dropOldPods()
}

func (r *record) freePodName() string {
	for {
		name := generateName(r.key.Name + "-")
		taken := false
		for _, p := range r.pods {
			taken = taken || p.pod.Name == name
		}
		if !taken {
			return name
		}
	}
}

// dropOldPods forgets the oldest ended Pods of a Job that has run very many.
func (r *record) dropOldPods() {
	if len(r.pods) <= keptPods {
		return
	}
	settled := 0
	for _, p := range r.pods {
		if p.settled() {
			settled++
		}
	}
	kept := r.pods[:0:0]
	for _, p := range r.pods {
		if settled > keptPods && p.settled() {
			settled--
			r.dropped = append(r.dropped, p.pod.UID)
			r.droppedNames = append(r.droppedNames, p.pod.Name)
			continue
		}
		kept = append(kept, p)
	}
	r.pods = kept
}

// dropUnstarted forgets Pods that no process was started for, because none will be.
func (r *record) dropUnstarted() {
	kept := r.pods[:0:0]
	for _, p := range r.pods {
		if p.ended() || p.shell.started {
			kept = append(kept, p)
		} else {
			r.dropped = append(r.dropped, p.pod.UID)
		}
	}
	r.pods = kept
}

// running tells whether a Pod of the Job has processes.
func (r *record) running() bool {
	for _, p := range r.pods {
		if p.shell.started && !p.ended() {
			return true
		}
	}
	return false
}

// outdated tells whether the disk must be written, and whether readers see an older state.
func (r *record) outdated() (unsaved, changed bool) {
	unsaved = r.unsavedSpec || r.unsavedStatus || len(r.dropped) > 0
	for _, p := range r.pods {
		unsaved = unsaved || p.shell.unsaved
		changed = changed || p.shell.changed
	}
	return unsaved, unsaved || changed
}

// changes is the entry that brings the disk up to date.
func (r *record) changes(revision uint64) *entry {
	e := &entry{Revision: revision, Dropped: r.dropped}
	if r.unsavedSpec {
		e.Job = withoutStatus(r.job)
	}
	if r.unsavedStatus {
		e.Status, e.Retry = &r.job.Status, &r.retry
	}
	for _, p := range r.pods {
		if p.shell.unsaved {
			e.Pods = append(e.Pods, p.entry())
		}
	}
	return e
}

// whole is the entry that stands for all others.
func (r *record) whole(revision uint64) *entry {
	e := &entry{
		Version: stateVersion, Sequence: r.sequence, Item: r.item, Revision: revision,
		Job: withoutStatus(r.job), Status: &r.job.Status, Retry: &r.retry,
	}
	for _, p := range r.pods {
		e.Pods = append(e.Pods, p.entry())
	}
	return e
}

func withoutStatus(job *batchv1.Job) *batchv1.Job {
	bare := *job
	bare.Status = batchv1.JobStatus{}
	return &bare
}

// publish shows the state to readers.
func (r *record) publish(revision string) {
	job := *r.job
	job.ResourceVersion = revision
	r.job = &job
	view := &scaledjob.Job{Job: &job, Pods: make([]*corev1.Pod, len(r.pods))}
	for i, p := range r.pods {
		if p.shell.changed || p.shell.unsaved {
			pod := *p.pod
			pod.ResourceVersion = revision
			p.pod = &pod
			p.shell.changed, p.shell.unsaved = false, false
		}
		view.Pods[i] = p.pod
	}
	r.unsavedSpec, r.unsavedStatus, r.dropped = false, false, nil
	r.view.Store(view)
	r.unannounced = true
}

// isPodFile tells whether the file in a Job's folder belongs to the Pod.
func isPodFile(file, pod string) bool { return strings.HasPrefix(file, pod+".") }
