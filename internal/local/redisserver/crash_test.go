package redisserver

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// TestNothingIsLostWhenTheServerIsKilled pushes without a pause while the server is killed again and again.
func TestNothingIsLostWhenTheServerIsKilled(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	server := start(t, Options{Log: log.logger()})
	addr := server.Addr()
	ctx, cancel := context.WithCancel(t.Context())
	var pushing sync.WaitGroup
	var answered, unanswered int64
	pushing.Go(func() {
		for ctx.Err() == nil {
			client, err := rueidis.NewClient(rueidis.ClientOption{
				InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true, PipelineMultiplex: -1,
			})
			if err != nil {
				if client != nil {
					client.Close()
				}
				time.Sleep(time.Millisecond)
				continue
			}
			for ctx.Err() == nil {
				if err := client.Do(context.Background(), client.B().Rpush().Key("list").Element("item").Build()).Error(); err != nil {
					unanswered++
					break
				}
				answered++
			}
			client.Close()
		}
	})
	_, portText, _ := net.SplitHostPort(addr)
	var port int
	_, _ = fmt.Sscan(portText, &port)
	killed := 0
	for range 5 {
		time.Sleep(100 * time.Millisecond) // some pushes
		said, err := serverInfo(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(said.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed = said.pid
		waitFor(t, "the restart", func() bool {
			now, err := serverInfo(t.Context(), port)
			return err == nil && now.pid != killed && !now.loading
		})
	}
	cancel()
	pushing.Wait()
	n := length(t, addr, "list")
	t.Logf("%d pushes answered, %d not, %d items", answered, unanswered, n)
	if n < answered || n > answered+unanswered || answered == 0 {
		t.Errorf("%d items after %d answered and %d unanswered pushes", n, answered, unanswered)
	}
	if !strings.Contains(log.String(), "has died and is started again") {
		t.Errorf("log %q", log.String())
	}
}

// serve runs the test program in the role of `offboard up` and returns its server's address.
func serve(t *testing.T, folder string) (*exec.Cmd, string) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), helperFolder+"="+folder)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		t.Fatalf("%q, %v", line, err)
	}
	return command, strings.TrimSpace(line)
}

func TestStartAfterItsPredecessorWasKilled(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for i := range 3 {
		predecessor, addr := serve(t, folder)
		push(t, addr, "list", "a")
		if err := predecessor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = predecessor.Wait()
		server := start(t, Options{Dir: folder})
		if n := length(t, server.Addr(), "list"); n != int64(i+1) {
			t.Errorf("%d items after %d pushes", n, i+1)
		}
		stop(t, server)
	}
}

// TestOrphanIsEnded leaves a server behind that the system does not end along with its parent.
func TestOrphanIsEnded(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	folder, err := prepare(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	held, err := lock(t.Context(), folder, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	var orphaned *process
	port := testPort()
	for tries := 0; orphaned == nil; port++ {
		orphaned, err = launch(t.Context(), findBinary(), folder, port, held.data, &syscall.SysProcAttr{Setpgid: true})
		if tries++; err != nil && tries > 100 {
			t.Fatal(err)
		}
	}
	push(t, address(port-1), "list", "a", "b", "c")
	for _, file := range []*os.File{held.owner, held.data} { // what the system does when a process is killed
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	server := start(t, Options{Dir: folder, Log: log.logger()})
	select {
	case <-orphaned.exited:
	default:
		t.Error("two servers on one folder")
	}
	if n := length(t, server.Addr(), "list"); n != 3 {
		t.Errorf("%d items", n)
	}
	if !strings.Contains(log.String(), "left behind") {
		t.Errorf("log %q", log.String())
	}
}

func TestLockOfAnUnknownProcessIsRespected(t *testing.T) {
	t.Parallel()
	folder, err := prepare(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, err := tryLock(filepath.Join(folder, dataLock))
	if err != nil || data == nil {
		t.Fatal(data, err)
	}
	defer func() { _ = data.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Options{Dir: folder, Port: testPort()}); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("error %v", err)
	}
}
