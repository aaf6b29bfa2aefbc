package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

const password = "hunter2-never-shown"

// store holds objects by "kind namespace/name".
type store struct {
	data   map[string]map[string]string
	specs  map[string]string
	broken error
	// asked is how many tokens were asked for, and brokenTokens why there are none.
	asked        int
	brokenTokens error
}

func (s *store) find(kind, key string, found bool) error {
	if s.broken != nil {
		return s.broken
	}
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, key)
	}
	return nil
}

func (s *store) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	data, found := s.data["Secret "+key.String()]
	secret := &corev1.Secret{Data: map[string][]byte{}}
	for name, value := range data {
		secret.Data[name] = []byte(value)
	}
	return secret, s.find("secrets", key.String(), found)
}

func (s *store) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	data, found := s.data["ConfigMap "+key.String()]
	return &corev1.ConfigMap{Data: data}, s.find("configmaps", key.String(), found)
}

func (s *store) ServiceAccountToken(
	_ context.Context, key types.NamespacedName, life time.Duration,
) (*authenticationv1.TokenRequestStatus, error) {
	s.asked++
	if _, found := s.data["ServiceAccount "+key.String()]; !found {
		return nil, s.find("serviceaccounts", key.String(), false)
	}
	return &authenticationv1.TokenRequestStatus{
		Token:               fmt.Sprintf("token %d of %s", s.asked, key),
		ExpirationTimestamp: metav1.NewTime(time.Now().Add(life)),
	}, s.brokenTokens
}

func (s *store) spec(key string) (spec v1alpha1.TriggerAuthenticationSpec, err error) {
	manifest, found := s.specs[key]
	if err := yaml.UnmarshalStrict([]byte(manifest), &spec); err != nil {
		panic(fmt.Sprintf("the test's own manifest %s: %v", key, err))
	}
	return spec, s.find("triggerauthentications", key, found)
}

func (s *store) TriggerAuthentication(
	_ context.Context, key types.NamespacedName,
) (*v1alpha1.TriggerAuthentication, error) {
	spec, err := s.spec(key.String())
	return &v1alpha1.TriggerAuthentication{Spec: spec}, err
}

func (s *store) ClusterTriggerAuthentication(
	_ context.Context, name string,
) (*v1alpha1.ClusterTriggerAuthentication, error) {
	spec, err := s.spec(name)
	return &v1alpha1.ClusterTriggerAuthentication{Spec: spec}, err
}

func newStore(spec string) *store {
	return &store{
		data: map[string]map[string]string{
			"Secret shop/redis":          {"pw": password, "user": "worker", "blank": ""},
			"Secret keda/redis":          {"pw": "of the cluster"},
			"ConfigMap shop/settings":    {"host": "db"},
			"Secret shop/empty":          {},
			"ServiceAccount shop/worker": {}, "ServiceAccount keda/worker": {},
		},
		specs: map[string]string{"shop/auth": spec, "auth": spec},
	}
}

var namespaces = Namespaces{Own: "shop", Cluster: "keda"}

func environment(container string) (map[string]string, error) {
	switch container {
	case "":
		return map[string]string{"PW": "of the default container"}, nil
	case "side":
		return map[string]string{"PW": "of side"}, nil
	}
	return nil, fmt.Errorf("no container %q", container)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// resolve resolves once, without what was kept from before.
func resolve(t *testing.T, objects Objects, ref *v1alpha1.AuthenticationRef) (map[string]string, error) {
	t.Helper()
	params, err := new(Resolver).Resolve(t.Context(), Request{
		Ref: ref, Objects: objects, Namespaces: namespaces, Env: environment,
	})
	return params.Values, err
}

func TestResolve(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec string
		kind string
		want map[string]string
	}{
		"nothing": {`{}`, "", map[string]string{}},
		"all sources": {`
secretTargetRef: [{parameter: password, name: redis, key: pw}, {parameter: username, name: redis, key: user}]
configMapTargetRef: [{parameter: host, name: settings, key: host}]
env: [{parameter: a, name: PW}, {parameter: b, name: PW, containerName: side}]
`, v1alpha1.KindTriggerAuthentication, map[string]string{
			"password": password, "username": "worker", "host": "db", "a": "of the default container", "b": "of side",
		}},
		"Secrets of a ClusterTriggerAuthentication are in the cluster's namespace": {
			`secretTargetRef: [{parameter: password, name: redis, key: pw}]`, v1alpha1.KindClusterTriggerAuthentication,
			map[string]string{"password": "of the cluster"},
		},
		"one parameter from several sources": {`
secretTargetRef: [{parameter: x, name: redis, key: user}, {parameter: x, name: redis, key: pw}]
configMapTargetRef: [{parameter: x, name: settings, key: host}, {parameter: w, name: settings, key: host}]
env: [{parameter: x, name: PW}, {parameter: w, name: PW}, {parameter: z, name: PW}, {parameter: v, name: PW}]
boundServiceAccountToken: [{parameter: v, serviceAccountName: worker}]
`, "", map[string]string{"x": password, "w": "db", "z": "of the default container", "v": "token 1 of shop/worker"}},
		"a token of a ClusterTriggerAuthentication is of the cluster's namespace": {
			`boundServiceAccountToken: [{parameter: t, serviceAccountName: worker}]`,
			v1alpha1.KindClusterTriggerAuthentication, map[string]string{"t": "token 1 of keda/worker"},
		},
		"no identity is none to take on": {
			`{podIdentity: {provider: none}, secretTargetRef: [{parameter: x, name: redis, key: user}]}`, "",
			map[string]string{"x": "worker"},
		},
		"an empty value is a value": {
			`secretTargetRef: [{parameter: x, name: redis, key: blank}]`, "", map[string]string{"x": ""},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := &v1alpha1.AuthenticationRef{Name: "auth", Kind: test.kind}
			got, err := resolve(t, newStore(test.spec), ref)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %q; want %q", got, test.want)
			}
		})
	}

	got, err := resolve(t, newStore(``), nil)
	if err != nil || got == nil || len(got) != 0 {
		t.Errorf("without a reference: %v, %v; want an empty map", got, err)
	}
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	t.Parallel()
	const own = `TriggerAuthentication "shop/auth"`
	tests := map[string]struct {
		spec string
		ref  v1alpha1.AuthenticationRef
		want []string
	}{
		"no name": {``, v1alpha1.AuthenticationRef{}, []string{"has no name"}},
		"an unknown kind": {
			``, v1alpha1.AuthenticationRef{Name: "auth", Kind: "Auth"}, []string{`"Auth"`, "must be"},
		},
		"no TriggerAuthentication": {
			``, v1alpha1.AuthenticationRef{Name: "x"}, []string{`TriggerAuthentication "shop/x" does not exist`},
		},
		"no ClusterTriggerAuthentication": {
			``, v1alpha1.AuthenticationRef{Name: "x", Kind: v1alpha1.KindClusterTriggerAuthentication},
			[]string{`ClusterTriggerAuthentication "x" does not exist`},
		},
		"no Secret": {
			`secretTargetRef: [{parameter: p, name: none, key: k}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `secretTargetRef[0] (parameter "p")`, `Secret "shop/none" does not exist`},
		},
		"no Secret in the cluster's namespace": {
			`secretTargetRef: [{parameter: p, name: none, key: k}]`,
			v1alpha1.AuthenticationRef{Name: "auth", Kind: v1alpha1.KindClusterTriggerAuthentication},
			[]string{`ClusterTriggerAuthentication "auth"`, `Secret "keda/none" does not exist`},
		},
		"no key": {
			`secretTargetRef: [{parameter: p, name: redis, key: password}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `parameter "p"`, `Secret "shop/redis" has no key "password"`, `"blank", "pw", "user"`},
		},
		"no keys": {
			`secretTargetRef: [{parameter: p, name: empty, key: k}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{`Secret "shop/empty" has no key "k"; it has no keys`},
		},
		"no ConfigMap": {
			`configMapTargetRef: [{parameter: p, name: none, key: k}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `configMapTargetRef[0]`, `ConfigMap "shop/none" does not exist`},
		},
		"no key of the ConfigMap": {
			`configMapTargetRef: [{parameter: p, name: settings, key: k}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `ConfigMap "shop/settings" has no key "k"; its keys are "host"`},
		},
		"a source that is not supported": {
			`{azureKeyVault: {vaultUri: a, secrets: [{parameter: p, name: s}]}}`,
			v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, "azureKeyVault: ", "does not support it yet", "secretTargetRef"},
		},
		"no variable": {
			`env: [{parameter: p, name: NONE, containerName: side}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `env[0] (parameter "p")`, `container "side" has no environment variable "NONE"`},
		},
		"no variable of the default container": {
			`env: [{parameter: p, name: NONE}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{`the Job's container has no environment variable "NONE"`},
		},
		"no container": {
			`env: [{parameter: p, name: PW, containerName: none}]`, v1alpha1.AuthenticationRef{Name: "auth"},
			[]string{own, `env[0]`, `no container "none"`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := resolve(t, newStore(test.spec), &test.ref)
			if err == nil {
				t.Fatal("there is no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

func TestErrorsOfObjectsAreKept(t *testing.T) {
	t.Parallel()
	ref := &v1alpha1.AuthenticationRef{Name: "auth"}
	objects := newStore(`secretTargetRef: [{parameter: p, name: none, key: k}]`)
	if _, err := resolve(t, objects, ref); !apierrors.IsNotFound(err) {
		t.Errorf("a missing Secret gives %v, which does not say that it is missing", err)
	}
	objects.broken = errors.New("connection refused")
	if _, err := resolve(t, objects, ref); !errors.Is(err, objects.broken) {
		t.Errorf("got %v; want the store's error", err)
	}
}

func TestEachEnvironmentIsComputedOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	_, err := new(Resolver).Resolve(t.Context(), Request{
		Ref:     &v1alpha1.AuthenticationRef{Name: "auth"},
		Objects: newStore(`env: [{parameter: a, name: PW}, {parameter: b, name: PW}]`), Namespaces: namespaces,
		Env: func(string) (map[string]string, error) {
			calls++
			return map[string]string{"PW": "x"}, nil
		},
	})
	if err != nil || calls != 1 {
		t.Errorf("%d calls, %v; want one", calls, err)
	}
}

func TestManyKeysAreCutShort(t *testing.T) {
	t.Parallel()
	err := noKey("Secret", "k", strings.Split("a b c d e f g h i j k l", " "))
	if !strings.HasSuffix(err.Error(), `"j" and 2 more`) {
		t.Error(err)
	}
}

func TestUnsupportedNamesEveryOtherField(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	tests := map[string]v1alpha1.TriggerAuthenticationSpec{
		"podIdentity": {PodIdentity: &v1alpha1.AuthPodIdentity{
			Provider: v1alpha1.PodIdentityAWS, RoleArn: text("arn:aws:iam::1:role/a")}},
		"azureKeyVault":    {AzureKeyVault: &v1alpha1.AzureKeyVault{}},
		"gcpSecretManager": {GCPSecretManager: &v1alpha1.GCPSecretManager{}},
		"awsSecretManager": {AwsSecretManager: &v1alpha1.AwsSecretManager{}},
		"oauth2":           {OAuth2: &v1alpha1.OAuth2{}},
	}
	for name, spec := range tests {
		if got := Unsupported(&spec); !slices.Equal(got, []string{name}) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	supported := v1alpha1.TriggerAuthenticationSpec{
		SecretTargetRef:          []v1alpha1.AuthTargetRef{{}},
		ConfigMapTargetRef:       []v1alpha1.AuthTargetRef{{}},
		Env:                      []v1alpha1.AuthEnvironment{{}},
		FilePath:                 "a.json",
		HashiCorpVault:           &v1alpha1.HashiCorpVault{},
		BoundServiceAccountToken: []v1alpha1.BoundServiceAccountToken{{}},
	}
	if got := Unsupported(&supported); got != nil {
		t.Errorf("got %q", got)
	}
	// A field that is added to the type belongs to one of the two.
	if fields := reflect.TypeFor[v1alpha1.TriggerAuthenticationSpec]().NumField(); fields != len(tests)+6 {
		t.Errorf("the type has %d fields; this test knows %d", fields, len(tests)+6)
	}
}
