package redis_test

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) {
	// Most of these tests wait for servers most of the time, so that more of them fit than there are processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

type config = map[string]string

// patience is how long a condition may take that is expected to come true at once.
const patience = triggertest.Patience

// typeOf returns the type of that name.
func typeOf(t testing.TB, clients *redis.Clients, name string) trigger.Type {
	t.Helper()
	found, ok := trigger.Find(redis.Types(clients), name)
	if !ok {
		t.Fatalf("there is no type %q", name)
	}
	return found
}

func build(t testing.TB, clients *redis.Clients, cfg trigger.Config) trigger.Trigger {
	t.Helper()
	return buildType(t, clients, "redis", cfg)
}

func buildType(t testing.TB, clients *redis.Clients, name string, cfg trigger.Config) trigger.Trigger {
	t.Helper()
	if cfg.PollingInterval == 0 {
		cfg.PollingInterval = 30 * time.Second
	}
	made, err := typeOf(t, clients, name).New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

func open(t testing.TB, metadata config) trigger.Trigger {
	t.Helper()
	return build(t, redis.NewClients(), trigger.Config{Metadata: metadata})
}

func openType(t testing.TB, name string, metadata config) trigger.Trigger {
	t.Helper()
	return buildType(t, redis.NewClients(), name, trigger.Config{Metadata: metadata})
}

func measure(t testing.TB, made trigger.Trigger) trigger.Measurement {
	t.Helper()
	return triggertest.Measure(t, made)
}

// watched counts the calls of changed and lets tests wait for the next one.
type watched struct {
	signal chan struct{}
	stop   func()
}

func watch(t testing.TB, made trigger.Trigger) *watched {
	t.Helper()
	signal := make(chan struct{}, 1)
	stop := sync.OnceFunc(made.(trigger.Watcher).Watch(func() {
		select {
		case signal <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(stop)
	return &watched{signal: signal, stop: stop}
}

// until waits for calls of changed until the condition holds.
func (w *watched) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-w.signal:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// once waits for a call of changed.
func (w *watched) once(t testing.TB, what string) {
	t.Helper()
	select {
	case <-w.signal:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
}

// drain forgets the calls so far.
func (w *watched) drain() {
	select {
	case <-w.signal:
	default:
	}
}

func TestMeasuresEveryKind(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	for _, command := range [][]string{
		{"RPUSH", "list", "a", "b", "c"},
		{"SADD", "set", "a", "b"},
		{"ZADD", "zset", "1", "a", "2", "b", "3", "c", "4", "d"},
		{"HSET", "hash", "a", "1"},
		{"SET", "string", "x"},
		{"XADD", "stream", "*", "k", "v"},
	} {
		server.Do(command...)
	}
	for key, want := range map[string]float64{"list": 3, "set": 2, "zset": 4, "hash": 1, "absent": 0} {
		made := open(t, config{"address": server.Addr(), "listName": key})
		for range 2 {
			got := measure(t, made)
			if got.Value != want || got.Target != 5 || got.Active != (want > 0) {
				t.Errorf("%s: %+v", key, got)
			}
		}
	}
	for _, key := range []string{"string", "stream"} {
		_, err := open(t, config{"address": server.Addr(), "listName": key}).Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("key %q holds a %s", key, key)) ||
			!strings.Contains(err.Error(), server.Addr()) {
			t.Errorf("%s: error %v", key, err)
		}
	}
}

func TestNoticesThatAKeyChangesItsKind(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	made := open(t, config{"address": server.Addr(), "listName": "key"})
	changes := watch(t, made)
	for _, step := range []struct {
		commands [][]string
		want     string
	}{
		{[][]string{{"SET", "key", "x"}}, "error"},
		{[][]string{{"DEL", "key"}, {"SADD", "key", "a", "b"}}, "2"},
		{[][]string{{"DEL", "key"}}, "0"},
		{[][]string{{"RPUSH", "key", "a"}}, "1"},
		{[][]string{{"SET", "key", "x"}}, "error"},
		{[][]string{{"DEL", "key"}, {"HSET", "key", "a", "1", "b", "2", "c", "3"}}, "3"},
		{[][]string{{"FLUSHALL"}}, "0"},
		{[][]string{{"ZADD", "key", "1", "a"}, {"PEXPIRE", "key", "50"}}, "0"},
	} {
		for _, command := range step.commands {
			server.Do(command...)
		}
		changes.until(t, fmt.Sprint(step.commands), func() bool {
			measured, err := made.Measure(t.Context())
			if step.want == "error" {
				return err != nil
			}
			return err == nil && fmt.Sprint(measured.Value) == step.want
		})
	}
}

func TestTargetAndActivation(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("RPUSH", "list", "a", "b", "c")
	for _, test := range []struct {
		metadata config
		want     trigger.Measurement
	}{
		{config{"listLength": "2"}, trigger.Measurement{Value: 3, Target: 2, Active: true}},
		{config{"activationListLength": "2"}, trigger.Measurement{Value: 3, Target: 5, Active: true}},
		{config{"activationListLength": "3"}, trigger.Measurement{Value: 3, Target: 5, Active: false}},
		{config{"activationListLength": "-1", "listName": "absent"}, trigger.Measurement{Value: 0, Target: 5, Active: true}},
	} {
		metadata := config{"address": server.Addr(), "listName": "list"}
		for key, value := range test.metadata {
			metadata[key] = value
		}
		got := measure(t, open(t, metadata))
		if got.Wake == nil || *got.Wake != "" {
			t.Errorf("%v: items that come back at %v, want none", test.metadata, got.Wake)
		}
		if got.Holds != 30*time.Second {
			t.Errorf("%v: holds for %v, want the polling interval", test.metadata, got.Holds)
		}
		got.Wake, got.Holds = nil, 0
		if got != test.want {
			t.Errorf("%v: %+v, want %+v", test.metadata, got, test.want)
		}
	}
}

func TestListNamesHoldAnyBytes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	for _, name := range []string{
		"two words", `quo"te's`, "new\nline\r\nRPUSH x y", "nul\x00byte", "bad\xff\xfeutf8", "ünï©ödé", strings.Repeat("k", 1<<16),
	} {
		made := open(t, config{"address": server.Addr(), "listName": name})
		changes := watch(t, made)
		changes.until(t, "first reading", func() bool { return measure(t, made).Value == 0 })
		server.Do("RPUSH", name, "a")
		changes.until(t, fmt.Sprintf("push to %.20q", name), func() bool { return measure(t, made).Value == 1 })
		if queue := made.(trigger.Pusher).Queue(); queue != name {
			t.Errorf("Queue() = %.40q", queue)
		}
	}
}

// connections returns the lines of CLIENT LIST of the clients that call themselves offboard.
func connections(t testing.TB, server *redistest.Server) []string {
	t.Helper()
	message := server.Do("CLIENT", "LIST")
	text, err := message.ToString()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, " name=offboard ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestTriggersOfEqualSettingsShareOneConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	clients := redis.NewClients()
	var triggers []trigger.Trigger
	for i := range 1000 {
		made := build(t, clients, trigger.Config{
			Metadata: config{"address": server.Addr(), "listName": fmt.Sprint("list", i), "listLength": fmt.Sprint(i + 1)},
		})
		measure(t, made)
		triggers = append(triggers, made)
	}
	other := build(t, clients, trigger.Config{
		Metadata: config{"address": server.Addr(), "listName": "list", "databaseIndex": "1"},
	})
	measure(t, other)
	if lines := connections(t, server); len(lines) != 2 {
		t.Errorf("1000 triggers on database 0 and one on database 1 make %d connections:\n%s", len(lines), lines)
	}
	for _, made := range triggers {
		made.Close()
		made.Close() // twice does no harm
	}
	waitFor(t, "the connection of the closed triggers to end", func() bool { return len(connections(t, server)) == 1 })
	measure(t, other)
}

func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// commandCalls returns how often the server ran a command.
func commandCalls(t testing.TB, server *redistest.Server, command string) (calls int) {
	t.Helper()
	message := server.Do("INFO", "commandstats")
	text, err := message.ToString()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, "cmdstat_"+command+":calls="); found {
			_, _ = fmt.Sscanf(rest, "%d", &calls)
		}
	}
	return calls
}

func TestUnchangedListCostsNoCommand(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	made := open(t, config{"address": server.Addr(), "listName": "list"})
	for range 1000 {
		measure(t, made)
	}
	if calls := commandCalls(t, server, "llen"); calls != 1 {
		t.Errorf("1000 measurements of an unchanged list took %d LLEN", calls)
	}
}

func TestAnswersAreNoOlderThanThePollingInterval(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	clients := redis.NewClients()
	slow := build(t, clients, trigger.Config{Metadata: config{"address": server.Addr(), "listName": "list"}})
	quick := build(t, clients, trigger.Config{
		Metadata: config{"address": server.Addr(), "listName": "list"}, PollingInterval: 100 * time.Millisecond,
	})
	measure(t, slow)
	before := commandCalls(t, server, "llen")
	waitFor(t, "the quick trigger to ask again", func() bool {
		measure(t, quick)
		return commandCalls(t, server, "llen") > before+1
	})
	quick.Close()
	server.Do("RPUSH", "list", "a") // drops the answer that was stored for the quick one
	waitFor(t, "the push to be noticed", func() bool { return measure(t, slow).Value == 1 })
	before = commandCalls(t, server, "llen")
	time.Sleep(150 * time.Millisecond) // longer than the interval of the trigger that is gone
	measure(t, slow)
	if calls := commandCalls(t, server, "llen") - before; calls != 0 {
		t.Errorf("the interval of a closed trigger still counts: %d LLEN", calls)
	}
}

// safeBuffer is a buffer for logs.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func logger(b *safeBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// shortTempDir returns a folder whose path is short enough for unix sockets.
func shortTempDir(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "redis") // t.TempDir holds the test's name and may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}
