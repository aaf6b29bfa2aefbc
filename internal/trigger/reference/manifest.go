package reference

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Manifest returns a ScaledJob with a trigger of the type as its Example has it, with the TriggerAuthentication and the
// Secret that it needs.
func Manifest(t trigger.Type) string {
	var b strings.Builder
	b.WriteString(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  name: worker
spec:
  jobTargetRef:
    template:
      spec:
        restartPolicy: Never
        containers:
          - name: worker
            image: registry.example/worker:1
            command: ["/bin/worker"]
  maxReplicaCount: 10
  triggers:
    - type: ` + t.Name + `
      metadata:
`)
	for _, key := range inOrder(t, t.Example.Metadata) {
		entry(&b, 8, key, t.Example.Metadata[key])
	}
	if len(t.Example.Auth) == 0 {
		return b.String()
	}
	b.WriteString(`      authenticationRef:
        name: worker
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: worker
spec:
  secretTargetRef:
`)
	keys := inOrder(t, t.Example.Auth)
	for _, key := range keys {
		b.WriteString("    - parameter: " + key + "\n      name: worker\n      key: " + key + "\n")
	}
	b.WriteString(`---
apiVersion: v1
kind: Secret
metadata:
  name: worker
stringData:
`)
	for _, key := range keys {
		entry(&b, 2, key, t.Example.Auth[key])
	}
	return b.String()
}

// inOrder returns the keys in the order in which the type declares its parameters, and then those that it does not.
func inOrder(t trigger.Type, entries map[string]string) []string {
	place := func(key string) int {
		return slices.IndexFunc(t.Params, func(p trigger.Param) bool {
			return slices.Contains(p.Keys(), strings.TrimSuffix(key, trigger.EnvSuffix)) || slices.Contains(p.Keys(), key)
		})
	}
	return slices.SortedFunc(maps.Keys(entries), func(a, b string) int {
		// As an unsigned number -1, which stands for none, is the largest.
		return cmp.Or(cmp.Compare(uint(place(a)), uint(place(b))), strings.Compare(a, b))
	})
}

// entry writes one entry of a mapping of texts, indented by so many spaces.
func entry(b *strings.Builder, indent int, key, value string) {
	text, err := yaml.Marshal(map[string]string{key: value})
	if err != nil {
		panic("reference: texts cannot be encoded: " + err.Error()) // they always can
	}
	for line := range strings.Lines(string(text)) {
		b.WriteString(strings.Repeat(" ", indent) + line)
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
