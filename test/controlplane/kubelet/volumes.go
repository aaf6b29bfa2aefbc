package kubelet

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/local/pods"
)

// enter is the script that runs a container with its mounts.
//
//go:embed enter.sh
var enter string

// tokenPath is where every Pod has the token of its service account, which few use: it is left out.
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// mount is a file or folder and where a container has it.
type mount struct {
	source, target string
	readOnly       bool
}

// mounts makes what a container mounts, and returns where it is.
func (k *Kubelet) mounts(ctx context.Context, pod *corev1.Pod, container *corev1.Container) ([]mount, error) {
	var mounts []mount
	for _, m := range container.VolumeMounts {
		if m.MountPath == tokenPath {
			continue
		}
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			if volume.Name != m.Name || volume.EmptyDir != nil && !haveMounts() {
				continue
			}
			made, err := k.mount(ctx, pod, volume, m)
			if err != nil {
				return nil, fmt.Errorf("container %q mounts volume %q at %s: %w", container.Name, volume.Name, m.MountPath, err)
			}
			mounts = append(mounts, made)
		}
	}
	return mounts, nil
}

func (k *Kubelet) mount(
	ctx context.Context, pod *corev1.Pod, volume *corev1.Volume, m corev1.VolumeMount,
) (mount, error) {
	dir, err := k.materialize(ctx, pod, volume)
	if err != nil {
		return mount{}, err
	}
	made := mount{source: filepath.Join(dir, m.SubPath), target: filepath.Clean(m.MountPath), readOnly: m.ReadOnly}
	if err := mountable(made.target); err != nil {
		return mount{}, err
	}
	if volume.EmptyDir == nil {
		made.readOnly = true
		_, err = os.Stat(made.source)
	} else {
		err = makeDir(made.source)
	}
	return made, err
}

// haveMounts tells whether containers can have mounts. Without, an emptyDir is left out: a container can write to the
// machine instead.
func haveMounts() bool { return runtime.GOOS == "linux" && os.Geteuid() == 0 }

// mountable refuses a mount point that would have to be made in a folder of the machine.
func mountable(target string) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(target, "/"), "/")
	if _, err := os.Lstat("/" + top); err == nil && "/"+top != target {
		return fmt.Errorf("the test kubelet makes no mount points below /%s, which the machine has", top)
	}
	return nil
}

// materialize makes the folder of a volume, unless it is there.
func (k *Kubelet) materialize(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) (string, error) {
	dir := filepath.Join(k.podDir(pod.UID), "volumes", volume.Name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	var files map[string]file
	var err error
	switch {
	case volume.EmptyDir != nil:
	case volume.Secret != nil:
		files, err = k.secretFiles(ctx, pod.Namespace, volume.Secret.SecretName, volume.Secret.Items, volume.Secret.Optional)
		setModes(files, volume.Secret.DefaultMode)
	case volume.ConfigMap != nil:
		of := volume.ConfigMap
		files, err = k.configMapFiles(ctx, pod.Namespace, of.Name, of.Items, of.Optional)
		setModes(files, of.DefaultMode)
	case volume.Projected != nil:
		files, err = k.projectedFiles(ctx, pod.Namespace, volume.Projected)
	default:
		err = errors.New("the test kubelet has no volumes but emptyDir, secret, configMap and projected")
	}
	if err != nil {
		return "", err
	}
	if !haveMounts() {
		return "", errors.New("the test kubelet mounts on Linux and as root only")
	}
	return dir, writeVolume(dir, files)
}

// writeVolume makes the folder of a volume at once, since several containers of a Pod may want it at the same time.
func writeVolume(dir string, files map[string]file) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), ".part-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(part) }()
	for name, file := range files {
		path := filepath.Join(part, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // whoever a container runs as
			return err
		}
		if err := os.WriteFile(path, file.data, file.mode); err != nil {
			return err
		}
		if err := os.Chmod(path, file.mode); err != nil {
			return err
		}
	}
	if err := os.Chmod(part, 0o777); err != nil { //nolint:gosec // whoever a container runs as
		return err
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o777); err != nil { //nolint:gosec // whoever a container runs as
		return err
	}
	return os.Chmod(path, 0o777) //nolint:gosec // whoever a container runs as
}

// file is one file of a volume.
type file struct {
	data []byte
	mode os.FileMode // 0 stands for that of the volume
}

func setModes(files map[string]file, mode *int32) {
	for name, f := range files {
		if f.mode == 0 {
			f.mode = os.FileMode(uint32(ptr.Deref(mode, 0o644)))
			files[name] = f
		}
	}
}

func (k *Kubelet) projectedFiles(
	ctx context.Context, namespace string, projected *corev1.ProjectedVolumeSource,
) (map[string]file, error) {
	all := map[string]file{}
	for _, source := range projected.Sources {
		var files map[string]file
		var err error
		switch {
		case source.Secret != nil:
			files, err = k.secretFiles(ctx, namespace, source.Secret.Name, source.Secret.Items, source.Secret.Optional)
		case source.ConfigMap != nil:
			of := source.ConfigMap
			files, err = k.configMapFiles(ctx, namespace, of.Name, of.Items, of.Optional)
		default:
			err = errors.New("the test kubelet projects Secrets and ConfigMaps only")
		}
		if err != nil {
			return nil, err
		}
		for name, f := range files {
			all[name] = f
		}
	}
	setModes(all, projected.DefaultMode)
	return all, nil
}

func (k *Kubelet) secretFiles(
	ctx context.Context, namespace, name string, items []corev1.KeyToPath, optional *bool,
) (map[string]file, error) {
	secret, err := objects{k.client}.Secret(ctx, types.NamespacedName{Namespace: namespace, Name: name})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	return choose(secret.Data, items, optional)
}

func (k *Kubelet) configMapFiles(
	ctx context.Context, namespace, name string, items []corev1.KeyToPath, optional *bool,
) (map[string]file, error) {
	configMap, err := objects{k.client}.ConfigMap(ctx, types.NamespacedName{Namespace: namespace, Name: name})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := map[string][]byte{}
	for key, value := range configMap.Data {
		data[key] = []byte(value)
	}
	for key, value := range configMap.BinaryData {
		data[key] = value
	}
	return choose(data, items, optional)
}

func unlessOptional(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return nil
	}
	return err
}

// choose returns the items of the data as files, or all of it when there are none.
func choose(data map[string][]byte, items []corev1.KeyToPath, optional *bool) (map[string]file, error) {
	files := map[string]file{}
	if len(items) == 0 {
		for key, value := range data {
			files[key] = file{data: value}
		}
		return files, nil
	}
	for _, item := range items {
		value, found := data[item.Key]
		switch {
		case found:
			mode := os.FileMode(uint32(ptr.Deref(item.Mode, 0)))
			files[item.Path] = file{data: value, mode: mode}
		case !ptr.Deref(optional, false):
			return nil, fmt.Errorf("references non-existent key: %s", item.Key)
		}
	}
	return files, nil
}

// within returns a command that runs the other one with the mounts.
func (k *Kubelet) within(
	pod *corev1.Pod, container string, mounts []mount, command pods.Command,
) (pods.Command, error) {
	root := filepath.Join(k.podDir(pod.UID), "roots", container)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return pods.Command{}, err
	}
	args := []string{"/usr/bin/unshare", "--mount", "/bin/sh", "-c", enter, "enter.sh", root, command.Dir}
	for _, m := range mounts {
		access := "rw"
		if m.readOnly {
			access = "ro"
		}
		args = append(args, m.source, m.target, access)
	}
	command.Args = append(append(args, "--"), command.Args...)
	command.Dir = k.workDir(pod.UID)
	return command, nil
}
