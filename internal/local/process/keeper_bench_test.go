package process_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// starters are the ways to start a container: this program's own child, as for delivery by pop, or one whose exit
// status is kept, as for delivery by claim.
func starters(b *testing.B) map[string]*process.Kept {
	b.Helper()
	if err := process.BecomeSubreaper(); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	keeper, err := process.OpenKeeper(b.Context(), filepath.Join(dir, "keeper"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = keeper.Close() })
	kept := &process.Kept{Keeper: keeper, ExitPath: filepath.Join(dir, "exits"), Container: "main"}
	return map[string]*process.Kept{"own": nil, "kept": kept}
}

// BenchmarkStart measures how long Start takes, and the whole of a run of true, one after the other.
func BenchmarkStart(b *testing.B) {
	for name, kept := range starters(b) {
		b.Run(name, func(b *testing.B) {
			spec := process.Spec{
				Args: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, Label: "bench",
				LogPath: filepath.Join(b.TempDir(), "log"), Kept: kept,
			}
			var starts []time.Duration
			for b.Loop() {
				begin := time.Now()
				p, err := process.Start(spec)
				if err != nil {
					b.Fatal(err)
				}
				starts = append(starts, time.Since(begin))
				p.Wait()
			}
			slices.Sort(starts)
			b.ReportMetric(float64(starts[len(starts)/2].Microseconds()), "start-p50-us")
			b.ReportMetric(float64(starts[len(starts)*99/100].Microseconds()), "start-p99-us")
		})
	}
}

// BenchmarkTrue runs 2,000 times true, 25 at once, as xargs -P25 does in the same run. The metric x-xargs is the
// ratio of the two times.
func BenchmarkTrue(b *testing.B) {
	const runs, parallel = 2000, 25
	for name, kept := range starters(b) {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			var ours, xargs time.Duration
			for b.Loop() {
				begin := time.Now()
				runAll(b, dir, kept, runs, parallel)
				ours += time.Since(begin)

				begin = time.Now()
				cmd := exec.Command("xargs", "-P25", "-n1", "true")
				cmd.Stdin = strings.NewReader(strings.Repeat("x\n", runs))
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("xargs: %v: %s", err, out)
				}
				xargs += time.Since(begin)
			}
			b.ReportMetric(ours.Seconds()/xargs.Seconds(), "x-xargs")
			b.ReportMetric(ours.Seconds()*1000/float64(b.N), "ms/2000-ours")
			b.ReportMetric(xargs.Seconds()*1000/float64(b.N), "ms/2000-xargs")
		})
	}
}

func runAll(b *testing.B, dir string, kept *process.Kept, runs, parallel int) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for range runs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			p, err := process.Start(process.Spec{
				Args: []string{"true"}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}, Label: "bench",
				LogPath: filepath.Join(dir, "log"), Kept: kept,
			})
			if err != nil {
				b.Error(err)
				return
			}
			if exit := p.Wait(); exit.Code != 0 {
				b.Error(exit)
			}
		})
	}
	wg.Wait()
}
