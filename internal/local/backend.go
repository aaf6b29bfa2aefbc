package local

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// maxReport is how much of a runner's report on its item is shown.
const maxReport = 4 << 10

var _ control.Backend = (*Engine)(nil)

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
	if ready := sj.Status.Conditions.Get(v1alpha1.ConditionReady); ready.Status != "True" && ready.Message != "" {
		info.LastReason = ready.Message
	} else if sj.PausedByAnnotation() {
		info.LastReason = "paused"
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
			infos = append(infos, control.JobInfo{Job: job.Job, Pods: job.Pods, Item: e.item(job)})
		}
	}
	return infos, nil
}

// item returns what the newest of the Job's runners reported to have taken.
func (e *Engine) item(job scaledjob.Job) string {
	for _, pod := range slices.Backward(job.Pods) {
		for _, container := range pod.Spec.Containers {
			if item := readHead(e.jobs.ReportPath(pod, container.Name), maxReport); len(item) > 0 {
				return string(item)
			}
		}
	}
	return ""
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
	pod, err := choosePod(job, opts.Pod)
	if err != nil {
		return nil, err
	}
	container, status, err := chooseContainer(pod, opts.Container)
	if err != nil {
		return nil, err
	}
	run := status.RestartCount
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

// choosePod returns the Job's Pod of that name, or its newest.
func choosePod(job scaledjob.Job, name string) (*corev1.Pod, error) {
	for _, pod := range slices.Backward(job.Pods) {
		if name == "" || pod.Name == name {
			return pod, nil
		}
	}
	if name == "" {
		return nil, control.Errorf(control.NotFound, "Job %s has had no Pod yet", job.Name)
	}
	return nil, control.Errorf(control.NotFound, "Job %s has no Pod %s", job.Name, name)
}

// chooseContainer returns the name of the container, or of the Pod's first, with its status.
func chooseContainer(pod *corev1.Pod, name string) (string, corev1.ContainerStatus, error) {
	var names []string
	for i, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		names = append(names, container.Name)
		if name != container.Name && (name != "" || i > 0) {
			continue
		}
		for _, status := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
			if status.Name == container.Name {
				return container.Name, status, nil
			}
		}
		return container.Name, corev1.ContainerStatus{}, nil
	}
	return "", corev1.ContainerStatus{}, control.Errorf(control.NotFound,
		"Pod %s has no container %q; it has %s", pod.Name, name, strings.Join(names, ", "))
}

// Push implements control.Backend: it appends to the queue of a ScaledJob's trigger.
func (e *Engine) Push(ctx context.Context, queue string, items [][]byte) (control.PushResult, error) {
	var known, unready []string
	for _, sj := range e.store.List() {
		triggers, err := e.controller.OpenTriggers(ctx, sj, e.local())
		if err != nil {
			unready = append(unready, fmt.Sprintf("; ScaledJob %s is not ready: %v", sj.Name, err))
			continue
		}
		defer func() {
			for _, t := range triggers {
				t.Close()
			}
		}()
		for _, t := range triggers {
			pusher, ok := t.(trigger.Pusher)
			if !ok {
				continue
			}
			known = append(known, fmt.Sprintf("%q", pusher.Queue()))
			if pusher.Queue() == queue {
				length, err := pusher.Push(ctx, items...)
				if err != nil {
					return control.PushResult{}, control.Errorf(control.Unavailable, "%v", err)
				}
				return control.PushResult{Length: length}, nil
			}
		}
	}
	text := "no ScaledJob has a queue that items can be pushed to"
	if len(known) > 0 {
		text = fmt.Sprintf("no ScaledJob reads the queue %q; there is %s", queue, strings.Join(known, ", "))
	}
	return control.PushResult{}, control.Errorf(control.NotFound, "%s%s", text, strings.Join(unready, ""))
}

// Info implements control.Backend.
func (e *Engine) Info(context.Context) (control.Info, error) {
	return control.Info{
		Version: e.opts.Version, PID: os.Getpid(), DataDir: e.opts.DataDir,
		Redis: e.local().Redis, Manifests: e.opts.Paths,
	}, nil
}
