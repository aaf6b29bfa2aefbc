package backend

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/runner"
)

// Jobs implements control.Backend. It returns the Jobs that were made for ScaledJobs, as their label tells.
func (b *Backend) Jobs(ctx context.Context, namespace, scaledJob string) ([]control.JobInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	selector := v1alpha1.LabelScaledJob
	if scaledJob != "" {
		selector = labels.Set{v1alpha1.LabelScaledJob: scaledJob}.String()
	}
	infos, err := b.listJobs(ctx, namespace, selector)
	if err != nil {
		return nil, b.explain(err)
	}
	if len(infos) == 0 {
		return nil, b.checkNamespace(ctx, namespace)
	}
	return infos, nil
}

// Job implements control.Backend.
func (b *Backend) Job(ctx context.Context, namespace, name string) (control.JobInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	job, err := b.batch.Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return control.JobInfo{}, b.explain(err)
	}
	pods, err := b.listPods(ctx, namespace, labels.Set{batchv1.JobNameLabel: name}.String())
	if err != nil {
		return control.JobInfo{}, b.explain(err)
	}
	return jobInfo(job, pods[job.UID]), nil
}

func jobInfo(job *batchv1.Job, pods []*corev1.Pod) control.JobInfo {
	return control.JobInfo{Job: job, Pods: pods, Item: cmp.Or(item(pods), job.Annotations[v1alpha1.AnnotationItem])}
}

// item returns what the newest of the Job's runners reported to have taken.
func item(pods []*corev1.Pod) string {
	for _, pod := range slices.Backward(pods) {
		for _, status := range pod.Status.ContainerStatuses {
			ended := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
			if ended == nil {
				continue
			}
			if item, found := runner.ReportedItem(ended.Message); found {
				return item
			}
		}
	}
	return ""
}

// listJobs returns the Jobs with their Pods, oldest first. Pods carry the label of their ScaledJob too.
func (b *Backend) listJobs(ctx context.Context, namespace, selector string) ([]control.JobInfo, error) {
	var (
		jobs []batchv1.Job
		pods map[types.UID][]*corev1.Pod
	)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		jobs, err = inPieces(metav1.ListOptions{LabelSelector: selector},
			func(options metav1.ListOptions) (*batchv1.JobList, error) {
				return b.batch.Jobs(namespace).List(ctx, options)
			},
			func(list *batchv1.JobList) []batchv1.Job { return list.Items })
		return err
	})
	group.Go(func() (err error) {
		pods, err = b.listPods(ctx, namespace, selector)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	infos := make([]control.JobInfo, len(jobs))
	for i := range jobs {
		infos[i] = jobInfo(&jobs[i], pods[jobs[i].UID])
	}
	slices.SortFunc(infos, func(a, b control.JobInfo) int { return older(a.Job, b.Job) })
	return infos, nil
}

// listPods returns Pods by the UID of their Job, oldest first.
func (b *Backend) listPods(ctx context.Context, namespace, selector string) (map[types.UID][]*corev1.Pod, error) {
	items, err := inPieces(metav1.ListOptions{LabelSelector: selector},
		func(options metav1.ListOptions) (*corev1.PodList, error) {
			return b.core.Pods(namespace).List(ctx, options)
		},
		func(list *corev1.PodList) []corev1.Pod { return list.Items })
	pods := map[types.UID][]*corev1.Pod{}
	for i := range items {
		if owner := metav1.GetControllerOf(&items[i]); owner != nil {
			pods[owner.UID] = append(pods[owner.UID], &items[i])
		}
	}
	for _, ofJob := range pods {
		slices.SortFunc(ofJob, func(a, b *corev1.Pod) int { return older(a, b) })
	}
	return pods, err
}

// older compares by age, then by namespace and name.
func older(a, b metav1.Object) int {
	made, other := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(made.Compare(other.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(a.GetName(), b.GetName()))
}

// Logs implements control.Backend, through the API server and the kubelet.
func (b *Backend) Logs(
	ctx context.Context, namespace, name string, opts control.LogOptions,
) (io.ReadCloser, error) {
	job, err := b.Job(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	pod, status, err := opts.Choose(job)
	if err != nil {
		return nil, err
	}
	switch {
	case opts.Previous && status.RestartCount == 0:
		return nil, control.Errorf(control.NotFound, "container %s of Pod %s has no previous run", status.Name, pod.Name)
	case status.State.Running == nil && status.State.Terminated == nil && status.RestartCount == 0:
		return io.NopCloser(strings.NewReader("")), nil // it has not started
	}
	log, err := b.core.Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		Container: status.Name, Follow: opts.Follow && !opts.Previous, Previous: opts.Previous, TailLines: opts.Tail,
	}).Stream(ctx)
	if err != nil {
		return nil, b.explain(err)
	}
	return log, nil
}

// SetPaused implements control.Backend: KEDA's annotation is what pauses.
func (b *Backend) SetPaused(ctx context.Context, namespace, name string, paused bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	sj, err := b.getScaledJob(ctx, namespace, name)
	if apierrors.IsNotFound(err) && !isUnknownResource(err) {
		if err := b.checkNamespace(ctx, namespace); err != nil {
			return false, err
		}
	}
	if err != nil {
		return false, b.explain(err)
	}
	if sj.PausedByAnnotation() == paused {
		return false, nil
	}
	patch := `{"metadata":{"annotations":{"` + v1alpha1.AnnotationPaused + `":null}}}`
	if paused {
		patch = `{"metadata":{"annotations":{"` + v1alpha1.AnnotationPaused + `":"true"}}}`
	}
	err = b.keda.Patch(types.MergePatchType).Resource(scaledJobs).Namespace(namespace).Name(name).
		Body([]byte(patch)).Do(ctx).Error()
	if err != nil {
		return false, b.explain(err)
	}
	return true, nil
}
