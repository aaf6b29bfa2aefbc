package crds

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	clientv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// These tests change what a whole cluster serves: they run one after the other, each begins with a cluster that serves
// nothing of ours, and they leave the definitions where they are.
var shared controlplane.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// emptyCluster returns the cluster without definitions.
func emptyCluster(t *testing.T) (*controlplane.Cluster, clientv1.CustomResourceDefinitionInterface) {
	t.Helper()
	cluster := shared.Cluster(t)
	definitions := client(t, cluster)
	for name := range versions(t, definitions) {
		remove(t, definitions, name)
	}
	return cluster, definitions
}

func client(t *testing.T, cluster *controlplane.Cluster) clientv1.CustomResourceDefinitionInterface {
	t.Helper()
	c, err := clientset.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	return c.ApiextensionsV1().CustomResourceDefinitions()
}

// versions returns the resource versions of all definitions, which change with each of their changes.
func versions(t *testing.T, definitions clientv1.CustomResourceDefinitionInterface) map[string]string {
	t.Helper()
	list, err := definitions.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for i := range list.Items {
		versions[list.Items[i].Name] = list.Items[i].ResourceVersion
	}
	return versions
}

func TestInstall(t *testing.T) {
	cluster, definitions := emptyCluster(t)

	// Two replicas of the operator start at once.
	results := make(chan error)
	for range 2 {
		go func() {
			foreign, err := Install(t.Context(), cluster.Config())
			if len(foreign) > 0 {
				err = errors.Join(err, errors.New(foreign[0].String()))
			}
			results <- err
		}()
	}
	if err := errors.Join(<-results, <-results); err != nil {
		t.Fatal(err)
	}

	// What Install promises: objects can be written at once, by a client that asks the server what there is.
	namespace := cluster.Namespace(t)
	kubectl := func(t *testing.T, input string, args ...string) (string, error) {
		t.Helper()
		out, err := cluster.KubectlInput(t.Context(), input, append([]string{"--namespace", namespace}, args...)...)
		return string(out), err
	}
	if _, err := kubectl(t, "", "apply", "-f", filepath.Join("..", "..", "examples", "usertask", "scaledjob.yaml"),
		"-f", filepath.Join("..", "..", "examples", "usertask", "secret.yaml")); err != nil {
		t.Fatal(err)
	}

	t.Run("columns", func(t *testing.T) {
		if _, err := kubectl(t, "", "patch", "scaledjob", "usertask", "--subresource=status", "--type=merge", "-p",
			`{"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Active", "status": "False"},
			{"type": "Paused", "status": "Unknown"}], "triggersTypes": "redis", "authenticationsTypes": "auth"}}`); err != nil {
			t.Fatal(err)
		}
		out, err := kubectl(t, "", "get", "sj")
		if err != nil {
			t.Fatal(err)
		}
		header, row, _ := strings.Cut(out, "\n")
		want := []string{"NAME", "MIN", "MAX", "READY", "ACTIVE", "PAUSED", "TRIGGERS", "AUTHENTICATIONS", "AGE"}
		if got := strings.Fields(header); !slices.Equal(got, want) {
			t.Errorf("got columns %q", got)
		}
		want = []string{"usertask", "25", "True", "False", "Unknown", "redis", "auth"}
		if got := strings.Fields(row); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("got row %q", got)
		}
	})

	t.Run("the server fills in and refuses", func(t *testing.T) {
		out, err := kubectl(t, scaledJobHead+`spec:
  jobTargetRef: {template: {spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}}}
  triggers: [{type: redis, metadata: {listName: a}}]
`, "apply", "--dry-run=server", "-o", "yaml", "-f", "-")
		if err != nil || !strings.Contains(out, "protocol: TCP") {
			t.Errorf("got %v, %s", err, out)
		}
		out, err = kubectl(t, authHead+"  oauth2: {clientId: c, tokenUrl: u}\n",
			"apply", "--dry-run=server", "-o", "yaml", "-f", "-")
		if err != nil || !strings.Contains(out, "type: clientCredentials") {
			t.Errorf("got %v, %s", err, out)
		}
		for _, refused := range []struct{ manifest, want string }{
			{least + "  maxReplicaCount: 0", "spec.maxReplicaCount: Invalid value: 0"},
			{least + "  scalingStrategy: {strategy: Eager}", `spec.scalingStrategy.strategy: Unsupported value: "Eager"`},
			{least + "  maxReplicas: 1", `unknown field "spec.maxReplicas"`},
			{scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: []}", "spec.triggers"},
			{authHead + "  secretTargetRef: [{parameter: p, name: x}]", "spec.secretTargetRef[0].key: Required value"},
		} {
			// kubectl's own check would come first, in other words.
			_, err := kubectl(t, refused.manifest, "create", "--dry-run=server", "--validate=strict", "-f", "-")
			if err == nil || !strings.Contains(err.Error(), refused.want) {
				t.Errorf("got %v, want %q", err, refused.want)
			}
		}
	})

	t.Run("what kubectl has applied is ours too", func(t *testing.T) {
		before := versions(t, definitions)
		if _, err := Install(t.Context(), cluster.Config()); err != nil {
			t.Fatal(err)
		}
		if after := versions(t, definitions); !maps.Equal(before, after) {
			t.Errorf("installing twice changed something: %v, %v", before, after)
		}
		for _, args := range [][]string{
			{"apply", "--server-side", "--force-conflicts", "-f", "-"},
			{"apply", "-f", "-"},
		} {
			if _, err := kubectl(t, string(YAML()), args...); err != nil {
				t.Error(err)
			}
			if foreign, err := Install(t.Context(), cluster.Config()); err != nil || len(foreign) > 0 {
				t.Errorf("got %v, %v", foreign, err)
			}
		}
	})
}

func TestForeign(t *testing.T) {
	cluster, definitions := emptyCluster(t)
	create := func(kind string, change func(*apiextensionsv1.CustomResourceDefinition)) {
		t.Helper()
		d := definition(t, kind)
		d.Labels = map[string]string{LabelPartOf: "keda-operator"}
		change(d)
		if _, err := definitions.Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create(v1alpha1.KindScaledJob, func(d *apiextensionsv1.CustomResourceDefinition) {
		delete(d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties, "rollout")
		trigger := d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["triggers"].Items.Schema
		delete(trigger.Properties, "useCachedMetrics")
	})
	create(v1alpha1.KindTriggerAuthentication, func(d *apiextensionsv1.CustomResourceDefinition) {
		d.Spec.Versions[0].Subresources = nil // as in old versions of KEDA; Offboard writes none
	})
	foreign, err := Install(t.Context(), cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	want := []Foreign{
		{"scaledjobs.keda.sh", []string{"spec.rollout", "spec.triggers[].useCachedMetrics"}},
		{"triggerauthentications.keda.sh", nil},
	}
	if !slices.EqualFunc(foreign, want, func(a, b Foreign) bool {
		return a.Name == b.Name && slices.Equal(a.Unknown, b.Unknown)
	}) {
		t.Errorf("got %v, want %v", foreign, want)
	}
	for _, name := range []string{"scaledjobs.keda.sh", "triggerauthentications.keda.sh"} {
		d, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(d.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == FieldManager }) {
			t.Errorf("%s was changed", name)
		}
	}

	t.Run("not good enough", func(t *testing.T) {
		for name, test := range map[string]struct {
			change func(*apiextensionsv1.CustomResourceDefinition)
			want   string
		}{
			"version": {func(d *apiextensionsv1.CustomResourceDefinition) {
				d.Spec.Versions[0].Name = "v1alpha2"
			}, "does not serve version v1alpha1"},
			"status": {func(d *apiextensionsv1.CustomResourceDefinition) {
				d.Spec.Versions[0].Subresources = nil
			}, "has no status subresource"},
			"scope": {func(d *apiextensionsv1.CustomResourceDefinition) {
				d.Spec.Scope = apiextensionsv1.ClusterScoped
			}, "its scope is Cluster, not Namespaced"},
		} {
			remove(t, definitions, "scaledjobs.keda.sh")
			create(v1alpha1.KindScaledJob, test.change)
			if _, err := Install(t.Context(), cluster.Config()); err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "offboard crds | kubectl apply") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})

	t.Run("names that are taken", func(t *testing.T) {
		remove(t, definitions, "scaledjobs.keda.sh")
		d := definition(t, v1alpha1.KindScaledJob)
		d.Name, d.Spec.Group, d.Spec.Names.Plural, d.Spec.Names.Singular = "sj.keda.sh", v1alpha1.Group, "sj", "sj"
		d.Spec.Names.ShortNames = []string{"scaledjobs"}
		d.Spec.Names.Kind, d.Spec.Names.ListKind = "Other", "OtherList"
		if _, err := definitions.Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := Install(t.Context(), cluster.Config()); err == nil || !strings.Contains(err.Error(), "already in use") {
			t.Errorf("got %v", err)
		}
	})
}

// remove deletes a definition and waits until it is gone.
func remove(t *testing.T, definitions clientv1.CustomResourceDefinitionInterface, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := definitions.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := definitions.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	}); err != nil {
		t.Fatalf("delete %s: %v", name, err)
	}
}

func TestForbidden(t *testing.T) {
	config, err := shared.Cluster(t).UserConfig("nobody")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Install(t.Context(), config)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "clustertriggerauthentications.keda.sh") {
		t.Errorf("got %v", err)
	}
}
