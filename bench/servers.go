package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sys/unix"

	"github.com/offboard-dev/offboard/internal/control"
)

const list = "bench"

// server is a Redis of the benchmark's own.
type server struct {
	port   string
	cmd    *exec.Cmd
	client client
}

type client struct{ rueidis.Client }

func (c client) rpush(ctx context.Context, key string, items ...string) error {
	return c.Do(ctx, c.B().Rpush().Key(key).Element(items...).Build()).Error()
}

func (c client) llen(ctx context.Context, key string) (int64, error) {
	return c.Do(ctx, c.B().Llen().Key(key).Build()).AsInt64()
}

func (c client) blpop(ctx context.Context, key string, timeout time.Duration) (string, error) {
	answer, err := c.Do(ctx, c.B().Blpop().Key(key).Timeout(timeout.Seconds()).Build()).AsStrSlice()
	if err != nil {
		return "", err
	}
	return answer[1], nil
}

func startRedis(ctx context.Context, dir string) (*server, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err = errors.Join(err, free.Close()); err != nil {
		return nil, err
	}
	s := &server{port: port}
	s.cmd = exec.CommandContext(ctx, "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "")
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	return s, eventually(ctx, "an answer of redis-server", func() error {
		opened, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:" + port}})
		s.client = client{opened}
		return err
	})
}

func (s *server) environ() []string {
	return []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + s.port, "REDIS_LIST=" + list}
}

func (s *server) stop() {
	s.client.Close()
	_ = s.cmd.Process.Kill() // it holds nothing that anyone needs
	_ = s.cmd.Wait()
}

// up is a running `offboard up`.
type up struct {
	cmd    *exec.Cmd
	client *control.Client
	log    string
}

const manifest = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: bench}
spec:
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: main
            command: %s
            env: [{name: REDIS_HOST, value: 127.0.0.1}, {name: REDIS_PORT, value: "%s"}, {name: REDIS_LIST, value: %s},
                  {name: RESULTS, value: %s}]
  maxReplicaCount: 25
  successfulJobsHistoryLimit: 5
  scalingStrategy: {strategy: accurate}
  triggers:
    - type: redis
      metadata: {address: "127.0.0.1:%s", listName: %s, listLength: "1"}
`

// up starts `offboard up` with one ScaledJob of that command, and waits until it is ready.
func (o options) up(ctx context.Context, dir string, redis *server, command []string) (*up, error) {
	words, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	file, data := filepath.Join(dir, "bench.yaml"), filepath.Join(dir, "data")
	content := fmt.Sprintf(manifest, words, redis.port, list, results, redis.port, list)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		return nil, err
	}
	u := &up{client: control.NewClient(data), log: filepath.Join(dir, "up.log")}
	log, err := os.Create(u.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	u.cmd = exec.CommandContext(ctx, o.offboard, "up", "-f", file, "--data-dir", data)
	u.cmd.Stdout, u.cmd.Stderr = log, log
	if err := u.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.offboard, err)
	}
	return u, u.eventually(ctx, "a ScaledJob that is ready", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Ready").Status == "True"
	})
}

func (u *up) eventually(ctx context.Context, what string, holds func(control.ScaledJobInfo) bool) error {
	err := eventually(ctx, what, func() error {
		infos, err := u.client.ScaledJobs(ctx, "")
		if err == nil && (len(infos) != 1 || !holds(infos[0])) {
			err = fmt.Errorf("there is %+v", infos)
		}
		return err
	})
	if err != nil {
		log, _ := os.ReadFile(u.log)
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

// idle waits until no Job is left unfinished.
func (u *up) idle(ctx context.Context) error {
	return u.eventually(ctx, "no Job that runs", func(info control.ScaledJobInfo) bool {
		return info.Running+info.Pending == 0
	})
}

// finished waits until that many Jobs have succeeded and nothing is left.
func (u *up) finished(ctx context.Context, n int) error {
	return u.eventually(ctx, fmt.Sprintf("%d Jobs that have succeeded", n), func(info control.ScaledJobInfo) bool {
		return info.Succeeded >= n && info.Running+info.Pending == 0 && info.Queue != nil && *info.Queue == 0
	})
}

func (u *up) stop() {
	u.client.Close()
	_ = u.cmd.Process.Signal(syscall.SIGTERM)
	_ = u.cmd.Wait()
}

// cpu is the processor time that the process has used.
func (u *up) cpu() (time.Duration, error) {
	// The clock of another process's processor time, as clock_getcpuclockid(3) makes it.
	const scheduled = 2
	var used unix.Timespec
	id := int32(^u.cmd.Process.Pid<<3 | scheduled)
	if err := unix.ClockGettime(id, &used); err != nil {
		return 0, err
	}
	return time.Duration(used.Nano()), nil
}

// resident is the process's memory in bytes.
func (u *up) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return kilobytes << 10, err
}

// eventually asks until there is no error any more, at most for two minutes.
func eventually(ctx context.Context, what string, ask func() error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
