package kube

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/kube/shard"
	"github.com/offboard-dev/offboard/internal/limits"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// leasesOf returns the replicas' Leases in the namespace.
func leasesOf(t *testing.T, c client.Client, namespace string) []coordinationv1.Lease {
	t.Helper()
	leases, err := listLeases(t.Context(), c, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

// agree waits until there are that many replicas and all act under the view of all, which it returns.
func agree(t *testing.T, c client.Client, namespace string, replicas int) shard.View {
	t.Helper()
	var view shard.View
	eventually(t, fmt.Sprintf("%d replicas agree", replicas), func() bool {
		leases := leasesOf(t, c, namespace)
		names := make([]string, len(leases))
		for i := range leases {
			names[i] = leases[i].Name
		}
		view = shard.NewView(names...)
		return len(leases) == replicas && !slices.ContainsFunc(leases, func(lease coordinationv1.Lease) bool {
			return !slices.Equal(said(&lease).View, view)
		})
	})
	return view
}

// TestOwnLease shows what the server makes of writes that come late.
func TestOwnLease(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	namespace := plane.Namespace(t)
	own := &ownLease{client: c, namespace: namespace, identity: "one", exclusive: true}
	if left := own.left(); left > 0 {
		t.Errorf("before there is a Lease, it is relied on for %v", left)
	}
	if err := own.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	view := shard.NewView("a", own.name())
	if err := own.update(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	if left := own.left(); left <= leaseFence-renewWithin || left > leaseFence {
		t.Errorf("a Lease that was renewed just now is relied on for %v", left)
	}
	stored := leasesOf(t, c, namespace)
	if len(stored) != 1 || !slices.Equal(said(&stored[0]).View, view) || !said(&stored[0]).Exclusive {
		t.Fatalf("stored are %+v", stored)
	}

	// A write whose answer was lost has taken effect.
	lost := stored[0].DeepCopy()
	if err := c.Update(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	lost.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	if err := c.Update(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if err := own.update(t.Context(), nil); !errors.Is(err, errLate) {
		t.Errorf("after a write that took effect late: %v", err)
	}
	if err := own.update(t.Context(), nil); err != nil {
		t.Errorf("when its version is known: %v", err)
	}

	// Another replica deletes the version that it has seen, and no later one.
	byVersion := client.Preconditions{UID: &lost.UID, ResourceVersion: &lost.ResourceVersion}
	if err := c.Delete(t.Context(), lost.DeepCopy(), byVersion); err == nil || !gone(err) {
		t.Errorf("a Lease that was renewed is deleted by an older version: %v", err)
	}
	now := leasesOf(t, c, namespace)[0]
	byVersion.ResourceVersion = &now.ResourceVersion
	if err := c.Delete(t.Context(), now.DeepCopy(), byVersion); err != nil {
		t.Fatal(err)
	}
	if err := own.update(t.Context(), nil); !errors.Is(err, errNoLease) {
		t.Errorf("a Lease that is gone is renewed: %v", err)
	}
	if there := leasesOf(t, c, namespace); len(there) != 0 {
		t.Errorf("the renewal has brought it back: %v", there)
	}

	// An attempt to create it has taken effect whose answer was lost.
	former := &ownLease{client: c, namespace: namespace, identity: "one"}
	if err := former.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := own.create(t.Context()); !errors.Is(err, errLate) {
		t.Errorf("where there is a Lease already: %v", err)
	}
	if err := own.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := former.remove(t.Context()); err != nil {
		t.Error(err)
	}
	if there := leasesOf(t, c, namespace); len(there) != 1 || there[0].UID != own.object.UID {
		t.Errorf("of the Leases there are %v", there)
	}

	// It is over-aged: nobody has deleted it, and yet it is not renewed.
	own.mu.Lock()
	own.renewed = own.renewed.Add(-leaseFence)
	own.mu.Unlock()
	if err := own.update(t.Context(), nil); !errors.Is(err, errTooOld) {
		t.Errorf("an over-aged Lease is renewed: %v", err)
	}
	if err := own.remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there := leasesOf(t, c, namespace); len(there) != 0 {
		t.Errorf("it is still there: %v", there)
	}
}

// TestShares has replicas come and go. Each ScaledJob is looked after all the time, and a share has no other owner.
func TestShares(t *testing.T) {
	t.Parallel()
	const scaledJobs = 40
	plane := controlplane.ForTest(t, controlplane.Options{})
	direct := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	options := func(identity string) Options {
		return Options{
			Config: plane.Config(), Namespaces: []string{namespace}, LeaderElection: true, LeaderElectionNamespace: namespace,
			Identity: identity,
		}
	}
	create := func(name string) *v1alpha1.ScaledJob {
		t.Helper()
		sj := aScaledJob(namespace, name)
		if err := direct.Create(t.Context(), sj); err != nil {
			t.Fatal(err)
		}
		return sj
	}
	lookedAfter := func(sj *v1alpha1.ScaledJob) {
		t.Helper()
		eventually(t, sj.Name+" is looked after", func() bool {
			return conditionOf(t, direct, sj, v1alpha1.ConditionReady).Status != metav1.ConditionUnknown
		})
	}
	var all []*v1alpha1.ScaledJob
	for i := range scaledJobs {
		all = append(all, create(fmt.Sprint("work-", i)))
	}
	first := start(t, options("first"))
	agree(t, direct, namespace, 1)
	for _, sj := range all {
		lookedAfter(sj)
	}
	second, third := start(t, options("second")), start(t, options("third"))
	view := agree(t, direct, namespace, 3)
	eventually(t, "both newcomers have taken ScaledJobs", func() bool {
		return strings.Contains(second.String(), "has taken ScaledJobs") && strings.Contains(third.String(), "has taken ScaledJobs")
	})
	owners := map[string]bool{}
	for i := range scaledJobs {
		sj := create(fmt.Sprint("later-", i))
		owners[view.Owner(sj.Key().String())] = true
		all = append(all, sj)
	}
	if len(owners) != 3 {
		t.Fatalf("the later ScaledJobs are all of %v", owners)
	}
	for _, sj := range all[scaledJobs:] {
		lookedAfter(sj)
	}

	// One whose Lease was deleted, as others do with that of a lost replica, joins anew.
	lease := leasesOf(t, direct, namespace)[0]
	if err := direct.Delete(t.Context(), &lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica has joined anew", func() bool {
		return slices.ContainsFunc(leasesOf(t, direct, namespace), func(now coordinationv1.Lease) bool {
			return now.Name == lease.Name && now.UID != lease.UID
		})
	})
	agree(t, direct, namespace, 3)

	// One that is stopped hands its share over at once.
	began := time.Now()
	second.stop()
	agree(t, direct, namespace, 2)
	if took := time.Since(began); took > leaseExpiry {
		t.Errorf("it took %v until the others agreed", took)
	} else {
		t.Logf("it took %v until the others agreed", took)
	}
	for i := range scaledJobs / 4 {
		lookedAfter(create(fmt.Sprint("latest-", i)))
	}
	for _, r := range []*running{first, third} {
		if !strings.Contains(r.String(), "has let ScaledJobs go") && !strings.Contains(r.String(), "has taken ScaledJobs") {
			t.Errorf("nothing is said of what has changed hands:\n%s", r)
		}
	}
}

// TestExclusiveReplica has one that releases all beside one that works, which stands by meanwhile. It ends when the
// other one is stopped.
func TestExclusiveReplica(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	options := Options{
		Config: plane.Config(), Namespaces: []string{namespace}, LeaderElection: true, LeaderElectionNamespace: namespace,
		Identity: "worker",
	}
	sj := claiming(namespace, "work", redistest.Start(t, redistest.Options{}))
	sj.Finalizers = []string{v1alpha1.FinalizerSettle}
	if err := direct.Create(t.Context(), sj); err != nil {
		t.Fatal(err)
	}
	worker := start(t, options)
	agree(t, direct, namespace, 1)
	options.Identity, options.ReleaseAll = "releaser", true
	releaser := start(t, options)
	eventually(t, "the ScaledJob is released", func() bool {
		if err := direct.Get(t.Context(), client.ObjectKeyFromObject(sj), sj); err != nil {
			t.Fatal(err)
		}
		return len(sj.Finalizers) == 0
	})
	for _, lease := range leasesOf(t, direct, namespace) {
		if got := said(&lease).View; len(got) != 1 || got[0] != (&ownLease{identity: "releaser"}).name() {
			t.Errorf("while all is released, %s acts under %v", *lease.Spec.HolderIdentity, got)
		}
	}
	eventually(t, "it is said that the other one has to be stopped", func() bool {
		return strings.Contains(releaser.String(), `"replicas to be stopped"=1`)
	})
	worker.stop()
	if err := releaser.ends(t); err != nil {
		t.Errorf("the operator ended with %v", err)
	}
}

// TestReplicasWithLimits has two replicas keep a limit together: both have Jobs, and when one is stopped, the other
// one has the whole limit.
func TestReplicasWithLimits(t *testing.T) {
	t.Parallel()
	const limit, wanted = 4, 20
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	server := redistest.Start(t, redistest.Options{})
	var keys []client.ObjectKey
	for i := range 12 {
		sj := claiming(namespace, fmt.Sprint("work-", i), server)
		sj.Spec.Triggers[0].Metadata["listName"] = fmt.Sprint("list-", i)
		if err := direct.Create(t.Context(), sj); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, client.ObjectKeyFromObject(sj))
	}
	var replicas []*running
	for _, identity := range []string{"one", "two"} {
		replicas = append(replicas, start(t, Options{
			Config: plane.Config(), Namespaces: []string{namespace}, LeaderElection: true, LeaderElectionNamespace: namespace,
			Identity: identity, Limits: limits.Limits{Jobs: limit},
		}))
	}
	agree(t, direct, namespace, 2)
	for i := range keys {
		for item := range wanted {
			server.Do("RPUSH", fmt.Sprint("list-", i), fmt.Sprint(item))
		}
	}
	// jobs returns the Jobs by their creators. What is being deleted is left out: when its Pods have ended it may be there
	// a little longer.
	jobs := func() (alive int, by map[string][]*batchv1.Job) {
		t.Helper()
		list := &batchv1.JobList{}
		if err := direct.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		by = map[string][]*batchv1.Job{}
		for i := range list.Items {
			job := &list.Items[i]
			if how, _ := scaledjob.Finished(job); how == "" && job.DeletionTimestamp == nil {
				creator := job.Annotations[annotationCreator]
				by[creator] = append(by[creator], job)
				alive++
			}
		}
		if alive > limit {
			t.Fatalf("%d Jobs are alive", alive)
		}
		return alive, by
	}
	// end makes room for one Job.
	end := func(job *batchv1.Job) {
		t.Helper()
		if err := direct.Delete(t.Context(), job, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another Job has taken its place", func() bool {
			err := direct.Get(t.Context(), client.ObjectKeyFromObject(job), &batchv1.Job{})
			alive, _ := jobs()
			return alive == limit && apierrors.IsNotFound(err)
		})
	}
	eventually(t, "the limit is reached", func() bool { alive, _ := jobs(); return alive == limit })
	for range limit {
		// Whoever was first may have had more than its part. These Jobs end only here.
		if _, by := jobs(); len(by) == 1 {
			for _, all := range by {
				end(all[0])
			}
		}
	}
	if _, by := jobs(); len(by) != 2 {
		t.Errorf("the Jobs were all created by one: %v", slices.Collect(maps.Keys(by)))
	}
	for _, key := range keys {
		eventually(t, "the status tells", func() bool {
			sj := &v1alpha1.ScaledJob{}
			if err := direct.Get(t.Context(), key, sj); err != nil {
				t.Fatal(err)
			}
			limited := sj.Status.Conditions.Get(v1alpha1.ConditionLimited)
			return limited.Status == metav1.ConditionTrue && limited.Reason == string(limits.MaxJobs)
		})
	}

	replicas[0].stop()
	agree(t, direct, namespace, 1)
	own := namespace + "/" + string(leasesOf(t, direct, namespace)[0].UID)
	for range 2 * limit {
		_, by := jobs()
		for creator, all := range by {
			if creator != own || len(by) == 1 {
				end(all[0])
				break
			}
		}
	}
	if _, by := jobs(); len(by[own]) != limit {
		t.Errorf("of %d Jobs, the replica that is left has created %d", limit, len(by[own]))
	}

	// Nothing is written while nothing changes.
	table := func() (object corev1.ConfigMap) {
		t.Helper()
		if err := direct.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: rationsName}, &object); err != nil {
			t.Fatal(err)
		}
		return object
	}
	eventually(t, "it has the whole", func() bool {
		object := table()
		read, err := readTable(&object)
		return err == nil && len(read.Entries) == 1 && strings.Contains(fmt.Sprint(object.Data), `"whole":true`)
	})
	before := table()
	wait(t.Context(), 2*lookEvery)
	if after := table(); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the table was written, from %v to %v", before.Data, after.Data)
	}
	replicas[1].stop()
	eventually(t, "the last one takes the table away", func() bool {
		err := direct.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: rationsName}, &corev1.ConfigMap{})
		return apierrors.IsNotFound(err)
	})
}
