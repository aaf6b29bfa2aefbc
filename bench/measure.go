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
// process that works on it.
func (o options) latency(ctx context.Context, dir string, redis *server) error {
	take := filepath.Join(dir, "take")
	if output, err := exec.CommandContext(ctx, "go", "build", "-o", take, "./bench/take").CombinedOutput(); err != nil {
		return fmt.Errorf("build the runner: %w\n%s", err, output)
	}
	up, err := o.up(ctx, dir, redis, []string{take})
	if err != nil {
		return err
	}
	defer up.stop()
	took := make([]time.Duration, 0, o.pushes)
	for i := range o.pushes {
		pushed := time.Now()
		if err := redis.client.rpush(ctx, list, strconv.FormatInt(pushed.UnixNano(), 10)); err != nil {
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
	row(fmt.Sprintf("push to process start, p50 of %d", o.pushes), ms(quantile(took, 0.5)), "10 ms")
	row("push to process start, p99", ms(quantile(took, 0.99)), "50 ms")
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
	row(fmt.Sprintf("%d items of `true`, 25 at a time", o.items), ms(quantile(ours, 0.5)), "")
	row("the same commands by xargs -P25", ms(quantile(theirs, 0.5)), "")
	ratio := quantile(ratios, 0.5)
	row(fmt.Sprintf("ratio, median of %d rounds in turn", o.rounds), fmt.Sprintf("%.2f", ratio), "1.50")
	return nil
}

// drainWithUp takes the time from the push of all items to the end of the last one's Job.
func (o options) drainWithUp(ctx context.Context, dir string, redis *server) (time.Duration, error) {
	up, err := o.up(ctx, dir, redis, []string{o.offboard, "runner", "--", "true"})
	if err != nil {
		return 0, err
	}
	defer up.stop()
	items := make([]string, o.items)
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	start := time.Now()
	if err := redis.client.rpush(ctx, list, items...); err != nil {
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
	if err := redis.client.rpush(ctx, list, items...); err != nil {
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
	left, err := redis.client.llen(ctx, list)
	if err == nil && left != 0 {
		err = fmt.Errorf("xargs left %d items", left)
	}
	return took, err
}

// idleCost takes the memory and the processor time of `offboard up` with one ScaledJob and nothing to do.
func (o options) idleCost(ctx context.Context, dir string, redis *server) error {
	up, err := o.up(ctx, dir, redis, []string{"true"})
	if err != nil {
		return err
	}
	defer up.stop()
	before, err := up.cpu()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(o.idle):
	}
	after, err := up.cpu()
	if err != nil {
		return err
	}
	resident, err := up.resident()
	if err != nil {
		return err
	}
	row("idle with one ScaledJob: resident memory", fmt.Sprintf("%.1f MB", float64(resident)/1e6), "50 MB")
	row(fmt.Sprintf("idle with one ScaledJob: processor, over %v", o.idle),
		fmt.Sprintf("%.3f %%", 100*(after-before).Seconds()/o.idle.Seconds()), "0.1 %")
	return nil
}
