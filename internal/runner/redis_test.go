package runner

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offboard-dev/offboard/internal/redistest"
)

// target is where a runner of a test takes its items from.
type target struct{ port string }

// server is a real Redis of a test's own.
type server struct {
	*redistest.Server
	target
}

func startRedis(t *testing.T, options redistest.Options) server {
	t.Helper()
	s := redistest.Start(t, options)
	return server{s, target{s.Port()}}
}

// text runs a command and returns its answer as text.
func (s server) text(t *testing.T, args ...string) string {
	t.Helper()
	message := s.Do(args...)
	if n, err := message.AsInt64(); err == nil {
		return strconv.FormatInt(n, 10)
	}
	text, err := message.ToString()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// refusing returns a port of 127.0.0.1 that refuses connections until the test ends: it is taken by a socket that does
// not listen, so that no other process can listen on it meanwhile.
func refusing(t *testing.T) string {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(socket) })
	unix.CloseOnExec(socket)
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(address.(*unix.SockaddrInet4).Port)
}

// env returns the environment of a runner for the list.
func (a target) env(list string, more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "REDIS_HOST=127.0.0.1", "REDIS_PORT=" + a.port, "REDIS_LIST=" + list}
	return append(env, more...)
}

func TestLogin(t *testing.T) {
	t.Parallel()
	open := startRedis(t, redistest.Options{})
	locked := startRedis(t, redistest.Options{Password: "pass word", Users: []string{"worker on >secret ~* +@all"}})
	for name, test := range map[string]struct {
		server server
		env    []string
		code   int
		stderr string
	}{
		"password":       {locked, []string{"REDIS_PASSWORD=pass word"}, 0, ""},
		"user":           {locked, []string{"REDIS_USER=worker", "REDIS_PASSWORD=secret"}, 0, ""},
		"wrong password": {locked, []string{"REDIS_PASSWORD=hunter2"}, 1, "log in with REDIS_PASSWORD: WRONGPASS"},
		"wrong user": {
			locked, []string{"REDIS_USER=me", "REDIS_PASSWORD=hunter2"}, 1,
			`log in as the user "me" of REDIS_USER with REDIS_PASSWORD: WRONGPASS`,
		},
		"no password": {locked, nil, 1, "(set REDIS_PASSWORD, and REDIS_USER where the server has users)"},
		"not needed":  {open, []string{"REDIS_PASSWORD=hunter2"}, 0, "needs no password: REDIS_PASSWORD is not used"},
		"database":    {open, []string{"REDIS_DB=3"}, 0, ""},
		"no database": {open, []string{"REDIS_DB=99"}, 1, "select the database 99 that REDIS_DB names: ERR "},
	} {
		for mode := range modes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				o := newOptions(t, test.server.env("none", test.env...), "true")
				o.Pop, o.patience = mode == "pop", 2*time.Minute
				began := time.Now()
				got := runOptions(t, o)
				if got.code != test.code || !strings.Contains(got.stderr, test.stderr) || test.stderr == "" && got.stderr != "" {
					t.Errorf("got %+v, want exit code %d and %q", got, test.code, test.stderr)
				}
				if strings.Contains(got.stderr+got.stdout, "hunter2") {
					t.Errorf("the password is shown: %+v", got)
				}
				if took := time.Since(began); test.code != 0 && took > time.Minute {
					t.Errorf("an error that does not go away was tried again for %v", took)
				}
			})
		}
	}
}

func TestDatabaseIsSelectedBeforeTheItemIsTaken(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.text(t, "RPUSH", "l", "a")
	if got := runHere(t, server.env("l", "REDIS_DB=99"), "true"); got.code != ExitFailure {
		t.Errorf("got %+v", got)
	}
	if got := runHere(t, server.env("l", "REDIS_DB=1"), "true"); !strings.Contains(got.stdout, "nothing to do") {
		t.Errorf("got %+v", got)
	}
	if got := server.text(t, "LLEN", "l"); got != "1" {
		t.Errorf("the list has %s items left, want 1", got)
	}
}

func TestServerThatStartsLater(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	server.Kill()
	result := make(chan outcome, 1)
	o := newOptions(t, server.env("l"), "true")
	o.patience = time.Minute
	go func() { result <- runOptions(t, o) }()
	server.Restart()
	if got := <-result; got.code != 0 || !strings.Contains(got.stdout, "nothing to do") {
		t.Errorf("got %+v", got)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	env := target{refusing(t)}.env("l")
	o := newOptions(t, env, "true")
	o.patience = 200 * time.Millisecond
	began := time.Now()
	got := runOptions(t, o)
	if got.code != ExitFailure || !strings.Contains(got.stderr, "connection refused") {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

// answering is a server that gives each connection the next of the answers and then closes it.
func answering(t *testing.T, answers ...string) (target, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count, done := new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			try := int(count.Add(1))
			_, _ = conn.Read(make([]byte, 1000))
			_, _ = conn.Write([]byte(answers[min(try, len(answers))-1]))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return target{strconv.Itoa(l.Addr().(*net.TCPAddr).Port)}, count
}

func TestStrangeServers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []string
		code    int
		output  string
		tries   int64
	}{
		"loading":  {[]string{"-LOADING Redis is loading\r\n", "$-1\r\n"}, 0, "nothing to do", 2},
		"breaks":   {[]string{""}, 1, "unexpected EOF; whether it has happened is not known", 1},
		"cut item": {[]string{"$100\r\nabc"}, 1, "the server closed the connection", 1},
		"http":     {[]string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, 1, "the answer is not of the Redis protocol", 1},
		"cluster":  {[]string{"-MOVED 1 10.0.0.1:7000\r\n"}, 1, "does not follow a Redis Cluster", 1},
		"read only": {
			[]string{"-READONLY You can't write against a read only replica.\r\n"}, 1, "(set REDIS_HOST to the primary)", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, tries := answering(t, test.answers...)
			got := runPop(t, server.env("l"), "true")
			if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.output) {
				t.Errorf("got %+v, want exit code %d and %q", got, test.code, test.output)
			}
			if got := tries.Load(); got != test.tries {
				t.Errorf("%d connections, want %d", got, test.tries)
			}
		})
	}
	const empty, unknown = "*3\r\n:-1\r\n:0\r\n*0\r\n", "an item that was taken returns by itself within 30s, the lease"
	for name, test := range map[string]struct {
		answers []string
		code    int
		output  string
		tries   int64
	}{
		"loading":      {[]string{"-LOADING Redis is loading\r\n", empty}, 0, "nothing to do", 2},
		"busy":         {[]string{"-BUSY Redis is busy\r\n", empty}, 0, "nothing to do", 2},
		"breaks":       {[]string{""}, 1, unknown, 1},
		"cut":          {[]string{"*3\r\n:-1\r\n"}, 1, unknown, 1},
		"other answer": {[]string{"*1\r\n:-1\r\n"}, 1, unknown, 1},
		"no item":      {[]string{"*3\r\n:-1\r\n:0\r\n*1\r\n*3\r\n$1\r\na\r\n$2\r\n{}\r\n*0\r\n"}, 1, unknown, 1},
		"http":         {[]string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, 1, "the answer is not of the Redis protocol", 1},
		"cluster":      {[]string{"-MOVED 1 10.0.0.1:7000\r\n"}, 1, "does not follow a Redis Cluster", 1},
		"read only":    {[]string{"-READONLY You can't write.\r\n"}, 1, "(set REDIS_HOST to the primary)", 1},
		"Redis 4": {
			[]string{"-ERR Error running script (call to f_1): @user_script:51: @user_script: 51: Write commands not allowed " +
				"after non deterministic commands.\r\n"}, 1, "of Redis 5 or later is needed", 1,
		},
		"no scripts": {[]string{"-ERR unknown command 'EVALSHA'\r\n"}, 1, "of Redis 5 or later is needed", 1},
		"Redis 6 ACL": {
			[]string{"-ERR The user executing the script can't run this command or subcommand\r\n"}, 1, scriptRights, 1,
		},
	} {
		t.Run("claim/"+name, func(t *testing.T) {
			t.Parallel()
			server, tries := answering(t, test.answers...)
			got := runHere(t, server.env("l"), "true")
			if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.output) {
				t.Errorf("got %+v, want exit code %d and %q", got, test.code, test.output)
			}
			if got := tries.Load(); got != test.tries {
				t.Errorf("%d connections, want %d", got, test.tries)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{TLS: true})
	server.Do("RPUSH", "l", "a")
	plain := startRedis(t, redistest.Options{})
	for name, test := range map[string]struct {
		env    []string
		code   int
		output string
	}{
		"unknown authority":  {server.env("l", "REDIS_TLS=true"), ExitFailure, "certificate signed by unknown authority"},
		"server without TLS": {plain.env("l", "REDIS_TLS=true", patience+"=1s"), ExitFailure, "TLS: "},
		"known authority":    {server.env("l", "REDIS_TLS=true", "SSL_CERT_FILE="+server.Certs().CAFile), 0, "got a\n"},
	} {
		// In a process of its own, because the known authorities are read once in a process.
		got := runProcess(t, test.env, "sh", "-c", "echo got $(cat)")
		if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.output) {
			t.Errorf("%s: got %+v, want exit code %d and %q", name, got, test.code, test.output)
		}
	}
}

func TestListName(t *testing.T) {
	t.Parallel()
	server := startRedis(t, redistest.Options{})
	for i, list := range []string{" a b ", "quote\"s'", "line\nbreak\r\n", "ü\xff\x01"} {
		item := fmt.Sprintf("item %d", i)
		server.text(t, "RPUSH", list, item)
		got := runHere(t, server.env(list), "sh", "-c", "cat")
		if got.code != 0 || !strings.Contains(got.stdout, item) || !strings.Contains(got.stdout, fmt.Sprintf("%q", list)) {
			t.Errorf("%q: got %+v", list, got)
		}
	}
}
