package kube

import (
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// showWithin is how long the watch may take to show a Job that was created here before the server is asked about it.
const showWithin = 30 * time.Second

// store holds the Jobs of all ScaledJobs with their Pods. The watches feed it, and so do this program's own writes, so
// that it never knows less than was done here: a Job is in it from before its creation is asked for.
//
// What it holds is trimmed and shared with the watches' caches; nobody may modify it.
type store struct {
	mu   sync.Mutex
	jobs map[types.NamespacedName]map[string]*entry // by ScaledJob, then by the Job's name
	// owners tells whose Job it is, by the Job's UID.
	owners map[types.UID]types.NamespacedName
	// pods are those of each Job, by its UID. A slice that list has handed out is never changed: there comes a new one.
	pods map[types.UID][]*corev1.Pod
	// refusals are the words in which the cluster refused to make a Job's Pods, by the Job's UID.
	refusals map[types.UID]string
}

// entry is one Job, or the attempt to create it.
type entry struct {
	job *batchv1.Job // nil while it is not known whether the Job exists
	// busy tells that a Job of that name is being created; ended is the last one whose end was shown meanwhile.
	busy  bool
	ended types.UID
	// shown tells that the watch has shown the Job. From then on the watch alone tells what becomes of it.
	shown bool
	// deleting tells that this program has deleted the Job.
	deleting bool
	// settled tells that this program has taken v1alpha1.FinalizerSettle off the Job.
	settled bool
	// doubt is when the server should be asked whether the Job exists; zero when there is no need.
	doubt time.Time
}

func newStore() *store {
	return &store{
		jobs:     map[types.NamespacedName]map[string]*entry{},
		owners:   map[types.UID]types.NamespacedName{},
		pods:     map[types.UID][]*corev1.Pod{},
		refusals: map[types.UID]string{},
	}
}

// creating notes that a Job of that name is about to be created or looked for; false when the name is known already.
func (s *store) creating(owner types.NamespacedName, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[owner][name] != nil {
		return false
	}
	s.add(owner, name, &entry{busy: true})
	return true
}

// naming is what the store knows of a Job that is to be created under a certain name.
type naming struct {
	// known tells that there is such a Job; busy, that it is being created.
	known, busy bool
	// again tells that it was tried before, and lost when the answer was.
	again bool
	lost  time.Time
}

// naming notes that a Job of that name is about to be created, unless it is known or being created already.
func (s *store) naming(owner types.NamespacedName, name string) naming {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.jobs[owner][name]
	switch {
	case e == nil:
		s.add(owner, name, &entry{busy: true})
		return naming{}
	case e.busy || e.job != nil:
		return naming{known: e.job != nil, busy: e.busy}
	}
	e.busy = true
	return naming{again: true, lost: e.doubt}
}

// created notes what the server stored.
func (s *store) created(owner types.NamespacedName, job *batchv1.Job, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[owner][job.Name]; e != nil {
		e.busy = false
		s.take(owner, job, e, now)
	}
}

// found notes that the server has a Job that was doubtful.
func (s *store) found(owner types.NamespacedName, job *batchv1.Job, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[owner][job.Name]; e != nil {
		s.take(owner, job, e, now)
	}
}

// take takes a Job in that the watch may not have shown. Without an entry, it has shown the Job and its end by now.
func (s *store) take(owner types.NamespacedName, job *batchv1.Job, e *entry, now time.Time) {
	switch before := e.job; {
	case before == nil && job.UID == e.ended:
		if !e.busy {
			s.remove(owner, job.Name)
		}
		return
	case e.shown && (before.UID == job.UID || !newer(job, before)):
		e.doubt = time.Time{}
		return
	case before != nil && before.UID != job.UID: // an earlier Job of that name, whose end the watch has yet to show
		s.drop(before.UID)
		e.deleting, e.settled = false, false
	}
	e.job, e.shown, e.doubt = trimJob(job), false, now.Add(showWithin)
	if e.settled {
		e.job = withoutFinalizers(e.job)
	}
	s.owners[job.UID] = owner
}

// notCreated notes that there is no Job of that name after all.
func (s *store) notCreated(owner types.NamespacedName, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[owner][name]; e != nil {
		e.busy = false
		if !e.shown {
			s.remove(owner, name)
		}
	}
}

// unknown notes that the answer of the server was lost at that time: the Job may exist.
func (s *store) unknown(owner types.NamespacedName, name string, lost time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[owner][name]; e != nil {
		e.doubt, e.busy = lost, false
	}
}

// absent notes that the server has no Job of that name. While the answer to its creation was lost only just now, it may
// still come to be, and while it is being created, it may come to be at any moment.
func (s *store) absent(owner types.NamespacedName, name string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.jobs[owner][name]
	if e != nil && !e.shown && !e.busy && (e.job != nil || now.Sub(e.doubt) >= settledWithin) {
		s.remove(owner, name)
	}
}

// deleting notes that the Job is about to be deleted; it returns how to take that back.
func (s *store) deleting(name string, uid types.UID) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.jobs[s.owners[uid]][name]
	if e == nil || e.job == nil || e.job.UID != uid {
		return func() {}
	}
	e.deleting = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.deleting = false
	}
}

// settled notes that v1alpha1.FinalizerSettle was taken off the Job.
func (s *store) settled(name string, uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[s.owners[uid]][name]; e != nil && e.job != nil && e.job.UID == uid {
		e.job, e.settled = withoutFinalizers(e.job), true
	}
}

// withoutFinalizers returns a trimmed Job without the one finalizer that it may have.
func withoutFinalizers(job *batchv1.Job) *batchv1.Job {
	copied := *job
	copied.Finalizers = nil
	return &copied
}

// show takes a Job from the watch and tells whether anything about it is news.
func (s *store) show(owner types.NamespacedName, job *batchv1.Job) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.jobs[owner][job.Name]
	if e == nil {
		e = &entry{}
		s.add(owner, job.Name, e)
	}
	if before := e.job; before != nil && before.UID == job.UID {
		if e.settled { // an older version still has it
			job = withoutFinalizers(job)
		}
		news = !sameJob(before, job)
		if !newer(job, before) {
			job = before
		}
	} else if before != nil && !newer(job, before) {
		return false // an earlier Job of that name, which is gone by now
	} else {
		news = true
		if before != nil {
			s.drop(before.UID)
		}
		e.deleting, e.settled = false, false
	}
	if !e.shown {
		e.doubt = time.Time{}
	}
	e.job, e.shown = job, true
	s.owners[job.UID] = owner
	return news
}

// hide takes the end of a Job from the watch.
func (s *store) hide(owner types.NamespacedName, job *batchv1.Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(job.UID)
	e := s.jobs[owner][job.Name]
	if e == nil || e.job != nil && e.job.UID != job.UID {
		return
	}
	if e.busy || !e.doubt.IsZero() { // there may be another one of that name
		*e = entry{busy: e.busy, ended: job.UID, doubt: e.doubt}
		return
	}
	s.remove(owner, job.Name)
}

// showPod takes a Pod from the watch and returns the ScaledJob for which that is news, if any. A Job that has got a Pod
// is no longer refused any; where it is again, the event is written again.
func (s *store) showPod(pod *corev1.Pod) (owner types.NamespacedName, news bool) {
	job := jobOf(pod)
	if job == "" {
		return owner, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	others, before := without(s.pods[job], pod.UID)
	s.pods[job] = append(others, pod)
	if before == nil {
		delete(s.refusals, job)
	}
	owner, known := s.owners[job]
	return owner, known && (before == nil || !samePod(before, pod))
}

// hidePod takes the end of a Pod from the watch and returns the ScaledJob for which that is news, if any.
func (s *store) hidePod(pod *corev1.Pod) (owner types.NamespacedName, news bool) {
	job := jobOf(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	if others, _ := without(s.pods[job], pod.UID); len(others) > 0 {
		s.pods[job] = others
	} else {
		delete(s.pods, job)
	}
	owner, known := s.owners[job]
	return owner, known
}

// refuse notes in which words the cluster refuses to make the Job's Pods, and returns whose Job it is. Empty words mean
// that it is over.
func (s *store) refuse(job types.UID, words string) (owner types.NamespacedName, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = s.refusals[job] != words
	if words == "" {
		delete(s.refusals, job)
	} else {
		s.refusals[job] = words
	}
	owner, known := s.owners[job]
	return owner, known && news
}

// list returns the Jobs of the ScaledJob, and the names of those about which the server must be asked first.
func (s *store) list(owner types.NamespacedName, now time.Time) (jobs []scaledjob.Job, doubtful []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	jobs = make([]scaledjob.Job, 0, len(s.jobs[owner]))
	for name, e := range s.jobs[owner] {
		if e.job == nil || !e.shown && !e.doubt.IsZero() && !now.Before(e.doubt) {
			doubtful = append(doubtful, name)
			continue
		}
		job := scaledjob.Job{Job: e.job, Pods: s.pods[e.job.UID]}
		if e.deleting && job.DeletionTimestamp == nil {
			job.Job = e.job.DeepCopy()
			job.DeletionTimestamp = &metav1.Time{Time: now}
		}
		// Of failed Pods the watch tells nothing: between them and the next one, a Job is not refused any.
		if len(job.Pods) == 0 && job.Status.Active == 0 && job.Status.Failed == 0 {
			job.PodsRefused = s.refusals[e.job.UID]
		}
		jobs = append(jobs, job)
	}
	return jobs, doubtful
}

// doubtful tells whether there are Jobs of which it is not known whether they exist.
func (s *store) doubtful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entries := range s.jobs {
		for _, e := range entries {
			if e.job == nil {
				return true
			}
		}
	}
	return false
}

// alive returns the Jobs that have not ended and for which the condition holds.
func (s *store) alive(condition func(*batchv1.Job) bool) (jobs []*batchv1.Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entries := range s.jobs {
		for _, e := range entries {
			if e.job != nil && condition(e.job) && scaledjob.Alive(scaledjob.Job{Job: e.job, Pods: s.pods[e.job.UID]}) {
				jobs = append(jobs, e.job)
			}
		}
	}
	return jobs
}

// podsOf returns the Pods of a Job that the watch has shown.
func (s *store) podsOf(job types.UID) []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[job]
}

// owner returns whose Job it is, by the Job's UID; false when there is none that is known.
func (s *store) owner(uid types.UID) (owner types.NamespacedName, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, known = s.owners[uid]
	return owner, known
}

// job returns the Job of that name and UID; nil when it is not known.
func (s *store) job(owner types.NamespacedName, name string, uid types.UID) *batchv1.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.jobs[owner][name]; e != nil && e.job != nil && e.job.UID == uid {
		return e.job
	}
	return nil
}

func (s *store) add(owner types.NamespacedName, name string, e *entry) {
	if s.jobs[owner] == nil {
		s.jobs[owner] = map[string]*entry{}
	}
	s.jobs[owner][name] = e
}

func (s *store) remove(owner types.NamespacedName, name string) {
	if e := s.jobs[owner][name]; e != nil && e.job != nil {
		s.drop(e.job.UID)
	}
	delete(s.jobs[owner], name)
	if len(s.jobs[owner]) == 0 {
		delete(s.jobs, owner)
	}
}

// drop forgets what is known by a Job's UID, but for its Pods, whose end the watch shows.
func (s *store) drop(uid types.UID) {
	delete(s.owners, uid)
	delete(s.refusals, uid)
}

// without returns, in a new slice with room for one more, the Pods but for the one of that UID, and that one; nil if it
// is not among them.
func without(pods []*corev1.Pod, uid types.UID) (others []*corev1.Pod, found *corev1.Pod) {
	others = make([]*corev1.Pod, 0, len(pods)+1)
	for _, pod := range pods {
		if pod.UID == uid {
			found = pod
		} else {
			others = append(others, pod)
		}
	}
	return others, found
}

// jobOf returns the UID of the Job that the Pod belongs to; empty when there is none.
func jobOf(pod *corev1.Pod) types.UID {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "Job" {
		return ""
	}
	return owner.UID
}

// newer tells whether a is a later version of the object than b. Kubernetes guarantees from 1.35 on that versions of
// one resource can be compared, and no server in use before had others; of a server that has, the last word counts.
func newer(a, b metav1.Object) bool {
	order, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err != nil || order > 0
}
