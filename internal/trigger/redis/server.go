package redis

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// server is where keys are read and changed: one Redis, the master that sentinels name, or a cluster. It connects when
// it is first used, and handles outages itself. The errors of its methods say which server failed, and what that means.
type server interface {
	// read lets do read something of a key. What do remembers may be as old as age. A reading that fails because the
	// connection is lost, or the key is elsewhere, is tried again. holds is for how long what was read holds, as the
	// server tells of changes of the keys that do asked it to; 0 when it cannot.
	read(
		ctx context.Context, key string, do func(opened *session, age time.Duration) error,
	) (holds time.Duration, err error)
	// write lets do change a key. It is not tried again when it may have taken effect.
	write(ctx context.Context, key string, do func(*session) error) error
	// watch calls changed whenever the key may have changed, until remove is called; after remove it is not called.
	watch(key string, changed func()) (remove func())
	// use notes a user with its polling interval until forget is called.
	use(interval time.Duration) (forget func())
	// reach returns how it is reached.
	reach() settings
	// stop ends all connections.
	stop()
}

var (
	_ server = (*connection)(nil)
	_ server = (*cluster)(nil)
)

// usage counts who uses a server.
type usage struct {
	mu sync.Mutex
	// users counts those of each polling interval.
	users map[time.Duration]int
}

func newUsage() *usage { return &usage{users: map[time.Duration]int{}} }

// use notes a user with its polling interval until forget is called.
func (u *usage) use(interval time.Duration) (forget func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users[interval]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.users[interval]--; u.users[interval] == 0 {
			delete(u.users, interval)
		}
	}
}

// What is remembered is read anew although the server has not told of a change, in case a notice is lost that should
// not be. So as not to load the server with that, all users together do it once in checkEvery on average, each for
// about keysPerUser keys.
const (
	checkEvery  = time.Second
	keysPerUser = 2
)

// age returns for how long an answer is remembered when the server tells of no change: not quite as long as it holds,
// so that whoever asks again after that time checks it. A part of it is random, so that not all are checked at once.
func (u *usage) age() time.Duration {
	longest := max(u.checked(), 2*time.Millisecond)
	return longest*6/10 + rand.N(longest*3/10)
}

// checked returns how often an answer is checked: once in the shortest polling interval or, where there are so many
// keys that this would be too much, as often as checking all of them in turn allows.
func (u *usage) checked() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	var shortest time.Duration
	users := 0
	for interval, n := range u.users {
		users += n
		if shortest == 0 || interval < shortest {
			shortest = interval
		}
	}
	return max(shortest, time.Duration(users)*keysPerUser*checkEvery)
}
