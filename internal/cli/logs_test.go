package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/control"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	dataDir, _ := someJobs().start(t)
	for name, test := range map[string]struct {
		args []string
		want result
	}{
		"raw": {
			[]string{"usertask-aaaaa"}, result{0, "raw \x00\xff\x1b[1m bytes\nwithout an end", ""},
		},
		"name of a kind": {
			[]string{"job/usertask-ddddd"}, result{0, "second run\n", ""},
		},
		"container": {
			[]string{"job.batch/usertask-aaaaa", "-c", "prepare"}, result{0, "preparing\n", ""},
		},
		"previous": {
			[]string{"usertask-ddddd", "-p"}, result{0, "first run\n", ""},
		},
		"no previous": {
			[]string{"usertask-aaaaa", "-p"}, result{3, "", "offboard: no output of usertask-aaaaa-1/main/previous\n"},
		},
		"several Pods": {
			[]string{"usertask-bbbbb"}, result{0, "[pod/usertask-bbbbb-1/main] first try\n" +
				"[pod/usertask-bbbbb-1/main] failed\n" +
				"[pod/usertask-bbbbb-2/main] second try\n" +
				"[pod/usertask-bbbbb-2/main] unfinished\n", ""},
		},
		"one of several Pods": {
			[]string{"usertask-bbbbb", "--pod", "usertask-bbbbb-1"}, result{0, "first try\nfailed\n", ""},
		},
		"followed to the end": {
			[]string{"usertask-aaaaa", "-f"}, result{0, "raw \x00\xff\x1b[1m bytes\nwithout an end", ""},
		},
		"pending": {
			[]string{"usertask-eeeee"}, result{1, "", "offboard: there is no output yet, because Job usertask-eeeee is Pending; " +
				"wait for it with: offboard logs -f usertask-eeeee\n"},
		},
		"unknown": {
			[]string{"usertask"}, result{3, "", `offboard: Job "usertask" does not exist in namespace default; ` +
				"did you mean usertask-eeeee or usertask-ddddd or usertask-ccccc?\n"},
		},
		"nothing like it": {
			[]string{"x"}, result{3, "", "offboard: Job \"x\" does not exist in namespace default\n"},
		},
		"unknown container": {
			[]string{"usertask-aaaaa", "-c", "mian"}, result{3, "", `offboard: Job usertask-aaaaa has no container "mian"; ` +
				"did you mean main?\n"},
		},
		"unknown Pod": {
			[]string{"usertask-aaaaa", "--pod", "x"}, result{3, "", `offboard: Job usertask-aaaaa has no Pod "x"` + "\n"},
		},
		"no name": {
			nil, result{2, "", "offboard: accepts 1 arg(s), received 0; see: offboard logs --help\n"},
		},
		"bad tail": {
			[]string{"x", "--tail", "-2"}, result{2, "", "offboard: --tail must be a number of lines, or -1 for all, not -2\n"},
		},
		"previous and follow": {
			[]string{"x", "-p", "-f"},
			result{2, "", "offboard: --previous is about a run that has ended: it does not go with --follow\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := execute(t, dataDir, "", append([]string{"logs"}, test.args...)...); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestLogsTail(t *testing.T) {
	t.Parallel()
	up := someJobs()
	dataDir, _ := up.start(t)
	execute(t, dataDir, "", "logs", "usertask-aaaaa", "--tail", "0")
	execute(t, dataDir, "", "logs", "usertask-aaaaa")
	if len(up.asked) != 2 || up.asked[0].Tail == nil || *up.asked[0].Tail != 0 || up.asked[1].Tail != nil {
		t.Errorf("asked for %+v", up.asked)
	}
}

func TestLogsFollowRetries(t *testing.T) {
	t.Parallel()
	job := aJob("j", time.Second)
	up := &fakeUp{jobs: []control.JobInfo{{Job: job}}, outputs: map[string]string{"p1/main": "one\n", "p2/main": "two\n"}}
	dataDir, _ := up.start(t)
	var out, errOut syncBuffer
	code := make(chan int, 1)
	go func() { code <- Execute(context.Background(), options(dataDir, nil, &out, &errOut, "logs", "-f", "j")) }()
	// A Pod that has not started, one that fails, one that succeeds, and the end.
	up.change(func() { up.jobs[0].Pods = []*corev1.Pod{aPod("p1", corev1.PodPending)} })
	up.change(func() { up.jobs[0].Pods = []*corev1.Pod{aPod("p1", corev1.PodRunning, exited(0), running())} })
	out.waitFor(t, "one\n")
	up.change(func() {
		up.jobs[0].Pods = []*corev1.Pod{
			aPod("p1", corev1.PodFailed, exited(0), exited(1)), aPod("p2", corev1.PodRunning, exited(0), running()),
		}
	})
	out.waitFor(t, "two\n")
	up.change(func() { job.Status.Conditions = append(job.Status.Conditions, isTrue(batchv1.JobComplete, 0)) })
	if got := <-code; got != 0 || out.String() != "one\ntwo\n" ||
		errOut.String() != "offboard: following the next run: Pod p2\n" {
		t.Errorf("exit code %d, output %q, errors %q", got, out.String(), errOut.String())
	}
}

func TestLogsFollowParallel(t *testing.T) {
	t.Parallel()
	job := aJob("j", time.Second)
	job.Spec.Parallelism = ptr.To[int32](2)
	up := &fakeUp{
		jobs: []control.JobInfo{{Job: job, Pods: []*corev1.Pod{aPod("p1", corev1.PodRunning, exited(0), running())}}},
		outputs: map[string]string{
			"p1/main": strings.Repeat("x", maxLine+10) + "\n", "p2/main": "two\n",
		},
	}
	dataDir, _ := up.start(t)
	var out, errOut syncBuffer
	code := make(chan int, 1)
	go func() { code <- Execute(context.Background(), options(dataDir, nil, &out, &errOut, "logs", "-f", "j")) }()
	out.waitFor(t, "[pod/p1/main] xx")
	up.change(func() {
		up.jobs[0].Pods = append(up.jobs[0].Pods, aPod("p2", corev1.PodRunning, exited(0), running()))
	})
	out.waitFor(t, "[pod/p2/main] two\n")
	up.change(func() { up.jobs = nil }) // removed by its time to live
	if got := <-code; got != 0 || errOut.String() != "" {
		t.Errorf("exit code %d, errors %q", got, errOut.String())
	}
	if n := strings.Count(out.String(), "[pod/p1/main] "); n != 2 {
		t.Errorf("a line of more than 1 MiB is printed as %d lines, want 2", n)
	}
}
