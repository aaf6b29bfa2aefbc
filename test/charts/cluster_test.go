package charts

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// patience is how long the cluster's controllers may take, on a machine that does much else at the same time.
const patience = 5 * time.Minute

// world is a control plane and what the steps of TestCluster do with it.
type world struct {
	*testing.T
	*controlplane.Cluster
}

// TestCluster installs, upgrades and uninstalls the charts and the plain manifests on one control plane, in steps that
// follow one another, because the definitions belong to the whole cluster. Every namespace enforces the Pod security
// standard "restricted".
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := controlplane.ForTest(t, controlplane.Options{})
	for _, step := range []struct {
		name string
		run  func(world)
	}{
		{"definitions are upgraded", definitionsAreUpgraded},
		{"the operator may do what it needs", operatorRights},
		{"the runner's Pods are admitted", runnerIsInstalled},
		{"an upgrade keeps the certificate's authority", upgradeKeepsAuthority},
		{"definitions stay", uninstallKeepsDefinitions},
		{"definitions of others are left alone", foreignDefinitions},
		{"named namespaces", namedNamespaces},
		{"plain manifests", plainManifests},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(world{t, cluster}) }) {
			return
		}
	}
}

// system is the namespace of the release that most steps are about.
const system = "offboard-system"

func (w world) helm(args ...string) (string, error) {
	w.Helper()
	return helm(w.T, append(args, "--kubeconfig", w.KubeconfigFile())...)
}

func (w world) mustHelm(args ...string) string {
	w.Helper()
	out, err := w.helm(args...)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// kubectl fails the test on a warning, too: the API server gives one where it would not admit a Pod.
func (w world) kubectl(args ...string) string {
	w.Helper()
	flags := []string{"--kubeconfig", w.KubeconfigFile(), "--cache-dir", filepath.Join(w.Dir(), "kubectl"), "--warnings-as-errors"}
	out, err := run(w.T, "", nil, w.KubectlPath(), append(flags, args...)...)
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// hardened makes a namespace that admits restricted Pods only.
func (w world) hardened(name string) {
	w.Helper()
	w.kubectl("create", "namespace", name)
	w.kubectl("label", "namespace", name,
		"pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
}

// until waits for a condition.
func (w world) until(what string, condition func(ctx context.Context) (bool, error)) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		done, err := condition(ctx)
		if done {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err // what the end of the wait breaks off tells nothing
		}
		select {
		case <-ctx.Done():
			w.Fatalf("still not: %s (%v)", what, last)
		case <-tick.C:
		}
	}
}

// hasPods waits until as many Pods of the Deployment were admitted.
func (w world) hasPods(namespace, deployment string, count int32) {
	w.Helper()
	w.until(fmt.Sprintf("%d Pods of Deployment %s", count, deployment), func(ctx context.Context) (bool, error) {
		d, err := w.Client().AppsV1().Deployments(namespace).Get(ctx, deployment, metav1.GetOptions{})
		return err == nil && d.Status.Replicas == count && d.Status.ObservedGeneration == d.Generation, err
	})
}

// definitionsAreUpgraded installs a chart with an older definition, and upgrades it.
func definitionsAreUpgraded(w world) {
	w.hardened(system)
	old := filepath.Join(w.TempDir(), "offboard")
	if err := os.CopyFS(old, os.DirFS(operatorChart)); err != nil {
		w.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Join(old, "files", "crds"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.Replace(string(data), "    - sj\n", "    - oldsj\n", 1)), 0o600)
	})
	if err != nil {
		w.Fatal(err)
	}
	notes := w.mustHelm("install", "offboard", old, "--namespace", system)
	if !strings.Contains(notes, "Offboard serves the ScaledJobs of all namespaces.") {
		w.Errorf("the notes are:\n%s", notes)
	}
	short := []string{"get", "crd", "scaledjobs.keda.sh", "-o", "jsonpath={.spec.names.shortNames}"}
	if got := w.kubectl(short...); got != `["oldsj"]` {
		w.Fatalf("the older definition has the short names %s", got)
	}
	w.hasPods(system, "offboard", 2)
	w.mustHelm("upgrade", "offboard", operatorChart, "--namespace", system)
	if got := w.kubectl(short...); got != `["sj"]` {
		w.Errorf("after the upgrade the short names are %s", got)
	}
	for _, resource := range []string{"scaledjobs", "triggerauthentications", "clustertriggerauthentications"} {
		w.kubectl("wait", "--for=condition=Established", "--timeout=3m", "crd/"+resource+".keda.sh")
	}
}

// runnerIsInstalled installs the runner's chart, whose objects the API server must store as they are, and starts one of
// its Jobs.
func runnerIsInstalled(w world) {
	w.hardened("work")
	notes := w.mustHelm(append([]string{"install", "usertask", runnerChart, "--namespace", "work"}, values(w.T, secure)...)...)
	if !strings.Contains(notes, "redis-cli -h redis.example -p 6380 -n 3 --user worker --askpass --tls --cacert ca.crt "+
		`RPUSH "a list: with #"`) {
		w.Errorf("the notes are:\n%s", notes)
	}
	stored := decode(w.T, w.kubectl("get", "scaledjob", "usertask", "--namespace", "work", "-o", "yaml"))
	scaledJob := one[*v1alpha1.ScaledJob](w.T, stored)
	w.kubectl("get", "triggerauthentication", "usertask", "--namespace", "work")
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: *scaledJob.Spec.JobTargetRef}
	if _, err := w.Client().BatchV1().Jobs("work").Create(w.Context(), job, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
	w.until("a Pod of the Job", func(ctx context.Context) (bool, error) {
		job, err := w.Client().BatchV1().Jobs("work").Get(ctx, "one", metav1.GetOptions{})
		return err == nil && job.Status.Active == 1, err
	})
}

// upgradeKeepsAuthority writes a caBundle as the operator does, and upgrades the release.
func upgradeKeepsAuthority(w world) {
	const name = "offboard." + system
	hooks := w.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	patch := fmt.Sprintf(`{"webhooks":[{"name":"validate.offboard.dev","clientConfig":{"caBundle":%q}}]}`,
		base64.StdEncoding.EncodeToString(w.Config().CAData))
	_, err := hooks.Patch(w.Context(), name, types.StrategicMergePatchType, []byte(patch),
		metav1.PatchOptions{FieldManager: "offboard-operator"})
	if err != nil {
		w.Fatal(err)
	}
	w.mustHelm("upgrade", "offboard", operatorChart, "--namespace", system, "--set", "replicas=3,webhook.timeoutSeconds=7")
	hook, err := hooks.Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	if got := hook.Webhooks[0]; len(got.ClientConfig.CABundle) == 0 || *got.TimeoutSeconds != 7 {
		w.Errorf("after the upgrade the webhook is %v", got)
	}
	w.hasPods(system, "offboard", 3)
	w.mustHelm("upgrade", "offboard", operatorChart, "--namespace", system, "--set", "webhook.enabled=false")
	if _, err := hooks.Get(w.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		w.Errorf("the webhook is disabled, and asking for it gives %v", err)
	}
}

// uninstallKeepsDefinitions wants nothing to be left but the definitions and what users made with them.
func uninstallKeepsDefinitions(w world) {
	w.mustHelm("uninstall", "offboard", "--namespace", system, "--no-hooks")
	w.kubectl("get", "scaledjob", "usertask", "--namespace", "work")
	left := w.kubectl("get", "deployments,services,serviceaccounts,roles,rolebindings,pdb,clusterroles,clusterrolebindings,"+
		"validatingwebhookconfigurations", "--all-namespaces", "--selector", "app.kubernetes.io/instance=offboard", "-o", "name")
	if left != "" {
		w.Errorf("what is left:\n%s", left)
	}
	w.mustHelm("install", "offboard", operatorChart, "--namespace", system)
	w.mustHelm("uninstall", "offboard", "--namespace", system, "--no-hooks")
}

// foreignDefinitions installs a release where another one's definitions are, as KEDA's are where KEDA was.
func foreignDefinitions(w world) {
	w.hardened("elsewhere")
	_, err := w.helm("install", "another", operatorChart, "--namespace", "elsewhere")
	refused(w.T, err, "keda.sh", "exists and cannot be imported")
	before := w.kubectl("get", "crd", "scaledjobs.keda.sh", "-o", "jsonpath={.metadata.resourceVersion}")
	w.mustHelm("upgrade", "--install", "another", operatorChart, "--namespace", "elsewhere", "--set", "crds.install=false")
	w.mustHelm("uninstall", "another", "--namespace", "elsewhere", "--no-hooks")
	if after := w.kubectl("get", "crd", "scaledjobs.keda.sh", "-o", "jsonpath={.metadata.resourceVersion}"); after != before {
		w.Error("the definition was changed")
	}
}

// deleteDefinitions deletes all of them and waits until they are gone. An API server may stop to clean up after one that
// was in use just now ("storage is (re)initializing"), and goes on when the definition changes.
func (w world) deleteDefinitions() {
	w.Helper()
	w.kubectl("delete", "crd", "--selector", "app.kubernetes.io/part-of=offboard", "--wait=false")
	looks := 0
	w.until("the definitions are gone", func(context.Context) (bool, error) {
		left := strings.Fields(w.kubectl("get", "crd", "--selector", "app.kubernetes.io/part-of=offboard", "-o", "name"))
		if looks++; looks%100 == 0 {
			for _, definition := range left {
				// It may go meanwhile, which is what is wanted.
				_, _ = run(w.T, "", nil, w.KubectlPath(), "--kubeconfig", w.KubeconfigFile(), "annotate", "--overwrite", definition,
					"example.com/look="+strconv.Itoa(looks))
			}
		}
		return len(left) == 0, fmt.Errorf("there are %q", left)
	})
}

// plainManifests applies what `make manifests` writes, to a cluster that has nothing of it, and once more.
func plainManifests(w world) {
	w.deleteDefinitions()
	file := filepath.Join(w.TempDir(), "offboard.yaml")
	if _, err := run(w.T, "", []string{"OUT=" + file}, "../../scripts/manifests"); err != nil {
		w.Fatal(err)
	}
	for range 2 {
		w.kubectl("apply", "--server-side", "-f", file)
	}
	w.hasPods("offboard", "offboard", 2)
	w.kubectl("wait", "--for=condition=Established", "--timeout=3m", "crd/scaledjobs.keda.sh")
	text, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	if strings.Contains(string(text), "managed-by: Helm") {
		w.Error("the manifests say that Helm manages them")
	}
	if strings.Contains(string(text), "helm.sh/hook") {
		w.Error("the manifests have a hook, which kubectl would run at once")
	}
	if level := w.kubectl("get", "namespace", "offboard", "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); level != "restricted" {
		w.Errorf("the namespace enforces %q", level)
	}
	w.kubectl("delete", "-f", file, "--wait=false")
	w.deleteDefinitions()
}

// namedNamespaces installs the operator for two namespaces of which one is not its own.
func namedNamespaces(w world) {
	for _, name := range []string{"blue", "green", "red"} {
		w.hardened(name)
	}
	w.mustHelm("install", "teams", operatorChart, "--namespace", "blue",
		"--set", "crds.install=false,watch.namespaces={blue,green}")
	user := "system:serviceaccount:blue:teams-offboard"
	for _, need := range workNeeds {
		for _, namespace := range []string{"blue", "green"} {
			w.may(user, namespace, need, true)
		}
		for _, namespace := range []string{"red", "kube-system", ""} {
			w.may(user, namespace, need, false)
		}
	}
	for _, need := range []string{"get clustertriggerauthentications.keda.sh", "watch clustertriggerauthentications.keda.sh",
		"patch validatingwebhookconfigurations.admissionregistration.k8s.io/teams-offboard.blue"} {
		w.may(user, "", need, true)
	}
	w.may(user, "blue", "create leases.coordination.k8s.io", true)
	w.may(user, "green", "create leases.coordination.k8s.io", false)
	w.may(user, "green", "update secrets", false)
	w.mustHelm("upgrade", "teams", operatorChart, "--namespace", "blue",
		"--set", "crds.install=false,watch.namespaces={green},clusterObjectNamespace=red")
	w.may(user, "green", "get secrets", true)
	w.may(user, "red", "get secrets", true)
	w.may(user, "red", "create secrets", false)
	w.may(user, "red", "delete secrets", false)
	w.may(user, "red", "list pods", false)
	w.may(user, "blue", "get secrets", false)
	w.mustHelm("uninstall", "teams", "--namespace", "blue", "--no-hooks")
	if !slices.Contains(strings.Fields(w.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}")), "green") {
		w.Error("the release has taken a namespace with it")
	}
}
