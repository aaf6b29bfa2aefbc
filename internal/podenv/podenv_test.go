package podenv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// store holds objects by "namespace/name" and counts how often each is read.
type store struct {
	secrets    map[string]map[string][]byte
	configMaps map[string]map[string]string
	broken     error
	reads      map[string]int
}

func (s *store) Secret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	data, found := s.secrets[key.String()]
	if err := s.read("secrets", key, found); err != nil {
		return nil, err
	}
	return &corev1.Secret{Data: data}, nil
}

func (s *store) ConfigMap(_ context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	data, found := s.configMaps[key.String()]
	if err := s.read("configmaps", key, found); err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (s *store) read(resource string, key types.NamespacedName, found bool) error {
	if s.reads == nil {
		s.reads = map[string]int{}
	}
	s.reads[resource+" "+key.String()]++
	if s.broken != nil {
		return s.broken
	}
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, key.Name)
	}
	return nil
}

const password = "hunter2-never-shown"

func newStore() *store {
	return &store{
		secrets: map[string]map[string][]byte{
			"shop/redis": {"REDIS_HOST": []byte("db"), "REDIS_PASSWORD": []byte(password)},
			"shop/other": {"REDIS_HOST": []byte("other"), "tls.crt": []byte("cert")},
			"shop/odd":   {"a=b": []byte("1"), "ok": []byte("2"), "ünï": []byte("3"), "": []byte("4")},
			"shop/nul":   {"BIN": []byte(password + "\x00x")},
			"shop/empty": {},
		},
		configMaps: map[string]map[string]string{
			"shop/settings": {"LIST": "usertask", "LEVEL": "info"},
		},
	}
}

func container(t *testing.T, manifest string) *corev1.Container {
	t.Helper()
	var c corev1.Container
	if err := yaml.UnmarshalStrict([]byte(manifest), &c); err != nil {
		t.Fatalf("the test's own manifest: %v", err)
	}
	return &c
}

func newPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "job-x", Namespace: "shop", UID: "uid-1",
			Labels: map[string]string{"app.kubernetes.io/name": "runner"}, Annotations: map[string]string{"note": "hello"},
		},
		Spec: corev1.PodSpec{NodeName: "laptop"},
		Status: corev1.PodStatus{
			PodIP: "127.0.0.1", PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}, {IP: "::1"}}, HostIP: "127.0.0.2",
		},
	}
}

func TestForContainer(t *testing.T) {
	t.Parallel()
	base := []Variable{{"REDIS_HOST", "127.0.0.1"}, {"REDIS_PORT", "6379"}}
	tests := map[string]struct {
		manifest string
		want     []string // besides the base, unless it is replaced
	}{
		"nothing": {`{}`, []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379"}},
		"env in order, seeing the base and what stands before it": {`
env:
- {name: LATE, value: "$(NEXT)"}
- {name: NEXT, value: "n"}
- {name: URL, value: "redis://$(REDIS_HOST):$(REDIS_PORT)/$(NEXT)$(NOWHERE)$$(NEXT)"}
- {name: EMPTY}
`, []string{
			"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379", "LATE=$(NEXT)", "NEXT=n",
			"URL=redis://127.0.0.1:6379/n$(NOWHERE)$(NEXT)", "EMPTY=",
		}},
		"the manifest wins over the base, env over envFrom, a later entry over an earlier one": {`
envFrom:
- secretRef: {name: redis}
- secretRef: {name: other}
env:
- {name: HOST, value: "$(REDIS_HOST)"}
- {name: REDIS_PORT, value: "1"}
- {name: REDIS_PORT, value: "$(REDIS_PORT)2"}
`, []string{
			"REDIS_HOST=other", "REDIS_PORT=12", "REDIS_PASSWORD=" + password, "tls.crt=cert", "HOST=other",
		}},
		"prefixes": {`
envFrom:
- {prefix: CFG_, configMapRef: {name: settings}}
- {prefix: "9 x-", configMapRef: {name: settings}}
`, []string{
			"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379", "CFG_LEVEL=info", "CFG_LIST=usertask", "9 x-LEVEL=info",
			"9 x-LIST=usertask",
		}},
		"keys": {`
env:
- {name: PW, valueFrom: {secretKeyRef: {name: redis, key: REDIS_PASSWORD}}}
- {name: LIST, valueFrom: {configMapKeyRef: {name: settings, key: LIST}}}
- {name: BOTH, value: "$(LIST):$(PW)"}
`, []string{
			"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379", "PW=" + password, "LIST=usertask", "BOTH=usertask:" + password,
		}},
		"optional and missing": {`
envFrom:
- secretRef: {name: none, optional: true}
- configMapRef: {name: none, optional: true}
env:
- {name: REDIS_HOST, valueFrom: {secretKeyRef: {name: none, key: x, optional: true}}}
- {name: B, valueFrom: {secretKeyRef: {name: redis, key: none, optional: true}}}
- {name: C, valueFrom: {configMapKeyRef: {name: none, key: x, optional: true}}}
- {name: D, valueFrom: {configMapKeyRef: {name: settings, key: none, optional: true}}}
`, []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379"}},
		"fields of the Pod": {`
env:
- {name: NAME, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}
- {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app.kubernetes.io/name']"}}}
- {name: NONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['none']"}}}
- {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
- {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: HOSTS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
- {name: ALL, value: "$(NAMESPACE)/$(NAME)"}
`, []string{
			"REDIS_HOST=127.0.0.1", "REDIS_PORT=6379", "NAME=job-x", "NAMESPACE=shop", "UID=uid-1", "APP=runner", "NONE=",
			"NOTE=hello", "NODE=laptop", "ACCOUNT=default", "IP=127.0.0.1", "IPS=127.0.0.1,::1", "HOST=127.0.0.2",
			"HOSTS=127.0.0.2", "ALL=shop/job-x",
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, err := ForContainer(t.Context(), newStore(), newPod(), container(t, test.manifest), base)
			if err != nil {
				t.Fatal(err)
			}
			if got := env.Environ(nil); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if got, want := len(env.Map()), len(test.want); got != want {
				t.Errorf("the map has %d variables; want %d", got, want)
			}
		})
	}
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		manifest string
		want     []string
	}{
		"no Secret": {
			`{name: main, env: [{name: PW, valueFrom: {secretKeyRef: {name: none, key: pw}}}]}`,
			[]string{`container "main"`, `env PW`, `Secret "shop/none" does not exist`, `optional: true`},
		},
		"no key of the Secret": {
			`{name: main, env: [{name: PW, valueFrom: {secretKeyRef: {name: redis, key: pw}}}]}`,
			[]string{`container "main"`, `env PW`, `Secret "shop/redis" has no key "pw"`, `"REDIS_HOST", "REDIS_PASSWORD"`},
		},
		"no keys at all": {
			`{name: main, env: [{name: PW, valueFrom: {secretKeyRef: {name: empty, key: pw}}}]}`,
			[]string{`Secret "shop/empty" has no key "pw"; it has no keys`},
		},
		"no ConfigMap": {
			`{name: main, envFrom: [{secretRef: {name: redis}}, {configMapRef: {name: none}}]}`,
			[]string{`container "main"`, `envFrom[1]`, `ConfigMap "shop/none" does not exist`},
		},
		"no key of the ConfigMap": {
			`{name: main, env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: x}}}]}`,
			[]string{`env X`, `ConfigMap "shop/settings" has no key "x"`, `"LEVEL", "LIST"`},
		},
		"NUL": {
			`{name: main, env: [{name: BIN, valueFrom: {secretKeyRef: {name: nul, key: BIN}}}]}`,
			[]string{`container "main"`, `env BIN`, `NUL`, `base64`},
		},
		"NUL in envFrom": {
			`{name: main, envFrom: [{secretRef: {name: nul}}]}`,
			[]string{`container "main"`, `envFrom[0]`, `key "BIN" of Secret "shop/nul"`, `NUL`},
		},
		"NUL in the manifest": {
			`{name: main, env: [{name: BIN, value: "a\0b"}]}`, []string{`env BIN`, `NUL`},
		},
		"resources": {
			`{name: main, env: [{name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]}`,
			[]string{`env MEM`, `resourceFieldRef "limits.memory"`, `a process has no resource`},
		},
		"a file": {
			`{name: main, env: [{name: F, valueFrom: {fileKeyRef: {volumeName: v, path: p.env, key: k}}}]}`,
			[]string{`env F`, `fileKeyRef "p.env"`, `no volumes`},
		},
		"all labels": {
			`{name: main, env: [{name: L, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]}`,
			[]string{`env L`, `"metadata.labels"`, `metadata.labels['KEY']`},
		},
		"a wrong quote": {
			`{name: main, env: [{name: L, valueFrom: {fieldRef: {fieldPath: 'metadata.labels["x"]'}}}]}`,
			[]string{`env L`, `must be one of`},
		},
		"a subscript where there is none": {
			`{name: main, env: [{name: L, valueFrom: {fieldRef: {fieldPath: "metadata.name['x']"}}}]}`,
			[]string{`env L`, `must be one of`},
		},
		"a wrong version": {
			`{name: main, env: [{name: L, valueFrom: {fieldRef: {apiVersion: v2, fieldPath: metadata.name}}}]}`,
			[]string{`env L`, `"v2"`, `must be v1`},
		},
		"no source": {
			`{name: main, env: [{name: L, valueFrom: {}}]}`, []string{`env L`, `names 0 sources`},
		},
		"two sources": {
			`{name: main, env: [{name: L, valueFrom: {fieldRef: {fieldPath: metadata.name}, ` +
				`configMapKeyRef: {name: settings, key: LIST}}}]}`,
			[]string{`env L`, `names 2 sources`},
		},
		"value and source": {
			`{name: main, env: [{name: L, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}`,
			[]string{`env L`, `both value and valueFrom`},
		},
		"an empty envFrom": {`{name: main, envFrom: [{prefix: x}]}`, []string{`envFrom[0]`, `neither`}},
		"a double envFrom": {
			`{name: main, envFrom: [{secretRef: {name: redis}, configMapRef: {name: settings}}]}`,
			[]string{`envFrom[0]`, `both`},
		},
		"an equals sign in a name": {`{name: main, env: [{name: "A=B", value: x}]}`, []string{`env "A=B"`, `printable`}},
		"no name":                  {`{name: main, env: [{value: x}]}`, []string{`env ""`, `printable`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ForContainer(t.Context(), newStore(), newPod(), container(t, test.manifest), nil)
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

func TestAnUnreadableObjectIsNotAMissingOne(t *testing.T) {
	t.Parallel()
	objects := newStore()
	objects.broken = errors.New("connection refused")
	for _, manifest := range []string{
		`{name: main, envFrom: [{secretRef: {name: redis, optional: true}}]}`,
		`{name: main, envFrom: [{configMapRef: {name: redis, optional: true}}]}`,
		`{name: main, env: [{name: X, valueFrom: {secretKeyRef: {name: redis, key: x, optional: true}}}]}`,
		`{name: main, env: [{name: X, valueFrom: {configMapKeyRef: {name: redis, key: x, optional: true}}}]}`,
	} {
		_, err := ForContainer(t.Context(), objects, newPod(), container(t, manifest), nil)
		if !errors.Is(err, objects.broken) {
			t.Errorf("%s: got %v; want the store's error", manifest, err)
		}
	}
	objects.broken = nil
	_, err := ForContainer(t.Context(), objects, newPod(), container(t, `{envFrom: [{secretRef: {name: gone}}]}`), nil)
	if !apierrors.IsNotFound(err) {
		t.Errorf("a missing Secret gives %v, which does not say that it is missing", err)
	}
}

func TestSkippedKeys(t *testing.T) {
	t.Parallel()
	manifest := `{envFrom: [{secretRef: {name: odd}}, {prefix: P_, secretRef: {name: odd}}, {secretRef: {name: redis}}]}`
	env, err := ForContainer(t.Context(), newStore(), newPod(), container(t, manifest), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Skipped{
		{Source: `Secret "shop/odd"`, Keys: []string{"", "a=b", "ünï"}},
		{Source: `Secret "shop/odd"`, Keys: []string{"a=b", "ünï"}},
	}
	if got := env.Skipped(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q; want %q", got, want)
	}
	if got := env.Environ(nil); !slices.Equal(got, []string{
		"ok=2", "P_=4", "P_ok=2", "REDIS_HOST=db", "REDIS_PASSWORD=" + password,
	}) {
		t.Errorf("got %q", got)
	}
}

func TestEachObjectIsReadOnce(t *testing.T) {
	t.Parallel()
	objects := newStore()
	manifest := `
envFrom: [{secretRef: {name: redis}}, {prefix: A_, secretRef: {name: redis}}, {configMapRef: {name: settings}}]
env:
- {name: X, valueFrom: {secretKeyRef: {name: redis, key: REDIS_HOST}}}
- {name: Y, valueFrom: {configMapKeyRef: {name: settings, key: LIST}}}`
	if _, err := ForContainer(t.Context(), objects, newPod(), container(t, manifest), nil); err != nil {
		t.Fatal(err)
	}
	for object, reads := range objects.reads {
		if reads != 1 {
			t.Errorf("%s was read %d times", object, reads)
		}
	}
}

// Each variable doubles the one before it: 64 of them would need more memory than there is in the world.
func TestDoublingVariablesAreRefused(t *testing.T) {
	t.Parallel()
	c := &corev1.Container{Name: "main", Env: []corev1.EnvVar{{Name: "V0", Value: strings.Repeat("x", 64)}}}
	for i := 1; i < 64; i++ {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("V", i), Value: fmt.Sprintf("$(V%d)$(V%d)", i-1, i-1)})
	}
	_, err := ForContainer(t.Context(), newStore(), newPod(), c, nil)
	if err == nil || !strings.Contains(err.Error(), `env V`) || !strings.Contains(err.Error(), "more than a process") {
		t.Errorf("got %v", err)
	}
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{*c}}}
	if _, err := ForTemplate(t.Context(), newStore(), "shop", template, "", nil); err == nil {
		t.Error("a template's are not refused")
	}
}

func TestTheWholeEnvironmentHasALimit(t *testing.T) {
	t.Parallel()
	c := &corev1.Container{Name: "main"}
	for i := range 100 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("V", i), Value: strings.Repeat("x", 100_000)})
	}
	_, err := ForContainer(t.Context(), newStore(), newPod(), c, nil)
	if err == nil || !strings.Contains(err.Error(), "env V62") || strings.Contains(err.Error(), "xxxx") {
		t.Errorf("got %v", err)
	}
}

func TestForTemplate(t *testing.T) {
	t.Parallel()
	template := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"known": "yes"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "worker",
			InitContainers:     []corev1.Container{{Name: "init"}},
			Containers: []corev1.Container{
				{Name: "first", Env: []corev1.EnvVar{{Name: "WHO", Value: "first"}}},
				*container(t, `
name: second
envFrom: [{secretRef: {name: redis}}]
env:
- {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: KNOWN, valueFrom: {fieldRef: {fieldPath: "metadata.labels['known']"}}}
- {name: UNKNOWN, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['unknown']"}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
- {name: FILE, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}
- {name: ADDRESS, value: "$(REDIS_HOST):$(REDIS_PORT)/$(NAME)"}
`),
			},
		},
	}
	base := []Variable{{"REDIS_PORT", "6379"}}
	tests := map[string]map[string]string{
		"":      {"REDIS_PORT": "6379", "WHO": "first"},
		"first": {"REDIS_PORT": "6379", "WHO": "first"},
		"second": {
			"REDIS_PORT": "6379", "REDIS_HOST": "db", "REDIS_PASSWORD": password, "NAMESPACE": "shop", "KNOWN": "yes",
			"ACCOUNT": "worker", "ADDRESS": "db:6379/$(NAME)",
		},
	}
	for name, want := range tests {
		env, err := ForTemplate(t.Context(), newStore(), "shop", template, name, base)
		if err != nil {
			t.Fatal(err)
		}
		if got := env.Map(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("container %q: got %q; want %q", name, got, want)
		}
	}

	_, err := ForTemplate(t.Context(), newStore(), "shop", template, "init", base)
	if err == nil || !strings.Contains(err.Error(), `no container "init"; its containers are "first", "second"`) {
		t.Errorf("an unknown container: %v", err)
	}
	if _, err = ForTemplate(t.Context(), newStore(), "shop", &corev1.PodTemplateSpec{}, "", nil); err == nil {
		t.Error("a template without containers is no error")
	}
}

func TestEnvironPutsTheInheritedFirst(t *testing.T) {
	t.Parallel()
	var c corev1.Container
	c.Env = []corev1.EnvVar{{Name: "HOME", Value: "/job"}, {Name: "SEES", Value: "$(PATH)"}}
	env, err := ForContainer(t.Context(), newStore(), newPod(), &c, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := env.Environ([]string{"PATH=/bin", "HOME=/root", "broken", "=C:=x", "PATH=/usr/bin", "E="})
	if want := []string{"PATH=/usr/bin", "E=", "HOME=/job", "SEES=$(PATH)"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	if value, found := env.Lookup("HOME"); !found || value != "/job" {
		t.Errorf("HOME is %q, %t", value, found)
	}
	if value, found := new(Env).Lookup("HOME"); found || value != "" {
		t.Errorf("an empty environment has HOME %q", value)
	}
}

func TestArgv(t *testing.T) {
	t.Parallel()
	env, err := ForContainer(t.Context(), newStore(), newPod(), container(t, `
env: [{name: A, value: one}, {name: S, value: "a b"}, {name: E, value: ""}]`), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		command, args, want []string
		problem             string
	}{
		{command: []string{"sh", "-c", "echo $(A)"}, args: []string{"$(S)", "$$(A)", "$(E)", "$HOME"},
			want: []string{"sh", "-c", "echo one", "a b", "$(A)", "", "$HOME"}},
		{command: []string{"$(A)"}, want: []string{"one"}},
		{args: []string{"x"}, problem: "has no command"},
		{command: []string{"$(E)"}, problem: "command[0]: is empty"},
		{command: []string{"sh", "a\x00b"}, problem: "command[1]: contains a NUL byte"},
		{command: []string{"sh"}, args: []string{"ok", "a\x00b"}, problem: "args[1]: contains a NUL byte"},
		{command: []string{"sh"}, args: []string{strings.Repeat("x", maxTotal+1)}, problem: "args[0]: with all"},
		{command: []string{"sh"}, args: slices.Repeat([]string{strings.Repeat("$(A)", 20_000)}, 200), problem: "args[104]"},
	}
	for _, test := range tests {
		got, err := Argv(&corev1.Container{Name: "main", Command: test.command, Args: test.args}, env)
		if test.problem == "" {
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%q %q: got %q, %v; want %q", test.command, test.args, got, err, test.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), `container "main": `) ||
			!strings.Contains(err.Error(), test.problem) {
			t.Errorf("got %v; want an error that says %q", err, test.problem)
		}
	}
}

func TestQuotedListsTenNames(t *testing.T) {
	t.Parallel()
	names := slices.Repeat([]string{"k"}, 12)
	if got := quoted(names); strings.Count(got, `"k"`) != 10 || !strings.HasSuffix(got, "and 2 more") {
		t.Errorf("got %s", got)
	}
}
