package shard

import (
	"slices"
	"strings"
)

// stored is a Lease as the server has it.
type stored struct {
	Lease
	uid, version int
}

// request is one that is on its way to the server, or whose answer is on its way back.
type request struct {
	at     int // when it takes effect
	answer int // when the answer is there
	effect func(*server) any
	done   bool
	result any
}

// server compares and swaps.
type server struct {
	leases   map[string]stored
	versions int
}

// conflict and gone are answers of the server.
type (
	conflict struct{}
	gone     struct{}
)

func (s *server) create(lease Lease) any {
	if _, exists := s.leases[lease.Name]; exists {
		return conflict{}
	}
	s.versions++
	s.leases[lease.Name] = stored{lease, s.versions, s.versions}
	return s.leases[lease.Name]
}

func (s *server) update(lease stored, blind bool) any {
	now, exists := s.leases[lease.Name]
	switch {
	case blind:
	case !exists || now.uid != lease.uid:
		return gone{}
	case now.version != lease.version:
		return conflict{}
	}
	s.versions++
	lease.version = s.versions
	s.leases[lease.Name] = lease
	return lease
}

// remove deletes a Lease of this UID, and of this version unless that is 0.
func (s *server) remove(lease stored) {
	if now, exists := s.leases[lease.Name]; exists && now.uid == lease.uid && (lease.version == 0 || now.version == lease.version) {
		delete(s.leases, lease.Name)
	}
}

func (s *server) list() []stored {
	var all []stored
	for _, lease := range s.leases {
		all = append(all, lease)
	}
	slices.SortFunc(all, func(a, b stored) int { return strings.Compare(a.Name, b.Name) })
	return all
}
