package mysql_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest/mariadbtest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/mysql"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

func build(t testing.TB, clients *mysql.Clients, cfg trigger.Config) trigger.Trigger {
	t.Helper()
	made, err := mysql.Type(clients).New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

// query returns a trigger with the query, of a connection string.
func query(t testing.TB, clients *mysql.Clients, dsn, text string) trigger.Trigger {
	t.Helper()
	return build(t, clients, trigger.Config{
		Metadata: config{"query": text, "queryValue": "1"}, Auth: config{"connectionString": dsn},
	})
}

// user makes a user who may read everything, and returns its connection string.
func user(server *mariadbtest.Server, name, password string) string {
	server.Exec(fmt.Sprintf("CREATE USER '%s'@'127.0.0.1' IDENTIFIED BY '%s'", name, password),
		fmt.Sprintf("GRANT SELECT ON %s.* TO '%s'@'127.0.0.1'", mariadbtest.Database, name))
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", name, password, server.Addr(), mariadbtest.Database)
}

// TestOnOneServer has all tests that do not disturb each other use one server.
func TestOnOneServer(t *testing.T) {
	t.Parallel()
	server := mariadbtest.Start(t, mariadbtest.Options{})
	for name, test := range map[string]func(*testing.T, *mariadbtest.Server){
		"results":    testResults,
		"thresholds": testTargetAndActivation,
		"sharing":    testTriggersOfEqualSettingsShareFourConnections,
		"bounds":     testQueryIsEndedOnTheServer,
		"parameters": testEveryParameterConnects,
		"TLS":        testTLS,
		"black hole": testBlackHole,
		"refusals":   testRefusals,
		"new":        testNewDoesNotConnect,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

func testResults(t *testing.T, server *mariadbtest.Server) {
	server.Exec("CREATE TABLE results (id int, state text, share float, big decimal(30,5))",
		"INSERT INTO results VALUES (1, 'a', 0.1, NULL), (2, 'b', 0.1, NULL)")
	clients := mysql.NewClients()
	for text, want := range map[string]float64{
		"SELECT count(*) FROM results": 2,
		"SELECT 7":                     7,
		"SELECT CAST(18446744073709551615 AS UNSIGNED)": 18446744073709551615,
		"SELECT 1.5e0":                              1.5,
		"SELECT share FROM results LIMIT 1":         0.1,
		"SELECT 12345.678":                          12345.678,
		"SELECT -3":                                 -3,
		"SELECT sum(id) FROM results":               3,
		"SELECT coalesce(sum(big), 0) FROM results": 0,
		"SELECT '5'":                                5, // as in KEDA, a text that is a number
		"SELECT true":                               1,
		"SELECT id FROM results ORDER BY id DESC":   2, // as in KEDA, the first row
	} {
		got, err := query(t, clients, server.DSN(), text).Measure(t.Context())
		if err != nil || got.Value != want || got.Target != 1 || got.Active != (want > 0) || got.Holds != 0 {
			t.Errorf("%s: %+v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"SELECT 1 FROM results WHERE false": "the query returns no row",
		"SELECT NULL":                       "the query returns NULL",
		"SELECT sum(big) FROM results":      "the query returns NULL",
		"SELECT 'hunter2'":                  "the query returns a text that is no number",
		"SELECT 'NaN'":                      "is not a finite number",
		"SELECT now()":                      "the query returns a text that is no number",
		"SELECT 1, 2":                       "the query returns 2 columns; let it return one",
		"SELECT count(*) FROM missing":      "does not know a table of the query; correct the query or dbName",
		"SELEC 1":                           "does not run the query: You have an error in your SQL syntax",
		"SELECT 1; SELECT 2":                "does not run the query",
		"SELECT exp(10000)":                 "cannot compute the query with the values that there are",
		"SET @a = 1":                        "the query returns no row",
	} {
		_, err := query(t, clients, server.DSN(), text).Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), server.Addr()) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func testTargetAndActivation(t *testing.T, server *mariadbtest.Server) {
	for _, test := range []struct {
		metadata config
		want     trigger.Measurement
	}{
		{config{"queryValue": "2"}, trigger.Measurement{Value: 3, Target: 2, Active: true}},
		{config{"queryValue": "0.5"}, trigger.Measurement{Value: 3, Target: 0.5, Active: true}},
		{config{"activationQueryValue": "2.5"}, trigger.Measurement{Value: 3, Target: 1, Active: true}},
		{config{"activationQueryValue": "3"}, trigger.Measurement{Value: 3, Target: 1, Active: false}},
	} {
		made := build(t, mysql.NewClients(), trigger.Config{
			Metadata: triggertest.Merge(config{"query": "SELECT 3", "queryValue": "1"}, test.metadata),
			Auth:     config{"connectionString": server.DSN()},
		})
		if got := triggertest.Measure(t, made); got != test.want {
			t.Errorf("%v: %+v, want %+v", test.metadata, got, test.want)
		}
	}
}

func testTriggersOfEqualSettingsShareFourConnections(t *testing.T, server *mariadbtest.Server) {
	shared, other := user(server, "sharing", "secret"), user(server, "other", "secret")
	connections := func() int {
		return server.Count("SELECT count(*) FROM information_schema.processlist WHERE user IN ('sharing', 'other')")
	}
	clients := mysql.NewClients()
	var triggers []trigger.Trigger
	for i := range 50 {
		triggers = append(triggers, query(t, clients, shared, fmt.Sprintf("SELECT %d + sleep(0.02)", i)))
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
		most = max(most, connections())
		measuring.Wait()
		most = max(most, connections())
	}
	if most < 2 || most > 4 {
		t.Errorf("50 triggers make %d connections, want 2 to 4", most)
	}
	last := query(t, clients, other, "SELECT 1")
	triggertest.Measure(t, last)
	for _, made := range triggers {
		made.Close()
		made.Close() // twice does no harm
	}
	triggertest.WaitFor(t, "the connections of the closed triggers to end", func() bool { return connections() == 1 })
	triggertest.Measure(t, last)
}

func testQueryIsEndedOnTheServer(t *testing.T, server *mariadbtest.Server) {
	const endless = "SELECT count(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b, seq_1_to_1000000 c"
	running := func() int {
		return server.Count("SELECT count(*) FROM information_schema.processlist WHERE info = ?", endless)
	}
	clients := mysql.NewClients()
	slow := query(t, clients, server.DSN(), endless)
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
	since := time.Now()
	_, err := slow.Measure(t.Context())
	took := time.Since(since)
	if err == nil || took > triggertest.MostMeasureTime || !strings.Contains(err.Error(), "does not answer in time") &&
		!strings.Contains(err.Error(), "ended the query before it had an answer") {
		t.Errorf("error %v after %v", err, took)
	}
	triggertest.WaitFor(t, "the queries to end", func() bool { return running() == 0 })
	triggertest.Measure(t, query(t, clients, server.DSN(), "SELECT 1"))
}
