package charts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// process is the program, run as the container of a release's Deployment says: with its arguments, its environment and its
// service account. Only where it listens is changed, since processes of one machine share its ports.
type process struct {
	account string // user name of the service account
	// webhook is where it serves the webhook. The other servers take any free port, which the log names.
	webhook string
	command *exec.Cmd
	ended   chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// Write collects the log.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(text)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// start starts the operator of a release and waits until it is ready, as its kubelet would.
func (w world) start(namespace, deployment string) *process {
	w.Helper()
	d, err := w.Client().AppsV1().Deployments(namespace).Get(w.Context(), deployment, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	pod := d.Spec.Template.Spec
	container := pod.Containers[0]
	p := &process{
		account: "system:serviceaccount:" + namespace + ":" + pod.ServiceAccountName,
		ended:   make(chan struct{}),
	}
	args := make([]string, 0, len(container.Args)+1)
	for _, arg := range container.Args {
		name, value, _ := strings.Cut(arg, "=")
		switch {
		case !strings.HasPrefix(value, ":"):
		case name == "--webhook-bind-address":
			p.webhook = servertest.FreeAddress(w)
			arg = name + "=" + p.webhook
		case strings.HasSuffix(name, "-bind-address"):
			arg = name + "=127.0.0.1:0"
		}
		args = append(args, arg)
	}
	args = append(args, "--kubeconfig="+w.kubeconfigOf(namespace, pod.ServiceAccountName))
	p.command = exec.Command(program, args...)
	p.command.Env = environment(w, container.Env)
	p.command.Stdout, p.command.Stderr = p, p
	if err := p.command.Start(); err != nil {
		w.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // ProcessState tells how it ended
	}()
	w.Cleanup(func() {
		p.end(w)
		if w.Failed() {
			w.Logf("the operator said:\n%s", p.said())
		}
	})
	w.until("the operator is ready", func(ctx context.Context) (bool, error) {
		select {
		case <-p.ended:
			w.Fatalf("the operator has ended:\n%s", p.said())
		default:
		}
		return p.answers(ctx, "health checks", container.ReadinessProbe.HTTPGet.Path)
	})
	if ok, err := p.answers(w.Context(), "health checks", container.LivenessProbe.HTTPGet.Path); !ok {
		w.Errorf("the operator is ready and not alive: %v", err)
	}
	return p
}

// environment is what the container asks for. Nothing else is in it: the image has none.
func environment(w world, variables []corev1.EnvVar) []string {
	w.Helper()
	env := []string{"HOME=/"}
	for _, variable := range variables {
		if variable.ValueFrom != nil {
			w.Fatalf("variable %s is of %v, which a process does not know", variable.Name, variable.ValueFrom)
		}
		env = append(env, variable.Name+"="+variable.Value)
	}
	return env
}

// kubeconfigOf writes a kubeconfig with what a Pod finds of its service account: a token and its namespace.
func (w world) kubeconfigOf(namespace, account string) string {
	w.Helper()
	token, err := w.Client().CoreV1().ServiceAccounts(namespace).CreateToken(w.Context(), account,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["pod"] = &clientcmdapi.Cluster{
		Server: w.Config().Host, CertificateAuthorityData: w.Config().CAData,
	}
	config.AuthInfos["pod"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["pod"] = &clientcmdapi.Context{Cluster: "pod", AuthInfo: "pod", Namespace: namespace}
	config.CurrentContext = "pod"
	file := filepath.Join(w.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		w.Fatal(err)
	}
	return file
}

// address returns where the server of that name serves, by the log.
func (p *process) address(name string) (string, error) {
	for line := range strings.Lines(p.said()) {
		var entry struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving "+name {
			return entry.Address, nil
		}
	}
	return "", fmt.Errorf("the operator has not said yet where it serves %s", name)
}

// answers tells whether a path of the server of that name gives 200.
func (p *process) answers(ctx context.Context, name, path string) (bool, error) {
	address, err := p.address(name)
	if err != nil {
		return false, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return false, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK, nil
}

// end stops the operator as a kubelet does, and returns its exit code.
func (p *process) end(w world) int {
	w.Helper()
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
		w.Error("the operator did not end within the grace period")
	}
	return p.command.ProcessState.ExitCode()
}

// late is in warnings to which a machine gives rise that keeps the operator or the API server waiting for seconds.
var late = []string{"cannot begin yet", "has lost its Lease", "context deadline exceeded", "handshake timeout"}

// quiet wants a log of JSON without an error, and without a warning but the expected ones. None may tell of a refusal.
func (p *process) quiet(w world, known ...string) {
	w.Helper()
	for line := range strings.Lines(p.said()) {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			w.Errorf("the log has a line that is no JSON (%v): %s", err, line)
		}
		if slices.ContainsFunc(known, func(text string) bool { return strings.Contains(line, text) }) {
			continue
		}
		waited := slices.ContainsFunc(late, func(text string) bool { return strings.Contains(line, text) })
		if entry.Level != "INFO" && !waited || strings.Contains(strings.ToLower(line), "forbidden") {
			w.Errorf("the log has: %s", line)
		}
	}
}
