package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/limits/ration"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const (
	// rationsName is the name of the ConfigMap in which the replicas share the limits out. It has a key for each replica's
	// entry, and removalsKey.
	rationsName = component + "-limits"
	removalsKey = "removals"
	// annotationCreator on a Job names whose limits it counts against: the replica's namespace and its Lease's UID.
	annotationCreator = "offboard.dev/creator"
)

// It is looked at what replicas lack and have after each change, but not within lookPause of the last time, and
// anyway every lookEvery. Nothing is written within writePause of the last time.
const (
	lookPause  = 100 * time.Millisecond
	lookEvery  = time.Second
	writePause = 500 * time.Millisecond
	// giveWithin is how long others take to give back what they do not use.
	giveWithin = time.Second
)

// rations keeps limits over all Jobs together with the other replicas, as package ration says.
type rations struct {
	client  client.Client // reads from the server itself
	key     types.NamespacedName
	limits  limits.Limits
	members *members
	objects *objects
	jobs    *jobs
	all     []string // the namespaces that are looked after; none means all
	log     *slog.Logger

	// own is what Jobs name as their creator; nil before the first term.
	own atomic.Pointer[string]
	// changed holds a token when the table has changed, or a Lease has come or gone; poked, when a Job has changed, or
	// waits.
	changed, poked chan struct{}

	mu sync.Mutex
	// last is the newest version of the ConfigMap that is known, and exists whether it is the present one. known tells
	// whether either is.
	last          *corev1.ConfigMap
	exists, known bool
}

func newRations(o *operator) *rations {
	return &rations{
		client: o.client, key: types.NamespacedName{Namespace: o.LeaderElectionNamespace, Name: rationsName},
		limits: o.Limits, members: o.members, objects: o.objects, jobs: o.jobs, all: o.Namespaces, log: o.Log,
		changed: make(chan struct{}, 1), poked: make(chan struct{}, 1),
	}
}

// creator is what the Jobs name as their creator.
func (r *rations) creator() string { return *r.own.Load() }

// createdHere tells whether a Job counts against what this replica may have.
func (r *rations) createdHere(job *batchv1.Job) bool {
	return job.Annotations[annotationCreator] == r.creator()
}

// poke tells that a Job has changed, or waits. It never blocks.
func (r *rations) poke() {
	if r != nil {
		signal(r.poked)
	}
}

// notice tells that a replica has come or gone. It never blocks.
func (r *rations) notice() {
	if r != nil {
		signal(r.changed)
	}
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default: // there is a token already
	}
}

// show takes the ConfigMap from the watch.
func (r *rations) show(before, after *corev1.ConfigMap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case after != nil && (r.last == nil || newer(after, r.last)):
		r.last, r.exists, r.known = after, true, true
	case after == nil && r.last != nil && r.last.UID == before.UID:
		r.exists = false
	default:
		return
	}
	signal(r.changed)
}

// learn takes the server's answer about the ConfigMap; nil when there is none.
func (r *rations) learn(object *corev1.ConfigMap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.exists = true, object != nil
	if object != nil && (r.last == nil || newer(object, r.last)) {
		r.last = object
	}
}

// forget makes the next look read the ConfigMap from the server.
func (r *rations) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = false
}

// present returns the ConfigMap; nil when there is none.
func (r *rations) present(ctx context.Context) (*corev1.ConfigMap, error) {
	r.mu.Lock()
	object, exists, known := r.last, r.exists, r.known
	r.mu.Unlock()
	switch {
	case known && exists:
		return object, nil
	case known:
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	object = &corev1.ConfigMap{}
	err := r.client.Get(ctx, r.key, object)
	if apierrors.IsNotFound(err) {
		r.learn(nil)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", r.key, err)
	}
	r.learn(object)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, nil // which the watch may have shown meanwhile
}

// begin begins a term: Jobs that are created from now on count against it.
func (r *rations) begin() {
	own := r.key.Namespace + "/" + r.members.lease.term()
	r.own.Store(&own)
	r.forget()
}

// term is a replica's part in the limits from when it has a Lease until it loses it.
type term struct {
	*rations
	name       string
	controller *scaledjob.Controller
	replica    *ration.Replica
	census     *ration.Census
	looked     bool // at the Leases, as the server says
	// left are the Jobs that were left over at counted, in that epoch of the table; epoch is empty while they are unknown.
	left    ration.Amounts
	counted time.Time
	epoch   string
	written time.Time
	// final is since when there is no more for this replica; zero while there may be.
	final time.Time
	// busy tells that changes of Jobs matter.
	busy bool
}

// run shares the limits out until ctx ends.
func (r *rations) run(ctx context.Context, controller *scaledjob.Controller) {
	name := r.members.lease.term()
	t := &term{
		rations: r, name: name, controller: controller,
		replica: ration.NewReplica(r.limits, r.members.lease.identity, name),
		census:  ration.NewCensus(name, settledWithin), busy: true,
	}
	for ctx.Err() == nil {
		again, err := t.look(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("the limits cannot be shared out yet", "error", err)
			again = moveAgain
		}
		if again > 0 {
			wait(ctx, again)
			continue
		}
		poked := r.poked
		if !t.busy {
			poked = nil
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-r.changed:
		case <-poked:
			wait(ctx, lookPause)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look does what there is to do. It returns when to look again whatever happens meanwhile; 0 for no need.
func (t *term) look(ctx context.Context) (again time.Duration, err error) {
	if t.members.lease.left() <= 0 {
		return lookPause, nil // the term ends
	}
	object, err := t.present(ctx)
	if err != nil {
		return 0, err
	}
	table, err := readTable(object)
	if err != nil {
		return 0, fmt.Errorf("the ConfigMap %s is not as it was written: delete it, then it is made anew: %w", t.key, err)
	}
	if err := t.see(ctx, table); err != nil {
		return 0, err
	}
	state := ration.State{Complete: t.census.Complete(), Gone: t.census.Gone(time.Now())}
	if state.Left, err = t.leftOver(ctx, table); err != nil {
		return 0, err
	}
	elsewhere := 0
	if slices.Min(append(slices.Collect(maps.Keys(table.Entries)), t.name)) == t.name {
		elsewhere = state.Left[ration.Jobs] // one replica tells of them
	}
	var step ration.Step
	t.controller.Resize(func(usage limits.Usage) (limits.Capacity, int) {
		state.Usage = usage
		step = t.replica.Next(table, state)
		return t.lasting(step.Now, len(table.Entries) > 1), elsewhere
	})
	t.busy = len(table.Entries) != 1 || len(state.Left) > 0 || state.Left == nil
	if step.Table == nil {
		return 0, nil
	}
	if pause := writePause - time.Since(t.written); pause > 0 && !t.written.IsZero() {
		return min(pause, lookPause), nil
	}
	t.written = time.Now()
	t.replica.Sent(step)
	stored, err := t.store(ctx, object, *step.Table)
	if err != nil {
		t.forget()
		if refused(err) {
			return lookPause, nil // another replica was faster
		}
		return 0, err
	}
	t.learn(stored)
	t.replica.Stored(step, version(stored))
	t.controller.Resize(func(limits.Usage) (limits.Capacity, int) { return step.Then, elsewhere })
	return time.Millisecond, nil
}

// lasting returns the share, which is final only when it has been so for long enough for others to have given something
// back.
func (t *term) lasting(share ration.Share, others bool) ration.Share {
	now := time.Now()
	switch {
	case !share.Final():
		t.final = time.Time{}
	case t.final.IsZero():
		t.final = now
	}
	if others && now.Sub(t.final) < giveWithin {
		return share.Passing()
	}
	return share
}

// see looks who there is.
func (t *term) see(ctx context.Context, table ration.Table) error {
	terms := t.members.terms()
	if !t.looked {
		leases, err := listLeases(ctx, t.client, t.key.Namespace)
		if err != nil {
			return err
		}
		terms, t.looked = termsOf(leases), true
	}
	doubtful := t.census.Look(table, terms, time.Now())
	if len(doubtful) == 0 {
		return nil
	}
	leases, err := listLeases(ctx, t.client, t.key.Namespace)
	if err != nil {
		return err
	}
	terms = termsOf(leases)
	for _, name := range doubtful {
		if !slices.Contains(terms, name) {
			t.census.Missing(name, time.Now())
		}
	}
	return nil
}

// leftOver counts the Jobs alive that no replica of the table has created; nil when they are not known.
func (t *term) leftOver(ctx context.Context, table ration.Table) (ration.Amounts, error) {
	if _, registered := table.Entries[t.name]; !registered {
		return nil, nil
	}
	if epoch := t.census.Epoch(table); t.epoch != epoch {
		if err := t.jobs.catchUp(ctx, t.all); err != nil {
			return nil, err
		}
		t.epoch = epoch
	} else if len(t.left) == 0 && time.Since(t.counted) < lookEvery {
		return t.left, nil // there do not come to be any
	}
	t.left, t.counted = ration.Amounts{}, time.Now()
	left := t.jobs.store.alive(func(job *batchv1.Job) bool {
		name, ofReplica := strings.CutPrefix(job.Annotations[annotationCreator], t.key.Namespace+"/")
		_, works := table.Entries[name]
		return !ofReplica || !works
	})
	for _, job := range left {
		_, err := t.objects.ScaledJob(ctx, ownerOf(job))
		if ofReplica := strings.HasPrefix(job.Annotations[annotationCreator], t.key.Namespace+"/"); ofReplica || err == nil {
			t.left[ration.Jobs]++
			t.left[job.Namespace]++
		}
	}
	return t.left, nil
}

// leave takes this replica's entry out when it has ended in order, so that others need not wait until that is certain.
func (r *rations) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	err := r.takeOut(ctx)
	for err != nil && refused(err) {
		err = r.takeOut(ctx)
	}
	if err != nil {
		r.log.Info("the part of this replica in the limits could not be given back; others take it later", "error", err)
	}
}

// takeOut takes this replica's entry out of the table.
func (r *rations) takeOut(ctx context.Context) error {
	if r.jobs.store.doubtful() {
		return errors.New("a Job may come to be that must be counted: the server's answer was lost")
	}
	r.forget()
	object, err := r.present(ctx)
	if err != nil || object == nil {
		return err
	}
	table, err := readTable(object)
	if err != nil {
		return err
	}
	_, name, _ := strings.Cut(r.creator(), "/")
	if _, registered := table.Entries[name]; !registered {
		return nil
	}
	_, err = r.store(ctx, object, table.Without(name))
	return err
}

// refused tells that a write has not taken effect, and will not: the ConfigMap is another one by now.
func refused(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// store stores the table in place of the object. One without entries goes.
func (r *rations) store(ctx context.Context, object *corev1.ConfigMap, table ration.Table) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	failed := func(err error) error { return fmt.Errorf("write ConfigMap %s: %w", r.key, err) }
	if len(table.Entries) == 0 {
		err := r.client.Delete(ctx, object,
			client.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion})
		if err != nil {
			return nil, failed(err)
		}
		return nil, nil
	}
	data, err := writeTable(table)
	if err != nil {
		return nil, failed(err)
	}
	if object == nil {
		object = &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: r.key.Namespace, Name: r.key.Name}, Data: data,
		}
		err = r.client.Create(ctx, object)
	} else {
		object = object.DeepCopy() // with the version, and the UID, that it must have
		object.Data = data
		err = r.client.Update(ctx, object)
	}
	if err != nil {
		return nil, failed(err)
	}
	return object, nil
}

// version names a version of the ConfigMap.
func version(object *corev1.ConfigMap) string {
	return string(object.UID) + "/" + object.ResourceVersion
}

// readTable reads what writeTable has written; nil is the table that nobody has made yet.
func readTable(object *corev1.ConfigMap) (table ration.Table, err error) {
	if object == nil {
		return table, nil
	}
	table = ration.Table{
		Made: string(object.UID), Version: version(object), Entries: map[string]ration.Entry{},
	}
	for key, text := range object.Data {
		if key == removalsKey {
			table.Removals, err = strconv.Atoi(text)
		} else {
			entry := ration.Entry{}
			err = json.Unmarshal([]byte(text), &entry)
			table.Entries[key] = entry
		}
		if err != nil {
			return ration.Table{}, fmt.Errorf("key %s: %w", key, err)
		}
	}
	return table, cmp.Or(table.Check(), missing(object))
}

// missing returns an error when the ConfigMap does not say how many entries were removed.
func missing(object *corev1.ConfigMap) error {
	if _, exists := object.Data[removalsKey]; !exists {
		return errors.New("it has no key " + removalsKey)
	}
	return nil
}

func writeTable(table ration.Table) (map[string]string, error) {
	data := map[string]string{removalsKey: strconv.Itoa(table.Removals)}
	for term, entry := range table.Entries {
		text, err := json.Marshal(entry)
		if err != nil {
			return nil, err
		}
		data[term] = string(text)
	}
	return data, nil
}
