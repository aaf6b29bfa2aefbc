package shared_test

import (
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClientEndsWithItsLastUser(t *testing.T) {
	t.Parallel()
	var opened, closed []string
	clients := shared.New[string](func(client *string) { closed = append(closed, *client) })
	acquire := func(settings string) (*string, func()) {
		return clients.Acquire(settings, func() *string { opened = append(opened, settings); return &settings })
	}
	first, release := acquire("a")
	second, releaseToo := acquire("a")
	other, releaseOther := acquire("b")
	if first != second || first == other || clients.Len() != 2 {
		t.Errorf("%d clients, %p, %p and %p", clients.Len(), first, second, other)
	}
	release()
	release() // counts once
	if len(closed) != 0 {
		t.Errorf("%v is closed while it is used", closed)
	}
	releaseToo()
	if !slices.Equal(closed, []string{"a"}) {
		t.Errorf("closed %v, want a", closed)
	}
	again, releaseAgain := acquire("a")
	if again == first {
		t.Error("a closed client is handed out")
	}
	releaseAgain()
	releaseOther()
	if want := []string{"a", "b", "a"}; !slices.Equal(opened, want) || len(closed) != 3 || clients.Len() != 0 {
		t.Errorf("opened %v, want %v; closed %v; %d are left", opened, want, closed, clients.Len())
	}
}

func TestClientsAreUsedFromManyGoroutines(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	open := 0
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		if open += by; open < 0 {
			t.Error("closed more than opened")
		}
	}
	clients := shared.New[int](func(*int) { count(-1) })
	var working sync.WaitGroup
	for worker := range 8 {
		working.Go(func() {
			for i := range 200 {
				_, release := clients.Acquire((i+worker)%3, func() *int { count(1); return new(int) })
				release()
			}
		})
	}
	working.Wait()
	if open != 0 || clients.Len() != 0 {
		t.Errorf("%d clients are open, %d are kept", open, clients.Len())
	}
}
