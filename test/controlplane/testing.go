package controlplane

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// namespaceTimeout bounds the making of a namespace, in which a controller has a part that may have lost its API
	// server just now.
	namespaceTimeout = 3 * time.Minute
	// tailLines is how much of each log a failed test shows.
	tailLines = 30
)

// ForTest starts a control plane for one test and stops it when the test ends. It fails the test when that is not
// possible, or when a component has ended by itself meanwhile; a test that fails shows the ends of the components'
// logs.
func ForTest(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	if options.Dir == "" {
		options.Dir = tb.TempDir()
	}
	c, err := Start(tb.Context(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log(c.LogTails(tailLines))
		}
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Shared is a control plane for all tests of a package, started when the first of them asks for it. It is a package
// variable of the tests, whose TestMain calls Main:
//
//	var shared = controlplane.Shared{Options: controlplane.Options{Kubelet: true}}
//
//	func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		cluster := shared.Cluster(t)
//		namespace := cluster.Namespace(t)
//
// Tests that do not get on with others, for example because they stop the API server, use ForTest instead.
type Shared struct {
	// Options are those of the control plane.
	Options Options

	start   sync.Once
	cluster *Cluster
	err     error
}

// Cluster returns the control plane. It fails the test when it cannot be started.
func (s *Shared) Cluster(tb testing.TB) *Cluster {
	tb.Helper()
	s.start.Do(func() { s.cluster, s.err = Start(context.Background(), s.Options) })
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.cluster
}

// Main runs the tests and stops the control plane, and returns the exit code. When tests fail it shows the ends of the
// components' logs; it fails itself when a component has ended by itself.
func (s *Shared) Main(m *testing.M) int {
	code := m.Run()
	if s.cluster == nil {
		return code
	}
	if code != 0 {
		fmt.Fprint(os.Stderr, s.cluster.LogTails(tailLines))
	}
	if err := s.cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// Namespace makes a namespace with a name of its own for the test, in which Pods can be created, and has it deleted
// when the test ends.
func (c *Cluster) Namespace(tb testing.TB) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), namespaceTimeout)
	defer cancel()
	namespace, err := c.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatalf("make a namespace: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		defer cancel()
		// Nobody waits for its end, and a test that has stopped the API server has other worries.
		if err := c.client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
			tb.Logf("delete namespace %s: %v", namespace.Name, err)
		}
	})
	err = c.until(ctx, "namespace "+namespace.Name+" has its service account", func(ctx context.Context) error {
		return c.serviceAccount(ctx, namespace.Name)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return namespace.Name
}
