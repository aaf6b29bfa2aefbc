package cli

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/internal/control"
)

// What kept a container from running is said where its output is asked for, and in the wide table.
func TestContainersThatDidNotRun(t *testing.T) {
	t.Parallel()
	notFound := exited(127)
	notFound.Terminated.Message = "command nope is not found"
	noSecret := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Message: "Secret default/s does not exist"}}
	failed := isTrue(batchv1.JobFailed, time.Minute)
	failed.Reason = "BackoffLimitExceeded"
	up := &fakeUp{
		jobs: []control.JobInfo{
			{Job: aJob("unstarted", time.Minute, failed), Pods: []*corev1.Pod{
				aPod("p1", corev1.PodFailed, exited(0), notFound),
			}},
			{Job: aJob("unprepared", time.Minute, failed), Pods: []*corev1.Pod{aPod("p2", corev1.PodFailed, exited(9))}},
			{Job: aJob("waiting", time.Minute), Pods: []*corev1.Pod{
				aPod("p3", corev1.PodPending, exited(0), noSecret),
			}},
			{Job: aJob("late", time.Minute, failed)},
		},
		outputs: map[string]string{"p1/main": ""},
	}
	dataDir, _ := up.start(t)
	for _, test := range []struct {
		job  string
		want result
	}{
		{"unstarted", result{0, "", "offboard: container main of Pod p1: command nope is not found\n"}},
		{"unprepared", result{1, "", "offboard: there is no output, because init container prepare ended with exit code 9; " +
			"see: offboard logs unprepared -c prepare\n"}},
		{"waiting", result{1, "", "offboard: there is no output yet, because Job waiting is Pending; " +
			"wait for it with: offboard logs -f waiting\n"}},
		{"late", result{1, "", "offboard: there is no output: Job late is Failed, and that container has not run; " +
			"see: offboard jobs late -o yaml\n"}},
	} {
		if got := execute(t, dataDir, "", "logs", test.job); got != test.want {
			t.Errorf("logs of %s:\n%+v, want\n%+v", test.job, got, test.want)
		}
	}
	table := execute(t, dataDir, "", "jobs", "-o", "wide").out
	for _, want := range []string{"BackoffLimitExceeded; command nope is not found", "Secret default/s does not exist"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table does not say %q:\n%s", want, table)
		}
	}
}

func TestSummaryOfManyIsTheirTotal(t *testing.T) {
	t.Parallel()
	two := 2.0
	info := control.ScaledJobInfo{Queue: &two, Running: 1, Pending: 1, Succeeded: 3, Failed: 4}
	unknown := info
	unknown.Queue = nil
	want := "3 ScaledJobs: 4 waiting, 6 running, 9 succeeded, 12 failed"
	if got := summary([]control.ScaledJobInfo{info, info, unknown}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
