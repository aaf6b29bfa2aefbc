package kube

import (
	"bytes"
	"context"
	"log/slog"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/trigger/all"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// logs collects what the operator logs.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// running is an operator that runs within the test.
type running struct {
	logs
	stop  context.CancelFunc
	ended chan error
}

// start starts an operator; the test ends it.
func start(t *testing.T, options Options) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{stop: cancel, ended: make(chan error, 1)}
	options.Log = slog.New(slog.NewTextHandler(r, nil))
	options.TriggerTypes, options.Version = all.Types(), "test"
	if options.HealthAddress == "" {
		options.HealthAddress = "0"
	}
	options.MetricsAddress = "0"
	go func() { r.ended <- Run(ctx, options) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("the operator ended with %v", err)
			}
		case <-time.After(patience):
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Errorf("the operator does not end:\n%s", stacks.String())
		}
		if t.Failed() {
			t.Log(r.String())
		}
	})
	return r
}

// patience is how long is waited for what must come: a busy machine may be slow, and Leases may have to expire.
const patience = 2 * time.Minute

// eventually fails the test unless the condition comes to hold.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it does not hold that %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// aScaledJob keeps a minimum of Jobs, so that it needs no queue that has something in it.
func aScaledJob(namespace, name string) *v1alpha1.ScaledJob {
	return &v1alpha1.ScaledJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.ScaledJobSpec{
			JobTargetRef: &batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "main", Image: "registry.example/work:1"}},
			}}},
			MinReplicaCount: ptr.To[int32](1),
			Triggers: []v1alpha1.ScaleTriggers{{Type: "cron", Metadata: map[string]string{
				"timezone": "UTC", "start": "0 0 1 1 *", "end": "1 0 1 1 *", "desiredReplicas": "1",
			}}},
		},
	}
}

func installed(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	if _, err := crds.Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return aClient(t, config)
}

// conditionOf returns what the ScaledJob's status says.
func conditionOf(t *testing.T, c client.Client, sj *v1alpha1.ScaledJob, kind v1alpha1.ConditionType) v1alpha1.Condition {
	t.Helper()
	now := &v1alpha1.ScaledJob{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(sj), now); err != nil {
		t.Fatal(err)
	}
	return now.Status.Conditions.Get(kind)
}

// user makes a user of the cluster with these rights in the namespaces, and those on what belongs to no namespace.
func user(
	t *testing.T, plane *controlplane.Cluster, c client.Client, name string, namespaces []string, everywhere,
	within []rbacv1.PolicyRule,
) *rest.Config {
	t.Helper()
	create := func(object client.Object) {
		t.Helper()
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}
	if len(everywhere) > 0 {
		create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: everywhere})
		create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}})
	}
	for _, namespace := range namespaces {
		create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Rules: within})
		create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}})
	}
	config, err := plane.UserConfig(name)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// rules are the rights that the operator needs in a namespace, but for those on the resource.
func rules(but string) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, r := range []struct{ group, resource string }{
		{"batch", "jobs"}, {"", "pods"}, {"", "events"}, {"", "secrets"}, {"", "configmaps"},
		{"keda.sh", "scaledjobs"}, {"keda.sh", "scaledjobs/status"}, {"keda.sh", "triggerauthentications"},
		{"discovery.k8s.io", "endpointslices"},
	} {
		if r.resource != but {
			rules = append(rules, rbacv1.PolicyRule{
				APIGroups: []string{r.group}, Resources: []string{r.resource}, Verbs: []string{"*"},
			})
		}
	}
	return rules
}

var clusterRules = []rbacv1.PolicyRule{{
	APIGroups: []string{"keda.sh"}, Resources: []string{"clustertriggerauthentications"},
	Verbs: []string{"get", "list", "watch", "patch"},
}}

// TestNamespaces limits the operator to two namespaces, by its rights as well; a third one is none of its business.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	mine := []string{plane.Namespace(t), plane.Namespace(t)}
	other := plane.Namespace(t)
	config := user(t, plane, direct, "operator-of-"+mine[0], mine, clusterRules, rules(""))
	var looked []*v1alpha1.ScaledJob
	for _, namespace := range append(mine, other) {
		sj := aScaledJob(namespace, "work")
		if err := direct.Create(t.Context(), sj); err != nil {
			t.Fatal(err)
		}
		looked = append(looked, sj)
	}
	start(t, Options{Config: config, Namespaces: mine})
	for _, sj := range looked[:2] {
		eventually(t, "the ScaledJob is looked after", func() bool {
			return conditionOf(t, direct, sj, v1alpha1.ConditionReady).Status != metav1.ConditionUnknown
		})
	}
	if got := conditionOf(t, direct, looked[2], v1alpha1.ConditionReady); got.Status != metav1.ConditionUnknown {
		t.Errorf("a ScaledJob of another namespace is looked after: %v", got)
	}
}

// TestMissingRight has an operator that may not read events: it says so, and ends when it is told to.
func TestMissingRight(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	namespaces := []string{plane.Namespace(t)}
	config := user(t, plane, direct, "operator-of-"+namespaces[0], namespaces, clusterRules, rules("events"))
	r := start(t, Options{Config: config, Namespaces: namespaces, HealthAddress: "127.0.0.1:0"})
	eventually(t, "what cannot be read is said", func() bool { return strings.Contains(r.String(), "do not work: Event") })
	began := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.ended <- nil // for the end of the test
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

// TestUnreadableScaledJob has a ScaledJob that a definition lets pass although it is not of the Go type: the number is
// too large. Others are looked after, and it is too once it is repaired.
func TestUnreadableScaledJob(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	direct := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	interval := func(seconds int64) *unstructured.Unstructured {
		object, err := k8sruntime.DefaultUnstructuredConverter.ToUnstructured(aScaledJob(namespace, "broken"))
		if err != nil {
			t.Fatal(err)
		}
		broken := &unstructured.Unstructured{Object: object}
		broken.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindScaledJob))
		if err := unstructured.SetNestedField(broken.Object, seconds, "spec", "pollingInterval"); err != nil {
			t.Fatal(err)
		}
		return broken
	}
	broken := interval(3_000_000_000)
	if err := direct.Create(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	sound := aScaledJob(namespace, "sound")
	if err := direct.Create(t.Context(), sound); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Config: plane.Config(), Namespaces: []string{namespace}})
	lookedAfter := func(name string) func() bool {
		return func() bool {
			return conditionOf(t, direct, aScaledJob(namespace, name), v1alpha1.ConditionReady).Status != metav1.ConditionUnknown
		}
	}
	eventually(t, "the other ScaledJob is looked after", lookedAfter("sound"))
	eventually(t, "it is said what is wrong", func() bool { return strings.Contains(r.String(), "pollingInterval") })
	repaired := interval(30)
	repaired.SetResourceVersion(broken.GetResourceVersion())
	if err := direct.Update(t.Context(), repaired); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the repaired ScaledJob is looked after", lookedAfter("broken"))
}
