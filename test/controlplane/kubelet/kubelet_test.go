package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/test/controlplane"
)

func TestNodeIsReady(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	output := e.mustKubectl("get", "nodes", "--no-headers")
	if fields := strings.Fields(output); len(fields) < 2 || fields[0] != controlplane.NodeName || fields[1] != "Ready" {
		t.Errorf("got %s", output)
	}
}

// The story of a plain Job: its Pod is scheduled and run, with a value from a Secret, and its output is there.
func TestJobRuns(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.mustKubectl("create", "secret", "generic", "login", "--from-literal=password=open sesame")
	pod := template(`echo "$PASSWORD of $POD in $PWD"; echo oops >&2`)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "login"}, Key: "password",
		}}},
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['batch.kubernetes.io/job-name']"},
		}},
	}
	e.job("hello", batchv1.JobSpec{Template: pod})
	job := e.untilJob("hello", batchv1.JobComplete)
	if job.Status.Succeeded != 1 || job.Status.Failed != 0 {
		t.Errorf("got %+v", job.Status)
	}
	output := e.mustKubectl("logs", "job/hello")
	if !strings.HasPrefix(output, "open sesame of hello in "+e.Dir()) || !strings.HasSuffix(output, "\noops\n") {
		t.Errorf("got the log %q", output)
	}

	e.mustKubectl("delete", "job", "hello")
	e.untilGone()
}

func TestStatus(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	two := template("exit 3", "until [ -e go ]; do sleep 0.01; done")
	two.Spec.InitContainers = template("echo before").Spec.Containers
	two.Spec.InitContainers[0].Name = "first"
	e.pod("two", two)
	pod := e.untilPod("two", "has one container that ended and one that runs", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) == 2 && s[0].State.Terminated != nil && s[1].State.Running != nil
	})
	if pod.Status.Phase != corev1.PodRunning || pod.Status.StartTime == nil || pod.Status.PodIP != "127.0.0.1" ||
		pod.Status.HostIP != "127.0.0.1" || !pod.Status.InitContainerStatuses[0].Ready {
		t.Errorf("got %+v", pod.Status)
	}
	go1 := filepath.Join(e.Dir(), "pods", string(pod.UID), "work", "go")
	if err := os.WriteFile(go1, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pod = e.untilPhase("two", corev1.PodFailed)
	ended := pod.Status.ContainerStatuses[0].State.Terminated
	if ended.ExitCode != 3 || ended.Reason != "Error" || ended.FinishedAt.Before(&ended.StartedAt) {
		t.Errorf("got %+v", ended)
	}
	if ended := pod.Status.ContainerStatuses[1].State.Terminated; ended.ExitCode != 0 || ended.Reason != "Completed" {
		t.Errorf("got %+v", ended)
	}
	for _, want := range []string{
		"PodScheduled=True", "Initialized=True", "ContainersReady=False/PodFailed", "Ready=False/PodFailed",
	} {
		if got := conditions(pod); !strings.Contains(" "+got+" ", " "+want+" ") {
			t.Errorf("got the conditions %s, want %s", got, want)
		}
	}
}

func TestFailingJob(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.job("failing", batchv1.JobSpec{BackoffLimit: ptr.To[int32](0), Template: template("kill -TERM $$$$")})
	job := e.untilJob("failing", batchv1.JobFailed)
	if job.Status.Failed != 1 || job.Status.Conditions[0].Reason != batchv1.JobReasonBackoffLimitExceeded {
		t.Errorf("got %+v", job.Status)
	}
	pods, err := e.Client().CoreV1().Pods(e.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("got %d pods, %v", len(pods.Items), err)
	}
	if ended := pods.Items[0].Status.ContainerStatuses[0].State.Terminated; ended.ExitCode != 143 || ended.Signal != 15 {
		t.Errorf("got %+v", ended)
	}
}

func TestFailingContainerIsRestarted(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("[ -e again ] && { echo second; exit; }; touch again; echo first; exit 4")
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	e.pod("again", pod)
	status := e.untilPhase("again", corev1.PodSucceeded).Status.ContainerStatuses[0]
	if status.RestartCount != 1 || status.LastTerminationState.Terminated.ExitCode != 4 {
		t.Errorf("got %+v", status)
	}
	if got := e.mustKubectl("logs", "again"); got != "second\n" {
		t.Errorf("got the log %q", got)
	}
	if got := e.mustKubectl("logs", "again", "--previous"); got != "first\n" {
		t.Errorf("got the previous log %q", got)
	}
}

func TestDeletion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script string
		grace  int64
		before corev1.PodPhase // when it is deleted
		code   int32
		phase  corev1.PodPhase
	}{
		"that is heeded": {
			`trap "exit 0" TERM; touch ready; while :; do sleep 0.01; done`, 300, "Running", 0, "Succeeded",
		},
		"that is heeded badly": {
			`trap "exit 5" TERM; touch ready; while :; do sleep 0.01; done`, 300, "Running", 5, "Failed",
		},
		"that is not heeded":      {`trap "" TERM; touch ready; while :; do sleep 0.01; done`, 1, "Running", 137, "Failed"},
		"that is not noticed":     {`touch ready; exec sleep 1000`, 300, "Running", 143, "Failed"},
		"that comes after it all": {`touch ready`, 300, "Succeeded", 0, "Succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.t = t
			// A finalizer keeps the Pod, so that its last status can be seen.
			pod, err := e.Client().CoreV1().Pods(e.namespace).Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "pod", Finalizers: []string{"example.com/keep"}},
				Spec:       template(test.script).Spec,
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ready := filepath.Join(e.Dir(), "pods", string(pod.UID), "work", "ready")
			e.untilPod("pod", "is prepared", func(pod *corev1.Pod) bool {
				_, err := os.Stat(ready)
				return err == nil && pod.Status.Phase == test.before
			})
			err = e.Client().CoreV1().Pods(e.namespace).Delete(t.Context(), "pod",
				metav1.DeleteOptions{GracePeriodSeconds: &test.grace})
			if err != nil {
				t.Fatal(err)
			}
			pod = e.untilPod("pod", "is confirmed to be deleted", func(pod *corev1.Pod) bool {
				return pod.DeletionTimestamp != nil && *pod.DeletionGracePeriodSeconds == 0
			})
			ended := pod.Status.ContainerStatuses[0].State.Terminated
			if pod.Status.Phase != test.phase || ended == nil || ended.ExitCode != test.code {
				t.Errorf("got %s, %+v", pod.Status.Phase, ended)
			}
			e.mustKubectl("patch", "pod", "pod", "--type=merge", `--patch={"metadata":{"finalizers":null}}`)
			e.untilGone()
			e.untilRemoved(pod)
		})
	}
}

// untilRemoved waits until the kubelet has forgotten the Pod.
func (e *env) untilRemoved(pod *corev1.Pod) {
	e.t.Helper()
	until(e.t, "the pod's folder is removed", func(context.Context) (bool, error) {
		_, err := os.Stat(filepath.Join(e.Dir(), "pods", string(pod.UID)))
		return errors.Is(err, os.ErrNotExist), nil
	}, func(removed bool) bool { return removed })
}

func TestForcedDeletionKills(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := e.pod("pod", template(`trap "" TERM; while :; do sleep 0.01; done`))
	e.untilPhase("pod", corev1.PodRunning)
	e.mustKubectl("delete", "pod", "pod", "--force", "--grace-period=0")
	e.untilGone()
	e.untilRemoved(pod)
}

func TestPodWithoutCommandWaitsForItsImage(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("")
	pod.Spec.Containers[0].Command = nil
	e.pod("pod", pod)
	got := e.untilPod("pod", "waits", func(pod *corev1.Pod) bool { return len(pod.Status.ContainerStatuses) > 0 })
	waiting := got.Status.ContainerStatuses[0].State.Waiting
	if got.Status.Phase != corev1.PodPending || waiting == nil || waiting.Reason != "ErrImagePull" ||
		!strings.Contains(waiting.Message, "needs a command") {
		t.Errorf("got %+v", got.Status)
	}
	_, err := e.kubectl("logs", "pod")
	if err == nil || !strings.Contains(err.Error(), `container "c0" in pod "pod" is waiting to start: ErrImagePull`) {
		t.Errorf("got %v", err)
	}
	e.mustKubectl("delete", "pod", "pod")
}

func TestConfigErrorIsWaitedOut(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("echo $(user)")
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
		ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}},
	}}
	e.pod("pod", pod)
	got := e.untilPod("pod", "waits", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	if message := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(message, `/settings" does not exist`) {
		t.Errorf("got %s", message)
	}
	e.mustKubectl("create", "configmap", "settings", "--from-literal=user=me")
	e.untilPhase("pod", corev1.PodSucceeded)
	if got := e.mustKubectl("logs", "pod"); got != "me\n" {
		t.Errorf("got the log %q", got)
	}
}

func TestUnknownVolumesAreRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := template("true")
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/"},
	}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	e.pod("pod", pod)
	e.untilPod("pod", "waits", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && strings.Contains(s[0].State.Waiting.Message, `volume "data" at /data`)
	})
}

func TestLogs(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	pod := e.pod("pod", template("echo one; echo two; until [ -e go ]; do sleep 0.01; done; echo three"))
	e.untilPhase("pod", corev1.PodRunning)
	until(t, "two lines", func(context.Context) (string, error) { return e.kubectl("logs", "pod") },
		func(log string) bool { return log == "one\ntwo\n" })
	if got := e.mustKubectl("logs", "pod", "--tail=1"); got != "two\n" {
		t.Errorf("the last line is %q", got)
	}
	if got := e.mustKubectl("logs", "pod", "--limit-bytes=5"); got != "one\nt" {
		t.Errorf("the first 5 bytes are %q", got)
	}
	stream, err := e.Client().CoreV1().Pods(e.namespace).GetLogs("pod", &corev1.PodLogOptions{
		Follow: true, TailLines: ptr.To[int64](1),
	}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	followed := make([]byte, len("two\n"))
	if _, err := io.ReadFull(stream, followed); err != nil || string(followed) != "two\n" {
		t.Errorf("got %q, %v", followed, err)
	}
	if err := os.WriteFile(filepath.Join(e.Dir(), "pods", string(pod.UID), "work", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(stream); err != nil || string(rest) != "three\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	for args, want := range map[string]string{
		"--previous":   "previous terminated container",
		"--timestamps": "timestamps is not supported",
		"--since=1m":   "sinceSeconds is not supported",
	} {
		if _, err := e.kubectl("logs", "pod", args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
}

func TestManyPodsAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const count = 150
	e.job("many", batchv1.JobSpec{
		Parallelism: ptr.To[int32](count), Completions: ptr.To[int32](count), Template: template("echo done"),
	})
	job := e.untilJob("many", batchv1.JobComplete)
	if job.Status.Succeeded != count || job.Status.Failed != 0 {
		t.Errorf("got %+v", job.Status)
	}
	t.Logf("%d Pods took %v", count, job.Status.CompletionTime.Sub(job.Status.StartTime.Time))
}

func TestPodsRunOnThroughAnOutage(t *testing.T) {
	t.Parallel()
	c := controlplane.ForTest(t, controlplane.Options{Kubelet: true})
	e := &env{Cluster: c, t: t, namespace: "default"}
	pods := map[string]*corev1.Pod{}
	for i := range 3 {
		name := fmt.Sprintf("pod-%d", i)
		pods[name] = e.pod(name, template("until [ -e go ]; do sleep 0.01; done; echo went"))
		e.untilPhase(name, corev1.PodRunning)
	}
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		work := filepath.Join(c.Dir(), "pods", string(pod.UID), "work")
		if err := os.WriteFile(filepath.Join(work, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name := range pods {
		e.untilPhase(name, corev1.PodSucceeded)
		if got := e.mustKubectl("logs", name); got != "went\n" {
			t.Errorf("got the log %q", got)
		}
	}
	e.pod("later", template("true"))
	e.untilPhase("later", corev1.PodSucceeded)
}

// A Pod must not run twice because its kubelet has forgotten it.
func TestRestartedKubeletReportsItsContainersAsLost(t *testing.T) {
	t.Parallel()
	c := controlplane.ForTest(t, controlplane.Options{Kubelet: true})
	e := &env{Cluster: c, t: t, namespace: "default"}
	e.pod("done", template("echo done"))
	e.untilPhase("done", corev1.PodSucceeded)
	pod := e.pod("pod", template("echo $$$$ >>pids; exec sleep 1000"))
	pids := filepath.Join(c.Dir(), "pods", string(pod.UID), "work", "pids")
	e.untilPod("pod", "runs", func(pod *corev1.Pod) bool {
		content, err := os.ReadFile(pids)
		return err == nil && len(content) > 1 && pod.Status.Phase == corev1.PodRunning
	})
	if err := c.StopKubelet(); err != nil {
		t.Fatal(err)
	}
	if err := c.StartKubelet(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := e.untilPhase("pod", corev1.PodFailed)
	ended := lost.Status.ContainerStatuses[0].State.Terminated
	if ended == nil || ended.ExitCode != 137 || ended.Reason != "ContainerStatusUnknown" {
		t.Errorf("got %+v", lost.Status.ContainerStatuses[0].State)
	}
	if content, err := os.ReadFile(pids); err != nil || strings.Count(string(content), "\n") != 1 {
		t.Errorf("the processes of the pod were %q, %v", content, err)
	}
	// The kubelet may take up the Pods in any order.
	until(t, "the log from before", func(context.Context) (string, error) { return e.kubectl("logs", "done") },
		func(log string) bool { return log == "done\n" })
	e.pod("later", template("true"))
	e.untilPhase("later", corev1.PodSucceeded)
}
