// Package cluster runs the built operator against a real Kubernetes control plane, with a kubelet that runs Pods as
// processes, and a real Redis.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// program is the built program, which containers find on their PATH; operatorProgram is the same, with the race detector
// where the tests have it.
var program, operatorProgram string

// programImage is an image whose entry point is the program.
const programImage = "registry.example/offboard:1"

var shared controlplane.Shared

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "offboard-cluster-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program, operatorProgram = filepath.Join(dir, "bin", "offboard"), filepath.Join(dir, "operator", "offboard")
		if err := errors.Join(build(program, 0), build(operatorProgram, len(raceFlags), raceFlags...)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.Options = options()
		// Most of the time these tests wait for something to happen.
		flag.Parse()
		if err := flag.Set("test.parallel", "5"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return shared.Main(m)
	}())
}

// build builds the program; cgo is 1 where the flags need it.
func build(path string, cgo int, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "../../cmd/offboard")...)
	cmd.Env = append(os.Environ(), fmt.Sprint("CGO_ENABLED=", cgo))
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, output)
	}
	return nil
}

// options are those of a control plane on which Pods run.
func options() controlplane.Options {
	return controlplane.Options{
		Kubelet: true, PodEnv: []string{"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "HOME=/"},
		Entrypoints: map[string][]string{programImage: {program}},
	}
}

// cluster is a control plane with the definitions installed, and a namespace of the test's own.
type cluster struct {
	*controlplane.Cluster
	t         *testing.T
	namespace string
	client    client.Client
}

// onShared returns the control plane that the tests share.
func onShared(t *testing.T) *cluster { return use(t, shared.Cluster(t)) }

// onOwn starts a control plane of the test's own, for tests that stop parts of it.
func onOwn(t *testing.T) *cluster { return use(t, controlplane.ForTest(t, options())) }

func use(t *testing.T, plane *controlplane.Cluster) *cluster {
	t.Helper()
	if _, err := crds.Install(t.Context(), plane.Config()); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(plane.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{Cluster: plane, t: t, namespace: plane.Namespace(t), client: c}
}

// kubectl runs a command in the test's namespace and returns what it printed.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.apply("", args...)
}

// apply runs a command with that input in the test's namespace.
func (c *cluster) apply(input string, args ...string) string {
	c.t.Helper()
	output, err := c.KubectlInput(c.t.Context(), input, append([]string{"--namespace", c.namespace}, args...)...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return string(output)
}

// jobs returns the Jobs of the test's namespace.
func (c *cluster) jobs() []batchv1.Job {
	c.t.Helper()
	var list batchv1.JobList
	if err := c.client.List(c.t.Context(), &list, client.InNamespace(c.namespace)); err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// count returns how many Jobs there are, and how many of them have ended well and not.
func (c *cluster) count() (all, complete, failed int) {
	c.t.Helper()
	for _, job := range c.jobs() {
		all++
		switch how, _ := scaledjob.Finished(&job); how {
		case batchv1.JobComplete:
			complete++
		case batchv1.JobFailed:
			failed++
		}
	}
	return all, complete, failed
}

// scaledJob returns a ScaledJob as it is now.
func (c *cluster) scaledJob(name string) *v1alpha1.ScaledJob {
	c.t.Helper()
	sj := &v1alpha1.ScaledJob{}
	if err := c.client.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, sj); err != nil {
		c.t.Fatal(err)
	}
	return sj
}

// condition waits until a condition has the status, and returns it.
func (c *cluster) condition(name string, kind v1alpha1.ConditionType, status metav1.ConditionStatus) v1alpha1.Condition {
	c.t.Helper()
	var condition v1alpha1.Condition
	c.eventually(fmt.Sprintf("%s of %s being %s", kind, name, status), time.Minute, func() (bool, string) {
		condition = c.scaledJob(name).Status.Conditions.Get(kind)
		return condition.Status == status, fmt.Sprintf("%+v", condition)
	})
	return condition
}

// events returns how often an event with that reason was told of the object, and the last message.
func (c *cluster) events(name, reason string) (count int, message string) {
	c.t.Helper()
	var list corev1.EventList
	if err := c.client.List(c.t.Context(), &list, client.InNamespace(c.namespace)); err != nil {
		c.t.Fatal(err)
	}
	for _, event := range list.Items {
		if event.InvolvedObject.Name == name && event.Reason == reason {
			count += int(event.Count)
			message = event.Message
		}
	}
	return count, message
}

// eventually waits until the condition holds; the text says how things stand.
func (c *cluster) eventually(what string, limit time.Duration, condition func() (bool, string)) {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ok, state := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s within %v: %s", what, limit, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// operator is one process of the program as an operator.
type operator struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     *lockedBuffer
	health  string
	metrics string
	ended   chan struct{}
}

// lockedBuffer collects the output of a process.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// start starts an operator for the test's namespace, alone unless flags say otherwise, and waits until it is ready.
func (c *cluster) start(flags ...string) *operator {
	c.t.Helper()
	o := c.launch(append([]string{"--leader-elect=false"}, flags...)...)
	o.waitReady()
	return o
}

// launch starts an operator and waits for nothing.
func (c *cluster) launch(flags ...string) *operator {
	c.t.Helper()
	o := &operator{t: c.t, log: &lockedBuffer{}, health: servertest.FreeAddress(c.t), metrics: servertest.FreeAddress(c.t), ended: make(chan struct{})}
	args := append([]string{
		"operator", "--kubeconfig", c.KubeconfigFile(), "--namespaces", c.namespace, "--webhook=false",
		"--metrics-bind-address", o.metrics, "--health-probe-bind-address", o.health,
		"--leader-election-namespace", c.namespace, "--log-format", "text",
	}, flags...)
	o.cmd = exec.Command(operatorProgram, args...)
	o.cmd.Stdout, o.cmd.Stderr = o.log, o.log
	if err := o.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(o.ended)
		_ = o.cmd.Wait() // ProcessState tells how it ended
	}()
	c.t.Cleanup(func() {
		o.end(syscall.SIGTERM)
		if strings.Contains(o.log.String(), "DATA RACE") {
			c.t.Error("the race detector has found something in the operator")
		}
		if c.t.Failed() {
			c.t.Logf("the operator %s said:\n%s", o.health, o.log)
		}
	})
	return o
}

func (o *operator) waitReady() {
	o.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !o.ready() {
		select {
		case <-o.ended:
			o.t.Fatalf("the operator ended:\n%s", o.log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("the operator is not ready:\n%s", o.log)
		}
	}
}

func (o *operator) ready() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.health+"/readyz", http.NoBody)
	if err != nil {
		o.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// metric returns the value of the one series of the name that has all these values of labels, whichever labels those are;
// it fails the test when there is more than one.
func (o *operator) metric(name string, values ...string) (value float64, found bool) {
	o.t.Helper()
	request, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, "http://"+o.metrics+"/metrics", http.NoBody)
	if err != nil {
		o.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		o.t.Fatalf("%s: %v", response.Status, err)
	}
	for _, series := range families[name].GetMetric() {
		var has []string
		for _, label := range series.GetLabel() {
			has = append(has, label.GetValue())
		}
		if slices.ContainsFunc(values, func(value string) bool { return !slices.Contains(has, value) }) {
			continue
		}
		if found {
			o.t.Fatalf("%s with the labels %q is more than one series", name, values)
		}
		value, found = series.GetGauge().GetValue()+series.GetCounter().GetValue(), true
	}
	return value, found
}

// wantMetric waits until the one series has the value.
func (c *cluster) wantMetric(o *operator, want float64, name string, values ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s%q of %v", name, values, want), 20*time.Second, func() (bool, string) {
		got, found := o.metric(name, values...)
		return found && got == want, fmt.Sprintf("%v, found %v", got, found)
	})
}

// end ends the operator with a signal, waits for that and returns its exit code.
func (o *operator) end(signal syscall.Signal) int {
	o.t.Helper()
	_ = o.cmd.Process.Signal(signal) // it may have ended already
	select {
	case <-o.ended:
	case <-time.After(30 * time.Second):
		_ = o.cmd.Process.Kill()
		<-o.ended
		o.t.Errorf("the operator did not end within 30 s of %v", signal)
	}
	return o.cmd.ProcessState.ExitCode()
}

// manifest is a ScaledJob on a Redis list, whose Jobs take one item each and run a script with it.
type manifest struct {
	name  string // also the list's
	redis string // host:port
	spec  string // further lines of the spec, indented by two
	image string
	shell string
}

func (m manifest) String() string {
	host, port, _ := net.SplitHostPort(m.redis)
	spec := m.spec
	if spec == "" {
		spec = "  scalingStrategy: {strategy: accurate}"
	}
	return fmt.Sprintf(`apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata:
  name: %[1]s
spec:
  pollingInterval: 5
%[2]s
  jobTargetRef:
    backoffLimit: 0
    template:
      spec:
        restartPolicy: Never
        terminationGracePeriodSeconds: 1
        containers:
          - name: main
            image: %[6]q
            command: [offboard, runner, --, sh, -c, %[3]q]
            env:
              - {name: REDIS_HOST, value: %[4]q}
              - {name: REDIS_PORT, value: %[5]q}
              - {name: REDIS_LIST, value: %[1]q}
  triggers:
    - type: redis
      metadata: {hostFromEnv: REDIS_HOST, portFromEnv: REDIS_PORT, listName: %[1]s, listLength: "1"}
`, m.name, spec, m.shell, host, port, cmp.Or(m.image, "registry.example/work:1"))
}

// push appends items to a list.
func push(t *testing.T, redis *redistest.Server, list string, items ...string) {
	t.Helper()
	client := redis.Client()
	if err := client.Do(t.Context(), client.B().Rpush().Key(list).Element(items...).Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

// ledger is a file to which runners write.
type ledger struct {
	t    *testing.T
	path string
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t, filepath.Join(t.TempDir(), "ledger")}
}

// release lets those go that hold.
func (l *ledger) release() {
	l.t.Helper()
	if err := os.WriteFile(l.path+".go", nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// lines returns what was written, line by line.
func (l *ledger) lines() []string {
	l.t.Helper()
	content, err := os.ReadFile(l.path)
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	return strings.Fields(string(content))
}
