package process_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/local/process"
)

// BenchmarkTrue runs 2,000 times true, 25 at once, as xargs -P25 does in the same run. The metric x-xargs is the
// ratio of the two times.
func BenchmarkTrue(b *testing.B) {
	const runs, parallel = 2000, 25
	if err := process.BecomeSubreaper(); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	var ours, xargs time.Duration
	for b.Loop() {
		begin := time.Now()
		runAll(b, dir, runs, parallel)
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
}

func runAll(b *testing.B, dir string, runs, parallel int) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for range runs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			p, err := process.Start(process.Spec{
				Args: []string{"true"}, Dir: dir, Env: []string{"PATH=/usr/bin:/bin"}, Label: "bench",
				LogPath: filepath.Join(dir, "log"),
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

// BenchmarkSweep measures what looking for orphans adds to the end of each container while 25 others run.
func BenchmarkSweep(b *testing.B) {
	if err := process.BecomeSubreaper(); err != nil {
		b.Fatal(err)
	}
	var live []*process.Process
	for range 25 {
		p, err := process.Start(process.Spec{Args: []string{"sleep", "1000"}, LogPath: filepath.Join(b.TempDir(), "log")})
		if err != nil {
			b.Fatal(err)
		}
		live = append(live, p)
	}
	for b.Loop() {
		process.Sweep()
	}
	for _, p := range live {
		p.Terminate(0)
		p.Wait()
	}
}
