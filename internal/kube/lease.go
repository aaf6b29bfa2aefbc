package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/kube/shard"
)

// The times of a Lease. A replica renews its own every renewEvery. When the last renewal that succeeded was begun
// longer ago than leaseFence, it writes nothing more and ends what it does, for which it takes lastAnswer at the
// most. Others delete a Lease that they have seen unchanged for leaseExpiry, which is longer than the two together,
// and have taken over within leaseDuration.
const (
	leaseDuration = 15 * time.Second
	leaseExpiry   = 14 * time.Second
	leaseFence    = 10 * time.Second
	renewEvery    = 2 * time.Second
	renewWithin   = 2 * time.Second
)

const (
	// labelReplica is on the Leases of all replicas.
	labelReplica = "offboard.dev/replica-of"
	// annotationView holds the view under which the replica acts: see package shard.
	annotationView = "offboard.dev/view"
	// annotationExclusive asks all other replicas to stand by.
	annotationExclusive = "offboard.dev/exclusive"
)

var (
	// errNoLease is the error when a replica's Lease has been deleted: others take it for dead.
	errNoLease = errors.New("its Lease is gone")
	// errTooOld is the error when the own Lease was not renewed for so long that others may have deleted it.
	errTooOld = errors.New("its Lease could not be renewed in time")
	// errLate is the error when a write of the own Lease has to be repeated.
	errLate = errors.New("an earlier write of the Lease has taken effect late")
)

// ownLease is the Lease of this replica. Nobody else writes it, but others may delete it.
type ownLease struct {
	client    client.Client
	namespace string
	identity  string
	exclusive bool

	writing sync.Mutex
	object  *coordinationv1.Lease // as it was stored last, as far as is known

	mu sync.Mutex
	// renewed is when the last write of it that has succeeded was begun; zero while there is none.
	renewed time.Time
}

// name is the Lease's name. An identity may be longer than a name, and hold other characters.
func (l *ownLease) name() string {
	return fmt.Sprintf("%s-%016x", component, xxhash.Sum64String(l.identity))
}

// introduction is what the Lease says at first.
func (l *ownLease) introduction() shard.Lease {
	return shard.Lease{Name: l.name(), Exclusive: l.exclusive}
}

// create makes the Lease, with an empty view, in place of one that this replica may have left behind.
func (l *ownLease) create(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.namespace, Name: l.name(), Labels: map[string]string{labelReplica: component},
			Annotations: map[string]string{annotationView: ""},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To(l.identity), LeaseDurationSeconds: ptr.To(int32(leaseDuration / time.Second)),
			AcquireTime: &now, RenewTime: &now,
		},
	}
	if l.exclusive {
		lease.Annotations[annotationExclusive] = "true"
	}
	err := l.write(ctx, lease, func(ctx context.Context) error { return l.client.Create(ctx, lease) })
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	// An attempt took effect whose answer was lost. Nobody else has this identity.
	left, err := l.find(ctx, func(lease *coordinationv1.Lease) bool { return lease.Name == l.name() })
	if err == nil {
		l.object = left
		err = l.delete(ctx)
	}
	return cmp.Or(err, errLate)
}

// update renews the Lease. The view is the one to publish; nil means that it stays as it is.
func (l *ownLease) update(ctx context.Context, view shard.View) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.left() <= 0 {
		return errTooOld
	}
	lease := l.object.DeepCopy()
	if view != nil {
		lease.Annotations[annotationView] = view.String()
	}
	now := metav1.NowMicro()
	lease.Spec.RenewTime = &now
	err := l.write(ctx, lease, func(ctx context.Context) error { return l.client.Update(ctx, lease) })
	switch {
	case apierrors.IsNotFound(err):
		return errNoLease
	case apierrors.IsConflict(err):
		// The answer to an earlier write was lost, or the Lease is another one by now.
		return l.catchUp(ctx)
	}
	return err
}

// write stores the Lease, and takes note of when it was begun if that has succeeded.
func (l *ownLease) write(ctx context.Context, lease *coordinationv1.Lease, store func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	began := time.Now()
	if err := store(ctx); err != nil {
		return err
	}
	l.object = lease
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed = began
	return nil
}

// catchUp takes note of the version that the server has. It returns an error in any case: nothing has been written.
func (l *ownLease) catchUp(ctx context.Context) error {
	lease, err := l.find(ctx, func(lease *coordinationv1.Lease) bool { return lease.UID == l.object.UID })
	if err != nil {
		return err
	}
	l.object.ResourceVersion = lease.ResourceVersion
	return errLate
}

// find returns the Lease of which the condition holds.
func (l *ownLease) find(
	ctx context.Context, condition func(*coordinationv1.Lease) bool,
) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	leases, err := listLeases(ctx, l.client, l.namespace)
	if err != nil {
		return nil, err
	}
	for i := range leases {
		if condition(&leases[i]) {
			return &leases[i], nil
		}
	}
	return nil, errNoLease
}

// remove deletes the Lease, so that others need not wait for its end.
func (l *ownLease) remove(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.delete(ctx)
}

// delete deletes the Lease and no later one of its name, also when the request takes effect late.
func (l *ownLease) delete(ctx context.Context) error {
	l.mu.Lock()
	l.renewed = time.Time{}
	l.mu.Unlock()
	if l.object == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	err := l.client.Delete(ctx, l.object, client.Preconditions{UID: &l.object.UID})
	if err != nil && !gone(err) {
		return err
	}
	l.object = nil
	return nil
}

// term names the Lease and no earlier one of its name. There must be one.
func (l *ownLease) term() string {
	l.writing.Lock()
	defer l.writing.Unlock()
	return string(l.object.UID)
}

// left is for how much longer the Lease may be relied on; not positive when it may not. A process or a machine that was
// stopped for a while, and goes on without knowing, finds out here before it writes.
func (l *ownLease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewed.IsZero() {
		return 0
	}
	// The monotonic clock stands still while a machine is suspended, and the other one may be set back.
	return leaseFence - max(time.Since(l.renewed), time.Since(l.renewed.Round(0)))
}

// listLeases reads the Leases of all replicas from the server.
func listLeases(ctx context.Context, reader client.Reader, namespace string) ([]coordinationv1.Lease, error) {
	var list coordinationv1.LeaseList
	err := reader.List(ctx, &list, client.InNamespace(namespace),
		client.MatchingLabelsSelector{Selector: ofReplicas()})
	if err != nil {
		return nil, fmt.Errorf("list the Leases of the replicas in namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}

// ofReplicas selects the Leases of all replicas.
func ofReplicas() labels.Selector { return labels.SelectorFromSet(labels.Set{labelReplica: component}) }

// said is what a Lease tells other replicas.
func said(lease *coordinationv1.Lease) shard.Lease {
	return shard.Lease{
		Name: lease.Name, View: shard.ParseView(lease.Annotations[annotationView]),
		Exclusive: lease.Annotations[annotationExclusive] == "true",
	}
}
