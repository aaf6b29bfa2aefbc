package jobs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	items "github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestFailure runs Jobs that fail, and looks at what is told of them.
func TestFailure(t *testing.T) {
	t.Parallel()
	e := openReal(t, t.TempDir())
	dir := t.TempDir()
	numbers := func(j *batchv1.Job) {
		shell(`i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done; exit 1`)(j)
	}
	tests := []struct {
		name           string
		change         func(*batchv1.Job)
		deleted        bool
		reason, signal string
		code           *int
		message, log   string // message is a part
	}{
		{name: "exit", change: shell("echo out; echo err >&2; exit 3"), reason: "BackoffLimitExceeded", code: ptr.To(3),
			message: messageBackoffLimitExceeded, log: "out\nerr\n"},
		{name: "signal", change: shell("echo ready; kill -9 $$"), reason: "BackoffLimitExceeded", code: ptr.To(137),
			signal: "SIGKILL", log: "ready\n"},
		{name: "silent", change: shell("exit 1"), reason: "BackoffLimitExceeded", code: ptr.To(1)},
		{name: "much", change: numbers, reason: "BackoffLimitExceeded", code: ptr.To(1), log: "line 1999\n"},
		{name: "deadline", change: func(j *batchv1.Job) {
			shell("echo ready; exec sleep 1000")(j)
			j.Spec.ActiveDeadlineSeconds = ptr.To[int64](1)
		}, reason: "DeadlineExceeded", code: ptr.To(143), signal: "SIGTERM", message: messageDeadlineExceeded,
			log: "ready\n"},
		{name: "policy", change: func(j *batchv1.Job) {
			shell("exit 42")(j)
			failurePolicy(onExit(batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyOnExitCodesOpIn, 42))(j)
		}, reason: "PodFailurePolicy", code: ptr.To(42), message: "failed with exit code 42 matching FailJob rule"},
		{name: "no-program", change: func(j *batchv1.Job) {
			j.Spec.Template.Spec.Containers[0].Command = []string{"/no/such/program"}
		}, reason: "BackoffLimitExceeded", code: ptr.To(127), message: "; container main: "},
		{name: "init", change: func(j *batchv1.Job) {
			j.Spec.Template.Spec.InitContainers = []corev1.Container{
				{Name: "before", Command: []string{"/bin/sh", "-c", "echo before; exit 4"}},
			}
		}, reason: "BackoffLimitExceeded", code: ptr.To(4), log: "before\n"},
		{name: "two", change: func(j *batchv1.Job) {
			shell("echo main; exit 5")(j)
			j.Spec.Template.Spec.Containers = append(j.Spec.Template.Spec.Containers,
				corev1.Container{Name: "beside", Command: []string{"true"}})
		}, reason: "BackoffLimitExceeded", code: ptr.To(5), log: "main\n"},
		// The second run is stopped because there was a first.
		{name: "restarted", change: func(j *batchv1.Job) {
			onFailure(j)
			again := filepath.Join(dir, "again")
			shell("test -e " + again + " && exec sleep 1000; touch " + again + "; echo first; exit 6")(j)
		}, reason: "BackoffLimitExceeded", code: ptr.To(6), log: "first\n"},
		{name: "deleted", change: shell("echo ready; exec sleep 1000"), deleted: true, reason: "JobDeleted",
			code: ptr.To(143), signal: "SIGTERM", message: messageDeleted, log: "ready\n"},
	}
	for _, test := range tests {
		e.create(newJob(test.name, claimed("u"), backoffLimit(0), test.change))
	}
	for _, test := range tests {
		if test.deleted {
			e.wait(test.name, "it is ready", func(j scaledjob.Job) bool {
				if len(j.Pods) == 0 {
					return false
				}
				log, err := os.ReadFile(e.LogPath(j.Pods[0], "main", 0))
				return err == nil && len(log) > 0 && j.Pods[0].Status.Phase == corev1.PodRunning
			})
			if err := e.Delete(t.Context(), "default", test.name, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		job := e.waitCondition(test.name, batchv1.JobFailed)
		got := e.failure(job)
		if got.Reason != test.reason || got.Signal != test.signal || !ptr.Equal(got.ExitCode, test.code) ||
			!strings.Contains(got.Message, test.message) || got.Job != test.name ||
			!got.At.Equal(Finished(job.Job).LastTransitionTime.Time) {
			t.Errorf("%s: %+v of %v", test.name, got, job.Status.Conditions)
		}
		cut := len(got.Log) > items.MaxFailureText-len("line 1000\n")
		if cut && (!strings.HasPrefix(got.Log, "line 1") || !strings.HasSuffix(got.Log, test.log)) ||
			!cut && got.Log != test.log {
			t.Errorf("%s: log %q, want %q", test.name, got.Log, test.log)
		}
	}
}

// TestFailureWithout asks for what is not there.
func TestFailureWithout(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
		Reason: "CreateContainerConfigError", Message: "no Secret",
	}}
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	pod := func(status corev1.ContainerStatus) *corev1.Pod {
		status.Name = "main"
		return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}}}
	}
	never := e.failure(scaledjob.Job{
		Job: newJob("gone", deleted), Pods: []*corev1.Pod{pod(corev1.ContainerStatus{State: waiting})},
	})
	if never.Reason != reasonDeleted || never.Message != messageDeleted+"; container main: no Secret" ||
		never.ExitCode != nil || never.Log != "" || !never.At.Equal(testStart) {
		t.Errorf("never started: %+v", never)
	}
	if got := e.failure(scaledjob.Job{Job: newJob("gone", deleted)}); got.Message != messageDeleted {
		t.Errorf("no Pod: %+v", got)
	}
	for name, test := range map[string]struct {
		pods []*corev1.Pod
		code *int
	}{
		"the newest that failed": {[]*corev1.Pod{
			pod(corev1.ContainerStatus{State: ended(1)}), pod(corev1.ContainerStatus{State: ended(2)}),
			pod(corev1.ContainerStatus{State: ended(0)}),
		}, ptr.To(2)},
		"runs again": {[]*corev1.Pod{
			pod(corev1.ContainerStatus{RestartCount: 1, LastTerminationState: ended(3)}),
		}, ptr.To(3)},
		"waits": {[]*corev1.Pod{
			pod(corev1.ContainerStatus{State: waiting, LastTerminationState: ended(4)}),
		}, ptr.To(4)},
		"none": {[]*corev1.Pod{pod(corev1.ContainerStatus{State: ended(0)})}, nil},
	} {
		got := e.failure(scaledjob.Job{Job: newJob("gone"), Pods: test.pods})
		if !ptr.Equal(got.ExitCode, test.code) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestFailedThenDeleted deletes a Job after it has failed.
func TestFailedThenDeleted(t *testing.T) {
	t.Parallel()
	e := open(t, newScriptedRunner())
	e.create(newJob("a", claimed("u"), backoffLimit(0)))
	e.runner.end(e.waitStarted(1)[0].UID, 9)
	e.waitCondition("a", batchv1.JobFailed)
	e.clock.Step(time.Minute)
	if err := e.Delete(t.Context(), "default", "a", "", ""); err != nil {
		t.Fatal(err)
	}
	e.crash()
	e = reopen(t, e.dir, newScriptedRunner(), testStart.Add(time.Hour))
	job, err := e.Get("default", "a")
	if err != nil {
		t.Fatal(err)
	}
	got := e.failure(job)
	if got.Reason != "BackoffLimitExceeded" || *got.ExitCode != 9 || !got.At.Equal(testStart) {
		t.Errorf("got %+v", got)
	}
}

func (e *env) failure(job scaledjob.Job) items.Failure {
	e.t.Helper()
	failure, err := e.Failure(e.t.Context(), job)
	if err != nil {
		e.t.Error(err)
	}
	return failure
}
