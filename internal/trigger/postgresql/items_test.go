package postgresql_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// claiming is a trigger that hands out the rows of a table.
type claiming struct {
	trigger.Trigger
	trigger.Claimer
	trigger.Pusher
}

func claims(t testing.TB, clients *postgresql.Clients, url, table string, metadata config) claiming {
	t.Helper()
	made := build(t, clients, trigger.Config{
		Metadata: triggertest.Merge(config{
			"query": "SELECT count(*) FROM " + table, "targetQueryValue": "1", "claimTable": table,
		}, metadata),
		Auth: config{"connection": url}, Claims: true,
	})
	return claiming{made, made.(trigger.Claimer), made.(trigger.Pusher)}
}

// newItems makes a table with so many items.
func newItems(server *postgrestest.Server, table string, items int) {
	server.Exec("CREATE TABLE "+table+" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text)",
		fmt.Sprintf("INSERT INTO %s (item) SELECT n FROM generate_series(1, %d) n", table, items))
}

func testItems(t *testing.T, server *postgrestest.Server) {
	newItems(server, "items", 2)
	made := claims(t, postgresql.NewClients(), server.URL(), "items", config{"channel": "items"})
	changes := watch(t, made.Trigger)
	changes.called(t, "the begin of listening")
	counts := func(ready float64, claimed int64) {
		t.Helper()
		if got := triggertest.Measure(t, made.Trigger); got.Value != ready {
			t.Errorf("it measures %v, want %v", got.Value, ready)
		}
		if got, err := made.Claimed(t.Context()); err != nil || got != claimed {
			t.Errorf("claimed are %d, %v, want %d", got, err, claimed)
		}
	}
	counts(2, 0)
	if n, err := made.Push(t.Context(), []byte("3"), []byte("4")); err != nil || n != 4 || made.Queue() != "items" {
		t.Errorf("pushed to %q, which has %d, %v", made.Queue(), n, err)
	}
	changes.called(t, "a push")
	if n, err := made.Push(t.Context()); err != nil || n != 0 {
		t.Errorf("pushed nothing: %d, %v", n, err)
	}
	q := made.Items("")
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 3})
	if err != nil || len(result.Claims) != 3 {
		t.Fatalf("%+v, %v", result, err)
	}
	counts(1, 3)
	settlements := make([]queue.Settlement, 3)
	for i, verb := range []queue.Verb{queue.Ack, queue.GiveBack, queue.PutOff} {
		settlements[i] = queue.Settlement{ID: result.Claims[i].ID, Attempt: 1, Verb: verb, Wait: 50 * time.Millisecond}
	}
	if held, err := made.Items("items").Settle(t.Context(), settlements); err != nil || !held[2] {
		t.Errorf("%v, %v", held, err)
	}
	changes.called(t, "what is back")
	triggertest.WaitFor(t, "the end of a wait", func() bool {
		swept, err := q.Sweep(t.Context())
		return err == nil && swept.Returned == 1
	})
	changes.called(t, "the end of a wait")
	counts(3, 0)
	// Who only measures, or knows no table, is no source of items.
	if _, ok := query(t, server, postgresql.NewClients(), "SELECT 1").(trigger.Claimer); ok {
		t.Error("without claimTable it hands out items")
	}
}

// testClaimsOverTLS claims with what measures over TLS.
func testClaimsOverTLS(t *testing.T, _ *postgrestest.Server) {
	server := postgrestest.Start(t, postgrestest.Options{TLS: true})
	newItems(server, "items", 1)
	url := strings.Replace(server.URL(), "sslmode=require", "sslmode=verify-full&sslrootcert="+server.Certs().CAFile, 1)
	made := claims(t, postgresql.NewClients(), url, "items", nil)
	if result, err := made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2}); err != nil || len(result.Claims) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

func testRefusedClaims(t *testing.T, server *postgrestest.Server) {
	newItems(server, "claimless", 9)
	server.Exec("CREATE USER inspector PASSWORD 'hunter2'", "GRANT SELECT ON claimless TO inspector")
	for name, test := range map[string]struct {
		url, want string
		metadata  config
	}{
		"password": {server.UserURL("inspector", "hunter3"), `does not accept user "inspector" with this password`, nil},
		"rights":   {server.UserURL("inspector", "hunter2"), `denies user "inspector" `, nil},
		"table":    {server.URL(), "has no table missing that the user sees; correct claimTable", config{"claimTable": "missing"}},
		"where":    {server.URL(), `column "hue" does not exist`, config{"claimWhere": "hue = 1"}},
		"values":   {server.URL(), "(SQLSTATE 22012)", config{"claimWhere": "1 / (id - id) = 1"}},
		"server":   {"postgres://u:hunter2@127.0.0.1:1/d", "is not reachable", nil},
		"replica":  {server.URL() + "&options=-c%20default_transaction_read_only%3Don", "", nil},
	} {
		made := claims(t, postgresql.NewClients(), test.url, "claimless", test.metadata)
		_, err := made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "postgresql at 127.0.0.1:") ||
			strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
	_, err := claims(t, postgresql.NewClients(), server.URL(), "claimless", nil).Items("").
		Push(t.Context(), queue.PushOptions{Unique: "a", UniqueFor: time.Second}, []byte("a"))
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("only once: %v", err)
	}
}

// testClaimsShareFourConnections has 50 triggers claim and measure at once.
func testClaimsShareFourConnections(t *testing.T, server *postgrestest.Server) {
	clients := postgresql.NewClients()
	most := 0
	var working sync.WaitGroup
	for i := range 50 {
		table := fmt.Sprint("shared", i)
		newItems(server, table, 3)
		made := claims(t, clients, server.URL()+"&application_name=claiming", table, config{"channel": table})
		t.Cleanup(made.Trigger.(trigger.Watcher).Watch(func() {}))
		working.Go(func() {
			for n := range 4 {
				result, err := made.Items("").Claim(context.Background(), queue.ClaimOptions{Owner: "o", Most: 1})
				if err != nil || (len(result.Claims) == 1) != (n < 3) {
					t.Errorf("%s: %+v, %v", table, result, err)
				}
				if got, err := triggertest.Try(t, made); err != nil || got.Value != float64(max(0, 2-n)) {
					t.Errorf("%s: %+v, %v", table, got, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); working.Wait() }()
	for over := false; !over; {
		most = max(most, connections(server, "claiming"))
		select {
		case <-done:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	if most = max(most, connections(server, "claiming")); most < 2 || most > 4 {
		t.Errorf("50 triggers make %d connections, want 2 to 4", most)
	}
}

// testClaimsOnABadConnection has a connection that is cut again and again: each item is acknowledged once all the same.
func testClaimsOnABadConnection(t *testing.T, server *postgrestest.Server) {
	const items = 200
	newItems(server, "cut", items)
	proxy := servertest.StartProxy(t, server.Addr())
	made := claims(t, postgresql.NewClients(), strings.Replace(server.URL(), server.Addr(), proxy.Addr(), 1), "cut", nil)
	ctx, stop := context.WithCancel(t.Context())
	// A machine that is so busy that nothing succeeds between two cuts has more time there, until something does.
	const usual = 200 * time.Millisecond
	var pause atomic.Int64
	pause.Store(int64(usual))
	var cutting sync.WaitGroup
	cutting.Go(func() {
		random := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			time.Sleep(time.Duration(random.Int64N(pause.Load())))
			proxy.Cut()
		}
	})
	q := made.Items("")
	seen, acked, failed := map[string]bool{}, map[string]bool{}, 0
	deadline := time.Now().Add(5 * time.Minute)
	failedInTurn := 0
	asked := func(err error) {
		if err == nil {
			failedInTurn = 0
			pause.Store(int64(usual))
			return
		}
		failed++
		if failedInTurn++; failedInTurn%10 == 0 {
			pause.Store(min(2*pause.Load(), int64(10*time.Second)))
		}
	}
	// A fast machine may be done before a request was cut.
	for (len(acked) < items || failed == 0) && time.Now().Before(deadline) {
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 5})
		held := result.Claims
		asked(err)
		for err != nil && time.Now().Before(deadline) { // it may have claimed all the same
			held, err = q.Claims(t.Context(), "o")
			asked(err)
		}
		var settlements []queue.Settlement
		for i, claim := range held {
			if name := fmt.Sprint(claim.ID, claim.Attempt); len(claim.Parts) > 0 && seen[name] {
				t.Errorf("the claim %s was made twice", name)
			} else {
				seen[name] = true
			}
			verb := queue.Ack
			if i == 4 {
				verb = queue.GiveBack
			}
			settlements = append(settlements, queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: verb})
		}
		_, err = q.Settle(t.Context(), settlements)
		asked(err)
		for err != nil && time.Now().Before(deadline) {
			_, err = q.Settle(t.Context(), settlements)
			asked(err)
		}
		for _, s := range settlements {
			if s.Verb == queue.Ack {
				if acked[s.ID] {
					t.Errorf("item %s is done twice", s.ID)
				}
				acked[s.ID] = true
			}
		}
	}
	stop()
	cutting.Wait()
	triggertest.WaitFor(t, "an answer", func() bool {
		stats, err := q.Stats(t.Context())
		if err == nil && (stats.Done != items || stats.Ready+stats.Claimed+stats.Retry+stats.Dead != 0) {
			t.Errorf("left are %+v", stats)
		}
		return err == nil
	})
	if failed == 0 {
		t.Error("no request has failed")
	}
}

// testItemsInAnOutage asks while there is no server, and after its return.
func TestItemsInAnOutage(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	newItems(server, "items", 9)
	made := claims(t, postgresql.NewClients(), server.URL(), "items", nil)
	q := made.Items("")
	claim := func() ([]queue.Claim, error) {
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
		if err != nil && strings.Contains(err.Error(), postgrestest.Password) {
			t.Errorf("error %v shows a secret", err)
		}
		return result.Claims, err
	}
	first, err := claim()
	if err != nil || len(first) != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	for name, end := range map[string]func(){"kill": server.Kill, "stop": server.Stop} {
		end()
		if _, err := claim(); err == nil || !strings.Contains(err.Error(), "is not reachable") {
			t.Errorf("%s: error %v", name, err)
		}
		server.Restart()
		if next, err := claim(); err != nil || len(next) != 1 || next[0].ID <= first[0].ID {
			t.Errorf("after %s: %+v, %v", name, next, err)
		}
	}
	// A restart between two requests goes unnoticed.
	server.Kill()
	server.Restart()
	held, err := q.Settle(t.Context(), []queue.Settlement{{ID: first[0].ID, Attempt: 1, Verb: queue.Ack}})
	if err != nil || !held[0] {
		t.Errorf("%v, %v", held, err)
	}
	server.Freeze()
	if _, err := claim(); err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("frozen: error %v", err)
	}
	server.Thaw()
	triggertest.WaitFor(t, "the return of a frozen server", func() bool {
		_, err := claim()
		return err == nil
	})
	server.Exec("DROP TABLE items")
	if _, err := claim(); err == nil || !strings.Contains(err.Error(), "has no table items that the user sees") {
		t.Errorf("without the table: %v", err)
	}
}

// BenchmarkClaimAndAck claims 2,000 items in batches of 50 and acknowledges them.
func BenchmarkClaimAndAck(b *testing.B) {
	const items = 2000
	server := postgrestest.Start(b, postgrestest.Options{})
	newItems(server, "items", 0)
	made := claims(b, postgresql.NewClients(), server.URL(), "items", nil)
	q := made.Items("")
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		server.Exec(fmt.Sprintf("INSERT INTO items (item) SELECT n FROM generate_series(1, %d) n", items))
		b.StartTimer()
		for range items / 50 {
			result, err := q.Claim(b.Context(), queue.ClaimOptions{Owner: "o", Most: 50})
			if err != nil || len(result.Claims) != 50 {
				b.Fatalf("%d claims, %v", len(result.Claims), err)
			}
			settlements := make([]queue.Settlement, 50)
			for i, claim := range result.Claims {
				settlements[i] = queue.Settlement{ID: claim.ID, Attempt: claim.Attempt, Verb: queue.Ack}
			}
			if _, err := q.Settle(b.Context(), settlements); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(items*b.N)/b.Elapsed().Seconds(), "items/s")
}
