package kubelet_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestVolumes mounts what there is to mount where the machine has nothing, and over something that it has. What one
// container writes, the next one reads, and the machine is as before.
func TestVolumes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	out := filepath.Join(t.TempDir(), "out")
	secret := corev1.LocalObjectReference{Name: "secret"}
	configMap := corev1.LocalObjectReference{Name: "settings"}
	pod := template(`cat "$FILE" /offboard-test-made/by-first /etc/hostname >"$OUT"
		ls /offboard-test-all >>"$OUT"
		stat -c %a "$FILE" >>"$OUT"
		pwd >>"$OUT"
		if echo x 2>/dev/null >"$FILE"; then echo written >>"$OUT"; fi`)
	pod.Spec.InitContainers = template("tr a-z A-Z </offboard-test-secret/deep/item >/made/by-first").Spec.Containers
	pod.Spec.InitContainers[0].Name = "first"
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "one", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: ptr.To[int32](0o444),
			Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
				LocalObjectReference: secret, Items: []corev1.KeyToPath{{Key: "item", Path: "whole"}},
			}}},
		}}},
		{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: secret}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: configMap}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: ptr.To(true),
				}},
			},
		}}},
		{Name: "settings", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: configMap},
		}},
		{Name: "made", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	pod.Spec.InitContainers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "one", MountPath: "/offboard-test-secret/deep/item", SubPath: "whole"}, {Name: "made", MountPath: "/made"},
	}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "one", MountPath: "/offboard-test-item", SubPath: "whole", ReadOnly: true},
		{Name: "made", MountPath: "/offboard-test-made", ReadOnly: true},
		{Name: "settings", MountPath: "/etc/hostname", SubPath: "name"},
		{Name: "all", MountPath: "/offboard-test-all"},
	}
	c.Env = []corev1.EnvVar{{Name: "FILE", Value: "/offboard-test-item"}, {Name: "OUT", Value: out}}
	hostname, err := os.ReadFile("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	made := e.pod("pod", pod)
	e.untilPod("pod", "waits for its Secret", func(pod *corev1.Pod) bool {
		s := pod.Status.InitContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, `"secret" not found`)
	})
	for name, object := range map[string]map[string]string{"secret": {"item": "item\n"}, "settings": {"name": "nobody\n"}} {
		meta := metav1.ObjectMeta{Name: name}
		if name == "secret" {
			_, err = e.Client().CoreV1().Secrets(e.namespace).Create(t.Context(),
				&corev1.Secret{ObjectMeta: meta, StringData: object}, metav1.CreateOptions{})
		} else {
			_, err = e.Client().CoreV1().ConfigMaps(e.namespace).Create(t.Context(),
				&corev1.ConfigMap{ObjectMeta: meta, Data: object}, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.untilPhase("pod", corev1.PodSucceeded)
	got, err := os.ReadFile(out)
	work := filepath.Join(e.Dir(), "pods", string(made.UID), "work")
	if want := "item\nITEM\nnobody\nitem\nname\n444\n" + work + "\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, path := range []string{"/offboard-test-item", "/offboard-test-secret", "/offboard-test-made", "/offboard-test-all", "/made"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("the machine has %s now", path)
		}
	}
	if now, err := os.ReadFile("/etc/hostname"); err != nil || !bytes.Equal(now, hostname) {
		t.Errorf("the machine is called %q now, %v", now, err)
	}
	mounted, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounted), string(made.UID)) {
		t.Errorf("there are mounts left: %v", err)
	}
}

// TestNoMountPointOnTheMachine has a mount point that would have to be made in a folder of the machine.
func TestNoMountPointOnTheMachine(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("true")
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/etc/offboard-test"}}
	e.pod("pod", pod)
	e.untilPod("pod", "waits", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, "no mount points below /etc")
	})
	if _, err := os.Lstat("/etc/offboard-test"); err == nil {
		t.Error("it was made")
	}
}

// TestEntrypoint runs an image that the kubelet knows.
func TestEntrypoint(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("")
	pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args = nil, []string{"one", "two"}
	pod.Spec.Containers[0].Image = "registry.example/echo:1"
	e.pod("pod", pod)
	e.untilPhase("pod", corev1.PodSucceeded)
	if got := e.mustKubectl("logs", "pod"); got != "says one two\n" {
		t.Errorf("got the log %q", got)
	}
}
