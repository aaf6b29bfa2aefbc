package charts

import (
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// everything turns on all that is off by default.
const everything = `
watch: {namespaces: [blue, green], selector: "team=blue,tier!=test"}
clusterObjectNamespace: shared
fullnameOverride: ours
replicas: 3
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
webhook: {failurePolicy: Fail, port: 10250}
metrics:
  port: 9090
  serviceMonitor: {enabled: true, labels: {release: prometheus}, interval: 30s, scrapeTimeout: 10s, honorLabels: true}
prometheusRule: {enabled: true, labels: {release: prometheus}, namespace: monitoring}
grafanaDashboard: {enabled: true, namespace: monitoring, annotations: {folder: Jobs}}
networkPolicy:
  enabled: true
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  egress: [{ports: [{port: 443}]}]
podDisruptionBudget: {maxUnavailable: 50%}
serviceAccount: {annotations: {a: b}}
podAnnotations: {a: "true"}
podLabels: {a: "1"}
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
priorityClassName: high
serviceAccountTokens: [{namespace: blue, name: worker}, {namespace: shared, name: worker}]
authFiles: {secret: {secretName: trigger-files}}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
topologySpreadConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
`

// operatorValues are values that the chart must render.
var operatorValues = map[string]string{
	"defaults":            "",
	"everything":          everything,
	"named namespaces":    "watch: {namespaces: [blue]}",
	"nothing optional":    "webhook: {enabled: false}\nmetrics: {enabled: false}\ncrds: {install: false}\npodDisruptionBudget: {enabled: false}\nreplicas: 1\nleaderElection: {enabled: false}\nresources: null\ntopologySpreadConstraints: []",
	"others' rights":      "rbac: {create: false}\nserviceAccount: {create: false, name: theirs}",
	"definitions may go":  "crds: {keep: false}",
	"no replica":          "replicas: 0",
	"no release":          "uninstall: {release: false}",
	"text logs":           "log: {level: debug, format: text}",
	"a user of a cluster": "podSecurityContext: {runAsUser: null, runAsGroup: null}",
}

func TestOperatorRenders(t *testing.T) {
	t.Parallel()
	for name, yaml := range operatorValues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := mustTemplate(t, operatorChart, yaml)
			deployment := one[*appsv1.Deployment](t, all)
			pod := deployment.Spec.Template
			restricted(t, &pod.Spec)
			if read := pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem; read == nil || !*read {
				t.Error("the root filesystem can be written")
			}
			leastRights(t, all)
			selectorsMatch(t, all, labels.Set(pod.Labels))
			portsExist(t, all, pod.Spec.Containers[0].Ports)
			for _, object := range all {
				if _, isCRD := object.(*apiextensionsv1.CustomResourceDefinition); !isCRD &&
					object.GetLabels()["app.kubernetes.io/instance"] != "r" {
					t.Errorf("%T %s has the labels %v", object, object.GetName(), object.GetLabels())
				}
			}
		})
	}
}

func TestOperatorLint(t *testing.T) {
	t.Parallel()
	for name, yaml := range operatorValues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := helm(t, append([]string{"lint", "--strict", operatorChart}, values(t, yaml)...)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// selectorsMatch wants every selector of the chart to choose the operator's Pods.
func selectorsMatch(t *testing.T, all objects, pod labels.Set) {
	t.Helper()
	selectors := map[string]*metav1.LabelSelector{}
	for _, object := range all {
		switch o := object.(type) {
		case *appsv1.Deployment:
			selectors["Deployment"] = o.Spec.Selector
			for _, constraint := range o.Spec.Template.Spec.TopologySpreadConstraints {
				selectors["constraint "+constraint.TopologyKey] = constraint.LabelSelector
			}
		case *corev1.Service:
			selectors["Service "+o.Name] = metav1.SetAsLabelSelector(o.Spec.Selector)
		case *policyv1.PodDisruptionBudget:
			selectors["PodDisruptionBudget"] = o.Spec.Selector
		case *networkingv1.NetworkPolicy:
			selectors["NetworkPolicy"] = &o.Spec.PodSelector
		}
	}
	for name, selector := range selectors {
		selects, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || selects.Empty() || !selects.Matches(pod) {
			t.Errorf("%s selects %v, and the Pods have %v: %v", name, selector, pod, err)
		}
	}
}

// portsExist wants every port that is named to be one of the container.
func portsExist(t *testing.T, all objects, ports []corev1.ContainerPort) {
	t.Helper()
	known := map[string]bool{}
	for _, port := range ports {
		known[port.Name] = true
	}
	for _, service := range of[*corev1.Service](all) {
		for _, port := range service.Spec.Ports {
			if !known[port.TargetPort.StrVal] {
				t.Errorf("Service %s leads to port %s, which the container does not have", service.Name, port.TargetPort.StrVal)
			}
		}
	}
	for _, policy := range of[*networkingv1.NetworkPolicy](all) {
		for _, rule := range policy.Spec.Ingress {
			for _, port := range rule.Ports {
				if !known[port.Port.StrVal] {
					t.Errorf("the NetworkPolicy opens port %s, which the container does not have", port.Port.StrVal)
				}
			}
		}
	}
}

// leastRights wants no rule that holds a wildcard, and none that lists or changes Secrets other than the operator's own.
func leastRights(t *testing.T, all objects) {
	t.Helper()
	check := func(name string, rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			for _, word := range slices.Concat(
				rule.Verbs, rule.APIGroups, rule.Resources, rule.ResourceNames, rule.NonResourceURLs) {
				if strings.Contains(word, "*") {
					t.Errorf("%s has a wildcard: %v", name, rule)
				}
			}
			if slices.Contains(rule.Resources, "secrets") && len(rule.ResourceNames) == 0 {
				for _, verb := range rule.Verbs {
					if !slices.Contains([]string{"get", "create", "delete"}, verb) {
						t.Errorf("%s may %s any Secret", name, verb)
					}
				}
			}
		}
	}
	for _, role := range of[*rbacv1.ClusterRole](all) {
		check("ClusterRole "+role.Name, role.Rules)
	}
	for _, role := range of[*rbacv1.Role](all) {
		check("Role "+role.Namespace+"/"+role.Name, role.Rules)
	}
}

// TestServiceAccountTokens wants a right to tokens of the named service accounts, and of no others.
func TestServiceAccountTokens(t *testing.T) {
	t.Parallel()
	rights := func(yaml string) map[string]rbacv1.PolicyRule {
		found := map[string]rbacv1.PolicyRule{}
		all := mustTemplate(t, operatorChart, yaml)
		for _, role := range of[*rbacv1.ClusterRole](all) {
			for _, rule := range role.Rules {
				if slices.Contains(rule.Resources, "serviceaccounts/token") {
					t.Errorf("a ClusterRole has a right to tokens: %v", rule)
				}
			}
		}
		bound := map[string]bool{}
		for _, binding := range of[*rbacv1.RoleBinding](all) {
			bound[binding.Namespace+"/"+binding.RoleRef.Name] = binding.Subjects[0].Name == "r-offboard"
		}
		for _, role := range of[*rbacv1.Role](all) {
			for _, rule := range role.Rules {
				if slices.Contains(rule.Resources, "serviceaccounts/token") && bound[role.Namespace+"/"+role.Name] {
					found[role.Namespace] = rule
				}
			}
		}
		return found
	}
	if got := rights(""); len(got) != 0 {
		t.Errorf("by default there are rights to tokens: %v", got)
	}
	got := rights("serviceAccountTokens: [{namespace: blue, name: worker}, {namespace: green, name: reader}]")
	want := map[string]string{"blue": "worker", "green": "reader"}
	for namespace, account := range want {
		rule := got[namespace]
		if !slices.Equal(rule.ResourceNames, []string{account}) || !slices.Equal(rule.Verbs, []string{"create"}) ||
			!slices.Equal(rule.Resources, []string{"serviceaccounts/token"}) || !slices.Equal(rule.APIGroups, []string{""}) {
			t.Errorf("in %s the rule is %v; want that tokens of %s may be created", namespace, rule, account)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v; want rules in %v", got, want)
	}
}

// TestAuthFiles wants the volume where the flag says that the files are.
func TestAuthFiles(t *testing.T) {
	t.Parallel()
	pod := one[*appsv1.Deployment](t, mustTemplate(t, operatorChart, "authFiles: {secret: {secretName: trigger-files}}")).
		Spec.Template.Spec
	container := pod.Containers[0]
	if len(pod.Volumes) != 1 || pod.Volumes[0].Secret == nil || pod.Volumes[0].Secret.SecretName != "trigger-files" ||
		len(container.VolumeMounts) != 1 || container.VolumeMounts[0].Name != pod.Volumes[0].Name ||
		!container.VolumeMounts[0].ReadOnly ||
		!slices.Contains(container.Args, "--filepath-auth-root-path="+container.VolumeMounts[0].MountPath) {
		t.Errorf("got the volumes %v, the mounts %v and the arguments %q", pod.Volumes, container.VolumeMounts, container.Args)
	}
}

// TestNamedNamespaces wants Roles in exactly the named namespaces in place of rights in the whole cluster.
func TestNamedNamespaces(t *testing.T) {
	t.Parallel()
	all := mustTemplate(t, operatorChart, "watch: {namespaces: [blue, green]}")
	clusterWide := map[string]bool{"clustertriggerauthentications": true, "validatingwebhookconfigurations": true}
	for _, rule := range one[*rbacv1.ClusterRole](t, all).Rules {
		for _, resource := range rule.Resources {
			if !clusterWide[resource] {
				t.Errorf("the ClusterRole is about %s", resource)
			}
		}
	}
	readable := map[string]bool{}
	for _, role := range of[*rbacv1.Role](all) {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "secrets") && slices.Contains(rule.Verbs, "get") && len(rule.ResourceNames) == 0 {
				readable[role.Namespace] = true
			}
		}
	}
	if want := []string{"blue", "green"}; !slices.Equal(slices.Sorted(maps.Keys(readable)), want) {
		t.Errorf("Secrets can be read in %v, want %v", readable, want)
	}
	bound := map[string]bool{}
	for _, binding := range of[*rbacv1.RoleBinding](all) {
		bound[binding.Namespace] = true
		if s := binding.Subjects[0]; s.Kind != "ServiceAccount" || s.Name != "r-offboard" || s.Namespace != "ns" {
			t.Errorf("RoleBinding %s/%s is about %v", binding.Namespace, binding.Name, s)
		}
	}
	if len(bound) != 3 || !bound["blue"] || !bound["green"] || !bound["ns"] {
		t.Errorf("there are bindings in %v", bound)
	}
	if args := one[*appsv1.Deployment](t, all).Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--namespaces=blue,green") {
		t.Errorf("the arguments are %v", args)
	}
	hook := one[*admissionregistrationv1.ValidatingWebhookConfiguration](t, all).Webhooks[0]
	if got := hook.NamespaceSelector.MatchExpressions[0].Values; !slices.Equal(got, []string{"blue", "green"}) {
		t.Errorf("the webhook is about %v", got)
	}
}

// TestOperatorFlags gives the arguments of the Deployment and of the hook to the program, which must know all of them.
func TestOperatorFlags(t *testing.T) {
	t.Parallel()
	for _, yaml := range []string{"", everything} {
		all := mustTemplate(t, operatorChart, yaml)
		for _, args := range [][]string{
			one[*appsv1.Deployment](t, all).Spec.Template.Spec.Containers[0].Args,
			one[*batchv1.Job](t, all).Spec.Template.Spec.Containers[0].Args,
		} {
			out, err := run(t, "", nil, program, append(slices.Clone(args), "--help")...)
			if err != nil || !strings.Contains(out, "offboard operator") {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
	}
}

// TestWebhook wants the names that the operator is told to be those that the chart gives.
func TestWebhook(t *testing.T) {
	t.Parallel()
	all := mustTemplate(t, operatorChart, "")
	configuration := one[*admissionregistrationv1.ValidatingWebhookConfiguration](t, all)
	hook := configuration.Webhooks[0]
	service := hook.ClientConfig.Service
	if hook.FailurePolicy == nil || *hook.FailurePolicy != admissionregistrationv1.Ignore {
		t.Errorf("the failure policy is %v", hook.FailurePolicy)
	}
	if service.Namespace != "ns" || *service.Path != "/validate" || hook.ClientConfig.CABundle != nil {
		t.Errorf("the webhook is at %v", hook.ClientConfig)
	}
	args := one[*appsv1.Deployment](t, all).Spec.Template.Spec.Containers[0].Args
	for _, want := range []string{
		"--webhook=true", "--webhook-service=" + service.Name, "--webhook-configuration=" + configuration.Name,
		"--webhook-secret=r-offboard-webhook-cert",
	} {
		if !slices.Contains(args, want) {
			t.Errorf("there is no %s in %v", want, args)
		}
	}
	if !slices.ContainsFunc(of[*corev1.Service](all), func(s *corev1.Service) bool { return s.Name == service.Name }) {
		t.Errorf("there is no Service %s", service.Name)
	}
}

// TestWebhookSelector wants the webhook to be asked of exactly what the operator looks after, by its labels. Whether a
// label is a number that is large enough the API server cannot tell.
func TestWebhookSelector(t *testing.T) {
	t.Parallel()
	var sets []labels.Set
	for _, team := range []string{"-", "", "blue", "red", "1"} {
		for _, tier := range []string{"-", "", "test", "a.b_c"} {
			set := labels.Set{"n": "5", "example.com/team": team, "tier": tier}
			maps.DeleteFunc(set, func(_, value string) bool { return value == "-" })
			sets = append(sets, set)
		}
	}
	for text, asked := range map[string]string{
		"example.com/team=blue":                     "",
		" example.com/team == blue , tier != test ": "",
		"example.com/team=1,!tier":                  "",
		"tier":                                      "",
		"!  tier,n":                                 "",
		"tier=":                                     "",
		"tier!=":                                    "",
		"tier in (test)":                            "",
		"tier in(a.b_c, test),example.com/team!=blue": "",
		"tier notin ( test,)":                         "",
		"tier notin (test),n>7,n < 9":                 "tier notin (test)",
	} {
		wanted, err := labels.Parse(cmp.Or(asked, text))
		if err != nil {
			t.Fatal(err)
		}
		value, err := yaml.Marshal(map[string]any{"watch": map[string]any{"selector": text}})
		if err != nil {
			t.Fatal(err)
		}
		hook := one[*admissionregistrationv1.ValidatingWebhookConfiguration](t,
			mustTemplate(t, operatorChart, string(value))).Webhooks[0]
		got, err := metav1.LabelSelectorAsSelector(hook.ObjectSelector)
		if err != nil {
			t.Errorf("%q: %v: %v", text, hook.ObjectSelector, err)
			continue
		}
		for _, set := range sets {
			if got.Matches(set) != wanted.Matches(set) {
				t.Errorf("%q: of %v the webhook is asked: %t, want %t", text, set, got.Matches(set), wanted.Matches(set))
			}
		}
	}
	for _, values := range []string{"", "watch: {selector: n<3}"} {
		all := mustTemplate(t, operatorChart, values)
		hook := one[*admissionregistrationv1.ValidatingWebhookConfiguration](t, all).Webhooks[0]
		if hook.ObjectSelector != nil {
			t.Errorf("%q: the webhook is asked of %v only", values, hook.ObjectSelector)
		}
	}
}

// TestDefinitions wants the chart to hold the generated definitions.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	generated, err := filepath.Glob("../../internal/crds/*.yaml")
	if err != nil || len(generated) == 0 {
		t.Fatalf("the generated definitions are %v, %v", generated, err)
	}
	rendered := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, crd := range of[*apiextensionsv1.CustomResourceDefinition](mustTemplate(t, operatorChart, "")) {
		rendered[crd.Name] = crd
	}
	if len(rendered) != len(generated) {
		t.Errorf("the chart renders %d definitions, and %d are generated; run `make manifests`", len(rendered), len(generated))
	}
	for _, file := range generated {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &want); err != nil {
			t.Fatal(err)
		}
		got := rendered[want.Name]
		if got == nil {
			t.Errorf("the chart does not render %s; run `make manifests`", want.Name)
			continue
		}
		if got.Annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would go with the release", want.Name)
		}
		if !equalJSON(t, got.Spec, want.Spec) {
			t.Errorf("the chart's copy of %s is an old one; run `make manifests`", file)
		}
	}
	if kept := of[*apiextensionsv1.CustomResourceDefinition](mustTemplate(t, operatorChart, "crds: {keep: false}")); kept[0].Annotations["helm.sh/resource-policy"] != "" {
		t.Error("crds.keep is false, and they would stay")
	}
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	var texts [2]string
	for i, value := range []any{a, b} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
	}
	return texts[0] == texts[1]
}

// TestObservability wants dashboards and rules to arrive whole.
func TestObservability(t *testing.T) {
	t.Parallel()
	all := mustTemplate(t, operatorChart, everything)
	dashboards, err := filepath.Glob(operatorChart + "/dashboards/*.json")
	if err != nil || len(dashboards) == 0 {
		t.Fatalf("the dashboards are %v, %v", dashboards, err)
	}
	data := one[*corev1.ConfigMap](t, all).Data
	for _, file := range dashboards {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := data[filepath.Base(file)]; strings.TrimSpace(got) != strings.TrimSpace(string(want)) || !json.Valid([]byte(got)) {
			t.Errorf("%s is not whole in the ConfigMap", file)
		}
	}
	rules, err := filepath.Glob(operatorChart + "/alerts/*.yaml")
	if err != nil || len(rules) == 0 {
		t.Fatalf("the rules are %v, %v", rules, err)
	}
	rendered := 0
	for _, object := range of[*unstructured.Unstructured](all) {
		if object.GetKind() != "PrometheusRule" {
			continue
		}
		rendered++
		if groups, _, err := unstructured.NestedSlice(object.Object, "spec", "groups"); err != nil || len(groups) == 0 {
			t.Errorf("PrometheusRule %s has the groups %v, %v", object.GetName(), groups, err)
		}
	}
	if rendered != len(rules) {
		t.Errorf("%d rules are rendered of %d", rendered, len(rules))
	}
	if off := mustTemplate(t, operatorChart, ""); len(of[*unstructured.Unstructured](off))+len(of[*corev1.ConfigMap](off))+len(of[*networkingv1.NetworkPolicy](off)) > 0 {
		t.Error("something optional is on by default")
	}
}

// TestHonorLabels wants Prometheus to name a ScaledJob's namespace as KEDA's dashboard does, unless asked otherwise.
func TestHonorLabels(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]bool{
		"metrics: {serviceMonitor: {enabled: true}}":                    false,
		"metrics: {serviceMonitor: {enabled: true, honorLabels: true}}": true,
	} {
		monitor := one[*unstructured.Unstructured](t, mustTemplate(t, operatorChart, values))
		endpoints, _, err := unstructured.NestedSlice(monitor.Object, "spec", "endpoints")
		if err != nil || len(endpoints) != 1 {
			t.Fatalf("%s: the endpoints are %v, %v", values, endpoints, err)
		}
		endpoint, _ := endpoints[0].(map[string]any)
		if got, isBool := endpoint["honorLabels"].(bool); !isBool || got != want {
			t.Errorf("%s: honorLabels is %v, want %t", values, endpoint["honorLabels"], want)
		}
	}
}

// TestNumericNames gives names that YAML takes for numbers, unless they are quoted.
func TestNumericNames(t *testing.T) {
	t.Parallel()
	for chart, yaml := range map[string]string{
		operatorChart: strings.NewReplacer("[blue, green]", `["1", "2e3"]`, "shared", `"0x1"`, "ours", `"3"`,
			"monitoring", `"4"`, "{a: b}", `{a: "1"}`, "priorityClassName: high", `priorityClassName: "5"`).Replace(everything) +
			"\nnameOverride: \"6\"",
		runnerChart: secure + "\nserviceAccountName: \"1\"\npriorityClassName: \"2\"",
	} {
		text, err := helm(t, append([]string{"template", "123", chart, "--namespace", "456"}, values(t, yaml)...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range decode(t, text) {
			if foreign[object.GetObjectKind().GroupVersionKind().Kind] && object.GetName() == "" {
				t.Errorf("the name of a %T is no text", object)
			}
			if got := object.GetLabels()["app.kubernetes.io/instance"]; got != "123" {
				if _, isCRD := object.(*apiextensionsv1.CustomResourceDefinition); !isCRD {
					t.Errorf("%T %s has the labels %v", object, object.GetName(), object.GetLabels())
				}
			}
		}
	}
}

// TestOperatorRefuses gives values that must be refused, with words that the message must have.
func TestOperatorRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		yaml  string
		words []string
	}{
		"unknown value":       {"replicaCount: 2", []string{"replicaCount", "not allowed"}},
		"unknown inner value": {"watch: {namespace: blue}", []string{"watch", "namespace", "not allowed"}},
		"wrong type":          {`replicas: "2"`, []string{"replicas", "got string, want integer"}},
		"one namespace":       {"watch: {namespaces: blue}", []string{"watch/namespaces", "got string, want array"}},
		"bad namespace":       {"watch: {namespaces: [Blue]}", []string{"watch/namespaces/0"}},
		"namespace twice":     {"watch: {namespaces: [a, a]}", []string{"watch/namespaces"}},
		"failure policy":      {"webhook: {failurePolicy: ignore}", []string{"webhook/failurePolicy", "'Ignore'", "'Fail'"}},
		"log level":           {"log: {level: verbose}", []string{"log/level", "'debug'"}},
		"selector":            {"watch: {selector: tier in blue}", []string{`"tier in blue"`, "no label selector"}},
		"selector's end":      {`{watch: {selector: "a=b,"}, webhook: {enabled: false}}`, []string{"no label selector"}},
		"port":                {"metrics: {port: 70000}", []string{"metrics/port", "65,535"}},
		"honor labels":        {`metrics: {serviceMonitor: {honorLabels: "yes"}}`, []string{"honorLabels", "want boolean"}},
		"two leaders":         {"leaderElection: {enabled: false}", []string{"replicas is more than 1", "set replicas to 1"}},
		"no account":          {"serviceAccount: {create: false}", []string{"serviceAccount.name is required"}},
		"nothing to monitor":  {"metrics: {enabled: false, serviceMonitor: {enabled: true}}", []string{"metrics.enabled to true"}},
		"no deadline":         {"uninstall: {deadlineSeconds: 0}", []string{"uninstall/deadlineSeconds"}},
		"the selector's label": {
			"podLabels: {app.kubernetes.io/name: mine}", []string{"podLabels"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := template(t, operatorChart, test.yaml)
			refused(t, err, test.words...)
		})
	}
}
