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
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/control"
)

// list is the queue.
const list = "bench"

// server is a Redis of the benchmark's own.
type server struct {
	port   string
	cmd    *exec.Cmd
	client redisClient
}

type redisClient struct{ rueidis.Client }

// push adds items to the queue.
func (c redisClient) push(ctx context.Context, items ...string) error {
	return c.pushTo(ctx, list, items...)
}

// pushTo adds items to a list.
func (c redisClient) pushTo(ctx context.Context, list string, items ...string) error {
	return c.Do(ctx, c.B().Rpush().Key(list).Element(items...).Build()).Error()
}

// pop takes the next item off the queue.
func (c redisClient) pop(ctx context.Context) error {
	return c.Do(ctx, c.B().Lpop().Key(list).Build()).Error()
}

// clear takes all items off the queue.
func (c redisClient) clear(ctx context.Context) error {
	return c.Do(ctx, c.B().Del().Key(list).Build()).Error()
}

// waiting is the length of the queue.
func (c redisClient) waiting(ctx context.Context) (int64, error) {
	return c.Do(ctx, c.B().Llen().Key(list).Build()).AsInt64()
}

// commands is how many scripts and lengths of lists the server was asked for so far. Lengths within scripts are counted
// too, so it is too much rather than too little.
func (c redisClient) commands(ctx context.Context) (int64, error) {
	info, err := c.Do(ctx, c.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(info) {
		command, stats, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		calls, _, _ := strings.Cut(stats, ",")
		switch command {
		case "evalsha", "eval", "llen":
			n, err := strconv.ParseInt(calls, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

func (c redisClient) blpop(ctx context.Context, key string, timeout time.Duration) (string, error) {
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
		s.client = redisClient{opened}
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
	process
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
  %s
  triggers:
    - type: redis
      metadata: {address: "127.0.0.1:%s", listName: %s, listLength: "1"}
`

// How items reach their Jobs, as a line of the manifest.
const (
	byPop   = "scalingStrategy: {strategy: accurate}"
	byClaim = "delivery: {mode: claim}"
)

// up starts `offboard up` with one ScaledJob of that command, and waits until it is ready.
func (o options) up(ctx context.Context, dir string, redis *server, command []string, delivery string) (*up, error) {
	words, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	file, data := filepath.Join(dir, "bench.yaml"), filepath.Join(dir, "data")
	content := fmt.Sprintf(manifest, words, redis.port, list, results, delivery, redis.port, list)
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
	u.process.stop()
}

// patience is how long anything may take, on a machine that does much else.
const patience = 5 * time.Minute

// eventually asks until there is no error any more.
func eventually(ctx context.Context, what string, ask func() error) error {
	deadline := time.Now().Add(patience)
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
