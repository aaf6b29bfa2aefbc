package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const results = "started"

// latency pushes one item at a time on an idle machine and takes the time from the push to the first line of the
// process that works on it, with both ways of delivery.
func (o options) latency(ctx context.Context, dir string, redis *server) error {
	take := filepath.Join(dir, "take")
	if output, err := exec.CommandContext(ctx, "go", "build", "-o", take, "./bench/take").CombinedOutput(); err != nil {
		return fmt.Errorf("build the runner: %w\n%s", err, output)
	}
	if err := o.startLatency(ctx, filepath.Join(dir, "pop"), redis, take, byPop, "push to process start"); err != nil {
		return err
	}
	return o.startLatency(ctx, filepath.Join(dir, "claim"), redis, take, byClaim, "by claim: push to process start")
}

func (o options) startLatency(
	ctx context.Context, dir string, redis *server, take, delivery, what string,
) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	up, err := o.up(ctx, dir, redis, []string{take}, delivery)
	if err != nil {
		return err
	}
	defer up.stop()
	took := make([]time.Duration, 0, o.pushes)
	for i := range o.pushes {
		pushed := time.Now()
		if err := redis.client.push(ctx, strconv.FormatInt(pushed.UnixNano(), 10)); err != nil {
			return err
		}
		answer, err := redis.client.blpop(ctx, results, 10*time.Second)
		if err != nil {
			return fmt.Errorf("push %d: %w", i, err)
		}
		nanos, err := strconv.ParseInt(answer, 10, 64)
		if err != nil {
			return err
		}
		took = append(took, time.Duration(nanos))
		if err := up.idle(ctx); err != nil {
			return err
		}
	}
	row(fmt.Sprintf("%s, p50 of %d", what, o.pushes), ms(quantile(took, 0.5)), atMost(10))
	row(what+", p99", ms(quantile(took, 0.99)), atMost(50))
	return nil
}

// throughput runs items of `true`, 25 at a time, and the same commands by xargs, in turn.
func (o options) throughput(ctx context.Context, dir string, redis *server) error {
	var ratios []float64
	var ours, theirs []time.Duration
	for round := range o.rounds {
		sub := filepath.Join(dir, strconv.Itoa(round))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		a, err := o.drainWithUp(ctx, sub, redis)
		if err != nil {
			return err
		}
		b, err := o.drainWithXargs(ctx, redis)
		if err != nil {
			return err
		}
		ours, theirs = append(ours, a), append(theirs, b)
		ratios = append(ratios, float64(a)/float64(b))
	}
	row(fmt.Sprintf("%d items of `true`, 25 at a time", o.items), ms(quantile(ours, 0.5)), target{})
	row("the same commands by xargs -P25", ms(quantile(theirs, 0.5)), target{})
	ratio := quantile(ratios, 0.5)
	row(fmt.Sprintf("ratio, median of %d rounds in turn", o.rounds), figure{ratio, "", 2}, atMost(1.5))
	return nil
}

// drainWithUp takes the time from the push of all items to the end of the last one's Job.
func (o options) drainWithUp(ctx context.Context, dir string, redis *server) (time.Duration, error) {
	up, err := o.up(ctx, dir, redis, []string{o.offboard, "runner", "--", "true"}, byPop)
	if err != nil {
		return 0, err
	}
	defer up.stop()
	items := make([]string, o.items)
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	start := time.Now()
	if err := redis.client.push(ctx, items...); err != nil {
		return 0, err
	}
	if err := up.finished(ctx, o.items); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (o options) drainWithXargs(ctx context.Context, redis *server) (time.Duration, error) {
	items := make([]string, o.items)
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	if err := redis.client.push(ctx, items...); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "xargs", "-P25", "-I{}", o.offboard, "runner", "--", "true")
	cmd.Env = append(os.Environ(), redis.environ()...)
	cmd.Stdin = strings.NewReader(strings.Join(items, "\n"))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &output
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("xargs: %w: %s", err, output.String())
	}
	took := time.Since(start)
	left, err := redis.client.waiting(ctx)
	if err == nil && left != 0 {
		err = fmt.Errorf("xargs left %d items", left)
	}
	return took, err
}

// idleCost takes the memory and the processor time of `offboard up` with one ScaledJob and nothing to do.
func (o options) idleCost(ctx context.Context, dir string, redis *server) error {
	up, err := o.up(ctx, dir, redis, []string{"true"}, byPop)
	if err != nil {
		return err
	}
	defer up.stop()
	return costs(ctx, up.process, o.idle, atMost(50), atMost(0.1))
}

// costs prints the memory and the processor time of a process that has nothing to do for that long.
func costs(ctx context.Context, p process, idle time.Duration, memory, processor target) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idle):
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	resident, err := p.resident()
	if err != nil {
		return err
	}
	row("idle with one ScaledJob: resident memory", mb(resident), memory)
	row(fmt.Sprintf("idle with one ScaledJob: processor, over %v", idle),
		figure{100 * (after - before).Seconds() / idle.Seconds(), "%", 3}, processor)
	return nil
}
