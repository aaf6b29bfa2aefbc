package jobs

import (
	"cmp"
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// index finds Jobs by name and by ScaledJob. It holds what is visible; what its Jobs look like they say themselves.
type index struct {
	mu          sync.RWMutex
	byName      map[types.NamespacedName]*record
	byScaledJob map[types.NamespacedName][]*record // each in the order of creation
}

func newIndex() *index {
	return &index{
		byName:      map[types.NamespacedName]*record{},
		byScaledJob: map[types.NamespacedName][]*record{},
	}
}

func bySequence(a, b *record) int { return cmp.Compare(a.sequence, b.sequence) }

// insert adds the Job unless its name is taken.
func (x *index) insert(r *record, job *batchv1.Job) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, taken := x.byName[r.key]; taken {
		return false
	}
	x.byName[r.key] = r
	x.link(r, job)
	return true
}

// remove takes the Job out.
func (x *index) remove(r *record, job *batchv1.Job) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byName, r.key)
	x.unlink(r, job)
}

func (x *index) link(r *record, job *batchv1.Job) {
	key, ok := scaledJobOf(job)
	if !ok {
		return
	}
	list := x.byScaledJob[key]
	at, _ := slices.BinarySearchFunc(list, r, bySequence)
	x.byScaledJob[key] = slices.Insert(list, at, r)
}

func (x *index) unlink(r *record, job *batchv1.Job) {
	key, ok := scaledJobOf(job)
	if !ok {
		return
	}
	list := x.byScaledJob[key]
	if at, found := slices.BinarySearchFunc(list, r, bySequence); found {
		list = slices.Delete(list, at, at+1)
	}
	if len(list) == 0 {
		delete(x.byScaledJob, key)
		return
	}
	x.byScaledJob[key] = list
}

// get returns the Job of that name, nil when there is none.
func (x *index) get(key types.NamespacedName) *record {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byName[key]
}

// ofScaledJob returns the Jobs of a ScaledJob as readers see them.
func (x *index) ofScaledJob(key types.NamespacedName) []scaledjob.Job {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := x.byScaledJob[key]
	jobs := make([]scaledjob.Job, 0, len(list))
	for _, r := range list {
		if view := r.view.Load(); view != nil {
			jobs = append(jobs, *view)
		}
	}
	return jobs
}

// all returns every Job, in the order of creation.
func (x *index) all() []*record {
	x.mu.RLock()
	records := make([]*record, 0, len(x.byName))
	for _, r := range x.byName {
		records = append(records, r)
	}
	x.mu.RUnlock()
	slices.SortFunc(records, bySequence)
	return records
}
