package controlplane_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/test/controlplane"
)

// childVar makes the test's binary start a control plane and wait to be killed.
const childVar = "OFFBOARD_TEST_CONTROLPLANE_CHILD"

var shared controlplane.Shared

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		runChild(dir)
	}
	code := shared.Main(m)
	if err := leaks(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// leaks returns an error when goroutines are left. Those of connections to servers that have been killed end when they
// come to notice that.
func leaks() error {
	deadline := time.Now().Add(time.Minute)
	for {
		if err := goleak.Find(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func runChild(dir string) {
	if _, err := controlplane.Start(context.Background(), controlplane.Options{Dir: dir, Kubelet: true}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	first, second := controlplane.ForTest(t, controlplane.Options{}), controlplane.ForTest(t, controlplane.Options{})
	createConfigMap(t, first, "only-here")
	_, err := second.Client().CoreV1().ConfigMaps("default").Get(t.Context(), "only-here", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}

func createConfigMap(t *testing.T, c *controlplane.Cluster, name string) {
	t.Helper()
	_, err := c.Client().CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// The version is what clients and charts decide by.
func TestVersion(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	version, err := c.Client().Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion != "v1.35.4" || version.Major != "1" || version.Minor != "35" {
		t.Errorf("got %+v", version)
	}
	output, err := c.Kubectl(t.Context(), "version", "--output=json")
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		ClientVersion, ServerVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal(output, &said); err != nil {
		t.Fatal(err)
	}
	if said.ClientVersion.GitVersion != "v1.35.4" || said.ServerVersion.GitVersion != "v1.35.4" {
		t.Errorf("kubectl says %+v", said)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	c := controlplane.ForTest(t, controlplane.Options{})
	createConfigMap(t, c, "kept")
	for range 2 {
		if err := c.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		_, err := c.Client().CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while it is stopped: got %v, want connection refused", err)
		}
		if err := c.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client().CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
			t.Errorf("after its return: %v", err)
		}
	}
	// The controllers have come back, too: one of them makes the service account.
	c.Namespace(t)
}

func TestUsers(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	namespace := c.Namespace(t)
	config, err := c.UserConfig("alice", "developers")
	if err != nil {
		t.Fatal(err)
	}
	alice, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list := func() error {
		_, err := alice.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := list(); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "alice" cannot list`) {
		t.Errorf("without a grant: got %v", err)
	}
	_, err = c.Client().RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "developers"}},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", APIGroup: rbacv1.GroupName, Name: "view"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grant holds", list)

	stranger := rest.CopyConfig(config)
	stranger.CAData = nil
	client, err := kubernetes.NewForConfig(stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Discovery().ServerVersion(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the authority: got %v", err)
	}
}

func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 3 minutes: %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestUserKubeconfig(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	path, err := c.UserKubeconfig("bob", "operators")
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), c.KubectlPath(), "--kubeconfig="+path, "auth", "whoami",
		"--output=jsonpath={.status.userInfo.username} {.status.userInfo.groups}").CombinedOutput()
	if err != nil || string(output) != `bob ["operators","system:authenticated"]` {
		t.Errorf("got %s, %v", output, err)
	}
}

func TestKubectl(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	namespace := c.Namespace(t)
	manifest := `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"user": "me"}}`
	if _, err := c.KubectlInput(t.Context(), manifest, "apply", "--namespace", namespace, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	output, err := c.Kubectl(t.Context(), "get", "secret", "--namespace", namespace, "--output=name")
	if err != nil || string(output) != "secret/login\n" {
		t.Errorf("got %q, %v", output, err)
	}
	_, err = c.Kubectl(t.Context(), "get", "secret", "nowhere", "--namespace", namespace)
	if err == nil || !strings.Contains(err.Error(), `secrets "nowhere" not found`) {
		t.Errorf("got %v", err)
	}
}

func TestFailureSaysWhy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := controlplane.Start(t.Context(), controlplane.Options{Dir: dir, APIServerFlags: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "kube-apiserver ended by itself: exit status 1") ||
		!strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v", err)
	}
}

// It cannot run beside others, whose environment it changes.
func TestMissingProgramsSayWhatBuildsThem(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err == nil || !strings.Contains(err.Error(), "is not built: run scripts/controlplane") {
		t.Errorf("got %v", err)
	}
}
