package jobs

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/local/process"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// claimDirVar names the folder in which this test program, started again, runs claimJobs until it is killed.
const claimDirVar = "OFFBOARD_TEST_CLAIM_DIR"

// claim makes a Job one that was handed an item.
func claim(j *batchv1.Job) {
	j.Finalizers = append(j.Finalizers, v1alpha1.FinalizerSettle)
	j.Annotations = map[string]string{v1alpha1.AnnotationItemID: "00000000000000af"}
}

// Scripts of claimJobs. untilGo waits for the file that the test makes when the program is dead; began tells that a
// container runs.
const (
	untilGo = `until [ -e "$DIR/go" ]; do sleep 0.01; done; `
	began   = `: >"$DIR/began-$JOB"; `
	ledger  = `echo "$JOB" >>"$DIR/ledger"; `
)

func initContainer(script string) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.Template.Spec.InitContainers = append(j.Spec.Template.Spec.InitContainers,
			corev1.Container{Name: "before", Command: []string{"/bin/sh", "-c", script}})
	}
}

func second(script string) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.Template.Spec.Containers = append(j.Spec.Template.Spec.Containers,
			corev1.Container{Name: "second", Command: []string{"/bin/sh", "-c", script}})
	}
}

// claimJobs are what runs when the program is killed, without retries.
func claimJobs() []*batchv1.Job {
	once := backoffLimit(0)
	return []*batchv1.Job{
		newJob("good", claim, once, shell(began+untilGo+ledger+"echo done")),
		newJob("bad", claim, once, shell(began+untilGo+"exit 3")),
		newJob("killed", claim, once, shell(began+untilGo+"kill -KILL $$")),
		newJob("stays", claim, once, shell(began+"while :; do sleep 0.01; done")),
		newJob("pop", once, shell(began+untilGo+ledger)),
		newJob("policy", claim, once, shell(began+untilGo+"exit 42"),
			failurePolicy(onExit(batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyOnExitCodesOpIn, 42))),
		newJob("deadline", claim, once, shell(began+untilGo+ledger),
			func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](1000) }),
		newJob("after-init", claim, once, initContainer("exit 0"), shell(began+untilGo+ledger)),
		newJob("in-init", claim, once, initContainer(began+untilGo), shell("exit 0")),
		newJob("bad-init", claim, once, initContainer(began+untilGo+"exit 5"), shell("exit 0")),
		newJob("both", claim, once, shell(began+untilGo+ledger), second(untilGo)),
		newJob("one-of-two", claim, once, shell(began+untilGo+ledger), second("while :; do sleep 0.01; done")),
		// Its first run fails while the program lives, which starts the second.
		newJob("restarted", claim, onFailure, backoffLimit(3),
			shell(`[ -e "$DIR/once" ] || { : >"$DIR/once"; exit 9; }; `+began+untilGo+ledger)),
		newJob("restarted-stays", claim, onFailure, backoffLimit(3),
			shell(`[ -e "$DIR/once-2" ] || { : >"$DIR/once-2"; exit 9; }; `+began+"while :; do sleep 0.01; done")),
		newJob("torn", claim, once, shell(began+untilGo+ledger)),
	}
}

// openClaims opens a Controller with a keeper; the caller starts it.
func openClaims(ctx context.Context, dir string, log *slog.Logger) (*Controller, *pods.Runner, *process.Keeper, error) {
	keeper, err := process.OpenKeeper(ctx, filepath.Join(dir, "keeper"))
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := Open(ctx, Config{Dir: dir, Clock: clock.RealClock{}, KillLeftovers: process.KillLeftovers, Log: log})
	if err != nil {
		return nil, nil, nil, err
	}
	runner, err := pods.New(pods.Config{
		Command: func(_ context.Context, pod *corev1.Pod, container *corev1.Container) (pods.Command, error) {
			return pods.Command{Args: container.Command, Dir: "/", Env: []string{
				"PATH=/usr/bin:/bin", "DIR=" + dir, "JOB=" + pod.Labels[batchv1.JobNameLabel],
			}}, nil
		},
		LogPath: c.LogPath, ReportPath: c.ReportPath, RecordStart: c.RecordStart, Keeper: keeper, ExitPath: c.ExitPath,
	})
	return c, runner, keeper, err
}

// runClaimsUntilKilled runs claimJobs and prints a line when all of them run.
func runClaimsUntilKilled(dir string) {
	c, runner, _, err := openClaims(context.Background(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	c.Start(runner)
	jobs := claimJobs()
	for _, job := range jobs {
		if _, err := c.Create(context.Background(), job, nil); err != nil {
			panic(err)
		}
	}
	for _, job := range jobs {
		for !fileExists(filepath.Join(dir, "began-"+job.Name)) || !knownToRun(c, job.Name) {
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Println("created all")
	select {}
}

// knownToRun tells whether the Controller has noted that what has begun runs, without which the next one would know of
// no container.
func knownToRun(c *Controller, job string) bool {
	j, err := c.Get("default", job)
	if err != nil || len(j.Pods) != 1 {
		return false
	}
	status := j.Pods[0].Status
	begun, restarts := status.ContainerStatuses, int32(0)
	switch job {
	case "in-init", "bad-init":
		begun = status.InitContainerStatuses
	case "restarted", "restarted-stays":
		restarts = 1
	}
	return len(begun) > 0 && !slices.ContainsFunc(begun, func(s corev1.ContainerStatus) bool {
		return s.State.Running == nil || s.RestartCount != restarts
	})
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openRealClaims is openReal with a keeper.
func openRealClaims(t *testing.T, dir string) *env {
	t.Helper()
	e := &env{t: t, dir: dir, log: &logBuffer{}}
	c, runner, keeper, err := openClaims(t.Context(), dir, slog.New(slog.NewTextHandler(e.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	e.Controller = c
	c.Start(runner)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		if err := keeper.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// exitsOf returns what was recorded of a Job's containers, "name restarts code".
func exitsOf(t *testing.T, dir, job string) []string {
	t.Helper()
	list, err := process.ReadExits(filepath.Join(dir, jobsDir, "default", job, exitsFile))
	if err != nil {
		t.Fatal(err)
	}
	var exits []string
	for _, e := range list {
		exits = append(exits, fmt.Sprint(e.Container, " ", e.Restarts, " ", e.Code))
	}
	return exits
}

// TestExitsWhileNobodyLooks kills the program while Jobs run that then end, and opens their folder again.
func TestExitsWhileNobodyLooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runAndKill(t, claimDirVar, dir, 0)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string][]string{
		"good": {"main 0 0"}, "bad": {"main 0 3"}, "killed": {"main 0 137"}, "policy": {"main 0 42"},
		"deadline": {"main 0 0"}, "after-init": {"before 0 0", "main 0 0"}, "in-init": {"before 0 0"},
		"bad-init": {"before 0 5"}, "one-of-two": {"main 0 0"}, "restarted": {"main 0 9", "main 1 0"},
		"restarted-stays": {"main 0 9"}, "torn": {"main 0 0"}, "both": {"main 0 0", "second 0 0"},
	} {
		eventually(t, job+" has ended", func() bool {
			got := exitsOf(t, dir, job)
			slices.Sort(got)
			return slices.Equal(got, want)
		})
	}
	eventually(t, "the Job of pop has ended", func() bool { return strings.Contains(readFile(t, dir, "ledger"), "pop\n") })
	torn := filepath.Join(dir, jobsDir, "default", "torn", exitsFile)
	if err := os.WriteFile(torn, []byte(strings.TrimRight(readFile(t, filepath.Dir(torn), exitsFile), "}\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	before := time.Now()

	e := openRealClaims(t, dir)
	for job, want := range map[string]struct {
		kind   batchv1.JobConditionType
		reason string // of the Pod
		codes  string
	}{
		"good":            {batchv1.JobComplete, "", "0"},
		"bad":             {batchv1.JobFailed, "", "3"},
		"killed":          {batchv1.JobFailed, "", "137"},
		"stays":           {batchv1.JobFailed, reasonInterrupted, "137"},
		"pop":             {batchv1.JobFailed, reasonInterrupted, "137"},
		"policy":          {batchv1.JobFailed, "", "42"},
		"deadline":        {batchv1.JobComplete, "", "0"},
		"after-init":      {batchv1.JobComplete, "", "0 0"},
		"in-init":         {batchv1.JobFailed, reasonInterrupted, "0 -"},
		"bad-init":        {batchv1.JobFailed, "", "5 -"},
		"both":            {batchv1.JobComplete, "", "0 0"},
		"one-of-two":      {batchv1.JobFailed, reasonInterrupted, "0 137"},
		"restarted":       {batchv1.JobComplete, "", "0"},
		"restarted-stays": {batchv1.JobComplete, reasonInterrupted, "137"},
		"torn":            {batchv1.JobFailed, reasonInterrupted, "137"},
	} {
		if job == "restarted-stays" { // is retried in another Pod, which does not end
			e.wait(job, "the failure counted", func(j scaledjob.Job) bool { return j.Status.Failed == 1 })
		} else {
			e.waitCondition(job, want.kind)
		}
		j, err := e.Get("default", job)
		if err != nil {
			t.Fatal(err)
		}
		pod := j.Pods[0]
		_, disrupted := podCondition(pod, corev1.DisruptionTarget)
		if pod.Status.Reason != want.reason || codes(pod) != want.codes || disrupted != (want.reason != "") {
			t.Errorf("%s: codes %s, want %s; status = %+v", job, codes(pod), want.codes, pod.Status)
		}
		if want.reason == "" {
			main := pod.Status.ContainerStatuses[0]
			if ended := main.State.Terminated; ended != nil && (ended.FinishedAt.After(before) || ended.StartedAt.IsZero()) {
				t.Errorf("%s: ended %+v, and the folder was opened at %v", job, ended, before)
			}
			if podReady(pod) {
				t.Errorf("%s: the Pod is ready: %+v", job, pod.Status.Conditions)
			}
		}
		if want.kind == batchv1.JobComplete && want.reason == "" && (len(j.Pods) != 1 || j.Status.Failed != 0) {
			t.Errorf("%s: status = %+v, %d Pods", job, j.Status, len(j.Pods))
		}
	}
	policy, _ := e.Get("default", "policy")
	if c := Finished(policy.Job); c.Reason != batchv1.JobReasonPodFailurePolicy {
		t.Errorf("policy: %+v", c)
	}
	good, _ := e.Get("default", "good")
	if log := readFile(t, filepath.Dir(e.LogPath(good.Pods[0], "main", 0)), good.Pods[0].Name+".main.0.log"); log != "done\n" {
		t.Errorf("the log is %q", log)
	}
	restarted, _ := e.Get("default", "restarted")
	if n := restarted.Pods[0].Status.ContainerStatuses[0].RestartCount; n != 1 {
		t.Errorf("restarted: %d restarts", n)
	}
	seen := map[string]int{}
	for _, job := range strings.Fields(readFile(t, dir, "ledger")) {
		seen[job]++
	}
	for _, job := range []string{"good", "deadline", "after-init", "both", "restarted"} {
		if seen[job] != 1 {
			t.Errorf("%s ran %d times", job, seen[job])
		}
	}
	if log := e.log.String(); log != "" {
		t.Errorf("log: %s", log)
	}
}

// codes are the exit codes of a Pod's containers; "-" for one that has not run.
func codes(pod *corev1.Pod) string {
	var codes []string
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.State.Terminated == nil {
			codes = append(codes, "-")
		} else {
			codes = append(codes, strconv.Itoa(int(s.State.Terminated.ExitCode)))
		}
	}
	return strings.Join(codes, " ")
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestClaimProcesses runs Jobs with an item while nobody is killed.
func TestClaimProcesses(t *testing.T) {
	t.Parallel()
	e := openRealClaims(t, t.TempDir())
	e.create(newJob("good", claim, shell("cat; echo out; echo err >&2")))
	e.create(newJob("bad", claim, shell("exit 3"), backoffLimit(0)))
	e.create(newJob("missing", claim, backoffLimit(0), func(j *batchv1.Job) {
		j.Spec.Template.Spec.Containers[0].Command = []string{"no-such-program"}
	}))
	e.create(newJob("late", claim, shell("trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.01; done"),
		func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](8) })) // after its start, on any machine
	e.create(newJob("restarting", claim, onFailure, backoffLimit(1), shell("exit 5")))
	e.create(newJob("parallel", claim, completions(6, 3)))
	e.create(newJob("pop"))

	good := e.waitCondition("good", batchv1.JobComplete)
	if log := readFile(t, filepath.Dir(e.LogPath(good.Pods[0], "main", 0)), good.Pods[0].Name+".main.0.log"); log != "out\nerr\n" {
		t.Errorf("log = %q", log)
	}
	for name, reason := range map[string]string{
		"bad": batchv1.JobReasonBackoffLimitExceeded, "missing": batchv1.JobReasonBackoffLimitExceeded,
		"late": batchv1.JobReasonDeadlineExceeded, "restarting": batchv1.JobReasonBackoffLimitExceeded,
	} {
		j := e.waitCondition(name, batchv1.JobFailed)
		if c := Finished(j.Job); c.Reason != reason || j.Status.Failed != 1 {
			t.Errorf("%s: %+v, want reason %s", name, j.Status, reason)
		}
	}
	missing, _ := e.Get("default", "missing")
	if ended := missing.Pods[0].Status.ContainerStatuses[0].State.Terminated; ended.ExitCode != 127 ||
		ended.Reason != process.ReasonStartError || !strings.Contains(ended.Message, "is not found in PATH") {
		t.Errorf("missing: %+v", ended)
	}
	e.waitCondition("parallel", batchv1.JobComplete)
	e.waitCondition("pop", batchv1.JobComplete)
	if exits := exitsOf(t, e.dir, "pop"); len(exits) != 0 {
		t.Errorf("a Job without an item has recorded %v", exits)
	}
	if exits := exitsOf(t, e.dir, "good"); !slices.Equal(exits, []string{"main 0 0"}) {
		t.Errorf("recorded %v", exits)
	}
	// A new Job of the name, whose folder may be the old one's, with what is recorded there of former Pods.
	if err := e.Settled(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(t.Context(), "default", "good", "", ""); err != nil {
		t.Fatal(err)
	}
	e.create(newJob("good", claim, shell(`exit 4`), backoffLimit(0)))
	e.waitCondition("good", batchv1.JobFailed)
	if exits := exitsOf(t, e.dir, "good"); len(exits) == 0 || exits[len(exits)-1] != "main 0 4" {
		t.Errorf("recorded %v", exits)
	}
}

// TestKillWhileClaimsEnd kills the program at moments of chance while Jobs end, and lets what runs then end by itself:
// exactly the Jobs that were done are Complete in the end.
func TestKillWhileClaimsEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 6 {
		runAndKill(t, claimLoopVar, dir, time.Duration(50+rand.IntN(200))*time.Millisecond)
		waitForKeeper(t, dir)
	}
	e := openRealClaims(t, dir)
	eventually(t, "all Jobs have finished", func() bool {
		for _, j := range e.ListAll("") {
			if Finished(j.Job) == nil {
				return false
			}
		}
		return true
	})
	done := map[string]int{}
	file, err := os.Open(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		done[lines.Text()]++
	}
	succeeded, failed := 0, 0
	for _, j := range e.ListAll("") {
		if complete := hasCondition(j, batchv1.JobComplete); complete != (done[j.Name] == 1) || done[j.Name] > 1 {
			t.Errorf("%s is done %d times, and its status is %+v", j.Name, done[j.Name], j.Status)
		} else if complete {
			succeeded++
		} else {
			failed++
		}
	}
	t.Logf("%d Jobs succeeded, %d failed", succeeded, failed)
	if succeeded == 0 {
		t.Error("no Job has succeeded")
	}
}

// waitForKeeper waits until the keeper of a program that was killed has ended, because nothing runs any more.
func waitForKeeper(t *testing.T, dir string) {
	t.Helper()
	lock, err := os.Open(filepath.Join(dir, "keeper"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	eventually(t, "the keeper has ended", func() bool {
		return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
	})
}

// claimLoopVar names the folder in which this test program, started again, runs short Jobs without end.
const claimLoopVar = "OFFBOARD_TEST_CLAIM_LOOP_DIR"

func runShortClaimsUntilKilled(dir string) {
	c, runner, _, err := openClaims(context.Background(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	c.Start(runner)
	for worker := range 4 {
		go func() {
			for {
				job, err := c.Create(context.Background(), newJob("", claim, backoffLimit(0), shell(ledger),
					func(j *batchv1.Job) { j.GenerateName = "short-" }), nil)
				if err != nil {
					panic(err)
				}
				if worker == 0 {
					fmt.Println("created", job.Name)
				}
				for {
					if j, err := c.Get("default", job.Name); err == nil && Finished(j.Job) != nil {
						break
					}
					time.Sleep(50 * time.Microsecond)
				}
			}
		}()
	}
	select {}
}
