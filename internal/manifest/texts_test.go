package manifest

import (
	"fmt"
	"strings"
)

const configMapHead = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

// agreeingTexts are objects whose reading differs easily from that of sigs.k8s.io/yaml. All are accepted.
var agreeingTexts = []string{
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, creationTimestamp: null}\ndata: {}\nbinaryData:\n",
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {1: x, true: x, a: ~}}\n" +
		"data: {a: 2001-12-14, b: 0o8, c: .}",
	configMapHead + "data: {a: 1__x, b: \"\\x41\\u00e4\\0\", c: 'it''s', d: 0b2, e: 08.5.1}",
	configMapHead + "data:\n  a: |+\n    x\n\n  b: >-\n    folded\n    text\n  c: plain\n    text\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n" +
		"data: {a: '', b: \"aGk=\", c: \"aGVs\\nbG8=\"}\nstringData: {b: <&>}",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nimmutable: yes\ntype: Opaque\n",
	`apiVersion: v1
kind: ConfigMap
immutable: off
metadata:
  name: a
  creationTimestamp: 2006-01-02T15:04:05Z
  generation: 1e3
  deletionGracePeriodSeconds: 0x1F
  managedFields:
  - {fieldsV1: {f:a: {".": {}, <: [1, 1.5, yes]}}, time: 2006-01-02T15:04:05Z}
`,
	`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "\ud83d\ude00\/\ud800"}}`,
	"apiVersion: keda.sh/v1alpha1\nkind: ClusterTriggerAuthentication\nmetadata: {name: a, namespace: b}\n" +
		"spec: {env: []}\nstatus: {scaledjobs: b}\n",
	`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: a}
spec:
  triggers: []
  jobTargetRef: {template: {spec: {containers: []}}}
  delivery:
    mode: claim
    env: ~
    attempts: 0x3
    backoff: {initial: 1m30s, factor: 18446744073709551615, max: "1.5h", jitter: .2}
    deadLetter: no
`,
	`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: &m {name: a}
spec:
  triggers: [{type: redis, metadata: {a: !!str 5}}]
  jobTargetRef:
    activeDeadlineSeconds: 9007199254740992.0
    backoffLimit: 0_7
    parallelism: 010
    template: !!map
      spec:
        terminationGracePeriodSeconds: -0b11
        tolerations: [{tolerationSeconds: 1.0, key: k}]
        volumes:
        - {name: a, emptyDir: {sizeLimit: 1.5e3}, configMap: null}
        - &v {name: b, secret: {secretName: a, defaultMode: 0644}}
        - {<<: [{name: c}, *v]}
        containers:
        - name: a
          resources: {limits: {cpu: 1, memory: 1Gi, x: 0.1, w: "2", z: ~}}
          livenessProbe: {httpGet: {port: 80}}
          readinessProbe: {tcpSocket: {port: http}}
          env: [{name: A, value: ""}, {name: B, value: }]
          args: [~x, "null", '5', -, a:b]
`,
}

var scalarTexts = strings.Fields(`
	~ null yes N on Off true 5 -5 +5 0x1f 0o17 017 0b101 -0b11 0b-1 1_000 18446744073709551615 18446744073709551616
	-9223372036854775808 1.5 1e3 .5 5. +.inf .nan 1e999 2001-01-01 1:30 ._5 .. - + 0b 0x _1 1_ << = ٣`)

// hostileTexts are built to crash, to hang or to fill the memory.
func hostileTexts() []string {
	laughs := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  managedFields:\n  - fieldsV1:\n      a: &a [x, x, x, x, x]\n"
	merges := "apiVersion: v1\nkind: ConfigMap\na: &a {}\n"
	for c := 'b'; c <= 'z'; c++ {
		before := string(c - 1)
		laughs += fmt.Sprintf("      %c: &%c [%s*%s]\n", c, c, strings.Repeat("*"+before+", ", 8), before)
		merges += fmt.Sprintf("%c: &%c {<<: [%s*%s]}\n", c, c, strings.Repeat("*"+before+", ", 8), before)
	}
	texts := []string{
		laughs, merges + "metadata: {<<: *z}\n",
		strings.Repeat("[", 20_000), strings.Repeat("{a: ", 5_000), strings.Repeat("- ", 5_000), strings.Repeat("? ", 5_000),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {managedFields: [{fieldsV1: " + strings.Repeat("{a: ", 5_000),
		"apiVersion: v1\nkind: List\nitems: " + strings.Repeat("[", 500) + strings.Repeat("]", 500),
		strings.Repeat("apiVersion: v1\nkind: List\nitems:\n- ", 3),
		"&a [*a]", "&a {*a: *a}", "*a", "<<: *a", "&a {<<: *a}",
		"apiVersion: v1\nkind: List\nitems: &a [{apiVersion: v1, kind: List, items: *a}]",
		"\ufeff\ufeffa", "\xff\xfea\x00", "%YAML 1.1\n---\na", "%YAML 9.9\n---\na", "%TAG ! !\n%x\n", "---\n...\n---\n...\n",
		"--- |\n ---\n---", "a\r---\rb", "- \t- a\n\t- b", ": : :", "!!binary a", "!<x> y", "'", "\"", "|", ">", "@", "`",
		"a: b: c", "key: [a, b", "\u2028\u0085", "#", "--- #",
	}
	for _, rest := range []string{
		"data: &a {<<: [*a]}", "data: {*a : b}", "data: {<<: [[a]]}", "? [a]\n: b", "data: {!x a: b}", "\x00", "a\xffb",
		"data: {a: \"\\ud800\"}", "data: {a: !!binary gIGC}",
	} {
		texts = append(texts, configMapHead+rest)
	}
	return texts
}
