package jobs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

// These name the folder in which this test program, started again, works. Two work until they are killed: one creates
// scripted Jobs without end, the other runs a process. The third has no room for large files, and says what it could
// not do.
const (
	crashDirVar = "OFFBOARD_TEST_CRASH_DIR"
	sleepDirVar = "OFFBOARD_TEST_SLEEP_DIR"
	fullDirVar  = "OFFBOARD_TEST_FULL_DIR"
)

// createUntilKilled creates, finishes and deletes Jobs, and prints each step that it was promised.
func createUntilKilled(dir string) {
	var out sync.Mutex
	say := func(what, job string) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(what, job)
	}
	c, err := Open(context.Background(), Config{Dir: dir, Clock: clock.RealClock{},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		panic(err)
	}
	runner := newScriptedRunner()
	runner.record = c.RecordStart
	runner.onStart = func(s *scriptedRunner, pod *corev1.Pod) {
		go s.end(pod.UID, int32(rand.IntN(2)))
	}
	c.Start(runner)
	for worker := range 4 {
		go func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("job-%d-%d", worker, n)
				if _, err := c.Create(context.Background(), newJob(name, backoffLimit(0)), nil); err != nil {
					panic(err)
				}
				say("created", name)
				for {
					if j, err := c.Get("default", name); err == nil && Finished(j.Job) != nil {
						say(string(Finished(j.Job).Type), name)
						break
					}
					time.Sleep(50 * time.Microsecond)
				}
				if n%3 == 0 {
					say("deleting", name)
					if err := c.Delete(context.Background(), "default", name, "", ""); err != nil {
						panic(err)
					}
					say("deleted", name)
				}
			}
		}()
	}
	select {}
}

// sleepUntilKilled runs a Job of two processes and prints the ids of both, the second by the Job itself.
func sleepUntilKilled(dir string) {
	c, err := Open(context.Background(), Config{Dir: dir, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	runner, err := pods.New(pods.Config{
		Command: func(context.Context, *corev1.Pod, *corev1.Container) (pods.Command, error) {
			return pods.Command{
				Args: []string{"/bin/sh", "-c", `sleep 60 & echo $! $$ >"$0.tmp"; mv "$0.tmp" "$0"; wait`, dir + "/pids"},
				Dir:  "/", Env: os.Environ(),
			}, nil
		},
		LogPath: c.LogPath, ReportPath: c.ReportPath, RecordStart: c.RecordStart,
	})
	if err != nil {
		panic(err)
	}
	c.Start(runner)
	if _, err := c.Create(context.Background(), newJob("a"), nil); err != nil {
		panic(err)
	}
	for {
		j, err := c.Get("default", "a")
		_, started := os.Stat(filepath.Join(dir, "pids"))
		if err == nil && started == nil && j.Pods[0].Status.Phase == corev1.PodRunning {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println("created a")
	select {}
}

// TestKillWithProcesses kills a program whose Job has processes; the next one ends them before it starts others.
func TestKillWithProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runAndKill(t, sleepDirVar, dir, 0)
	data, err := os.ReadFile(filepath.Join(dir, "pids"))
	if err != nil {
		t.Fatal(err)
	}
	var pids [2]int
	if _, err := fmt.Sscan(string(data), &pids[0], &pids[1]); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	e := openReal(t, dir)
	for _, pid := range pids {
		// They were this program's grandchildren: whoever is their parent now reaps them.
		eventually(t, fmt.Sprint("process ", pid, " has ended"), func() bool { return !runs(pid) })
	}
	j, err := e.Get("default", "a")
	if err != nil || j.Pods[0].Status.Reason != reasonInterrupted {
		t.Errorf("after the crash: %+v, %v", j.Pods, err)
	}
}

// runs tells whether a process exists that is no zombie.
func runs(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

// TestKill kills a program that creates Jobs at a moment of chance and checks that all it said was true.
func TestKill(t *testing.T) {
	t.Parallel()
	for round := range 5 {
		dir := t.TempDir()
		said := runAndKill(t, crashDirVar, dir, time.Duration(20+rand.IntN(150))*time.Millisecond)
		e := reopen(t, dir, newScriptedRunner(), time.Now())
		if log := e.log.String(); log != "" {
			t.Errorf("round %d: a kill must not break anything:\n%s", round, log)
		}
		for job, what := range said {
			j, err := e.Get("default", job)
			switch {
			case what == "deleted" && err == nil:
				t.Errorf("round %d: %s was deleted and is there", round, job)
			case what == "deleting" || what == "deleted":
			case err != nil:
				t.Errorf("round %d: %s was %s and is gone: %v", round, job, what, err)
			case what != "created" && !hasCondition(j, "Failed") && !hasCondition(j, "Complete"):
				t.Errorf("round %d: %s was %s and is not: %+v", round, job, what, j.Status)
			case what == "Complete" && j.Status.Succeeded != 1:
				t.Errorf("round %d: %s: %+v", round, job, j.Status)
			}
		}
		if left, err := filepath.Glob(filepath.Join(dir, brokenDir, "*")); err != nil || len(left) > 0 {
			t.Errorf("round %d: broken: %v, %v", round, left, err)
		}
		t.Logf("round %d: %d Jobs", round, len(said))
	}
}

// runAndKill returns the last that was said of each Job.
func runAndKill(t *testing.T, variable, dir string, after time.Duration) map[string]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	var kill *time.Timer
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what is cut off was not said
		}
		if kill == nil { // only now the clock runs: starting takes its time
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		what, job, _ := strings.Cut(strings.TrimSpace(line), " ")
		said[job] = what
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the program was not killed: %v", err)
	}
	return said
}
