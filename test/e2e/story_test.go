package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
)

// example returns the files of an example, with a runner that is as quick as a test wants it.
func example(t *testing.T, name string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, file := range []string{"scaledjob.yaml", "secret.yaml", "runner.sh"} {
		content, err := os.ReadFile("../../examples/" + name + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		files[file] = strings.ReplaceAll(string(content), "sleep 2", "sleep 0.3")
	}
	return files
}

// TestStory is README's: six items, six Jobs, six runs, none left, with both forms of the runner.
func TestStory(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"usertask", "usertask-plain"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, example(t, name))
			m.start()
			for i := range 6 {
				m.must("push", "usertask", fmt.Sprintf(`{"user": %d}`, i+1))
			}
			m.untilDone(6, 0)
			jobs := m.must("jobs")
			if name == "usertask" && strings.Count(jobs, `{"user": `) != 5 { // the history limit
				t.Errorf("jobs does not show the items:\n%s", jobs)
			}
			job := strings.Fields(strings.Split(jobs, "\n")[1])[0]
			if log := m.must("logs", job); !strings.Contains(log, "working on {\"user\": ") || !strings.Contains(log, "done with") {
				t.Errorf("logs %s = %q", job, log)
			}
			if yaml := m.must("get", name, "-o", "yaml"); !strings.Contains(yaml, "type: Ready") || !strings.Contains(yaml, "KEDAJobsCreated") {
				t.Errorf("get -o yaml lacks conditions or events:\n%s", yaml)
			}
			if code := m.stop(syscall.SIGINT); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	m := newMachine(t, nil)
	out := m.must("demo")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); lines[len(lines)-1] != "6 items, 6 Jobs succeeded, 0 failed, 0 left" {
		t.Errorf("the demo ends with %q", lines[len(lines)-1])
	}
	for i := range 6 {
		if !strings.Contains(out, fmt.Sprintf(`done with {"user": %d}`, i+1)) {
			t.Errorf("the demo does not show the output for user %d:\n%s", i+1, out)
		}
	}
}

// TestFIFOWithinTheLimit runs more items than the limit allows at once; the runners note when they begin and end.
func TestFIFOWithinTheLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 3} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			// The default strategy has no Job too many when a runner is late.
			spec := fmt.Sprintf("  maxReplicaCount: %d", limit)
			m := newMachine(t, map[string]string{"work.yaml": scaledJob(spec, "",
				`echo +$OFFBOARD_ITEM >> ledger; sleep 0.05; echo -$OFFBOARD_ITEM >> ledger`)})
			m.start()
			var items []string
			for i := range 30 {
				items = append(items, strconv.Itoa(i))
			}
			m.push("work", items...)
			m.untilDone(len(items), 0)
			var began []string
			running, most := 0, 0
			for _, line := range m.lines("ledger") {
				if item, ok := strings.CutPrefix(line, "+"); ok {
					began = append(began, item)
					running++
				} else {
					running--
				}
				most = max(most, running)
			}
			if most > limit {
				t.Errorf("%d at once with a limit of %d", most, limit)
			}
			if limit == 1 && !slices.Equal(began, items) {
				t.Errorf("began in the order %v", began)
			}
			slices.Sort(began)
			slices.Sort(items)
			if !slices.Equal(began, items) {
				t.Errorf("runs for %v, want one for each of %v", began, items)
			}
		})
	}
}

func TestSecondUpRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t, map[string]string{"work.yaml": scaledJob("", "", "true")})
	m.start()
	_, stderr, code := m.run("up", "-f", m.manifests)
	if pid := strconv.Itoa(m.up.Process.Pid); code == 0 || !strings.Contains(stderr, "process id "+pid) {
		t.Errorf("a second up: exit code %d, %q; want a refusal that names process id %s", code, stderr, pid)
	}
}

// TestKill9 kills `up` while Jobs run. Their processes go on then; the next `up` ends them and retries the Jobs.
func TestKill9(t *testing.T) {
	t.Parallel()
	manifest := strings.Replace(scaledJob("", "",
		`echo $OFFBOARD_ITEM $$ >> started; case $OFFBOARD_ITEM in quick) exit 0;; esac; sleep 600`),
		"backoffLimit: 0", "backoffLimit: 1", 1)
	m := newMachine(t, map[string]string{"work.yaml": manifest})
	m.start()
	m.push("work", "quick")
	m.untilDone(1, 0)
	m.push("work", "slow", "slow")
	m.eventually("two slow runs", func() (bool, string) { return len(m.lines("started")) == 6, m.read("started") })
	m.stop(syscall.SIGKILL)

	var pids []int
	for i, field := range m.lines("started") {
		if pid, err := strconv.Atoi(field); i > 1 && err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) != 2 {
		t.Fatalf("the slow runs noted the processes %v, want two", pids)
	}
	for _, pid := range pids {
		if !alive(pid) {
			t.Fatalf("process %d ended with offboard up; the test needs it to go on", pid)
		}
	}
	m.start()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d of the previous run still runs", pid)
		}
	}
	jobs, err := m.client.Jobs(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 3 {
		t.Fatalf("%d Jobs are known after the crash, want 3", len(jobs))
	}
	for _, info := range jobs[1:] {
		if info.Job.Status.Failed != 1 || info.Item != "slow" {
			t.Errorf("Job %s: %d failed Pods, item %q; want the Pod that was killed to count", info.Job.Name, info.Job.Status.Failed, info.Item)
		}
	}
	if log := m.must("logs", jobs[0].Job.Name); !strings.Contains(log, "took an item") {
		t.Errorf("the log of a finished Job is lost: %q", log)
	}
	// The retries find the list empty, since with delivery by pop the items went with their runners.
	m.untilDone(3, 0)
}

// alive tells whether a process runs. One that has ended or is about to has no command line.
func alive(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(line) > 0
}

// TestStop stops `up` while a Job runs and another item waits.
func TestStop(t *testing.T) {
	t.Parallel()
	// A run ends when there is the file go.
	manifest := scaledJob("  maxReplicaCount: 1", "",
		`echo began >> ledger; until [ -e go ]; do sleep 0.02; done; echo ended >> ledger`)
	t.Run("lets Jobs end", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, map[string]string{"work.yaml": manifest})
		m.start("--grace", "10m")
		m.push("work", "1", "2")
		m.eventually("a run", func() (bool, string) { return m.read("ledger") != "", "" })
		if err := m.up.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.eventually("a word of what it waits for", func() (bool, string) {
			log := m.log.String()
			return strings.Contains(log, "Waiting for Jobs to end") && strings.Contains(log, "jobs=work-"), log
		})
		m.write("go", "")
		if code := m.wait(patience); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if got := m.read("ledger"); got != "began\nended\n" {
			t.Errorf("runs: %q, want the one that ran to end and no other to begin", got)
		}
		m.start()
		m.untilDone(2, 0)
	})
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, map[string]string{"work.yaml": manifest})
		m.start()
		m.push("work", "1")
		m.eventually("a run", func() (bool, string) { return m.read("ledger") != "", "" })
		begin := time.Now()
		if err := m.up.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		m.eventually("a word that it stops", func() (bool, string) { return strings.Contains(m.log.String(), "Stopping"), "" })
		m.stop(syscall.SIGINT)
		if got := m.read("ledger"); got != "began\n" {
			t.Errorf("runs: %q after %v, want the run to be ended", got, time.Since(begin))
		}
	})
}

// TestManifestChanges edits, breaks, mends and removes a manifest that is in force.
func TestManifestChanges(t *testing.T) {
	t.Parallel()
	version := func(n int) string { return scaledJob("", "", fmt.Sprintf("echo %d >> ledger", n)) }
	m := newMachine(t, map[string]string{"work.yaml": version(1)})
	m.start()
	m.push("work", "a")
	m.untilDone(1, 0)

	m.write("work.yaml", version(2))
	m.until("the second generation", func(info control.ScaledJobInfo) bool { return info.Object.Generation == 2 })
	m.push("work", "b")
	m.untilDone(2, 0)

	m.write("work.yaml", strings.Replace(version(3), "backoffLimit: 0", "backoffLimitt: 0", 1))
	m.eventually("a word of the mistake", func() (bool, string) {
		log := m.log.String()
		return strings.Contains(log, "work.yaml:7:") && strings.Contains(log, "backoffLimitt"), log
	})
	m.push("work", "c")
	m.untilDone(3, 0)

	m.write("work.yaml", version(4))
	m.until("the third generation", func(info control.ScaledJobInfo) bool { return info.Object.Generation == 3 })
	m.push("work", "d")
	m.untilDone(4, 0)
	if got := m.lines("ledger"); !slices.Equal(got, []string{"1", "2", "2", "4"}) {
		t.Errorf("versions that ran: %v", got)
	}

	m.write("work.yaml", scaledJob("", "", "echo $$ > pid; sleep 600"))
	m.until("the fourth generation", func(info control.ScaledJobInfo) bool { return info.Object.Generation == 4 })
	m.push("work", "e")
	m.eventually("a run", func() (bool, string) { return m.read("pid") != "", "" })
	m.remove("work.yaml")
	pid, err := strconv.Atoi(strings.TrimSpace(m.read("pid")))
	if err != nil {
		t.Fatal(err)
	}
	m.eventually("the end of the Jobs of a ScaledJob that is gone", func() (bool, string) { return !alive(pid), "process runs" })
	m.eventually("its end in what get shows", func() (bool, string) {
		out := m.must("get")
		return !strings.Contains(out, "work"), out
	})
}

func TestPaused(t *testing.T) {
	t.Parallel()
	manifest := scaledJob("", "", "echo x >> ledger")
	paused := strings.Replace(manifest, "{name: work}", `{name: work, annotations: {autoscaling.keda.sh/paused: "true"}}`, 1)
	m := newMachine(t, map[string]string{"work.yaml": paused})
	m.start()
	m.push("work", "1", "2")
	m.until("pausing", func(info control.ScaledJobInfo) bool {
		return info.Object.Status.Conditions.Get("Paused").Status == "True"
	})
	if m.read("ledger") != "" {
		t.Error("a paused ScaledJob runs")
	}
	m.write("work.yaml", manifest)
	m.untilDone(2, 0)
}
