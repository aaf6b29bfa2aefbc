package kube

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

var theOwner = types.NamespacedName{Namespace: "shop", Name: "usertask"}

func aJob(name string, version int) *batchv1.Job {
	return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Namespace: theOwner.Namespace, Name: name, UID: types.UID("uid-" + name), ResourceVersion: strconv.Itoa(version),
		Labels: map[string]string{v1alpha1.LabelScaledJob: theOwner.Name},
	}}
}

// server is what the API server knows, and what its watch has yet to show.
type server struct {
	version int
	jobs    map[string]*batchv1.Job
	pending []watched
}

type watched struct {
	job  *batchv1.Job
	gone bool
}

func (s *server) write(job *batchv1.Job) *batchv1.Job {
	s.version++
	job = job.DeepCopy()
	job.ResourceVersion = strconv.Itoa(s.version)
	s.jobs[job.Name] = job
	s.pending = append(s.pending, watched{job: job})
	return job
}

func (s *server) delete(name string) {
	s.version++
	job := s.jobs[name].DeepCopy()
	job.ResourceVersion = strconv.Itoa(s.version)
	delete(s.jobs, name)
	s.pending = append(s.pending, watched{job, true})
}

// TestStoreNeverKnowsLess lets requests, answers and the watch meet in any order. Whatever a Create has returned is in
// every list until the watch has shown its end, and when the watch has shown everything, the store is as the server.
func TestStoreNeverKnowsLess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		store, server, now := newStore(), &server{jobs: map[string]*batchv1.Job{}}, time.Now()
		asked := map[string]*batchv1.Job{} // requests under way, and what the server stored for them: nil for nothing
		owed := map[string]bool{}          // Jobs that a Create has returned and whose end was not shown
		created := 0
		pick := func(from map[string]*batchv1.Job, label string) string {
			return rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, label)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0: // a request is sent
				created++
				name := fmt.Sprintf("job-%d", created)
				store.creating(theOwner, name)
				asked[name] = nil
			case 1: // the server carries it out
				if name := ""; len(asked) > 0 {
					if name = pick(asked, "stored"); asked[name] == nil {
						asked[name] = server.write(aJob(name, 0))
					}
				}
			case 2: // its answer arrives, or gets lost
				if len(asked) == 0 {
					break
				}
				name := pick(asked, "answered")
				stored := asked[name]
				delete(asked, name)
				switch {
				case rapid.Bool().Draw(t, "lost"):
					store.unknown(theOwner, name, now)
					_, doubtful := store.list(theOwner, now)
					if stored != nil && server.jobs[name] != nil && slices.Contains(doubtful, name) {
						store.found(theOwner, server.jobs[name], now) // what asking gives
					} else if slices.Contains(doubtful, name) {
						store.absent(theOwner, name, now.Add(settledWithin))
					}
				case stored == nil:
					store.notCreated(theOwner, name)
				default:
					store.created(theOwner, stored, now)
					owed[name] = true
				}
			case 3, 4: // the watch shows something
				if len(server.pending) == 0 {
					break
				}
				shown := server.pending[0]
				server.pending = server.pending[1:]
				if shown.gone {
					store.hide(theOwner, shown.job)
					delete(owed, shown.job.Name)
				} else {
					store.show(theOwner, trimJob(shown.job))
				}
			case 5: // a Job changes
				if len(server.jobs) > 0 {
					job := server.jobs[pick(server.jobs, "changed")].DeepCopy()
					job.Status.Active++
					server.write(job)
				}
			case 6: // a Job is deleted by this program
				if len(server.jobs) > 0 {
					name := pick(server.jobs, "deleted")
					store.deleting(name, server.jobs[name].UID)
					server.delete(name)
				}
			case 7: // a Job is deleted by somebody else
				if len(server.jobs) > 0 {
					server.delete(pick(server.jobs, "deleted by others"))
				}
			}
			listed := names(store, now)
			for name := range owed {
				pendingEnd := slices.ContainsFunc(server.pending, func(w watched) bool { return w.gone && w.job.Name == name })
				if !listed[name] && (server.jobs[name] != nil || !pendingEnd) && !endShown(server, name) {
					t.Fatalf("%s was created and is not listed: %v", name, listed)
				}
			}
		}
		for name, stored := range asked {
			if stored == nil {
				store.notCreated(theOwner, name)
			} else {
				store.created(theOwner, stored, now)
			}
		}
		for _, shown := range server.pending {
			if shown.gone {
				store.hide(theOwner, shown.job)
			} else {
				store.show(theOwner, trimJob(shown.job))
			}
		}
		_, doubtful := store.list(theOwner, now)
		for _, name := range doubtful { // those whose answers were lost before their end was shown
			store.absent(theOwner, name, now.Add(settledWithin))
		}
		listed := names(store, now)
		if len(listed) != len(server.jobs) {
			t.Fatalf("in the end %v, want %v", listed, slices.Sorted(maps.Keys(server.jobs)))
		}
		if len(server.jobs) == 0 && (len(store.jobs) > 0 || len(store.owners) > 0) {
			t.Fatalf("left behind: %v, %v", store.jobs, store.owners)
		}
	})
}

// endShown tells whether the Job is gone and the watch has shown that.
func endShown(s *server, name string) bool {
	return s.jobs[name] == nil && !slices.ContainsFunc(s.pending, func(w watched) bool { return w.job.Name == name })
}

func names(s *store, now time.Time) map[string]bool {
	jobs, _ := s.list(theOwner, now)
	listed := map[string]bool{}
	for _, job := range jobs {
		listed[job.Name] = true
	}
	return listed
}

func TestStoreDoubts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	store := newStore()
	store.creating(theOwner, "lost")
	store.unknown(theOwner, "lost", now)
	if _, doubtful := store.list(theOwner, now); !slices.Equal(doubtful, []string{"lost"}) {
		t.Errorf("doubtful = %v", doubtful)
	}
	store.absent(theOwner, "lost", now.Add(time.Second))
	if _, doubtful := store.list(theOwner, now); len(doubtful) != 1 {
		t.Error("a Job whose creation may still take effect is taken for absent")
	}
	store.absent(theOwner, "lost", now.Add(settledWithin))
	if jobs, doubtful := store.list(theOwner, now); len(jobs)+len(doubtful) != 0 {
		t.Errorf("left: %v, %v", jobs, doubtful)
	}

	store.creating(theOwner, "unseen")
	store.created(theOwner, aJob("unseen", 5), now)
	if jobs, doubtful := store.list(theOwner, now.Add(time.Second)); len(jobs) != 1 || len(doubtful) != 0 {
		t.Errorf("just created: %v, %v", jobs, doubtful)
	}
	if _, doubtful := store.list(theOwner, now.Add(showWithin)); len(doubtful) != 1 {
		t.Error("the server is not asked about a Job that the watch never shows")
	}
	store.absent(theOwner, "unseen", now.Add(showWithin))
	if len(store.jobs) != 0 || len(store.owners) != 0 {
		t.Errorf("left: %v, %v", store.jobs, store.owners)
	}
}

func TestStoreDeleting(t *testing.T) {
	t.Parallel()
	now := time.Now()
	store := newStore()
	store.show(theOwner, aJob("one", 1))
	undo := store.deleting("one", "uid-one")
	jobs, _ := store.list(theOwner, now)
	if len(jobs) != 1 || jobs[0].DeletionTimestamp == nil {
		t.Errorf("a Job that is being deleted is not listed as such: %v", jobs)
	}
	undo()
	if jobs, _ = store.list(theOwner, now); jobs[0].DeletionTimestamp != nil {
		t.Error("a Job whose deletion failed is listed as being deleted")
	}
	store.deleting("one", "uid-one")
	store.hide(theOwner, aJob("one", 2))
	if jobs, _ = store.list(theOwner, now); len(jobs) != 0 {
		t.Errorf("a deleted Job is listed: %v", jobs)
	}
}

func TestStorePodsAndRefusals(t *testing.T) {
	t.Parallel()
	now := time.Now()
	store := newStore()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "pod", OwnerReferences: []metav1.OwnerReference{
		{Kind: "Job", UID: "uid-one", Controller: ptr.To(true)},
	}}}
	if _, news := store.showPod(pod); news {
		t.Error("a Pod of an unknown Job is news of somebody's")
	}
	store.show(theOwner, aJob("one", 1))
	if jobs, _ := store.list(theOwner, now); len(jobs[0].Pods) != 1 {
		t.Error("a Pod that was shown before its Job is missing")
	}
	listed, _ := store.list(theOwner, now)
	running := pod.DeepCopy()
	running.Status.Phase = corev1.PodRunning
	if owner, news := store.showPod(running); !news || owner != theOwner {
		t.Errorf("a Pod that runs now is no news: %v %v", owner, news)
	}
	if pods := listed[0].Pods; len(pods) != 1 || pods[0] != pod {
		t.Errorf("what was listed before has changed: %v", pods)
	}
	if _, news := store.showPod(running); news {
		t.Error("the same once more is news")
	}
	if owner, news := store.hidePod(running); !news || owner != theOwner || len(store.pods) != 0 {
		t.Errorf("the end of a Pod: %v %v %v", owner, news, store.pods)
	}
	store.hide(theOwner, aJob("one", 1))
	if len(store.owners) != 0 {
		t.Errorf("left: %v", store.owners)
	}
}

// TestStoreRefusals has the Pods of a Job refused, before it gets one and after that one has gone.
func TestStoreRefusals(t *testing.T) {
	t.Parallel()
	store := newStore()
	refused := func(what, want string) {
		t.Helper()
		jobs, _ := store.list(theOwner, time.Now())
		if len(jobs) != 1 || jobs[0].PodsRefused != want {
			t.Errorf("%s: %+v, want %q", what, jobs, want)
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "pod", OwnerReferences: []metav1.OwnerReference{
		{Kind: "Job", UID: "uid-one", Controller: ptr.To(true)},
	}}}
	store.show(theOwner, aJob("one", 1))
	store.refuse("uid-one", "exceeded quota")
	refused("no Pod yet", "exceeded quota")
	store.showPod(pod)
	refused("a Pod", "")
	store.hidePod(pod)
	refused("its Pod is gone, and nobody refuses another", "")

	store.refuse("uid-one", "exceeded quota again")
	refused("refused anew", "exceeded quota again")
	failed := aJob("one", 2)
	failed.Status.Failed = 1
	store.show(theOwner, failed)
	refused("a Pod has failed, and the next one is due after a while", "")

	store.hide(theOwner, failed)
	if len(store.refusals) != 0 {
		t.Errorf("left: %v", store.refusals)
	}
}

func TestNameless(t *testing.T) {
	t.Parallel()
	words := `Error creating: pods "usertask-ab12c-x9z8y" is forbidden: exceeded quota: few`
	name := quoted(words, "usertask-ab12c-")
	if got := nameless(words, name, "usertask-ab12c-"); got != `Error creating: pods "usertask-ab12c-" is forbidden: exceeded quota: few` {
		t.Errorf("got %s", got)
	}
	if got := nameless(words, quoted(words, "other-"), "other-"); got != words {
		t.Errorf("got %s", got)
	}
}

// TestStoreKnownName has a name chosen that a Job of the same ScaledJob has already, which no watch has shown.
func TestStoreKnownName(t *testing.T) {
	t.Parallel()
	store := newStore()
	if !store.creating(theOwner, "one") || store.creating(theOwner, "one") {
		t.Error("a name is given twice")
	}
	store.created(theOwner, aJob("one", 1), time.Now())
	if store.creating(theOwner, "one") {
		t.Error("the name of a Job is given again")
	}
}
