package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// maxReport is how much of a runner's report on its item is shown.
const maxReport = 4 << 10

var _ control.Up = (*Engine)(nil)

func (e *Engine) serve(ctx context.Context) error {
	server := control.Server{Backend: e, Log: e.opts.Log}
	return server.Serve(ctx, e.listener)
}

// ScaledJobs implements control.Backend.
func (e *Engine) ScaledJobs(ctx context.Context, namespace string) ([]control.ScaledJobInfo, error) {
	var infos []control.ScaledJobInfo
	for _, sj := range e.store.List() {
		if namespace != "" && sj.Namespace != namespace {
			continue
		}
		info, err := e.scaledJob(ctx, sj)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (e *Engine) scaledJob(ctx context.Context, sj *v1alpha1.ScaledJob) (control.ScaledJobInfo, error) {
	key := sj.Key()
	view := e.controller.View(key)
	totals := e.store.Totals(key)
	info := control.ScaledJobInfo{
		Object: sj, Queue: view.Queue, Succeeded: totals.Succeeded, Failed: totals.Failed,
		LastReason: view.Decision.Reason, Events: e.events.of(key),
	}
	if sj.PausedByAnnotation() {
		info.LastReason = "paused"
	} else if ready := sj.Status.Conditions.Get(v1alpha1.ConditionReady); ready.Status != "True" && ready.Message != "" {
		info.LastReason = ready.Message
	}
	jobs, err := e.jobs.List(ctx, key)
	if err != nil {
		return info, err
	}
	for _, job := range jobs {
		switch how, _ := scaledjob.Finished(job.Job); {
		case how == "Complete":
			info.Succeeded++
		case how == "Failed":
			info.Failed++
		case scaledjob.Pending(job, sj.Spec.ScalingStrategy.PendingPodConditions):
			info.Pending++
		default:
			info.Running++
		}
	}
	return info, nil
}

// Jobs implements control.Backend.
func (e *Engine) Jobs(_ context.Context, namespace, scaledJob string) ([]control.JobInfo, error) {
	var infos []control.JobInfo
	for _, job := range e.jobs.ListAll(namespace) {
		if scaledJob == "" || job.Labels[v1alpha1.LabelScaledJob] == scaledJob {
			infos = append(infos, e.jobInfo(job))
		}
	}
	return infos, nil
}

// Job implements control.Backend.
func (e *Engine) Job(_ context.Context, namespace, name string) (control.JobInfo, error) {
	job, err := e.jobs.Get(namespace, name)
	if err != nil {
		return control.JobInfo{}, err
	}
	return e.jobInfo(job), nil
}

func (e *Engine) jobInfo(job scaledjob.Job) control.JobInfo {
	return control.JobInfo{Job: job.Job, Pods: job.Pods, Item: e.item(job)}
}

// item returns what the newest of the Job's runners reported to have taken, or else what the Job was handed.
func (e *Engine) item(job scaledjob.Job) string {
	for _, pod := range slices.Backward(job.Pods) {
		for _, container := range pod.Spec.Containers {
			if item := readHead(e.jobs.ReportPath(pod, container.Name), maxReport); len(item) > 0 {
				return string(item)
			}
		}
	}
	return job.Annotations[v1alpha1.AnnotationItem]
}

// readHead returns the beginning of a file; nothing when it cannot be read.
func readHead(path string, limit int64) []byte {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	var head bytes.Buffer
	if _, err := io.Copy(&head, io.LimitReader(file, limit)); err != nil {
		return nil
	}
	return head.Bytes()
}

// Logs implements control.Backend.
func (e *Engine) Logs(
	ctx context.Context, namespace, name string, opts control.LogOptions,
) (io.ReadCloser, error) {
	job, err := e.jobs.Get(namespace, name)
	if err != nil {
		return nil, err
	}
	pod, status, err := opts.Choose(control.JobInfo{Job: job.Job, Pods: job.Pods})
	if err != nil {
		return nil, err
	}
	container, run := status.Name, status.RestartCount
	if opts.Previous {
		if run--; run < 0 {
			return nil, control.Errorf(control.NotFound, "container %s of Pod %s has no previous run", container, pod.Name)
		}
	}
	read := logs.Options{TailLines: opts.Tail}
	if opts.Follow && !opts.Previous {
		read.Follow = func() bool { return e.writes(namespace, name, pod.Name, container, run) }
	}
	return logs.Open(ctx, e.jobs.LogPath(pod, container, run), read)
}

// writes tells whether that run of the container may still write to its log.
func (e *Engine) writes(namespace, job, pod, container string, run int32) bool {
	found, err := e.jobs.Get(namespace, job)
	if err != nil {
		return false
	}
	for _, p := range found.Pods {
		if p.Name != pod {
			continue
		}
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return false
		}
		for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if status.Name == container {
				return status.RestartCount == run && status.State.Terminated == nil
			}
		}
		return true
	}
	return false
}

// SetPaused implements control.Backend.
func (e *Engine) SetPaused(_ context.Context, namespace, scaledJob string, paused bool) (bool, error) {
	key := types.NamespacedName{Namespace: namespace, Name: scaledJob}
	changed, err := e.store.SetPaused(key, paused)
	if changed {
		e.controller.Changed(key)
	}
	if byManifest := (*objects.PausedByManifestError)(nil); errors.As(err, &byManifest) {
		err = control.Errorf(control.BadRequest, "%w", err)
	}
	return changed, err
}

// Info implements control.Up.
func (e *Engine) Info(context.Context) (control.Info, error) {
	return control.Info{
		Version: e.opts.Version, PID: os.Getpid(), DataDir: e.opts.DataDir,
		Redis: e.local().Redis, Manifests: e.opts.Paths,
	}, nil
}
