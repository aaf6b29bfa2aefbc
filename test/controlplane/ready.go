package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// readyInterval is how often it is asked whether something is ready.
	readyInterval = 20 * time.Millisecond
	// askTimeout bounds one question, whose answer may be slow on a machine that does much else.
	askTimeout = 20 * time.Second
)

// until waits until the condition holds. It fails when ctx ends, or when a component ends by itself.
func (c *Cluster) until(ctx context.Context, what string, condition func(context.Context) error) error {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		last := condition(ask)
		cancel()
		if last == nil {
			return nil
		}
		if err := c.check(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; at last: %w\n%s", what, ctx.Err(), last, c.LogTails(10))
		case <-ticker.C:
		}
	}
}

// check returns an error if a component has ended by itself.
func (c *Cluster) check() error {
	var failures []error
	for _, part := range c.components() {
		failures = append(failures, part.check())
	}
	return errors.Join(failures...)
}

func (c *Cluster) apiServerReady(ctx context.Context) error {
	return c.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

func (c *Cluster) defaultServiceAccount(ctx context.Context) error {
	return c.serviceAccount(ctx, metav1.NamespaceDefault)
}

// serviceAccount returns an error as long as the namespace has no default service account: without it no Pod can be
// created there.
func (c *Cluster) serviceAccount(ctx context.Context, namespace string) error {
	_, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// nodeReady returns an error as long as the scheduler must not put Pods on the Node.
func (c *Cluster) nodeReady(ctx context.Context) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node %s has the taints %v", NodeName, node.Spec.Taints)
	}
	return nil
}
