package kube

import (
	"context"
	"strings"
	"syscall"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// TestFailure lets Jobs fail in several ways and asks why.
func TestFailure(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := aClient(t, plane.Config())
	pods, err := typedcorev1.NewForConfig(plane.Config())
	if err != nil {
		t.Fatal(err)
	}
	owner := types.NamespacedName{Namespace: plane.Namespace(t), Name: "work"}
	j := jobsOn(c)
	j.pods = pods
	for _, test := range []struct {
		name, script string
		change       func(*batchv1.Job)
		check        func(t *testing.T, f queue.Failure)
	}{
		{"exit code", "echo first; echo last; exit 3", nil, func(t *testing.T, f queue.Failure) {
			if f.Reason != "BackoffLimitExceeded" || f.ExitCode == nil || *f.ExitCode != 3 || f.Signal != "" || f.Log != "first\nlast\n" {
				t.Errorf("got %+v", f)
			}
		}},
		{"signal", "kill -KILL $$$$", nil, func(t *testing.T, f queue.Failure) {
			if f.ExitCode == nil || *f.ExitCode != 137 || f.Signal != "SIGKILL" {
				t.Errorf("got %+v", f)
			}
		}},
		{"much output", "i=0; while [ $i -lt 3000 ]; do echo line $i ä; i=$((i+1)); done; exit 1", nil, func(t *testing.T, f queue.Failure) {
			if len(f.Log) > queue.MaxFailureText || len(f.Log) < queue.MaxFailureText/2 || !strings.HasSuffix(f.Log, "\nline 2999 ä\n") {
				t.Errorf("got %d bytes of log: %.50q", len(f.Log), f.Log)
			}
		}},
		{"the newest Pod", "echo $HOSTNAME; exit 4", func(job *batchv1.Job) { job.Spec.BackoffLimit = ptr.To[int32](1) }, func(t *testing.T, f queue.Failure) {
			if f.ExitCode == nil || *f.ExitCode != 4 || !strings.HasPrefix(f.Log, "the-newest-pod-") {
				t.Errorf("got %+v", f)
			}
		}},
		{"restarted", "echo again; exit 5", func(job *batchv1.Job) {
			job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			job.Spec.Template.Spec.Containers[0].Name = "other"
		}, func(t *testing.T, f queue.Failure) {
			if f.Reason != "BackoffLimitExceeded" {
				t.Errorf("got %+v", f)
			}
		}},
		{"no such program", "", func(job *batchv1.Job) {
			job.Spec.Template.Spec.Containers[0].Command = []string{"/no/such"}
		}, func(t *testing.T, f queue.Failure) {
			if f.ExitCode == nil || *f.ExitCode == 0 || !strings.Contains(f.Message, "container main: StartError") {
				t.Errorf("got %+v", f)
			}
		}},
		{"deadline", "sleep 1000", func(job *batchv1.Job) {
			job.Spec.ActiveDeadlineSeconds = ptr.To[int64](1)
			job.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
		}, func(t *testing.T, f queue.Failure) {
			if f.Reason != "DeadlineExceeded" || f.Message == "" {
				t.Errorf("got %+v", f)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			job := aNamedJob(owner, strings.ReplaceAll(strings.ToLower(test.name), " ", "-"))
			job.Spec.BackoffLimit = ptr.To[int32](0)
			job.Spec.Template.Spec.Containers[0].Command = []string{"sh", "-c", test.script}
			if test.change != nil {
				test.change(job)
			}
			stored, err := j.Create(t.Context(), job, nil)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the Job has failed", func() bool {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err != nil {
					t.Fatal(err)
				}
				how, _ := scaledjob.Finished(stored)
				return how == batchv1.JobFailed
			})
			failure, err := j.Failure(t.Context(), scaledjob.Job{Job: trimJob(stored)})
			if err != nil || failure.Job != stored.Name || failure.At.IsZero() {
				t.Errorf("got %+v, %v", failure, err)
			}
			test.check(t, failure)
		})
	}
	t.Run("deleted", func(t *testing.T) {
		gone := aNamedJob(owner, "gone")
		got, err := j.Failure(t.Context(), scaledjob.Job{Job: gone})
		if err != nil || got.Reason != "JobDeleted" || got.ExitCode != nil || got.Log != "" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	for name, test := range map[string]struct {
		refusal error
		known   bool
	}{
		"later":        {apierrors.NewTimeoutError("the server is busy", 1), false},
		"not answered": {syscall.ECONNREFUSED, false},
		"no right":     {apierrors.NewForbidden(corev1.Resource("pods"), "", nil), true},
	} {
		t.Run(name, func(t *testing.T) {
			refused := jobs{reader: refusing{c, test.refusal}}
			got, err := refused.Failure(t.Context(), scaledjob.Job{Job: aNamedJob(owner, "gone")})
			if (err == nil) != test.known || got.Reason != "JobDeleted" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// refusing is a Reader that lists nothing.
type refusing struct {
	client.Reader

	refusal error
}

func (r refusing) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return r.refusal
}

// TestLastFailed chooses among containers as statuses of real kubelets show them.
func TestLastFailed(t *testing.T) {
	t.Parallel()
	ended := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
	}
	for name, test := range map[string]struct {
		status   corev1.PodStatus
		exitCode int
		previous bool
		signal   string
		message  string
	}{
		"out of memory": {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "beside", State: ended(0, "Completed")}, {Name: "main", State: ended(137, "OOMKilled")},
		}}, 137, false, "SIGKILL", "container main: OOMKilled"},
		"an init container": {corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "init", State: ended(1, "Error")}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}}},
		}, 1, false, "", ""},
		"started again": {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", LastTerminationState: ended(143, "Error"), State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}},
		}}}, 143, true, "SIGTERM", ""},
		"evicted": {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}, -1, false, "", "Pod one: Evicted: low on memory"},
	} {
		pod := corev1.Pod{Status: test.status}
		pod.Name = "one"
		found := lastFailed([]corev1.Pod{pod})
		if found == nil {
			t.Errorf("%s: nothing found", name)
			continue
		}
		var failure queue.Failure
		found.tell(&failure)
		if ptr.Deref(failure.ExitCode, -1) != test.exitCode || found.previous != test.previous || failure.Signal != test.signal ||
			failure.Message != test.message {
			t.Errorf("%s: got %+v, previous %t", name, failure, found.previous)
		}
	}
	if found := lastFailed([]corev1.Pod{{Status: corev1.PodStatus{Phase: corev1.PodRunning}}}); found != nil {
		t.Errorf("of a Pod that runs: %+v", found)
	}
}
