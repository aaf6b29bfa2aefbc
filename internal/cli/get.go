package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

// reasonWidth is how many characters of a reason a table shows that is not wide.
const reasonWidth = 60

func (a *app) getCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "get [NAME...]",
		Short: "List ScaledJobs: what waits, what runs, what has become of it",
		Long: `List the ScaledJobs that the running "offboard up" works for, or those of a cluster.

QUEUE is how much work waited when it was last measured ("?" when that is not known). RUNNING and PENDING count
unfinished Jobs, SUCCEEDED and FAILED finished ones. PAUSED tells whether new Jobs are held back. REASON says why the
last decision was what it was, or what is wrong.

On a cluster, QUEUE is "-", since no object tells it: the operator publishes it as a metric, and ACTIVE of -o wide tells
whether anything waits. SUCCEEDED and FAILED count the Jobs that the history still holds, and REASON is what the status
says.

With -o json and -o yaml, the object with its status is followed by the keys "summary", which has the numbers of the
table, and "events". One NAME gives the object itself, otherwise a List.

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard get
  offboard get --watch
  offboard get usertask -o yaml
  offboard get -A -o wide
  offboard get --context production -n shop
  offboard get -o json | jq '.items[].summary.queue'`,
		Args: func(_ *cobra.Command, args []string) error { return f.check(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), &f.where, f.need(), func(t *target) error {
				return a.get(cmd.Context(), t, &f, args)
			})
		},
	}
	f.add(a, cmd)
	cmd.ValidArgsFunction = a.completeFrom(&f.where, scaledJobNames)
	return cmd
}

func (a *app) get(ctx context.Context, t *target, f *listFlags, args []string) error {
	names := make([]string, len(args))
	for i, arg := range args {
		names[i] = scaledJobName(arg)
	}
	wide := f.output.value == outputWide
	l := list[control.ScaledJobInfo]{
		kind: "ScaledJobs",
		fetch: func(ctx context.Context) ([]control.ScaledJobInfo, error) {
			infos, err := t.ScaledJobs(ctx, f.listed())
			if err != nil {
				return nil, err
			}
			return selectNamed(infos, names, "ScaledJob", f.namespace,
				func(info control.ScaledJobInfo) string { return info.Object.Name })
		},
		name:   func(info control.ScaledJobInfo) string { return "scaledjob.keda.sh/" + info.Object.Name },
		object: scaledJobObject,
		row: func(info control.ScaledJobInfo) row {
			return scaledJobRow(info, f.allNamespaces, wide, t.cluster != "", a.now())
		},
		table:  table{header: scaledJobHeader(f.allNamespaces, wide), moving: map[string]bool{"AGE": true}},
		single: len(names) == 1,
		pause:  t.pause,
	}
	l.table.coloured = a.colours(a.Out)
	return l.run(ctx, a, f)
}

// scaledJobName accepts a ScaledJob's name as people and -o name write it.
func scaledJobName(arg string) string {
	return withoutKind(arg, "scaledjob", "scaledjobs", "sj", "scaledjob.keda.sh", "scaledjobs.keda.sh")
}

// withoutKind removes a kind in front of a name, as in job/NAME.
func withoutKind(arg string, kinds ...string) string {
	if kind, name, found := strings.Cut(arg, "/"); found && slices.Contains(kinds, strings.ToLower(kind)) {
		return name
	}
	return arg
}

// selectNamed returns the objects of the names in the order of the names, or all when there are no names.
func selectNamed[T any](infos []T, names []string, kind, namespace string, nameOf func(T) string) ([]T, error) {
	if len(names) == 0 {
		return infos, nil
	}
	byName := map[string]T{}
	known := make([]string, len(infos))
	for i, info := range infos {
		known[i] = nameOf(info)
		byName[known[i]] = info
	}
	var selected []T
	for _, name := range names {
		info, found := byName[name]
		if !found {
			return nil, unknown(kind, name, namespace, known)
		}
		selected = append(selected, info)
	}
	return selected, nil
}

func scaledJobHeader(namespaces, wide bool) []string {
	header := []string{"NAME", "QUEUE", "RUNNING", "PENDING", "SUCCEEDED", "FAILED", "READY", "PAUSED", "REASON", "AGE"}
	if namespaces {
		header = append([]string{"NAMESPACE"}, header...)
	}
	if wide {
		header = append(header, "ACTIVE", "MIN", "MAX", "STRATEGY", "TRIGGERS")
	}
	return header
}

func scaledJobRow(info control.ScaledJobInfo, namespaces, wide, cluster bool, now time.Time) row {
	object := info.Object
	limit := reasonWidth
	if wide {
		limit = 0
	}
	var failed []color.Attribute
	if info.Failed > 0 {
		failed = []color.Attribute{color.FgRed}
	}
	cells := []cell{
		plain(printable(object.Name, 0)), plain(queueText(info.Queue, cluster)), number(info.Running), number(info.Pending),
		number(info.Succeeded), {strconv.Itoa(info.Failed), failed}, readyCell(object),
		pausedCell(object), plain(orDash(printable(info.LastReason, limit))), plain(age(object.CreationTimestamp, now)),
	}
	if namespaces {
		cells = append([]cell{plain(printable(object.Namespace, 0))}, cells...)
	}
	if wide {
		spec := object.Spec
		least, most := int32(0), int32(v1alpha1.DefaultMaxReplicaCount)
		if spec.MinReplicaCount != nil {
			least = *spec.MinReplicaCount
		}
		if spec.MaxReplicaCount != nil {
			most = *spec.MaxReplicaCount
		}
		strategy := spec.ScalingStrategy.Strategy
		if strategy == "" {
			strategy = v1alpha1.StrategyDefault
		}
		var types []string
		for _, t := range spec.Triggers {
			types = append(types, t.Type)
		}
		cells = append(cells,
			conditionCell(object, v1alpha1.ConditionActive), number(least), number(most),
			plain(printable(strategy, 0)), plain(orDash(printable(strings.Join(types, ","), 0))))
	}
	return row{key: object.Namespace + "/" + object.Name, cells: cells}
}

// queueText writes a length. On a cluster that it is missing is no sign of trouble.
func queueText(queue *float64, cluster bool) string {
	switch {
	case queue != nil:
		return strconv.FormatFloat(*queue, 'f', -1, 64)
	case cluster:
		return "-"
	}
	return "?"
}

// pausedCell tells what the user asked for, which the condition follows.
func pausedCell(object *v1alpha1.ScaledJob) cell {
	if object.PausedByAnnotation() {
		return cell{string(metav1.ConditionTrue), []color.Attribute{color.FgYellow}}
	}
	return plain(string(metav1.ConditionFalse))
}

func conditionCell(object *v1alpha1.ScaledJob, t v1alpha1.ConditionType) cell {
	return plain(printable(string(object.Status.Conditions.Get(t).Status), 0))
}

func readyCell(object *v1alpha1.ScaledJob) cell {
	c := conditionCell(object, v1alpha1.ConditionReady)
	switch metav1.ConditionStatus(c.text) {
	case metav1.ConditionTrue:
		c.colour = []color.Attribute{color.FgGreen}
	case metav1.ConditionFalse:
		c.colour = []color.Attribute{color.FgRed}
	case metav1.ConditionUnknown:
		c.colour = []color.Attribute{color.FgYellow}
	}
	return c
}

// age returns how long ago something was, as kubectl writes it; "-" when that is not known.
func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(t.Time)))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// scaledJobMore are the keys after those of the object.
type scaledJobMore struct {
	Summary scaledJobSummary `json:"summary"`
	Events  []control.Event  `json:"events"`
}

type scaledJobSummary struct {
	Queue     *float64 `json:"queue"`
	Running   int      `json:"running"`
	Pending   int      `json:"pending"`
	Succeeded int      `json:"succeeded"`
	Failed    int      `json:"failed"`
	Reason    string   `json:"reason"`
}

func scaledJobObject(info control.ScaledJobInfo) (object, more any) {
	copied := *info.Object
	copied.APIVersion, copied.Kind = v1alpha1.GroupVersion.String(), v1alpha1.KindScaledJob
	events := info.Events
	if events == nil {
		events = []control.Event{}
	}
	return copied, scaledJobMore{
		Summary: scaledJobSummary{
			Queue: info.Queue, Running: info.Running, Pending: info.Pending,
			Succeeded: info.Succeeded, Failed: info.Failed, Reason: info.LastReason,
		},
		Events: events,
	}
}

// notFoundError is an error for which codeOf gives exitNotFound.
func notFoundError(message string) error {
	return fmt.Errorf("%w", control.Errorf(control.NotFound, "%s", message))
}
