package natsqueue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
)

// plain is a Conn that explains nothing.
type plain struct{ conn *nats.Conn }

func (c plain) Connect() (*nats.Conn, error) { return c.conn, nil }
func (c plain) Explain(err error) error      { return err }

// bench is a server with a source for each name.
type bench struct {
	testing.TB
	server *servertest.Process
	conn   *nats.Conn
	js     jetstream.JetStream
}

func newBench(tb testing.TB, more string) *bench {
	tb.Helper()
	server := natstest.Alone(tb, more)
	conn, js := natstest.Connect(tb, "nats://"+server.Addr(natstest.PortClient))
	return &bench{tb, server, conn, js}
}

var names atomic.Int64

// source makes a stream of one subject, of the same name, with the consumer worker.
func (b *bench) source(config jetstream.ConsumerConfig) string {
	b.Helper()
	name := fmt.Sprint("work", names.Add(1))
	b.stream(name)
	b.consumer(name, config)
	return name
}

func (b *bench) stream(name string) {
	b.Helper()
	if _, err := b.js.CreateStream(b.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) consumer(stream string, config jetstream.ConsumerConfig) {
	b.Helper()
	config.Durable = "worker"
	if config.AckPolicy == 0 {
		config.AckPolicy = jetstream.AckExplicitPolicy
	}
	if _, err := b.js.CreateConsumer(b.Context(), stream, config); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) publish(subject string, items ...string) {
	b.Helper()
	for _, item := range items {
		if _, err := b.js.Publish(b.Context(), subject, []byte(item)); err != nil {
			b.Fatal(err)
		}
	}
}

// open opens a queue as a process of its own.
func (b *bench) open(name string) *Queue {
	conn, _ := natstest.Connect(b, b.conn.ConnectedUrl())
	return New(plain{conn}, name, "worker")
}

// claim claims and wants claims of these items.
func (b *bench) claim(q *Queue, o queue.ClaimOptions, want ...string) []queue.Claim {
	b.Helper()
	o.Owner = "o"
	result, err := q.Claim(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, claim := range result.Claims {
		got = append(got, string(bytes.Join(claim.Parts, []byte("+"))))
	}
	if !slices.Equal(got, want) {
		b.Fatalf("got claims of %.200q, want %.200q", got, want)
	}
	return result.Claims
}

func (b *bench) settle(q *Queue, verb queue.Verb, claims ...queue.Claim) {
	b.Helper()
	var all []queue.Settlement
	for _, claim := range claims {
		all = append(all, queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: verb})
	}
	held, err := q.Settle(b.Context(), all)
	if err != nil || slices.Contains(held, false) {
		b.Fatalf("settled: %v, %v", held, err)
	}
}

// stats wants how many are ready, claimed and done.
func (b *bench) stats(q *Queue, ready, claimed, done int64) {
	b.Helper()
	s, err := q.Stats(b.Context())
	if got, want := [3]int64{s.Ready, s.Claimed, s.Done}, [3]int64{ready, claimed, done}; err != nil || got != want {
		b.Errorf("ready, claimed and done are %v, %v, want %v", got, err, want)
	}
}

// take writes the transaction of a claim of one message and does no more, as one who is killed then.
func (b *bench) take(q *Queue, sequence uint64, item string) {
	b.Helper()
	err := q.do(b.Context(), func(ctx context.Context) error {
		got, err := q.source.stream.GetMsg(ctx, sequence)
		if err != nil {
			return err
		}
		return q.log.transact(ctx, func(d *draft) error {
			p := part{ID: newID(d.totals.Epoch, sequence), Stored: got.Time.UnixNano()}
			d.join([]record{{First: got.Time, Parts: []part{d.hold(p, []byte(item))}}}, "o", time.Now())
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
}

func TestNotAcknowledged(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{})
	b.publish(name, "1", "2", "3")
	q := b.open(name)
	b.take(q, 1, "1")
	b.stats(q, 3, 1, 0)
	other := b.open(name)
	claims := b.claim(other, queue.ClaimOptions{Most: 1}, "2")
	b.stats(q, 1, 2, 0)
	// What is done and was not acknowledged is not handed out again either.
	b.take(q, 3, "3")
	b.settle(q, queue.Ack, queue.Claim{ID: newID(0, 3), Attempt: 1}, claims[0])
	b.claim(other, queue.ClaimOptions{Most: 5})
	b.stats(other, 0, 1, 2)
}

// TestProgress has a claim that does not get on: its messages are kept in progress, those that follow too, and put back
// at its end.
func TestProgress(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{AckWait: 6 * time.Second})
	b.publish(name, "1", "2", "3")
	told, err := b.conn.SubscribeSync("$JS.ACK." + name + ".worker.>")
	if err != nil {
		t.Fatal(err)
	}
	// each waits until as many messages have been told this.
	each := func(messages int, what string) {
		t.Helper()
		for seen := map[string]bool{}; len(seen) < messages; {
			got, err := told.NextMsgWithContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Data) == what {
				seen[got.Subject] = true
			}
		}
	}
	q := b.open(name)
	err = q.do(t.Context(), func(ctx context.Context) error {
		c := &claiming{ClaimOptions: queue.ClaimOptions{Owner: "o", Most: 3, Parts: 1}}
		defer q.putBack(c)
		for n := 2; n > 0; n-- {
			if err := q.fetch(ctx, c, n); err != nil {
				return err
			}
			for range 2 {
				each(len(c.fetched), "+WPI")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	each(3, "-NAK")
	b.claim(q, queue.ClaimOptions{Most: 5}, "1", "2", "3")
	each(3, "+ACK")
	b.stats(q, 0, 3, 0)
}

// TestSilence has a network over which nothing comes for two seconds: that is not the end of the messages.
func TestSilence(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{})
	proxy := servertest.StartProxy(t, b.server.Addr(natstest.PortClient))
	conn, _ := natstest.Connect(t, "nats://"+proxy.Addr())
	q := New(plain{conn}, name, "worker")
	b.publish(name, "1", "2", "3")
	b.claim(q, queue.ClaimOptions{Most: 1}, "1")
	proxy.Hold()
	defer time.AfterFunc(2*time.Second, proxy.Forward).Stop()
	b.claim(q, queue.ClaimOptions{Most: 3}, "2", "3")
	b.stats(q, 0, 3, 0)
}

// TestStatuses has the statuses by which a server ends its answer.
func TestStatuses(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{
		"100": "false <nil>", "404": "true <nil>", "408": "true <nil>",
		"409": "true status 409 Consumer Deleted", "503": "true " + nats.ErrNoResponders.Error(),
	} {
		end, err := ends(status, "Consumer Deleted")
		if got := fmt.Sprint(end, " ", err); got != want {
			t.Errorf("%s: got %s, want %s", status, got, want)
		}
	}
}

// TestOthersAreSeen has a process whose view is old at each step.
func TestOthersAreSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{})
	b.publish(name, "1", "2", "3")
	one, two := b.open(name), b.open(name)
	b.stats(two, 3, 0, 0)
	first := b.claim(one, queue.ClaimOptions{Most: 2, Holds: 2}, "1", "2")
	b.claim(two, queue.ClaimOptions{Most: 1, Holds: 2}) // the owner holds as many by then
	b.settle(two, queue.GiveBack, first[0])
	again := b.claim(one, queue.ClaimOptions{Most: 2}, "1", "3")
	if again[0].Attempt != 2 {
		t.Errorf("got %+v", again[0])
	}
	b.settle(two, queue.Ack, again[1])
	if n, err := one.Release(t.Context(), ""); err != nil || n != 2 {
		t.Errorf("released %d, %v", n, err)
	}
	b.claim(two, queue.ClaimOptions{Most: 1}, "1")
}

// TestLargeItems has items as large as a message may be, several of which make one claim, and take several messages of
// the log.
func TestLargeItems(t *testing.T) {
	t.Parallel()
	b := newBench(t, "max_payload: 64KB")
	name := b.source(jetstream.ConsumerConfig{})
	var items []string
	for i := range 5 {
		items = append(items, strings.Repeat(string(rune('a'+i)), 64<<10))
	}
	b.publish(name, items...)
	q := b.open(name)
	claims := b.claim(q, queue.ClaimOptions{Most: 2, Parts: 3}, strings.Join(items[:3], "+"), strings.Join(items[3:], "+"))
	q = b.open(name)
	for i, want := range []string{strings.Join(items[:3], ""), strings.Join(items[3:], "")} {
		record, err := q.Get(t.Context(), claims[i].ID)
		if got := string(bytes.Join(record.Parts, nil)); err != nil || got != want {
			t.Errorf("item %d has %d bytes, %v", i, len(got), err)
		}
	}
	// A transaction of which only the beginning was written does not count.
	message := nats.NewMsg(q.log.subject)
	message.Header.Set(frameHeader, "0/2")
	message.Data = change{Totals: totals{Done: 99}}.encode(nil)
	if _, err := b.js.PublishMsg(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	b.settle(q, queue.Ack, claims...)
	b.stats(b.open(name), 0, 0, 2)
}

func TestTrim(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{})
	q, behind := b.open(name), b.open(name)
	q.logSlack, q.keptAfter, q.every = 20<<10, 0, 0
	b.publish(name, "dead", "waits")
	first := b.claim(q, queue.ClaimOptions{Most: 2}, "dead", "waits")
	b.settle(q, queue.Bury, first[0])
	b.stats(behind, 0, 1, 0)
	item := strings.Repeat("x", 2<<10)
	for range 60 {
		b.publish(name, item)
		b.settle(q, queue.Ack, b.claim(q, queue.ClaimOptions{Most: 1}, item)...)
	}
	info, err := q.log.js.Stream(t.Context(), q.log.name)
	if err != nil {
		t.Fatal(err)
	}
	if state := info.CachedInfo().State; state.Bytes > 60<<10 || state.FirstSeq < 50 {
		t.Errorf("the log has %+v", state)
	}
	if len(q.log.done) > 3 {
		t.Errorf("%d items that are done are remembered", len(q.log.done))
	}
	for _, q := range []*Queue{q, behind, b.open(name)} {
		b.stats(q, 0, 1, 60)
		for i, want := range []string{"dead", "waits"} {
			if record, err := q.Get(t.Context(), first[i].ID); err != nil || string(record.Parts[0]) != want {
				t.Errorf("got %+v, %v", record, err)
			}
		}
	}
}

// TestMadeAnew has a consumer and a stream that are deleted and made again, while they are used.
func TestMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{})
	b.publish(name, "1", "2")
	q := b.open(name)
	q.sameWithin = 0
	old := b.claim(q, queue.ClaimOptions{Most: 2}, "1", "2")
	b.settle(q, queue.Ack, old[1])
	if err := b.js.DeleteConsumer(t.Context(), name, "worker"); err != nil {
		t.Fatal(err)
	}
	b.consumer(name, jetstream.ConsumerConfig{})
	// The new consumer hands out what was done, and not what is held.
	anew := b.claim(q, queue.ClaimOptions{Most: 2}, "2")
	if anew[0].ID == old[1].ID {
		t.Errorf("an item that is done comes back as %+v", anew[0])
	}
	if err := b.js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	b.stream(name)
	b.consumer(name, jetstream.ConsumerConfig{})
	b.publish(name, "new 1", "new 2")
	newer := b.claim(q, queue.ClaimOptions{Most: 3}, "new 1", "new 2")
	if newer[0].ID <= anew[0].ID {
		t.Errorf("ids of a new stream are not later: %s after %s", newer[0].ID, anew[0].ID)
	}
	if record, err := q.Get(t.Context(), old[0].ID); err != nil || string(record.Parts[0]) != "1" {
		t.Errorf("got %+v, %v", record, err)
	}
	// So soon, another stream is known by its messages alone.
	q.sameWithin = sameWithin
	if err := b.js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	b.stream(name)
	b.consumer(name, jetstream.ConsumerConfig{})
	b.publish(name, "newest")
	if newest := b.claim(q, queue.ClaimOptions{Most: 3}, "newest"); newest[0].ID <= newer[1].ID {
		t.Errorf("ids of a new stream are not later: %s after %s", newest[0].ID, newer[1].ID)
	}
	b.settle(q, queue.Ack, old[0], anew[0], newer[1])
	b.stats(b.open(name), 0, 2, 4)
	// Without the log nothing is known of what was claimed.
	if err := b.js.DeleteStream(t.Context(), q.log.name); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Claims(t.Context(), ""); err == nil {
		t.Error("a log that is gone is no error")
	}
	b.stats(q, 0, 0, 0)
}

func TestLimitsOfConsumers(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	for _, config := range []jetstream.ConsumerConfig{
		{MaxAckPending: 1}, {MaxAckPending: 2}, {MaxRequestBatch: 1}, {MaxWaiting: 1},
	} {
		name := b.source(config)
		b.publish(name, "1", "2", "3", "4", "5")
		q := b.open(name)
		claimed := 0
		// A server that is busy may not have noted yet what was acknowledged, and gives nothing until then.
		b.eventually("all claims", func() error {
			result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 4 - claimed})
			if err != nil {
				t.Fatalf("%+v: %v", config, err)
			}
			if claimed += len(result.Claims); claimed < 4 {
				return fmt.Errorf("%+v: claimed %d, want 4", config, claimed)
			}
			return nil
		})
		b.stats(q, 1, 4, 0)
		b.claim(q, queue.ClaimOptions{Most: 1}, "5")
	}
}

func TestUnfit(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	refused := func(q *Queue, want string) {
		t.Helper()
		_, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	refused(b.open("none"), `stream "none": `)
	b.stream("empty")
	refused(b.open("empty"), `consumer "worker" of stream "empty": `)
	for _, test := range []struct {
		config jetstream.ConsumerConfig
		want   string
	}{
		{jetstream.ConsumerConfig{AckPolicy: jetstream.AckAllPolicy}, "ack policy is AckAll; want explicit"},
		{jetstream.ConsumerConfig{MaxDeliver: 3}, "gives a message up after 3 deliveries"},
		{jetstream.ConsumerConfig{HeadersOnly: true}, "headers only"},
	} {
		refused(b.open(b.source(test.config)), test.want)
	}
	// The server pushes.
	b.stream("pushed")
	_, err := b.js.CreatePushConsumer(t.Context(), "pushed", jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, DeliverSubject: "to",
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(b.open("pushed"), "want a pull consumer")
	// The log's name is taken.
	name := b.source(jetstream.ConsumerConfig{})
	_, err = b.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "OFFBOARD_" + name + "_worker", Subjects: []string{"x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(b.open(name), `it has the subjects ["x"]`)
	name = b.source(jetstream.ConsumerConfig{})
	_, err = b.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "OFFBOARD_" + name + "_worker", Subjects: []string{logSubject(name, "worker")}, MaxAge: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(b.open(name), "discards old messages")
}

// TestDoubt cuts off a process that waits for an answer, and lets what it has sent arrive later.
func TestDoubt(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{AckWait: time.Second})
	b.publish(name, "1", "2", "3")
	proxy := servertest.StartProxy(t, b.server.Addr(natstest.PortClient))
	conn, _ := natstest.Connect(t, "nats://"+proxy.Addr())
	q := New(plain{conn}, name, "worker")
	claims := b.claim(q, queue.ClaimOptions{Most: 1}, "1")
	for i := range 3 {
		proxy.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		settlement := []queue.Settlement{{ID: claims[0].ID, Attempt: claims[0].Attempt, Verb: queue.GiveBack}}
		if held, err := q.Settle(ctx, settlement); err == nil {
			t.Errorf("settled without a server: %v", held)
		}
		cancel()
		if i == 1 {
			proxy.Cut()
		}
		proxy.Forward()
		// Either it held or it did not, and it stays so.
		var before []queue.Claim
		b.eventually("an answer", func() (err error) {
			before, err = q.Claims(t.Context(), "")
			return err
		})
		after, err := b.open(name).Claims(t.Context(), "")
		if err != nil || len(after) != len(before) {
			t.Errorf("claims are %+v, later %+v, %v", before, after, err)
		}
		if len(before) > 0 {
			b.settle(q, queue.GiveBack, claims[0])
		}
		claims = b.claim(q, queue.ClaimOptions{Most: 1}, "1")
		if want := i + 2; claims[0].Attempt != want {
			t.Errorf("attempt %d, want %d", claims[0].Attempt, want)
		}
	}
}

// eventually wants something to succeed before long.
func (b *bench) eventually(what string, try func() error) {
	b.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", what, err)
		}
	}
}

// TestKilledServer has two processes that claim and settle, without a word of what they are told, while the server is
// killed again and again. No claim is made twice, and no item is acknowledged twice.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	const items = 300
	b := newBench(t, "")
	name := b.source(jetstream.ConsumerConfig{AckWait: time.Second})
	for i := range items {
		b.publish(name, fmt.Sprint(i))
	}
	var mu sync.Mutex
	made, acked := map[string]bool{}, map[string]int{}
	var working sync.WaitGroup
	ended := make(chan struct{})
	for range 2 {
		q := b.open(name)
		random := rand.New(rand.NewPCG(1, uint64(names.Add(1))))
		working.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(time.Duration(random.IntN(5)) * time.Millisecond):
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				result, err := q.Claim(ctx, queue.ClaimOptions{Owner: "o", Most: 1 + random.IntN(6)})
				cancel()
				if err != nil {
					continue
				}
				var settlements []queue.Settlement
				mu.Lock()
				for _, claim := range result.Claims {
					key := fmt.Sprint(claim.ID, "/", claim.Attempt)
					if made[key] {
						t.Errorf("the claim %s is made twice", key)
					}
					made[key] = true
					verb := []queue.Verb{queue.Ack, queue.Ack, queue.PutOff, queue.GiveBack}[random.IntN(4)]
					settlements = append(settlements, queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: verb})
				}
				mu.Unlock()
				for tries := 0; len(settlements) > 0 && tries < 100; tries++ {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					held, err := q.Settle(ctx, settlements)
					cancel()
					if err != nil {
						continue
					}
					mu.Lock()
					for i, claim := range result.Claims {
						if settlements[i].Verb == queue.Ack && held[i] {
							acked[string(claim.Parts[0])]++
						}
					}
					mu.Unlock()
					break
				}
			}
		})
	}
	q := b.open(name)
	before, deadline := int64(-1), time.Now().Add(5*time.Minute)
	for kills := 0; ; kills++ {
		time.Sleep(300 * time.Millisecond) // for them to have done something
		if kills < 4 {
			b.server.Kill()
			b.server.Restart()
			continue
		}
		done := int64(-1)
		b.eventually("numbers", func() error {
			stats, err := q.Stats(t.Context())
			done = stats.Done
			return err
		})
		if done >= items || time.Now().After(deadline) {
			break
		}
		// What was claimed without an answer is nobody's. Where they get on, it is not yet in their way.
		if done == before {
			if _, err := q.Release(t.Context(), ""); err != nil {
				t.Log(err)
			}
		}
		before = done
	}
	close(ended)
	working.Wait()
	// The server hands out again what was acknowledged just before it was killed, and until then counts it as ready.
	b.eventually("an empty queue", func() error {
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 10})
		if len(result.Claims) > 0 {
			t.Errorf("items that are done are claimed: %+v", result.Claims)
		}
		if err != nil {
			return err
		}
		stats, err := q.Stats(t.Context())
		if stats.Ready > 0 {
			return fmt.Errorf("%d items are ready, %w", stats.Ready, err)
		}
		return err
	})
	b.stats(q, 0, 0, items)
	for item, times := range acked { // one whose answer was lost is not among them
		if times > 1 {
			t.Errorf("item %s is acknowledged %d times", item, times)
		}
	}
}

// BenchmarkClaim claims and acknowledges 2,000 items, 50 at once.
func BenchmarkClaim(bb *testing.B) {
	const items, batch = 2000, 50
	b := newBench(bb, "")
	for bb.Loop() {
		bb.StopTimer()
		name := b.source(jetstream.ConsumerConfig{})
		b.publish(name, slices.Repeat([]string{`{"user": 1}`}, items)...)
		q := b.open(name)
		bb.StartTimer()
		for range items / batch {
			result, err := q.Claim(bb.Context(), queue.ClaimOptions{Owner: "o", Most: batch})
			if err != nil || len(result.Claims) != batch {
				bb.Fatalf("%d claims, %v", len(result.Claims), err)
			}
			b.settle(q, queue.Ack, result.Claims...)
		}
	}
	bb.ReportMetric(float64(items*bb.N)/bb.Elapsed().Seconds(), "items/s")
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		filters, subjects []string
		want              string
	}{
		{nil, []string{"a"}, "a"},
		{[]string{"a.b"}, []string{"a.>"}, "a.b"},
		{[]string{"a.*"}, []string{"a.b"}, "a.b"},
		{nil, []string{"a.>"}, ""},
		{nil, []string{"a", "b"}, ""},
		{[]string{"a", "b"}, []string{"a", "b", "c"}, ""},
	} {
		if got, err := (source{filters: test.filters, subjects: test.subjects}).pushSubject(); got != test.want ||
			(err == nil) != (test.want != "") || err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: got %q, %v, want %q", test, got, err, test.want)
		}
	}
	for _, test := range []struct {
		filter, subject string
		want            bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a.*", "a.b", true}, {"a.*", "a", false}, {"a.*", "a.b.c", false},
		{"a.>", "a.b.c", true}, {"a.>", "a", false}, {">", "a", true}, {"*.b", "a.b", true}, {"a.b", "a", false},
	} {
		if got := (source{filters: []string{"none", test.filter}}).takes(test.subject); got != test.want {
			t.Errorf("%s takes %s: %v, want %v", test.filter, test.subject, got, test.want)
		}
	}
	if stream, consumer, err := ParseName(Name("s", "c")); stream != "s" || consumer != "c" || err != nil {
		t.Errorf("got %q, %q, %v", stream, consumer, err)
	}
	for _, name := range []string{"", "s", "/c", "s/"} {
		if _, _, err := ParseName(name); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

func FuzzTransaction(f *testing.F) {
	f.Add([]byte(`{"totals":{},"set":[{"s":"claimed","p":[{"i":"0000000000000001","n":2,"o":1}],"a":1}]}`+"\nabc"), "0/1")
	f.Add([]byte(`{"totals":{"floor":9},"remove":["0000000000000001"],"set":[{"s":"done","p":[{"i":"0000000000000001"}]}]}`+
		"\n"), "1/2")
	f.Add([]byte(`{"set":[{"s":"dead","p":[{"i":"0001ffffffffffff","l":7,"n":-1,"o":5}],"e1":{"reason":"R"}}]}`+
		"\n"), "9/3")
	f.Fuzz(func(t *testing.T, text []byte, header string) {
		if index, number, err := parseFrame(header); err == nil && (index < 0 || index >= number) {
			t.Errorf("header %q is frame %d of %d", header, index, number)
		}
		made, data, err := decode(text)
		if err != nil {
			return
		}
		m := newModel()
		m.apply(made, 1)
		again, _, err := decode(made.encode(data))
		if err != nil {
			t.Fatalf("%q is encoded to what is not decoded: %v", text, err)
		}
		n := newModel()
		n.apply(again, 1)
		if len(m.live) != len(n.live) || len(m.done) != len(n.done) || len(m.messages) != len(n.messages) {
			t.Errorf("%q is applied otherwise after encoding", text)
		}
	})
}
