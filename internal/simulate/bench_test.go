package simulate

import (
	"context"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/scaling"
)

// BenchmarkMillionArrivals plays a million arrivals in each of the ways that `offboard simulate` compares by default,
// for a steady queue and for one whose Jobs cannot keep up.
func BenchmarkMillionArrivals(b *testing.B) {
	start, err := ParseSpread("2s")
	if err != nil {
		b.Fatal(err)
	}
	for _, load := range []struct {
		name string
		rate float64
		work string
	}{
		{"steady", 5, "exp:15s"}, {"overload", 5, "exp:30s"}, {"fast", 100, "exp:500ms"},
	} {
		work, err := ParseSpread(load.work)
		if err != nil {
			b.Fatal(err)
		}
		forever := time.Duration(1e6 / load.rate * float64(time.Second))
		arrivals, err := Generator{Rate: load.rate, For: forever, Work: work}.Arrivals()
		if err != nil {
			b.Fatal(err)
		}
		limit := int64(100)
		deduction := int64(1)
		for _, strategy := range []string{"default", "custom", "accurate", "eager", "claim"} {
			for _, reaction := range []Reaction{Push, Poll} {
				claim := strategy == "claim"
				if claim && reaction == Poll {
					continue
				}
				b.Run(load.name+"/"+strategy+"/"+string(reaction), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						result, err := Run(context.Background(), Config{
							Rule:  scaling.Rule{Strategy: strategy, Max: &limit, Deduction: &deduction, RunningPercentage: "0.5"},
							Claim: claim, Reaction: reaction, Polling: 30 * time.Second, Target: 1, Take: 1, Start: start,
						}, arrivals)
						if err != nil || result.Left > 0 {
							b.Fatalf("%+v, %v", result.Left, err)
						}
						result.History = History{}
						b.Logf("%+v", result)
					}
					b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(len(arrivals))*1e9, "ns/arrival")
				})
			}
		}
	}
}
