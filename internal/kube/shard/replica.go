package shard

import "slices"

// Share is the set of keys that a replica acts on. It never changes: a replica that acts on other keys has another one.
// The nil Share is empty.
type Share struct {
	name string
	view View
	// before is the share from which this one has come. Its keys are held without a break where the view still gives them
	// to this replica: others see by its Lease that they are taken.
	before *Share
	// looked tells that the Leases were read since the view was published. Until then nothing is held that was not before.
	looked bool
	// rivals are the Leases that were found then and that may claim what the view gives to this replica.
	rivals []Lease
}

// View returns the view under which the share is held.
func (s *Share) View() View {
	if s == nil {
		return nil
	}
	return s.view
}

// Holds tells whether the key is in the share.
func (s *Share) Holds(key string) bool {
	return s != nil && s.view.Owner(key) == s.name && (s.before.Holds(key) || s.looked && !s.claimed(key))
}

// claimed tells whether a rival claims the key.
func (s *Share) claimed(key string) bool {
	return slices.ContainsFunc(s.rivals, func(lease Lease) bool { return lease.claims(key) })
}

// Acts tells whether anything can be in the share.
func (s *Share) Acts() bool {
	return s != nil && slices.Contains(s.view, s.name) && (s.looked || s.before.Acts())
}

// Settled tells that the share is all that the view gives to this replica.
func (s *Share) Settled() bool { return s != nil && s.looked && len(s.rivals) == 0 }

func sameClaims(a, b Lease) bool { return a.Name == b.Name && slices.Equal(a.View, b.View) }

// narrow returns what is left of the share under another view.
func (s *Share) narrow(name string, view View) *Share {
	return &Share{name: name, view: view, before: s}
}

// widen returns the share together with what the view gives to this replica and nobody else claims: the share itself
// when that is nothing new. The others' Leases must have been read after the view was published.
func (s *Share) widen(others []Lease) *Share {
	wider := &Share{name: s.name, view: s.view, looked: true}
	for _, lease := range others {
		// Two replicas that share a view never claim the same key.
		if len(lease.View) > 0 && !slices.Equal(lease.View, s.view) {
			wider.rivals = append(wider.rivals, lease)
		}
	}
	if s.looked && slices.EqualFunc(s.rivals, wider.rivals, sameClaims) {
		return s
	}
	if len(wider.rivals) > 0 {
		wider.before = s
	}
	return wider
}

// Action is what a replica does next.
type Action int

const (
	// Idle is to wait until the Lease of another replica comes, changes or goes.
	Idle Action = iota
	// Publish is to let go of everything that the share does not hold any more, then to write its view to the own Lease,
	// and then to call Published.
	Publish
	// Look is to read all Leases afresh, not from a cache, and to take what Seen returns.
	Look
)

// Replica is one replica from when it has a Lease until it loses it: what it acts on, and what it does next. Its
// methods are for one goroutine.
type Replica struct {
	own       Lease
	share     *Share
	published bool
}

// NewReplica returns one whose Lease has been created with an empty view. It acts on nothing.
func NewReplica(own Lease) *Replica {
	own.View = nil
	return &Replica{own: own}
}

// Next returns what to do, given the other replicas' Leases as they were last seen, be it a while ago. With Publish,
// the share has become smaller already.
func (r *Replica) Next(others []Lease) Action {
	aim := target(r.own, others)
	switch {
	case !slices.Equal(r.share.View(), aim):
		r.share, r.published = r.share.narrow(r.own.Name, aim), false
		return Publish
	case !r.published:
		return Publish
	case !r.share.Settled():
		return Look
	}
	return Idle
}

// Share returns the present share.
func (r *Replica) Share() *Share { return r.share }

// Published notes that the own Lease says the share's view.
func (r *Replica) Published() { r.published = true }

// Seen returns the share that the replica may take by the other replicas' Leases, which were read after it has
// published its view: the present one if that is the same. It comes to be the present one with Take.
func (r *Replica) Seen(others []Lease) *Share { return r.share.widen(others) }

// Take makes a share that Seen has returned the present one.
func (r *Replica) Take(share *Share) { r.share = share }
