package crds

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// definition returns the definition of a kind.
func definition(tb testing.TB, kind string) *apiextensionsv1.CustomResourceDefinition {
	tb.Helper()
	for _, d := range Definitions() {
		if d.Spec.Names.Kind == kind {
			return d
		}
	}
	tb.Fatalf("there is no definition of %s", kind)
	return nil
}

// at follows a path of properties such as spec.triggers[].type, where [] stands for the items of a list or the values of
// a map. It returns nil where there is none.
func at(schema *apiextensionsv1.JSONSchemaProps, path string) *apiextensionsv1.JSONSchemaProps {
	for _, name := range strings.Split(strings.ReplaceAll(path, "[]", ".[]"), ".") {
		switch {
		case schema == nil:
			return nil
		case name != "[]":
			next, found := schema.Properties[name]
			if !found {
				return nil
			}
			schema = &next
		case schema.Items != nil:
			schema = schema.Items.Schema
		case schema.AdditionalProperties != nil:
			schema = schema.AdditionalProperties.Schema
		default:
			return nil
		}
	}
	return schema
}

// TestNames holds what kubectl and dashboards rely on: KEDA's names and columns.
func TestNames(t *testing.T) {
	t.Parallel()
	authColumns := []string{
		"PodIdentity string .spec.podIdentity.provider 0",
		"Secret string .spec.secretTargetRef[*].name 0",
		"Env string .spec.env[*].name 0",
		"VaultAddress string .spec.hashiCorpVault.address 0",
		"ScaledObjects string .status.scaledobjects 1",
		"ScaledJobs string .status.scaledjobs 1",
	}
	for kind, want := range map[string]struct {
		plural  string
		short   []string
		scope   apiextensionsv1.ResourceScope
		columns []string
	}{
		v1alpha1.KindScaledJob: {"scaledjobs", []string{"sj"}, apiextensionsv1.NamespaceScoped, []string{
			"Min integer .spec.minReplicaCount 0",
			"Max integer .spec.maxReplicaCount 0",
			`Ready string .status.conditions[?(@.type=="Ready")].status 0`,
			`Active string .status.conditions[?(@.type=="Active")].status 0`,
			`Paused string .status.conditions[?(@.type=="Paused")].status 0`,
			"Triggers string .status.triggersTypes 0",
			"Authentications string .status.authenticationsTypes 0",
			"Age date .metadata.creationTimestamp 0",
		}},
		v1alpha1.KindTriggerAuthentication: {"triggerauthentications", []string{"ta", "triggerauth"},
			apiextensionsv1.NamespaceScoped, authColumns},
		v1alpha1.KindClusterTriggerAuthentication: {"clustertriggerauthentications",
			[]string{"cta", "clustertriggerauth"}, apiextensionsv1.ClusterScoped,
			slices.Insert(slices.Clone(authColumns), 3, "FilePath string .spec.filePath 0")},
	} {
		d := definition(t, kind)
		names, version := d.Spec.Names, d.Spec.Versions[0]
		if d.Name != want.plural+".keda.sh" || d.Spec.Group != v1alpha1.Group || names.Plural != want.plural ||
			names.ListKind != kind+"List" || names.Singular != strings.ToLower(kind) ||
			!slices.Equal(names.ShortNames, want.short) || len(names.Categories) > 0 || d.Spec.Scope != want.scope {
			t.Errorf("%s: got name %s, group %s, names %+v, scope %s", kind, d.Name, d.Spec.Group, names, d.Spec.Scope)
		}
		if len(d.Spec.Versions) != 1 || version.Name != v1alpha1.Version || !version.Served || !version.Storage ||
			version.Subresources == nil || version.Subresources.Status == nil {
			t.Errorf("%s: got versions %+v", kind, d.Spec.Versions)
		}
		if d.Labels[LabelPartOf] != PartOf {
			t.Errorf("%s: got labels %v", kind, d.Labels)
		}
		var columns []string
		for _, c := range version.AdditionalPrinterColumns {
			columns = append(columns, fmt.Sprintf("%s %s %s %d", c.Name, c.Type, c.JSONPath, c.Priority))
		}
		if !slices.Equal(columns, want.columns) {
			t.Errorf("%s: got columns\n%s", kind, strings.Join(columns, "\n"))
		}
	}
}

// TestEveryKindIsRegistered keeps the definitions and the scheme from knowing different kinds.
func TestEveryKindIsRegistered(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, d := range Definitions() {
		for _, kind := range []string{d.Spec.Names.Kind, d.Spec.Names.ListKind} {
			if _, err := scheme.New(v1alpha1.GroupVersion.WithKind(kind)); err != nil {
				t.Error(err)
			}
		}
	}
}

// durations is the pattern of durations.
const durations = `^([0-9]{1,5}(\.[0-9]{1,9})?h|[0-9]{1,7}(\.[0-9]{1,9})?(m|[mµun]?s)){1,4}$`

// TestRules holds what the schemas demand, which is what KEDA's do, and what those of our own fields do.
func TestRules(t *testing.T) {
	t.Parallel()
	rules := map[string]map[string]string{
		v1alpha1.KindScaledJob: {
			"spec":                                                            "object required=jobTargetRef,triggers",
			"spec.jobTargetRef":                                               "object required=template",
			"spec.jobTargetRef.template":                                      "object",
			"spec.jobTargetRef.template.metadata":                             "object preserve",
			"spec.jobTargetRef.template.spec":                                 "object required=containers",
			"spec.pollingInterval":                                            "integer minimum=1",
			"spec.successfulJobsHistoryLimit":                                 "integer minimum=0",
			"spec.failedJobsHistoryLimit":                                     "integer minimum=0",
			"spec.rolloutStrategy":                                            "string enum=gradual,immediate",
			"spec.rollout":                                                    "object",
			"spec.rollout.strategy":                                           "string enum=gradual,immediate",
			"spec.rollout.propagationPolicy":                                  "string enum=background,foreground",
			"spec.envSourceContainerName":                                     "string",
			"spec.minReplicaCount":                                            "integer minimum=0",
			"spec.maxReplicaCount":                                            "integer minimum=1",
			"spec.scalingStrategy":                                            "object",
			"spec.scalingStrategy.strategy":                                   "string enum=accurate,custom,default,eager",
			"spec.scalingStrategy.pendingPodConditions[]":                     "string",
			"spec.scalingStrategy.multipleScalersCalculation":                 "string enum=avg,max,min,sum",
			"spec.scalingStrategy.customScalingQueueLengthDeduction":          "integer",
			"spec.scalingStrategy.customScalingRunningJobPercentage":          "string",
			"spec.delivery":                                                   "object",
			"spec.delivery.mode":                                              "string enum=claim,pop",
			"spec.delivery.env":                                               "string",
			"spec.delivery.file":                                              "string",
			"spec.delivery.attempts":                                          "integer minimum=1",
			"spec.delivery.backoff":                                           "object",
			"spec.delivery.backoff.initial":                                   "string pattern=" + durations,
			"spec.delivery.backoff.factor":                                    "number minimum=1",
			"spec.delivery.backoff.max":                                       "string pattern=" + durations,
			"spec.delivery.backoff.jitter":                                    "number minimum=0 maximum=1",
			"spec.delivery.deadLetter":                                        "boolean",
			"spec.triggers":                                                   "array minItems=1",
			"spec.triggers[]":                                                 "object required=metadata,type",
			"spec.triggers[].type":                                            "string minLength=1",
			"spec.triggers[].name":                                            "string",
			"spec.triggers[].metadata[]":                                      "string",
			"spec.triggers[].useCachedMetrics":                                "boolean",
			"spec.triggers[].metricType":                                      "none",
			"spec.triggers[].authenticationRef":                               "object required=name",
			"spec.triggers[].authenticationRef.kind":                          "string enum=ClusterTriggerAuthentication,TriggerAuthentication",
			"status.Paused":                                                   "string",
			"status.lastActiveTime":                                           "string",
			"status.conditions[]":                                             "object required=status,type",
			"status.triggersActivity[]":                                       "object",
			"status.externalMetricNames[]":                                    "string",
			"spec.jobTargetRef.template.spec.containers[].ports[]":            "object required=containerPort",
			"spec.jobTargetRef.template.spec.containers[].ports[].protocol":   `string default="TCP"`,
			"spec.jobTargetRef.template.spec.containers[].resources.limits[]": "",
		},
		v1alpha1.KindTriggerAuthentication: {
			"spec":                                            "object",
			"spec.secretTargetRef[]":                          "object required=key,name,parameter",
			"spec.configMapTargetRef[]":                       "object required=key,name,parameter",
			"spec.env[]":                                      "object required=name,parameter",
			"spec.filePath":                                   "string",
			"spec.podIdentity":                                "object required=provider",
			"spec.podIdentity.provider":                       "string enum=aws,aws-eks,azure-workload,gcp,none",
			"spec.podIdentity.identityOwner":                  "string enum=keda,workload",
			"spec.podIdentity.externalID":                     "string",
			"spec.hashiCorpVault":                             "object required=address,authentication,secrets",
			"spec.hashiCorpVault.secrets":                     "array minItems=1",
			"spec.hashiCorpVault.secrets[]":                   "object required=key,parameter,path",
			"spec.hashiCorpVault.authentication":              "string enum=kubernetes,token",
			"spec.hashiCorpVault.secrets[].type":              "string enum=,pki,secret,secretV2",
			"spec.azureKeyVault":                              "object required=secrets,vaultUri",
			"spec.azureKeyVault.credentials":                  "object required=clientId,clientSecret,tenantId",
			"spec.azureKeyVault.cloud":                        "object required=type",
			"spec.gcpSecretManager":                           "object required=secrets",
			"spec.gcpSecretManager.secrets[]":                 "object required=id,parameter",
			"spec.gcpSecretManager.credentials":               "object required=clientSecret",
			"spec.awsSecretManager":                           "object required=secrets",
			"spec.awsSecretManager.secrets[]":                 "object required=name,parameter",
			"spec.awsSecretManager.credentials":               "object required=accessKey,accessSecretKey",
			"spec.boundServiceAccountToken[]":                 "object required=parameter,serviceAccountName",
			"spec.oauth2":                                     "object required=clientId,tokenUrl,type",
			"spec.oauth2.type":                                `string default="clientCredentials" enum=clientCredentials`,
			"spec.oauth2.clientSecret":                        "object required=valueFrom",
			"spec.oauth2.clientSecret.valueFrom":              "object required=secretKeyRef",
			"spec.oauth2.tokenUrlParams[]":                    "string",
			"spec.oauth2.clientSecret.valueFrom.secretKeyRef": "object required=key,name",
			"status.scaledjobs":                               "string",
			"status.scaledobjects":                            "string",
		},
	}
	rules[v1alpha1.KindClusterTriggerAuthentication] = rules[v1alpha1.KindTriggerAuthentication]
	for kind, paths := range rules {
		root := definition(t, kind).Spec.Versions[0].Schema.OpenAPIV3Schema
		for path, want := range paths {
			if got := rule(at(root, path)); got != want {
				t.Errorf("%s %s: got %q, want %q", kind, path, got, want)
			}
		}
	}
	for _, kind := range []string{v1alpha1.KindTriggerAuthentication, v1alpha1.KindClusterTriggerAuthentication} {
		if got := definition(t, kind).Spec.Versions[0].Schema.OpenAPIV3Schema.Required; !slices.Equal(got, []string{"spec"}) {
			t.Errorf("%s: required are %q", kind, got)
		}
	}
}

// rule says in a line what a schema demands by itself.
func rule(s *apiextensionsv1.JSONSchemaProps) string {
	if s == nil {
		return "none"
	}
	words := []string{s.Type}
	if s.Type == "" {
		words = nil
	}
	sorted := func(name string, values []string) {
		if len(values) > 0 {
			words = append(words, name+"="+strings.Join(slices.Sorted(slices.Values(values)), ","))
		}
	}
	if s.Default != nil {
		words = append(words, "default="+string(s.Default.Raw))
	}
	var enum []string
	for _, value := range s.Enum {
		enum = append(enum, strings.Trim(string(value.Raw), `"`))
	}
	sorted("enum", enum)
	sorted("required", s.Required)
	for name, value := range map[string]*int64{"minItems": s.MinItems, "minLength": s.MinLength} {
		if value != nil {
			words = append(words, fmt.Sprintf("%s=%d", name, *value))
		}
	}
	if s.Minimum != nil {
		words = append(words, fmt.Sprintf("minimum=%v", *s.Minimum))
	}
	if s.Maximum != nil {
		words = append(words, fmt.Sprintf("maximum=%v", *s.Maximum))
	}
	if s.Pattern != "" && !s.XIntOrString { // a quantity's is Kubernetes'
		words = append(words, "pattern="+s.Pattern)
	}
	if s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields {
		words = append(words, "preserve")
	}
	return strings.Join(words, " ")
}

// TestDurations compares the pattern of durations with the code that reads what it has let through: a client fails to
// read a whole list because of one duration that it cannot read.
func TestDurations(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(durations)
	for text, want := range map[string]bool{
		"10s": true, "0s": true, "1m30s": true, "10m0s": true, "1.5h": true, "250ms": true, "5us": true, "5ns": true,
		(99999*time.Hour + 59*time.Minute + 59*time.Second + 999999999).String(): true, (1500 * time.Nanosecond).String(): true,
		"99999h99999h99999h99999h": true, "9999999m9999999m9999999m9999999m": true, "99999.999999999h9999999.999999999m": true,
		"": false, "10": false, "s": false, "-1s": false, "1 s": false, "1d": false, "PT1S": false, "1h,": false, "1.s": false,
		"9999999h": false, "99999h99999h99999h99999h99999h": false,
	} {
		if got := pattern.MatchString(text); got != want {
			t.Errorf("%q: accepted is %t", text, got)
		}
		if _, err := time.ParseDuration(text); want && err != nil {
			t.Error(err)
		}
	}
}

// TestSize keeps the definitions small enough for `kubectl apply` without --server-side, which keeps each as JSON in an
// annotation.
func TestSize(t *testing.T) {
	t.Parallel()
	const annotationLimit = 256 << 10
	for _, d := range Definitions() {
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > annotationLimit/2 {
			t.Errorf("%s has %d bytes as JSON; the limit of annotations is %d", d.Name, len(data), annotationLimit)
		}
	}
}

// TestDescriptions sees to it that `kubectl explain` has something to say about our fields, and that the Job's, which
// `kubectl explain job.spec` explains, are left out.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	const job = "spec.jobTargetRef"
	for _, d := range Definitions() {
		root := d.Spec.Versions[0].Schema.OpenAPIV3Schema
		described(root, "", func(path string, has bool) {
			below := strings.HasPrefix(path, job+".")
			standard := path == "apiVersion" || path == "kind" || path == "metadata" || strings.HasSuffix(path, "[]")
			if !standard && has == below {
				t.Errorf("%s %s: described is %t", d.Name, path, has)
			}
		})
	}
}

func described(s *apiextensionsv1.JSONSchemaProps, path string, tell func(path string, has bool)) {
	if path != "" {
		tell(path, s.Description != "")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		described(&property, strings.TrimPrefix(path+"."+name, "."), tell)
	}
	if s.Items != nil {
		described(s.Items.Schema, path+"[]", tell)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		described(s.AdditionalProperties.Schema, path+"[]", tell)
	}
}
