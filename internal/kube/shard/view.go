// Package shard decides which of several replicas looks after which key: the protocol by which they share keys out
// among them without anybody who leads. It does no I/O, starts no goroutine and reads no clock; docs/architecture.md
// says why two replicas never look after one key.
//
// Each replica has a Lease of its own, which tells the others the View under which it acts. Of the members of a view,
// one owns a key: the one whose hash together with the key is the highest (rendezvous hashing), so that only the keys
// of a member that comes or goes change hands.
package shard

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// View is the replicas among which keys are shared out: the names of their Leases, in order and each once. An empty one
// gives keys to nobody.
type View []string

// NewView returns the view of these replicas.
func NewView(names ...string) View {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// separator stands between names in the text of a view. No Lease has it in its name.
const separator = ","

// ParseView reads what String has written.
func ParseView(text string) View {
	return NewView(slices.DeleteFunc(strings.Split(text, separator), func(name string) bool { return name == "" })...)
}

func (v View) String() string { return strings.Join(v, separator) }

// Owner returns the member that the view gives the key to; empty when it has none.
func (v View) Owner(key string) string {
	var owner string
	var highest uint64
	for _, name := range v {
		// Of two equal hashes the later name counts: every replica has the same order.
		if weight := weigh(name, key); owner == "" || weight >= highest {
			owner, highest = name, weight
		}
	}
	return owner
}

// weigh returns the weight of a member for a key.
func weigh(name, key string) uint64 {
	var hash xxhash.Digest
	hash.Reset()
	_, _ = hash.WriteString(name) // a hash takes everything
	_, _ = hash.WriteString(separator)
	_, _ = hash.WriteString(key)
	return hash.Sum64()
}

// Lease is what the Lease of a replica says.
type Lease struct {
	Name string
	// View is the one under which the replica acts.
	View View
	// Exclusive asks all others to stand by.
	Exclusive bool
}

// claims tells whether its replica acts on the key, or would once nobody else does.
func (l Lease) claims(key string) bool { return l.View.Owner(key) == l.Name }

// target is the view that all replicas come to share when no Lease changes any more.
func target(own Lease, others []Lease) View {
	var all, exclusive []string
	for _, lease := range append([]Lease{own}, others...) {
		all = append(all, lease.Name)
		if lease.Exclusive {
			exclusive = append(exclusive, lease.Name)
		}
	}
	if len(exclusive) > 0 {
		return NewView(exclusive...)
	}
	return NewView(all...)
}
