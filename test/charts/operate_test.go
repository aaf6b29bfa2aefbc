package charts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/queue/queuetest"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// The namespaces of the releases of TestOperates.
const (
	wide   = "wide"   // looks after all namespaces
	narrow = "narrow" // looks after two
)

// TestOperates runs the program with exactly the arguments and the rights that the chart gives it: all that it does for a
// ScaledJob must work, nothing may be refused to it, and each right must be of use.
func TestOperates(t *testing.T) {
	t.Parallel()
	o := &operation{
		tunnel: newTunnel(t), audit: newAudit(t, wide, narrow),
		redis: redistest.Start(t, redistest.Options{Password: "secret"}),
	}
	cluster := controlplane.ForTest(t, controlplane.Options{
		Kubelet: true,
		PodEnv:  []string{"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "HOME=/"},
		APIServerFlags: []string{
			"--egress-selector-config-file=" + o.tunnel.config,
			"--audit-policy-file=" + o.audit.policy, "--audit-log-path=" + o.audit.log,
			"--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
		},
	})
	for _, step := range []struct {
		name string
		run  func(world)
	}{
		{"all namespaces", o.inAllNamespaces},
		{"named namespaces", o.inNamedNamespaces},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(world{t, cluster}) }) {
			return
		}
	}
	o.usage.check(t)
}

// operation is what the steps share.
type operation struct {
	tunnel *tunnel
	audit  audit
	redis  *redistest.Server
	usage  usage
}

// definitionsAreKnown waits until the API server tells of the definitions, and until the admission plugin that looks at
// owner references has learnt of them, which it does every 30 seconds.
func (w world) definitionsAreKnown() {
	w.Helper()
	w.until("the API server tells of the definitions", func(context.Context) (bool, error) {
		_, lists, err := w.Client().Discovery().ServerGroupsAndResources()
		return slices.ContainsFunc(lists, func(list *metav1.APIResourceList) bool {
			kinds := map[string]bool{}
			for _, resource := range list.APIResources {
				kinds[resource.Kind] = true
			}
			return list.GroupVersion == v1alpha1.GroupVersion.String() && len(kinds) == 3
		}), err
	})
	owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindScaledJob, Name: "any", UID: "any",
		BlockOwnerDeletion: ptr.To(true),
	}}}}
	// It looks at nothing that an administrator does.
	w.kubectl("create", "clusterrolebinding", "somebody", "--clusterrole=edit", "--user=somebody")
	config, err := w.UserConfig("somebody")
	if err != nil {
		w.Fatal(err)
	}
	somebody, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.Fatal(err)
	}
	w.until("owner references to ScaledJobs are understood", func(ctx context.Context) (bool, error) {
		_, err := somebody.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, owned,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "you can't set finalizers on"), err
	})
}

func (o *operation) inAllNamespaces(w world) {
	w.kubectl("create", "namespace", wide)
	w.kubectl("create", "namespace", "somewhere")
	w.mustHelm("install", "offboard", operatorChart, "--namespace", wide, "--set", "replicas=0,watch.selector=jobs!=keda")
	w.definitionsAreKnown()
	p := w.start(wide, "offboard")
	w.webhookWorks(o.tunnel, p, wide, "offboard")
	w.leavesToKEDA("somewhere")
	o.declare(w, "somewhere", wide)
	o.works(w, "somewhere")
	o.ends(w, p, wide, "offboard")
}

// inNamedNamespaces also finds an empty Secret, which somebody has made for the webhook's certificate.
func (o *operation) inNamedNamespaces(w world) {
	for _, namespace := range []string{narrow, "a", "b", "c", "central"} {
		w.kubectl("create", "namespace", namespace)
	}
	w.kubectl("create", "secret", "generic", "teams-offboard-webhook-cert", "--namespace", narrow)
	w.mustHelm("install", "teams", operatorChart, "--namespace", narrow, "--set",
		"replicas=0,crds.install=false,watch.namespaces={a,b},clusterObjectNamespace=central")
	o.declare(w, "c", "central")
	o.push(w, "c")
	p := w.start(narrow, "teams-offboard")
	w.webhookWorks(o.tunnel, p, narrow, "teams-offboard")
	if out, err := w.KubectlInput(w.Context(), wrong, "--namespace", "c", "apply", "--dry-run=server", "-f", "-"); err != nil {
		w.Errorf("in a namespace that is not looked after, the webhook is asked: %v: %s", err, out)
	}
	for _, namespace := range []string{"a", "b"} {
		o.declare(w, namespace, "central")
		o.works(w, namespace)
	}
	if jobs := o.jobs(w, "c"); len(jobs) > 0 {
		w.Errorf("in a namespace that is not looked after there are %d Jobs", len(jobs))
	}
	for _, name := range []string{"own", "shared"} {
		if sj := w.scaledJob("c", name); len(sj.Status.Conditions) > 0 || sj.Status.LastActiveTime != nil {
			w.Errorf("ScaledJob %s, which is not looked after, has the status %+v", name, sj.Status)
		}
	}
	o.ends(w, p, narrow, "teams")
}

// ends stops the operator, and looks at what it leaves.
func (o *operation) ends(w world, p *process, namespace, release string) {
	w.Helper()
	if ok, err := p.answers(w.Context(), "metrics", "/metrics"); !ok {
		w.Errorf("the metrics cannot be read: %v", err)
	}
	if code := p.end(w); code != 0 {
		w.Errorf("the operator ended with exit code %d", code)
	}
	leases, err := w.Client().CoordinationV1().Leases(namespace).List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, lease := range leases.Items {
		w.Errorf("the operator has ended, and there is still the Lease %s", lease.Name)
	}
	p.quiet(w, noPods)
	o.usage.add(w, o.audit, release, p.account)
	w.mustHelm("uninstall", release, "--namespace", namespace, "--no-hooks")
}

// wrong is a ScaledJob with a field that the definition takes and the webhook refuses.
const wrong = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: wrong}
spec:
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: work}]}}}
  triggers: [{type: redis, metadata: {address: "redis:6379"}}]
`

// leavesToKEDA creates, edits and takes over what a KEDA looks after that works for the label jobs=keda, beside an
// operator that does not.
func (w world) leavesToKEDA(namespace string) {
	w.Helper()
	stream := func(label, topic string) string {
		return fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: stream, labels: {jobs: %s}}
spec:
  jobTargetRef: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: work}]}}}
  triggers: [{type: pulsar, metadata: {adminURL: "pulsar:8080", subscription: g, topic: %s}}]
`, label, topic)
	}
	w.apply(namespace, stream("keda", "one"))
	w.apply(namespace, stream("keda", "two"))
	_, err := w.KubectlInput(w.Context(), stream("offboard", "two"), "--namespace", namespace, "apply", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), "Offboard does not yet") {
		w.Errorf("a ScaledJob with a trigger that nobody knows could be taken over: %v", err)
	}
	// One that was ours, and is given to them with what only they know.
	ours := strings.NewReplacer("name: stream", `name: given, annotations: {autoscaling.keda.sh/paused: "true"}`,
		"type: pulsar", "type: redis", "adminURL", "address", "subscription: g, topic", "listName").
		Replace(stream("offboard", "one"))
	w.apply(namespace, ours)
	w.apply(namespace, strings.Replace(stream("keda", "two"), "name: stream", "name: given", 1))
	w.kubectl("delete", "scaledjob", "stream", "given", "--namespace", namespace)
}

// webhookWorks leads the API server to the webhook's Service, and waits until it asks there.
func (w world) webhookWorks(u *tunnel, p *process, namespace, name string) {
	w.Helper()
	service, err := w.Client().CoreV1().Services(namespace).Get(w.Context(), name+"-webhook", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	u.lead(net.JoinHostPort(service.Spec.ClusterIP, "443"), p.webhook)
	w.until("the webhook's configuration has its authority", func(ctx context.Context) (bool, error) {
		hook, err := w.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, name+"."+namespace,
			metav1.GetOptions{})
		return err == nil && len(hook.Webhooks[0].ClientConfig.CABundle) > 0, err
	})
	secret, err := w.Client().CoreV1().Secrets(namespace).Get(w.Context(), name+"-webhook-cert", metav1.GetOptions{})
	if err != nil || len(secret.Data[corev1.TLSPrivateKeyKey]) == 0 {
		w.Errorf("the webhook's Secret has no key: %v", err)
	}
	asked := "somewhere"
	if namespace == narrow {
		asked = "a"
	}
	w.until("the webhook refuses a wrong ScaledJob", func(ctx context.Context) (bool, error) {
		_, err := w.KubectlInput(ctx, wrong, "--namespace", asked, "apply", "--dry-run=server", "-f", "-")
		if err == nil {
			return false, nil
		}
		return strings.Contains(err.Error(), "spec.triggers[0].metadata.listName"), err
	})
}

// declare makes two ScaledJobs as KEDA has left them, with its finalizer. One reads its password through a
// TriggerAuthentication, the other through a ClusterTriggerAuthentication, whose Secret is in the namespace central.
func (o *operation) declare(w world, namespace, central string) {
	w.Helper()
	job := func(name, authentication string) string {
		return fmt.Sprintf(`---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: %[1]s, finalizers: [finalizer.keda.sh]}
spec:
  scalingStrategy: {strategy: accurate}
  successfulJobsHistoryLimit: 1
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: main
            image: registry.example/work:1
            command: [offboard, runner, --, sh, -c, "test -n \"$OFFBOARD_ITEM\""]
            env:
              - {name: REDIS_HOST, valueFrom: {configMapKeyRef: {name: redis, key: host}}}
              - {name: REDIS_PORT, value: %[2]q}
              - {name: REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}
              - {name: REDIS_LIST, value: %[3]s.%[1]s}
  triggers:
    - type: redis
      authenticationRef: {%[4]s}
      metadata: {hostFromEnv: REDIS_HOST, portFromEnv: REDIS_PORT, listName: %[3]s.%[1]s, listLength: "1"}
`, name, o.redis.Port(), namespace, authentication)
	}
	manifest := fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: redis, namespace: %[1]s}
stringData: {password: secret}
---
apiVersion: v1
kind: Secret
metadata: {name: redis-of-%[1]s, namespace: %[2]s}
stringData: {password: secret}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: redis, namespace: %[1]s}
data: {host: 127.0.0.1}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: redis, namespace: %[1]s, finalizers: [finalizer.keda.sh]}
spec: {secretTargetRef: [{parameter: password, name: redis, key: password}]}
---
apiVersion: keda.sh/v1alpha1
kind: ClusterTriggerAuthentication
metadata: {name: redis-of-%[1]s, finalizers: [finalizer.keda.sh]}
spec: {secretTargetRef: [{parameter: password, name: redis-of-%[1]s, key: password}]}
`, namespace, central)
	w.apply("", manifest)
	w.apply(namespace, job("own", "name: redis")+
		job("shared", "kind: ClusterTriggerAuthentication, name: redis-of-"+namespace))
}

func (w world) apply(namespace, manifest string) {
	w.Helper()
	if _, err := w.KubectlInput(w.Context(), manifest, "--namespace", namespace, "apply", "-f", "-"); err != nil {
		w.Fatal(err)
	}
}

// items is how many items each ScaledJob is given.
const items = 3

func (o *operation) push(w world, namespace string) {
	w.Helper()
	for _, name := range []string{"own", "shared"} {
		o.redis.Do("RPUSH", namespace+"."+name, "1", "2", "3")
	}
}

// works pushes items twice and follows them to the end, and then the ScaledJobs.
func (o *operation) works(w world, namespace string) {
	w.Helper()
	for round := range 2 {
		o.push(w, namespace)
		for _, name := range []string{"own", "shared"} {
			o.worked(w, namespace, name, (round+1)*items)
		}
	}
	o.asksPods(w, namespace)
	o.claims(w, namespace)
	// The deletion waits until everything is gone, which KEDA's finalizer would keep from happening.
	w.kubectl("delete", "scaledjob", "own", "shared", "claiming", "asking", "--namespace", namespace, "--timeout=3m")
	w.kubectl("delete", "triggerauthentication", "redis", "--namespace", namespace, "--timeout=3m")
	w.kubectl("delete", "clustertriggerauthentication", "redis-of-"+namespace, "--timeout=3m")
	w.until("the Jobs go with their ScaledJobs", func(context.Context) (bool, error) {
		return len(o.jobs(w, namespace)) == 0, nil
	})
}

// noPods is what there is to say of a Service without Pods.
const noPods = "none of its Pods is ready"

// asksPods has a trigger that looks for the Pods of a Service, of which there are none.
func (o *operation) asksPods(w world, namespace string) {
	w.Helper()
	w.apply(namespace, fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: asking}
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: main, image: registry.example/work:1, command: ["true"]}]
  triggers:
    - type: metrics-api
      metadata:
        url: http://stats.%s.svc:8080/
        valueLocation: waiting
        targetValue: "1"
        aggregateFromKubeServiceEndpoints: "true"
`, namespace))
	w.until("it is told that the Service has no Pods", func(context.Context) (bool, error) {
		ready := w.scaledJob(namespace, "asking").Status.Conditions.Get(v1alpha1.ConditionReady)
		return strings.Contains(ready.Message, noPods), fmt.Errorf("Ready is %+v", ready)
	})
}

// claims hands out one item that is done, one whose run fails, and one whose Job is deleted while it runs.
func (o *operation) claims(w world, namespace string) {
	w.Helper()
	list := namespace + ".claiming"
	w.apply(namespace, fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: claiming}
spec:
  delivery: {mode: claim, file: /offboard/item}
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: main
            image: registry.example/work:1
            command: [sh, -c, 'case "$(cat "$OFFBOARD_ITEM_FILE")" in bad) exit 1;; slow) exec sleep 300;; esac']
  triggers:
    - type: redis
      authenticationRef: {name: redis}
      metadata: {address: %q, listName: %s, listLength: "1"}
`, o.redis.Addr(), list))
	o.redis.Do("RPUSH", list, "good", "bad", "slow")
	q := queuetest.Open(o.redis.Client(), list)
	settled := func(ctx context.Context, done, dead, claimed int64) (bool, error) {
		stats, err := q.Stats(ctx)
		return stats.Done == done && stats.Dead == dead && stats.Claimed == claimed, errors.Join(fmt.Errorf("%+v", stats), err)
	}
	w.until("only the slow item is left", func(ctx context.Context) (bool, error) { return settled(ctx, 1, 1, 1) })
	var running string
	w.until("its Job runs", func(context.Context) (bool, error) {
		for _, job := range o.jobs(w, namespace, client.MatchingLabels{v1alpha1.LabelScaledJob: "claiming"}) {
			if ptr.Deref(job.Status.Ready, 0) == 1 {
				running = job.Name
			}
		}
		return running != "", nil
	})
	w.kubectl("delete", "job", running, "--namespace", namespace, "--timeout=3m")
	w.until("it has counted as a failure", func(ctx context.Context) (bool, error) { return settled(ctx, 1, 2, 0) })
}

// mostSurplus are the Jobs that may find no work. With delivery by pop the operator starts another Job when a runner is
// later than those before it by more than a second, as it can be on a busy machine.
const mostSurplus = 2

// worked waits until a ScaledJob has created so many Jobs in all, and until all of them have ended.
func (o *operation) worked(w world, namespace, name string, all int) {
	w.Helper()
	w.until("each item of "+name+" has its Job", func(ctx context.Context) (bool, error) {
		created, err := o.created(ctx, w, namespace, name)
		if err != nil || created >= all {
			return err == nil, err
		}
		// Events may be lost, unlike Jobs and status: they tell where to look.
		jobs := o.jobs(w, namespace, client.MatchingLabels{v1alpha1.LabelScaledJob: name})
		return false, fmt.Errorf("%d Jobs were created by the events, there are %d; status %+v", created,
			len(jobs), w.scaledJob(namespace, name).Status)
	})
	w.until("all but the newest Job of "+name+" are removed", func(context.Context) (bool, error) {
		jobs := o.jobs(w, namespace, client.MatchingLabels{v1alpha1.LabelScaledJob: name})
		return len(jobs) == 1 && jobs[0].Status.Succeeded == 1, fmt.Errorf("there are %d Jobs", len(jobs))
	})
	w.until("the status of "+name, func(context.Context) (bool, error) {
		status := w.scaledJob(namespace, name).Status
		return status.Conditions.Get(v1alpha1.ConditionReady).Status == metav1.ConditionTrue &&
			status.Conditions.Get(v1alpha1.ConditionActive).Status == metav1.ConditionFalse &&
			status.LastActiveTime != nil, fmt.Errorf("status %+v", status)
	})
	created, err := o.created(w.Context(), w, namespace, name)
	if err != nil || created > all+mostSurplus {
		w.Errorf("%d Jobs were created for %d items of %s: %v", created, all, name, err)
	} else if created > all {
		w.Logf("%d Jobs were created for %d items of %s: runners were late", created, all, name)
	}
	reply := o.redis.Do("LLEN", namespace+"."+name)
	if length, err := reply.ToInt64(); err != nil || length != 0 {
		w.Errorf("%d items of %s are left: %v", length, name, err)
	}
}

// created returns how many Jobs the events of a ScaledJob tell of.
func (o *operation) created(ctx context.Context, w world, namespace, name string) (int, error) {
	events, err := w.Client().CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=ScaledJob,reason=KEDAJobsCreated,involvedObject.name=" + name,
	})
	if err != nil {
		return 0, err
	}
	sum := 0
	for i := range events.Items {
		var count int
		if _, err := fmt.Sscanf(events.Items[i].Message, "Created %d jobs", &count); err != nil {
			return 0, fmt.Errorf("event %q: %w", events.Items[i].Message, err)
		}
		sum += count * int(max(events.Items[i].Count, 1))
	}
	return sum, nil
}

// objects returns a client that knows the types of keda.sh.
func (w world) objects() client.Client {
	w.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			w.Fatal(err)
		}
	}
	c, err := client.New(w.Config(), client.Options{Scheme: scheme})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

func (w world) scaledJob(namespace, name string) *v1alpha1.ScaledJob {
	w.Helper()
	sj := &v1alpha1.ScaledJob{}
	if err := w.objects().Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: name}, sj); err != nil {
		w.Fatal(err)
	}
	return sj
}

func (o *operation) jobs(w world, namespace string, options ...client.ListOption) []batchv1.Job {
	w.Helper()
	var list batchv1.JobList
	if err := w.objects().List(w.Context(), &list, append(options, client.InNamespace(namespace))...); err != nil {
		w.Fatal(err)
	}
	return list.Items
}
