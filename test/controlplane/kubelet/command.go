package kubelet

import (
	"context"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/offboard-dev/offboard/internal/local/pods"
	"github.com/offboard-dev/offboard/internal/podenv"
)

// objects reads what an environment refers to from the API server, each time anew.
type objects struct{ client kubernetes.Interface }

// Secret implements podenv.Objects.
func (o objects) Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	return o.client.CoreV1().Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
}

// ConfigMap implements podenv.Objects.
func (o objects) ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	return o.client.CoreV1().ConfigMaps(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
}

// command returns what a container runs, with its environment and where.
func (k *Kubelet) command(ctx context.Context, pod *corev1.Pod, container *corev1.Container) (pods.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	mounts, err := k.mounts(ctx, pod, container)
	if err != nil {
		return pods.Command{}, err
	}
	env, err := podenv.ForContainer(ctx, objects{k.client}, pod, container, nil)
	if err != nil {
		return pods.Command{}, err
	}
	if len(container.Command) == 0 {
		container = container.DeepCopy()
		container.Command = k.options.Entrypoints[container.Image]
	}
	args, err := podenv.Argv(container, env)
	if err != nil {
		return pods.Command{}, err
	}
	dir := container.WorkingDir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(k.workDir(pod.UID), dir)
	}
	hostname := pod.Spec.Hostname
	if hostname == "" {
		hostname = pod.Name
	}
	inherited := append([]string{"HOSTNAME=" + hostname}, k.options.Env...)
	command := pods.Command{Args: args, Env: env.Environ(inherited), Dir: dir}
	if len(mounts) > 0 {
		return k.within(pod, container.Name, mounts, command)
	}
	return command, nil
}
