package cli

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
	"github.com/offboard-dev/offboard/internal/runner"
)

const (
	itemWidth     = 40
	itemWidthWide = 160
)

// jobState is where a Job stands, in one word.
type jobState string

const (
	jobPending   jobState = "Pending"
	jobRunning   jobState = "Running"
	jobSucceeded jobState = "Succeeded"
	jobFailed    jobState = "Failed"
	jobSuspended jobState = "Suspended"
)

func (a *app) jobsCommand() *cobra.Command {
	var (
		f         listFlags
		scaledJob string
	)
	cmd := &cobra.Command{
		Use:   "jobs [NAME...]",
		Short: "List Jobs: their item, state, duration and exit code",
		Long: `List the Jobs that the running "offboard up" or the operator of a cluster has started and that are still there,
oldest first.

STATE is Pending, Running, Succeeded, Failed or Suspended. ITEM is what the Job's runner reported to have taken, else
what the Job was handed (spec.delivery.mode is claim), cut when it is long; what does not print is escaped. EXIT is the
exit code of the newest run that has ended, 128 and the number of the signal when one ended it.

On a cluster, what a runner took is known once the run has ended: "offboard runner" writes it into the termination
message of its container.

With -o json and -o yaml, the Job is followed by the keys "summary", which has what the table shows, and "pods".

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard jobs
  offboard jobs --scaledjob usertask --watch
  offboard jobs -o wide
  offboard jobs -o json | jq '.items[] | select(.summary.state == "Failed") | .summary.item'`,
		Args: func(_ *cobra.Command, args []string) error { return f.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), &f.where, backend.Need{}, func(t *target) error {
				return a.jobs(cmd.Context(), t, &f, scaledJobName(scaledJob), args)
			})
		},
	}
	f.add(a, cmd)
	cmd.Flags().StringVarP(&scaledJob, "scaledjob", "s", "", "list only the Jobs of this ScaledJob")
	complete(cmd, "scaledjob", a.completeFrom(&f.where, scaledJobNames))
	cmd.ValidArgsFunction = a.completeFrom(&f.where, jobNames)
	return cmd
}

func (a *app) jobs(
	ctx context.Context, t *target, f *listFlags, scaledJob string, args []string,
) error {
	names := make([]string, len(args))
	for i, arg := range args {
		names[i] = jobName(arg)
	}
	if scaledJob != "" {
		scaledJobs, err := t.ScaledJobs(ctx, f.listed())
		if err != nil {
			return err
		}
		if _, err := selectNamed(scaledJobs, []string{scaledJob}, "ScaledJob", f.namespace,
			func(info control.ScaledJobInfo) string { return info.Object.Name }); err != nil {
			return err
		}
	}
	wide := f.output.value == outputWide
	l := list[control.JobInfo]{
		kind: "Jobs",
		fetch: func(ctx context.Context) ([]control.JobInfo, error) {
			infos, err := t.Jobs(ctx, f.listed(), scaledJob)
			if err != nil {
				return nil, err
			}
			return selectNamed(infos, names, "Job", f.namespace, func(info control.JobInfo) string { return info.Job.Name })
		},
		name:   func(info control.JobInfo) string { return "job.batch/" + info.Job.Name },
		object: func(info control.JobInfo) (object, more any) { return jobObject(info, a.now()) },
		row:    func(info control.JobInfo) row { return jobRow(info, f.allNamespaces, wide, a.now()) },
		table: table{
			header: jobHeader(f.allNamespaces, wide), moving: map[string]bool{"AGE": true, "DURATION": true},
		},
		single: len(names) == 1,
		pause:  t.pause,
	}
	l.table.coloured = a.colours(a.Out)
	return l.run(ctx, a, f)
}

// jobName accepts a Job's name as people and -o name write it.
func jobName(arg string) string { return withoutKind(arg, "job", "jobs", "job.batch", "jobs.batch") }

func jobHeader(namespaces, wide bool) []string {
	header := []string{"NAME", "SCALEDJOB", "STATE", "ITEM", "DURATION", "EXIT", "AGE"}
	if namespaces {
		header = append([]string{"NAMESPACE"}, header...)
	}
	if wide {
		header = append(header, "PODS", "POD", "REASON")
	}
	return header
}

func jobRow(info control.JobInfo, namespaces, wide bool, now time.Time) row {
	job, state := info.Job, stateOf(info)
	limit := itemWidth
	if wide {
		limit = itemWidthWide
	}
	took, exit := "-", "-"
	if d, ok := jobDuration(job, now); ok {
		took = duration.HumanDuration(d)
	}
	if code := exitOf(info); code != nil {
		exit = strconv.Itoa(int(*code))
	}
	cells := []cell{
		plain(printable(job.Name, 0)), plain(orDash(printable(job.Labels[v1alpha1.LabelScaledJob], 0))),
		{string(state), stateColour(state)}, plain(orDash(printable(info.Item, limit))),
		plain(took), plain(exit), plain(age(job.CreationTimestamp, now)),
	}
	if namespaces {
		cells = append([]cell{plain(printable(job.Namespace, 0))}, cells...)
	}
	if wide {
		pod := ""
		if n := len(info.Pods); n > 0 {
			pod = info.Pods[n-1].Name
		}
		cells = append(cells, number(len(info.Pods)), plain(orDash(printable(pod, 0))), plain(orDash(reasonOf(info))))
	}
	return row{key: job.Namespace + "/" + job.Name, cells: cells}
}

func stateColour(state jobState) []color.Attribute {
	switch state {
	case jobSucceeded:
		return []color.Attribute{color.FgGreen}
	case jobFailed:
		return []color.Attribute{color.FgRed}
	case jobRunning:
		return []color.Attribute{color.FgCyan}
	case jobSuspended:
		return []color.Attribute{color.FgYellow}
	case jobPending:
	}
	return nil
}

func stateOf(info control.JobInfo) jobState {
	switch {
	case condition(info.Job, batchv1.JobComplete) != nil:
		return jobSucceeded
	case condition(info.Job, batchv1.JobFailed) != nil:
		return jobFailed
	case condition(info.Job, batchv1.JobSuspended) != nil, info.Job.Spec.Suspend != nil && *info.Job.Spec.Suspend:
		return jobSuspended
	}
	if slices.ContainsFunc(info.Pods, func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning }) {
		return jobRunning
	}
	return jobPending
}

func finished(info control.JobInfo) bool {
	state := stateOf(info)
	return state == jobSucceeded || state == jobFailed
}

// condition returns the Job's condition of the type if it is true.
func condition(job *batchv1.Job, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// failureOf says why a Job has failed.
func failureOf(job *batchv1.Job) string {
	c := condition(job, batchv1.JobFailed)
	if c == nil {
		return ""
	}
	if c.Message == "" {
		return printable(c.Reason, 0)
	}
	return printable(c.Reason+": "+c.Message, 0)
}

// reasonOf says why a Job has failed, and what kept the newest of its Pods from running.
func reasonOf(info control.JobInfo) string {
	reasons := []string{failureOf(info.Job)}
	if n := len(info.Pods); n > 0 {
		status := info.Pods[n-1].Status
		for _, container := range slices.Concat(status.InitContainerStatuses, status.ContainerStatuses) {
			reasons = append(reasons, printable(troubleOf(container), 0))
		}
		for _, c := range status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				reasons = append(reasons, printable(c.Message, 0))
			}
		}
	}
	return strings.Join(slices.DeleteFunc(reasons, func(reason string) bool { return reason == "" }), "; ")
}

// troubleOf says what keeps a container from running, or kept its last run from starting.
func troubleOf(status corev1.ContainerStatus) string {
	for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
		switch {
		case state.Running != nil:
			return ""
		case state.Terminated != nil:
			return endOf(state.Terminated)
		case state.Waiting != nil && status.LastTerminationState.Terminated == nil:
			return state.Waiting.Message
		}
	}
	return ""
}

// endOf says what ended a run, when that is more than its exit code tells. The report on its item is not.
func endOf(ended *corev1.ContainerStateTerminated) string {
	if _, found := runner.ReportedItem(ended.Message); ended.Message != "" && !found {
		return ended.Message
	}
	if ended.Reason == "Completed" || ended.Reason == "Error" {
		return ""
	}
	return ended.Reason // for example OOMKilled
}

// jobDuration returns how long a Job ran, or has been running.
func jobDuration(job *batchv1.Job, now time.Time) (time.Duration, bool) {
	if job.Status.StartTime == nil {
		return 0, false
	}
	end := metav1.NewTime(now)
	if job.Status.CompletionTime != nil {
		end = *job.Status.CompletionTime
	} else if failed := condition(job, batchv1.JobFailed); failed != nil {
		end = failed.LastTransitionTime // a failed Job has no completionTime
	}
	return max(0, end.Sub(job.Status.StartTime.Time)), true
}

// exitOf returns the exit code of the Job's newest run that has ended: of its containers the first that failed, else 0.
func exitOf(info control.JobInfo) *int32 {
	for _, pod := range slices.Backward(info.Pods) {
		var code *int32
		for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			ended := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
			if ended != nil && (code == nil || *code == 0) {
				code = &ended.ExitCode
			}
		}
		if code != nil {
			return code
		}
	}
	return nil
}

// jobMore are the keys after those of the Job.
type jobMore struct {
	Summary jobSummary    `json:"summary"`
	Pods    []*corev1.Pod `json:"pods"`
}

type jobSummary struct {
	ScaledJob string   `json:"scaledJob"`
	State     jobState `json:"state"`
	Item      string   `json:"item"`
	// DurationSeconds and ExitCode are null while they are not known.
	DurationSeconds *float64 `json:"durationSeconds"`
	ExitCode        *int32   `json:"exitCode"`
}

func jobObject(info control.JobInfo, now time.Time) (object, more any) {
	job := *info.Job
	job.APIVersion, job.Kind = batchv1.SchemeGroupVersion.String(), "Job"
	summary := jobSummary{
		ScaledJob: job.Labels[v1alpha1.LabelScaledJob], State: stateOf(info), Item: info.Item, ExitCode: exitOf(info),
	}
	if d, ok := jobDuration(info.Job, now); ok {
		seconds := d.Round(time.Millisecond).Seconds()
		summary.DurationSeconds = &seconds
	}
	pods := info.Pods
	if pods == nil {
		pods = []*corev1.Pod{}
	}
	return job, jobMore{Summary: summary, Pods: pods}
}
