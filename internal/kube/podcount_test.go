package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// counterOf returns a podCounter that asks as the operator does, and what it logs.
func counterOf(t *testing.T, config *rest.Config) (*podCounter, *logs) {
	t.Helper()
	config.ContentType = runtime.ContentTypeProtobuf
	typed, err := typedcorev1.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	said := &logs{}
	return newPodCounter(typed, slog.New(slog.NewTextHandler(said, nil))), said
}

func selectorOf(t *testing.T, text string) labels.Selector {
	t.Helper()
	selector, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return selector
}

// isOpen tells whether the Pods of the namespace are watched, so that counts come from memory.
func (c *podCounter) isOpen(namespace string) bool {
	c.mu.Lock()
	w := c.watched[namespace]
	c.mu.Unlock()
	if w == nil {
		return false
	}
	_, current := w.count(labels.Nothing())
	return current
}

// aPod makes a Pod with these labels, written as a selector; it is never scheduled, unless there is a command.
func aPod(t *testing.T, pods typedcorev1.PodInterface, name, with string, command ...string) *corev1.Pod {
	t.Helper()
	set, err := labels.ConvertSelectorToLabelsMap(with)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: set}, Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr.To[int64](0),
		Containers: []corev1.Container{{Name: "main", Image: "registry.example/work:1", Command: command}},
	}}
	if len(command) == 0 {
		pod.Spec.NodeSelector = map[string]string{"example.org/no-such-node": "true"}
	}
	pod, err = pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestPodCounter counts real Pods, with the server's answers and with those from memory, which are the same.
func TestPodCounter(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	namespace, other := plane.Namespace(t), plane.Namespace(t)
	pods := plane.Client().CoreV1().Pods(namespace)
	aPod(t, pods, "waits", "app=encoder,tier=batch")
	aPod(t, pods, "runs-1", "app=encoder,tier=bulk", "sleep", "600")
	aPod(t, pods, "runs-2", "app=encoder,tier=live", "sleep", "600")
	aPod(t, pods, "done", "app=encoder,tier=batch", "true")
	aPod(t, pods, "failed", "app=encoder,tier=batch", "false")
	aPod(t, pods, "nothing", "")
	aPod(t, plane.Client().CoreV1().Pods(other), "elsewhere", "app=encoder")
	phases := map[string]corev1.PodPhase{
		"runs-1": corev1.PodRunning, "runs-2": corev1.PodRunning, "done": corev1.PodSucceeded, "failed": corev1.PodFailed,
	}
	for name, want := range phases {
		eventually(t, fmt.Sprintf("%s is %s", name, want), func() bool {
			pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && pod.Status.Phase == want
		})
	}
	c, _ := counterOf(t, plane.Config())
	count := func(selector string) trigger.PodCount {
		t.Helper()
		got, err := c.Count(t.Context(), namespace, selectorOf(t, selector))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	check := func(how string) {
		t.Helper()
		for selector, want := range map[string]trigger.PodCount{
			"app=encoder":                           {Pods: 3, Nodes: 1},
			"app == encoder, tier in (batch, bulk)": {Pods: 2, Nodes: 1},
			"app=encoder,tier notin (bulk,live)":    {Pods: 1},
			"!app":                                  {Pods: 1},
			"tier":                                  {Pods: 3, Nodes: 1},
			"app=none":                              {},
			"app!=encoder":                          {Pods: 1},
			"app in (encoder),tier,tier!=batch,!example": {Pods: 2, Nodes: 1},
		} {
			if got := count(selector); got != want {
				t.Errorf("%s, %q: got %+v, want %+v", how, selector, got, want)
			}
		}
	}
	check("from the server")

	var encoders, none atomic.Int32
	stop := c.Watch(namespace, selectorOf(t, "app=encoder"), func() { encoders.Add(1) })
	stopNone := c.Watch(namespace, selectorOf(t, "app=none"), func() { none.Add(1) })
	eventually(t, "the watch is open", func() bool { return c.isOpen(namespace) })
	check("from memory")
	if len(c.watched) != 1 {
		t.Errorf("%d watches for one namespace", len(c.watched))
	}
	if encoders.Load() == 0 || none.Load() == 0 {
		t.Error("nobody was told that the watch began")
	}
	toldNone := none.Load()

	// Whatever changes a count is told, and is in the count by then.
	change := func(what string, want trigger.PodCount, act func() error) {
		t.Helper()
		before := encoders.Load()
		if err := act(); err != nil {
			t.Fatal(err)
		}
		eventually(t, what+" is told", func() bool { return encoders.Load() > before })
		eventually(t, fmt.Sprintf("after %s there are %+v", what, want), func() bool { return count("app=encoder") == want })
	}
	change("a new Pod", trigger.PodCount{Pods: 4, Nodes: 1}, func() error {
		aPod(t, pods, "new", "app=encoder")
		return nil
	})
	patch := func(name, patch string, subresources ...string) func() error {
		return func() error {
			_, err := pods.Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
			return err
		}
	}
	change("a Pod that loses its label", trigger.PodCount{Pods: 3, Nodes: 1},
		patch("new", `{"metadata":{"labels":{"app":"other"}}}`))
	change("a Pod that gets it back", trigger.PodCount{Pods: 4, Nodes: 1},
		patch("new", `{"metadata":{"labels":{"app":"encoder"}}}`))
	change("a Pod that ends", trigger.PodCount{Pods: 3, Nodes: 1}, patch("new", `{"status":{"phase":"Succeeded"}}`, "status"))
	for i, name := range []string{"runs-1", "runs-2", "waits"} {
		want := trigger.PodCount{Pods: 2 - i, Nodes: 1}
		if i > 0 {
			want.Nodes = 0
		}
		change("a Pod that is deleted", want, func() error {
			return pods.Delete(t.Context(), name, metav1.DeleteOptions{})
		})
	}
	if got := none.Load(); got != toldNone {
		t.Errorf("told %d times of Pods that the selector does not take", got-toldNone)
	}

	stop()
	stop()
	if !c.isOpen(namespace) {
		t.Error("the watch has ended before the last who wants it")
	}
	stopNone()
	if len(c.watched) != 0 {
		t.Error("Pods are watched that nobody asks for")
	}
	before := encoders.Load()
	aPod(t, pods, "late", "app=encoder")
	if got := count("app=encoder"); got != (trigger.PodCount{Pods: 1}) || encoders.Load() != before {
		t.Errorf("after the end: %+v, told %d times more", got, encoders.Load()-before)
	}
}

// TestPodCounterOutage has the API server out of reach, first for a moment and then for longer. A count is never that of
// before; when the server is back, what has changed is told.
func TestPodCounterOutage(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	namespace := plane.Namespace(t)
	pods := plane.Client().CoreV1().Pods(namespace)
	server, err := url.Parse(plane.Config().Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := servertest.StartProxy(t, server.Host)
	throughProxy := plane.Config()
	throughProxy.Host = "https://" + proxy.Addr()
	c, said := counterOf(t, throughProxy)
	aPod(t, pods, "first", "app=encoder")
	var told atomic.Int32
	selector := selectorOf(t, "app=encoder")
	stop := c.Watch(namespace, selector, func() { told.Add(1) })
	defer stop()
	eventually(t, "the watch is open", func() bool { return c.isOpen(namespace) })

	before := told.Load()
	proxy.Cut()
	eventually(t, "the watch is open again", func() bool { return told.Load() > before && c.isOpen(namespace) })

	proxy.Hold()
	proxy.Cut()
	eventually(t, "the outage is noticed", func() bool { return !c.isOpen(namespace) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got, err := c.Count(ctx, namespace, selector); err == nil {
		t.Errorf("counted %+v in an outage, want an error", got)
	}
	aPod(t, pods, "second", "app=encoder")
	before = told.Load()
	proxy.Forward()
	deadline := time.Now().Add(patience)
	for told.Load() == before || !c.isOpen(namespace) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody was told that the server is back:\n%s", said)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got, err := c.Count(t.Context(), namespace, selector); err != nil || got.Pods != 2 {
		t.Errorf("got %+v, %v after the outage, want 2", got, err)
	}
}

// TestPodCounterRights has users that may not list Pods, or not watch them.
func TestPodCounterRights(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	namespace := plane.Namespace(t)
	aPod(t, plane.Client().CoreV1().Pods(namespace), "one", "app=encoder")
	direct := aClient(t, plane.Config())
	rights := func(verbs ...string) *rest.Config {
		t.Helper()
		return user(t, plane, direct, "may-"+strings.Join(verbs, "-")+"-"+namespace, []string{namespace}, nil,
			[]rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: verbs}})
	}
	selector := selectorOf(t, "app=encoder")

	c, _ := counterOf(t, rights("get"))
	_, err := c.Count(t.Context(), namespace, selector)
	if err == nil || !strings.Contains(err.Error(), `cannot list resource "pods" in API group "" in the namespace "`+namespace) {
		t.Errorf("got %v, want that the user may not list", err)
	}

	config := rights("list")
	c, said := counterOf(t, config)
	stop := c.Watch(namespace, selector, func() {})
	defer stop()
	// New rights take a moment to be in force.
	eventually(t, "it is said that the watch is forbidden", func() bool {
		return strings.Contains(said.String(), `cannot watch resource`)
	})
	eventually(t, "there is one Pod, without a watch", func() bool {
		got, err := c.Count(t.Context(), namespace, selector)
		return err == nil && got.Pods == 1
	})
}

// BenchmarkPodCount counts the Pods of a namespace that are in memory, of which the selector takes one in ten.
func BenchmarkPodCount(b *testing.B) {
	for _, pods := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			w := &watchedPods{askers: map[*asker]struct{}{}}
			w.begin(map[types.UID]knownPod{})
			for i := range pods {
				w.show(&corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", i)), Labels: labels.Set{
						"app": fmt.Sprint("app-", i%10), "pod-template-hash": "5d4f8c7b9", "tier": "batch",
					}},
					Spec: corev1.PodSpec{NodeName: fmt.Sprint("node-", i%100)},
				}, true)
			}
			selector := labels.SelectorFromSet(labels.Set{"app": "app-3"})
			for b.Loop() {
				if count, _ := w.count(selector); count.Pods != pods/10 || count.Nodes != 10 {
					b.Fatalf("got %+v", count)
				}
			}
		})
	}
}
