// Command bench measures what Offboard promises, on one machine and on a Kubernetes control plane, and prints it next
// to the limit measured in the same run: `make bench`. A figure that misses its target is marked, and nothing else
// follows from it: the machine may be to blame. Its arguments are the parts to measure: machine, cluster or scale; none
// means the first two. It needs redis-server, bin/offboard and the control plane of the tests, which the make targets
// provide.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.offboard, "offboard", "bin/offboard", "the program to measure")
	flag.IntVar(&o.pushes, "pushes", 300, "pushes for the latency")
	flag.IntVar(&o.items, "items", 2000, "items for the throughput of one machine")
	flag.IntVar(&o.jobs, "jobs", 1000, "items, and Jobs at once, for the throughput on a cluster")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of the throughput, of which the median ratio counts")
	flag.DurationVar(&o.idle, "idle", 60*time.Second, "time to be idle")
	sizes := flag.String("sizes", "100,1000,10000", "numbers of ScaledJobs for the part scale")
	flag.StringVar(&o.plot, "plot", "", "a file for the plot (SVG) of how the part scale grows")
	flag.Parse()
	for size := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: -sizes is %q, must be numbers above 0 with commas between\n", *sizes)
			os.Exit(2)
		}
		o.sizes = append(o.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	offboard            string
	pushes, items, jobs int
	rounds              int
	idle                time.Duration
	sizes               []int
	plot                string
}

// run measures the parts, in the order given.
func (o options) run(ctx context.Context, parts []string) (err error) {
	if len(parts) == 0 {
		parts = []string{"machine", "cluster"}
	}
	if o.offboard, err = filepath.Abs(o.offboard); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "offboard-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	redis, err := startRedis(ctx, dir)
	if err != nil {
		return err
	}
	defer redis.stop()

	for _, part := range parts {
		header(part)
		switch part {
		case "machine":
			err = o.machine(ctx, dir, redis)
		case "cluster":
			err = o.cluster(ctx, redis)
		case "scale":
			err = o.scale(ctx, redis)
		default:
			err = fmt.Errorf("there is no part %q: name machine, cluster or scale", part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// machine measures `offboard up`.
func (o options) machine(ctx context.Context, dir string, redis *server) error {
	for _, measure := range []func(context.Context, string, *server) error{
		o.latency, o.idleCost, o.throughput, o.claims,
	} {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			return err
		}
		if err := measure(ctx, sub, redis); err != nil {
			return err
		}
	}
	return nil
}

// quantile returns the q-quantile of the values, which it sorts.
func quantile[T cmp.Ordered](of []T, q float64) T {
	slices.Sort(of)
	return of[min(len(of)-1, int(q*float64(len(of))))]
}
