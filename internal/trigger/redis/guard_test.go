package redis

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	for stream, want := range map[string]int{
		"+OK\r\n":                          1,
		":12\r\n:-1\r\n":                   2,
		"$5\r\na\r\nbc\r\n":                1,
		"$-1\r\n*-1\r\n_\r\n#t\r\n":        4,
		"*2\r\n$1\r\na\r\n*1\r\n:1\r\n":    1,
		"%1\r\n+k\r\n:3\r\n":               1,
		"*0\r\n%0\r\n":                     2,
		",1.5\r\n(123\r\n=5\r\ntxt:a\r\n":  3,
		">2\r\n$10\r\ninvalidate\r\n_\r\n": 0,
		"+A\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+B\r\n": 2,
		"-ERR x\r\n": 1,
	} {
		whole, pieces := frames{}, frames{}
		if err := whole.feed([]byte(stream)); err != nil || whole.complete != want {
			t.Errorf("%q: %d messages, %v; want %d", stream, whole.complete, err, want)
		}
		for i := range len(stream) {
			if err := pieces.feed([]byte(stream[i : i+1])); err != nil {
				t.Errorf("%q in pieces: %v", stream, err)
			}
		}
		if pieces.complete != want || len(pieces.open) != 0 || pieces.body != 0 {
			t.Errorf("%q in pieces: %d messages; want %d", stream, pieces.complete, want)
		}
	}
}

func TestFramesRefuse(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{
		"HTTP/1.1 200 OK\r\n", "\x00\r\n", "+\n", "$-2\r\n", "$99999999999\r\n", "*1000000000\r\n", "%-1\r\n", "%40000000000000\r\n",
		"$?\r\n", "*?\r\n", ".\r\n", "|1\r\n", ":x\r\n", ":\r\n", "#x\r\n", "_x\r\n", ">1\r\n", ">2\r\n+subscribe\r\n",
		">2\r\n$9\r\nsubscribe\r\n", ">2\r\n$10\r\ninvalidate\r\n:1\r\n", "*1\r\n>2\r\n", "+" + strings.Repeat("x", 1<<17),
		strings.Repeat("*1\r\n", 100), "___", "#tt", "_\n", ".x", "|1",
	} {
		var f frames
		if err := f.feed([]byte(stream)); err == nil {
			t.Errorf("%.40q is taken", stream)
		}
	}
}

// FuzzServer lets a server answer the first commands with any bytes. What rueidis makes of them must not end the
// process.
func FuzzServer(f *testing.F) {
	const hello = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n+OK\r\n+OK\r\n+PONG\r\n"
	f.Add([]byte(""))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte(hello + "+OK\r\n:5\r\n"))
	f.Add([]byte(hello + "+OK\r\n-WRONGTYPE x\r\n+string\r\n"))
	f.Add([]byte(hello + ">2\r\n$10\r\ninvalidate\r\n*1\r\n$4\r\nlist\r\n+OK\r\n:5\r\n"))
	f.Add([]byte(hello + "+extra\r\n+extra\r\n+extra\r\n"))
	f.Add([]byte("%1\r\n$5\r\nproto\r\n*1\r\n:1\r\n"))
	f.Add([]byte("-ERR unknown command 'HELLO'\r\n-ERR\r\n-ERR\r\n-ERR\r\n"))
	f.Add([]byte("*-1\r\n$-1\r\n_\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n"))
	f.Add([]byte("*1000000000\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		address := babble(t, answer)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := settings{addresses: address}
		opened, err := openSession(ctx, s, address, func([]string) {})
		if err == nil {
			var remembered atomic.Pointer[kind]
			remembered.Store(&listKind)
			_, _ = opened.size(ctx, "list", &remembered, time.Second)
			_, _ = opened.lag(ctx, "stream", "group")
			opened.close()
		}
	})
}

// FuzzTopology lets a sentinel and a node of a cluster answer with any bytes where other servers are.
func FuzzTopology(f *testing.F) {
	f.Add([]byte("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n"))
	f.Add([]byte("*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n_\r\n:0\r\n"))
	f.Add([]byte("*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n"))
	f.Add([]byte("*1\r\n%1\r\n:1\r\n:2\r\n"))
	f.Add([]byte("*-1\r\n"))
	f.Add([]byte("-MOVED 1 :1\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		const hello = "%1\r\n$5\r\nproto\r\n:3\r\n"
		address := babble(t, append([]byte(hello), answer...))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := settings{topology: clusterNode, addresses: address}
		found, err := ask(ctx, s, address, "CLUSTER", "SLOTS")
		_ = redirectionOf(err, address)
		ranges, err := parseSlots(found, address)
		for _, r := range ranges {
			if err == nil && (r.first < 0 || r.first > r.last || r.last >= 16384) {
				t.Errorf("slots %d to %d", r.first, r.last)
			}
		}
		_, _ = masterAddress(found)
		_, _ = findGroup(found, "group")
	})
}

// babble serves the answer, whatever is asked, and returns the address.
func babble(t *testing.T, answer []byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// A proper server answers command by command; everything at once is as hostile as it gets.
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = bytes.NewReader(answer).WriteTo(conn)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = conn.Read(make([]byte, 1<<16))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}
