// Package lease keeps what was obtained for a limited time, such as tokens, so that it is obtained anew shortly before
// its end and not each time that it is needed.
package lease

import (
	"context"
	"sync"
	"time"
)

// trusted is how long a value that seems not to work any more is given out all the same: whoever needs it may ask as
// often as it fails, and for whom it works it should stay the same.
const trusted = time.Minute

// Values are values by their keys. The zero value holds none.
type Values[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]*entry[V]
	purgeAt int // the number of entries at which those that have ended are looked for
}

type entry[V any] struct {
	turn  chan struct{} // whoever is in it may obtain
	users int
	held  *held[V] // nil while there is none
}

type held[V any] struct {
	value V
	made  time.Time
	life  time.Duration
}

// due is when the value is to be obtained anew: at two thirds of its life.
func (h *held[V]) due() time.Time { return h.made.Add(h.life * 2 / 3) }

// Obtain makes a value. previous is the one that was held until now, which may have ended; nil when there is none. life
// is for how long the value is valid; 0 means that it is for this one use only.
type Obtain[V any] func(ctx context.Context, previous *V) (value V, life time.Duration, err error)

// Get returns the value of the key and when it is to be asked for again. It is obtained when there is none, when two
// thirds of its life are over, or when it is doubted and older than a minute. Of one key one value at a time is
// obtained; who waits for it waits as long as ctx allows. The time is zero for a value that was not kept.
func (v *Values[K, V]) Get(ctx context.Context, key K, doubted bool, obtain Obtain[V]) (V, time.Time, error) {
	var none V
	if err := ctx.Err(); err != nil {
		return none, time.Time{}, err
	}
	e := v.enter(key)
	defer v.leave(key, e)
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return none, time.Time{}, ctx.Err()
	}
	defer func() { <-e.turn }()
	before, now := v.held(e), time.Now()
	if before != nil && now.Before(before.due()) && (!doubted || now.Sub(before.made) < trusted) {
		return before.value, before.due(), nil
	}
	var previous *V
	if before != nil {
		previous = &before.value
	}
	value, life, err := obtain(ctx, previous)
	if err != nil {
		return none, time.Time{}, err
	}
	var after *held[V]
	var due time.Time
	if life > 0 {
		// From before it was asked for, so that it has not ended when its time is counted as over.
		after = &held[V]{value, now, life}
		due = after.due()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e.held = after
	return value, due, nil
}

func (v *Values[K, V]) held(e *entry[V]) *held[V] {
	v.mu.Lock()
	defer v.mu.Unlock()
	return e.held
}

// Drop forgets the value that was given out for the key until due; a newer one stays.
func (v *Values[K, V]) Drop(key K, due time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[key]
	if e == nil || e.held == nil || !e.held.due().Equal(due) {
		return
	}
	if e.held = nil; e.users == 0 {
		delete(v.entries, key)
	}
}

func (v *Values[K, V]) enter(key K) *entry[V] {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[key]
	if e == nil {
		if v.entries == nil {
			v.entries = map[K]*entry[V]{}
		}
		v.purge()
		e = &entry[V]{turn: make(chan struct{}, 1)}
		v.entries[key] = e
	}
	e.users++
	return e
}

// leave forgets an entry that nobody uses and that holds nothing.
func (v *Values[K, V]) leave(key K, e *entry[V]) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e.users--; e.users == 0 && e.held == nil {
		delete(v.entries, key)
	}
}

// purge forgets what has ended and nobody asks for any more, each time that there is twice as much as was left.
func (v *Values[K, V]) purge() {
	const least = 64
	if len(v.entries) < max(v.purgeAt, least) {
		return
	}
	now := time.Now()
	for key, e := range v.entries {
		if e.users == 0 && e.held != nil && now.After(e.held.made.Add(e.held.life)) {
			delete(v.entries, key)
		}
	}
	v.purgeAt = 2 * len(v.entries)
}
