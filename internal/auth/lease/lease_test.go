package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted obtains 1, 2, 3 and so on, each for a life.
func counted(life time.Duration) Obtain[int] {
	count := 0
	return func(context.Context, *int) (int, time.Duration, error) {
		count++
		return count, life, nil
	}
}

func TestAValueIsKeptForTwoThirdsOfItsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var values Values[string, int]
		obtain := counted(3 * time.Minute)
		get := func(doubted bool, want int) time.Time {
			t.Helper()
			got, due, err := values.Get(t.Context(), "k", doubted, obtain)
			if err != nil || got != want {
				t.Errorf("got %d, %v; want %d", got, err, want)
			}
			return due
		}
		if due, want := get(false, 1), time.Now().Add(2*time.Minute); !due.Equal(want) {
			t.Errorf("due %v; want %v", due, want)
		}
		get(true, 1) // it is too new to be doubted
		time.Sleep(trusted)
		get(false, 1)
		get(true, 2)
		time.Sleep(2*time.Minute - time.Nanosecond)
		get(false, 2)
		time.Sleep(time.Nanosecond)
		due := get(false, 3)
		values.Drop("k", due)
		time.Sleep(time.Second)
		get(false, 4)
		values.Drop("k", due) // of the one before
		get(false, 4)
	})
}

func TestThePreviousValueIsGiven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var values Values[string, int]
		add := func(_ context.Context, previous *int) (int, time.Duration, error) {
			if previous == nil {
				return 1, time.Minute, nil
			}
			return *previous + 10, time.Minute, nil
		}
		for _, want := range []int{1, 11, 21} {
			got, due, err := values.Get(t.Context(), "k", false, add)
			if got != want || err != nil {
				t.Errorf("got %d, %v; want %d", got, err, want)
			}
			time.Sleep(time.Until(due))
		}
		failing := errors.New("refused")
		_, _, err := values.Get(t.Context(), "k", false, func(context.Context, *int) (int, time.Duration, error) {
			return 0, 0, failing
		})
		if !errors.Is(err, failing) {
			t.Errorf("got %v; want %v", err, failing)
		}
		if got, due, err := values.Get(t.Context(), "k", false, add); got != 31 || err != nil {
			t.Errorf("after an error got %d, %v; want 31 from the value before it", got, err)
		} else {
			values.Drop("k", due)
		}
		if got, _, err := values.Get(t.Context(), "k", false, add); got != 1 || err != nil {
			t.Errorf("after it was dropped got %d, %v; want a new one, 1", got, err)
		}
	})
}

func TestWhatHasNoLifeIsNotKept(t *testing.T) {
	t.Parallel()
	var values Values[int, int]
	for i := range 1000 {
		if _, due, err := values.Get(t.Context(), i, false, counted(0)); err != nil || !due.IsZero() {
			t.Fatalf("got %v, %v; want no time and no error", due, err)
		}
	}
	if len(values.entries) != 0 {
		t.Errorf("%d entries are kept; want none", len(values.entries))
	}
}

func TestWhatHasEndedIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var values Values[int, int]
		for i := range 10_000 {
			if _, _, err := values.Get(t.Context(), i, false, counted(time.Minute)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if got := len(values.entries); got > 300 {
			t.Errorf("%d entries are kept; want few more than the 60 that are valid", got)
		}
	})
}

func TestOneIsObtainedForAllWhoWait(t *testing.T) {
	t.Parallel()
	var values Values[string, string]
	var calls atomic.Int32
	release := make(chan struct{})
	obtain := func(context.Context, *string) (string, time.Duration, error) {
		<-release
		return "value " + strconv.Itoa(int(calls.Add(1))), time.Hour, nil
	}
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if got, _, err := values.Get(t.Context(), "k", false, obtain); got != "value 1" || err != nil {
				t.Errorf("got %q, %v; want value 1", got, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	waiting.Go(func() {
		_, _, err := values.Get(ctx, "k", false, func(ctx context.Context, _ *string) (string, time.Duration, error) {
			return "", 0, fmt.Errorf("asked: %w", ctx.Err())
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who cannot wait gets %v; want %v", err, context.Canceled)
		}
	})
	close(release)
	waiting.Wait()
	if calls.Load() != 1 {
		t.Errorf("%d were obtained; want 1", calls.Load())
	}
}
