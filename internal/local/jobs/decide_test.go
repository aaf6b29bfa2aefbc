package jobs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

// podOf makes a Pod in a state, made and, where it has ended, ended at a time in seconds after testStart.
func podOf(phase corev1.PodPhase, seconds int, change ...func(*podState)) *podState {
	at := testStart.Add(time.Duration(seconds) * time.Second)
	p := &podState{pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", seconds), Namespace: "default",
			CreationTimestamp: metav1.NewTime(at)},
		Status: corev1.PodStatus{Phase: phase},
	}}
	if p.ended() {
		p.finishedAt = at
	}
	if phase == corev1.PodRunning {
		p.pod.Status = runningStatus(0)
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func exitCode(code int32) func(*podState) {
	return func(p *podState) { p.pod.Status = endedStatus(code) }
}

func stopping(p *podState) { p.pod.DeletionTimestamp = ptr.To(metav1.NewTime(testStart)) }
func counted(p *podState)  { p.counted = true }
func excluded(p *podState) { p.excluded = true }
func restarted(n int32) func(*podState) {
	return func(p *podState) { p.pod.Status.ContainerStatuses[0].RestartCount = n }
}

func decidedJob(change ...func(*batchv1.Job)) *batchv1.Job {
	job := newJob("a")
	SetDefaults(job)
	for _, c := range change {
		c(job)
	}
	return job
}

func workQueue(parallelism int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = nil, &parallelism }
}

func completions(n, parallelism int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, &parallelism }
}

func backoffLimit(n int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.BackoffLimit = &n }
}

func replaceFailed(j *batchv1.Job) { j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed) }
func suspended(j *batchv1.Job)     { j.Spec.Suspend = ptr.To(true) }
func onFailure(j *batchv1.Job)     { j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }
func deleted(j *batchv1.Job)       { j.DeletionTimestamp = ptr.To(metav1.NewTime(testStart)) }
func startedAt(seconds int) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Status.StartTime = ptr.To(metav1.NewTime(testStart.Add(time.Duration(seconds) * time.Second)))
	}
}

func failurePolicy(rules ...batchv1.PodFailurePolicyRule) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules}
		j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
}

func onExit(action batchv1.PodFailurePolicyAction, op batchv1.PodFailurePolicyOnExitCodesOperator,
	codes ...int32,
) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action,
		OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: op, Values: codes}}
}

func onCondition(action batchv1.PodFailurePolicyAction, kind corev1.PodConditionType) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action,
		OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: kind, Status: corev1.ConditionTrue}}}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const (
		pending = corev1.PodPending
		running = corev1.PodRunning
		ok      = corev1.PodSucceeded
		failed  = corev1.PodFailed
	)
	in, notIn := batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
	failJob, ignore, count := batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
		batchv1.PodFailurePolicyActionCount
	type jobs = []func(*batchv1.Job)
	for _, tt := range []struct {
		name string
		job  jobs
		pods []*podState
		hold bool
		// now is in seconds after testStart.
		now int
		// want is "create 1 stop 2 excluded; succeeded 1 failed 2 active 3 terminating 4; Conditions=Reason"; what is
		// zero is left out.
		want    string
		requeue time.Duration
	}{
		{"a new Job", nil, nil, false, 0, "create 1; active 1", 0},
		{"a new parallel Job", jobs{completions(5, 2)}, nil, false, 0, "create 2; active 2", 0},
		{"no more Pods than completions", jobs{completions(2, 5)}, nil, false, 0, "create 2; active 2", 0},
		{"parallelism 0", jobs{completions(1, 0)}, nil, false, 0, ";", 0},
		{"completions 0", jobs{completions(0, 1)}, nil, false, 0,
			"; SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached", 0},
		{"held", nil, nil, true, 0, ";", 0},
		{"its Pod runs", nil, []*podState{podOf(running, 0)}, false, 0, "; active 1", 0},
		{"its Pod has succeeded", nil, []*podState{podOf(ok, 5)}, false, 5,
			"; succeeded 1; SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached", 0},
		{"one of three is missing", jobs{completions(3, 2)}, []*podState{podOf(ok, 5), podOf(running, 1)}, false, 5,
			"create 1; succeeded 1 active 2", 0},
		{"the last of three runs", jobs{completions(3, 2)}, []*podState{podOf(ok, 5), podOf(ok, 6), podOf(running, 1)},
			false, 6, "; succeeded 2 active 1", 0},
		{"parallelism was reduced", jobs{completions(5, 1)}, []*podState{podOf(running, 0), podOf(running, 1)}, false, 6,
			"stop p-1 excluded; active 1 terminating 1", 0},
		{"what does not run yet is stopped first", jobs{completions(5, 1)},
			[]*podState{podOf(pending, 0), podOf(running, 1)}, false, 6, "stop p-0 excluded; active 1 terminating 1", 0},

		{"a work queue starts", jobs{workQueue(3)}, nil, false, 0, "create 3; active 3", 0},
		{"a work queue after the first success", jobs{workQueue(3)},
			[]*podState{podOf(ok, 5), podOf(running, 0), podOf(running, 0)}, false, 5, "; succeeded 1 active 2", 0},
		{"a work queue is done when all have ended", jobs{workQueue(2)}, []*podState{podOf(ok, 5), podOf(failed, 6)},
			false, 6, "; succeeded 1 failed 1; SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached", 0},
		{"a work queue replaces what failed before the first success", jobs{workQueue(2)},
			[]*podState{podOf(failed, 0), podOf(running, 0)}, false, 10, "create 1; failed 1 active 2", 0},

		{"the first retry waits", nil, []*podState{podOf(failed, 5)}, false, 5, "; failed 1", 10 * time.Second},
		{"the first retry's time has come", nil, []*podState{podOf(failed, 5)}, false, 15, "create 1; failed 1 active 1", 0},
		{"the third retry", nil, []*podState{podOf(failed, 1), podOf(failed, 2), podOf(failed, 3)}, false, 3, "; failed 3",
			40 * time.Second},
		{"a success resets the delay", jobs{completions(2, 1)},
			[]*podState{podOf(failed, 1), podOf(failed, 2), podOf(ok, 3), podOf(failed, 4)}, false, 4,
			"; succeeded 1 failed 3", 10 * time.Second},
		{"no retry while it is held", nil, []*podState{podOf(failed, 5)}, true, 100, "; failed 1", 0},
		{"the limit is reached", jobs{backoffLimit(1)}, []*podState{podOf(failed, 1), podOf(failed, 2)}, false, 3,
			"; failed 2; FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded", 0},
		{"the limit 0", jobs{backoffLimit(0)}, []*podState{podOf(failed, 1)}, false, 3,
			"; failed 1; FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded", 0},
		{"the limit stops the others, which count", jobs{completions(3, 3), backoffLimit(0)},
			[]*podState{podOf(failed, 1), podOf(running, 2), podOf(ok, 2)}, false, 3,
			"stop p-2; succeeded 1 failed 2 terminating 1; FailureTarget=BackoffLimitExceeded", 0},

		{"restarts within the limit", jobs{onFailure, backoffLimit(3)},
			[]*podState{podOf(running, 1, restarted(2))}, false, 3, "; active 1", 0},
		{"restarts at the limit", jobs{onFailure, backoffLimit(3)},
			[]*podState{podOf(running, 1, restarted(3))}, false, 3,
			"stop p-1; failed 1 terminating 1; FailureTarget=BackoffLimitExceeded", 0},
		{"the first restart with limit 0", jobs{onFailure, backoffLimit(0)},
			[]*podState{podOf(running, 1, restarted(1))}, false, 3,
			"stop p-1; failed 1 terminating 1; FailureTarget=BackoffLimitExceeded", 0},
		{"no restart with limit 0", jobs{onFailure, backoffLimit(0)},
			[]*podState{podOf(running, 1)}, false, 3, "; active 1", 0},

		{"before the deadline", jobs{startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(running, 0)}, false, 59, "; active 1", time.Second},
		{"at the deadline", jobs{startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(running, 0)}, false, 60,
			"stop p-0; failed 1 terminating 1; FailureTarget=DeadlineExceeded", 0},
		{"success in time, seen after the deadline",
			jobs{startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(ok, 59)}, false, 1000,
			"; succeeded 1; SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached", 0},
		{"success after the deadline",
			jobs{startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(ok, 61)}, false, 1000,
			"; succeeded 1; FailureTarget=DeadlineExceeded Failed=DeadlineExceeded", 0},
		{"success in time of a work queue that goes on after the deadline",
			jobs{workQueue(2), startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(ok, 59), podOf(running, 0)}, false, 60,
			"stop p-0; succeeded 1 failed 1 terminating 1; FailureTarget=DeadlineExceeded", 0},
		{"at the deadline between retries",
			jobs{startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](8) }},
			[]*podState{podOf(failed, 5)}, false, 5, "; failed 1", 3 * time.Second},
		{"a start in the future, because the clock was set back",
			jobs{startedAt(1000), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }},
			[]*podState{podOf(running, 0)}, false, 0, "; active 1", time.Minute},

		{"suspended from the start", jobs{suspended}, nil, false, 0, "; Suspended=JobSuspended", 0},
		{"suspended while it runs", jobs{startedAt(0), suspended}, []*podState{podOf(running, 0)}, false, 3,
			"stop p-0 excluded; terminating 1; Suspended=JobSuspended", 0},
		{"suspended Pods do not count", jobs{suspended, backoffLimit(0)},
			[]*podState{podOf(failed, 0, stopping, excluded)}, false, 3, "; Suspended=JobSuspended", 0},
		{"resumed while the old Pod ends", nil, []*podState{podOf(running, 0, stopping, excluded)}, false, 3,
			"create 1; active 1 terminating 1", 0},
		{"resumed, but the old Pod must have ended", jobs{replaceFailed},
			[]*podState{podOf(running, 0, stopping, excluded)}, false, 3, "; terminating 1", 0},
		{"no deadline while suspended",
			jobs{suspended, startedAt(0), func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](1) }}, nil,
			false, 99, "; Suspended=JobSuspended", 0},

		{"an exit code fails the Job", jobs{failurePolicy(onExit(failJob, in, 3, 42))},
			[]*podState{podOf(failed, 1, exitCode(42))}, false, 3,
			"; failed 1; FailureTarget=PodFailurePolicy Failed=PodFailurePolicy", 0},
		{"an exit code that is not meant", jobs{failurePolicy(onExit(failJob, in, 3))},
			[]*podState{podOf(failed, 1, exitCode(42))}, false, 1, "; failed 1", 10 * time.Second},
		{"an exit code not among those", jobs{failurePolicy(onExit(failJob, notIn, 3))},
			[]*podState{podOf(failed, 1, exitCode(42))}, false, 1,
			"; failed 1; FailureTarget=PodFailurePolicy Failed=PodFailurePolicy", 0},
		{"an ignored exit code does not count, but waits", jobs{backoffLimit(0), failurePolicy(onExit(ignore, in, 42))},
			[]*podState{podOf(failed, 1, exitCode(42))}, false, 1, ";", 10 * time.Second},
		{"an ignored condition", jobs{backoffLimit(0), failurePolicy(onCondition(ignore, corev1.DisruptionTarget))},
			[]*podState{podOf(failed, 1, func(p *podState) {
				p.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
			})}, false, 11, "create 1; active 1", 0},
		{"the first rule wins", jobs{failurePolicy(onExit(count, in, 42), onExit(failJob, in, 42))},
			[]*podState{podOf(failed, 1, exitCode(42))}, false, 1, "; failed 1", 10 * time.Second},
		{"a Pod that ends is not replaced under a failure policy", jobs{failurePolicy(onExit(failJob, in, 3))},
			[]*podState{podOf(running, 1, stopping)}, false, 1, "; terminating 1", 0},

		{"deleted while it runs", jobs{deleted}, []*podState{podOf(running, 0)}, false, 3, "stop p-0; terminating 1", 0},
		{"deleted and its Pod fails", jobs{deleted}, []*podState{podOf(failed, 0)}, false, 99, "; failed 1", 0},
		{"what was counted is not counted again", jobs{func(j *batchv1.Job) { j.Status.Failed = 1 }},
			[]*podState{podOf(failed, 0, counted)}, false, 3, "create 1; failed 1 active 1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := decidedJob(tt.job...)
			d := decide(observed{job: job, pods: tt.pods, hold: tt.hold}, testStart.Add(time.Duration(tt.now)*time.Second))
			if got := describe(&d); got != tt.want {
				t.Errorf("decide:\n got %q\nwant %q", got, tt.want)
			}
			if d.requeue != tt.requeue {
				t.Errorf("requeue = %v, want %v", d.requeue, tt.requeue)
			}
		})
	}
}

// describe writes a decision as the table has it.
func describe(d *decision) string {
	var parts [3]string
	add := func(part int, format string, args ...any) {
		if parts[part] != "" {
			parts[part] += " "
		}
		parts[part] += fmt.Sprintf(format, args...)
	}
	if d.create > 0 {
		add(0, "create %d", d.create)
	}
	for _, p := range d.stop {
		add(0, "stop %s", p.pod.Name)
	}
	if d.exclude && len(d.stop) > 0 {
		add(0, "excluded")
	}
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"succeeded", d.status.Succeeded}, {"failed", d.status.Failed}, {"active", d.status.Active},
		{"terminating", ptr.Deref(d.status.Terminating, 0)},
	} {
		if n.value != 0 {
			add(1, "%s %d", n.name, n.value)
		}
	}
	for _, c := range d.status.Conditions {
		add(2, "%s=%s", c.Type, c.Reason)
	}
	text := parts[0] + ";"
	for _, part := range parts[1:] {
		if part != "" {
			if text[len(text)-1] != ';' {
				text += ";"
			}
			text += " " + part
		}
	}
	return text
}

func TestFailurePolicyMessages(t *testing.T) {
	t.Parallel()
	pod := podOf(corev1.PodFailed, 1, exitCode(42)).pod
	policy := &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		onCondition(batchv1.PodFailurePolicyActionIgnore, corev1.DisruptionTarget),
		onExit(batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyOnExitCodesOpIn, 42),
	}}
	_, got := matchFailurePolicy(policy, pod)
	if want := "Container main for pod default/p-1 failed with exit code 42 matching FailJob rule at index 1"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	policy.Rules[1].OnExitCodes.ContainerName = ptr.To("other")
	if action, _ := matchFailurePolicy(policy, pod); action != batchv1.PodFailurePolicyActionCount {
		t.Errorf("action for another container = %s", action)
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	for failures, want := range []time.Duration{
		0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 320 * time.Second,
		10 * time.Minute, 10 * time.Minute,
	} {
		if got := (retryState{Failures: int32(failures), Last: testStart}).wait(testStart); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
	if got := (retryState{Failures: 1 << 30, Last: testStart}).wait(testStart); got != longestRetryDelay {
		t.Errorf("after very many failures: %v", got)
	}
}

// TestDecideProperties lets chance play Pod runner and user, and checks what must hold whatever happens.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		job := drawJob(t)
		limit := *job.Spec.BackoffLimit
		r := &record{job: job}
		now := testStart
		var last batchv1.JobStatus
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			c := &Controller{}
			requeue := c.advance(r, now)
			checkInvariants(t, r, last, limit)
			if again := decide(observed{job: r.job, pods: r.pods, retry: r.retry}, now); again.acts() {
				t.Fatalf("step %d: deciding again without news acts: %s", step, describe(&again))
			}
			last = r.job.Status
			for _, p := range r.pods {
				p.shell.started = true
			}
			now = now.Add(drawEvent(t, r, requeue, now))
		}
	})
}

func drawJob(t *rapid.T) *batchv1.Job {
	job := decidedJob(backoffLimit(rapid.Int32Range(0, 4).Draw(t, "backoffLimit")))
	job.UID = "u"
	job.Spec.Parallelism = ptr.To(rapid.Int32Range(0, 4).Draw(t, "parallelism"))
	if rapid.Bool().Draw(t, "has completions") {
		job.Spec.Completions = ptr.To(rapid.Int32Range(0, 5).Draw(t, "completions"))
	} else {
		job.Spec.Completions = nil
	}
	if rapid.Bool().Draw(t, "has deadline") {
		job.Spec.ActiveDeadlineSeconds = ptr.To(rapid.Int64Range(1, 100).Draw(t, "deadline"))
	}
	if rapid.Bool().Draw(t, "on failure") {
		onFailure(job)
	} else if rapid.Bool().Draw(t, "failure policy") {
		failurePolicy(onExit(rapid.SampledFrom([]batchv1.PodFailurePolicyAction{
			batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
		}).Draw(t, "action"), batchv1.PodFailurePolicyOnExitCodesOpIn, 42))(job)
	}
	if rapid.Bool().Draw(t, "replace failed only") {
		replaceFailed(job)
	}
	return job
}

// drawEvent changes something and returns how much time passes.
func drawEvent(t *rapid.T, r *record, requeue time.Duration, now time.Time) time.Duration {
	switch rapid.IntRange(0, 5).Draw(t, "event") {
	case 0:
		return max(requeue, 0)
	case 1:
		job := *r.job
		job.Spec.Suspend = ptr.To(rapid.Bool().Draw(t, "suspend"))
		r.job = &job
	case 2:
		job := *r.job
		job.Spec.Parallelism = ptr.To(rapid.Int32Range(0, 4).Draw(t, "new parallelism"))
		r.job = &job
	default:
		running := slices.DeleteFunc(slices.Clone(r.pods), (*podState).ended)
		if len(running) == 0 {
			return max(requeue, 0)
		}
		p := running[rapid.IntRange(0, len(running)-1).Draw(t, "pod")]
		status := endedStatus(rapid.SampledFrom([]int32{0, 0, 1, 42}).Draw(t, "exit code"))
		if rapid.Bool().Draw(t, "only restarts") {
			status = runningStatus(rapid.Int32Range(0, 5).Draw(t, "restarts"))
		}
		p.setStatus(&status, now)
	}
	return time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
}

func checkInvariants(t *rapid.T, r *record, last batchv1.JobStatus, limit int32) {
	s := r.job.Status
	var active, terminating int32
	for _, p := range r.pods {
		if p.active() {
			active++
		} else if p.terminating() {
			terminating++
		}
	}
	finished := Finished(r.job)
	switch {
	case s.Active != active || ptr.Deref(s.Terminating, 0) != terminating:
		t.Fatalf("status says %d active and %v terminating, there are %d and %d", s.Active, s.Terminating, active,
			terminating)
	case finished != nil && active+terminating > 0:
		t.Fatalf("finished with %d Pods active and %d terminating", active, terminating)
	case active > *r.job.Spec.Parallelism && interimOutcome(r.job) == nil && r.job.Spec.Completions != nil:
		t.Fatalf("%d active, parallelism is %d", active, *r.job.Spec.Parallelism)
	case s.Succeeded < last.Succeeded || s.Failed < last.Failed:
		t.Fatalf("counters went back from %+v to %+v", last, s)
	case Finished(&batchv1.Job{Status: last}) != nil && !sameStatus(&last, &s):
		t.Fatalf("a finished Job changed from %+v to %+v", last, s)
	case s.Failed > limit && interimOutcome(r.job) == nil:
		t.Fatalf("%d failed, the limit is %d, and the Job goes on", s.Failed, limit)
	case r.job.Spec.Completions != nil && finished != nil && finished.Type == batchv1.JobComplete &&
		s.Succeeded < *r.job.Spec.Completions:
		t.Fatalf("complete with %d of %d", s.Succeeded, *r.job.Spec.Completions)
	case (s.CompletionTime != nil) != (finished != nil && finished.Type == batchv1.JobComplete):
		t.Fatalf("completion time %v with %+v", s.CompletionTime, finished)
	}
}
