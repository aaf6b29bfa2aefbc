package charts

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// secure asks for all that a Redis may want.
const secure = `
redis:
  list: "a list: with #"
  host: redis.example
  port: 6380
  database: 3
  auth: {enabled: true, user: worker, password: 'p"w: #'}
  tls: {enabled: true, privateCA: true, ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
`

// runnerValues are values that the chart must render.
var runnerValues = map[string]string{
	"one value":        "redis: {list: usertask}",
	"secure":           secure,
	"existing secret":  "redis: {list: usertask, existingSecret: theirs, auth: {enabled: true}, tls: {enabled: true, privateCA: true}}",
	"password only":    "redis: {list: usertask, auth: {enabled: true, password: secret}}",
	"public authority": "redis: {list: usertask, tls: {enabled: true}}",
	"another strategy": "redis: {list: usertask}\nscalingStrategy: {strategy: accurate, pendingPodConditions: [Ready]}",
	"everything": secure + `
fullnameOverride: worker
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", pullPolicy: Always}
imagePullSecrets: [{name: registry}]
command: [python3, worker.py]
args: [--once]
env: [{name: MODE, value: fast}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
envFrom: [{configMapRef: {name: settings}}]
resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}
job: {backoffLimit: 0, activeDeadlineSeconds: 60, terminationGracePeriodSeconds: 5}
maxReplicaCount: 3
minReplicaCount: 1
pollingInterval: 5
successfulJobsHistoryLimit: 0
failedJobsHistoryLimit: 1
listLength: 2
activationListLength: 4
rollout: {strategy: immediate, propagationPolicy: foreground}
paused: true
serviceAccountName: worker
podAnnotations: {a: b}
podLabels: {a: b}
priorityClassName: low
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
`,
}

// TestRunnerRenders also wants the program to find nothing wrong, and nothing to warn of but what the values themselves
// say is elsewhere.
func TestRunnerRenders(t *testing.T) {
	t.Parallel()
	elsewhere := map[string][]string{
		"existing secret": {"Secret theirs is not in these files"},
		"everything":      {"ConfigMap settings is not in these files"},
	}
	for name, yaml := range runnerValues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := template(t, runnerChart, yaml)
			if err != nil {
				t.Fatal(err)
			}
			all := decode(t, text)
			restricted(t, &one[*v1alpha1.ScaledJob](t, all).Spec.JobTargetRef.Template.Spec)
			out, err := run(t, text, nil, program, "validate", "--for", "cluster", "-")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				expected := strings.HasPrefix(line, "1 ScaledJob: valid")
				for _, words := range elsewhere[name] {
					expected = expected || strings.Contains(line, words)
				}
				if !expected {
					t.Errorf("offboard validate says: %s", line)
				}
			}
			if _, err := helm(t, append([]string{"lint", "--strict", runnerChart}, values(t, yaml)...)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRunnerIsTheExample wants the defaults to be the documentation's example.
func TestRunnerIsTheExample(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../examples/usertask/scaledjob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var example v1alpha1.ScaledJob
	if err := yaml.UnmarshalStrict(data, &example); err != nil {
		t.Fatal(err)
	}
	got := one[*v1alpha1.ScaledJob](t, mustTemplate(t, runnerChart, "redis: {list: usertask}"))
	// What the chart says and the example leaves to its default.
	example.Spec.MinReplicaCount = new(int32)
	example.Spec.Rollout = v1alpha1.Rollout{Strategy: v1alpha1.RolloutGradual, PropagationPolicy: v1alpha1.PropagationBackground}
	// Where they differ: the chart hardens the Pod, and gives the trigger a password only where there is one.
	want := example.Spec.JobTargetRef.Template.Spec.Containers[0]
	have := got.Spec.JobTargetRef.Template.Spec.Containers[0]
	if !equalJSON(t, [2][]string{want.Command, want.Args}, [2][]string{have.Command, have.Args}) || want.Image != have.Image {
		t.Errorf("the container runs %s %v, the example's %s %v", have.Image, have.Command, want.Image, want.Command)
	}
	example.Spec.JobTargetRef.Template, got.Spec.JobTargetRef.Template = corev1.PodTemplateSpec{}, corev1.PodTemplateSpec{}
	delete(example.Spec.Triggers[0].Metadata, "usernameFromEnv")
	delete(example.Spec.Triggers[0].Metadata, "passwordFromEnv")
	if !equalJSON(t, got.Spec, example.Spec) {
		t.Errorf("got  %+v\nwant %+v", got.Spec, example.Spec)
	}
}

// TestRunnerCredentials follows what is secret: it is in the Secret alone, and reaches the program and the trigger.
func TestRunnerCredentials(t *testing.T) {
	t.Parallel()
	all := mustTemplate(t, runnerChart, secure)
	secret := one[*corev1.Secret](t, all)
	for key, want := range map[string]string{
		"REDIS_HOST": "redis.example", "REDIS_PORT": "6380", "REDIS_USER": "worker", "REDIS_PASSWORD": `p"w: #`,
		"REDIS_CA": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		if secret.StringData[key] != want {
			t.Errorf("%s is %q, want %q", key, secret.StringData[key], want)
		}
	}
	scaledJob := one[*v1alpha1.ScaledJob](t, all)
	authentication := one[*v1alpha1.TriggerAuthentication](t, all)
	if ref := scaledJob.Spec.Triggers[0].AuthenticationRef; ref == nil || ref.Name != authentication.Name {
		t.Errorf("the trigger is authenticated by %v", ref)
	}
	parameters := map[string]string{}
	for _, ref := range authentication.Spec.SecretTargetRef {
		if ref.Name != secret.Name {
			t.Errorf("parameter %s is read from Secret %s", ref.Parameter, ref.Name)
		}
		parameters[ref.Parameter] = ref.Key
	}
	if len(parameters) != 2 || parameters["password"] != "REDIS_PASSWORD" || parameters["ca"] != "REDIS_CA" {
		t.Errorf("the trigger's parameters are read from %v", parameters)
	}
	metadata := scaledJob.Spec.Triggers[0].Metadata
	if metadata["listName"] != "a list: with #" || metadata["databaseIndex"] != "3" || metadata["enableTLS"] != "true" {
		t.Errorf("the trigger has %v", metadata)
	}
	env := map[string]string{}
	for _, variable := range scaledJob.Spec.JobTargetRef.Template.Spec.Containers[0].Env {
		env[variable.Name] = variable.Value
	}
	if env["REDIS_LIST"] != "a list: with #" || env["REDIS_DB"] != "3" || env["REDIS_TLS"] != "true" ||
		env["SSL_CERT_DIR"] != "/etc/ssl/certs:/etc/redis-ca" {
		t.Errorf("the container has %v", env)
	}
	for _, object := range all {
		if text, err := yaml.Marshal(object); err != nil || object != secret && strings.Contains(string(text), `p"w`) {
			t.Errorf("%T holds the password, or %v", object, err)
		}
	}
}

func TestRunnerOfAnExistingSecret(t *testing.T) {
	t.Parallel()
	all := mustTemplate(t, runnerChart, runnerValues["existing secret"])
	if made := of[*corev1.Secret](all); len(made) > 0 {
		t.Errorf("the chart makes Secret %s too", made[0].Name)
	}
	for _, ref := range one[*v1alpha1.TriggerAuthentication](t, all).Spec.SecretTargetRef {
		if ref.Name != "theirs" {
			t.Errorf("parameter %s is read from Secret %s", ref.Parameter, ref.Name)
		}
	}
	pod := one[*v1alpha1.ScaledJob](t, all).Spec.JobTargetRef.Template.Spec
	if from := pod.Containers[0].EnvFrom[0].SecretRef; from == nil || from.Name != "theirs" {
		t.Errorf("the environment is of %v", from)
	}
	if pod.Volumes[0].Secret.SecretName != "theirs" {
		t.Errorf("the authority is of %v", pod.Volumes[0].Secret)
	}
}

// TestRunnerRefuses gives values that must be refused, with words that the message must have.
func TestRunnerRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		yaml  string
		words []string
	}{
		"no list":           {"", []string{"redis.list is required: the name of the Redis list", "--set redis.list=usertask"}},
		"nothing but space": {`redis: {list: " "}`, []string{"redis.list is nothing but space"}},
		"list is a number":  {"redis: {list: 5}", []string{"redis/list", "got number, want string"}},
		"unknown value":     {"redis: {list: a}\nmaxReplicas: 5", []string{"maxReplicas", "not allowed"}},
		"misspelt list":     {"redis: {listName: a}", []string{"redis", "listName", "not allowed"}},
		"no limit":          {"redis: {list: a}\nmaxReplicaCount: 0", []string{"maxReplicaCount", "minimum"}},
		"wrong type":        {"redis: {list: a}\npollingInterval: 30s", []string{"pollingInterval", "got string, want integer"}},
		"strategy":          {"redis: {list: a}\nscalingStrategy: {strategy: fast}", []string{"scalingStrategy/strategy", "'accurate'"}},
		"percentage":        {"redis: {list: a}\nscalingStrategy: {customScalingRunningJobPercentage: 0.5}", []string{"got number, want string"}},
		"rollout":           {"redis: {list: a}\nrollout: {strategy: recreate}", []string{"rollout/strategy", "'immediate'"}},
		"no host":           {`redis: {list: a, host: ""}`, []string{"redis.host is required unless redis.existingSecret"}},
		"no password":       {"redis: {list: a, auth: {enabled: true}}", []string{"redis.auth.password is required", "redis.existingSecret"}},
		"unused password":   {"redis: {list: a, auth: {password: b}}", []string{"set redis.auth.enabled to true"}},
		"no authority":      {"redis: {list: a, tls: {enabled: true, privateCA: true}}", []string{"redis.tls.ca is required"}},
		"unused authority":  {"redis: {list: a, tls: {enabled: true, ca: b}}", []string{"redis.tls.privateCA to true"}},
		"long name":         {"redis: {list: a}\nfullnameOverride: " + strings.Repeat("a", 54), []string{"fullnameOverride"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := template(t, runnerChart, test.yaml)
			refused(t, err, test.words...)
		})
	}
}
