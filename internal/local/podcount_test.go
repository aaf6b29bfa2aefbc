package local

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// countsPods has Jobs whose Pods wait for a file, and a ScaledJob that has a Job for each of them and would poll once an
// hour.
const countsPods = `apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: encode}
spec:
  minReplicaCount: 2
  successfulJobsHistoryLimit: 0
  jobTargetRef:
    template:
      metadata: {labels: {app: encoder}}
      spec:
        restartPolicy: Never
        containers: [{name: main, command: [sh, -c, 'while [ ! -e %[1]q ]; do sleep 0.05; done']}]
  triggers: [{type: redis, metadata: {listName: list}}]
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: follow}
spec:
  pollingInterval: 3600
  jobTargetRef:
    template:
      spec: {restartPolicy: Never, containers: [{name: main, command: [sleep, "600"]}]}
  triggers: [{type: kubernetes-workload, metadata: {podSelector: app in (encoder), value: "1"}}]
`

// TestCountsPodsOfThisMachine has a ScaledJob follow the Pods of another one, as it does on a cluster.
func TestCountsPodsOfThisMachine(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "op") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	end := filepath.Join(dir, "end")
	write(t, filepath.Join(dir, "work.yaml"), fmt.Sprintf(countsPods, end))
	e, _ := engine(t, dir)
	count := func(namespace, selector string) trigger.PodCount {
		t.Helper()
		parsed, err := labels.Parse(selector)
		if err != nil {
			t.Fatal(err)
		}
		count, err := e.pods.Count(t.Context(), namespace, parsed)
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	jobs := func(scaledJob string) int {
		t.Helper()
		infos, err := e.Jobs(t.Context(), "default", scaledJob)
		if err != nil {
			t.Fatal(err)
		}
		return len(infos)
	}
	until("Jobs for the Pods", func() bool { return jobs("follow") == 2 })
	for _, test := range []struct {
		namespace, selector string
		want                trigger.PodCount
	}{
		{"default", "app=encoder", trigger.PodCount{Pods: 2, Nodes: 1}},
		{"default", "app notin (encoder), job-name", trigger.PodCount{Pods: 2, Nodes: 1}},
		{"default", "app=other", trigger.PodCount{}},
		{"other", "app=encoder", trigger.PodCount{}},
	} {
		if got := count(test.namespace, test.selector); got != test.want {
			t.Errorf("%q in namespace %s: got %+v, want %+v", test.selector, test.namespace, got, test.want)
		}
	}
	// The minimum is not replaced for as long as the polling interval.
	write(t, end, "")
	until("the end of the Pods", func() bool { return count("default", "app=encoder") == trigger.PodCount{} })
	if got := jobs("follow"); got != 2 {
		t.Errorf("got %d Jobs after the end of the Pods, want 2", got)
	}
}
