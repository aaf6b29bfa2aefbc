package kubelet_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/test/controlplane"
)

var shared = controlplane.Shared{Options: controlplane.Options{
	Kubelet: true, Entrypoints: map[string][]string{"registry.example/echo:1": {"echo", "says"}},
}}

func TestMain(m *testing.M) {
	code := shared.Main(m)
	if err := leaks(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// leaks returns an error when goroutines are left. Those of connections to servers that have been killed end when they
// come to notice that.
func leaks() error {
	deadline := time.Now().Add(time.Minute)
	for {
		if err := goleak.Find(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// env is a namespace of the control plane.
type env struct {
	*controlplane.Cluster
	t         *testing.T
	namespace string
}

func newEnv(t *testing.T) *env {
	t.Helper()
	c := shared.Cluster(t)
	return &env{Cluster: c, t: t, namespace: c.Namespace(t)}
}

// template returns a Pod template with one container per script.
func template(scripts ...string) corev1.PodTemplateSpec {
	spec := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}
	for i, script := range scripts {
		spec.Containers = append(spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d", i), Image: "none", Command: []string{"sh", "-c", script},
		})
	}
	return corev1.PodTemplateSpec{Spec: spec}
}

// pod creates a Pod with the spec of a template.
func (e *env) pod(name string, template corev1.PodTemplateSpec) *corev1.Pod {
	e.t.Helper()
	pod, err := e.Client().CoreV1().Pods(e.namespace).Create(e.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: template.Spec,
	}, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return pod
}

// job creates a Job.
func (e *env) job(name string, spec batchv1.JobSpec) {
	e.t.Helper()
	_, err := e.Client().BatchV1().Jobs(e.namespace).Create(e.t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
}

// until asks for an object until the condition holds for it, and returns it.
func until[T any](
	t *testing.T, what string, get func(context.Context) (T, error), condition func(T) bool,
) T {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		object, err := get(t.Context())
		if err == nil && condition(object) {
			return object
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 3 minutes: %s; got %v, %+v", what, err, object)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (e *env) untilPod(name, what string, condition func(*corev1.Pod) bool) *corev1.Pod {
	e.t.Helper()
	return until(e.t, "pod "+name+" "+what, func(ctx context.Context) (*corev1.Pod, error) {
		return e.Client().CoreV1().Pods(e.namespace).Get(ctx, name, metav1.GetOptions{})
	}, condition)
}

func (e *env) untilPhase(name string, phase corev1.PodPhase) *corev1.Pod {
	e.t.Helper()
	return e.untilPod(name, "is "+string(phase), func(pod *corev1.Pod) bool { return pod.Status.Phase == phase })
}

func (e *env) untilJob(name string, condition batchv1.JobConditionType) *batchv1.Job {
	e.t.Helper()
	return until(e.t, "job "+name+" is "+string(condition), func(ctx context.Context) (*batchv1.Job, error) {
		return e.Client().BatchV1().Jobs(e.namespace).Get(ctx, name, metav1.GetOptions{})
	}, func(job *batchv1.Job) bool {
		for _, c := range job.Status.Conditions {
			if c.Type == condition && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	})
}

// untilGone waits until there are no Pods in the namespace.
func (e *env) untilGone() {
	e.t.Helper()
	until(e.t, "no pods", func(ctx context.Context) (*corev1.PodList, error) {
		return e.Client().CoreV1().Pods(e.namespace).List(ctx, metav1.ListOptions{})
	}, func(list *corev1.PodList) bool { return len(list.Items) == 0 })
}

// kubectl runs kubectl in the namespace.
func (e *env) kubectl(args ...string) (string, error) {
	e.t.Helper()
	output, err := e.Kubectl(e.t.Context(), append([]string{"--namespace", e.namespace}, args...)...)
	return string(output), err
}

func (e *env) mustKubectl(args ...string) string {
	e.t.Helper()
	output, err := e.kubectl(args...)
	if err != nil {
		e.t.Fatal(err)
	}
	return output
}

// conditions writes the conditions of a Pod shortly.
func conditions(pod *corev1.Pod) string {
	var parts []string
	for _, c := range pod.Status.Conditions {
		parts = append(parts, strings.TrimSuffix(fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason), "/"))
	}
	return strings.Join(parts, " ")
}
