package postgresql_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/postgresql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func build(t testing.TB, clients *postgresql.Clients, cfg trigger.Config) trigger.Trigger {
	t.Helper()
	if cfg.PollingInterval == 0 {
		cfg.PollingInterval = 30 * time.Second
	}
	made, err := postgresql.Type(clients).New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

// query returns a trigger with the query as the superuser.
func query(t testing.TB, server *postgrestest.Server, clients *postgresql.Clients, text string) trigger.Trigger {
	t.Helper()
	return build(t, clients, trigger.Config{
		Metadata: config{"query": text, "targetQueryValue": "1"}, Auth: config{"connection": server.URL()},
	})
}

// TestOnOneServer has all tests that do not disturb each other use one server.
func TestOnOneServer(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.Options{})
	for name, test := range map[string]func(*testing.T, *postgrestest.Server){
		"results":           testResults,
		"thresholds":        testTargetAndActivation,
		"sharing":           testTriggersOfEqualSettingsShareFourConnections,
		"limits":            testLimitsOfTheConnectionString,
		"cancelling":        testQueryIsCancelledOnTheServer,
		"a changing table":  testTableThatChanges,
		"parameters":        testEveryParameterConnects,
		"TLS":               testTLS,
		"black hole":        testBlackHole,
		"refusals":          testRefusals,
		"new":               testNewDoesNotConnect,
		"notifications":     testNotificationsAreNoticed,
		"silence":           testBlackHoleIsNoticed,
		"refusal to listen": testRefusalToListenIsLogged,
		"items":             testItems,
		"claims over TLS":   testClaimsOverTLS,
		"refused claims":    testRefusedClaims,
		"sharing claims":    testClaimsShareFourConnections,
		"bad connection":    testClaimsOnABadConnection,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

func testResults(t *testing.T, server *postgrestest.Server) {
	server.Exec("CREATE TABLE results (id serial, state text, big numeric)",
		"INSERT INTO results (state) VALUES ('a'), ('b')")
	clients := postgresql.NewClients()
	for text, want := range map[string]float64{
		"SELECT count(*) FROM results":                          2,
		"SELECT 7::smallint":                                    7,
		"SELECT 7":                                              7,
		"SELECT 9007199254740993::bigint - 1":                   9007199254740992,
		"SELECT 1.5::float8":                                    1.5,
		"SELECT 0.25::float4":                                   0.25,
		"SELECT 12345.678::numeric":                             12345.678,
		"SELECT 1e30::numeric":                                  1e30,
		"SELECT -3":                                             -3,
		"SELECT sum(id) FROM results":                           3,
		"SELECT coalesce(sum(big), 0) FROM results":             0,
		"SELECT id FROM results ORDER BY id DESC":               2, // as in KEDA, the first row
		"WITH waiting AS (TABLE results) TABLE waiting LIMIT 0": -1,
		"SELECT NULL::bigint":                                   -1,
		"SELECT sum(big) FROM results":                          -1,
	} {
		got, err := query(t, server, clients, text).Measure(t.Context())
		if want != -1 && (err != nil || got.Value != want || got.Target != 1 || got.Active != (want > 0) || got.Holds != 0) {
			t.Errorf("%s: %+v, %v; want %v", text, got, err, want)
		}
		if want == -1 && err == nil {
			t.Errorf("%s: %+v, want an error", text, got)
		}
	}
	for text, want := range map[string]string{
		"SELECT 1 WHERE false":             "the query returns no row",
		"SELECT NULL::int":                 "the query returns NULL",
		"SELECT 'hunter2'":                 "returns a value of type text, which is no number",
		"SELECT '5'::text":                 "returns a value of type text, which is no number",
		"SELECT true":                      "returns a value of type bool, which is no number",
		"SELECT now()":                     "returns a value of type timestamptz, which is no number",
		"SELECT 1, 2":                      "the query returns 2 columns; let it return one",
		"SELECT 'NaN'::float8":             "is not a finite number",
		"SELECT 'Infinity'::numeric":       "is not a finite number",
		"SELECT 'hunter2'::int":            "cannot compute the query with the values that there are (SQLSTATE 22P02)",
		"SELECT 1 / 0":                     "(SQLSTATE 22012)",
		"SELECT 1 / (2 - id) FROM results": "(SQLSTATE 22012)", // after the first row
		"SELECT count(*) FROM missing":     `does not know a table or a schema of the query; correct the query or dbName: relation "missing"`,
		"SELECT count(*) FROM no.jobs":     "does not know a table or a schema",
		"SELEC 1":                          "does not run the query: syntax error",
		"SELECT 1; SELECT 2":               "does not run the query",
		"-- nothing":                       "the query returns no row",
	} {
		_, err := query(t, server, clients, text).Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), server.Addr()) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func testTargetAndActivation(t *testing.T, server *postgrestest.Server) {
	for _, test := range []struct {
		metadata config
		want     trigger.Measurement
	}{
		{config{"targetQueryValue": "2"}, trigger.Measurement{Value: 3, Target: 2, Active: true}},
		{config{"targetQueryValue": "0.5"}, trigger.Measurement{Value: 3, Target: 0.5, Active: true}},
		{config{"activationTargetQueryValue": "2.5"}, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{config{"activationTargetQueryValue": "3"}, trigger.Measurement{Value: 3, Target: 1, Active: false}},
	} {
		made := build(t, postgresql.NewClients(), trigger.Config{
			Metadata: triggertest.Merge(config{"query": "SELECT 3", "targetQueryValue": "1"}, test.metadata),
			Auth:     config{"connection": server.URL()},
		})
		if got := triggertest.Measure(t, made); got != test.want {
			t.Errorf("%v: %+v, want %+v", test.metadata, got, test.want)
		}
		if _, watches := made.(trigger.Watcher); watches {
			t.Error("without a channel there is nothing to watch")
		}
	}
}

// connections returns how many connections there are that call themselves by the name.
func connections(server *postgrestest.Server, name string) int {
	return server.Count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
}

func testTriggersOfEqualSettingsShareFourConnections(t *testing.T, server *postgrestest.Server) {
	server.Exec("CREATE USER other PASSWORD 'secret'")
	clients := postgresql.NewClients()
	var triggers []trigger.Trigger
	for i := range 50 {
		made := build(t, clients, trigger.Config{
			Metadata: config{
				"query": fmt.Sprintf("SELECT %d FROM pg_sleep(0.02)", i), "targetQueryValue": fmt.Sprint(i + 1),
				"channel": fmt.Sprint("channel ", i%10),
			},
			Auth: config{"connection": server.URL() + "&application_name=sharing"},
		})
		t.Cleanup(made.(trigger.Watcher).Watch(func() {}))
		triggers = append(triggers, made)
	}
	most := 0
	for range 4 {
		var measuring sync.WaitGroup
		for i, made := range triggers {
			measuring.Go(func() {
				if got, err := made.Measure(context.Background()); err != nil || got.Value != float64(i) {
					t.Errorf("trigger %d: %+v, %v", i, got, err)
				}
			})
		}
		most = max(most, connections(server, "sharing"))
		measuring.Wait()
		most = max(most, connections(server, "sharing"))
	}
	if most < 2 || most > 4 {
		t.Errorf("50 triggers make %d connections, want 2 to 4", most)
	}
	other := build(t, clients, trigger.Config{
		Metadata: config{"query": "SELECT 1", "targetQueryValue": "1"},
		Auth:     config{"connection": server.UserURL("other", "secret") + "&application_name=sharing"},
	})
	triggertest.Measure(t, other)
	for _, made := range triggers {
		made.Close()
		made.Close() // twice does no harm
	}
	triggertest.WaitFor(t, "the connections of the closed triggers to end", func() bool { return connections(server, "sharing") == 1 })
	triggertest.Measure(t, other)
}

// testLimitsOfTheConnectionString has a user ask for more connections than there are to be.
func testLimitsOfTheConnectionString(t *testing.T, server *postgrestest.Server) {
	made := build(t, postgresql.NewClients(), trigger.Config{
		Metadata: config{"query": "SELECT 1", "targetQueryValue": "1"},
		Auth:     config{"connection": server.URL() + "&pool_max_conns=20&pool_min_conns=10&application_name=limits"},
	})
	triggertest.Measure(t, made)
	triggertest.WaitFor(t, "the pool to be full", func() bool { return connections(server, "limits") == 3 })
}

func testQueryIsCancelledOnTheServer(t *testing.T, server *postgrestest.Server) {
	running := func() int {
		return server.Count("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'")
	}
	clients := postgresql.NewClients()
	slow := query(t, server, clients, "SELECT 1 FROM pg_sleep(600)")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := slow.Measure(ctx)
		failed <- err
	}()
	triggertest.WaitFor(t, "the query to run", func() bool { return running() == 1 })
	cancel()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "was not waited for any longer") {
		t.Errorf("error %v", err)
	}
	triggertest.WaitFor(t, "the query to end", func() bool { return running() == 0 })
	since := time.Now()
	_, err := slow.Measure(t.Context())
	if took := time.Since(since); err == nil || !strings.Contains(err.Error(), "does not answer in time") || took > triggertest.MostMeasureTime {
		t.Errorf("error %v after %v", err, took)
	}
	triggertest.WaitFor(t, "the query to end", func() bool { return running() == 0 })
	triggertest.Measure(t, query(t, server, clients, "SELECT 1"))
}

func testTableThatChanges(t *testing.T, server *postgrestest.Server) {
	server.Exec("CREATE TABLE changing (n int)", "INSERT INTO changing VALUES (4)")
	made := query(t, server, postgresql.NewClients(), "SELECT n FROM changing")
	for _, kind := range []string{"int", "bigint", "numeric", "float8"} {
		server.Exec("ALTER TABLE changing ALTER n TYPE " + kind)
		for range 3 {
			if got := triggertest.Measure(t, made); got.Value != 4 {
				t.Errorf("%s: %v, want 4", kind, got.Value)
			}
		}
	}
}
