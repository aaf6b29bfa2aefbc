package crds

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// structurals holds the definitions' schemas as the API server uses them, by kind.
var structurals = sync.OnceValues(func() (map[string]*schema.Structural, error) {
	schemas := map[string]*schema.Structural{}
	for _, d := range Definitions() {
		internal := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
			d.Spec.Versions[0].Schema.OpenAPIV3Schema, internal, nil); err != nil {
			return nil, err
		}
		s, err := schema.NewStructural(internal)
		if err != nil {
			return nil, err
		}
		schemas[d.Spec.Names.Kind] = s
	}
	return schemas, nil
})

func structural(t *testing.T, kind string) *schema.Structural {
	t.Helper()
	schemas, err := structurals()
	if err != nil {
		t.Fatal(err)
	}
	return schemas[kind]
}

func TestStructural(t *testing.T) {
	t.Parallel()
	for _, d := range Definitions() {
		if errs := schema.ValidateStructural(nil, structural(t, d.Spec.Names.Kind)); len(errs) > 0 {
			t.Errorf("%s: %v", d.Name, errs.ToAggregate())
		}
	}
}

// check returns what the API server's own code has against a manifest: errors of its validator, and unknown fields,
// which the server drops or, asked by kubectl, refuses. Defaults are not filled in.
func check(t *testing.T, manifest string) []string {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &object); err != nil {
		t.Fatalf("the test's own manifest: %v\n%s", err, manifest)
	}
	s := structural(t, object["kind"].(string))
	var problems []string
	result := validate.NewSchemaValidator(s.ToKubeOpenAPI(), nil, "", strfmt.Default).Validate(object)
	for _, err := range result.Errors {
		problems = append(problems, err.Error())
	}
	for _, path := range pruning.PruneWithOptions(object, s, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		problems = append(problems, "unknown field "+path)
	}
	slices.Sort(problems)
	return problems
}

const scaledJobHead = "apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {name: a}\n"

// least is the least that a ScaledJob needs to run.
const least = scaledJobHead + `spec:
  jobTargetRef: {template: {spec: {containers: [{name: a}]}}}
  triggers: [{type: redis, metadata: {listName: a}}]
`

const authHead = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n"

func TestAccepted(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "usertask", "scaledjob.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, manifest := range map[string]string{
		"the least":   least,
		"the example": string(example),
		"no spec":     scaledJobHead,
		"every field": least + `
  pollingInterval: 1
  successfulJobsHistoryLimit: 0
  failedJobsHistoryLimit: 0
  rolloutStrategy: gradual
  rollout: {strategy: immediate, propagationPolicy: foreground}
  envSourceContainerName: a
  minReplicaCount: 0
  maxReplicaCount: 1
  scalingStrategy:
    strategy: eager
    customScalingQueueLengthDeduction: -1
    customScalingRunningJobPercentage: "0.5"
    pendingPodConditions: [Ready, PodScheduled]
    multipleScalersCalculation: sum
  delivery:
    mode: claim
    env: OFFBOARD_ITEM
    file: /offboard/item
    attempts: 3
    backoff: {initial: 10s, factor: 2, max: 10m0s, jitter: 0.2}
    deadLetter: false
  fallback: {failureThreshold: 3, replicas: 6, behavior: currentReplicasIfHigher}
  advanced: {scalingModifiers: {formula: a + b, target: "5", activationTarget: "1", metricType: AverageValue}}
status:
  Paused: "true"
  lastActiveTime: "2026-01-02T03:04:05Z"
  triggersTypes: redis
  authenticationsTypes: a
  externalMetricNames: [s0-redis-a]
  triggersActivity: {s0-redis-a: {isActive: false}}
  conditions: [{type: Ready, status: "True", reason: ScaledJobReady, message: a}]
`,
		"fractions":                    least + "  delivery: {mode: pop, backoff: {initial: 0.5s, factor: 1.5, max: 1.5h, jitter: 1}}",
		"a delivery that says nothing": least + "  delivery: {backoff: {}}",
		"a trigger with everything": scaledJobHead + `spec:
  jobTargetRef: {template: {spec: {containers: [{name: a}]}}}
  triggers:
    - {type: redis, name: a, metadata: {}, useCachedMetrics: true, authenticationRef: {name: a}}
    - {type: redis, metadata: {}, authenticationRef: {name: a, kind: ClusterTriggerAuthentication}}
`,
		"metadata of a template": scaledJobHead + `spec:
  jobTargetRef:
    template:
      metadata: {creationTimestamp: null, labels: {a: b}, annotations: {c: d}, generateName: e, managedFields: []}
      spec:
        containers:
          - {name: a, ports: [{containerPort: 80, protocol: TCP}], resources: {limits: {cpu: 1, memory: 1Gi}}}
  triggers: [{type: redis, metadata: {listName: a}}]
`,
		"all sources": authHead + `
  podIdentity: {provider: aws, roleArn: r, externalID: e}
  secretTargetRef: [{parameter: p, name: x, key: k}]
  configMapTargetRef: [{parameter: p, name: x, key: k}]
  env: [{parameter: p, name: x}, {parameter: p, name: x, containerName: c}]
  filePath: f
  hashiCorpVault:
    address: a
    authentication: kubernetes
    namespace: x
    role: r
    mount: m
    credential: {serviceAccount: s, serviceAccountName: x, token: t}
    secrets: [{parameter: p, path: s, key: k, type: "", pkiData: {commonName: c, altNames: a, ipSans: i, uriSans: u,
      otherSans: o, ttl: t, format: f}}]
  azureKeyVault:
    vaultUri: u
    credentials: {clientId: c, tenantId: t, clientSecret: {valueFrom: {secretKeyRef: {name: x, key: k}}}}
    podIdentity: {provider: azure-workload, identityId: i, identityTenantId: t, identityAuthorityHost: h}
    cloud: {type: Private, keyVaultResourceURL: u, activeDirectoryEndpoint: e}
    secrets: [{parameter: p, name: x, version: v}]
  gcpSecretManager:
    credentials: {clientSecret: {valueFrom: {secretKeyRef: {name: x, key: k}}}}
    podIdentity: {provider: gcp}
    secrets: [{parameter: p, id: i, version: v}]
  awsSecretManager:
    region: r
    credentials:
      accessKey: {valueFrom: {secretKeyRef: {name: x, key: k}}}
      accessSecretKey: {valueFrom: {secretKeyRef: {name: x, key: k}}}
      accessToken: {valueFrom: {secretKeyRef: {name: x, key: k}}}
    podIdentity: {provider: aws, identityOwner: workload}
    secrets: [{parameter: p, name: x, versionId: i, versionStage: s, secretKey: k}]
  boundServiceAccountToken: [{parameter: p, serviceAccountName: s}]
  oauth2: {type: clientCredentials, clientId: c, tokenUrl: u, scopes: [s], tokenUrlParams: {a: b},
    clientSecret: {valueFrom: {secretKeyRef: {name: x, key: k}}}}
status: {scaledobjects: a, scaledjobs: b}
`,
		"no sources": strings.Replace(authHead, "spec:\n", "spec: {}\n", 1),
	} {
		manifests := []string{manifest}
		if strings.Contains(manifest, "kind: TriggerAuthentication") {
			manifests = append(manifests,
				strings.Replace(manifest, v1alpha1.KindTriggerAuthentication, v1alpha1.KindClusterTriggerAuthentication, 1))
		}
		for _, m := range manifests {
			if problems := check(t, m); len(problems) > 0 {
				t.Errorf("%s: %s", name, strings.Join(problems, "; "))
			}
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ manifest, want string }{
		"no triggers": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}}", "spec.triggers in body is required",
		},
		"an empty list of triggers": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: []}", "should have at least 1 items",
		},
		"no Job": {
			scaledJobHead + "spec: {triggers: [{type: a, metadata: {}}]}", "spec.jobTargetRef in body is required",
		},
		"no template": {
			scaledJobHead + "spec: {jobTargetRef: {}, triggers: [{type: a, metadata: {}}]}",
			"spec.jobTargetRef.template in body is required",
		},
		"no containers": {
			scaledJobHead + "spec: {jobTargetRef: {template: {spec: {}}}, triggers: [{type: a, metadata: {}}]}",
			"containers in body is required",
		},
		"a trigger without a type": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: [{type: '', metadata: {}}]}",
			"type in body should be at least 1 chars long",
		},
		"a number in the metadata": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: [{type: a, metadata: {a: 1}}]}",
			"metadata.a in body must be of type string",
		},
		"a metric type": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: [{type: a, metadata: {}, metricType: Value}]}",
			"unknown field spec.triggers[0].metricType",
		},
		"a reference to another kind": {
			scaledJobHead + "spec: {jobTargetRef: {template: {}}, triggers: [{type: a, metadata: {}, " +
				"authenticationRef: {name: a, kind: Secret}}]}",
			"authenticationRef.kind in body should be one of",
		},
		"a misspelt field":    {least + "  maxReplicas: 1", "unknown field spec.maxReplicas"},
		"pollingInterval":     {least + "  pollingInterval: 0", "should be greater than or equal to 1"},
		"maxReplicaCount":     {least + "  maxReplicaCount: 0", "should be greater than or equal to 1"},
		"minReplicaCount":     {least + "  minReplicaCount: -1", "should be greater than or equal to 0"},
		"a text for a number": {least + "  maxReplicaCount: '1'", "must be of type integer"},
		"a history limit":     {least + "  failedJobsHistoryLimit: -1", "should be greater than or equal to 0"},
		"a strategy":          {least + "  scalingStrategy: {strategy: Eager}", "should be one of"},
		"an empty strategy":   {least + "  scalingStrategy: {strategy: ''}", "should be one of"},
		"a calculation":       {least + "  scalingStrategy: {multipleScalersCalculation: mean}", "should be one of"},
		"a rollout":           {least + "  rollout: {strategy: never}", "should be one of"},
		"a propagation":       {least + "  rollout: {propagationPolicy: orphan}", "should be one of"},
		"a delivery":          {least + "  delivery: {mode: push}", "should be one of"},
		"an empty delivery":   {least + "  delivery: {mode: ''}", "should be one of"},
		"a fallback":          {least + "  fallback: {failureThreshold: 1}", "spec.fallback.replicas in body is required"},
		"a fallback below 0":  {least + "  fallback: {failureThreshold: 1, replicas: -1}", "should be greater than or equal to 0"},
		"a behavior":          {least + "  fallback: {failureThreshold: 1, replicas: 1, behavior: none}", "should be one of"},
		"a formula": {least + "  advanced: {scalingModifiers: {formula: a}}",
			"spec.advanced.scalingModifiers.target in body is required"},
		"a formula's metric type": {least + "  advanced: {scalingModifiers: {formula: a, target: '1', metricType: Value}}",
			"should be one of"},
		"attempts":            {least + "  delivery: {attempts: 0}", "should be greater than or equal to 1"},
		"a factor":            {least + "  delivery: {backoff: {factor: 0.9}}", "should be greater than or equal to 1"},
		"a text for a factor": {least + "  delivery: {backoff: {factor: '2'}}", "must be of type number"},
		"a negative jitter":   {least + "  delivery: {backoff: {jitter: -0.1}}", "should be greater than or equal to 0"},
		"a jitter":            {least + "  delivery: {backoff: {jitter: 1.1}}", "should be less than or equal to 1"},
		"a unit":              {least + "  delivery: {backoff: {initial: 1 day}}", "initial in body should match"},
		"a negative duration": {least + "  delivery: {backoff: {max: -1s}}", "max in body should match"},
		"seconds as a number": {least + "  delivery: {backoff: {max: 10}}", "must be of type string"},
		"a misspelt mode":     {least + "  delivery: {modes: claim}", "unknown field spec.delivery.modes"},
		"a condition without a status": {
			least + "status: {conditions: [{type: Ready}]}", "status in body is required",
		},
		"no spec of an authentication": {
			strings.Replace(authHead, "spec:\n", "", 1), "spec in body is required",
		},
		"a provider":        {authHead + "  podIdentity: {provider: azure}", "should be one of"},
		"a Vault's secrets": {authHead + "  hashiCorpVault: {address: a, authentication: token, secrets: []}", "at least 1 items"},
		"a target":          {authHead + "  secretTargetRef: [{parameter: p, name: x}]", "key in body is required"},
		"an unknown source": {authHead + "  keyring: {}", "unknown field spec.keyring"},
	}
	for name, test := range tests {
		problems := check(t, test.manifest)
		if len(problems) != 1 || !strings.Contains(problems[0], test.want) {
			t.Errorf("%s: got %q, want %q", name, problems, test.want)
		}
	}
}
