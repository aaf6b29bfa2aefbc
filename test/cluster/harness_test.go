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
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/crds"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/scaledjob"
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
		if err := errors.Join(build(program, 0), build(operatorProgram, min(1, len(raceFlags)), raceFlags...)); err != nil {
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
	made := &cluster{Cluster: plane, t: t, namespace: plane.Namespace(t), client: c}
	made.eventually("word of the definitions for kubectl", made.definitionsAreTold)
	return made
}

// definitionsAreTold tells whether the document about all groups of resources has the definitions: the API server makes
// it some time after it serves them, and kubectl knows no kinds but those in it.
func (c *cluster) definitionsAreTold() (ok bool, state string) {
	_, lists, err := c.Client().Discovery().ServerGroupsAndResources()
	kinds := map[string]bool{}
	for _, list := range lists {
		if list.GroupVersion == v1alpha1.GroupVersion.String() {
			for i := range list.APIResources {
				kinds[list.APIResources[i].Kind] = true
			}
		}
	}
	return len(kinds) == len(crds.Definitions()), fmt.Sprintf("%v, %v", kinds, err)
}

// Limits of waiting. They are there so that a test which hangs ends: where it matters how long something takes, the
// test finds that out in another way.
const (
	// patience is how long one step may take, on a machine that does much else at the same time.
	patience = 5 * time.Minute
	// unanswered is how long a request is made again whose answer does not come: the API server may have been started
	// anew just now.
	unanswered = time.Minute
)

// ask makes a request that changes nothing, or that changes nothing more when it is made again. It fails the test when
// the API server refuses it, or does not answer for long.
func (c *cluster) ask(what string, request func(ctx context.Context) error) {
	c.t.Helper()
	deadline := time.Now().Add(unanswered)
	for {
		err := request(c.t.Context())
		if err == nil {
			return
		}
		if status := apierrors.APIStatus(nil); errors.As(err, &status) &&
			status.Status().Code < http.StatusInternalServerError || time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// list lists the objects of that type in the test's namespace.
func (c *cluster) list(objects client.ObjectList) {
	c.t.Helper()
	c.ask(fmt.Sprintf("list %T", objects), func(ctx context.Context) error {
		return c.client.List(ctx, objects, client.InNamespace(c.namespace))
	})
}

// create makes an object in the test's namespace, under its name.
func (c *cluster) create(object client.Object) {
	c.t.Helper()
	object.SetNamespace(c.namespace)
	again := false
	c.ask(fmt.Sprintf("create %T %s", object, object.GetName()), func(ctx context.Context) error {
		err := c.client.Create(ctx, object)
		if again && apierrors.IsAlreadyExists(err) {
			return nil // an answer was lost
		}
		again = true
		return err
	})
}

// kubectl runs a command in the test's namespace and returns what it printed.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.apply("", args...)
}

// apply runs a command with that input in the test's namespace.
func (c *cluster) apply(input string, args ...string) string {
	c.t.Helper()
	deadline := time.Now().Add(unanswered)
	for {
		output, err := c.KubectlInput(c.t.Context(), input, append([]string{"--namespace", c.namespace}, args...)...)
		if err == nil {
			return string(output)
		}
		// Such a request was not sent: the server has accepted no connection, or kept it waiting for its handshake.
		if !strings.Contains(err.Error(), "Unable to connect to the server") || time.Now().After(deadline) {
			c.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
		}
	}
}

// jobs returns the Jobs of the test's namespace.
func (c *cluster) jobs() []batchv1.Job {
	c.t.Helper()
	var list batchv1.JobList
	c.list(&list)
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
	c.ask("get ScaledJob "+name, func(ctx context.Context) error {
		return c.client.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, sj)
	})
	return sj
}

// condition waits until a condition has the status, and returns it.
func (c *cluster) condition(name string, kind v1alpha1.ConditionType, status metav1.ConditionStatus) v1alpha1.Condition {
	c.t.Helper()
	var condition v1alpha1.Condition
	c.eventually(fmt.Sprintf("%s of %s being %s", kind, name, status), func() (bool, string) {
		condition = c.scaledJob(name).Status.Conditions.Get(kind)
		return condition.Status == status, fmt.Sprintf("%+v", condition)
	})
	return condition
}

// events returns how often an event with that reason was told of the object, and the last message.
func (c *cluster) events(name, reason string) (count int, message string) {
	c.t.Helper()
	var list corev1.EventList
	c.list(&list)
	for _, event := range list.Items {
		if event.InvolvedObject.Name == name && event.Reason == reason {
			count += int(event.Count)
			message = event.Message
		}
	}
	return count, message
}

// fewSurplus wants few Jobs, with delivery by pop, to be more than the items. Where the machine holds a runner up for
// longer than the operator has patience, which may be no more than a second, its item counts as one that nobody takes:
// another Job is started, which may find none. If Jobs owed nothing there would be about one such Job for each item.
func (c *cluster) fewSurplus(jobs, items int) {
	c.t.Helper()
	if jobs > 2+items/50 {
		c.t.Errorf("%d Jobs more than the %d items", jobs, items)
	} else if jobs > 0 {
		c.t.Logf("%d Jobs more than the %d items: runners were late", jobs, items)
	}
}

// eventually waits until the condition holds; the text says how things stand.
func (c *cluster) eventually(what string, condition func() (bool, string)) {
	c.t.Helper()
	c.progresses(what, func() (bool, int, string) {
		ok, state := condition()
		return ok, 0, state
	})
}

// progresses waits until the condition holds, however long that takes: what takes long depends on the machine. It gives
// up when the number, of what there was at the most, has not grown for long.
func (c *cluster) progresses(what string, condition func() (ok bool, done int, state string)) {
	c.t.Helper()
	most, deadline := math.MinInt, time.Time{}
	for {
		ok, done, state := condition()
		if ok {
			return
		}
		if done > most {
			most, deadline = done, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s, and nothing new for %v: %s", what, patience, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// operator is one process of the program as an operator.
type operator struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *lockedBuffer
	ended chan struct{}
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
	o := &operator{t: c.t, log: &lockedBuffer{}, ended: make(chan struct{})}
	args := append([]string{
		"operator", "--kubeconfig", c.KubeconfigFile(), "--namespaces", c.namespace, "--webhook=false",
		// Any free ports: the log says which.
		"--metrics-bind-address", "127.0.0.1:0", "--health-probe-bind-address", "127.0.0.1:0",
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
			c.t.Logf("the operator %d said:\n%s", o.cmd.Process.Pid, o.log)
		}
	})
	return o
}

var serving = regexp.MustCompile(`msg="serving (health checks|metrics)" address=(\S+)`)

// address returns where the operator serves "metrics" or "health checks"; nothing before it does.
func (o *operator) address(of string) string {
	for _, found := range serving.FindAllStringSubmatch(o.log.String(), -1) {
		if found[1] == of {
			return found[2]
		}
	}
	return ""
}

func (o *operator) waitReady() {
	o.t.Helper()
	deadline := time.Now().Add(patience)
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
	address := o.address("health checks")
	if address == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", http.NoBody)
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
	request, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, "http://"+o.address("metrics")+"/metrics", http.NoBody)
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
	c.eventually(fmt.Sprintf("%s%q of %v", name, values, want), func() (bool, string) {
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
	case <-time.After(time.Minute):
		_ = o.cmd.Process.Kill()
		<-o.ended
		o.t.Errorf("the operator did not end within a minute of %v", signal)
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
