package cli

import (
	"context"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/internal/kube/shard"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/test/controlplane"
)

// TestOperatorUsage calls the operator wrongly: it says which flag or variable is wrong, and what would be right.
func TestOperatorUsage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args, env []string
		words     []string
		not       string
	}{
		"no workers": {
			args: []string{"--workers=0"}, words: []string{"--workers is 0", "must be 1 or more"},
		},
		"negative limit": {args: []string{"--max-jobs=-1"}, words: []string{"--max-jobs is -1", "0 for no limit"}},
		"negative limit of a namespace, by a variable": {
			env: []string{"OFFBOARD_MAX_JOBS_PER_NAMESPACE=-2"}, words: []string{"--max-jobs-per-namespace is -2"},
		},
		"no rate": {args: []string{"--max-jobs-per-second=NaN"}, words: []string{"--max-jobs-per-second is NaN", "0.5"}},
		"no workers, by a variable": {
			env: []string{"OFFBOARD_WORKERS=0"}, words: []string{"--workers is 0", "must be 1 or more"},
		},
		"variable is no number": {
			env: []string{"OFFBOARD_CREATE_PARALLEL=many"}, words: []string{`variable OFFBOARD_CREATE_PARALLEL is "many"`},
		},
		"variable is neither true nor false": {
			env: []string{"OFFBOARD_LEADER_ELECT=perhaps"}, words: []string{`variable OFFBOARD_LEADER_ELECT is "perhaps"`},
		},
		"two variables": {
			env:   []string{"OFFBOARD_WORKERS=a", "OFFBOARD_WEBHOOK=b"},
			words: []string{"OFFBOARD_WORKERS", "OFFBOARD_WEBHOOK"},
		},
		"flag is no number": {args: []string{"--workers=many"}, words: []string{"--workers", `"many"`}},
		"flag counts more": {
			args: []string{"--log-level=info", "--workers=0"}, env: []string{"OFFBOARD_LOG_LEVEL=loud", "OFFBOARD_WORKERS=a"},
			words: []string{"--workers is 0"}, not: "OFFBOARD",
		},
		"level":  {args: []string{"--log-level=loud"}, words: []string{`--log-level is "loud"`, "debug, info, warn or error"}},
		"format": {env: []string{"OFFBOARD_LOG_FORMAT=xml"}, words: []string{`--log-format is "xml"`, "json or text"}},
		"selector": {
			args: []string{"--selector=tier in"}, words: []string{`--selector "tier in"`},
		},
		"namespace": {
			env: []string{"OFFBOARD_NAMESPACES=shop,Billing_1"}, words: []string{`--namespaces: "Billing_1" is no name`},
		},
		"address": {
			args: []string{"--metrics-bind-address=8080"}, words: []string{`--metrics-bind-address is "8080"`, ":8080"},
		},
		"port": {
			env:   []string{"OFFBOARD_HEALTH_PROBE_BIND_ADDRESS=:http"},
			words: []string{`--health-probe-bind-address is ":http"`, "host:port"},
		},
		"webhook nowhere": {args: []string{"--webhook-bind-address=0"}, words: []string{`--webhook-bind-address is "0"`}},
		"nobody works":    {args: []string{"--stop-deployment=offboard"}, words: []string{"--stop-deployment", "--release-all"}},
		"no Deployment": {
			args: []string{"--release-all", "--stop-deployment=Off board"}, words: []string{`"Off board" is no name of a Deployment`},
		},
		"argument":     {args: []string{"now"}, words: []string{"now", "operator --help"}},
		"unknown flag": {args: []string{"--worker=3"}, words: []string{"--worker"}},
		"no such kubeconfig": {
			args: []string{"--kubeconfig=/no/such/file"}, words: []string{"no cluster to work on", "/no/such/file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, log syncBuffer
			o := options("/no/such", strings.NewReader(""), &out, &log, append([]string{"operator"}, test.args...)...)
			o.Environ = append(o.Environ, test.env...)
			if code := Execute(t.Context(), o); code != exitUsage {
				t.Errorf("got exit code %d, want %d", code, exitUsage)
			}
			for _, word := range test.words {
				if !strings.Contains(log.String(), word) {
					t.Errorf("got %q, which lacks %q", log.String(), word)
				}
			}
			if test.not != "" && strings.Contains(log.String(), test.not) {
				t.Errorf("got %q", log.String())
			}
		})
	}
}

// operatorProcess is an operator in a process of its own, which signals can end.
type operatorProcess struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    syncBuffer
	health string
	ended  chan struct{}
}

// startOperator starts this test's program as the operator, with nothing in its environment but what is given.
func startOperator(t *testing.T, env []string, args ...string) *operatorProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &operatorProcess{t: t, health: servertest.FreeAddress(t), ended: make(chan struct{})}
	p.cmd = exec.Command(self)
	p.cmd.Args = append([]string{pluginName, "operator", "--metrics-bind-address=127.0.0.1:0", "--webhook=false",
		"--health-probe-bind-address=" + p.health}, args...)
	p.cmd.Env = append([]string{"HOME=" + t.TempDir()}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // ProcessState tells how it ended
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended already
		<-p.ended
		if t.Failed() {
			t.Logf("the operator said:\n%s", p.log.String())
		}
	})
	return p
}

// code waits until the operator has ended and returns its exit code.
func (p *operatorProcess) code(patience time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the operator has not ended within %v", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// fails wants the operator to end by itself with the exit code and the words in its message.
func (p *operatorProcess) fails(code int, words ...string) {
	p.t.Helper()
	if got := p.code(2 * time.Minute); got != code {
		p.t.Errorf("got exit code %d, want %d", got, code)
	}
	for _, word := range words {
		if !strings.Contains(p.log.String(), word) {
			p.t.Errorf("the message lacks %q: %s", word, p.log.String())
		}
	}
}

// ready waits until the operator says that it is.
func (p *operatorProcess) ready() {
	p.t.Helper()
	poll(p.t, "the operator is ready", func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/readyz", http.NoBody)
		if err != nil {
			p.t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// terminate ends the operator as a kubelet does, which it must heed with success and without delay.
func (p *operatorProcess) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	if code := p.code(25 * time.Second); code != exitOK {
		p.t.Errorf("after SIGTERM the operator ended with exit code %d", code)
	}
}

func poll(t *testing.T, what string, holds func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestOperatorWithoutCluster is about what is wrong before there is a cluster.
func TestOperatorWithoutCluster(t *testing.T) {
	t.Parallel()
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		startOperator(t, nil).fails(exitUsage, "there is no cluster to work on: this is no Pod", "--kubeconfig")
	})
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		address := servertest.FreeAddress(t)
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		content := `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}],
			clusters: [{name: a, cluster: {server: "http://` + address + `"}}]}`
		if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, more := range []string{"--install-crds=false", "--install-crds"} {
			startOperator(t, []string{"OFFBOARD_KUBECONFIG=" + kubeconfig}, more).
				fails(exitUnavailable, address, "connection refused")
		}
		startOperator(t, []string{"KUBECONFIG=" + kubeconfig}, "--context=b").
			fails(exitUsage, `no cluster to work on: context "b" does not exist in the kubeconfig, which has a`)
	})
}

// TestOperatorDefinitions begins with a cluster that has nothing of ours.
func TestOperatorDefinitions(t *testing.T) {
	t.Parallel()
	cluster := controlplane.ForTest(t, controlplane.Options{})
	kubeconfig := "--kubeconfig=" + cluster.KubeconfigFile()
	startOperator(t, nil, kubeconfig, "--leader-elect=false").fails(exitFailure,
		"does not know the kind ScaledJob of keda.sh/v1alpha1", "--install-crds", "offboard crds | kubectl apply --server-side -f -")

	p := startOperator(t, []string{"OFFBOARD_INSTALL_CRDS=true"}, kubeconfig, "--leader-elect=false")
	p.ready()
	c := &onCluster{cluster, t, cluster.Namespace(t)}
	c.apply(work(redistest.Start(t, redistest.Options{Password: "secret"})))
	c.eventually("the ScaledJob's condition", func() bool { return c.conditions("usertask") != "" })
	p.terminate()

	busy := "127.0.0.1:" + redistest.Start(t, redistest.Options{}).Port()
	startOperator(t, nil, kubeconfig, "--leader-elect=false", "--metrics-bind-address="+busy).
		fails(exitFailure, "listen for metrics on "+busy, "name another address with --metrics-bind-address")
}

// conditions returns the names of the conditions that a ScaledJob has.
func (c *onCluster) conditions(name string) string {
	c.t.Helper()
	out, err := c.Kubectl(c.t.Context(), "--namespace", c.namespace, "get", "scaledjob", name,
		"-o", "jsonpath={.status.conditions[*].type}")
	if err != nil {
		c.t.Fatal(err)
	}
	return string(out)
}

// TestOperatorScope has ScaledJobs in and out of the operator's namespaces and selector.
func TestOperatorScope(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "secret"})
	first, second, other := newOnCluster(t), newOnCluster(t), newOnCluster(t)
	labelled := func(manifest, name, tier string) string {
		return strings.ReplaceAll(manifest, "metadata: {name: usertask}", "metadata: {name: "+name+", labels: {tier: "+tier+"}}")
	}
	other.apply(labelled(work(server), "elsewhere", "back"))
	for _, c := range []*onCluster{first, second} {
		c.apply(labelled(work(server), "front", "front") + "---\n" + labelled(work(server), "back", "back"))
	}
	p := startOperator(t, []string{"OFFBOARD_SELECTOR=tier=back", "OFFBOARD_NAMESPACES=default"},
		"--kubeconfig="+first.KubeconfigFile(), "--leader-elect=false", "--namespaces="+first.namespace+","+second.namespace)
	p.ready()
	for _, c := range []*onCluster{first, second} {
		c.eventually("the condition of what is in scope", func() bool { return c.conditions("back") != "" })
	}
	for _, c := range []*onCluster{first, second} {
		if got := c.conditions("front"); got != "" {
			t.Errorf("what the selector does not take has the conditions %s", got)
		}
	}
	if got := other.conditions("elsewhere"); got != "" {
		t.Errorf("what is in another namespace has the conditions %s", got)
	}
	p.terminate()
}

// TestOperatorHandOver stops one of two operators that share the work out.
func TestOperatorHandOver(t *testing.T) {
	t.Parallel()
	c := newOnCluster(t)
	flags := []string{
		"--kubeconfig=" + c.KubeconfigFile(), "--namespaces=" + c.namespace, "--leader-election-namespace=" + c.namespace,
	}
	// views are the views under which the replicas act, by their Leases.
	views := func(ctx context.Context) map[string]shard.View {
		leases, err := c.Client().CoordinationV1().Leases(c.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil
		}
		all := map[string]shard.View{}
		for _, lease := range leases.Items {
			all[lease.Name] = shard.ParseView(lease.Annotations["offboard.dev/view"])
		}
		return all
	}
	agree := func(ctx context.Context, replicas int) bool {
		all := views(ctx)
		for _, view := range all {
			if !slices.Equal(view, slices.Sorted(maps.Keys(all))) {
				return false
			}
		}
		return len(all) == replicas
	}
	first := startOperator(t, nil, flags...)
	poll(t, "the first acts alone", func(ctx context.Context) bool { return agree(ctx, 1) })
	second := startOperator(t, nil, flags...)
	second.ready()
	poll(t, "both share the work out", func(ctx context.Context) bool { return agree(ctx, 2) })
	first.terminate()
	// The end of a Lease that is not deleted is waited for.
	if left := views(t.Context()); len(left) != 1 {
		t.Errorf("after the end of the first there are the Leases %v", slices.Collect(maps.Keys(left)))
	}
	poll(t, "the second acts alone", func(ctx context.Context) bool { return agree(ctx, 1) })
	c.apply(work(redistest.Start(t, redistest.Options{Password: "secret"})))
	c.eventually("the ScaledJob's condition", func() bool { return c.conditions("usertask") != "" })
	second.terminate()
}
