// Command bench measures what Offboard promises on one machine, and prints it next to the limit measured in the same
// run: `make bench`. It needs redis-server and bin/offboard, which the make target provides.
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
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.offboard, "offboard", "bin/offboard", "the program to measure")
	flag.IntVar(&o.pushes, "pushes", 300, "pushes for the latency")
	flag.IntVar(&o.items, "items", 2000, "items for the throughput")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of the throughput, of which the median ratio counts")
	flag.DurationVar(&o.idle, "idle", 60*time.Second, "time to be idle")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	offboard      string
	pushes, items int
	rounds        int
	idle          time.Duration
}

func (o options) run(ctx context.Context) (err error) {
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

	fmt.Printf("%-58s %12s %12s\n", "", "measured", "at most")
	for _, measure := range []func(context.Context, string, *server) error{o.latency, o.idleCost, o.throughput} {
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

func row(what, measured, limit string) { fmt.Printf("%-58s %12s %12s\n", what, measured, limit) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

// quantile returns the q-quantile of the values, which it sorts.
func quantile[T cmp.Ordered](of []T, q float64) T {
	slices.Sort(of)
	return of[min(len(of)-1, int(q*float64(len(of))))]
}
