package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

var shared = controlplane.Shared{Options: controlplane.Options{Kubelet: true}}

var (
	installOnce sync.Once
	installErr  error
)

// onCluster is a namespace of a control plane, and what commands say of it.
type onCluster struct {
	*controlplane.Cluster
	t         *testing.T
	namespace string
}

func newOnCluster(t *testing.T) *onCluster {
	t.Helper()
	c := shared.Cluster(t)
	installOnce.Do(func() { _, installErr = crds.Install(context.Background(), c.Config()) })
	if installErr != nil {
		t.Fatal(installErr)
	}
	return &onCluster{c, t, c.Namespace(t)}
}

func (c *onCluster) apply(manifest string) {
	c.t.Helper()
	if _, err := c.KubectlInput(c.t.Context(), manifest, "--namespace", c.namespace, "apply", "-f", "-"); err != nil {
		c.t.Fatal(err)
	}
}

// run runs a command on the cluster, in the namespace.
func (c *onCluster) run(args ...string) result {
	return executeContext(c.t.Context(), "/no/such", "",
		append(args, "--kubeconfig", c.KubeconfigFile(), "--namespace", c.namespace)...)
}

// must runs a command that is to succeed and returns what it prints.
func (c *onCluster) must(args ...string) string {
	c.t.Helper()
	got := c.run(args...)
	if got.code != 0 || got.err != "" {
		c.t.Fatalf("%q: got %+v", args, got)
	}
	return got.out
}

func (c *onCluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// work is a ScaledJob with a Redis that needs a password from a Secret.
func work(server *redistest.Server) string {
	return `apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {password: secret}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {name: usertask}
spec:
  maxReplicaCount: 25
  jobTargetRef:
    template: {spec: {restartPolicy: Never, containers: [{name: main, image: i, command: ["true"], env: [
      {name: PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}]}]}}
  triggers: [{type: redis, metadata: {listName: usertask, address: "` + server.Addr() + `", passwordFromEnv: PASSWORD}}]
`
}

// jobOf is a Job as the operator makes it for a ScaledJob.
func jobOf(name, command string) string {
	return `apiVersion: batch/v1
kind: Job
metadata: {name: ` + name + `, labels: {scaledjob.keda.sh/name: usertask}}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {scaledjob.keda.sh/name: usertask}}
    spec: {restartPolicy: Never, containers: [{name: main, image: i, command: [sh, -c, "` + command + `"]}]}
---
`
}

// TestClusterStory looks at work, pushes, pauses and resumes.
func TestClusterStory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	c := newOnCluster(t)
	c.apply(work(server))
	context := "context offboard-test"

	out := c.must("push", "usertask", `{"user": 1}`, "b")
	if want := "pushed 2 items to usertask (" + context + "), which holds 2 now\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	reply := server.Do("LRANGE", "usertask", "0", "-1")
	if got, err := reply.AsStrSlice(); err != nil || !slices.Equal(got, []string{`{"user": 1}`, "b"}) {
		t.Errorf("got %q, %v", got, err)
	}

	c.apply(jobOf("one", "echo hello; echo world") + jobOf("two", "exit 3"))
	c.eventually("the end of the Jobs", func() bool {
		out := c.must("jobs", "--scaledjob", "usertask")
		return strings.Contains(out, "Succeeded") && strings.Contains(out, "Failed")
	})
	lines := strings.Split(c.must("get", "sj/usertask"), "\n")
	row := strings.Fields(lines[1])
	if want := []string{"usertask", "-", "0", "0", "1", "1", "Unknown", "False"}; !slices.Equal(row[:8], want) {
		t.Errorf("got %q, want %q", row, want)
	}
	if out := c.must("jobs", "two"); !slices.Equal(strings.Fields(strings.Split(out, "\n")[1])[:4], []string{"two", "usertask", "Failed", "-"}) {
		t.Errorf("got %s", out)
	}
	if out := c.must("logs", "one"); out != "hello\nworld\n" {
		t.Errorf("got %q", out)
	}
	if out := c.must("logs", "job/one", "-f", "--tail", "1"); out != "world\n" {
		t.Errorf("got %q", out)
	}

	for _, step := range [][2]string{
		{"pause", "paused"}, {"pause", "is already paused"}, {"resume", "resumed"}, {"resume", "is not paused"},
	} {
		if out, want := c.must(step[0], "usertask"), "scaledjob.keda.sh/usertask "+step[1]+" ("+context+")\n"; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
	for args, want := range map[string]result{
		"pause usertsk":          {exitNotFound, "", "offboard: ScaledJob \"usertsk\" does not exist in namespace NS; did you mean usertask?\n"},
		"logs on":                {exitNotFound, "", "offboard: Job \"on\" does not exist in namespace NS; did you mean one?\n"},
		"jobs -s nothing":        {exitNotFound, "", "offboard: ScaledJob \"nothing\" does not exist in namespace NS\n"},
		"push other a":           {exitNotFound, "", "offboard: no ScaledJob reads the queue \"other\"; there is \"usertask\"\n"},
		"get --context nonsense": {exitUsage, "", "offboard: context \"nonsense\" does not exist in the kubeconfig, which has offboard-test\n"},
	} {
		want.err = strings.ReplaceAll(want.err, "NS", c.namespace)
		if got := c.run(strings.Fields(args)...); got != want {
			t.Errorf("%s: got %+v, want %+v", args, got, want)
		}
	}
}

// TestClusterFormats prints machine-readable forms, all namespaces, and completions.
func TestClusterFormats(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	c := newOnCluster(t)
	c.apply(work(server))
	c.apply(jobOf("one", "true"))
	c.eventually("the end of the Job", func() bool { return strings.Contains(c.must("jobs"), "Succeeded") })

	var one struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
		Summary  struct {
			Queue     *float64
			Succeeded int
			State     string
		}
		Events []any
		Pods   []any
	}
	if err := json.Unmarshal([]byte(c.must("get", "usertask", "-o", "json")), &one); err != nil || one.Kind != "ScaledJob" ||
		one.Metadata.Namespace != c.namespace || one.Summary.Queue != nil || one.Summary.Succeeded != 1 || one.Events == nil {
		t.Errorf("got %+v, %v", one, err)
	}
	if err := json.Unmarshal([]byte(c.must("jobs", "one", "-o", "json")), &one); err != nil || one.Kind != "Job" ||
		one.Summary.State != "Succeeded" || len(one.Pods) != 1 {
		t.Errorf("got %+v, %v", one, err)
	}
	if out := c.must("get", "-o", "yaml"); !strings.Contains(out, "kind: ScaledJob\n") || !strings.HasPrefix(out, "apiVersion: v1\n") {
		t.Errorf("got %s", out)
	}
	if out := c.must("get", "-o", "wide"); !strings.Contains(out, "TRIGGERS") || !strings.Contains(out, "redis") {
		t.Errorf("got %s", out)
	}
	if out := c.must("jobs", "-o", "name"); out != "job.batch/one\n" {
		t.Errorf("got %q", out)
	}
	for _, command := range []string{"get", "jobs"} {
		got := executeContext(t.Context(), "/no/such", "", command, "-A", "--kubeconfig", c.KubeconfigFile())
		if got.code != 0 || !strings.Contains(got.out, c.namespace) {
			t.Errorf("%s -A: got %+v", command, got)
		}
	}
	for args, want := range map[string]string{
		"get\x00":               "usertask\n:4\n",
		"logs\x00":              "one\n:4\n",
		"pause\x00":             "usertask\n:4\n",
		"get\x00--context\x00":  "offboard-test\n:4\n",
		"push\x00q\x00-s\x00u":  "usertask\n:4\n",
		"logs\x00one\x00-c\x00": "main\n:4\n",
	} {
		words := strings.Split(args, "\x00")
		flags := []string{"--kubeconfig", c.KubeconfigFile(), "--namespace", c.namespace}
		words = slices.Concat([]string{cobraComplete, words[0]}, flags, words[1:])
		if got := execute(t, "/no/such", "", words...); got.code != 0 || got.out != want {
			t.Errorf("%q: got %+v, want %q", args, got, want)
		}
	}
}

const cobraComplete = "__complete"

// TestClusterWatch sees a change, and ends when it is told to.
func TestClusterWatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	c := newOnCluster(t)
	c.apply(work(server))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errOut syncBuffer
	code := make(chan int, 1)
	go func() {
		code <- Execute(ctx, options("/no/such", nil, &out, &errOut, "get", "-w", "-n", c.namespace, "--kubeconfig", c.KubeconfigFile()))
	}()
	out.waitFor(t, "usertask")
	c.must("pause", "usertask")
	out.waitFor(t, "True")
	cancel()
	if got := <-code; got != exitFailure {
		t.Errorf("exit code %d, %s", got, errOut.String())
	}
}

// TestKubectlPlugin has the real kubectl find and call the program.
func TestKubectlPlugin(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	c := newOnCluster(t)
	c.apply(work(server))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{pluginName, completionName} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	kubectl := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), c.KubectlPath(), args...)
		command.Env = []string{"PATH=" + dir, "HOME=" + dir, "KUBECONFIG=" + c.KubeconfigFile()}
		var stderr bytes.Buffer
		command.Stderr = &stderr
		out, err := command.Output()
		if completes := args[0] == cobraComplete; err != nil || stderr.Len() > 0 && !completes {
			t.Errorf("kubectl %q: %v, %s", args, err, stderr.String())
		}
		return string(out)
	}
	if out := kubectl("plugin", "list", "--name-only"); !strings.Contains(out, pluginName+"\n") {
		t.Errorf("got %q", out)
	}
	if out := kubectl("offboard", "get", "-n", c.namespace); !strings.Contains(out, "usertask") {
		t.Errorf("got %q", out)
	}
	if out := kubectl("offboard", "push", "usertask", "a", "-n", c.namespace); !strings.Contains(out, "which holds 1 now") {
		t.Errorf("got %q", out)
	}
	if out := kubectl("offboard", "pause", "usertask", "--namespace="+c.namespace, "--context", "offboard-test"); !strings.Contains(out, "paused") {
		t.Errorf("got %q", out)
	}
	if out := kubectl("get", "sj", "-n", c.namespace, "-o", `jsonpath={.items[0].metadata.annotations.autoscaling\.keda\.sh/paused}`); out != "true" {
		t.Errorf("got %q", out)
	}
	if out := kubectl("offboard", "jobs", "--help"); !strings.Contains(out, "Usage:\n  kubectl offboard jobs") {
		t.Errorf("got %q", out)
	}
	// A Tab key is not kept waiting: on a busy machine, what is not known soon is not shown.
	c.eventually("the completion", func() bool {
		return strings.Contains(kubectl(cobraComplete, "offboard", "get", "-n", c.namespace, ""), "usertask\n")
	})
}

// TestClusterQueue looks at a queue and steers it, as an operator would have left it that is away.
func TestClusterQueue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	c := newOnCluster(t)
	c.apply(work(server))
	context := "(context offboard-test)"

	c.must("push", "usertask", "runs", "dies", "waits")
	out := c.must("push", "usertask", "later", "--in", "1h", "--unique", "k", "--for", "1h")
	if !strings.HasPrefix(out, "pushed 1 item to usertask "+context+", due in 60m\n") {
		t.Errorf("got %q", out)
	}
	later := strings.Split(out, "\n")[1]
	if got := c.run("push", "usertask", "later", "--unique", "k", "--for", "1h"); got.code != exitRefused ||
		!strings.Contains(got.err, "item "+later+" of usertask holds the unique key") {
		t.Errorf("got %+v", got)
	}
	q := redisqueue.New(scripts{server}, "usertask")
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: c.namespace + "/usertask", Most: 2})
	if err != nil || len(result.Claims) != 2 {
		t.Fatalf("got %+v, %v", result, err)
	}
	runs, dies := result.Claims[0].ID, result.Claims[1].ID
	code := 65
	if _, err := q.Settle(t.Context(), []queue.Settlement{{
		ID: dies, Attempt: 1, Verb: queue.Bury, Failure: &queue.Failure{Reason: "Error", ExitCode: &code, Job: "j", At: time.Now()},
	}}); err != nil {
		t.Fatal(err)
	}
	c.apply(strings.Replace(jobOf("works", "sleep 100"), "metadata: {name: works,", "metadata: {name: works, annotations: {"+
		"offboard.dev/item-id: \""+runs+"\", offboard.dev/attempt: \"1\", offboard.dev/queue: usertask, offboard.dev/item: runs},", 1))
	c.eventually("the Job to run", func() bool {
		out := strings.Join(strings.Fields(c.must("queue", "usertask")), " ")
		return strings.Contains(out, "OUT 1 1 0 1 0 1 0 1 0 ") && strings.Contains(out, runs+" running 1 works ")
	})
	if out := strings.Join(strings.Fields(c.must("jobs")), " "); !strings.Contains(out, "works usertask Running runs ") {
		t.Errorf("got %s", out)
	}
	got := executeContext(t.Context(), "/no/such", "", "queue", "usertask", "-A", "-o", "name", "--state", "dead", "-s", "",
		"--kubeconfig", c.KubeconfigFile())
	if got.code != 0 && !strings.Contains(got.err, "on different servers") { // those of other tests have the name too
		t.Errorf("-A: got %+v", got)
	}

	if got := c.run("release", "usertask", "--yes"); got.code != exitRefused ||
		!strings.Contains(got.err, "item "+runs+", attempt 1: Job "+c.namespace+"/works is Running\n") {
		t.Errorf("got %+v", got)
	}
	if _, err := c.Kubectl(t.Context(), "--namespace", c.namespace, "delete", "job", "works"); err != nil {
		t.Fatal(err)
	}
	if out := c.must("release", "usertask", "--yes"); out != "gave 1 item back to the head of usertask "+context+"\n" {
		t.Errorf("got %q", out)
	}
	if out := c.must("dead", "ls", "usertask", "-o", "name"); out != dies+"\n" {
		t.Errorf("got %q", out)
	}
	if out := c.must("dead", "show", "usertask", dies); !strings.Contains(out, "Exit code:   65\n") {
		t.Errorf("got %s", out)
	}
	if out := c.must("dead", "retry", "usertask", dies); out != "retried 1 dead item of usertask "+context+"\n" {
		t.Errorf("got %q", out)
	}
	reply := server.Do("LRANGE", "usertask", "0", "-1")
	if got, err := reply.AsStrSlice(); err != nil || !slices.Equal(got, []string{"dies", "runs", "waits"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for args, want := range map[string]int{
		"queue other": exitNotFound, "dead show usertask none": exitNotFound, "dead drop usertask none": exitNotFound,
		"queue usertask -s none": exitNotFound,
	} {
		if got := c.run(strings.Fields(args)...); got.code != want || got.err == "" {
			t.Errorf("%s: got %+v, want exit code %d", args, got, want)
		}
	}
}
