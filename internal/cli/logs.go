package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/kube/backend"
)

type logsFlags struct {
	where
	container, pod   string
	follow, previous bool
	tail             int64
}

func (a *app) logsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:   "logs JOB",
		Short: "Print the output of a Job",
		Long: `Print what a Job has written, standard output and standard error together, byte for byte.

A Job that was retried or works in parallel has several Pods. Their outputs are printed one after the other, oldest
first, with [pod/NAME/CONTAINER] in front of each line; --pod chooses one of them and leaves that out. A Pod with
several containers is represented by its first one unless --container names another.

With --follow, output is printed as it comes, also that of later Pods, until the Job has ended.

` + whereHelp + "\n\n" + exitHelp,
		Example: `  offboard logs usertask-x7k2p
  offboard logs job/usertask-x7k2p --follow
  offboard logs usertask-x7k2p --tail 20
  offboard logs usertask-x7k2p -c prepare --previous`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.follow && f.previous {
				return usageErrorf("--previous is about a run that has ended: it does not go with --follow")
			}
			if f.tail < -1 {
				return usageErrorf("--tail must be a number of lines, or -1 for all, not %d", f.tail)
			}
			return a.withTarget(cmd.Context(), &f.where, backend.Need{}, func(t *target) error {
				l := &logs{app: a, target: t, flags: f, job: jobName(args[0])}
				return l.run(cmd.Context())
			})
		},
		ValidArgsFunction: firstOnly(a.completeFrom(&f.where, jobNames)),
	}
	a.whereVar(cmd, &f.where)
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on printing until the Job has ended")
	flags.BoolVarP(&f.previous, "previous", "p", false, "print the container's run before the present one")
	flags.StringVarP(&f.container, "container", "c", "", "name of the container (default the first one)")
	flags.StringVar(&f.pod, "pod", "", "name of the Pod (default all of the Job)")
	flags.Int64Var(&f.tail, "tail", -1, "number of last lines to print, -1 for all")
	complete(cmd, "container", a.logParts(&f, containerNames))
	complete(cmd, "pod", a.logParts(&f, podNames))
	return cmd
}

// logParts completes with names from the Job that is the first argument.
func (a *app) logParts(f *logsFlags, names func(control.JobInfo) []string) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeFrom(&f.where, func(ctx context.Context, t *target, namespace string) ([]string, error) {
			if len(args) == 0 {
				return nil, nil
			}
			info, err := t.Job(ctx, namespace, jobName(args[0]))
			if err != nil {
				return nil, err
			}
			return names(info), nil
		})(cmd, nil, begun)
	}
}

func containerNames(info control.JobInfo) []string {
	var names []string
	spec := info.Job.Spec.Template.Spec
	for _, container := range slices.Concat(spec.Containers, spec.InitContainers) {
		names = append(names, container.Name)
	}
	return names
}

func podNames(info control.JobInfo) []string {
	var names []string
	for _, pod := range info.Pods {
		names = append(names, pod.Name)
	}
	return names
}

// logs prints the output of one Job.
type logs struct {
	*app
	target *target
	flags  logsFlags
	job    string
	// prefixed tells that the output of several Pods is mixed, so that each line says whose it is.
	prefixed bool
	mu       sync.Mutex
}

// part is one run of a container, whose output is one stream.
type part struct {
	pod, container string
	run            int32
	ended          bool
	// trouble says why it has no output, when its container could not be started.
	trouble string
}

func (l *logs) run(ctx context.Context) error {
	info, err := l.find(ctx)
	if err != nil {
		return err
	}
	if err := l.check(info); err != nil {
		return err
	}
	spec := info.Job.Spec
	l.prefixed = l.flags.pod == "" && !l.flags.previous && (len(info.Pods) > 1 || severalPods(spec))
	if l.flags.follow {
		return l.follow(ctx, info)
	}
	parts := l.parts(info)
	if len(parts) == 0 {
		return l.silence(info)
	}
	if l.flags.previous {
		parts = parts[len(parts)-1:]
	}
	for _, p := range parts {
		if err := l.print(ctx, p, l.tail()); err != nil {
			return err
		}
	}
	return nil
}

// silence says why there is no output.
func (l *logs) silence(info control.JobInfo) error {
	for _, pod := range slices.Backward(info.Pods) {
		for _, status := range pod.Status.InitContainerStatuses {
			if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
				return fmt.Errorf("there is no output, because init container %s ended with exit code %d; see: "+
					"%s logs %s -c %s", status.Name, ended.ExitCode, l.name(), l.job, status.Name)
			}
		}
	}
	if finished(info) {
		return fmt.Errorf("there is no output: Job %s is %s, and that container has not run; see: %s jobs %s -o yaml",
			l.job, stateOf(info), l.name(), l.job)
	}
	return fmt.Errorf("there is no output yet, because Job %s is %s; wait for it with: %s logs -f %s",
		l.job, stateOf(info), l.name(), l.job)
}

// severalPods tells whether a Job has several Pods even when none fails.
func severalPods(spec batchv1.JobSpec) bool {
	return spec.Parallelism != nil && *spec.Parallelism > 1 || spec.Completions != nil && *spec.Completions > 1
}

// find returns the Job.
func (l *logs) find(ctx context.Context) (control.JobInfo, error) {
	info, err := l.target.Job(ctx, l.flags.namespace, l.job)
	if control.ReasonOf(err) != control.NotFound {
		return info, err
	}
	names, listErr := jobNames(ctx, l.target, l.flags.namespace)
	if listErr != nil {
		return info, listErr
	}
	// The newest first, since they are more likely to be meant where a suggestion is made.
	slices.Reverse(names)
	return info, unknown("Job", l.job, l.flags.namespace, names)
}

// check refuses names that the Job does not have.
func (l *logs) check(info control.JobInfo) error {
	if name, names := l.flags.container, containerNames(info); name != "" && !slices.Contains(names, name) {
		return notFoundError(fmt.Sprintf("Job %s has no container %q%s", l.job, name, didYouMean(name, names)))
	}
	if name, names := l.flags.pod, podNames(info); name != "" && !slices.Contains(names, name) {
		return notFoundError(fmt.Sprintf("Job %s has no Pod %q%s", l.job, name, didYouMean(name, names)))
	}
	return nil
}

// parts returns the runs of containers that have begun and whose output is asked for, oldest first.
func (l *logs) parts(info control.JobInfo) []part {
	var parts []part
	for _, pod := range info.Pods {
		if l.flags.pod != "" && pod.Name != l.flags.pod {
			continue
		}
		container := l.flags.container
		if container == "" && len(pod.Spec.Containers) > 0 {
			container = pod.Spec.Containers[0].Name
		}
		for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			begun := status.State.Running != nil || status.State.Terminated != nil || status.RestartCount > 0
			if status.Name == container && begun {
				ended := status.State.Terminated != nil || podEnded(pod)
				parts = append(parts, part{pod.Name, container, status.RestartCount, ended, troubleOf(status)})
			}
		}
	}
	return parts
}

func podEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// tail returns the number of lines to begin with; nil means all.
func (l *logs) tail() *int64 {
	if l.flags.tail < 0 {
		return nil
	}
	return &l.flags.tail
}

// follow prints what there is and what comes, until the Job has ended.
func (l *logs) follow(ctx context.Context, info control.JobInfo) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.followParts(ctx, group, info) })
	return group.Wait()
}

func (l *logs) followParts(ctx context.Context, group *errgroup.Group, info control.JobInfo) error {
	type key struct {
		pod, container string
		run            int32
	}
	seen := map[key]bool{}
	atFirst := l.tail()
	for {
		tail, before := atFirst, len(seen)
		atFirst = nil // what comes later is printed from its beginning
		for _, p := range l.parts(info) {
			k := key{p.pod, p.container, p.run}
			if seen[k] {
				continue
			}
			seen[k] = true
			if !l.prefixed && before > 0 {
				_, _ = fmt.Fprintf(l.Err, "%s: following the next run: Pod %s\n", l.name(), printable(p.pod, 0))
			}
			if l.prefixed && !p.ended {
				group.Go(func() error { return l.print(ctx, p, tail) })
			} else if err := l.print(ctx, p, tail); err != nil {
				return err
			}
		}
		if len(seen) == before && l.complete(info) {
			return nil
		}
		if len(seen) == before {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(l.target.pause):
			}
		}
		var err error
		if info, err = l.find(ctx); err != nil {
			if control.ReasonOf(err) == control.NotFound {
				return nil // the Job has been removed, so it has ended
			}
			return err
		}
	}
}

// complete tells whether no further output can come.
func (l *logs) complete(info control.JobInfo) bool {
	if l.flags.pod != "" {
		for _, pod := range info.Pods {
			if pod.Name == l.flags.pod {
				return podEnded(pod)
			}
		}
		return true
	}
	return finished(info)
}

// print copies the output of one run to the standard output.
func (l *logs) print(ctx context.Context, p part, tail *int64) error {
	if p.trouble != "" && !l.flags.previous {
		_, _ = fmt.Fprintf(l.Err, "%s: container %s of Pod %s: %s\n", l.name(), p.container, p.pod, printable(p.trouble, 0))
	}
	log, err := l.target.Logs(ctx, l.flags.namespace, l.job, control.LogOptions{
		Pod: p.pod, Container: p.container, Follow: l.flags.follow, Tail: tail, Previous: l.flags.previous,
	})
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if !l.prefixed {
		_, err = io.Copy(l.Out, log)
		return err
	}
	return l.copyLines(fmt.Appendf(nil, "[pod/%s/%s] ", p.pod, p.container), log)
}

// maxLine is the size in bytes from which a line is printed as several, so that memory is bounded.
const maxLine = 1 << 20

// copyLines prints each line with the prefix, and never mixes it with those of others.
func (l *logs) copyLines(prefix []byte, log io.Reader) error {
	reader := bufio.NewReaderSize(log, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			text := slices.Concat(prefix, line)
			if !bytes.HasSuffix(text, []byte("\n")) {
				text = append(text, '\n')
			}
			if err := l.write(text); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF: // and not an error that wraps it
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func (l *logs) write(text []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.Out.Write(text)
	return err
}
