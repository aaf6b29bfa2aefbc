package local

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/local/objects"
	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/podenv"
)

// inheritedVariables are what a process gets of the environment of `offboard up`: what it needs to find programs, its
// home and its language. Nothing else is passed on, as a container gets nothing of its host's environment.
var inheritedVariables = []string{"HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}

// commands turns containers into commands.
type commands struct {
	objects podenv.Objects
	// env returns the variables that every container has unless its manifest sets them.
	env func() []podenv.Variable
	// annotations returns those of a Job.
	annotations func(namespace, job string) map[string]string
	// item returns the file of the item that a Pod's Job was handed; empty when it was handed none as a file.
	item func(pod *corev1.Pod) string
	// inherited are the variables of this process that containers get, as "name=value".
	inherited []string
	log       *slog.Logger
}

// inherited returns the variables that every process gets. The folder of this program is at the end of its PATH, so
// that a command may be `offboard runner` without offboard having been installed.
func inherited() []string {
	var environ []string
	for _, name := range inheritedVariables {
		if value, set := os.LookupEnv(name); set {
			environ = append(environ, name+"="+value)
		}
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	if program, err := os.Executable(); err == nil {
		path += string(os.PathListSeparator) + filepath.Dir(program)
	}
	return append(environ, "PATH="+path)
}

// of returns what a container runs, with its environment and where.
func (c *commands) of(ctx context.Context, pod *corev1.Pod, container *corev1.Container) (pods.Command, error) {
	container = c.withItem(pod, container)
	env, err := podenv.ForContainer(ctx, c.objects, pod, container, c.env())
	if err != nil {
		return pods.Command{}, err
	}
	for _, skipped := range env.Skipped() {
		c.log.Warn("Keys are no valid names of variables and were left out", "pod", pod.Name,
			"container", container.Name, "source", skipped.Source, "keys", strings.Join(skipped.Keys, ", "))
	}
	args, err := podenv.Argv(container, env)
	if err != nil {
		return pods.Command{}, err
	}
	dir, err := c.dir(pod, container)
	if err != nil {
		return pods.Command{}, err
	}
	return pods.Command{Args: args, Env: env.Environ(c.inherited), Dir: dir}, nil
}

// withItem returns the container with the variable that names the file of its item: before its own, which may refer to
// it, and not to be replaced by one of envFrom.
func (c *commands) withItem(pod *corev1.Pod, container *corev1.Container) *corev1.Container {
	path := c.item(pod)
	if path == "" {
		return container
	}
	with := *container
	variable := corev1.EnvVar{Name: v1alpha1.ItemVariableFile, Value: strings.ReplaceAll(path, "$", "$$")}
	with.Env = slices.Concat([]corev1.EnvVar{variable}, container.Env)
	return &with
}

// dir is where a container works: its workingDir, from the folder of the manifest if it is relative.
func (c *commands) dir(pod *corev1.Pod, container *corev1.Container) (string, error) {
	if filepath.IsAbs(container.WorkingDir) {
		return container.WorkingDir, nil
	}
	folder := c.annotations(pod.Namespace, pod.Labels[batchv1.JobNameLabel])[objects.AnnotationFolder]
	if folder == "" {
		return "", fmt.Errorf("container %q: the Job does not tell the folder of its manifest (annotation %s); "+
			"give workingDir as an absolute path", container.Name, objects.AnnotationFolder)
	}
	return filepath.Join(folder, container.WorkingDir), nil
}
