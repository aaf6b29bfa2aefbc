package rabbitqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
	"github.com/offboard-dev/offboard/internal/servertest"
)

const owner = "shop/work"

// address reaches a server by its address.
type address string

func (a address) Dial(context.Context) (*amqp.Connection, error) {
	return amqp.Dial(fmt.Sprintf("amqp://%s:%s@%s/", rabbitmqtest.Admin, rabbitmqtest.Password, string(a)))
}

func (a address) Explain(err error, queue string) error {
	return fmt.Errorf("queue %s: %w", queue, err)
}

func start(t *testing.T, server *rabbitmqtest.Server, l limits) *Queue {
	t.Helper()
	q := New(address(server.Addr(rabbitmqtest.PortAMQP)), t.Name())
	q.limits = l
	t.Cleanup(q.Close)
	return q
}

func declare(t *testing.T, server *rabbitmqtest.Server, messages ...string) *amqp.Channel {
	t.Helper()
	channel := server.Channel(t, "/")
	server.Queue(t, channel, t.Name(), 0)
	rabbitmqtest.Publish(t, channel, t.Name(), messages...)
	return channel
}

// claimed claims and returns the items of one part each.
func claimed(t *testing.T, q *Queue, most int) (items []string, claims []queue.Claim) {
	t.Helper()
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: owner, Most: most})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Claims {
		items = append(items, string(c.Parts[0]))
	}
	return items, result.Claims
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestServer(t *testing.T) {
	t.Parallel()
	server := rabbitmqtest.Start(t)
	t.Run("parallel", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *rabbitmqtest.Server){
			"renewal": testRenewal, "several processes": testSeveralProcesses, "crash before the ack": testCrashBeforeAck,
			"kept": testKept, "left by others": testLeftByOthers, "network": testNetwork, "large": testLarge,
			"no journal": testNoJournal, "no queue": testNoQueue, "foreign entry": testForeignEntry,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, server)
			})
		}
	})
	t.Run("restart", func(t *testing.T) { testRestart(t, server) })
}

// testRenewal has several processes that claim and settle while the journal is replaced again and again. How many items
// that takes depends on the machine.
func testRenewal(t *testing.T, server *rabbitmqtest.Server) {
	channel := declare(t, server)
	l := usual
	l.compactAfter, l.keptAfter, l.tickEvery = 20_000, 20*time.Millisecond, 10*time.Millisecond
	queues := []*Queue{start(t, server, l), start(t, server, l), start(t, server, l)}
	acked, pushed := map[string]int{}, 0
	for number, deadline := 0, time.Now().Add(5*time.Minute); number < 4; {
		if time.Now().After(deadline) {
			t.Fatalf("the journal was replaced %d times with %d items", number-1, pushed)
		}
		for range 100 {
			rabbitmqtest.Publish(t, channel, t.Name(), fmt.Sprintf("%d %s", pushed, strings.Repeat("x", 500)))
			pushed++
		}
		workOff(t, queues, acked, pushed)
		for _, q := range queues {
			if s, err := q.current(t.Context()); err == nil { // else a machine that is busy has no answer in time
				number = max(number, s.number)
			}
		}
	}
	for item, times := range acked {
		if times != 1 {
			t.Errorf("item %.5s was acknowledged %d times", item, times)
		}
	}
	q := start(t, server, usual)
	if stats, err := q.Stats(t.Context()); err != nil || stats.Done != int64(pushed) || stats.Ready+stats.Claimed != 0 {
		t.Errorf("got %+v, %v", stats, err)
	}
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.index.mu.Lock()
	begun := slices.Clone(s.index.begun)
	s.index.mu.Unlock()
	for _, a := range begun {
		if a.Number >= s.number-1 {
			continue // the one before may be there as well, for those who have not noticed yet
		}
		// Passive, since to delete what is not there is no error.
		probe := server.Channel(t, "/")
		if _, err := probe.QueueDeclarePassive(a.Stream, true, false, false, false, nil); !isReply(err, amqp.NotFound) {
			t.Errorf("stream %s of a former journal: %v", a.Stream, err)
		}
	}
	if err := channel.Close(); err != nil {
		t.Error(err)
	}
}

// workOff claims and settles from all sides until that many items are acknowledged, and counts how often each was. Some
// claims are given back first.
func workOff(t *testing.T, queues []*Queue, acked map[string]int, items int) {
	t.Helper()
	var mu sync.Mutex
	var working sync.WaitGroup
	deadline := time.Now().Add(5 * time.Minute)
	for process, q := range queues {
		working.Go(func() {
			for done := false; !done; {
				if time.Now().After(deadline) {
					t.Error("the items are not done in time")
					return
				}
				o := queue.ClaimOptions{Owner: fmt.Sprint("shop/work", process), Most: 4}
				result, err := q.Claim(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				var settlements []queue.Settlement
				for i, c := range result.Claims {
					verb := queue.Ack
					if i == 3 && c.Attempt == 1 {
						verb = queue.GiveBack
					}
					settlements = append(settlements, queue.Settlement{ID: c.ID, Attempt: c.Attempt, Verb: verb})
				}
				held, err := q.Settle(t.Context(), settlements)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, s := range settlements {
					if !held[i] {
						t.Errorf("the claim %s/%d was lost", s.ID, s.Attempt)
					}
					if s.Verb == queue.Ack {
						acked[string(result.Claims[i].Parts[0])]++
					}
				}
				done = len(acked) == items
				mu.Unlock()
			}
		})
	}
	working.Wait()
}

func testSeveralProcesses(t *testing.T, server *rabbitmqtest.Server) {
	declare(t, server, "1", "2", "3", "4")
	one, two := start(t, server, usual), start(t, server, usual)
	items, claims := claimed(t, one, 2)
	if !slices.Equal(items, []string{"1", "2"}) {
		t.Fatalf("got %q", items)
	}
	eventually(t, "what the other knows", func() error {
		got, err := two.Claims(t.Context(), owner)
		if err != nil || len(got) != 2 || got[1].ID != claims[1].ID {
			return fmt.Errorf("got %+v, %w", got, err)
		}
		return nil
	})
	held, err := two.Settle(t.Context(), []queue.Settlement{{ID: claims[0].ID, Attempt: 1, Verb: queue.GiveBack}})
	if err != nil || !held[0] {
		t.Fatalf("got %v, %v", held, err)
	}
	held, err = one.Settle(t.Context(), []queue.Settlement{
		{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}, {ID: claims[1].ID, Attempt: 1, Verb: queue.Ack},
	})
	if err != nil || !slices.Equal(held, []bool{false, true}) {
		t.Fatalf("got %v, %v", held, err)
	}
	// Both ask for all that the owner may hold.
	var both sync.WaitGroup
	for _, q := range []*Queue{one, two} {
		both.Go(func() {
			if _, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: owner, Most: 2, Holds: 2}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	// A message that one of them has taken for nothing is not ready until it is back.
	eventually(t, "what is left", func() error {
		stats, err := one.Stats(t.Context())
		if err != nil || stats.Claimed != 2 || stats.Ready != 1 {
			return fmt.Errorf("got %+v, %w", stats, err)
		}
		return nil
	})
}

// testCrashBeforeAck has a process that ends when the journal has a message and before it is acknowledged.
func testCrashBeforeAck(t *testing.T, server *rabbitmqtest.Server) {
	channel := declare(t, server, "1", "2")
	first, err := openSession(t.Context(), address(server.Addr(rabbitmqtest.PortAMQP)), t.Name(), usual, 1)
	if err != nil {
		t.Fatal(err)
	}
	message, _, err := first.get.Get(t.Name(), false)
	if err != nil {
		t.Fatal(err)
	}
	came, err := first.append(t.Context(), &event{Kind: kindClaim, Claim: &claim{Owner: owner, Most: 1}, Take: []taken{{
		Print: printOf("", message.Body), body: message.Body,
	}}})
	if err != nil || len(came.claims) != 1 {
		t.Fatalf("got %+v, %v", came, err)
	}
	id := came.claims[0].ID
	if came, err = first.append(t.Context(), &event{Kind: kindSettle, Settlements: []queue.Settlement{
		{ID: id, Attempt: 1, Verb: queue.Ack},
	}}); err != nil || !came.held[0] {
		t.Fatalf("got %+v, %v", came, err)
	}
	first.stop()
	eventually(t, "the message's return", func() error {
		declared, err := channel.QueueDeclarePassive(t.Name(), true, false, false, false, nil)
		if err == nil && declared.Messages != 2 {
			err = fmt.Errorf("the queue has %d", declared.Messages)
		}
		return err
	})
	q := start(t, server, usual)
	items, _ := claimed(t, q, 2)
	more, _ := claimed(t, q, 2)
	if got := slices.Concat(items, more); !slices.Equal(got, []string{"2"}) {
		t.Errorf("claimed %q, want the one that was not done", got)
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 0 || stats.Claimed != 1 || stats.Done != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// testKept wants messages to be forgotten when their acknowledgements are kept, so that equal ones are new.
func testKept(t *testing.T, server *rabbitmqtest.Server) {
	declare(t, server, "1")
	l := usual
	l.keptAfter, l.tickEvery = 10*time.Millisecond, 10*time.Millisecond
	q := start(t, server, l)
	claimed(t, q, 1)
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgotten", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.state.unkept); n > 0 {
			return fmt.Errorf("%d messages are remembered", n)
		}
		return nil
	})
}

// testLeftByOthers wants messages of a connection that is gone to be forgotten when they cannot come back any more.
func testLeftByOthers(t *testing.T, server *rabbitmqtest.Server) {
	channel := declare(t, server, "same")
	gone := start(t, server, usual)
	claimed(t, gone, 1)
	gone.Close()
	rabbitmqtest.Publish(t, channel, t.Name(), "1", "2")
	l := usual
	l.returnedAfter, l.tickEvery = 100*time.Millisecond, 10*time.Millisecond
	l.keptAfter = time.Hour // what it has itself stays, however long that takes
	q := start(t, server, l)
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	remembered := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.state.unkept)
	}
	eventually(t, "a count of what is in the queue", func() error {
		s.getting.Lock()
		defer s.getting.Unlock()
		if !s.review.counted {
			return errors.New("not yet")
		}
		return nil
	})
	claimed(t, q, 1)
	if n := remembered(); n != 2 {
		t.Errorf("%d messages are remembered before all were seen, want 2", n)
	}
	claimed(t, q, 1)
	eventually(t, "forgotten", func() error {
		if n := remembered(); n != 2 {
			return fmt.Errorf("%d are remembered, want its own 2", n)
		}
		return nil
	})
	rabbitmqtest.Publish(t, channel, t.Name(), "same")
	if items, _ := claimed(t, q, 1); !slices.Equal(items, []string{"same"}) {
		t.Errorf("got %q", items)
	}
}

// testNetwork has a network that breaks, and one that lets nothing pass.
func testNetwork(t *testing.T, server *rabbitmqtest.Server) {
	declare(t, server, "1", "2", "3")
	proxy := servertest.StartProxy(t, server.Addr(rabbitmqtest.PortAMQP))
	q := New(address(proxy.Addr()), t.Name())
	t.Cleanup(q.Close)
	t.Cleanup(proxy.Forward)
	_, claims := claimed(t, q, 1)
	proxy.Cut()
	eventually(t, "a claim after the cut", func() error {
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: owner, Most: 1})
		if err == nil && (len(result.Claims) != 1 || string(result.Claims[0].Parts[0]) != "2") {
			t.Errorf("got %+v", result)
		}
		return err
	})
	proxy.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if result, err := q.Claim(ctx, queue.ClaimOptions{Owner: owner, Most: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v", result, err)
	}
	proxy.Forward()
	proxy.Cut()
	eventually(t, "all claims", func() error {
		if _, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: owner, Most: 1}); err != nil {
			return err
		}
		got, err := q.Claims(t.Context(), owner)
		if err == nil && len(got) != 3 {
			err = fmt.Errorf("got %+v", got)
		}
		return err
	})
	held, err := q.Settle(t.Context(), []queue.Settlement{{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}})
	if err != nil || !held[0] {
		t.Errorf("got %v, %v", held, err)
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 0 || stats.Claimed != 2 || stats.Done != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// testLarge has messages that do not fit into one event together.
func testLarge(t *testing.T, server *rabbitmqtest.Server) {
	var items []string
	for i := range 5 {
		items = append(items, strings.Repeat(fmt.Sprint(i), 3<<20))
	}
	declare(t, server, items...)
	q := start(t, server, usual)
	got, claims := claimed(t, q, 5)
	if !slices.Equal(got, items) {
		t.Errorf("got %d items", len(got))
	}
	// The journal is replaced by one that has all of them.
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.append(t.Context(), &event{Kind: kindClose}); err != nil {
		t.Fatal(err)
	}
	<-s.done
	record, err := q.Get(t.Context(), claims[4].ID)
	if err != nil || string(record.Parts[0]) != items[4] {
		t.Errorf("got an item of %d bytes, %v", record.Size, err)
	}
	if again, err := q.current(t.Context()); err != nil || again.number != s.number+1 {
		t.Errorf("it is the same journal, or %v", err)
	}
}

// testNoJournal has an index without a journal, as a process leaves it that ends at once, and then a journal that
// somebody deletes.
func testNoJournal(t *testing.T, server *rabbitmqtest.Server) {
	channel := declare(t, server, "1")
	if _, err := channel.QueueDeclare(t.Name()+".offboard", true, false, false, false,
		amqp.Table{"x-queue-type": "stream"}); err != nil {
		t.Fatal(err)
	}
	q := start(t, server, usual)
	if items, _ := claimed(t, q, 1); !slices.Equal(items, []string{"1"}) {
		t.Errorf("got %q", items)
	}
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := channel.QueueDelete(s.stream, false, false, false); err != nil {
		t.Fatal(err)
	}
	<-s.done
	_, err = q.Claim(t.Context(), queue.ClaimOptions{Owner: owner, Most: 1})
	if err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("got %v", err)
	}
}

func testNoQueue(t *testing.T, server *rabbitmqtest.Server) {
	q := start(t, server, usual)
	if _, err := q.Claims(t.Context(), ""); !isReply(err, amqp.NotFound) {
		t.Errorf("got %v", err)
	}
	probe := server.Channel(t, "/")
	_, err := probe.QueueDeclarePassive(t.Name()+".offboard", true, false, false, false, nil)
	if !isReply(err, amqp.NotFound) {
		t.Errorf("there is a journal of a queue that is not there: %v", err)
	}
}

// testForeignEntry has an entry in the journal that Offboard did not write.
func testForeignEntry(t *testing.T, server *rabbitmqtest.Server) {
	channel := declare(t, server, "1")
	q := start(t, server, usual)
	claimed(t, q, 1)
	s, err := q.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rabbitmqtest.Publish(t, channel, s.stream, "{\"kind\":\"later\"}\n")
	<-s.done
	if _, err := q.Claims(t.Context(), ""); err == nil || !strings.Contains(err.Error(), `of the kind "later"`) ||
		!strings.Contains(err.Error(), s.stream) {
		t.Errorf("got %v", err)
	}
}

// testRestart kills the server and has it back with its data.
func testRestart(t *testing.T, server *rabbitmqtest.Server) {
	declare(t, server, "1", "2", "3")
	q := start(t, server, usual)
	_, claims := claimed(t, q, 2)
	server.Kill()
	if _, err := q.Settle(t.Context(), []queue.Settlement{{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}}); err == nil {
		t.Error("no error without a server")
	}
	server.Restart()
	eventually(t, "its return", func() error {
		_, err := q.Settle(t.Context(), []queue.Settlement{{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}})
		return err
	})
	if items, _ := claimed(t, q, 3); !slices.Equal(items, []string{"3"}) {
		t.Errorf("got %q", items)
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 0 || stats.Claimed != 2 || stats.Done != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// TestFirstStream has a server that is killed as soon as an item of its first queue is claimed: it has the claim when it
// is back.
func TestFirstStream(t *testing.T) {
	t.Parallel()
	server := rabbitmqtest.Start(t)
	declare(t, server, "1", "2")
	q := start(t, server, usual)
	began := time.Now()
	_, claims := claimed(t, q, 1)
	t.Logf("the first claim took %v", time.Since(began).Round(time.Millisecond))
	server.Process.Kill() // not server.Kill, which waits until there is no danger
	server.Restart()
	eventually(t, "its return", func() error {
		_, err := q.Settle(t.Context(), []queue.Settlement{{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}})
		return err
	})
	if items, _ := claimed(t, q, 3); !slices.Equal(items, []string{"2"}) {
		t.Errorf("got %q", items)
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 0 || stats.Claimed != 1 || stats.Done != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

// BenchmarkItems claims and acknowledges 2,000 items, 50 at a time.
func BenchmarkItems(b *testing.B) {
	server := rabbitmqtest.Start(b)
	channel := server.Channel(b, "/")
	for _, kind := range []string{"classic", "quorum"} {
		b.Run(kind, func(b *testing.B) {
			const items, batch = 2000, 50
			arguments := amqp.Table{"x-queue-type": kind}
			if _, err := channel.QueueDeclare(b.Name(), true, false, false, false, arguments); err != nil {
				b.Fatal(err)
			}
			q := New(address(server.Addr(rabbitmqtest.PortAMQP)), b.Name())
			defer q.Close()
			for b.Loop() {
				b.StopTimer()
				var bodies [][]byte
				for i := range items {
					bodies = append(bodies, fmt.Appendf(nil, "item %d", i))
				}
				if _, err := q.Push(b.Context(), queue.PushOptions{}, bodies...); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				for range items / batch {
					result, err := q.Claim(b.Context(), queue.ClaimOptions{Owner: owner, Most: batch})
					if err != nil || len(result.Claims) != batch {
						b.Fatalf("%d claims, %v", len(result.Claims), err)
					}
					var settlements []queue.Settlement
					for _, c := range result.Claims {
						settlements = append(settlements, queue.Settlement{ID: c.ID, Attempt: c.Attempt, Verb: queue.Ack})
					}
					if _, err := q.Settle(b.Context(), settlements); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(items*float64(b.N)/b.Elapsed().Seconds(), "items/s")
		})
	}
}
