package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/redistest"
)

const (
	crashSeed      = 7
	crashItems     = 300
	crashProducers = 4
	crashKills     = 5
	crashLimit     = 8
)

// crashManifest is that of one life of `offboard up`: its runners note when they begin and end, and in which life.
func crashManifest(redis *redistest.Server, life int) string {
	spec := fmt.Sprintf("  pollingInterval: 5\n  maxReplicaCount: %d\n  scalingStrategy: {strategy: accurate}\n"+
		"  successfulJobsHistoryLimit: 10000\n  failedJobsHistoryLimit: 10000", crashLimit)
	script := fmt.Sprintf(`echo + %d $OFFBOARD_ITEM >> ledger; sleep 0.1; echo - %d $OFFBOARD_ITEM >> ledger`, life, life)
	manifest := scaledJob(spec, fmt.Sprintf(", address: %q", redis.Addr()), script)
	return strings.Replace(manifest, "env: [", fmt.Sprintf("env: [{name: REDIS_HOST, value: %q}, {name: REDIS_PORT, value: %q}, ",
		redis.Host(), redis.Port()), 1)
}

// TestCrashes pushes items from several sides while `up` is killed again and again, and Redis is restarted once. With
// delivery by pop an item is lost when its runner is killed between taking and running it, and by nothing else.
func TestCrashes(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, redistest.Options{AppendOnly: true})
	m := newMachine(t, map[string]string{"work.yaml": crashManifest(redis, 0)})
	m.start()

	var pushing sync.RWMutex // held for writing while Redis restarts, since a push that it interrupts may have happened
	var producers sync.WaitGroup
	client := redis.Client()
	for p := range crashProducers {
		random := rand.New(rand.NewPCG(crashSeed, uint64(p)))
		producers.Go(func() {
			for i := range crashItems / crashProducers {
				item := fmt.Sprintf("%d-%d", p, i)
				pushing.RLock()
				err := client.Do(t.Context(), client.B().Rpush().Key("work").Element(item).Build()).Error()
				pushing.RUnlock()
				if err != nil {
					t.Errorf("push %s: %v", item, err)
					return
				}
				time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
			}
		})
	}
	defer producers.Wait()

	random := rand.New(rand.NewPCG(crashSeed, crashProducers))
	for life := 1; life <= crashKills; life++ {
		lived := time.Second + time.Duration(random.IntN(1000))*time.Millisecond
		if life == crashKills/2 {
			time.Sleep(lived / 2)
			func() {
				pushing.Lock()
				defer pushing.Unlock()
				redis.Stop()
				redis.Restart()
				redis.Await(client)
			}()
			lived /= 2
		}
		time.Sleep(lived)
		m.stop(syscall.SIGKILL)
		m.write("work.yaml", crashManifest(redis, life))
		m.start()
	}
	producers.Wait()
	var last control.ScaledJobInfo
	m.until("the end of all Jobs", func(info control.ScaledJobInfo) bool {
		last = info
		return info.Running+info.Pending == 0 && info.Queue != nil && *info.Queue == 0
	})
	t.Logf("%d Jobs succeeded, %d failed", last.Succeeded, last.Failed)
	checkCrashLedger(t, m.read("ledger"), last.Failed)

	if code := m.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := workingIn(t, m.manifests); len(left) > 0 {
		t.Errorf("processes %v are left over", left)
	}
	if left, err := filepath.Glob(filepath.Join(m.data, "scaledjobs", "*", "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("files %v are left over, %v", left, err)
	}
	m.start()
	m.must("push", "work", "after")
	m.until("one more Job that succeeded", func(info control.ScaledJobInfo) bool {
		return info.Succeeded > last.Succeeded && info.Failed == last.Failed && info.Running+info.Pending == 0 &&
			info.Object.Status.Conditions.Get("Ready").Status == "True"
	})
	if !strings.Contains(m.read("ledger"), " after\n") {
		t.Error("the item after all crashes did not run")
	}
}

// checkCrashLedger checks what the runners noted. Each Job that failed may have lost one item.
func checkCrashLedger(t *testing.T, ledger string, failed int) {
	t.Helper()
	began := map[string]int{}
	running, most := map[string]int{}, map[string]int{}
	for line := range strings.Lines(ledger) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			t.Errorf("a line of the ledger is %q", line)
			continue
		}
		life, item := fields[1], fields[2]
		switch fields[0] {
		case "+":
			began[item]++
			running[life]++
			most[life] = max(most[life], running[life])
		case "-":
			running[life]--
		}
	}
	for item, times := range began {
		if times > 1 {
			t.Errorf("item %s ran %d times", item, times)
		}
	}
	for life, most := range most {
		if most > crashLimit {
			t.Errorf("life %s: %d at once with a limit of %d", life, most, crashLimit)
		}
	}
	lost := crashItems - len(began)
	t.Logf("%d items ran, %d were lost with their runners", len(began), lost)
	// Beside the kills, the restart of Redis may fail a runner whose answer it takes along.
	if lost < 0 || lost > failed || failed > (crashKills+1)*crashLimit {
		t.Errorf("%d of %d items did not run, with %d Jobs that failed", lost, crashItems, failed)
	}
}

// workingIn returns the processes whose working folder is the given one.
func workingIn(t *testing.T, folder string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if dir, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); err == nil && dir == folder && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
