package charts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// TestUninstallHook wants the hook to be the operator once more, with the rights and limits of the Deployment, and to be
// part of nothing but an uninstall.
func TestUninstallHook(t *testing.T) {
	t.Parallel()
	for _, yaml := range []string{"", everything} {
		all := mustTemplate(t, operatorChart, yaml)
		job, deployment := one[*batchv1.Job](t, all), one[*appsv1.Deployment](t, all)
		pod, theirs := job.Spec.Template.Spec, deployment.Spec.Template.Spec
		restricted(t, &pod)
		container, their := pod.Containers[0], theirs.Containers[0]
		for what, same := range map[string]bool{
			"the account":          pod.ServiceAccountName == theirs.ServiceAccountName,
			"the image":            container.Image == their.Image,
			"the security context": reflect.DeepEqual(container.SecurityContext, their.SecurityContext),
			"the resources":        reflect.DeepEqual(container.Resources, their.Resources),
			"the environment":      reflect.DeepEqual(container.Env, their.Env),
			"the nodes":            reflect.DeepEqual(pod.Tolerations, theirs.Tolerations) && reflect.DeepEqual(pod.Affinity, theirs.Affinity),
		} {
			if !same {
				t.Errorf("%s of the hook is not that of the Deployment", what)
			}
		}
		for _, arg := range their.Args {
			switch name, _, _ := strings.Cut(arg, "="); name {
			case "--namespaces", "--selector", "--leader-elect", "--leader-election-namespace", "--cluster-object-namespace",
				"--webhook", "--webhook-configuration":
				if !slices.Contains(container.Args, arg) {
					t.Errorf("the hook lacks %s: %v", arg, container.Args)
				}
			}
		}
		if *job.Spec.ActiveDeadlineSeconds != 240 || !slices.Contains(container.Args, "--stop-deployment="+deployment.Name) {
			t.Errorf("the hook is %v, %v", job.Spec.ActiveDeadlineSeconds, container.Args)
		}
		set := labels.Set(job.Spec.Template.Labels)
		for _, service := range of[*corev1.Service](all) {
			if labels.SelectorFromSet(service.Spec.Selector).Matches(set) {
				t.Errorf("Service %s leads to the hook", service.Name)
			}
		}
		for _, policy := range of[*networkingv1.NetworkPolicy](all) {
			if selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector); err != nil || !selector.Matches(set) {
				t.Errorf("the hook has no NetworkPolicy: %v", err)
			}
		}
		before := hooks(all)
		if len(before) != 3 || before["Job"] <= before["Role"] || before["Job"] <= before["RoleBinding"] {
			t.Errorf("the hooks are %v", before)
		}
	}
	if got := hooks(mustTemplate(t, operatorChart, "uninstall: {release: false}")); len(got) > 0 {
		t.Errorf("without uninstall.release there are the hooks %v", got)
	}
	if got := hooks(mustTemplate(t, operatorChart, operatorValues["others' rights"])); len(got) != 1 {
		t.Errorf("without rbac.create there are the hooks %v", got)
	}
}

// hooks returns the weights of the hooks by their kind.
func hooks(all objects) map[string]string {
	weights := map[string]string{}
	for _, object := range all {
		if annotations := object.GetAnnotations(); annotations["helm.sh/hook"] == "pre-delete" {
			kind := reflect.TypeOf(object).Elem().Name()
			weights[kind] = annotations["helm.sh/hook-weight"]
		}
	}
	return weights
}

// TestUninstall uninstalls releases whose operators are Pods: while one works, and while it is away. What has finished is
// settled, the rest is at the head of the list in order, and nothing keeps Jobs, ScaledJobs and their namespace.
func TestUninstall(t *testing.T) {
	t.Parallel()
	audit := newAudit(t, system)
	w := world{t, controlplane.ForTest(t, controlplane.Options{
		Kubelet:        true,
		PodEnv:         []string{"PATH=" + os.Getenv("PATH"), "HOME=/"},
		Entrypoints:    map[string][]string{"registry.example/offboard:v1": {program}},
		APIServerFlags: []string{"--audit-policy-file=" + audit.policy, "--audit-log-path=" + audit.log},
	})}
	u := uninstall{world: w, redis: redistest.Start(t, redistest.Options{}), dir: t.TempDir()}
	w.kubectl("create", "namespace", system)
	w.kubectl("create", "namespace", "work")
	t.Cleanup(func() {
		if t.Failed() {
			pods, err := w.Kubectl(context.Background(), "--namespace", system, "logs", "--prefix", "--all-containers",
				"--selector", "app.kubernetes.io/instance=offboard")
			t.Logf("the operators said (%v):\n%s", err, pods)
		}
	})

	u.install()
	w.apply("work", u.manifest())
	u.redis.Do("RPUSH", "work", "a", "quick", "b", "c", "d")
	u.has("one done, and 3 that run", 1, 3)
	// From now on nobody answers for the webhook, and what it is asked about is refused.
	w.kubectl("patch", "validatingwebhookconfiguration", "offboard."+system, "--type=json", "-p",
		`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}]`)
	w.mustHelm("uninstall", "offboard", "--namespace", system)
	u.released("a", "b", "c", "d")

	u.install("--set", "leaderElection.enabled=false")
	u.has("3 that run again", 1, 3)
	w.kubectl("scale", "deployment", "offboard", "--namespace", system, "--replicas=0")
	w.until("the operator's Pods are gone", func(ctx context.Context) (bool, error) {
		pods, err := w.Client().CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=offboard"})
		return err == nil && len(pods.Items) == 0, err
	})
	if err := os.WriteFile(filepath.Join(u.dir, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("the Job of an item is complete", func(ctx context.Context) (bool, error) {
		jobs, err := w.Client().BatchV1().Jobs("work").List(ctx, metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(jobs.Items, func(job batchv1.Job) bool {
			return job.Status.Succeeded > 0 && len(job.Finalizers) > 0
		}), err
	})
	w.mustHelm("uninstall", "offboard", "--namespace", system)
	u.released("a", "c", "d")
	u.has("two done", 2, 0)
	w.kubectl("delete", "namespace", "work", "--timeout=3m")

	used := map[string]bool{}
	for _, one := range audit.of(t, "system:serviceaccount:"+system+":offboard") {
		used[one.right()] = true
		if code := one.ResponseStatus.Code; code == http.StatusForbidden || code == http.StatusUnauthorized {
			t.Errorf("refused: %s %s: %d", one.Verb, one.RequestURI, code)
		}
	}
	for _, right := range []string{"patch deployments/scale.apps", "patch jobs.batch", "patch scaledjobs.keda.sh"} {
		if !used[right] {
			t.Errorf("the right to %s was of no use", right)
		}
	}
}

// uninstall is what TestUninstall works with.
type uninstall struct {
	world
	redis *redistest.Server
	dir   string // in which a file with an item's name lets its run end
}

// manifest is a ScaledJob whose item "quick" ends at once.
func (u uninstall) manifest() string {
	return fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: work}
spec:
  maxReplicaCount: 3
  delivery: {mode: claim}
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 1
        containers:
          - name: main
            image: registry.example/work:1
            command: [sh, -c, 'until [ $OFFBOARD_ITEM = quick -o -e %s/$OFFBOARD_ITEM ]; do sleep 0.1; done']
  triggers:
    - {type: redis, metadata: {address: %q, listName: work, listLength: "1"}}
`, u.dir, u.redis.Addr())
}

// install installs the release, and lets its Pods find the cluster as their service account.
func (u uninstall) install(args ...string) {
	u.Helper()
	port := func() string {
		address := servertest.FreeAddress(u)
		return address[strings.LastIndex(address, ":")+1:]
	}
	args = append(args, "--namespace", system, "--set", "image.repository=registry.example/offboard,image.tag=v1,"+
		"webhook.timeoutSeconds=1,webhook.port="+port()+",metrics.port="+port()+",health.port="+port())
	u.mustHelm(append([]string{"install", "offboard", operatorChart, "--set", "replicas=0"}, args...)...)
	u.mustHelm(append([]string{"upgrade", "offboard", operatorChart, "--set", "replicas=1", "--set",
		"extraEnv[0].name=OFFBOARD_KUBECONFIG,extraEnv[0].value=" + u.kubeconfigOf(system, "offboard")}, args...)...)
}

// has waits until so many items are done, and so many Jobs run.
func (u uninstall) has(what string, done int64, running int) {
	u.Helper()
	u.until(what, func(ctx context.Context) (bool, error) {
		stats, err := queuetest.Open(u.redis.Client(), "work").Stats(ctx)
		if err != nil {
			return false, err
		}
		pods, err := u.Client().CoreV1().Pods("work").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err != nil {
			return false, err
		}
		return stats.Done == done && len(pods.Items) == running,
			fmt.Errorf("%+v, %d Pods run", stats, len(pods.Items))
	})
}

// released wants no finalizer to be left, nor anything of the hook, and the list to hold the items.
func (u uninstall) released(items ...string) {
	u.Helper()
	c := u.objects()
	for _, kind := range []string{"ScaledJob", "Job"} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind(kind + "List"))
		if kind == "ScaledJob" {
			list.APIVersion = "keda.sh/v1alpha1"
		}
		if err := c.List(u.Context(), list, client.InNamespace("work")); err != nil {
			u.Fatal(err)
		}
		if kind == "ScaledJob" && len(list.Items) != 1 {
			u.Errorf("there are %d ScaledJobs", len(list.Items))
		}
		for i := range list.Items {
			if finalizers := list.Items[i].Finalizers; len(finalizers) > 0 {
				u.Errorf("%s %s has the finalizers %q", kind, list.Items[i].Name, finalizers)
			}
		}
	}
	for _, list := range []client.ObjectList{
		&batchv1.JobList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{}, &appsv1.DeploymentList{},
	} {
		u.until("nothing of the release is left", func(ctx context.Context) (bool, error) {
			err := c.List(ctx, list, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/instance": "offboard"})
			left := reflect.ValueOf(list).Elem().FieldByName("Items").Len()
			return err == nil && left == 0, errors.Join(err, fmt.Errorf("%d of %T", left, list))
		})
	}
	reply := u.redis.Do("LRANGE", "work", "0", "-1")
	if got, err := reply.AsStrSlice(); err != nil || !slices.Equal(got, items) {
		u.Errorf("the list holds %q, %v, want %q", got, err, items)
	}
	stats, err := queuetest.Open(u.redis.Client(), "work").Stats(u.Context())
	if err != nil || stats.Claimed+stats.Retry+stats.Dead > 0 {
		u.Errorf("the queue has %+v, %v", stats, err)
	}
}
