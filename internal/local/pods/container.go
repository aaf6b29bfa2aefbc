package pods

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/local/process"
)

// Reasons of a waiting container, in the words of Kubernetes.
const (
	reasonInitializing = "PodInitializing"
	reasonConfigError  = "CreateContainerConfigError"
	reasonCreateError  = "CreateContainerError"
)

// ReasonCrashLoop is the reason of a container that waits to be started again after it has failed. Until it is, its
// restart count is that of the run before.
const ReasonCrashLoop = "CrashLoopBackOff"

// container is one container of a Pod over all its runs. Its state is guarded by the Pod's mu.
type container struct {
	pod  *pod
	spec *corev1.Container
	init bool

	process     *process.Process // nil while none runs
	state, last corev1.ContainerState
	id          string
	restarts    int32
}

func newContainer(p *pod, spec *corev1.Container, init bool, reason string) *container {
	return &container{pod: p, spec: spec, init: init, state: waiting(reason, "")}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// run runs the container as often as the restartPolicy says, and tells whether it has succeeded in the end.
func (c *container) run() bool {
	var crashes crashBackoff
	for {
		ended, ok := c.runOnce()
		if !ok {
			return false
		}
		c.pod.change(func() { c.process, c.state = nil, corev1.ContainerState{Terminated: ended} })
		if !c.restartAfter(ended.ExitCode) || c.pod.stopped.Err() != nil {
			return ended.ExitCode == 0
		}
		if wait := crashes.next(c.pod.runner.cfg.Clock.Now()); wait > 0 {
			message := fmt.Sprintf("started again %s after it ended with exit code %d", wait, ended.ExitCode)
			c.wait(ReasonCrashLoop, message)
			if !c.pod.sleep(wait) {
				return false
			}
		}
		c.beforeRestart()
	}
}

func (c *container) restartAfter(exitCode int32) bool {
	switch c.pod.spec.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default: // Always, also when not set
		return exitCode != 0 || !c.init
	}
}

// wait publishes that the container waits. How it last ended stays visible.
func (c *container) wait(reason, message string) {
	c.pod.change(func() {
		if c.state.Terminated != nil {
			c.last = c.state
		}
		c.state = waiting(reason, message)
	})
}

// endedBefore tells whether the container had ended by then, not to be started again. The Pod's mu is held.
func (c *container) endedBefore(at time.Time) bool {
	ended := c.state.Terminated
	return ended != nil && !ended.FinishedAt.After(at) && !c.restartAfter(ended.ExitCode)
}

// settle is called with the Pod's mu held, when it has finished: a container that waits to be restarted will not be.
func (c *container) settle() {
	if c.state.Waiting != nil && c.last.Terminated != nil {
		c.state, c.last = c.last, corev1.ContainerState{}
	}
}

// beforeRestart keeps the logs of the last run and of the one to come. What the last run reported stays until the next
// one has something to report: it may find that nothing is left to do.
func (c *container) beforeRestart() {
	cfg := &c.pod.runner.cfg
	if c.restarts > 0 {
		c.warn("remove an old log", logs.Remove(cfg.LogPath(c.pod.spec, c.spec.Name, c.restarts-1)))
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	c.restarts++
}

// runOnce starts the container and waits for its end. It is not ok if the Pod was stopped before it could start.
func (c *container) runOnce() (ended *corev1.ContainerStateTerminated, ok bool) {
	var retries configBackoff
	for c.pod.stopped.Err() == nil {
		running, err := c.start()
		if err == nil {
			return c.watch(running), true
		}
		reason := reasonConfigError
		if failed, isStart := errors.AsType[*process.StartError](err); isStart {
			if !failed.Temporary {
				return startFailed(failed, metav1.NewTime(c.pod.runner.cfg.Clock.Now())), true
			}
			reason = reasonCreateError
		}
		if c.pod.stopped.Err() != nil {
			break
		}
		c.wait(reason, err.Error())
		if !c.pod.sleep(retries.next()) {
			break
		}
	}
	return nil, false
}

// start starts the process. The error is a *process.StartError, or one of Config.Command.
func (c *container) start() (*process.Process, error) {
	cfg := &c.pod.runner.cfg
	command, err := cfg.Command(c.pod.stopped, c.pod.spec, c.spec)
	if err != nil {
		return nil, err
	}
	running, err := process.Start(process.Spec{
		Args:      command.Args,
		Dir:       command.Dir,
		Env:       c.environment(command.Env),
		Label:     string(c.pod.spec.UID),
		LogPath:   cfg.LogPath(c.pod.spec, c.spec.Name, c.restarts),
		LogLimits: cfg.LogLimits,
		OnDrop:    func(err error) { c.warn("store the output", err) },
		Kept:      c.kept(),
	})
	if err != nil {
		return nil, err
	}
	if cfg.RecordStart != nil {
		cfg.RecordStart(c.pod.spec, c.spec.Name, running.PID(), running.StartID())
	}
	return running, nil
}

// kept says where the exit status of the run that is about to start is kept; nil for nowhere.
func (c *container) kept() *process.Kept {
	cfg := &c.pod.runner.cfg
	if cfg.Keeper == nil || cfg.ExitPath == nil {
		return nil
	}
	path := cfg.ExitPath(c.pod.spec)
	if path == "" {
		return nil
	}
	return &process.Kept{Keeper: cfg.Keeper, ExitPath: path, Container: c.spec.Name, Restarts: c.restarts}
}

func (c *container) environment(env []string) []string {
	if c.pod.runner.cfg.ReportPath == nil {
		return env
	}
	result := make([]string, 0, len(env)+1)
	for _, entry := range env {
		if !strings.HasPrefix(entry, ReportVar+"=") {
			result = append(result, entry)
		}
	}
	return append(result, ReportVar+"="+c.pod.runner.cfg.ReportPath(c.pod.spec, c.spec.Name))
}

// watch publishes that the container runs, and waits for its end.
func (c *container) watch(running *process.Process) *corev1.ContainerStateTerminated {
	c.pod.change(func() {
		if c.state.Terminated != nil {
			c.last = c.state
		}
		c.process, c.id = running, "process://"+running.ID()
		c.state = corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(running.StartedAt())},
		}
		if c.pod.stop != nil {
			// It was requested while the process was being started.
			running.Terminate(time.Until(c.pod.killAt))
		}
	})
	exit := running.Wait()
	ended := &corev1.ContainerStateTerminated{
		ExitCode:    int32(exit.Code),
		Signal:      int32(exit.Signal),
		Reason:      exit.Reason(),
		StartedAt:   metav1.NewTime(exit.StartedAt),
		FinishedAt:  metav1.NewTime(exit.FinishedAt),
		ContainerID: c.id,
	}
	if exit.DroppedBytes > 0 {
		ended.Message = fmt.Sprintf("%d bytes of output were dropped: %v", exit.DroppedBytes, exit.DropError)
	}
	return ended
}

func startFailed(err *process.StartError, now metav1.Time) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode:   int32(err.Code),
		Reason:     process.ReasonStartError,
		Message:    err.Message,
		StartedAt:  now,
		FinishedAt: now,
	}
}

// warn logs a failure that must not keep the container from running.
func (c *container) warn(what string, err error) {
	if err != nil {
		c.pod.runner.cfg.Log.Warn("A file of a container could not be handled", "doing", what,
			"namespace", c.pod.spec.Namespace, "pod", c.pod.spec.Name, "container", c.spec.Name, "error", err)
	}
}
