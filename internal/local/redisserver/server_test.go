package redisserver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"
)

// helperFolder makes the test program serve that folder until it is killed, in the role of `offboard up`.
const helperFolder = "REDISSERVER_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(helperFolder); folder != "" {
		server, err := Start(context.Background(), Options{Dir: folder, Port: testPort()})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(server.Addr())
		select {}
	}
	goleak.VerifyTestMain(m)
}

// testPort returns a port to try first: away from a Redis on the usual port, below the ports that systems give to
// clients, and another one each time, so that no test takes the port of another test's server while that one restarts.
func testPort() int { return 12000 + rand.IntN(20000) }

const patience = time.Minute

func start(t *testing.T, options Options) *Server {
	t.Helper()
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	if options.Port == 0 {
		options.Port = testPort()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server, err := Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, server) })
	return server
}

func stop(t *testing.T, server *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// do runs a command over a connection of its own.
func do(t *testing.T, addr string, args ...string) rueidis.RedisResult {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true, PipelineMultiplex: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.Do(t.Context(), client.B().Arbitrary(args...).Build())
}

func length(t *testing.T, addr, list string) int64 {
	t.Helper()
	n, err := do(t, addr, "LLEN", list).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func push(t *testing.T, addr, list string, items ...string) {
	t.Helper()
	if err := do(t, addr, append([]string{"RPUSH", list}, items...)...).Error(); err != nil {
		t.Fatal(err)
	}
}

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

func (b *safeBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestDataSurvivesStopAndStart(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a folder", `with "odd" names`)
	since := time.Now()
	server := start(t, Options{Dir: folder})
	t.Logf("started in %v", time.Since(since))
	if server.InMemory() || !strings.HasPrefix(server.Kind(), filepath.Base(server.binary)+" ") {
		t.Errorf("kind %q", server.Kind())
	}
	push(t, server.Addr(), "list", "a", "b")
	since = time.Now()
	stop(t, server)
	t.Logf("stopped in %v", time.Since(since))
	if _, err := net.Dial("tcp", server.Addr()); err == nil {
		t.Error("the server still listens after Stop")
	}
	server = start(t, Options{Dir: folder})
	if n := length(t, server.Addr(), "list"); n != 2 {
		t.Errorf("%d items after a restart", n)
	}
	if content, err := os.ReadFile(logPath(folder)); err != nil || !strings.Contains(string(content), "Ready to accept") {
		t.Errorf("log: %v, %.100q", err, content)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	server := start(t, Options{})
	for setting, want := range map[string]string{
		"bind": "127.0.0.1", "protected-mode": "yes", "appendonly": "yes", "save": "", "dir": server.options.Dir,
	} {
		got, err := do(t, server.Addr(), "CONFIG", "GET", setting).AsStrMap()
		if err != nil || got[setting] != want {
			t.Errorf("%s is %q, %v; want %q", setting, got[setting], err, want)
		}
	}
	if host, _, err := net.SplitHostPort(server.Addr()); err != nil || host != "127.0.0.1" {
		t.Errorf("address %s", server.Addr())
	}
}

func TestTakesTheNextFreePort(t *testing.T) {
	t.Parallel()
	port := testPort()
	var listener net.Listener
	for {
		var err error
		if listener, err = net.Listen("tcp", address(port)); err == nil {
			break
		}
		port++
	}
	defer func() { _ = listener.Close() }()
	for _, inMemory := range []bool{false, true} {
		server := start(t, Options{Port: port, InMemory: inMemory})
		if server.port <= port {
			t.Errorf("in memory %t: listens on %s although %d is taken", inMemory, server.Addr(), port)
		}
	}
}

func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	const servers = 6
	port := testPort()
	var mu sync.Mutex
	seen := map[string]bool{}
	var starting sync.WaitGroup
	for i := range servers {
		folder := t.TempDir()
		starting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			server, err := Start(ctx, Options{Dir: folder, Port: port, InMemory: i%3 == 0})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { stop(t, server) })
			mu.Lock()
			defer mu.Unlock()
			if seen[server.Addr()] {
				t.Errorf("two servers on %s", server.Addr())
			}
			seen[server.Addr()] = true
		})
	}
	starting.Wait()
	if len(seen) != servers {
		t.Errorf("%d servers", len(seen))
	}
}

func TestOneFolderOneServer(t *testing.T) {
	t.Parallel()
	server := start(t, Options{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(server.options.Dir, link); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{server.options.Dir, link} {
		if _, err := Start(t.Context(), Options{Dir: folder, Port: testPort()}); err == nil ||
			!strings.Contains(err.Error(), "another process uses the folder "+server.options.Dir) {
			t.Errorf("%s: error %v", folder, err)
		}
	}
	push(t, server.Addr(), "list", "a") // the first one has not noticed
}

func TestInMemory(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	server := start(t, Options{InMemory: true, Log: log.logger()})
	if !server.InMemory() || server.Kind() != "in-memory" || !strings.Contains(log.String(), "in memory") {
		t.Errorf("in memory %t, kind %q, log %q", server.InMemory(), server.Kind(), log.String())
	}
	push(t, server.Addr(), "list", "a")
	if n := length(t, server.Addr(), "list"); n != 1 {
		t.Errorf("%d items", n)
	}
	if err := do(t, server.Addr(), "PEXPIRE", "list", "50").Error(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the list to expire", func() bool { return length(t, server.Addr(), "list") == 0 })
}

func TestInMemoryForLackOfARedis(t *testing.T) {
	folder := t.TempDir()
	server := start(t, Options{Dir: folder})
	push(t, server.Addr(), "list", "a")
	stop(t, server)
	t.Setenv("PATH", t.TempDir())
	var log safeBuffer
	server = start(t, Options{Dir: folder, Log: log.logger()})
	if !server.InMemory() || !strings.Contains(log.String(), "Install redis-server") ||
		!strings.Contains(log.String(), "queues of an earlier run are on disk") {
		t.Errorf("in memory %t, log %q", server.InMemory(), log.String())
	}
}

func TestDamagedDataIsAnError(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server := start(t, Options{Dir: folder})
	push(t, server.Addr(), "list", "a", "b", "c")
	stop(t, server)
	files := appendOnlyFiles(folder)
	if len(files) != 1 {
		t.Fatal(files)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	copy(content, "no append-only file")
	if err := os.WriteFile(files[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Options{Dir: folder, Port: testPort()})
	if err == nil || !strings.Contains(err.Error(), logPath(folder)) || !strings.Contains(err.Error(), "Bad file format") {
		t.Errorf("error %v", err)
	}
	// The failed start holds nothing back.
	held, err := lock(t.Context(), server.options.Dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	held.release()
}

func TestStopKillsWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server := start(t, Options{Dir: folder})
	push(t, server.Addr(), "list", "a")
	if err := server.running.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := server.Stop(ctx); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("error %v", err)
	}
	if n := length(t, start(t, Options{Dir: folder}).Addr(), "list"); n != 1 {
		t.Errorf("%d items", n)
	}
}

func TestSyncerForcesWhatHasGrown(t *testing.T) {
	t.Parallel()
	server := start(t, Options{})
	push(t, server.Addr(), "list", "a")
	disk := newSyncer(server.options.Dir, slog.New(slog.DiscardHandler))
	disk.sync()
	before := fmt.Sprint(disk.sizes)
	push(t, server.Addr(), "list", "b")
	disk.sync()
	if after := fmt.Sprint(disk.sizes); len(disk.sizes) != 1 || after == before {
		t.Errorf("forced %s, then %s", before, after)
	}
}

func TestFolderThatCannotBeMade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"", filepath.Join(file, "below")} {
		if _, err := Start(t.Context(), Options{Dir: folder}); err == nil {
			t.Errorf("started in %q", folder)
		}
	}
}
