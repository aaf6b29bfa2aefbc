package postgresqlqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
)

// TestOnOneServer has all tests use one server, each a schema of its own.
func TestOnOneServer(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	for name, test := range map[string]func(*testing.T, *postgrestest.Server){
		"names":            testNames,
		"rows":             testRowsComeBackAsTheyWere,
		"changing tables":  testTableThatChanges,
		"others":           testOthersNextToIt,
		"order":            testOrder,
		"conditions":       testConditions,
		"tables":           testTablesThatCannotHandOutItems,
		"rights":           testRights,
		"refused rows":     testRefusedRows,
		"suppressed rows":  testSuppressedRows,
		"two owners alike": testTwoOfOneOwner,
		"creation":         testCreationAtOnce,
		"ids":              testIDsAscend,
		"texts":            testTextsOfFailures,
		"other tables":     testItemsOfAnotherTable,
		"silent clients":   testSilentClient,
		"pushes":           testPush,
		"two tables":       testTwoTables,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

// schema is a schema of a test.
type schema struct {
	*testing.T
	server *postgrestest.Server
	name   string
	conn   *pgx.Conn
	pool   queuetest.PostgreSQLConn
}

func newSchema(t *testing.T, server *postgrestest.Server, statements ...string) *schema {
	t.Helper()
	s := &schema{T: t, server: server, name: strings.NewReplacer("/", "_", " ", "_").Replace(strings.ToLower(t.Name()))}
	s.conn, s.pool = server.Connect(), queuetest.OpenPostgreSQL(t, server)
	s.exec("CREATE SCHEMA "+s.name, "SET search_path TO "+s.name)
	s.exec(statements...)
	return s
}

func (s *schema) exec(statements ...string) {
	s.Helper()
	for _, statement := range statements {
		if _, err := s.conn.Exec(s.Context(), statement); err != nil {
			s.Fatalf("%s: %v", statement, err)
		}
	}
}

// texts returns what a query gives.
func (s *schema) texts(query string) []string {
	s.Helper()
	rows, err := s.conn.Query(s.Context(), query)
	if err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.Fatalf("%s: %v", query, err)
	}
	return texts
}

func (s *schema) queue(table string, change ...func(*postgresqlqueue.Options)) *postgresqlqueue.Queue {
	options := postgresqlqueue.Options{Table: s.name + "." + table, Key: "id", Item: "item"}
	for _, c := range change {
		c(&options)
	}
	return postgresqlqueue.New(s.pool, options)
}

func (s *schema) claim(q queue.Queue, most int, want ...string) []queue.Claim {
	s.Helper()
	result, err := q.Claim(s.Context(), queue.ClaimOptions{Owner: "o", Most: most})
	if err != nil {
		s.Fatal(err)
	}
	var got []string
	for _, claim := range result.Claims {
		got = append(got, string(claim.Parts[0]))
	}
	if !slices.Equal(got, want) {
		s.Fatalf("claimed %q, want %q", got, want)
	}
	return result.Claims
}

func (s *schema) settle(q queue.Queue, claim queue.Claim, verb queue.Verb, wait time.Duration, failure *queue.Failure) {
	s.Helper()
	held, err := q.Settle(s.Context(), []queue.Settlement{{
		ID: claim.ID, Attempt: claim.Attempt, Verb: verb, Wait: wait, Failure: failure,
	}})
	if err != nil || !held[0] {
		s.Fatalf("%s: %v, %v", verb, held, err)
	}
}

// testRowsComeBackAsTheyWere has columns of many types, with values that are easily changed on the way.
func testRowsComeBackAsTheyWere(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server,
		"CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"')", "CREATE TYPE pair AS (a int, b text)",
		"CREATE DOMAIN short AS varchar(5) CHECK (value <> '')",
		`CREATE TABLE "All ""types" (
  "the Id" bigint GENERATED ALWAYS AS IDENTITY (START WITH 9007199254740993) PRIMARY KEY, item json, null_item text,
  b bytea, c char(5), v varchar(9), q "char", n numeric, m money, f4 real, f8 float8, bo bool, i int[], j jsonb,
  ts timestamp(3), tz timestamptz, d date, ti timetz, iv interval, u uuid, ip inet, ci cidr, bi bit(5), vb bit varying,
  e mood, p pair, dm short, r int4range, x xml, tv tsvector, nm name, rc regclass, po point, ta text[],
  "sum of" int GENERATED ALWAYS AS (length(v) + 1) STORED)`,
		`INSERT INTO "All ""types" (item, b, c, v, q, n, m, f4, f8, bo, i, j, ts, tz, d, ti, iv, u, ip, ci, bi, vb, e, p, dm, r, x, tv,
  nm, rc, po, ta) VALUES ('{"b" :1,  "a": 1e400, "a":2}', '\x00ff', 'ab', 'a\b''', 'x', 'NaN', 12.5, 0.1, 'Infinity', true,
  '[0:1]={1,NULL}', '{"k": [1.10, null]}', 'infinity', '0044-03-15 12:00:00+00 BC', '2026-02-28', '12:00:00.5+02',
  '-1 mon 2 days', '00000000-0000-0000-0000-00000000000a', '10.0.0.1/8', '10.0.0.0/8', '10101', '1', 'it''s "ok"',
  '(1,"a,b")', 'abc', '[1,3)', '<a>b</a>', '''x'':1', 'Name', 'pg_class', '(1,2)', '{"a,b",NULL,"\"\\"}')`,
		`INSERT INTO "All ""types" DEFAULT VALUES`)
	q := s.queue(`"All ""types"`, func(o *postgresqlqueue.Options) { o.Key = `"the Id"` })
	all := `SELECT row_to_json(t)::text || t::text FROM "All ""types" t ORDER BY "the Id"`
	before := s.texts(all)
	claims := s.claim(q, 2, `{"b" :1,  "a": 1e400, "a":2}`, "")
	if left := s.texts(all); len(left) > 0 {
		t.Errorf("claimed and still there: %q", left)
	}
	s.settle(q, claims[1], queue.GiveBack, 0, nil)
	s.settle(q, claims[0], queue.GiveBack, 0, nil)
	if after := s.texts(all); !slices.Equal(after, before) {
		t.Errorf("the rows are\n%q, were\n%q", after, before)
	}
	again := s.claim(q, 1, `{"b" :1,  "a": 1e400, "a":2}`)[0]
	if again.ID != claims[0].ID || again.Attempt != 2 {
		t.Errorf("got %+v after %+v", again, claims[0])
	}
	// The types of other users' settings do not matter.
	s.settle(q, again, queue.PutOff, 0, nil)
	s.exec("ALTER ROLE postgres SET datestyle TO 'SQL, DMY'")
	defer s.exec("ALTER ROLE postgres RESET datestyle")
	s.pool.Reset()
	if swept, err := q.Sweep(t.Context()); err != nil || swept.Returned != 1 {
		t.Errorf("%+v, %v", swept, err)
	}
	if after := s.texts(all); !slices.Equal(after, before) {
		t.Errorf("with other settings the rows are\n%q, were\n%q", after, before)
	}
}

// testTableThatChanges changes the table while items are claimed.
func testTableThatChanges(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int PRIMARY KEY, item text, old text, kind int DEFAULT 1)",
		"INSERT INTO jobs VALUES (1, 'a', 'x', NULL), (2, 'b', 'x', 5)")
	q := s.queue("jobs")
	claims := s.claim(q, 2, "a", "b")
	s.exec("ALTER TABLE jobs DROP old, ADD priority int NOT NULL DEFAULT 7, ADD made timestamptz DEFAULT now(), ALTER id TYPE bigint")
	s.settle(q, claims[0], queue.GiveBack, 0, nil)
	s.settle(q, claims[1], queue.GiveBack, 0, nil)
	got := s.texts("SELECT concat_ws(' ', id, item, coalesce(kind, 0), priority, made IS NOT NULL) FROM jobs ORDER BY id")
	if want := []string{"1 a 0 7 t", "2 b 5 7 t"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if again := s.claim(q, 2, "a", "b"); again[0].ID != claims[0].ID || again[0].Attempt != 2 {
		t.Errorf("got %+v after %+v", again[0], claims[0])
	}
}

// testOthersNextToIt has others take rows that only know the table.
func testOthersNextToIt(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int PRIMARY KEY, item text)", "INSERT INTO jobs SELECT n, n FROM generate_series(1, 5) n")
	q := s.queue("jobs")
	s.exec("BEGIN", "SELECT FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 2")
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2})
	if err != nil || len(result.Claims) != 2 || string(result.Claims[0].Parts[0]) != "3" || result.Ready != 3 {
		t.Fatalf("got %+v, %v", result, err)
	}
	s.exec("DELETE FROM jobs WHERE id = 1", "COMMIT")
	s.settle(q, result.Claims[0], queue.GiveBack, 0, &queue.Failure{Reason: "R"})
	s.settle(q, result.Claims[1], queue.GiveBack, 0, nil)
	// What comes back may be taken by others, who know nothing of its past.
	s.exec("DELETE FROM jobs WHERE id = 3")
	if got := s.texts("SELECT key FROM offboard_items ORDER BY key"); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("known are %q", got)
	}
	if swept, err := q.Sweep(t.Context()); err != nil || swept.Next >= 0 {
		t.Errorf("%+v, %v", swept, err)
	}
	if got := s.texts("SELECT key FROM offboard_items"); !slices.Equal(got, []string{"4"}) {
		t.Errorf("after a sweep known are %q", got)
	}
	s.claim(q, 9, "2", "4", "5")
}

// testOrder has items come back to their old places.
func testOrder(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id text PRIMARY KEY, item text)", "INSERT INTO jobs VALUES ('b', 'b'), ('d', 'd'), ('a', 'a')")
	q := s.queue("jobs")
	claims := s.claim(q, 2, "a", "b")
	s.settle(q, claims[1], queue.PutOff, 0, nil)
	s.settle(q, claims[0], queue.GiveBack, 0, nil)
	s.exec("INSERT INTO jobs VALUES ('c', 'c')")
	records, err := q.List(t.Context(), queue.Ready, 0, 9)
	if err != nil || len(records) != 3 || records[0].ID != claims[0].ID || records[0].Attempt != 1 || records[1].ID != "" {
		t.Errorf("ready are %+v, %v", records, err)
	}
	again := s.claim(q, 9, "a", "b", "c", "d")
	if again[1].ID != claims[1].ID || again[1].Attempt != 2 || again[2].ID <= again[1].ID {
		t.Errorf("got %+v after %+v", again, claims)
	}
	// Several share their fate, and go back as those that they were.
	if n, err := q.Release(t.Context(), "o"); err != nil || n != 4 {
		t.Errorf("released %d, %v", n, err)
	}
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1, Parts: 3})
	if err != nil || len(result.Claims) != 1 || len(result.Claims[0].Parts) != 3 || result.Claims[0].Attempt != 4-1 {
		t.Fatalf("got %+v, %v", result, err)
	}
	s.settle(q, result.Claims[0], queue.GiveBack, 0, &queue.Failure{Reason: "R"})
	for i, claim := range s.claim(q, 9, "a", "b", "c", "d") {
		if wantFailures := min(1, 3-i); claim.ID != again[i].ID || claim.Failures != wantFailures || i < 3 && claim.Attempt != 4 {
			t.Errorf("got %+v after %+v", claim, again[i])
		}
	}
}

func testConditions(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text, kind text DEFAULT 'a', run_at timestamptz DEFAULT now())",
		"INSERT INTO jobs (item, kind) VALUES ('1', 'a'), ('2', 'b'), ('3', 'a')",
		"INSERT INTO jobs (item, run_at) VALUES ('4', now() + interval '1 hour')")
	where := func(text string) *postgresqlqueue.Queue {
		return s.queue("jobs", func(o *postgresqlqueue.Options) { o.Where = text })
	}
	q := where("kind = 'a' AND jobs.run_at <= now() -- as said ) OR (true")
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 2 {
		t.Errorf("%+v, %v", stats, err)
	}
	claims := s.claim(q, 9, "1", "3")
	s.claim(where("kind = 'b' OR kind = 'c'"), 9, "2")
	if n, err := q.Claimed(t.Context()); err != nil || n != 3 {
		t.Errorf("claimed are %d, %v", n, err)
	}
	s.settle(q, claims[0], queue.PutOff, 0, nil)
	if result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2}); err != nil || len(result.Claims) != 1 || result.Ready != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	for _, text := range []string{"no = 1", "true) ; DROP TABLE jobs; --", "kind"} {
		if _, err := where(text).Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 2}); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	s.claim(where(""), 9, "4")
}

// fails wants a TableError of a claim.
func (s *schema) fails(q queue.Queue, want string) {
	s.Helper()
	_, err := q.Claim(s.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
	if !errors.As(err, new(postgresqlqueue.TableError)) || !strings.Contains(err.Error(), want) {
		s.Errorf("error %v, want %q", err, want)
	}
}

func testTablesThatCannotHandOutItems(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int, item text, twice int, other int UNIQUE)",
		"CREATE UNIQUE INDEX ON jobs (twice) WHERE id > 0", "ALTER TABLE jobs ALTER twice SET NOT NULL",
		"CREATE VIEW seen AS SELECT * FROM jobs",
		"CREATE TABLE orders (id int PRIMARY KEY, item text)",
		"CREATE TABLE lines (of_order int REFERENCES orders ON DELETE CASCADE)",
		"CREATE TABLE parts (id int PRIMARY KEY, item text) PARTITION BY RANGE (id)",
		"CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (3)",
		"CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (3) TO (9)",
		"INSERT INTO parts SELECT n, n FROM generate_series(1, 4) n")
	key := func(column string) func(*postgresqlqueue.Options) {
		return func(o *postgresqlqueue.Options) { o.Key = column }
	}
	s.fails(s.queue("missing"), "has no table "+s.name+".missing that the user sees; correct claimTable")
	s.fails(postgresqlqueue.New(s.pool, postgresqlqueue.Options{Table: "a b"}), `is asked for table "a b", which has something else`)
	s.fails(s.queue("seen"), "which is no table")
	s.fails(s.queue("jobs", key("no")), `has no column "no" in table jobs; correct claimKey`)
	s.fails(s.queue("jobs", func(o *postgresqlqueue.Options) { o.Item = "no" }), "correct claimItem")
	for _, column := range []string{"id", "twice", "other"} {
		s.fails(s.queue("jobs", key(column)), `has no key "`+column+`" of table`)
	}
	s.fails(s.queue("orders"), "has rows in "+s.name+".lines that refer to those of")
	// Partitions are as good as one table.
	q := s.queue("parts")
	claims := s.claim(q, 3, "1", "2", "3")
	for _, claim := range claims {
		s.settle(q, claim, queue.GiveBack, 0, nil)
	}
	s.claim(q, 9, "1", "2", "3", "4")
}

// testRights gives one right after another to a user.
func testRights(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) VALUES ('a')",
		"CREATE USER worker PASSWORD 'secret'", "GRANT USAGE ON SCHEMA testononeserver_rights TO worker")
	pool, err := pgxpool.New(t.Context(), server.UserURL("worker", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	q := postgresqlqueue.New(queuetest.PostgreSQLConn{Pool: pool}, postgresqlqueue.Options{Table: s.name + ".jobs", Key: "id", Item: "item"})
	for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
		s.fails(q, `denies user "worker" `+right)
		s.exec("GRANT " + right + " ON jobs TO worker")
	}
	s.fails(q, "user \"worker\" may not create them; create them as docs/queue-postgresql.md says")
	// Whoever looks without claiming creates nothing.
	if swept, err := q.Sweep(t.Context()); err != nil || swept.Next >= 0 {
		t.Errorf("%+v, %v", swept, err)
	}
	if stats, err := q.Stats(t.Context()); err != nil || stats.Ready != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
	if records, err := q.List(t.Context(), queue.Ready, 0, 1); err != nil || len(records) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
	for _, statement := range documented(t) {
		s.exec(statement)
	}
	s.fails(q, `denies user "worker" what claims need on offboard_items`)
	s.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON offboard_items, offboard_queues TO worker")
	s.settle(q, s.claim(q, 2, "a")[0], queue.GiveBack, 0, nil)
	s.claim(q, 2, "a")
}

// documented returns the statements of docs/queue-postgresql.md that create the records.
func documented(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/queue-postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```sql\nCREATE TABLE offboard_queues")
	text, _, found := strings.Cut("CREATE TABLE offboard_queues"+rest, "```\n")
	if !found {
		t.Fatal("docs/queue-postgresql.md has no statements that create offboard_queues")
	}
	return strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";")
}

// testRefusedRows has somebody take the place of a row while it is claimed.
func testRefusedRows(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int PRIMARY KEY, item text UNIQUE)",
		"INSERT INTO jobs VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
	q := s.queue("jobs")
	claims := s.claim(q, 4, "a", "b", "c", "d")
	s.exec("INSERT INTO jobs VALUES (2, 'secret'), (9, 'd')")
	var settlements []queue.Settlement
	for _, claim := range claims[:3] {
		settlements = append(settlements, queue.Settlement{ID: claim.ID, Attempt: 1, Verb: queue.GiveBack})
	}
	if held, err := q.Settle(t.Context(), settlements); err != nil || !slices.Equal(held, []bool{true, true, true}) {
		t.Fatalf("%v, %v", held, err)
	}
	s.settle(q, claims[3], queue.PutOff, 0, &queue.Failure{Reason: "R"})
	if swept, err := q.Sweep(t.Context()); err != nil || swept.Returned != 0 {
		t.Errorf("%+v, %v", swept, err)
	}
	dead, err := q.List(t.Context(), queue.Dead, 0, 9)
	if err != nil || len(dead) != 2 {
		t.Fatalf("dead are %+v, %v", dead, err)
	}
	if why := dead[0].LastFailure; dead[0].ID != claims[1].ID || why.Reason != "RowRefused" || strings.Contains(why.Message, "secret") ||
		!strings.Contains(why.Message, "jobs_pkey (SQLSTATE 23505)") || dead[1].FirstFailure.Reason != "R" || dead[1].Total != 2 {
		t.Errorf("dead are %+v, %+v", dead[0], dead[1])
	}
	if ids, err := q.RetryDead(t.Context(), dead[0].ID, dead[1].ID); err != nil || len(ids) != 0 {
		t.Errorf("retried %q, %v", ids, err)
	}
	s.exec("DELETE FROM jobs WHERE id = 2")
	if ids, err := q.RetryDead(t.Context(), dead[0].ID, dead[1].ID); err != nil || !slices.Equal(ids, []string{dead[0].ID}) {
		t.Errorf("retried %q, %v", ids, err)
	}
	s.claim(q, 9, "a", "b", "c", "d")
	if stats, err := q.Stats(t.Context()); err != nil || stats.Buried != 2 || stats.Dead != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// testSuppressedRows has a trigger keep rows out of the table without an error.
func testSuppressedRows(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int PRIMARY KEY, item text)", "INSERT INTO jobs VALUES (1, 'a')",
		"CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	q := s.queue("jobs")
	claim := s.claim(q, 1, "a")[0]
	s.exec("CREATE TRIGGER keep_out BEFORE INSERT OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION keep_out()")
	s.settle(q, claim, queue.GiveBack, 0, nil)
	record, err := q.Get(t.Context(), claim.ID)
	if err != nil || record.State != queue.Dead || !strings.Contains(record.LastFailure.Message, "keeps it out") {
		t.Errorf("got %+v, %v", record, err)
	}
	s.exec("ALTER TABLE jobs DISABLE TRIGGER USER", "INSERT INTO jobs VALUES (2, 'b')", "ALTER TABLE jobs ENABLE TRIGGER USER")
	s.claim(q, 1) // what cannot be taken out stays
	s.exec("ALTER TABLE jobs DISABLE TRIGGER USER")
	s.claim(q, 1, "b")
}

// testTwoOfOneOwner has two claim at once under one name: together they hold no more than one may.
func testTwoOfOneOwner(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) SELECT n FROM generate_series(1, 99) n")
	q := s.queue("jobs")
	for round := range 5 {
		var mu sync.Mutex
		ids := map[string]bool{}
		var claiming sync.WaitGroup
		for range 4 {
			claiming.Go(func() {
				result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 5, Holds: 7})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, claim := range result.Claims {
					ids[claim.ID] = true
				}
			})
		}
		claiming.Wait()
		if len(ids) != 7 {
			t.Errorf("round %d: they hold %d, want 7", round, len(ids))
		}
		if n, err := q.Release(t.Context(), "o"); err != nil || n != 7 {
			t.Errorf("released %d, %v", n, err)
		}
	}
}

// testCreationAtOnce has several make the first claim at the same time.
func testCreationAtOnce(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) SELECT n FROM generate_series(1, 9) n")
	q := s.queue("jobs")
	var claiming sync.WaitGroup
	for i := range 4 {
		claiming.Go(func() {
			result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: fmt.Sprint(i), Most: 2})
			if err != nil || len(result.Claims) != 2 {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
	claiming.Wait()
}

// testIDsAscend loses the records, and has the clock be set back.
func testIDsAscend(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) SELECT n FROM generate_series(1, 9) n")
	q := s.queue("jobs")
	first := s.claim(q, 2, "1", "2")
	s.exec("DROP TABLE offboard_items, offboard_queues")
	second := s.claim(q, 2, "3", "4")
	s.exec("UPDATE offboard_queues SET last_id = last_id + (3600000::bigint << 20)")
	third := s.claim(q, 2, "5", "6")
	fourth := s.claim(q, 2, "7", "8")
	all := slices.Concat(first, second, third, fourth)
	for i := range all[1:] {
		if all[i].ID >= all[i+1].ID {
			t.Errorf("the id %s is followed by %s", all[i].ID, all[i+1].ID)
		}
	}
}

// testTextsOfFailures has texts that PostgreSQL takes for no texts.
func testTextsOfFailures(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) VALUES ('a')")
	q := s.queue("jobs")
	claim := s.claim(q, 1, "a")[0]
	s.settle(q, claim, queue.Bury, 0, &queue.Failure{Reason: "R", Message: "a\x00b\xff", Log: strings.Repeat("ü", queue.MaxFailureText)})
	record, err := q.Get(t.Context(), claim.ID)
	if err != nil || record.LastFailure.Message != "a\x00b�" || len(record.LastFailure.Log) < queue.MaxFailureText {
		t.Errorf("got %+v, %v", record, err)
	}
}

// testItemsOfAnotherTable settles items of a table that has other columns, as after a change of the ScaledJob.
func testItemsOfAnotherTable(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (nr int PRIMARY KEY, work text)", "INSERT INTO jobs VALUES (1, 'a')")
	claim := s.claim(s.queue("jobs", func(o *postgresqlqueue.Options) { o.Key, o.Item = "nr", "work" }), 1, "a")[0]
	other := s.queue("jobs")
	if record, err := other.Get(t.Context(), claim.ID); err != nil || string(record.Parts[0]) != "a" {
		t.Errorf("got %+v, %v", record, err)
	}
	s.settle(other, claim, queue.GiveBack, 0, nil)
	if got := s.texts("SELECT work FROM jobs"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q", got)
	}
	if _, err := s.queue("none").Get(t.Context(), claim.ID); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("a table that there is not: %v", err)
	}
}

// testSilentClient has a client say nothing any more in the middle of a claim.
func testSilentClient(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item text)", "INSERT INTO jobs (item) VALUES ('a'), ('b')")
	stopped, stop := context.WithCancel(t.Context())
	silent := make(chan struct{})
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop()
	waiting.Go(func() {
		_ = s.pool.Do(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			inside := postgresqlqueue.New(within{tx}, postgresqlqueue.Options{Table: s.name + ".jobs", Key: "id", Item: "item"})
			if _, err := inside.Claim(ctx, queue.ClaimOptions{Owner: "o", Most: 1}); err != nil {
				t.Error(err)
			}
			close(silent)
			<-stopped.Done()
			return nil
		})
	})
	<-silent
	s.claim(s.queue("jobs"), 2, "a", "b")
}

// within runs work in a transaction that there is.
type within struct{ tx pgx.Tx }

func (w within) Do(ctx context.Context, work func(ctx context.Context, tx pgx.Tx) error) error {
	return work(ctx, w.tx)
}

func testPush(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id serial PRIMARY KEY, item jsonb, kind text DEFAULT 'x')", "CREATE TABLE texts (id serial PRIMARY KEY, item text)",
		"CREATE TABLE required (id serial PRIMARY KEY, item text, kind text NOT NULL)")
	q := s.queue("jobs")
	if pushed, err := q.Push(t.Context(), queue.PushOptions{}, []byte(`{"a": "ü"}`), []byte("2")); err != nil || pushed.Length != 2 {
		t.Errorf("%+v, %v", pushed, err)
	}
	_, err := q.Push(t.Context(), queue.PushOptions{}, []byte("3"), []byte("no JSON"))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), `column "item" is of type jsonb, which`) ||
		strings.Contains(err.Error(), "no JSON") {
		t.Errorf("error %v of what is no JSON", err)
	}
	_, err = s.queue("required").Push(t.Context(), queue.PushOptions{}, []byte("a"))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "breaks a rule of table") {
		t.Errorf("error %v of a row that lacks a value", err)
	}
	_, err = s.queue("texts").Push(t.Context(), queue.PushOptions{}, []byte("a"), []byte("a\x00"))
	if !errors.As(err, new(postgresqlqueue.TableError)) || !strings.Contains(err.Error(), `takes no item 2: column "item" is of type text`) {
		t.Errorf("error %v", err)
	}
	s.claim(q, 9, `{"a": "ü"}`, "2")
	s.claim(s.queue("texts"), 9)
}

// testTwoTables has two tables of one schema whose ids are the same, as those may be of claims in one millisecond.
func testTwoTables(t *testing.T, server *postgrestest.Server) {
	s := newSchema(t, server, "CREATE TABLE jobs (id int PRIMARY KEY, item text)", "CREATE TABLE mails (id int PRIMARY KEY, item text)",
		"INSERT INTO jobs VALUES (1, 'a'), (2, 'b')", "INSERT INTO mails VALUES (1, 'c'), (2, 'd')")
	jobs, mails := s.queue("jobs"), s.queue("mails")
	s.claim(jobs, 0)
	future := fmt.Sprintf("%d", time.Now().Add(time.Hour).UnixMilli()<<20)
	s.exec("INSERT INTO offboard_queues (queue, last_id) VALUES ('mails', "+future+")", "UPDATE offboard_queues SET last_id = "+future)
	of, others := s.claim(jobs, 2, "a", "b"), s.claim(mails, 2, "c", "d")
	if of[1].ID != others[1].ID {
		t.Fatalf("the ids are %s and %s", of[1].ID, others[1].ID)
	}
	s.settle(jobs, of[0], queue.GiveBack, 0, nil)
	s.settle(jobs, of[1], queue.Ack, 0, nil)
	record, err := mails.Get(t.Context(), others[1].ID)
	if err != nil || record.State != queue.Claimed || len(record.Parts) != 1 || string(record.Parts[0]) != "d" || record.Size != 1 {
		t.Errorf("got %+v, %v", record, err)
	}
	s.settle(mails, others[0], queue.Bury, 0, nil)
	s.claim(jobs, 2, "a")
	if ids, err := mails.RetryDead(t.Context(), others[0].ID); err != nil || len(ids) != 1 {
		t.Errorf("%q, %v", ids, err)
	}
	s.claim(mails, 2, "c")
}
