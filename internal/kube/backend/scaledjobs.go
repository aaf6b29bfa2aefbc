package backend

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

const scaledJobs = "scaledjobs"

// ScaledJobs implements control.Backend. Queue is nil: the length of a queue is no part of a ScaledJob's status, and to
// ask every queue from here would take long, need the Secrets of each, and fail for what only the cluster reaches.
func (b *Backend) ScaledJobs(ctx context.Context, namespace string) ([]control.ScaledJobInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var (
		found  []v1alpha1.ScaledJob
		jobs   []control.JobInfo
		events map[types.UID][]control.Event
	)
	group, asking := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		found, err = b.listScaledJobs(asking, namespace)
		return err
	})
	group.Go(func() (err error) {
		jobs, err = b.listJobs(asking, namespace, v1alpha1.LabelScaledJob)
		return err
	})
	if b.Need.Events {
		group.Go(func() (err error) {
			events, err = b.listEvents(asking, namespace)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, b.explain(err)
	}
	if len(found) == 0 {
		return nil, b.checkNamespace(ctx, namespace)
	}
	byScaledJob := map[types.NamespacedName][]control.JobInfo{}
	for _, job := range jobs {
		key := types.NamespacedName{Namespace: job.Job.Namespace, Name: job.Job.Labels[v1alpha1.LabelScaledJob]}
		byScaledJob[key] = append(byScaledJob[key], job)
	}
	infos := make([]control.ScaledJobInfo, len(found))
	for i := range found {
		sj := &found[i]
		infos[i] = control.ScaledJobInfo{Object: sj, LastReason: reason(sj), Events: events[sj.UID]}
		count(&infos[i], byScaledJob[sj.Key()])
	}
	return infos, nil
}

// reason says what the status tells of why Jobs are created or not.
func reason(sj *v1alpha1.ScaledJob) string {
	conditions := sj.Status.Conditions
	ready := conditions.Get(v1alpha1.ConditionReady)
	switch {
	case len(conditions) == 0:
		return "no operator has looked at it yet"
	case sj.PausedByAnnotation():
		return "paused"
	case ready.Status != metav1.ConditionTrue:
		return ready.Message
	}
	if limited := conditions.Get(v1alpha1.ConditionLimited); limited.Status == metav1.ConditionTrue {
		return limited.Message
	}
	return conditions.Get(v1alpha1.ConditionActive).Message
}

// count counts the Jobs as the operator does.
func count(info *control.ScaledJobInfo, jobs []control.JobInfo) {
	for _, job := range jobs {
		switch how, _ := scaledjob.Finished(job.Job); {
		case how == "Complete":
			info.Succeeded++
		case how == "Failed":
			info.Failed++
		case scaledjob.Pending(scaledjob.Job{Job: job.Job, Pods: job.Pods},
			info.Object.Spec.ScalingStrategy.PendingPodConditions):
			info.Pending++
		default:
			info.Running++
		}
	}
}

// listScaledJobs returns the ScaledJobs, ordered by namespace and name.
func (b *Backend) listScaledJobs(ctx context.Context, namespace string) ([]v1alpha1.ScaledJob, error) {
	items, err := inPieces(metav1.ListOptions{}, func(options metav1.ListOptions) (*v1alpha1.ScaledJobList, error) {
		list := &v1alpha1.ScaledJobList{}
		err := b.keda.Get().Resource(scaledJobs).NamespaceIfScoped(namespace, namespace != "").
			VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(list)
		return list, err
	}, func(list *v1alpha1.ScaledJobList) []v1alpha1.ScaledJob { return list.Items })
	slices.SortFunc(items, func(a, b v1alpha1.ScaledJob) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return items, err
}

func (b *Backend) getScaledJob(ctx context.Context, namespace, name string) (*v1alpha1.ScaledJob, error) {
	sj := &v1alpha1.ScaledJob{}
	err := b.keda.Get().Resource(scaledJobs).Namespace(namespace).Name(name).Do(ctx).Into(sj)
	return sj, err
}

// listEvents returns the events of ScaledJobs, oldest first. Without the right to read events there are none: they are
// no more than a help.
func (b *Backend) listEvents(ctx context.Context, namespace string) (map[types.UID][]control.Event, error) {
	selector := fields.OneTermEqualSelector("involvedObject.kind", v1alpha1.KindScaledJob).String()
	items, err := inPieces(metav1.ListOptions{FieldSelector: selector},
		func(options metav1.ListOptions) (*corev1.EventList, error) {
			return b.core.Events(namespace).List(ctx, options)
		},
		func(list *corev1.EventList) []corev1.Event { return list.Items })
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	events := map[types.UID][]control.Event{}
	for i := range items {
		uid := items[i].InvolvedObject.UID
		events[uid] = append(events[uid], eventOf(&items[i]))
	}
	for _, list := range events {
		slices.SortStableFunc(list, func(a, b control.Event) int { return a.Last.Compare(b.Last.Time) })
	}
	return events, err
}

// eventOf reads an event of either of the two ways in which they are written: counted by the event itself, or as a
// series.
func eventOf(event *corev1.Event) control.Event {
	first, last, times := event.FirstTimestamp, event.LastTimestamp, int(event.Count)
	if first.IsZero() {
		first = metav1.NewTime(event.EventTime.Time)
	}
	if event.Series != nil {
		last, times = metav1.NewTime(event.Series.LastObservedTime.Time), int(event.Series.Count)
	}
	if last.IsZero() {
		last = first
	}
	return control.Event{
		Type: event.Type, Reason: event.Reason, Message: event.Message, Count: max(1, times), First: first, Last: last,
	}
}

// checkNamespace returns an error when the namespace is known not to exist: then it is no wonder that nothing is in it.
func (b *Backend) checkNamespace(ctx context.Context, namespace string) error {
	if namespace == "" {
		return nil
	}
	if _, err := b.core.Namespaces().Get(ctx, namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return control.Errorf(control.NotFound, "namespace %q does not exist on the cluster of %s", namespace, b.Name)
	}
	return nil
}

// pieceSize is how many objects one request asks for, so that the server's memory is bounded.
const pieceSize = 500

// inPieces lists all objects, some at a time.
func inPieces[T any, L metav1.ListInterface](
	options metav1.ListOptions, list func(metav1.ListOptions) (L, error), itemsOf func(L) []T,
) ([]T, error) {
	var all []T
	options.Limit = pieceSize
	for {
		piece, err := list(options)
		if apierrors.IsResourceExpired(err) && options.Continue != "" {
			// The server no longer knows the state that the first piece was of.
			all, options.Continue, options.Limit = nil, "", 0
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, itemsOf(piece)...)
		if options.Continue = piece.GetContinue(); options.Continue == "" {
			return all, nil
		}
	}
}
