package process_test

import (
	"path/filepath"
	"testing"

	"github.com/offboard-dev/offboard/internal/local/process"
)

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
