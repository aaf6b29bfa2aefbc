// Package pods runs Pods on this machine, each container as a session of operating-system processes: init containers
// in order, then all others at once, restarted as the Pod's restartPolicy says, with the back-off, the states and the
// status that users know from the kubelet.
//
// It holds nothing on disk and knows no Jobs: whoever starts a Pod is told of every status and keeps it. Volumes,
// probes, lifecycle hooks and images mean nothing here; whoever admits Pods refuses what a process cannot honour.
package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/offboard-dev/offboard/internal/local/logs"
	"github.com/offboard-dev/offboard/internal/local/process"
)

// ReportVar is the environment variable that names the file for a container's report, see Config.ReportPath.
const ReportVar = "OFFBOARD_REPORT"

// Command is what a container runs.
type Command struct {
	// Args is the command with its arguments, expanded.
	Args []string
	// Env is the whole environment, as "name=value".
	Env []string
	// Dir is the working directory.
	Dir string
}

// Config says where a Runner gets from what a Pod does not hold itself. The functions are called from several
// goroutines; the Pod that they are given, with its addresses and start time in its status, must not be modified.
type Config struct {
	// Command returns what a container runs; it is called before each start. An error, for example because a Secret
	// does not exist, makes the container wait with reason CreateContainerConfigError and is tried again after 1 s, 2 s
	// and so on up to 10 s. The context ends when the Pod is stopped. Required.
	Command func(ctx context.Context, pod *corev1.Pod, container *corev1.Container) (Command, error)
	// LogPath returns where the output of a container goes that was restarted so many times. Only the logs of the last
	// two runs are kept. Required.
	LogPath func(pod *corev1.Pod, container string, restarts int32) string
	// LogLimits bound the disk space of one run's output; zero values mean logs.DefaultLimits.
	LogLimits logs.Limits
	// ReportPath returns the file, given to the container in OFFBOARD_REPORT, into which it may write a short report.
	// A restarted container finds the file of its run before, and may replace it. Nil means that there is none.
	ReportPath func(pod *corev1.Pod, container string) string
	// RecordStart is called when the main process of a container has been started and before anything else is done, so
	// that process.KillLeftovers can be told of it after a crash. Nil means that nobody needs to know.
	RecordStart func(pod *corev1.Pod, container string, pid int, startID string)
	// Keeper, with ExitPath, has exit statuses outlive this program: ExitPath returns the file for those of a Pod, empty
	// for one that needs none. Nil means that no Pod does.
	Keeper   *process.Keeper
	ExitPath func(pod *corev1.Pod) string
	// Clock is for back-off and deadlines; nil means the real one.
	Clock clock.WithDelayedExecution
	// Log is told when a container's output cannot be stored; nil means nobody.
	Log *slog.Logger
}

// Runner runs Pods. Its methods may be called from several goroutines.
type Runner struct {
	cfg Config

	mu   sync.Mutex
	pods map[types.UID]*pod
}

// New returns a Runner.
func New(cfg Config) (*Runner, error) {
	if cfg.Command == nil || cfg.LogPath == nil {
		return nil, errors.New("pods: Config.Command and Config.LogPath are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{cfg: cfg, pods: map[types.UID]*pod{}}, nil
}

// Start runs the Pod until it has finished or is stopped, and returns at once. The Pod is copied.
//
// update is called with every new status, a fresh copy each, one after the other in the order in which they came about.
// The phase of the last is Succeeded or Failed. A container is restarted only after the update that shows how it ended
// has returned. update may call Start, Stop and Running, but not Wait.
//
// The error says that the Pod cannot be run at all; update is not called then.
func (r *Runner) Start(spec *corev1.Pod, update func(corev1.PodStatus)) error {
	if err := check(spec); err != nil {
		return fmt.Errorf("run pod %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	p := newPod(r, spec, update)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[spec.UID] != nil {
		p.cancel()
		return fmt.Errorf("run pod %s/%s: a pod with UID %s runs already", spec.Namespace, spec.Name, spec.UID)
	}
	r.pods[spec.UID] = p
	go p.run()
	return nil
}

// check refuses what would run in another way than the manifest says.
func check(spec *corev1.Pod) error {
	if spec.UID == "" {
		return errors.New("metadata.uid is empty: every pod needs its own")
	}
	if len(spec.Spec.Containers) == 0 {
		return errors.New("spec.containers is empty: a pod needs at least one container")
	}
	for _, list := range []struct {
		field      string
		containers []corev1.Container
	}{{"initContainers", spec.Spec.InitContainers}, {"containers", spec.Spec.Containers}} {
		for i, c := range list.containers {
			if c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 {
				return fmt.Errorf("spec.%s[%d] (%s): a restart policy of its own is not supported: "+
					"remove it, and set spec.restartPolicy of the pod", list.field, i, c.Name)
			}
		}
	}
	return nil
}

// Stop says how and why a Pod is stopped.
type Stop struct {
	// Grace is the time between SIGTERM and SIGKILL; nil means the Pod's terminationGracePeriodSeconds, by default 30 s.
	Grace *time.Duration
	// Reason and Message become those of the Pod's status, for example Reason DeadlineExceeded.
	Reason, Message string
	// Disruption tells that the cause is not the Pod's: its status gets the condition DisruptionTarget, with Reason and
	// Message, by which a Job can tell such Pods from those that have failed by themselves.
	Disruption bool
}

// Stop ends the Pod's containers; the last update then shows phase Failed and how each of them really ended. It returns
// at once, and tells whether the Pod runs. Stopping again can only shorten the grace period.
func (r *Runner) Stop(uid types.UID, stop Stop) bool {
	r.mu.Lock()
	p := r.pods[uid]
	r.mu.Unlock()
	return p != nil && p.requestStop(stop)
}

// Running returns the UIDs of the Pods whose last update has not returned yet, sorted.
func (r *Runner) Running() []types.UID {
	r.mu.Lock()
	defer r.mu.Unlock()
	uids := make([]types.UID, 0, len(r.pods))
	for uid := range r.pods {
		uids = append(uids, uid)
	}
	slices.SortFunc(uids, func(a, b types.UID) int { return strings.Compare(string(a), string(b)) })
	return uids
}

// Wait waits until no Pod runs. The error is that of ctx, and says how many still do.
func (r *Runner) Wait(ctx context.Context) error {
	for {
		p, count := r.any()
		if p == nil {
			return nil
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d pods to end: %w", count, ctx.Err())
		}
	}
}

func (r *Runner) any() (*pod, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		return p, len(r.pods)
	}
	return nil, 0
}

func (r *Runner) remove(p *pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, p.spec.UID)
	close(p.done)
}
