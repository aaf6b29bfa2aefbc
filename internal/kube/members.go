package kube

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/kube/shard"
)

const (
	// moveAgain is the pause before what has failed is tried again.
	moveAgain = time.Second
	// expireEvery is how often it is looked for Leases that have expired.
	expireEvery = 250 * time.Millisecond
)

// members shares the ScaledJobs out over the replicas: it keeps this replica's Lease and does what package shard says.
type members struct {
	lease  *ownLease
	client client.Client // reads from the server itself
	log    *slog.Logger
	// letGo ends what is done about objects that may refuses, and returns when nothing of it is under way.
	letGo func()
	// catchUp makes known what other replicas have written until now.
	catchUp func(context.Context) error
	// taken begins to work on what is in the share and was not before.
	taken func(ctx context.Context, before func(types.NamespacedName) bool)
	// tell tells how many replicas there are, and whether this one has a share.
	tell func(replicas int, has bool)

	// share is the present one; nil between terms.
	share atomic.Pointer[shard.Share]
	// changed holds a token when another replica's Lease has come, changed or gone.
	changed chan struct{}

	mu   sync.Mutex
	seen map[string]seenLease
}

// seenLease is a Lease as the watch has shown it last, and when.
type seenLease struct {
	*coordinationv1.Lease
	at time.Time
}

func newMembers(o *operator) *members {
	return &members{
		lease: &ownLease{
			client: o.client, namespace: o.LeaderElectionNamespace, identity: o.Identity, exclusive: o.ReleaseAll,
		},
		client: o.client, log: o.Log, letGo: o.letGo, taken: o.taken,
		tell:    func(replicas int, has bool) { o.recorder.SetReplicas(replicas); o.recorder.SetLeader(has) },
		catchUp: func(ctx context.Context) error { return o.jobs.catchUp(ctx, o.Namespaces) },
		changed: make(chan struct{}, 1), seen: map[string]seenLease{},
	}
}

// holds tells whether the object is in the share.
func (m *members) holds(key types.NamespacedName) bool { return m.share.Load().Holds(key.String()) }

// may returns an error unless this replica, and no other one, may write about the object now.
func (m *members) may(key types.NamespacedName) error {
	if !m.holds(key) || m.lease.left() <= 0 {
		return errLost
	}
	return nil
}

// show takes a Lease from the watch.
func (m *members) show(before, lease *coordinationv1.Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lease == nil {
		delete(m.seen, before.Name)
	} else if m.seen[lease.Name].Lease == nil || m.seen[lease.Name].ResourceVersion != lease.ResourceVersion {
		m.seen[lease.Name] = seenLease{lease, time.Now()}
	}
	signal(m.changed)
}

// others are the other replicas' Leases as the watch has shown them.
func (m *members) others() []shard.Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []shard.Lease
	for name, lease := range m.seen {
		if name != m.lease.name() {
			all = append(all, said(lease.Lease))
		}
	}
	return all
}

// terms names the Leases of those that may create Jobs, as the watch has shown them.
func (m *members) terms() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []coordinationv1.Lease
	for _, lease := range m.seen {
		all = append(all, *lease.Lease)
	}
	return termsOf(all)
}

// termsOf names the Leases of those that may create Jobs.
func termsOf(leases []coordinationv1.Lease) []string {
	var terms []string
	for i := range leases {
		if !said(&leases[i]).Exclusive {
			terms = append(terms, string(leases[i].UID))
		}
	}
	return terms
}

// askOthers reads the other replicas' Leases from the server.
func (m *members) askOthers(ctx context.Context) ([]shard.Lease, error) {
	leases, err := listLeases(ctx, m.client, m.lease.namespace)
	var all []shard.Lease
	for i := range leases {
		if leases[i].Name != m.lease.name() {
			all = append(all, said(&leases[i]))
		}
	}
	return all, err
}

// run calls serve in each term, which begins when this replica has a Lease and ends when it has lost it, until ctx
// ends. The context of serve ends with the term; what serve is given, it runs beside its work, since that calls letGo
// and taken. The Lease is deleted only when serve has returned.
func (m *members) run(ctx context.Context, serve func(ctx context.Context, share func(context.Context))) {
	for m.join(ctx) {
		m.term(ctx, serve)
	}
}

// join makes this replica's Lease, again and again until that succeeds; false when ctx has ended before.
func (m *members) join(ctx context.Context) bool {
	for ctx.Err() == nil {
		err := m.lease.create(ctx)
		if err == nil {
			m.log.Info("this replica has joined", "identity", m.lease.identity, "lease", m.lease.name())
			return true
		}
		if ctx.Err() == nil {
			m.log.Warn("this replica cannot join yet", "identity", m.lease.identity, "error", err)
		}
		wait(ctx, moveAgain)
	}
	return false
}

// term works until the Lease is lost or ctx ends.
func (m *members) term(ctx context.Context, serve func(ctx context.Context, share func(context.Context))) {
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	// The Lease is renewed until serve has returned, also when ctx has ended.
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keeping sync.WaitGroup
	keeping.Go(func() { end(m.renew(renewing)) })
	keeping.Go(func() { m.expire(serving) })
	serve(serving, m.move)
	if ctx.Err() == nil {
		m.log.Warn("this replica has lost its Lease and lets go of everything", "identity", m.lease.identity,
			"error", context.Cause(serving))
	}
	stop()
	keeping.Wait()
	m.share.Store(nil)
	if err := m.lease.remove(context.WithoutCancel(ctx)); err != nil {
		m.log.Info("the Lease could not be deleted; it ends by itself", "after", leaseDuration, "error", err)
	}
}

// renew renews the Lease until ctx ends or it is lost, and returns why it is.
func (m *members) renew(ctx context.Context) error {
	var failed error
	for wait(ctx, min(renewEvery, m.lease.left())) {
		left := m.lease.left()
		if left <= 0 {
			return errors.Join(errTooOld, failed)
		}
		attempt, cancel := context.WithTimeout(ctx, left)
		failed = m.lease.update(attempt, nil)
		cancel()
		if errors.Is(failed, errNoLease) {
			return failed
		}
	}
	return ctx.Err()
}

// expire deletes the Leases of replicas that are lost, until ctx ends. Only the version that was seen is deleted: one
// that was renewed meanwhile stays.
func (m *members) expire(ctx context.Context) {
	for wait(ctx, expireEvery) {
		for _, lease := range m.overdue() {
			attempt, cancel := context.WithTimeout(ctx, renewWithin)
			err := m.client.Delete(attempt, lease,
				client.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion})
			cancel()
			switch {
			case err == nil:
				m.log.Warn("a replica is lost: it has not renewed its Lease", "identity", ptr.Deref(lease.Spec.HolderIdentity, ""),
					"lease", lease.Name, "for", leaseExpiry)
			case !gone(err) && ctx.Err() == nil:
				m.log.Warn("the Lease of a lost replica cannot be deleted yet", "lease", lease.Name, "error", err)
				wait(ctx, moveAgain)
			}
		}
	}
}

// overdue returns the Leases of others that have not been renewed for so long that their replicas do nothing any more.
func (m *members) overdue() []*coordinationv1.Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*coordinationv1.Lease
	for name, lease := range m.seen {
		if name != m.lease.name() && time.Since(lease.at) >= leaseExpiry {
			all = append(all, lease.Lease)
		}
	}
	return all
}

// move takes and lets go of objects as replicas come and go, until ctx ends.
func (m *members) move(ctx context.Context) {
	replica := shard.NewReplica(m.lease.introduction())
	for ctx.Err() == nil {
		others := m.others()
		action := replica.Next(others)
		view := replica.Share().View()
		m.tell(1+len(others), replica.Share().Acts())
		var err error
		switch action {
		case shard.Publish:
			m.share.Store(replica.Share())
			m.letGo()
			if err = m.lease.update(ctx, view); err == nil {
				m.log.Info("this replica acts under another view", "replicas", view)
				replica.Published()
			}
		case shard.Look:
			err = m.look(ctx, replica)
		case shard.Idle:
		}
		switch {
		case err != nil:
			if ctx.Err() == nil {
				m.log.Warn("the share of this replica cannot change yet", "error", err)
			}
			wait(ctx, moveAgain)
		case action == shard.Idle || action == shard.Look && !replica.Share().Settled():
			m.waitForChange(ctx)
		}
	}
}

// look takes what the view gives to this replica and no other one claims.
func (m *members) look(ctx context.Context, replica *shard.Replica) error {
	others, err := m.askOthers(ctx)
	if err != nil {
		return err
	}
	before, now := replica.Share(), replica.Seen(others)
	if now == before {
		return nil
	}
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	replica.Take(now)
	m.share.Store(now)
	m.taken(ctx, func(key types.NamespacedName) bool { return before.Holds(key.String()) })
	return nil
}

// waitForChange waits until the Lease of another replica has changed. Since Leases are renewed, that is soon.
func (m *members) waitForChange(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-m.changed:
	}
}
