package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
)

func TestClaimChaosRabbitMQ(t *testing.T) {
	claimChaos(t, queuetest.RabbitMQ(t, "classic"), queuetest.ChaosItems(t))
}

func TestClaimChaosRabbitMQQuorum(t *testing.T) {
	claimChaos(t, queuetest.RabbitMQ(t, "quorum"), queuetest.ChaosItems(t))
}

// TestRabbitMQCommands has the commands at a queue of RabbitMQ: push, look, retry and drop what is dead.
func TestRabbitMQCommands(t *testing.T) {
	t.Parallel()
	source := queuetest.RabbitMQ(t, "classic")
	manifest := scaledJob("  maxReplicaCount: 2\n  delivery: {mode: claim, attempts: 1}", "",
		`[ "$OFFBOARD_ITEM" = good ] || [ -e mended ]`)
	manifest = strings.Replace(manifest, "command: [offboard, runner, --, sh, -c,", "command: [sh, -c,", 1)
	manifest, _, _ = strings.Cut(manifest, "  triggers:\n")
	m := newMachine(t, map[string]string{"work.yaml": manifest + "  triggers:\n    - " + source.Trigger + "\n"})
	m.start()
	m.must("push", "work", "good", "bad", "worse")
	stats := func(what string, holds func(queue.Stats) bool) {
		t.Helper()
		m.eventually(what, func() (bool, string) {
			got, err := source.Queue.Stats(t.Context())
			return err == nil && holds(got), fmt.Sprintf("%+v, %v", got, err)
		})
	}
	stats("two dead items", func(s queue.Stats) bool { return s.Done == 1 && s.Dead == 2 && s.Claimed == 0 })
	if out := m.must("queue", "work"); !strings.Contains(out, "dead") {
		t.Errorf("got %s", out)
	}
	dead, err := source.Queue.List(t.Context(), queue.Dead, 0, 10)
	if err != nil || len(dead) != 2 {
		t.Fatalf("got %+v, %v", dead, err)
	}
	if out := m.must("dead", "ls", "work"); !strings.Contains(out, dead[0].ID) || !strings.Contains(out, dead[1].ID) {
		t.Errorf("got %s", out)
	}
	m.write("mended", "")
	m.must("dead", "retry", "work", dead[0].ID)
	stats("the end of what was retried", func(s queue.Stats) bool { return s.Done == 2 && s.Dead == 1 })
	m.must("dead", "drop", "work", dead[1].ID)
	stats("an empty queue", func(s queue.Stats) bool { return s.Dead == 0 && s.Dropped == 1 })
	if _, stderr, code := m.run("push", "work", "--in", "1m", "later"); code == 0 || !strings.Contains(stderr, "at once only") {
		t.Errorf("a push for later: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := m.run("release", "work"); code != 0 {
		t.Errorf("release: exit code %d, %s", code, stderr)
	}
}
